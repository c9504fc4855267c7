"""Every flag does something: what an experiment's code never reads is no field of its config."""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest

from analysis.cli import main
from analysis.experiments import APART, EXPERIMENTS
from analysis.experiments.base import Experiment
from analysis.experiments.settings import CooldownConfig
from analysis.problems import Training
from analysis.store.config import ExperimentConfig, SeededConfig, TrainingConfig
from analysis.store.dependencies import definitions, sources

COMMON = ["seeds", "first_seed", "device", "dtype", "compile", "block_seeds"]
WITHOUT = {
    "overhead": COMMON,
    "paper-theory": COMMON,
    "dilution": ["dtype", "compile", "block_seeds"],
    "language": ["dtype", "compile", "block_seeds"],
}


def reads(tree: ast.AST, holder: str) -> Iterator[str]:
    """Patterns of the attributes of `holder`, or of an attribute of that name, that the code reads,
    by name or by a name that is put together.
    """
    for node in ast.walk(tree):
        own = node.value if isinstance(node, ast.Attribute) else None
        if isinstance(node, ast.Attribute) and holder in (
            getattr(own, "id", ""),
            getattr(own, "attr", ""),
        ):
            yield re.escape(node.attr)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "getattr"
        ):
            about, name = node.args[:2]
            if (
                isinstance(about, ast.Name)
                and about.id == holder
                and isinstance(name, ast.JoinedStr)
            ):
                yield "".join(
                    re.escape(v.value) if isinstance(v, ast.Constant) else ".+" for v in name.values
                )


def settings_read(experiment: Experiment) -> set[str]:
    """The fields that make a difference to the data: read by its functions, or by a method of the
    config that these use.

    What only checks the settings, as validators do, makes none.
    """
    classes = {c.__name__ for c in experiment.config.__mro__}
    methods: dict[str, set[str]] = {}
    ahead: set[str] = set()
    for texts in sources(definitions(*experiment.data_code())).values():
        for statement in (statement for text in texts for statement in ast.parse(text).body):
            if not isinstance(statement, ast.ClassDef) or statement.name not in classes:
                ahead |= set(reads(statement, "config"))
            else:
                for node in statement.body:
                    if isinstance(node, ast.FunctionDef) and not any(
                        "validator" in ast.dump(d) for d in node.decorator_list
                    ):
                        own = set(reads(node, "self")) | handed_on(node, experiment.config)
                        methods.setdefault(node.name, set()).update(own)
    found: set[str] = set()
    while ahead:
        pattern = ahead.pop()
        found.add(pattern)
        ahead |= methods.get(pattern, set()) - found
    return {
        name for name in experiment.config.model_fields if any(re.fullmatch(p, name) for p in found)
    }


def handed_on(node: ast.FunctionDef, config: type) -> set[str]:
    """The fields of a dataclass that a method makes of the settings of the same names."""
    text = ast.unparse(node)
    names = re.findall(r"\bfields\((\w+)\)|\bself\.build\((\w+)", text)
    known: dict[str, type] = {}
    for one in config.__mro__:  # a method may stand in the module of a base class
        known = vars(sys.modules[one.__module__]) | known
    return {f.name for pair in names for f in fields(known["".join(pair)])}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_flag_is_read(name: str) -> None:
    """By what makes the data."""
    experiment = EXPERIMENTS[name]
    assert set(experiment.config.model_fields) == settings_read(experiment)


def test_a_flag_that_nothing_reads_is_noticed() -> None:
    """All that concerns training, of an experiment that does not train."""
    experiment = EXPERIMENTS["overhead"]
    config = type(
        "OverheadConfig", (TrainingConfig,), {"__annotations__": {"width": int}, "width": 16}
    )
    config.__module__ = experiment.config.__module__
    assert set(config.model_fields) - settings_read(replace(experiment, config=config)) == set(
        COMMON
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_flag_that_would_do_nothing_is_neither_shown_nor_accepted(
    name: str, tmp_path, capsys
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", name, "--help-all"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for field in COMMON:
        flag = f"--{field.replace('_', '-')}"
        off = f"--no-{field.replace('_', '-')}"  # shown where the default preset switches it on
        assert (f"{flag} " in shown or f"{off} " in shown) == (field not in WITHOUT.get(name, []))
    for field in WITHOUT.get(name, []):
        flag = f"--{field.replace('_', '-')}"
        value = {"device": ["cpu"], "dtype": ["float64"], "compile": ["on"]}.get(field, ["1"])
        with pytest.raises(SystemExit) as stop:
            main(["run", name, flag, *value, "--out", str(tmp_path)])
        assert stop.value.code == 2
        assert flag in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_common_flags_keep_their_order() -> None:
    assert list(TrainingConfig.model_fields) == COMMON
    for name, experiment in EXPERIMENTS.items():
        kind = {
            "overhead": ExperimentConfig,
            "paper-theory": ExperimentConfig,
            "dilution": SeededConfig,
            "language": SeededConfig,
        }.get(name, TrainingConfig)
        assert issubclass(experiment.config, kind)
        assert list(experiment.config.model_fields)[: len(kind.model_fields)] == list(
            kind.model_fields
        )


COOLDOWN = {n: e.config for n, e in EXPERIMENTS.items() if issubclass(e.config, CooldownConfig)}


@pytest.mark.parametrize("name", COOLDOWN)
def test_what_trains_all_models_alike_trains_as_the_flags_say(name: str) -> None:
    settings = {"steps": 7, "learning_rates": (0.2, 0.7), "cooldown_steps": 3}
    config = COOLDOWN[name](**settings, dtype="float64", compile="on")
    wanted = Training(7, 0.7, 3, "adam", "float64", True)
    assert config.training == wanted
    every = {replace(cell.training, steps=7) for cell in config.cells}  # some have more steps
    assert every == {wanted}
    abouts = {k: COOLDOWN[name].model_fields[k].description for k in settings}
    assert "tuned on seeds that are not reported" in (abouts["learning_rates"] or "")
    assert abouts["cooldown_steps"] == "further steps at a tenth of the step size"


def test_several_experiments_take_what_each_has(monkeypatch, tmp_path) -> None:
    planned = {}

    def plan(job, arguments, *others):
        planned.update({some[0].name: some[1] for some in arguments})
        return iter(())

    monkeypatch.setattr("analysis.commands.run.run_jobs", plan)
    monkeypatch.setattr("analysis.commands.run.write_report", lambda experiments, out: out)
    flags = [
        "--device=cpu",
        "--seeds",
        "5",
        "--first-seed",
        "7",
        "--compile=on",
        "--preset",
        "smoke",
        "--out",
        str(tmp_path),
    ]
    assert main(["run", "all", *flags]) == 0
    assert list(planned) == [name for name in EXPERIMENTS if name not in APART]
    for name, config in planned.items():
        asked = {"device": "cpu", "seeds": 5, "first_seed": 7, "compile": "on"}
        assert config == EXPERIMENTS[name].config(
            **dict(EXPERIMENTS[name].presets.get("smoke", {}))
            | {k: v for k, v in asked.items() if k in EXPERIMENTS[name].config.model_fields}
        )
    assert (
        main(
            [
                "run",
                "phase",
                "overhead",
                "--preset",
                "large",
                "--compile=off",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert planned["phase"].compiled is False


@pytest.mark.parametrize(
    "arguments",
    [
        ["overhead", "dilution", "--compile=on"],  # neither has it
        ["graph", "overhead", "--width", "8"],  # no common flag
        ["graph", "overhead", "--sedes", "8"],
        ["graph", "overhead", "--device", "tpu"],
    ],
)
def test_flags_that_no_or_only_some_experiments_have_are_refused(
    arguments, tmp_path, capsys
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", *arguments, "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert arguments[-2 if len(arguments) > 3 else -1] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
