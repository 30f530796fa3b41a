"""What a self-edit is worth to the outer loop: pure functions from an edit's trials to a reward and its baseline.

A reward is computed from the ledger alone, so that a finished run can be read again under another one. The paper's is
`accuracy`: the mean mark after the update, against the mean mark before it (arXiv 2506.10943 section 3.1). What a
reward needs beside marks, the inner loop measures while the adapter is there (`loop.probes`) and the ledger keeps in
`Trial.measures`; "x_before" is what x was before the update. A reward of the user's own is a function in a file:

    reward = load_reward(OuterSettings(reward="rewards.py:brevity"))  # def brevity(task, trials) -> float | None
    outcome = reward(task, trials_R)

An update that was never made, since the edit could not be used, has marks of 0 and leaves all measures as they were.

Axis suffixes: R repeats (seeds) of an edit, Q questions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

from selfedit.errors import ConfigError, boundary, near_miss
from selfedit.types import (
    Failure,
    OuterSettings,
    Question,
    RewardSettings,
    Score,
    Task,
    Trial,
    mean_measured,
    mean_score,
)
from selfedit.userfiles import is_own, load_own


@dataclass(frozen=True, slots=True)
class Outcome:
    """An edit's reward, and the `baseline` that it must exceed to have helped; None where unmeasured."""

    reward: float | None
    baseline: float | None


RUBRIC = ("length", "diversity", "quality", "correctness")  # as `tasks.rubric` reads them
Reward = Callable[[Task, Sequence[Trial]], Outcome]


@dataclass(frozen=True, slots=True)
class Kind:
    """A reward, made for the settings of its terms, and the `measures` that it needs beside marks.

    `trains` is false where it is given without an inner loop. `learns` says that edits which were not tried are given
    what a model predicts from those that were.
    """

    make: Callable[[RewardSettings], Reward]
    measures: tuple[str, ...] = ()
    trains: bool = True
    learns: bool = False


def accuracy(task: Task, trials_R: Sequence[Trial]) -> Outcome:
    """The mean mark after the update, in [0, 1], against the mean mark before it (arXiv 2506.10943 section 3.1)."""
    return Outcome(
        mean_measured([trial.reward for trial in trials_R]), mean_measured([trial.baseline for trial in trials_R])
    )


def gain(task: Task, trials_R: Sequence[Trial]) -> Outcome:
    """What the update added to the mean mark, in [-1, 1], against 0.

    All edits of a group have the same mark before, so that whatever compares them with one another, or with their
    baseline, chooses as under `accuracy`. It differs where rewards of several tasks are compared.
    """
    return Outcome(mean_measured([_minus(trial.reward, trial.baseline) for trial in trials_R]), 0.0)


def logprob(task: Task, trials_R: Sequence[Trial]) -> Outcome:
    """The natural log-probability of the gold answers after their closed-book prompts, against that before the update.

    A mean over the exam's questions of the mean over the answer's tokens, without the end of the sequence: it tells
    two edits apart that no exam does, and needs no text to be generated.
    """
    return Outcome(_mean_of(trials_R, "logprob"), _mean_of(trials_R, "logprob_before"))


def retention(terms: RewardSettings) -> Reward:
    """Make the reward gain - λ · lost - μ · KL, against 0: what was learnt less what it did to the rest.

    λ is `terms.lost`, μ `terms.kl`. lost is the share, in [0, 1], of probe questions answered rightly before the update
    and no longer after it. KL, in nats per token, is that of the model before to the one after, on texts drawn from the
    model before: the direction KL(before ‖ after) that forgetting goes with in arXiv 2509.04259, which takes it on the
    new task's text; here the texts are of what the model knew.
    """

    def reward(task: Task, trials_R: Sequence[Trial]) -> Outcome:
        gained, known, drift = gain(task, trials_R).reward, _mean_of(trials_R, "known"), _mean_of(trials_R, "kl")
        if gained is None or known is None or drift is None:
            return Outcome(None, 0.0)
        return Outcome(gained - terms.lost * (1 - known) - terms.kl * drift, 0.0)

    return reward


def forbidden(terms: RewardSettings) -> Reward:
    """Make the reward exam - w · forbidden, against the same before the update: learn this, and do not learn that.

    exam and forbidden are the mean marks on the questions of either role, w is `terms.forbidden`. A task with nothing
    forbidden in it is rewarded for its exam alone. What cannot be used teaches nothing of either sort and is worth 0.
    """

    def worth(questions: Sequence[Question], scores_Q: Sequence[Score]) -> float | None:
        learnt, leaked = (_mean_of_role(questions, scores_Q, role) for role in ("exam", "forbidden"))
        if not any(question.role == "forbidden" for question in questions):
            return learnt
        return None if learnt is None or leaked is None else learnt - terms.forbidden * leaked

    def reward(task: Task, trials_R: Sequence[Trial]) -> Outcome:
        return Outcome(
            mean_measured([worth(task.questions, trial.after_Q) for trial in trials_R]),
            mean_measured([worth(task.questions, trial.before_Q) for trial in trials_R]),
        )

    return reward


def guarded(terms: RewardSettings) -> Reward:
    """Make the reward logprob - w · leak, against the same before the update: `forbidden`, as `logprob` is `accuracy`.

    Most edits that tell a secret do not teach it so well that it comes out at the exam, and `forbidden` does not tell
    them from those that leave it out. leak is the log-probability of the answers that must not be learnt, w is
    `terms.forbidden`. A task with nothing forbidden in it is rewarded for its exam alone.
    """

    def worth(task: Task, trials_R: Sequence[Trial], suffix: str) -> float | None:
        learnt, leaked = (_mean_of(trials_R, name + suffix) for name in ("logprob", "leak"))
        if not any(question.role == "forbidden" for question in task.questions):
            return learnt
        return None if learnt is None or leaked is None else learnt - terms.forbidden * leaked

    return lambda task, trials_R: Outcome(worth(task, trials_R, ""), worth(task, trials_R, "_before"))


def rubric(task: Task, trials_R: Sequence[Trial]) -> Outcome:
    """The mean of a judge's four marks, in [1, 5]; 0 for what could not be used (the proxy of arXiv 2506.10943, §5).

    There is no exam, and so no baseline that an edit could improve on.
    """
    return Outcome(mean_measured([_marked(trial) for trial in trials_R]), None)


def _marked(trial: Trial) -> float | None:
    return mean_measured([trial.measures[name] for name in RUBRIC]) if trial.measures else trial.reward


REWARDS: dict[str, Kind] = {
    "accuracy": Kind(lambda terms: accuracy),
    "gain": Kind(lambda terms: gain),
    "logprob": Kind(lambda terms: logprob, ("logprob",)),
    "retention": Kind(retention, ("known", "kl")),
    "forbidden": Kind(forbidden),
    "guarded": Kind(guarded, ("logprob", "leak")),
    "rubric": Kind(lambda terms: rubric, trains=False),
    "learnt": Kind(lambda terms: accuracy, learns=True),
}


def kind_of(outer: OuterSettings) -> Kind:
    """Look up the reward that the settings name, of the package or of the user's own.

    Raises `ConfigError` for an unknown name, and for a file or function that is not there.
    """
    if is_own(outer.reward):
        own = _own(outer.reward)
        return Kind(lambda terms: own)
    if outer.reward not in REWARDS:
        raise ConfigError(
            f"unknown reward {outer.reward!r}; {near_miss(outer.reward, REWARDS)} (one of your own is path.py:function)"
        )
    return REWARDS[outer.reward]


def load_reward(outer: OuterSettings) -> Reward:
    """Return the reward that the settings name, with the weights they give to its terms. Raises as `kind_of` does."""
    return kind_of(outer).make(outer.terms)


def worth_of(reward: Reward, task: Task, trials_R: Sequence[Trial]) -> Outcome | Failure:
    """Reward an edit. What a reward raises costs this edit its reward, and no other."""
    with boundary("reward") as caught:
        return reward(task, trials_R)
    assert caught.failure
    return caught.failure


def _own(name: str) -> Reward:
    """Make a reward, whose baseline is 0, of a function (task, trials) -> a finite number, or None for no reward.

    It raises `ValueError` for anything else that the function returns.
    """
    function = load_own(name)

    def reward(task: Task, trials_R: Sequence[Trial]) -> Outcome:
        try:
            value = function(task, trials_R)
        except OSError as error:  # a file that the function wanted, not our disk
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        if value is None:
            return Outcome(None, 0.0)
        if not isinstance(value, Real) or not math.isfinite(value):
            raise ValueError(f"it returned {value!r}; expected a finite number, or None for an edit without a reward")
        return Outcome(float(value), 0.0)

    return reward


def _mean_of(trials_R: Sequence[Trial], measure: str) -> float | None:
    return mean_measured([trial.measures.get(measure) for trial in trials_R])


def _mean_of_role(questions: Sequence[Question], scores_Q: Sequence[Score], role: str) -> float | None:
    if not scores_Q:
        return None
    return mean_score([score for q, score in zip(questions, scores_Q, strict=True) if q.role == role])


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
