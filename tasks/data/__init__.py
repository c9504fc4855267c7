"""Data that tasks read, with the code that makes it."""
