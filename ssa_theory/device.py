"""Where models are trained, and how many at once."""

import os
import re
from pathlib import Path

import torch

_CACHE_SIZE = Path(
    "/sys/devices/system/cpu/cpu0/cache/index2/size"
)  # of the second level, a core's own, such as 1024K
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_ROOM = (
    2**21,
    2**23,
)  # bytes: the least and the most that a block on a CPU may take, whatever its cache
_LEAST_MEMBERS = 64  # of a block, below which the vector units idle
# Compiled graph models are fastest at 2,048 to 8,192 a block and a third slower at 32,768; on a GPU
# 32,768 amortise the launches.
_MOST_MEMBERS = {"cpu": 2**13, "cuda": 2**15}


def cores() -> list[int]:
    """The cores that this process may use, as a cluster's scheduler assigns them; on systems that
    do not say, as many as there are.
    """
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # of a system without, or without these
        return None


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU. Raises ValueError for an unknown or absent
    device.

    >>> resolve_device("cpu")
    device(type='cpu')
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device cuda was asked for, but torch sees no CUDA device: set device"
            " (--device) to cpu or auto"
        )
    return torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    )


def block_members(bytes_per_member: int, device: torch.device) -> int:
    """How many models to train as one tensor program: as many as the caches hold, for larger
    ensembles wait for memory.

    bytes_per_member: what a training step reads and writes of one model: parameters, optimiser
    state, data, activations. On a CPU their sum is kept within four times a core's second-level
    cache, but never below 2 nor above 8 MiB: the last level is shared, and what a virtual machine
    reports of it may be the whole host's. On a GPU it is kept within a sixteenth of the memory.
    Never fewer than 64 models, and never more than 8,192 (a GPU: 32,768), so that a long run has
    many blocks on any machine. Raises ValueError for bytes < 1.

    >>> block_members(10**9, torch.device("cpu")), block_members(1, torch.device("cpu"))
    (64, 8192)
    """
    if bytes_per_member < 1:
        raise ValueError(
            f"a model needs at least 1 byte, got {bytes_per_member}: count its tensors"
        )
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory // 16
    else:
        least, most = _ROOM
        room = min(most, max(least, 4 * _core_cache()))
    return min(_MOST_MEMBERS[device.type], max(_LEAST_MEMBERS, room // bytes_per_member))


def _core_cache() -> int:
    """Bytes of a core's second-level cache; 1 MiB where the system does not say, or says what
    nobody understands.
    """
    try:
        match = re.fullmatch(
            r"(\d+)([KMG]?)", _CACHE_SIZE.read_text(encoding="ascii").strip().upper()
        )
    except (OSError, ValueError):
        match = None
    return int(match[1]) * _UNITS[match[2]] if match else 2**20
