"""The command `ssa-theory` under the runtime type checker: `python -m tests.typed run all ...`, and
after `--then` further ones, for which nothing is imported anew.
"""

import sys
from itertools import groupby

import jaxtyping

from tests.conftest import typed_at_the_first_step


def main() -> int:
    """Every call of what trains is checked; of a training its first step, as every other one calls
    the same. Ends with the exit code of the first command that fails, else 0.
    """
    parts = groupby(sys.argv[1:], "--then".__eq__)
    commands = [list(words) for then, words in parts if not then]
    packages = ("ssa_theory", "tasks", "analysis.problems", "analysis.experiments")
    with jaxtyping.install_import_hook(packages, "beartype.beartype"), typed_at_the_first_step():
        from analysis.cli import main as command

        return next(filter(None, map(command, commands)), 0)


if __name__ == "__main__":
    sys.exit(main())
