"""Short versions of the stress commands, each as a user gives it."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def command(script: str, *flags: str) -> str:
    """What the script prints; it has to end with exit code 0."""
    done = subprocess.run(
        [sys.executable, FOLDER / script, *flags],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_killed_runs_go_on_and_lose_nothing():
    text = command("kills.py", "--kills", "3", "--cases", "retrieval")
    assert re.search(
        r"3 kills in \d series: 0 corrupt files, 0 lost blocks, 0 unequal results, 0 failures", text
    )
    assert re.search(r"0 of [1-3] *$", text, re.MULTILINE)  # results were compared


def test_random_settings_and_damaged_results_end_well_or_in_one_sentence():
    text = command("fuzz.py", "--configs", "20", "--results", "2", "--trained", "0.05")
    assert "0 failures in 22 cases" in text
    for outcome in ("refused", "refused by the flag parser", "accepted, cut off before training"):
        assert int(re.search(rf"(\d+) {outcome}[,;]", text)[1]) > 1
