"""Break every formula on purpose, one sign, factor or constant at a time, and see that a property
or a test notices.

    .venv/bin/python tests/stress/mutants.py

A mutant is one function of `tasks` or `ssa_theory` with one change in one arithmetic expression: +
for - and back, * for / and back, a minus dropped, a number raised by one. Left out are argument
checks that only raise, messages, and numbers that stand alone as an argument or an index (axes,
sizes). Every mutant is a forked process of its own, in which the function's code is replaced in
place, so that all importers see it; it meets the properties and then the tests that call the
function, until one fails. The working tree is never touched.
"""

import ast
import gc
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Annotated

import pytest
import tyro
from hypothesis import Phase, settings
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).parents[2]
MODULES = (
    "tasks.markov",
    "tasks.twins",
    "tasks.embeddings",
    "tasks.denoising",
    "tasks.denoising_posterior",
    "tasks.denoising_risk",
    "tasks.retrieval",
    "tasks.kernel_regression",
    "tasks.dilution",
    "tasks.sampling",
    "tasks.small_graphs",
    "tasks.data.make_connected",
    "tasks.basis_denoising",
    "tasks.imbalance",
    "tasks.hierarchy",
    "ssa_theory.theory.rows",
    "ssa_theory.theory.norms",
    "ssa_theory.theory.dilution",
    "ssa_theory.theory.expected",
    "ssa_theory.theory.paper.expressivity",
    "ssa_theory.theory.paper.imbalance",
    "ssa_theory.theory.paper.converse",
    "ssa_theory.theory.paper.sparsity",
    "ssa_theory.theory.critical",
    "tasks.families",
    "tasks.trigger",
    "tasks.location",
    "ssa_theory.mechanism.parts",
    "ssa_theory.mechanism.scores",
    "ssa_theory.mechanism.temperature",
    "ssa_theory.mechanism.schedules",
    "ssa_theory.mechanism.score_maps",
    "ssa_theory.mechanism.normalizers",
    "ssa_theory.mechanism.rectified",
    "ssa_theory.mechanism.contrast",
    "ssa_theory.mechanism.gates",
    "ssa_theory.mechanism.mechanism",
    "ssa_theory.mechanism.layer",
    "ssa_theory.losses",
    "ssa_theory.device",
    "ssa_theory.ensemble",
    "ssa_theory.steps",
    "ssa_theory.lanes.emit",
    "ssa_theory.lanes.lower",
    "ssa_theory.lanes.plan",
    "ssa_theory.lanes.program",
    "ssa_theory.lanes.record",
    "ssa_theory.lanes.rules",
    "ssa_theory.module",
    "ssa_theory.token_batch",
    "ssa_theory.parameters",
)

EQUIVALENT: dict[str, tuple[str, ...]] = {
    "a symmetric draw with the other sign: the same law": (
        "tasks.embeddings.unit_embeddings: y) * common + np.sqrt(1 - -> y) * common - np.sqrt(1 -",
        "tasks.twins.TwinTokenTask.sample: gle) * base + np.sin(angl -> gle) * base - np.sin(angl",
        "tasks.denoising.DenoisingTask.sample: et[:, None] + self.signal -> et[:, None] - self.signal",
        "tasks.retrieval.NoisyRetrievalTask.sample: t), target] + noise[:, No -> t), target] - noise[:, No",
        "tasks.kernel_regression.KernelRegressionTask.sample: target[i] += basis @ (n -> target[i] -= basis @ (n",
        "tasks.denoising_risk.importance_estimates:  component] + np.sqrt(var ->  component] - np.sqrt(var",
    ),
    "how much is held in memory at once": (
        "tasks.denoising_posterior.subset_posterior: max(1, _BLOCK //  -> max(2, _BLOCK // ",
        "tasks.denoising_posterior.subset_posterior: 2 ** length -> 3 ** length (2)",
        "tasks.retrieval.NoisyRetrievalTask.bayes_risk: max(1, _BLOCK_BYT -> max(2, _BLOCK_BYT",
        "tasks.retrieval.NoisyRetrievalTask.bayes_risk: 8 * (self.key -> 9 * (self.key",
        "tasks.retrieval.NoisyRetrievalTask.bayes_risk: self.keys + 1 -> self.keys + 2",
        "tasks.kernel_regression.KernelRegressionTask._factors: max(1, _BLOCK_BYT -> max(2, _BLOCK_BYT",
        "tasks.kernel_regression.KernelRegressionTask._factors: 8 * length ** -> 9 * length **",
        "tasks.kernel_regression.KernelRegressionTask._factors: length ** 2 -> length ** 3",
        "tasks.data.make_connected._one_of_each: max(1, _BLOCK //  -> max(2, _BLOCK // ",
        "tasks.basis_denoising.BasisDenoisingTask.risks: max(1, _BLOCK_BYT -> max(2, _BLOCK_BYT",
        "tasks.basis_denoising.BasisDenoisingTask.risks: 8 * self.leng -> 9 * self.leng",
        "tasks.denoising_risk.importance_estimates: max(1, 2 ** 21 // -> max(2, 2 ** 21 //",
        "tasks.denoising_risk.importance_estimates: 2 ** 21 -> 3 ** 21",
        "tasks.denoising_risk.importance_estimates: 2 ** 21 -> 2 ** 22",
        "tasks.denoising_risk.importance_estimates: length + 2 -> length - 2",
        "tasks.denoising_risk.importance_estimates: length + 2 -> length + 3",
        "ssa_theory.theory.expected.expected_row: 1 + len(grid) * -> 1 - len(grid) *",
        "ssa_theory.theory.expected.expected_row: 1 + len(grid) -> 2 + len(grid)",
        "ssa_theory.theory.expected.expected_row: len(grid) * len(z) -> len(grid) / len(z)",
        "ssa_theory.theory.expected.expected_row: 2 ** 20 -> 3 ** 20",
        "ssa_theory.theory.expected.expected_row: 2 ** 20 -> 2 ** 21",
    ),
    "how fine or how wide a numerical grid is: the result stays within its accuracy": (
        "tasks.denoising_risk.additive_gate: dim + 2 -> dim + 3",
        "tasks.denoising_risk._panels: law.dim + 2 -> law.dim + 3",
        "tasks.denoising_risk._panels: end / (2 * narrow -> end * (2 * narrow",
        "tasks.denoising_risk._panels: 2 * narrow -> 2 / narrow",
        "tasks.denoising_risk._panels: 2 * narrow -> 3 * narrow",
        "tasks.denoising_risk._panels: * narrow)), 8, 120) -> * narrow)), 9, 120)",
        "tasks.denoising_risk._panels: row)), 8, 120) -> row)), 8, 121)",
        "tasks.denoising_risk._threshold_risk: dim + 2 -> dim + 3 (4)",
        "tasks.denoising_risk._threshold_risk: dim + 2 -> dim + 3 (5)",
        "tasks.denoising_risk._threshold_risk: min(risks), 1, len(grid)  -> min(risks), 2, len(grid) ",
        "tasks.denoising_risk._threshold_risk: len(grid) - 2 -> len(grid) - 3",
        "tasks.denoising_risk._threshold_risk: ={'xatol': 1e-07}) -> ={'xatol': 1.0000001})",
        "ssa_theory.theory.expected.expected_row: max(x, 1e-09) -> max(x, 1.000000001)",
        "ssa_theory.theory.expected.expected_row: 64 + 4 * x -> 65 + 4 * x",
        "ssa_theory.theory.expected.expected_row: 4 * x -> 5 * x",
        "ssa_theory.theory.expected.expected_row: reach = 1.0 -> reach = 2.0",
        "ssa_theory.theory.expected.expected_row: ax(largest, 0) -> ax(largest, 1)",
        "ssa_theory.theory.expected.expected_row: gest, 0) - 42 -> gest, 0) - 43",
        "ssa_theory.theory.expected.expected_row: (-smallest, 0) -> (-smallest, 1)",
        "ssa_theory.theory.expected.expected_row: llest, 0) + 4.25 -> llest, 0) + 5.25",
        "ssa_theory.theory.expected.expected_row:  tau * z, 700) ->  tau * z, 701)",
        "ssa_theory.theory.expected.expected_row: _needles, 300) -> _needles, 301)",
        "ssa_theory.theory.expected.expected_row: mum(grid, 700) -> mum(grid, 701)",
        "ssa_theory.theory.norms.minimal_norm: 100 * len(piece -> 101 * len(piece",
        "ssa_theory.theory.paper.converse.least_loss: .clip(low, -8, 8) -> .clip(low, -9, 8)",
        "ssa_theory.theory.paper.converse.least_loss: ip(low, -8, 8) -> ip(low, -8, 9)",
        "ssa_theory.theory.paper.converse.least_loss: clip(high, -8, 8) -> clip(high, -9, 8)",
        "ssa_theory.theory.paper.converse.least_loss: p(high, -8, 8) -> p(high, -8, 9)",
        "ssa_theory.theory.paper.sparsity.SparseScores.solved_share: "
        "high_share, 2.0), xtol=1e -> high_share, 3.0), xtol=1e",
    ),
    "a term that is zero, or an entry that is overwritten next": (
        "tasks.denoising_risk.closed_form_risk: length + 1 -> length + 2",
        "tasks.retrieval.posterior_entropy: _posterior, 0.0) -> _posterior, 1.0)",
        "tasks.markov.MarkovGraphTask.stationary_distribution: node + 1 -> node + 2",
        "tasks.hierarchy.HierarchyTask.below: elf.depth + 1 -> elf.depth + 2",
        "tasks.small_graphs.GraphFacts.of: max(1, nodes * (n -> max(2, nodes * (n",
    ),
    "a positive factor, of which only the sign or the direction counts": (
        "tasks.basis_denoising.unit: dims=True), 1.0, vectors) -> dims=True), 2.0, vectors)",
        "tasks.small_graphs._check:  @ reached, 1) ->  @ reached, 2)",
    ),
    "a positive factor, which the last turn takes out": (
        "tasks.markov.MarkovGraphTask.stationary_distribution: node + 1 -> node + 2 (2)",
    ),
    "a guard against the rounding of a sum of one": (
        "tasks.markov.MarkovGraphTask._acceptance: weighting), 1.0) -> weighting), 2.0)",
        "tasks.denoising_risk.importance_estimates: length + 1 -> length + 2",
    ),
    "draws are exchangeable: any may be the one that is replaced": (
        "tasks.denoising_risk.importance_estimates: y[:, 0] = target[p -> y[:, 1] = target[p",
    ),
    "another proposal of the importance sampler: its estimates hold for any": (
        "tasks.denoising_risk._proposal: tokens * (s2 / (s2 + -> tokens / (s2 / (s2 +",
        "tasks.denoising_risk._proposal: s2 + a -> s2 - a",
        "tasks.denoising_risk._proposal: s((samples, 1, dim)) -> s((samples, 2, dim))",
        "tasks.denoising_risk._proposal: dim / 2 * np.log(vari -> dim / 2 / np.log(vari",
        "tasks.denoising_risk._proposal: dim / 2 -> dim / 3",
        "tasks.denoising_risk._proposal: ss, axis=1) + np.log(0.9) -> ss, axis=1) - np.log(0.9)",
    ),
    "which of two equal ways is faster": (
        "ssa_theory.mechanism.parts.matmul:  a.shape[1] * b.shape[1] ->  a.shape[1] / b.shape[1]",
        "ssa_theory.mechanism.parts.matmul: a.shape[0] * a.shape[1] -> a.shape[0] / a.shape[1]",
    ),
    "a value that is replaced, or meets a factor of zero": (
        "ssa_theory.theory.paper.imbalance.Imbalance.log_odds: self.ratio, 1.0) -> self.ratio, 2.0)",
        "ssa_theory.theory.paper.imbalance.Imbalance.loss: self.ratio, 1.0) -> self.ratio, 2.0)",
        "ssa_theory.theory.paper.imbalance.best_schedule:  ** 2))) or 1.0 ->  ** 2))) or 2.0",
        "ssa_theory.theory.paper.converse.consistent_by_search: np.zeros((1, 2)) -> np.zeros((2, 2))",
        "ssa_theory.theory.paper.converse.consistent_by_search: p.zeros((1, 2)) -> p.zeros((1, 3))",
        "ssa_theory.mechanism.normalizers.Sparse.rows: (), scores, 0.0) -> (), scores, 1.0)",
        "ssa_theory.mechanism.rectified.ReLA.finite_rows: total == 0, 1.0, total) -> total == 0, 2.0, total)",
        "ssa_theory.losses.cross_entropy: 0, shifted, 0.0) -> 0, shifted, 1.0)",
    ),
}
"""Changes that no test can or should notice, by their reason: `module.function: expression ->
changed expression`, as the tool prints them; " (2)" follows for the second such expression of a
function.
"""

_SWAP = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
_BOUNDS = {"max", "min", "maximum", "minimum", "clip", "where", "full", "logaddexp"}
"""Functions whose plain numbers are values, not axes or sizes."""
_SEED = 20_241_119
_MEMORY = 8 * 2**30  # a mutant that asks for more is stopped, and noticed


@dataclass(frozen=True)
class Mutant:
    """One function with one change. code: of the changed function; line: in the module's file;
    change: before -> after, numbered from the second of its kind.
    """

    module: str
    function: str
    line: int
    change: str
    code: CodeType

    @property
    def key(self) -> str:
        """What names the change whatever its line number."""
        return f"{self.module}.{self.function}: {self.change}"


def functions(module: ModuleType) -> dict[str, FunctionType]:
    """The functions that a module defines and the methods of its classes, by qualified name."""
    found = {}
    for value in vars(module).values():
        members = (
            vars(value).values()
            if isinstance(value, type) and value.__module__ == module.__name__
            else [value]
        )
        for member in members:
            for inner in (
                "fget",
                "func",
                "__func__",
            ):  # of a property, a cached property, a class method
                member = getattr(member, inner, None) or member
            if isinstance(member, FunctionType) and member.__code__.co_filename == module.__file__:
                found[member.__qualname__] = member
    return found


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions and methods of a module's syntax tree, by qualified name."""
    for node in tree.body:
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, ast.FunctionDef):
                yield inner.name if inner is node else f"{node.name}.{inner.name}", inner


def mutants(module: ModuleType) -> Iterator[Mutant]:
    """Every mutant of every function of a module."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for name, function in _definitions(tree):
        seen: Counter[str] = Counter()
        for site in (site for statement in function.body for site in _sites(statement, statement)):
            before = ast.unparse(site.shown)
            site.change()
            after, code = (
                ast.unparse(site.shown),
                _code(compile(tree, module.__file__, "exec"), name),
            )
            site.restore()
            change = _difference(before, after)
            seen[change] += 1
            change += f" ({seen[change]})" * (seen[change] > 1)
            yield Mutant(module.__name__, name, site.shown.lineno, change, code)


def announcing(module: ModuleType) -> dict[str, CodeType]:
    """The code of every function of a module, changed to add the function's name to the set
    `__called__` of its module.
    """
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for name, function in _definitions(tree):
        function.body.insert(0, ast.parse(f"__called__.add({name!r})").body[0])
    code = compile(ast.fix_missing_locations(tree), module.__file__, "exec")
    return {name: _code(code, name) for name in functions(module)}


def _difference(before: str, after: str, around: int = 12) -> str:
    """before -> after, without what lies further from the difference."""

    def same(pairs: Iterator[tuple[str, str]]) -> int:
        return max(0, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) - around)

    start = same(zip(before, after, strict=False))
    end = same(zip(reversed(before[start:]), reversed(after[start:]), strict=False))
    return " -> ".join(text[start : len(text) - end] for text in (before, after))


@dataclass(frozen=True)
class _Site:
    """Where an attribute of a syntax node can take another value; shown: the expression around it."""

    node: ast.AST
    name: str
    value: object
    shown: ast.AST
    index: int | None = None
    _old: list = field(default_factory=list)

    def change(self) -> None:
        holder = getattr(self.node, self.name)
        self._old.append(holder if self.index is None else holder[self.index])
        self._set(self.value)

    def restore(self) -> None:
        self._set(self._old.pop())

    def _set(self, value: object) -> None:
        if self.index is None:
            setattr(self.node, self.name, value)
        else:
            getattr(self.node, self.name)[self.index] = value


def _sites(node: ast.AST, shown: ast.AST) -> Iterator[_Site]:
    """The changes below a node; shown: the smallest expression or statement around it that says
    what is changed.
    """
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    if isinstance(node, ast.If) and all(
        isinstance(statement, ast.Raise) for statement in node.body
    ):
        for statement in node.orelse:
            yield from _sites(statement, statement)
        return
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _SWAP:
        yield _Site(node, "op", _SWAP[type(node.op)](), node)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield _Site(node, "value", node.value + 1, shown)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "args") and not isinstance(
            node, ast.Call
        ):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or (_plain(child) and _is_place(node, name)):
                continue
            if isinstance(child, ast.UnaryOp) and isinstance(child.op, ast.USub):
                yield _Site(
                    node, name, child.operand, node if isinstance(node, ast.expr) else shown, index
                )
            if isinstance(child, ast.stmt):
                yield from _sites(child, child)
            else:
                yield from _sites(
                    child, child if isinstance(child, ast.BinOp | ast.Call | ast.Compare) else shown
                )


def _plain(node: ast.AST) -> bool:
    """Whether a node is a number that stands alone, with or without a minus."""
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


def _is_place(node: ast.AST, name: str) -> bool:
    """Whether a number that stands alone there is an axis, a size, an index or a setting."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).removeprefix("np.").removeprefix("torch.") not in _BOUNDS
    return isinstance(node, ast.keyword | ast.Slice) or (
        isinstance(node, ast.Subscript) and name == "slice"
    )


def _code(code: CodeType, name: str) -> CodeType:
    """The code of the function of that qualified name within a module's code."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_qualname == name:
                return inner
            if name.startswith(f"{inner.co_qualname}."):
                return _code(inner, name)
    raise LookupError(name)


def forked(work: Callable[[], object], seconds: float) -> object:
    """What `work` returns in a forked process of its own, through JSON; None where it is stopped or
    ends otherwise.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, seconds)
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
            silence = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silence, stream)
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


@dataclass(frozen=True)
class Check:
    """A property or a test: run() is whether it holds."""

    name: str
    kind: str
    run: Callable[[], bool]


class Mutation:
    """The mutation check, as a pytest plugin: pytest collects the tests once, and forked processes
    run them.
    """

    def __init__(self, modules: Sequence[str], cases: int, console: Console) -> None:
        self.modules, self.cases, self.console = (
            [importlib.import_module(name) for name in modules],
            cases,
            console,
        )
        self.excused = {key for keys in EQUIVALENT.values() for key in keys}
        self.killed: Counter[tuple[str, str]] = Counter()
        self.survivors: list[Mutant] = []
        self.equivalent: list[Mutant] = []
        self.broken: list[str] = []
        self._failed = False

    @cached_property
    def functions(self) -> dict[tuple[str, str], FunctionType]:
        """By module and qualified name."""
        return {
            (module.__name__, name): f
            for module in self.modules
            for name, f in functions(module).items()
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        # What the tests' own configuration has chosen, but without shrinking.
        name = settings.get_current_profile_name()
        settings.register_profile(
            "mutants", settings.get_profile(name), phases=[Phase.explicit, Phase.generate]
        )
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        gc.collect()
        gc.freeze()  # a collection in a forked process would copy all that it shares
        checks = [*self._properties(), *(self._test(item) for item in session.items)]
        everything = [mutant for module in self.modules for mutant in mutants(module)]
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        # No thread of the display: processes are forked.
        with Progress(*columns, console=self.console, auto_refresh=False) as progress:
            plan = self._plan(checks, progress)
            task = progress.add_task("mutants", total=len(everything))
            for mutant in everything if not self.broken else ():
                self._try(mutant, plan.get((mutant.module, mutant.function), []))
                progress.update(task, advance=1, refresh=True)
        return True

    def _properties(self) -> Iterator[Check]:
        from analysis.properties import PROPERTIES
        from analysis.properties.base import Inapplicable

        def holds(name: str) -> bool:
            for seed in range(_SEED, _SEED + self.cases):
                try:
                    if (
                        PROPERTIES[name].violation(seed, PROPERTIES[name].arguments(seed))
                        is not None
                    ):
                        return False
                except Inapplicable:
                    pass
            return True

        for name in PROPERTIES if self.cases else ():
            yield Check(name, "properties", lambda name=name: holds(name))

    def _test(self, item: pytest.Item) -> Check:
        def passes() -> bool:
            self._failed = False
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            return not self._failed

        return Check(item.nodeid, "tests", passes)

    def _plan(
        self, checks: Sequence[Check], progress: Progress
    ) -> dict[tuple[str, str], list[tuple[float, Check]]]:
        """Which checks call which function, properties first, the fast ones first, with their
        seconds.

        Each check runs in a process of its own, as what is computed once and kept would hide a
        later call.
        """
        plan: dict[tuple[str, str], list[tuple[float, Check]]] = {}
        codes = {module.__name__: announcing(module) for module in self.modules}
        task = progress.add_task("unbroken code", total=len(checks))
        for check in checks:

            def announced(check: Check = check) -> tuple[bool, float, list[tuple[str, str]]]:
                for module in self.modules:
                    module.__called__ = set()
                    for name, function in functions(module).items():
                        function.__code__ = codes[module.__name__][name]
                start = time.monotonic()
                passed = check.run()
                called = [
                    (module.__name__, name) for module in self.modules for name in module.__called__
                ]
                return passed, time.monotonic() - start, called

            passed, seconds, called = forked(announced, 600.0) or (False, 0.0, [])
            if not passed:
                self.broken.append(check.name)
            for at in called:
                plan.setdefault(tuple(at), []).append((seconds, check))
            progress.update(task, advance=1, refresh=True)
        for calls in plan.values():
            calls.sort(key=lambda call: (call[1].kind != "properties", call[0]))
        return plan

    def _try(self, mutant: Mutant, calls: Sequence[tuple[float, Check]]) -> None:
        if mutant.key in self.excused:
            self.equivalent.append(mutant)
            return
        for kind in ("properties", "tests"):
            chosen = [call for call in calls if call[1].kind == kind]

            def noticed(chosen: Sequence[tuple[float, Check]] = tuple(chosen)) -> bool:
                self.functions[mutant.module, mutant.function].__code__ = mutant.code
                return not all(check.run() for _, check in chosen)

            # A process that is stopped, for its time or memory, or that dies, was noticed.
            if forked(noticed, 10 + 5 * sum(seconds for seconds, _ in chosen)) is not False:
                self.killed[mutant.module, kind] += 1
                return
        self.survivors.append(mutant)
        file = Path(sys.modules[mutant.module].__file__)
        self.console.print(
            f"survived: {file}:{mutant.line} {mutant.key}", soft_wrap=True, markup=False
        )


@dataclass(frozen=True)
class Config:
    """Break every formula in turn and see that a property or a test notices; ends with 1 where one
    does not.
    """

    modules: Annotated[tuple[str, ...], tyro.conf.arg(help="the modules to break")] = MODULES
    tests: Annotated[tuple[Path, ...], tyro.conf.arg(help="the tests that have to notice")] = (
        ROOT / "tests" / "tasks",
        ROOT / "tests" / "ssa_theory",
    )
    cases: Annotated[int, tyro.conf.arg(help="cases of each property")] = 12


def main(config: Config, console: Console) -> int:
    """Run the check and say what came of it: 0 where every mutant is noticed."""
    start = time.monotonic()
    mutation = Mutation(config.modules, config.cases, console)
    # The suite's own options but for the runtime type checker, whose wrappers would hide the
    # functions.
    options = [
        "-q",
        "-s",
        "--no-summary",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=--import-mode=importlib",
    ]
    options += [
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]  # tyro has imported a package that is also a plugin
    # Training: slow, and no formula's only test.
    options += [f"--ignore={ROOT / 'tests' / 'ssa_theory' / 'test_ensemble.py'}"]
    pytest.main(
        [*options, f"--rootdir={ROOT}", f"-c={ROOT / 'pyproject.toml'}", *map(str, config.tests)],
        [mutation],
    )
    for name in mutation.broken:
        console.print(f"fails on unbroken code: {name}", soft_wrap=True, markup=False)
    table = Table(
        "module", "mutants", "by properties", "by tests", "equivalent", "survived", box=None
    )
    for name in (*config.modules, ""):
        counts = [
            *(
                sum(n for (m, k), n in mutation.killed.items() if name in ("", m) and k == kind)
                for kind in _KINDS
            ),
            *(
                sum(name in ("", m.module) for m in found)
                for found in (mutation.equivalent, mutation.survivors)
            ),
        ]
        table.add_row(name or "all", *map(str, (sum(counts), *counts)))
    console.print(table)
    seen = {mutant.key for mutant in mutation.equivalent}
    stale = [
        key
        for key in mutation.excused
        if key not in seen and key.startswith(tuple(f"{m}." for m in config.modules))
    ]
    for key in stale if not mutation.broken else ():
        console.print(
            f"in the list of equivalent changes, but no such mutant: {key}",
            soft_wrap=True,
            markup=False,
        )
    console.print(f"{time.monotonic() - start:.0f} s")
    return int(bool(mutation.survivors or mutation.broken or stale or not mutation.killed))


_KINDS = ("properties", "tests")

if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, description=__doc__), Console()))
