"""How work tells of its progress, and how a terminal shows it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Display

Progress = Callable[[str, int], Callable[[int], None]]
"""progress(description, total) starts a task and returns the function to tell of finished work."""


def silent(description: str, total: int) -> Callable[[int], None]:
    """No progress display."""
    return lambda finished: None


@contextmanager
def progress_display() -> Iterator[Progress]:
    """A progress display on standard error; a finished bar makes room."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Where standard output is no terminal it must not pass through the display, which writes to
    # standard error.
    console, redirect = Console(stderr=True), sys.stdout.isatty()
    with Display(*columns, console=console, redirect_stdout=redirect) as display:

        def start(description: str, total: int) -> Callable[[int], None]:
            task = display.add_task(description, total=total)

            def advance(finished: int) -> None:
                display.advance(task, finished)
                if display.tasks and all(t.finished for t in display.tasks if t.id == task):
                    display.update(task, visible=False)

            return advance

        yield start
