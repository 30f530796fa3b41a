"""The benchmarks run, and write down what they promise. Their timings are not looked at here, their arithmetic is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import round as bench
from selfedit.engine.local import LocalBackend

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


def test_a_round_is_timed_by_phase_and_says_what_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PASSAGES", 2)
    timed = bench.time_round(LocalBackend("pup", "cpu"), seed=0)
    assert (timed.edits, timed.kept) == (10, 2)
    assert min(timed.write_s, timed.inner_s, timed.update_s) > 0
    assert timed.round_s == timed.write_s + timed.inner_s + timed.update_s


def test_a_round_of_a_large_model_is_reckoned_by_tokens_and_by_bytes() -> None:
    large = bench.Large(weights=2.4e12, lora=1e9)  # 4.8e12 bytes: a second for every step of decoding
    found = bench.reckon(1000.0, "", [[10, 30], [20, 40]], large)  # 50 tokens an epoch, 35 of them the passage
    assert found.write_s == pytest.approx(60)
    assert found.train_s == pytest.approx(250 * 10 * 50 / 1000)
    assert found.examine_s == pytest.approx(32 * 6 * (1 + 2 * 48e9 / 4.8e12))
    assert found.update_s == pytest.approx(50 * 10 * (35 + 50) / 1000)


def test_a_measured_rate_takes_the_place_of_what_is_assumed(tmp_path: Path) -> None:
    measured = tmp_path / "inner_loop_h200.json"
    assert [cost.rate for cost in bench.costs(measured, bench.Large())] == [
        "assumed: 20 % of the peak",
        "assumed: 40 % of the peak",
    ]
    arms = [
        {"arm": arm, "model": "7B", "tokens_per_second": rate} for arm, rate in (("ours", 10.0), ("official", 99.0))
    ]
    measured.write_text(json.dumps({"arms": arms}), encoding="utf-8")
    (found,) = bench.costs(measured, bench.Large())
    assert found.rate == "measured: 10 tokens/s"
