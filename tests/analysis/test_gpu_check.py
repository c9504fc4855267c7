"""What `make gpu-check` writes, with stand-ins for the GPU's tests and its benchmark."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from analysis.bench import gpu_check
from analysis.bench.bench import bench
from analysis.bench.config import BenchConfig
from analysis.progress import silent

TINY = BenchConfig(
    device="cpu",
    seeds=4,
    steps=2,
    repeats=1,
    min_seconds=0,
    compile="off",
    workloads=("graph",),
    scaling=(),
)


def test_one_file_has_card_tests_and_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = bench(TINY, tmp_path, silent) | {"device": "cuda (NVIDIA Nothing)"}
    devices = []

    def benched(config: BenchConfig, *others: Any) -> dict[str, Any]:
        devices.append(config.device)
        return report

    said = "1 failed, 140 passed in 3.2s"
    done = subprocess.CompletedProcess((), 1, f"...\n===== {said} =====\n")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(gpu_check, "bench", benched)
    monkeypatch.setattr(gpu_check.subprocess, "run", lambda *given, **named: done)
    file = tmp_path / "gpu-check.md"
    assert gpu_check.main(file, tmp_path) == 1
    assert devices == ["cuda"]
    text = file.read_text()
    assert "on cuda (NVIDIA Nothing), of revision " in text
    assert f"(`pytest -m cuda`): {said}." in text
    rows = [line for line in text.splitlines() if line.startswith("| graph ")]
    assert len(rows) >= 4
    assert all(line.startswith("|") == line.endswith("|") for line in text.splitlines())


def test_without_a_gpu_nothing_is_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(gpu_check.subprocess, "run", None)
    with pytest.raises(ValueError, match="needs a GPU"):
        gpu_check.main(tmp_path / "gpu-check.md", tmp_path)
    assert not list(tmp_path.iterdir())
