"""Measure what pup-grid can do, for its card: reading, choosing, and what practice at test time adds to reading.

    python -m selfedit.recipes.pup_grid.measure --model runs/pup-grid/model --tasks 64
    python -m selfedit.recipes.pup_grid.measure --model runs/pup-grid/model --tasks 64 --practice none basic

Everything is measured through the engine on fresh tasks of the split "eval", each family in turn, none of whose asked
grids is in training. A model is of use where reading alone is far from right and the ways to practise differ by family.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import product
from statistics import fmean
from typing import Any

from selfedit.engine.base import AnswerJob, Backend, SampleJob, open_backend
from selfedit.errors import BadEdit
from selfedit.tasks.arc import Grids, grade, over_source, read_choice, write_choice
from selfedit.tasks.arc_augment import TOOLS
from selfedit.tasks.arc_world import fresh_tasks
from selfedit.types import Adapter, Failure, Sample, Task, TrainJob, TrainSettings

TRAIN = TrainSettings(rank=16, alpha=32.0, batch_size=4)
RATES, EPOCHS = (1e-3, 5e-3), (2,)
PRACTICE: dict[str, tuple[str, ...]] = {"none": (), **{tool: (tool,) for tool in TOOLS}, "all": TOOLS}
AT_ONCE = 16  # updates
LONGEST = 64  # tokens of an answer or a choice; a grid of 6 by 6 has 44

Right = dict[str, float | int]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what pup-grid can do.")
    parser.add_argument("--model", default="pup-grid")
    parser.add_argument("--tasks", type=int, default=32, help="fresh tasks to practise for; ten times as many to read")
    parser.add_argument("--draws", type=int, default=8, help="choices drawn for each task")
    parser.add_argument(
        "--practice", nargs="*", choices=list(PRACTICE), default=["none", "basic", "all"], help="augmentations to try"
    )
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    engine, domain = open_backend("local", given.model, given.device), over_source(fresh_tasks, "tools", TRAIN)
    tasks = domain.tasks("eval", given.tasks, seed=0)
    found: dict[str, Any] = {
        "in context": in_context(engine, domain, domain.tasks("eval", 10 * given.tasks, seed=0)),
        "in context, of the tasks below": in_context(engine, domain, tasks),
        "choices": choices(engine, domain, tasks, given.draws),
    }
    for name, rate, epochs in product(given.practice, RATES, EPOCHS):
        choice = write_choice(PRACTICE[name], "train_using_output_tokens", rate, epochs)
        found[f"practised: {name}, {rate:g} x {epochs}"] = practised(engine, domain, tasks, choice)
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def in_context(engine: Backend, domain: Grids, tasks: Sequence[Task]) -> Right:
    """Ask with the demonstrations in view and no update."""
    return by_family(tasks, ask_all(engine, domain, tasks, [None] * len(tasks)))


def practised(engine: Backend, domain: Grids, tasks: Sequence[Task], choice: str) -> Right:
    """Practise for each task as the choice says, in an update of its own, then ask. What failed is not counted."""
    marks: list[float | None] = []
    for at in range(0, len(tasks), AT_ONCE):
        part = tasks[at : at + AT_ONCE]
        edits = [domain.parse(task, Sample("", (), (), (), choice, "eos")) for task in part]
        jobs = [TrainJob(engine.encode(e.examples, e.train), e.train, seed=at + i) for i, e in enumerate(edits)]
        trained = engine.train(jobs)
        marks += ask_all(engine, domain, part, trained)
        for adapter in trained:
            if not isinstance(adapter, Failure):
                engine.release(adapter)
    return by_family(tasks, marks)


def ask_all(
    engine: Backend, domain: Grids, tasks: Sequence[Task], adapters: Sequence[Adapter | Failure | None]
) -> list[float | None]:
    """Ask each task under its adapter, or with None under the bare model; mark None what failed."""
    pairs = list(zip(tasks, adapters, strict=True))
    whole = [(task, adapter) for task, adapter in pairs if not isinstance(adapter, Failure)]
    answered = iter(engine.answer([AnswerJob(tuple(domain.exam(task)), adapter, LONGEST) for task, adapter in whole]))
    return [None if isinstance(adapter, Failure) else _mark(task, next(answered)) for task, adapter in pairs]


def _mark(task: Task, answers: list[str] | Failure) -> float | None:
    return None if isinstance(answers, Failure) else grade(task.questions, answers)[0].value


def by_family(tasks: Sequence[Task], marks: Sequence[float | None]) -> Right:
    """Return the share right, over all and in each family, and how many were marked."""
    known = [(task.meta["kind"], value) for task, value in zip(tasks, marks, strict=True) if value is not None]
    kinds = dict.fromkeys(kind for kind, _ in known)
    shares = {kind: round(fmean(value for of, value in known if of == kind), 3) for kind in kinds}
    return {"right": round(fmean(value for _, value in known), 3), "n": len(known), **shares} if known else {"n": 0}


def choices(engine: Backend, domain: Grids, tasks: Sequence[Task], draws: int) -> dict[str, Any]:
    """Draw choices as the outer loop does: how many can be read, how many used too (they ask for no more than 375
    steps), and how often each decision is in those that can be read. Draws that the engine failed at are left out."""
    jobs = [SampleJob(domain.prompt(task), draws, seed=i, max_tokens=LONGEST) for i, task in enumerate(tasks)]
    results = zip(tasks, engine.sample(jobs), strict=True)
    drawn = [(task, each) for task, result in results if not isinstance(result, Failure) for each in result]
    read = [decisions for _, sample in drawn if (decisions := _decisions(sample))]
    counts = Counter(name for decisions in read for name in decisions)
    shares = {name: round(n / len(read), 3) for name, n in sorted(counts.items())}
    usable = sum(_is_usable(domain, task, sample) for task, sample in drawn)
    return {"n": len(drawn), "readable": len(read), "usable": usable, **shares}


def _decisions(sample: Sample) -> list[str]:
    """Name what a choice decides; nothing where it cannot be read."""
    try:
        tools, train = read_choice(sample.text, TRAIN)
    except BadEdit:
        return []
    return [*tools, f"loss on {train.loss_on}", f"rate {train.learning_rate:g}", f"epochs {train.epochs}"]


def _is_usable(domain: Grids, task: Task, sample: Sample) -> bool:
    try:
        domain.parse(task, sample)
    except BadEdit:
        return False
    return True


if __name__ == "__main__":
    main()
