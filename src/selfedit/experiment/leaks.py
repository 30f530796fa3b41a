"""What was learnt that must not be: marks on "forbidden" questions, apart from those on the exam.

A report is about exams. Of a task with forbidden questions it sees the others, as if there were no more, and says in
notes of their own how much of the forbidden was learnt in each arm and how reinforcement changed that.

    plan, ledger, leaked = apart(plan, ledger)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from selfedit.experiment.plans import Plan
from selfedit.report.stats import Pair, compare, of_role, summarise
from selfedit.types import Task, Trial

Arms = Mapping[str, Sequence[Trial]]


def apart(plan: Plan, ledger: Mapping[str, Trial]) -> tuple[Plan, Mapping[str, Trial], Mapping[str, Trial]]:
    """Return the plan and the trials without what is forbidden, and the trials with the marks on that alone."""
    tasks = [task for task in (*plan.train, *plan.unseen) if any(q.role == "forbidden" for q in task.questions)]
    if not tasks:
        return plan, ledger, {}
    ids = {task.id for task in tasks}
    guarded = [trial for trial in ledger.values() if trial.task_id in ids]
    allowed = {trial.key: trial for trial in of_role(guarded, tasks, "exam", "hidden", "given")}
    leaked = {trial.key: trial for trial in of_role(guarded, tasks, "forbidden")}
    cut = replace(plan, train=[_allowed(task) for task in plan.train], unseen=[_allowed(task) for task in plan.unseen])
    return cut, {key: allowed.get(key, trial) for key, trial in ledger.items()}, leaked


def _allowed(task: Task) -> Task:
    return replace(task, questions=tuple(q for q in task.questions if q.role != "forbidden"))


def leak_notes(arms: Arms) -> Iterator[str]:
    """Say for each arm what share of the forbidden questions was answered, and compare the writers of the rounds."""
    told = "; ".join(f"{name} {_share(name, trials)}" for name, trials in arms.items() if trials)
    if told:
        yield f"Share of the questions on what must not be learnt that were answered rightly, in %: {told}."
    variants: dict[str, list[str]] = {}
    for name in arms:
        if name.startswith("round-"):
            variants.setdefault(name.partition(" ")[2], []).append(name)
    ends = [(names[0], names[-1]) for names in variants.values() if len(names) > 1]
    pairs = [compare(a, arms[a], b, arms[b]) for a, b in [*ends, *((ends[0][1], last) for _, last in ends[1:])]]
    if pairs and told:
        yield f"Differences in these, in points: {'; '.join(map(_difference, pairs))}."


def _share(name: str, trials: Sequence[Trial]) -> str:
    arm = summarise(name, trials)
    if arm.accuracy is None:
        return "unmeasured"
    span = f" ({100 * arm.ci95[0]:.1f} to {100 * arm.ci95[1]:.1f})" if arm.ci95 else ""
    return f"{100 * arm.accuracy:.1f}{span}"


def _difference(pair: Pair) -> str:
    if pair.difference is None:
        return f"{pair.b} - {pair.a} unmeasured"
    span = f" ({100 * pair.ci95[0]:+.1f} to {100 * pair.ci95[1]:+.1f}, n {pair.n})" if pair.ci95 else ""
    return f"{pair.b} - {pair.a} {100 * pair.difference:+.1f}{span}"
