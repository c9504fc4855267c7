"""Shared test settings: fixed property-test cases, one thread a worker, CUDA tests only where there
is CUDA.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings
from torch.utils._python_dispatch import TorchDispatchMode

settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fixed")
# The suite runs one worker per core, and what a test starts, such as a notebook's kernel, has that
# core only.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


_LONG = ("test_notebooks.py", "test_report.py", "test_stress.py", "test_bench.py", "test_cli.py")
"""Files of few tests that take long: left for the end, one core would wait for another."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONG)
    if not torch.cuda.is_available():
        gone = [item for item in items if item.get_closest_marker("cuda")]
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=gone)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Switch the runtime type checker on or off, before any fixture of the test trains.

    It more than doubles the time of a training. Where experiments train, in tests/analysis, it is
    off: one test runs all of them under it, see tests/typed.py.
    """
    trains = "analysis" in item.path.relative_to(Path(__file__).parents[1]).parts
    jaxtyping.config.update("jaxtyping_disable", trains)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Call as a user does, without the tests' runtime type checker, which would answer first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@contextmanager
def typed_at_the_first_step() -> Iterator[None]:
    """Check the types of a training at its first step only: every other one calls the same."""
    # Imported before the tests, the package would escape the runtime type checker.
    from ssa_theory.steps import Plain

    def advance(steps: Any, batches: Any, real: Any = Plain.advance) -> None:
        off = jaxtyping.config.jaxtyping_disable
        jaxtyping.config.update("jaxtyping_disable", off or steps.state.taken > 0)
        try:
            real(steps, batches)
        finally:
            jaxtyping.config.update("jaxtyping_disable", off)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plain, "advance", advance)
        yield


@pytest.fixture(scope="session", autouse=True)
def _typed_at_the_first_step() -> Iterator[None]:
    with typed_at_the_first_step():
        yield


@contextmanager
def _undrawn() -> Iterator[None]:
    # Imported before the tests, the packages would escape the runtime type checker.
    from analysis.draw.figures import FILES
    from analysis.store.files import write_whole

    def save_figure(figure: object, folder: Path) -> None:
        for name in FILES:
            write_whole(folder / name, lambda path: path.write_text(f"<svg>{' ' * 10**6}</svg>"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.run.runner.save_figure", save_figure)
        yield


@pytest.fixture(scope="session")
def undrawn() -> Callable[[], AbstractContextManager[None]]:
    """undrawn() is a context in which a figure is made, but files take the place of its drawings:
    larger than a small result, and sooner done. Every experiment's are drawn once, with the report.
    """
    return _undrawn


@pytest.fixture
def quick_figures() -> Iterator[None]:
    """The same for one test."""
    with _undrawn():
        yield


@dataclass(frozen=True)
class Machine:
    """A pretended machine. l2: bytes of a core's second-level cache. memory: bytes."""

    l2: int
    cores: int
    memory: int


_SIZES = {"256K": 2**18, "8192K": 2**23, "1G": 2**30}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--machine",
        metavar="CACHE-CORES",
        choices=[f"{size}-{cores}" for size in _SIZES for cores in (1, 4)],
        help="pretend this machine in every test, such as 256K-1 or 1G-4",
    )


def _pretend(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Machine:
    """Let the package see a machine with this cache and these cores, of 4 GiB each."""
    size, cores = name.split("-")
    cache = folder / "size"
    cache.write_text(f"{size}\n")
    pretended = Machine(_SIZES[size], int(cores), int(cores) * 2**32)
    page = {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": pretended.memory // 2**12}
    monkeypatch.setattr("ssa_theory.device._CACHE_SIZE", cache)
    used = set(range(pretended.cores))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: used, raising=False)
    monkeypatch.setattr(
        "os.sysconf", lambda name, real=os.sysconf: page[name] if name in page else real(name)
    )
    return pretended


@pytest.fixture(params=[f"{size}-{cores}" for size in _SIZES for cores in (1, 4)])
def machine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
) -> Machine:
    """What a test says of blocks, cores and memory has to hold on each of these machines, whatever
    it runs on.
    """
    return _pretend(request.param, monkeypatch, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def _whole_machine(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[None]:
    """The machine that `--machine` names, for the whole session."""
    name = request.config.getoption("--machine")
    with pytest.MonkeyPatch.context() as patch:
        if name is not None:
            _pretend(name, patch, tmp_path_factory.mktemp("machine"))
        yield


class _NoHost(TorchDispatchMode):
    """Refuse any operation on a tensor that is not on the device: the host would have to wait for
    it, or send it.
    """

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves((args, result)):
            if isinstance(value, torch.Tensor) and value.device.type != "cuda":
                raise AssertionError(f"{func} works on {value.device}")
        return result


@pytest.fixture
def no_host(monkeypatch: pytest.MonkeyPatch) -> TorchDispatchMode:
    """A mode in which every tensor must live on a pretended CUDA device.

    A torch build without CUDA lacks, for pretended CUDA tensors, the autograd engine and two
    methods that ask for the device itself: all three get stand-ins.
    """
    monkeypatch.setattr(torch.Tensor, "__invert__", lambda tensor: torch.bitwise_not(tensor))
    monkeypatch.setattr(
        torch.Tensor,
        "contiguous",
        lambda tensor: tensor.clone(memory_format=torch.contiguous_format),
    )
    monkeypatch.setattr(
        torch.autograd,
        "grad",
        lambda loss, leaves, **_: [torch.zeros_like(leaf) for leaf in leaves],
    )
    return _NoHost()
