graph [
  node [
    id 0
    label "a"
  ]
  node [
    id 1
    label "b"
  ]
  node [
    id 2
    label "c"
  ]
  node [
    id 3
    label "d"
  ]
  edge [
    source 0
    target 1
    weight 2
  ]
  edge [
    source 1
    target 2
    weight 1
  ]
  edge [
    source 0
    target 2
    weight 3
  ]
  edge [
    source 2
    target 3
    weight 0.5
  ]
]
