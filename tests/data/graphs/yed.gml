Creator	"yFiles"
Version	"2.18"
graph
[
  directed 0
  node
  [
    id 0
    label "a"
    graphics
    [
      x 1.0
      y 2.0
      type "rectangle"
      fill "#FFCC00"
    ]
  ]
  node
  [
    id 1
    label "b"
  ]
  node
  [
    id 2
    label "c"
  ]
  node
  [
    id 3
    label "d"
  ]
  edge
  [
    source 0
    target 1
  ]
  edge
  [
    source 1
    target 2
  ]
  edge
  [
    source 0
    target 2
  ]
  edge
  [
    source 2
    target 3
  ]
]
