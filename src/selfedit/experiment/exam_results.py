"""What the exams that a model wrote itself came to in finished run folders: which questions report, how far they agree.

Unseen passages that came without questions are reported by the hidden half of their exam alone. On the passages that
the writer is rewarded for, what the first round's self-edits gained is known by several sets of questions at once.

    planned = [examined(plan, read_trials(plan.folder)) for plan in plans]
    found = agreements(planned)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from selfedit.experiment.plans import Plan
from selfedit.loop.inner import COPIED
from selfedit.loop.outer import FIRST
from selfedit.report.agreement import Agreement, agreement, gains
from selfedit.report.stats import of_role
from selfedit.runs import read_exams
from selfedit.tasks.exams import OWN, describe, with_exam
from selfedit.types import Exam, Role, Task, Trial

Planned = Sequence[tuple[Plan, Mapping[str, Trial]]]
"""The seeds of a variant, each with its ledger."""

NAMES: dict[str, tuple[Role, ...]] = {
    "visible": ("exam",),
    "hidden": ("hidden",),
    "both halves": ("exam", "hidden"),
    "given": ("given",),
}
COMPARED = (("visible", "hidden"), ("visible", "given"), ("hidden", "given"), ("both halves", "given"))


def examined(plan: Plan, ledger: Mapping[str, Trial]) -> tuple[Plan, Mapping[str, Trial]]:
    """Give a plan's tasks the exams that its run recorded; of unseen tasks that came without one, and their trials,
    keep the hidden half and what is forbidden.

    Such a task gets its exam's digest into its id, since another seed's or variant's may be another: marks are then
    never compared between two exams.
    """
    exams = read_exams(plan.folder)
    own = {
        task.id: named(task, exams[task.id])
        for task in plan.unseen
        if task.id in exams and not any(question.role == "exam" for question in task.questions)
    }
    of_own = {key: replace(t, task_id=own[t.task_id].id) for key, t in ledger.items() if t.task_id in own}
    hidden = {trial.key: trial for trial in of_role(of_own.values(), own.values(), "hidden", "forbidden")}
    kept = {key: trial for key, trial in ledger.items() if key not in of_own} | hidden
    unseen = [_hidden(own[task.id]) if task.id in own else task for task in plan.unseen]
    train = [with_exam(task, exams[task.id].questions) if task.id in exams else task for task in plan.train]
    return replace(plan, train=train, unseen=unseen), kept


def agreements(planned: Planned) -> Iterator[Agreement]:
    """Say how far the halves of the exams, and the questions that the passages came with, agree on what each self-edit
    of the first round gained; nothing where there is one sort of questions."""
    asked = {question.role for plan, _ in planned for task in plan.train for question in task.questions}
    for a, b in COMPARED:
        if not asked.issuperset((*NAMES[a], *NAMES[b])):
            continue
        found: dict[str, list[tuple[float, float]]] = {}
        for plan, ledger in planned:
            first = [trial for key, trial in ledger.items() if key.startswith(f"{FIRST}/")]
            for task_id, pairs in gains(first, plan.train, NAMES[a], NAMES[b]).items():
                found.setdefault(task_id, []).extend(pairs)
        yield agreement(a, b, found)


def exam_notes(planned: Planned) -> Iterator[str]:
    """Say what became of the exams that the model wrote, and of the lines that copied them."""
    exams = [exam for plan, _ in planned for exam in read_exams(plan.folder).values()]
    if not exams:
        return
    yield describe(exams)
    edited = [trial for _, ledger in planned for trial in ledger.values() if trial.sample]
    copied = [int(trial.measures.get(COPIED) or 0) for trial in edited]
    yield (
        f"{sum(copied):,} lines of self-edits were left out as copies of such a question, in "
        f"{sum(n > 0 for n in copied):,} of {len(edited):,} updates."
    )
    n_own = sum(question.kind == OWN for plan, _ in planned for task in plan.unseen for question in task.questions)
    if n_own:
        yield f"Unseen passages without given questions are reported by the hidden halves: {n_own:,} questions."


def named(task: Task, exam: Exam) -> Task:
    """Give a task its exam, and the exam's digest into its id."""
    digest = hashlib.sha256(repr(exam.questions).encode()).hexdigest()[:8]
    return replace(with_exam(task, exam.questions), id=f"{task.id}@{digest}")


def _hidden(task: Task) -> Task:
    return replace(
        task, questions=tuple(question for question in task.questions if question.role in ("hidden", "forbidden"))
    )
