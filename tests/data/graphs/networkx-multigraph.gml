graph
[
  multigraph 1
  node
  [
    id 1
    label "a"
  ]
  node
  [
    id 2
    label "b"
  ]
  node
  [
    id 3
    label "c"
  ]
  node
  [
    id 4
    label "d"
  ]
  edge
  [
    source 1
    target 2
    weight 1.5
  ]
  edge
  [
    source 1
    target 2
    weight 0.5
  ]
  edge
  [
    source 2
    target 3
    weight 1
  ]
  edge
  [
    source 1
    target 3
    weight 3
  ]
  edge
  [
    source 3
    target 4
    weight 0.5
  ]
]
