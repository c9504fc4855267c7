Creator "Mark Newman on Fri Jul 21 12:39:27 2006"
graph
[
  directed 0
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
    value 2
  ]
  edge
  [
    source 2
    target 3
    value 1
  ]
  edge
  [
    source 1
    target 3
    value 3
  ]
  edge
  [
    source 3
   