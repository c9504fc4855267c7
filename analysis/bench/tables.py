"""The benchmark's report as tables: on the terminal, and in the report."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from analysis.bench.child import DATA, FIXED, FRESH
from analysis.bench.jax_peers import CHUNK
from analysis.bench.operations import FUNCTION_OPERATIONS
from analysis.bench.peers import EAGER, ONE_AT_A_TIME

SPEED = (
    "workload",
    "trainer",
    "models x steps / s",
    "x one at a time",
    "x JAX",
    "x strongest JAX",
    "of ceiling",
    "with fresh data",
    "x JAX",
    "x strongest JAX",
    "of ceiling",
)
COST = ("workload", "trainer", "models", "memory", "compiles in", "loss differs by", "fresh data")
SCALING = ("workload", "how", "models", "models x steps / s", "with making the data", "memory")
_NONE = "-"


def tables(report: dict[str, Any]) -> list[Table]:
    """For the terminal."""
    drawn = []
    for columns, rows in all_rows(report):
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        drawn.append(table)
    return drawn


def all_rows(report: dict[str, Any]) -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Of each table the names of its columns, and its rows."""
    return [
        (SPEED, speed_rows(report)),
        (COST, cost_rows(report)),
        (SCALING, scaling_rows(report)),
    ]


def speed_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a contender, by `SPEED`; one that could not run says why."""
    rows = []
    for name, contender, row in _contenders(report):
        if "missing" in row:
            rows.append((name, contender, row["missing"], *[_NONE] * (len(SPEED) - 3)))
            continue
        fixed, fresh = row[FIXED], row[FRESH]
        alone = _times(fixed.get("times_one_at_a_time"))
        speed, *ratios = _speed(fixed)
        rows.append((name, contender, speed, alone, *ratios, *_speed(fresh)))
    return rows


def _contenders(report: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for name, work in report["workloads"].items():
        for contender, row in work["contenders"].items():
            yield name, contender, row


def _speed(row: dict[str, Any]) -> tuple[str, ...]:
    """With one kind of data: speed, times JAX, times the strongest JAX, share of the ceiling."""
    share = row.get("fraction_of_ceiling")
    return (
        f"{row['models_steps_per_second']:,.0f}",
        _times(row.get("times_jax")),
        _times(row.get("times_strongest_jax")),
        _NONE if share is None else f"{share:.3g}" if share < 0.001 else f"{share:.1%}",
    )


def cost_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a contender that ran, by `COST`."""
    rows = []
    for name, contender, row in _contenders(report):
        if "missing" in row:
            continue
        seconds = row["compile_seconds"]
        rows.append(
            (
                name,
                contender,
                f"{row['models']:,}",
                _megabytes(row["training_bytes"]),
                _NONE if seconds is None else f"{seconds:.1f} s",
                *(_difference(contender, row[data]) for data in DATA),
            )
        )
    return rows


def _difference(contender: str, row: dict[str, Any]) -> str:
    learned = row.get("learned")
    if learned is None:  # stopped before there was something to compare with
        return _NONE
    if contender == EAGER:
        return "(compared with)"
    median, largest = learned["median_difference"], learned["largest_difference"]
    if not row["learned_the_same"]:
        return f"{median:.0e}: learned something else"
    return f"{median:.0e} (largest {largest:.0e})"


def scaling_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Cores, sizes of the ensemble, and the large one, by `SCALING`."""
    return [
        (name, *row)
        for name, ensembles in report["ensembles"].items()
        for row in _scaling_rows(**ensembles)
    ]


def _scaling_rows(
    cores: dict[str, Any], sizes: dict[str, Any], large: dict[str, Any] | None
) -> Iterable[tuple[str, ...]]:
    if "missing" in cores:
        rows = [("two cores", _NONE, cores["missing"], _NONE, _NONE)]
    else:
        models = f"{cores['models']:,}"
        rows = [
            ("one process", models, f"{cores['one']:,.0f}", _NONE, _NONE),
            (
                f"two at once: {cores['ratio']:.2f} x",
                f"2 x {models}",
                f"{cores['two']:,.0f}",
                _NONE,
                _NONE,
            ),
        ]
    if "missing" in sizes:
        rows.append(("in blocks", _NONE, sizes["missing"], _NONE, _NONE))
    for row in sizes.get("rows", []):
        speeds = (f"{row['models_steps_per_second']:,.0f}", f"{row['with_data']:,.0f}")
        memory = _megabytes(row["training_bytes"])
        rows.append((f"in blocks of {sizes['block']:,}", f"{row['models']:,}", *speeds, memory))
    if large is not None and "missing" in large:
        rows.append(("over all cores", _NONE, large["missing"], _NONE, _NONE))
    elif large is not None:
        name = f"{large['processes']} processes, {large['steps']} steps: {large['seconds']:.0f} s"
        rows.append(
            (name, f"{large['models']:,}", _NONE, f"{large['models_steps_per_second']:,.0f}", _NONE)
        )
    return rows


def notes(report: dict[str, Any]) -> list[str]:
    """What was trained and how it was measured, a sentence or two each."""
    machine = report["machine"]
    used = machine["vector_instructions"]
    sentences = [
        f"Machine: {machine['processor']}, {machine['cores']} cores, {report['device']}. This "
        f"trainer's vector instructions: {used or 'none, as there is no C++ compiler'}.",
        "Each contender has a process, one core and one thread of its own, trains the same models "
        "from the same start in the block of which it is fastest (of those tried), and measures in "
        "rounds with the others; the fastest round counts. Compiling a loss, and tracing it, which "
        "JAX and this trainer do once, is not counted in the speed. JAX with the models last trains "
        f"at most {CHUNK} at a time.",
        "Fresh data: drawn beforehand, the same for all, and given step by step; else the data stay "
        "the same at all steps.",
        "Memory: the process's peak with fixed data, less what it held before.",
        "Loss: of each model after training, evaluated in float64; the median and the largest "
        f"difference to `{EAGER}` over the models that both trained.",
        "Ceiling: the least time that a step's operations take at the rate of multiply-adds in "
        "float32 matrix products within the cache, that its numbers take through the cache, or its "
        f"fresh data from memory. A function is {FUNCTION_OPERATIONS} operations; what is counted "
        "is said in analysis/bench/operations.py.",
    ]
    for name, work in report["workloads"].items():
        single = work["contenders"].get(ONE_AT_A_TIME, {}).get("models", 0)
        sentences.append(
            f"`{name}`: {work['about']}; {work['steps']} steps of Adam ({single} models one at a "
            "time)."
        )
        if ceiling := work["ceiling"]:
            sentences.append(_of_ceiling(name, ceiling))
    return sentences


def _of_ceiling(name: str, ceiling: dict[str, Any]) -> str:
    limits = " and ".join(
        f"{ceiling[data]['models_steps_per_second']:,.0f} models x steps / s with {data} data, "
        f"bound by {ceiling[data]['binds']}"
        for data in DATA
    )
    return (
        f"Ceiling of `{name}`: {limits}. A model's step has {ceiling['operations']:,} operations, "
        f"{ceiling['functions']:,} functions and moves {ceiling['bytes']:,} bytes, of fresh data "
        f"{ceiling['fresh_bytes']:,}; the machine does "
        f"{ceiling['rates']['operations_per_second'] / 1e9:.0f} G operations and moves "
        f"{_bandwidths(ceiling['rates']['bytes_per_second'])} a second."
    )


def _bandwidths(rates: dict[str, float]) -> str:
    if not rates:
        return "an unknown number of bytes"
    return ", ".join(
        f"{rate / 1e9:.0f} GB (of {int(size) / 2**20:.3g} MiB)" for size, rate in rates.items()
    )


def _times(ratio: float | None) -> str:
    if ratio is None:
        return _NONE
    return f"{ratio:,.0f} x" if ratio >= 100 else f"{ratio:.3g} x"


def _megabytes(count: int | None) -> str:
    return _NONE if count is None else f"{count / 2**20:,.0f} MB"
