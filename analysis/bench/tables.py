"""The benchmark's report as tables: on the terminal, and in the report."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from analysis.bench.peers import EAGER, ONE_AT_A_TIME

SPEED = (
    "workload",
    "trainer",
    "models x steps / s",
    "x one at a time",
    "this trainer is",
    "of ceiling",
    "memory",
    "compiles in",
    "loss differs by",
)
SCALING = ("workload", "how", "models", "models x steps / s", "with making the data", "memory")
_NONE = "-"


def tables(report: dict[str, Any]) -> list[Table]:
    """For the terminal."""
    drawn = []
    for columns, rows in ((SPEED, speed_rows(report)), (SCALING, scaling_rows(report))):
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        drawn.append(table)
    return drawn


def speed_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a contender, by `SPEED`; one that could not run says why."""
    rows = []
    for name, work in report["workloads"].items():
        for contender, row in work["contenders"].items():
            if "missing" in row:
                rows.append((name, contender, row["missing"], *[_NONE] * (len(SPEED) - 3)))
                continue
            difference = (
                _NONE  # where the benchmark was stopped before there was something to compare with
            )
            if learned := row.get("learned"):
                median, largest = learned["median_difference"], learned["largest_difference"]
                difference = (
                    "(compared with)"
                    if contender == EAGER
                    else f"{median:.0e} (largest {largest:.0e})"
                )
                if not row["learned_the_same"]:
                    difference = f"{median:.0e}: learned something else"
            rows.append(
                (
                    name,
                    contender,
                    f"{row['models_steps_per_second']:,.0f}",
                    _times(row.get("times_one_at_a_time")),
                    _times(row.get("trainer_is_times")),
                    _NONE
                    if row.get("fraction_of_ceiling") is None
                    else f"{row['fraction_of_ceiling']:.2%}",
                    _megabytes(row.get("training_bytes")),
                    _NONE if row["compile_seconds"] is None else f"{row['compile_seconds']:.0f} s",
                    difference,
                )
            )
    return rows


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
    sentences = [
        f"Machine: {machine['processor']}, {machine['cores']} cores, {report['device']}. Each "
        "contender has a process, one core and one thread of its own, trains the same models from "
        "the same start, and measures in rounds with the others; the fastest round counts. "
        "Compilation is not counted in the speed.",
        "Memory: the process's peak, less that of a process that only takes one step with the same "
        "tool.",
        "Loss: of each model after training, evaluated in float64; the median and the largest "
        f"difference to `{EAGER}` over the models that both trained.",
    ]
    for name, work in report["workloads"].items():
        rows = [row for row in work["contenders"].values() if "missing" not in row]
        models = max((row["models"] for row in rows), default=0)
        single = work["contenders"].get(ONE_AT_A_TIME, {}).get("models", 0)
        sentences.append(
            f"`{name}`: {work['about']}; {models:,} models ({single} one at a time) x "
            f"{work['steps']} steps of Adam."
        )
        if ceiling := work["ceiling"]:
            sentences.append(
                f"Ceiling of `{name}`: {ceiling['operations_per_second'] / 1e9:.0f} G operations "
                "per second, the rate of this machine's multiply-adds in float32 matrix products "
                f"within the cache, over the {ceiling['operations_per_model_step']:,} operations "
                f"of a model's step, of which {ceiling['of_which_functions']} exponentials and the "
                f"like at {ceiling['operations_per_function']} each."
            )
    return sentences


def _times(ratio: float | None) -> str:
    if ratio is None:
        return _NONE
    return f"{ratio:,.0f} x" if ratio >= 100 else f"{ratio:.3g} x"


def _megabytes(count: int | None) -> str:
    return _NONE if count is None else f"{count / 2**20:,.0f} MB"
