"""How much is trained at a time, and what fits this machine."""

from analysis.store.config import TrainingConfig
from ssa_theory.device import block_members, memory, resolve_device

LARGEST_BLOCK = 2**31
"""Bytes of a block of seeds, at most."""


def block_size(
    config: TrainingConfig, bytes_per_seed: int, models: int = 1, at_once: int | None = None
) -> int:
    """How many seeds to train at a time: what is asked for, or suits the device's caches.

    bytes_per_seed: everything that is held of one seed while it trains. models: of one seed in one
    tensor program. at_once: what a step reads and writes of a seed; None for all. A multiple of 64
    seeds, if there is room: vector units take models in groups, and a seed's numbers are then the
    same bit for bit at any place in a block. Raises ValueError where a single seed is too large.
    """
    if bytes_per_seed > LARGEST_BLOCK:
        raise ValueError(
            f"one seed needs about {bytes_per_seed / 2**30:.1f} GiB, above the limit of "
            f"{LARGEST_BLOCK / 2**30:.0f} GiB a block: use fewer nodes, a smaller batch or fewer "
            "settings"
        )
    most = LARGEST_BLOCK // bytes_per_seed
    if config.block_seeds is not None:
        return min(config.block_seeds, most)
    needed = bytes_per_seed if at_once is None else at_once
    members = block_members(max(1, needed // models), resolve_device(config.device))
    size = min(max(64, members // models), most)
    return size // 64 * 64 or size


def told_cost(seconds: float, numbers: int) -> list[str]:
    """What a long run will take, in one sentence; nothing of one under a minute.

    seconds: on one core, by an estimate that may be off by a factor of three. numbers: floats of
    the result.
    """
    if seconds < 60:
        return []
    time = f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.0f} hours"
    memory = f"{_needed(numbers) / 2**30:.1f} GiB"
    return [f"this will take about {time} on one core, and {memory} of memory for the result"]


def _needed(numbers: int) -> int:
    """Bytes of a result of so many floats, with the copies that are made of it."""
    return 3 * 8 * numbers


def check_result_fits(numbers: int) -> None:
    """Refuse a run whose result, `numbers` floats and their copies, would not fit this machine.

    Raises ValueError.
    """
    needed = _needed(numbers)
    held = memory()
    if held is not None and needed > held / 2:
        raise ValueError(
            f"the result of this run needs about {needed / 2**30:.0f} GiB, more than half of this "
            f"machine's {held / 2**30:.0f} GiB: use fewer seeds, mechanisms or settings, or run "
            "them in parts with first_seed"
        )
