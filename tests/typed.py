"""The command `ssa-theory` under the runtime type checker: `python -m tests.typed run all ...`."""

import sys

import jaxtyping

from tests.conftest import typed_at_the_first_step


def main() -> int:
    """Every call of what trains is checked; of a training its first step, as every other one calls the same."""
    packages = ("ssa_theory", "tasks", "analysis.problems", "analysis.experiments")
    with jaxtyping.install_import_hook(packages, "beartype.beartype"), typed_at_the_first_step():
        from analysis.cli import main as command

        return command()


if __name__ == "__main__":
    sys.exit(main())
