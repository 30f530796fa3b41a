"""What a self-edit is worth to the outer loop: pure functions from an edit's trials to a reward and its baseline.

A reward is computed from the ledger alone, so that a finished run can be read again under another one. The paper's is
`accuracy`: the mean mark after the update, against the mean mark before it (arXiv 2506.10943 section 3.1).

    outcome = load_reward("accuracy")(task, trials_R)

Axis suffixes: R repeats (seeds) of an edit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfedit.errors import ConfigError, near_miss
from selfedit.types import Task, Trial, mean_measured


@dataclass(frozen=True, slots=True)
class Outcome:
    """An edit's reward, and the `baseline` that it must exceed to have helped; None where unmeasured."""

    reward: float | None
    baseline: float | None


Reward = Callable[[Task, Sequence[Trial]], Outcome]


def accuracy(task: Task, trials_R: Sequence[Trial]) -> Outcome:
    """The mean mark after the update, in [0, 1], against the mean mark before it (arXiv 2506.10943 section 3.1)."""
    return Outcome(
        mean_measured([trial.reward for trial in trials_R]), mean_measured([trial.baseline for trial in trials_R])
    )


REWARDS: dict[str, Reward] = {"accuracy": accuracy}


def load_reward(name: str) -> Reward:
    """Return the reward called `name`. Raises `ConfigError` for an unknown one."""
    if name not in REWARDS:
        raise ConfigError(f"unknown reward {name!r}; {near_miss(name, REWARDS)}")
    return REWARDS[name]
