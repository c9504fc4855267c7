"""Graph files of many formats, read so that nothing is guessed."""

from tasks.graph_files.read import FORMATS, GraphFile, read_graph
from tasks.graph_files.settle import AS_IT_SAYS, GraphReading

__all__ = ["AS_IT_SAYS", "FORMATS", "GraphFile", "GraphReading", "read_graph"]
