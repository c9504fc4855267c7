"""How every command reads its flags: every field of a config is one, from its type and
description.
"""

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import BaseModel

OUT = (
    Path,
    Path("results"),
    "folder of the results; each experiment has its own below it",
)
"""The type of a flag, its default, and its help."""


def parse(
    command: str,
    arguments: Sequence[str],
    description: str | None = None,
    config: BaseModel | None = None,
    **flags: tuple[Any, Any, str],
) -> Any:
    """The flags of a command as attributes; those of a config are its fields, in `config`.

    config: gives the defaults. Ends the process, with code 2, at a flag that it does not know.
    """
    given = [] if config is None else [("config", type(config), config, tyro.conf.arg(name=""))]
    given += [(k, hint, value, tyro.conf.arg(help=h)) for k, (hint, value, h) in flags.items()]
    fields = [(k, Annotated[hint, about], field(default=v)) for k, hint, v, about in given]
    return tyro.cli(
        make_dataclass(command.split()[0].capitalize(), fields),
        args=list(arguments),
        prog=f"ssa-theory {command}",
        description=description,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
