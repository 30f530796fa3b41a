"""From trials to rollouts: each edit with what it is worth, grouped by task, as an algorithm takes them.

    groups_PG, failures = rewarded(trials_N, tasks_P, reward)

What a reward raises is a `Failure` of the stage "reward", told once a round; a round in which it fails for every edit
ends the run with a sentence. Where a learnt reward spares inner loops, the edits that were not tried join their groups
with what is predicted of them (`loop.learnt`).

Axis suffixes: P tasks, G edits of a task, R repeats (seeds) of an edit, N trials flattened.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger

from selfedit.errors import RunError
from selfedit.loop.learnt import Pair, Predict
from selfedit.loop.rewards import Reward, worth_of
from selfedit.types import Failure, Rollout, Sample, Task, Trial, mean_measured

_log = getLogger(__name__)


def group(trials_N: Sequence[Trial], tasks_P: Sequence[Task], reward: Reward) -> list[list[Rollout]]:
    """Aggregate each edit's repeats to what `reward` finds them worth, and group the edits of each task: rollouts
    [P][G]. Edits never written are left out."""
    return rewarded(trials_N, tasks_P, reward)[0]


def rewarded(
    trials_N: Sequence[Trial], tasks_P: Sequence[Task], reward: Reward
) -> tuple[list[list[Rollout]], list[Failure]]:
    """Group as `group` does; return with it what a reward of the user's own failed of, one for every such edit."""
    tasks = {task.id: task for task in tasks_P}
    by_edit: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials_N:
        by_edit.setdefault((trial.task_id, trial.edit), []).append(trial)
    groups: dict[str, list[Rollout]] = {}
    failures: list[Failure] = []
    for (task_id, _), trials_R in by_edit.items():
        rollouts = groups.setdefault(task_id, [])
        sample = next((trial.sample for trial in trials_R if trial.sample), None)
        if sample:
            outcome = worth_of(reward, tasks[task_id], trials_R)
            if isinstance(outcome, Failure):
                failures.append(outcome)
                rollouts.append(Rollout(sample, None, None))
            else:
                rollouts.append(Rollout(sample, outcome.reward, outcome.baseline))
    return list(groups.values()), failures


def tell_failures(failures: Sequence[Failure], n_edits: int, stage: str) -> None:
    """Name once what kept edits from a reward. Raises `RunError` where that is so for all of them."""
    if not failures:
        return
    first = f"{failures[0].kind}: {failures[0].message}"
    if len(failures) == n_edits:
        raise RunError(
            f"the reward failed for all {n_edits} self-edits of {stage} ({first}); mend it and give the same command "
            "again: every trial is kept"
        )
    _log.warning("%d of %d self-edits of %s have no reward (%s)", len(failures), n_edits, stage, first)


def measured_pairs(tasks_P: Sequence[Task], groups_PG: Sequence[Sequence[Rollout]]) -> list[Pair]:
    """List the self-edits whose reward was measured."""
    return [
        Pair(task, rollout.sample, rollout.reward)
        for task, rollouts in zip(tasks_P, groups_PG, strict=True)
        for rollout in rollouts
        if rollout.reward is not None
    ]


def with_predictions(
    tasks_P: Sequence[Task],
    groups_PG: Sequence[Sequence[Rollout]],
    untried_P: Sequence[Sequence[Sample]],
    predict: Predict,
) -> list[list[Rollout]]:
    """Add the self-edits that were not tried to their groups, each with the reward that is predicted of it."""
    whole_PG = []
    for task, rollouts, untried in zip(tasks_P, groups_PG, untried_P, strict=True):
        baseline = mean_measured([rollout.baseline for rollout in rollouts])
        whole_PG.append([*rollouts, *(Rollout(sample, predict(task, sample), baseline) for sample in untried)])
    return whole_PG
