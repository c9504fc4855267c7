"""The command line: demo, list, mechanisms, run, plot, claims, verify, bench.

A command is a module of `analysis.commands`, imported when it is called, with what it needs and no
more: `--help`, `list`, `mechanisms` and `claims` need neither torch nor matplotlib nor xarray, which
take seconds to import. What such a command imports must not import them either.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata

from pydantic import ValidationError

from analysis.terminal import explain, fail, nearest, plain_warnings

START = """\
Three things to do:

  ssa-theory demo                        train attention on a real graph, and draw what it learned (20 s)
  ssa-theory list                        the experiments and their questions
  ssa-theory run graph --preset smoke    one of them, small; without --preset smoke in full

`ssa-theory --help` shows every command, `ssa-theory run NAME --help` the settings of an experiment.
"""
USAGE = """\
usage: ssa-theory COMMAND ...

  demo                        a small run on a real graph, in 20 seconds
  list                        the experiments and their questions
  mechanisms                  what attention can wear: formulas, sources, parameters
  run NAME ... | all          run, store, draw, test the claims; `run NAME --help` has the flags
  plot NAME ... | all         redraw figures and claims from stored results, without training
  claims [TOPIC ...]          the ledger: the verdict of every topic, and when it holds; of one, its cells
  verify                      try the theory's properties on fresh random cases, as long as you like
  bench                       how fast ensembles train here, beside their peers

  ssa-theory run graph twins
  ssa-theory run graph --preset smoke --seeds 16 --device cpu --out results
  ssa-theory run graph --dim 4 --steps 200 --family erdos-renyi
  ssa-theory run graph --family letters --text-file my_novel.txt
  ssa-theory run graph --family file --graph-file my_network.gml
  ssa-theory run graph --mechanisms vanilla ssa ./mine.py:MINE
  ssa-theory run ./votes.py:VOTES

`run` and `plot` end with the report, index.html in the folder of the results.
"""
_COMMANDS = ("demo", "list", "mechanisms", "run", "plot", "claims", "verify", "bench")
_HELP = {"-h", "--help"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for a violated property, 2 for bad input, 130
    after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, *rest = given or [""]
    code = 0
    try:
        nameless = command == "run" and "".join(rest[:1]).startswith("-")
        if not given:
            print(START, end="")
        elif command == "--version":
            print(f"ssa-theory {metadata.version('ssa-theory')}")
        elif command in _HELP or (nameless and _HELP & {*rest}):
            print(USAGE)
        elif command not in _COMMANDS:
            question = nearest(command, _COMMANDS) or ":"
            choice = f"choose one of {', '.join(_COMMANDS)}"
            raise ValueError(f"unknown command {command!r}{question} {choice}")
        else:
            with plain_warnings():
                code = import_module(f"analysis.commands.{command}").main(rest) or 0
        sys.stdout.flush()  # here, where a failure is reported
    except ValidationError as error:
        fail(explain(error))
        return 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has enough
        # For what Python still flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1  # as rich does
    except (ValueError, MemoryError, OSError) as error:
        fail(str(error) or type(error).__name__)
        return 2
    except KeyboardInterrupt:
        fail("stopped; what was finished is kept, run the same command to go on")
        return 130
    except RuntimeError as error:
        from torch import OutOfMemoryError

        if not isinstance(error, OutOfMemoryError):
            raise
        about = str(error).splitlines()[0]
        fail(f"the device ran out of memory ({about}): use fewer seeds, or --device cpu")
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
