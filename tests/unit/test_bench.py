"""The benchmark of the inner loop runs, and writes down what it promises. Its numbers are not looked at here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "inner_loop.py"
ROW = {"arm", "params", "targets", "K", "seconds_per_edit", "extrapolated", "tokens_per_second", "mfu", "peak_bytes"}
ARMS = {"ours", "sequential", "longest", "official"}


def dry_run(folder: Path, minutes: float) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), "--dry-run", "--out", str(folder), "--minutes", str(minutes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "inner_loop_dry.png").stat().st_size > 0
    written: dict[str, Any] = json.loads((folder / "inner_loop_dry.json").read_text(encoding="utf-8"))
    return written


def test_a_short_benchmark_writes_what_it_measured_and_lists_what_it_skipped(tmp_path: Path) -> None:
    written = dry_run(tmp_path, minutes=0.02)
    assert {"machine", "versions", "calibration", "arms", "ratios", "skipped"} <= written.keys()
    assert written["arms"][0].keys() >= ROW
    assert all(least <= middle <= most for middle, least, most in (row["seconds_per_edit"] for row in written["arms"]))
    assert {entry["why"] for entry in written["skipped"]} == {"the minutes were spent"}


@pytest.mark.slow
def test_every_arm_of_both_devices_runs_on_toy_models(tmp_path: Path) -> None:
    written = dry_run(tmp_path, minutes=5)
    assert written["skipped"] == []
    trained = {(row["model"], row["arm"]) for row in written["arms"] if row["phase"] == "train"}
    assert trained >= {(model, arm) for model in ("2M", "10M", "30M", "100M", "7B", "1B") for arm in ARMS}
    assert {("7B", "graphs"), ("1B", "graphs")} <= trained
    assert {f"{arm}/ours@{model}" for arm in ARMS - {"ours"} for model in ("2M", "100M")} <= written["ratios"].keys()
    assert {"examine@2M", "examine@7B"} <= written["ratios"].keys()
    assert {"ours+grader0", "official+grader0.01"} <= {row["arm"] for row in written["arms"]}
