"""Kill a run anywhere and start it again: no trial lost, none twice, the same result as an unbroken run."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from selfedit.runs import count_trials_written, read_trials
from selfedit.types import Trial

pytestmark = pytest.mark.e2e

TINY = ["eval_tasks=4", "outer.rounds=4", "outer.patience=1", "outer.tasks=3", "sample.edits=3", "inner.epochs=2"]


def command(folder: Path) -> list[str]:
    run = "from selfedit.cli import main; main()"
    return [sys.executable, "-c", run, "run", "demo", *TINY, "--out", str(folder), "--device", "cpu"]


def results(folder: Path) -> dict[str, Trial]:
    """The trials without what may differ between two runs: the time they took."""
    return {key: replace(trial, cost={}) for key, trial in read_trials(folder / "seed-0").items()}


def test_a_run_killed_again_and_again_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    broken = tmp_path / "broken"
    for kills in range(1, 4):
        before = count_trials_written(broken / "seed-0")
        process = subprocess.Popen(command(broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and count_trials_written(broken / "seed-0") < before + 4 * kills:
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert 0 < count_trials_written(broken / "seed-0") < count_trials_written(tmp_path / "whole" / "seed-0")
    subprocess.run(command(broken), check=True, capture_output=True)
    assert results(broken) == results(tmp_path / "whole")
    lines = (broken / "seed-0" / "trials.jsonl").read_text().splitlines()
    assert len(lines) == len(results(broken))
