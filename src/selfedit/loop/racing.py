"""Racing: a cheap look at all self-edits of a text, and the rest of the inner loops for the better ones alone.

Successive halving (arXiv 1502.07943) over the G self-edits of a task. They run in heats, one seed each: after a heat
the share `keep` of those in the race goes on to the next seed, by the mean of its seeds so far, and whoever is left
alone has won. With G = 5, R = 3 and keep = 0.5, five run the first seed and two the second: 7 inner loops in place of
15. What the heats go by is the recipe's to say:

    one-seed  the reward itself, which the first heat measures with one seed
    logprob   the log-probability of the gold answers, of the same inner loops: it has no ties (`loop.rewards`)
    learnt    before the first heat, what is predicted from the text (`loop.learnt`); then the reward. Nothing can be
              predicted in the first round, which is run by one seed and is what the others are predicted from

    trials_N = yield from race(units_N, keep=0.5, worth=accuracy, try_units=...)

A race finds the best self-edit of a task, not what the others are worth: one that dropped out has no reward, so that
an average over a group's rewards would be one over its winners. `config` therefore refuses algorithms that need more
than the best. Units keep the keys and seeds that they have without a race, and the heats depend on nothing but trials:
a race is a part of the full measurement, and a resumed one the unbroken one. What shares a pass differs, as after any
other change of the batch: the last digits of an adapter are not those of the full measurement.

Axis suffixes: P tasks, G edits of a task, R repeats (seeds) of an edit, N units or trials flattened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import TypeVar

from selfedit.loop.algorithms import ROUNDING
from selfedit.loop.inner import Unit
from selfedit.loop.learnt import Predict
from selfedit.loop.rewards import Outcome, Reward, worth_of
from selfedit.loop.rollouts import rewarded, with_predictions
from selfedit.types import Failure, Rollout, Sample, Task, Trial

Event = TypeVar("Event")
Lane = Sequence[Unit]  # the inner loops of one self-edit, [R]
TryUnits = Callable[[Sequence[Unit]], Generator[Event, None, list[Trial]]]


@dataclass(frozen=True, slots=True)
class Raced:
    """What became of the self-edits of a race. In `groups_PG`, as an algorithm takes them, those that dropped out have
    no reward. `first_PG` are those of the first heat, with what they were worth in it: a reward that the race has not
    yet chosen by. `entered_PG` are all, with what was predicted of those that never ran: their mean tells how a writer
    does, as that of the finalists would not. `failures` are of a reward of the user's own."""

    trials_N: list[Trial]
    groups_PG: list[list[Rollout]]
    first_PG: list[list[Rollout]]
    entered_PG: list[list[Rollout]]
    failures: list[Failure]


def race(
    units_N: Sequence[Unit],
    keep: float,
    worth: Reward,
    try_units: TryUnits[Event],
    predict: Predict | None = None,
) -> Generator[Event, None, list[Trial]]:
    """Run the heats of all tasks, heat by heat; return the trials of the units that were run, in the units' order.

    `worth` ranks, the first of equals before the others, and what could not be measured last. With `predict`, the first
    cut is made before anything is run.
    """
    lanes_PG = _lanes(units_N)
    if predict:
        lanes_PG = [_better(lanes, keep, [_predicted(lane, predict) for lane in lanes]) for lanes in lanes_PG]
    tried: dict[str, Trial] = {}
    for heat in range(max((unit.repeat for unit in units_N), default=-1) + 1):
        trials_N = yield from try_units([lane[heat] for lanes in lanes_PG for lane in lanes])
        tried |= {trial.key: trial for trial in trials_N}
        so_far_PG = [[_worth(lane[: heat + 1], tried, worth) for lane in lanes] for lanes in lanes_PG]
        lanes_PG = [_better(lanes, keep, so_far) for lanes, so_far in zip(lanes_PG, so_far_PG, strict=True)]
        lanes_PG = [lanes for lanes in lanes_PG if len(lanes) > 1]
        if not lanes_PG:
            break
    return [tried[unit.key] for unit in units_N if unit.key in tried]


def n_kept(n: int, keep: float) -> int:
    """Return how many of `n` self-edits go on: the share `keep` of them, rounded down, and at least one."""
    return max(1, floor(keep * n + ROUNDING))


def count_loops(edits: int, repeats: int, keep: float, is_predicted: bool = False) -> int:
    """Return how many inner loops the race of a task takes, of `edits` x `repeats` without one."""
    running, loops = n_kept(edits, keep) if is_predicted else edits, 0
    for _ in range(repeats):
        loops += running
        running = n_kept(running, keep)
        if running == 1:
            break
    return loops


def sum_up(
    units_N: Sequence[Unit],
    trials_N: Sequence[Trial],
    tasks_P: Sequence[Task],
    reward: Reward,
    predict: Predict | None = None,
) -> Raced:
    """Group what a race has measured: `units_N` were there to be run, `trials_N` are of those that were."""
    groups_PG, failures = rewarded(trials_N, tasks_P, of_finalists(reward, trials_N))
    first_PG, _ = rewarded([trial for trial in trials_N if trial.repeat == 0], tasks_P, reward)
    tried, untried = {(trial.task_id, trial.edit) for trial in trials_N}, dict[str, list[Sample]]()
    for unit in units_N:
        if unit.repeat == 0 and (unit.task.id, unit.edit) not in tried and not isinstance(unit.samples, Failure):
            untried.setdefault(unit.task.id, []).append(unit.samples[0])
    untried_P = [untried.get(task.id, []) for task in tasks_P]
    groups_PG = [
        [*group, *(Rollout(sample, None, None) for sample in samples)]
        for group, samples in zip(groups_PG, untried_P, strict=True)
    ]
    entered_PG = with_predictions(tasks_P, first_PG, untried_P, predict) if predict else first_PG
    return Raced(list(trials_N), groups_PG, first_PG, entered_PG, failures)


def of_finalists(reward: Reward, trials_N: Sequence[Trial]) -> Reward:
    """Let `reward` tell only what those self-edits are worth that ran the last heat of their task."""
    heats = Counter((trial.task_id, trial.edit) for trial in trials_N)
    last: dict[str, int] = {}
    for (task_id, _), n in heats.items():
        last[task_id] = max(n, last.get(task_id, 0))

    def of_finalist(task: Task, trials_R: Sequence[Trial]) -> Outcome:
        return reward(task, trials_R) if len(trials_R) == last[task.id] else Outcome(None, None)

    return of_finalist


def _lanes(units_N: Sequence[Unit]) -> list[list[Lane]]:
    """Sort units into those of each self-edit, [P][G][R]."""
    lanes: dict[str, dict[int, list[Unit]]] = {}
    for unit in units_N:
        lanes.setdefault(unit.task.id, {}).setdefault(unit.edit, []).append(unit)
    return [list(of_task.values()) for of_task in lanes.values()]


def _better(lanes: Sequence[Lane], keep: float, worth_G: Sequence[float | None]) -> list[Lane]:
    """Keep the better ones, in their order."""
    ranked = sorted(range(len(lanes)), key=lambda g: float("inf") if (worth := worth_G[g]) is None else -worth)
    return [lanes[g] for g in sorted(ranked[: n_kept(len(lanes), keep)])]


def _worth(lane: Lane, tried: Mapping[str, Trial], worth: Reward) -> float | None:
    found = worth_of(worth, lane[0].task, [tried[unit.key] for unit in lane])
    return None if isinstance(found, Failure) else found.reward


def _predicted(lane: Lane, predict: Predict) -> float | None:
    unit = lane[0]
    return None if isinstance(unit.samples, Failure) else predict(unit.task, unit.samples[0])
