Creator "igraph version 1.3.5 Mon Jul  4 12:00:00 2022"
Version 1
graph
[
  directed 0
  node
  [
    id 0
    name "a"
  ]
  node
  [
    id 1
    name "b"
  ]
  node
  [
    id 2
    name "c"
  ]
  node
  [
    id 3
    name "d"
  ]
  edge
  [
    source 0
    target 1
    weight 2e-05
  ]
  edge
  [
    source 1
    target 2
    weight 1e-05
  ]
  edge
  [
    source 0
    target 2
    weight 3e-05
  ]
  edge
  [
    source 2
    target 3
    weight 0.5e-05
  ]
]
