"""What it costs to get the 800 public tasks of ARC-AGI-1 ready: read, augment, write as text, read back.

Every grid of every task goes through every augmentation; what stays within 30 cells a side is written and read again.
Beside it, the practice sets of the whole choice of augmentations, as they would be trained on, for every task.

    python -m bench.grids ARC_FOLDER
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bench.measure import machine, versions
from selfedit.sources.arc import read_arc
from selfedit.tasks.arc import demonstrations_of
from selfedit.tasks.arc_augment import AUGMENTERS, TOOLS, practice
from selfedit.tasks.arc_grids import LARGEST, parse_grid, size_of, write_grid
from selfedit.types import Task

FILES = ("arc-agi_training_challenges.json", "arc-agi_evaluation_challenges.json")


def round_trip(tasks: list[Task]) -> tuple[int, int]:
    """Augment, write and read back all grids; return how many texts there were, and how many came back different."""
    n = lost = 0
    for task in tasks:
        grids = [grid for pair in demonstrations_of(task) for grid in pair]
        grids += [parse_grid(text) for question in task.questions for text in (question.question, question.answer)]
        for grid in grids:
            moved = [grid, *(augmenter.do(grid) for tool in TOOLS for augmenter in AUGMENTERS[tool])]
            small = [each for each in moved if max(size_of(each)) <= LARGEST]
            n += len(small)
            lost += sum(parse_grid(write_grid(each)) != each for each in small)
    return n, lost


def measure(folder: Path) -> dict[str, Any]:
    """Time the three steps on one core."""
    start, cpu = time.perf_counter(), time.process_time()
    tasks = [task for name in FILES for task in read_arc(folder / name).tasks]
    read = time.perf_counter()
    n, lost = round_trip(tasks)
    written, cpu = time.perf_counter(), time.process_time() - cpu
    sets = sum(len(practice(demonstrations_of(task), TOOLS, seed=0)) for task in tasks)
    return {
        "tasks": len(tasks),
        "texts": n,
        "lost": lost,
        "practice_sets": sets,
        "read_s": read - start,
        "round_trip_s": written - read,
        "read_and_round_trip_cpu_s": cpu,
        "practice_s": time.perf_counter() - written,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time reading, augmenting and writing all public tasks of ARC-AGI-1.")
    parser.add_argument("folder", type=Path, help="where Kaggle's files of challenges and solutions are")
    parser.add_argument("--out", type=Path, default=Path("bench/results/grids.json"), help="where results go")
    given = parser.parse_args()
    report = {"machine": machine(), "versions": versions(), **measure(given.folder)}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
