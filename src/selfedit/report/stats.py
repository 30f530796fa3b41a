"""What a run's trials say, with their uncertainty: accuracies, paired differences, 95 % intervals. Pure.

The passage is the unit that is resampled: questions and seeds of one passage share its text and its self-edit, so
counting them as independent would make every interval too narrow. An accuracy is the mean over passages of the
passage's mean: every passage has the same weight, however many questions it has. Repeats are averaged per question
first.

Intervals are percentile bootstraps rather than BCa: they stay inside the data's range and exist for every sample of two
passages or more, where BCa's acceleration is 0/0 for equal values. On the published 200 passages the two agree to 0.1
points. With fewer than about ten passages both are too narrow. A result depends on the seed and on the set of values,
not on their order.

Unmeasured marks (None) are left out and counted; a self-edit that could not be used is a real 0.

    arm = summarise("round-2", trials)
    pair = compare("round-0", trials_before, "round-2", trials)

Axis suffixes: R repeats (seeds and edits) of a task, Q questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from selfedit.types import Score, Task, Trial, mean_measured, mean_score

Marks = Mapping[str, Sequence[float | None]]
"""Passage id → its questions' marks in [0, 1], None where unmeasured."""

RESAMPLES = 10_000
_CHUNK = 500  # resamples drawn at once: bounds memory to _CHUNK x passages


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `n` measured passages, None with n = 0; `ci95` is None with n < 2. `n_failed`: unmeasured marks."""

    mean: float | None
    ci95: tuple[float, float] | None
    n: int
    n_failed: int


@dataclass(frozen=True, slots=True)
class Paired:
    """The mean difference b - a in [-1, 1] over the `n` passages measured in both; None where `Interval` has it."""

    difference: float | None
    ci95: tuple[float, float] | None
    n: int


@dataclass(frozen=True, slots=True)
class Arm:
    """One row of a report. `n_questions` were measured at least once; `n_failed` marks, over all repeats, were not."""

    name: str
    accuracy: float | None
    ci95: tuple[float, float] | None
    n_passages: int
    n_questions: int
    n_failed: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Arm `b` minus arm `a` on the passages measured in both, as `Paired`."""

    a: str
    b: str
    difference: float | None
    ci95: tuple[float, float] | None
    n: int


def interval(values_by_passage: Marks, seed: int = 0) -> Interval:
    """Average passages' means and bootstrap over passages, the cluster (Davison & Hinkley 1997, §2.4 and §3.8).

    θ = 1/P Σ_p mean_q x_pq over measured x; ci95 = the 2.5 and 97.5 % quantiles of θ over `RESAMPLES` draws of P
    passages with replacement. All passages equal: an interval of width zero.
    """
    means = [m for values in values_by_passage.values() if (m := mean_measured(values)) is not None]
    n_failed = sum(value is None for values in values_by_passage.values() for value in values)
    return Interval(_mean(means), _bootstrap(means, seed), len(means), n_failed)


def paired(a_by_passage: Marks, b_by_passage: Marks, seed: int = 0) -> Paired:
    """Bootstrap the difference b - a over passages, each compared with itself on the questions measured in both.

    Raises `ValueError` where a passage has another number of questions in a than in b: those are different exams.
    """
    shared = sorted(a_by_passage.keys() & b_by_passage.keys())
    differences = [d for p in shared if (d := _difference(a_by_passage[p], b_by_passage[p])) is not None]
    return Paired(_mean(differences), _bootstrap(differences, seed), len(differences))


def summarise(name: str, trials: Sequence[Trial], seed: int = 0) -> Arm:
    """Describe one arm by its trials' marks after the update; several trials of a task are its repeats."""
    marks_by_task = _marks_by_task(trials)
    by_question = {task: _over_repeats(marks_RQ) for task, marks_RQ in marks_by_task.items()}
    found = interval(by_question, seed)
    n_questions = sum(mark is not None for marks in by_question.values() for mark in marks)
    n_failed = sum(mark is None for marks_RQ in marks_by_task.values() for marks in marks_RQ for mark in marks)
    return Arm(name, found.mean, found.ci95, found.n, n_questions, n_failed)


def compare(name_a: str, trials_a: Sequence[Trial], name_b: str, trials_b: Sequence[Trial], seed: int = 0) -> Pair:
    """Compare two arms by their trials' marks after the update: `paired` on the tasks of both."""
    sizes = _exam_sizes([*trials_a, *trials_b])
    marks_a, marks_b = (
        {task: _over_repeats(marks_RQ) for task, marks_RQ in _marks_by_task(trials, sizes).items()}
        for trials in (trials_a, trials_b)
    )
    found = paired(marks_a, marks_b, seed)
    return Pair(name_a, name_b, found.difference, found.ci95, found.n)


def before_update(trials: Iterable[Trial]) -> list[Trial]:
    """Read the trials as if nothing had been learnt: the arm of the model before its update.

    The failure is dropped with the update, so that an unusable self-edit is not charged to the model that had none.
    """
    return [replace(t, after_Q=t.before_Q, reward=mean_score(t.before_Q), adapter=None, failure=None) for t in trials]


def of_kind(trials: Iterable[Trial], tasks: Iterable[Task], kind: str) -> list[Trial]:
    """Keep each trial's marks on the questions of one `kind`; trials of tasks without such a question are left out."""
    places = {task.id: [q for q, question in enumerate(task.questions) if question.kind == kind] for task in tasks}
    return [
        replace(t, before_Q=_pick(t.before_Q, places[t.task_id]), after_Q=_pick(t.after_Q, places[t.task_id]))
        for t in trials
        if places.get(t.task_id)
    ]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _bootstrap(values: Sequence[float], seed: int) -> tuple[float, float] | None:
    """The 95 % percentile interval of the mean; None below two values."""
    if len(values) < 2:
        return None
    if min(values) == max(values):
        return fmean(values), fmean(values)
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    random = np.random.default_rng(seed)
    draws = [ordered[random.integers(0, len(ordered), (_CHUNK, len(ordered)))] for _ in range(RESAMPLES // _CHUNK)]
    low, high = np.quantile(np.concatenate([draw.mean(axis=1) for draw in draws]), (0.025, 0.975))
    return float(low), float(high)


def _difference(a_Q: Sequence[float | None], b_Q: Sequence[float | None]) -> float | None:
    if len(a_Q) != len(b_Q):
        raise ValueError(f"cannot pair an exam of {len(a_Q)} questions with one of {len(b_Q)}")
    return _mean([b - a for a, b in zip(a_Q, b_Q, strict=True) if a is not None and b is not None])


def _pick(scores_Q: Sequence[Score], places: Sequence[int]) -> tuple[Score, ...]:
    return tuple(scores_Q[q] for q in places) if scores_Q else ()


def _exam_sizes(trials: Iterable[Trial]) -> dict[str, int]:
    """Questions per task, as far as the trials show; 1 for a task of which nothing but a failure is known."""
    sizes: dict[str, int] = {}
    for trial in trials:
        seen = max(len(trial.before_Q), len(trial.after_Q), int(trial.failure is not None))
        sizes[trial.task_id] = max(seen, sizes.get(trial.task_id, 0))
    return sizes


def _marks_by_task(
    trials: Sequence[Trial], sizes: Mapping[str, int] | None = None
) -> dict[str, list[tuple[float | None, ...]]]:
    """Group marks as task → [R][Q]."""
    sizes = sizes or _exam_sizes(trials)
    grouped: dict[str, list[tuple[float | None, ...]]] = {}
    for trial in trials:
        grouped.setdefault(trial.task_id, []).append(_marks(trial, sizes[trial.task_id]))
    return grouped


def _marks(trial: Trial, n_questions: int) -> tuple[float | None, ...]:
    """A trial's marks [Q]: all 0 for an unusable self-edit, all None for a trial that failed before its exam."""
    if trial.after_Q:
        return tuple(score.value for score in trial.after_Q)
    is_bad_edit = trial.failure is not None and trial.failure.stage == "parse"
    return (0.0 if is_bad_edit else None,) * n_questions


def _over_repeats(marks_RQ: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Average each question over its repeats, [Q]; None where no repeat was measured."""
    return [mean_measured(marks_R) for marks_R in zip(*marks_RQ, strict=True)]
