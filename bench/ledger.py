"""The ledger of a benchmark: every timing is on disk before the next one starts, so that a kill loses nothing.

A row is an arm on a model: the median, least and most of its timings in seconds per self-edit, and what follows from
them. Ratios are of medians, and stand in the file as soon as both sides are there.

Real tokens/s counts what a self-edit says, never padding. MFU is real tokens/s x (4 P + 6 L) ÷ the machine's peak, with
P the frozen weights (a forward pass and the gradient of activations: 2 + 2 FLOP a weight) and L the LoRA's (2 + 4).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

Phase = Literal["train", "examine", "grade", "all"]


@dataclass(frozen=True, slots=True)
class Row:
    """What names an arm on a model. `timed` says what was really run; `tokens` and `flops` are a self-edit's own."""

    arm: str
    model: str
    params: int
    targets: str
    K: int
    timed: str
    is_extrapolated: bool
    tokens: float
    flops: float = 0.0
    workload: str = "B"
    phase: Phase = "train"

    @property
    def key(self) -> tuple[str, ...]:
        """Tell rows apart."""
        return self.phase, self.model, self.targets, self.workload, self.arm, str(self.K)


@dataclass(slots=True)
class Ledger:
    """What was measured so far, and the file that holds it. `headline` gives the K of our arm in the ratios."""

    path: Path
    head: dict[str, Any]
    peak: float
    headline: dict[str, int] = field(default_factory=dict)
    rows: dict[tuple[str, ...], Row] = field(default_factory=dict)
    seconds: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    bytes: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    skipped: dict[tuple[str, ...], str] = field(default_factory=dict)

    def add(self, row: Row, seconds: float, peak_bytes: int) -> None:
        """Write down a timing in seconds per self-edit."""
        self.rows[row.key] = row
        self.seconds.setdefault(row.key, []).append(seconds)
        self.bytes.setdefault(row.key, []).append(peak_bytes)
        self.write()

    def skip(self, row: Row, why: str) -> None:
        """Write down that an arm was not run, and why."""
        self.skipped[row.key] = why
        self.write()

    def median(self, phase: str, model: str, targets: str, arm: str, K: int, workload: str = "B") -> float | None:
        """Look up seconds per self-edit; None where nothing was measured."""
        found = self.seconds.get((phase, model, targets, workload, arm, str(K)))
        return median(found) if found else None

    def write(self) -> None:
        """Replace the file with all there is."""
        content = {
            **self.head,
            "headline_K": self.headline,
            "ratios": self.ratios(),
            "arms": [self._as_json(row) for row in self.rows.values()],
            "skipped": [{"arm": "/".join(key), "why": why} for key, why in self.skipped.items()],
        }
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(new, self.path)

    def ratios(self) -> dict[str, float]:
        """Divide each arm's median by ours at the headline K, for all-linear targets; examination likewise."""
        found: dict[str, float] = {}
        for model, slots in self.headline.items():
            ours = self.median("train", model, "all-linear", "ours", slots)
            for arm in ("official", "longest", "sequential", "graphs"):
                theirs = self.median("train", model, "all-linear", arm, 1)
                if ours and theirs:
                    found[f"{arm}/ours@{model}"] = round(theirs / ours, 2)
        for row in self.rows.values():
            theirs = self.median("examine", row.model, row.targets, "sequential", 1)
            ours = self.median("examine", row.model, row.targets, "ours", row.K)
            if row.phase == "examine" and row.K > 1 and ours and theirs:
                found[f"examine@{row.model}"] = round(theirs / ours, 2)
        return found

    def _as_json(self, row: Row) -> dict[str, Any]:
        timings = self.seconds[row.key]
        middle = median(timings)
        tokens_per_second = row.tokens / middle if row.tokens else None
        return {
            "arm": row.arm,
            "model": row.model,
            "params": row.params,
            "targets": row.targets,
            "K": row.K,
            "phase": row.phase,
            "workload": row.workload,
            "seconds_per_edit": [_short(value) for value in (middle, min(timings), max(timings))],
            "timings": len(timings),
            "timed": row.timed,
            "extrapolated": row.is_extrapolated,
            "tokens_per_edit": round(row.tokens, 1),
            "tokens_per_second": _short(tokens_per_second),
            "mfu": _short(row.flops / middle / self.peak) if row.flops else None,
            "peak_bytes": round(median(self.bytes[row.key])),
        }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
