"""The commands of the command line, each a module with a `main(arguments)`, which returns the exit
code or None for 0.
"""
