"""What `selfedit learn` costs as a folder grows: seconds a document, and whether memory stays flat.

The embedded model studies folders of short documents of its own world with the recipe that it has by default: five
self-edits tried for each document, then one adapter for all. The clock runs over the whole lesson, the final training
and the exams included. Memory is the resident set after the first wave of self-edits, when everything is in use, and
the most that it is at any later time.

    python -m bench.learn --documents 25 50 100 200
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.measure import machine, resident, versions
from selfedit.config import load_recipe
from selfedit.loop.inner import WAVE
from selfedit.workspace import Workspace, default_recipe, read_documents, write_examples


def measure(n: int, folder: Path) -> dict[str, Any]:
    """Learn `n` documents in a new workspace under `folder`, on the CPU."""
    write_examples(folder / "notes", n, seed=0)
    workspace = Workspace(folder / "home", "pup", "cpu")
    recipe = load_recipe(default_recipe(workspace.folder, "pup"))
    after_first_wave: list[int] = []

    def note(done: int, total: int) -> None:
        if done >= min(WAVE, total) and not after_first_wave:
            after_first_wave.append(resident())

    start = time.perf_counter()
    lesson = workspace.learn(read_documents(folder / "notes"), recipe, note)
    seconds = time.perf_counter() - start
    return {
        "documents": n,
        "self_edits": lesson.n_edits,
        "seconds": seconds,
        "seconds_per_document": seconds / n,
        "resident_bytes_after_first_wave": after_first_wave[0],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "gain": lesson.gain.difference,
        "n_questions": lesson.after.n_questions,
        "n_failed": lesson.n_failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time `selfedit learn` on folders of growing size.")
    parser.add_argument("--documents", type=int, nargs="+", default=[25, 50, 100, 200], help="sizes of the folders")
    parser.add_argument("--out", type=Path, default=Path("bench/results/learn_cpu.json"), help="where results go")
    given = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "versions": versions(), "runs": []}
    for n in given.documents:
        with tempfile.TemporaryDirectory() as folder:
            report["runs"].append(measure(n, Path(folder)))
        print(json.dumps(report["runs"][-1]), flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
