"""What a run's trials say, with their uncertainty: accuracies, paired differences, 95 % intervals. Pure.

The passage is the unit that is resampled: questions and seeds of one passage share its text and its self-edit, so
counting them as independent would make every interval too narrow. An accuracy is the mean over passages of the
passage's mean: every passage has the same weight, however many questions it has. Repeats are averaged per question
first.

Intervals are percentile bootstraps rather than BCa: they stay inside the data's range and exist for every sample of two
passages or more, where BCa's acceleration is 0/0 for equal values. On the published 200 passages the two agree to 0.1
points. With fewer than about ten passages both are too narrow. A result depends on the seed and on the set of values,
not on their order.

That says how sure a result is for these trainings. What another training would have given is a question for several
seeds, answered by Student's t on one number for each (`by_seed`): the self-edits of a seed and the writers trained on
them, and in a domain of endless tasks its passages, are others than those of the next.

Unmeasured marks (None) are left out and counted; a self-edit that could not be used is a real 0.

    arm = summarise("round-2", trials)
    pair = compare("round-0", trials_before, "round-2", trials)

What learning one task after another costs is read off a matrix: `accuracies_SK[s][k]` is the accuracy on task k after
task s was learnt, None above the diagonal, where it was not measured (`forgetting_matrix`, `retention`).

Axis suffixes: R repeats (seeds and edits) of a task, Q questions, S steps, K tasks learnt one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np

from selfedit.types import Question, Role, Score, Task, Trial, mean_measured, mean_score

Marks = Mapping[str, Sequence[float | None]]
"""Passage id → its questions' marks in [0, 1], None where unmeasured."""

Accuracies = Sequence[Sequence[float | None]]
"""[S][K]: accuracy on task k after step s, None where it was not measured."""

RESAMPLES = 10_000
_EQUAL = 1e-12  # differences closer than this are rounding
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
class Estimate:
    """A mean in [0, 1] over passages with its standard error and 95 % interval, None where they cannot be known."""

    mean: float
    se: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Contrast:
    """`Paired` with what a reader of papers expects beside it: the standard error and the p value of the difference.

    `se` and `p` are None below two passages; `p` is None too where all passages differ by the same amount.
    """

    difference: float | None
    se: float | None
    ci95: tuple[float, float] | None
    p: float | None
    n: int


@dataclass(frozen=True, slots=True)
class BySeed:
    """One number for each seed, None where it was not measured, their mean, and its 95 % interval by Student's t.

    The interval is None below two seeds, and very wide at two.
    """

    values: tuple[float | None, ...]
    mean: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Step:
    """What is known after `step` tasks (1 … S): `learnt` of the task just learnt, `seen` of all tasks so far.

    `forgetting` and `backward_transfer` are None after the first step, which has nothing before it to forget. Each is
    None where an accuracy that it needs was not measured.
    """

    step: int
    learnt: float | None
    seen: float | None
    forgetting: float | None
    backward_transfer: float | None


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
    """Arm `b` minus arm `a` on the passages measured in both, as `Paired`; `by_seed` where there are several seeds."""

    a: str
    b: str
    difference: float | None
    ci95: tuple[float, float] | None
    n: int
    by_seed: BySeed | None = None


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
    differences = _differences(a_by_passage, b_by_passage)
    return Paired(_mean(differences), _bootstrap(differences, seed), len(differences))


def contrast(a_by_passage: Marks, b_by_passage: Marks, seed: int = 0) -> Contrast:
    """Test the difference b - a, paired by passage: `paired` with s / √P as its error and the p of Student's t.

    d_p = the passage's difference, s² = Σ (d_p - mean)² / (P - 1), t = mean / (s / √P) with P - 1 degrees of freedom,
    two-sided. It assumes that passages are independent and P is large enough for a mean to be about normal (tens).
    """
    from scipy.stats import ttest_1samp  # only whoever tests waits for SciPy to load

    differences = _differences(a_by_passage, b_by_passage)
    is_spread = len(differences) > 1 and max(differences) - min(differences) > _EQUAL
    p = float(ttest_1samp(differences, 0.0).pvalue) if is_spread else None
    ci95 = _bootstrap(differences, seed)
    return Contrast(_mean(differences), standard_error(differences), ci95, p, len(differences))


def by_seed(values: Sequence[float | None]) -> BySeed:
    """Average one number for each seed: mean ± t · s / √n, with the 97.5 % quantile of n - 1 degrees of freedom.

    It assumes that what seeds differ by is about normal. All seeds equal: an interval of width zero.
    """
    from scipy.stats import t

    measured = [value for value in values if value is not None]
    mean, se = _mean(measured), standard_error(measured)
    if mean is None or se is None:
        return BySeed(tuple(values), mean, None)
    reach = float(t.ppf(0.975, len(measured) - 1)) * se
    return BySeed(tuple(values), mean, (mean - reach, mean + reach))


def estimate(values: Sequence[float], seed: int = 0) -> Estimate | None:
    """Average values of passages, with `interval`'s interval; None of nothing."""
    return Estimate(fmean(values), standard_error(values), _bootstrap(values, seed)) if values else None


def standard_error(values: Sequence[float]) -> float | None:
    """Return s / √n of a mean; None below two values."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def rank_agreement(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Say how far two columns of a table rank its rows alike: Kendall's τ-b in [-1, 1], ties taken into account.

    None where a column has fewer than two different values: nothing is ranked then.
    """
    from scipy.stats import kendalltau

    return float(kendalltau(a, b).statistic) if min(len(set(a)), len(set(b))) > 1 else None


def forgetting_matrix(accuracies_SK: Accuracies) -> list[list[float | None]]:
    """Return how much of task k was lost after step s, [S][K] (Chaudhry et al. 2018, arXiv 1801.10112, §3).

    f_sk = max of accuracies_SK[l][k] over k ≤ l < s, less accuracies_SK[s][k]; negative where the task was never known
    better. None for k ≥ s (not learnt before) and where an accuracy is missing. Of a matrix of means over sequences it
    is a lower bound of the mean forgetting: the mean of maxima is at least the maximum of means.
    """
    return [
        [_loss([accuracies_SK[r][k] for r in range(k, s + 1)]) if k < s else None for k in range(len(accuracies_SK[s]))]
        for s in range(len(accuracies_SK))
    ]


def retention(accuracies_SK: Accuracies) -> list[Step]:
    """Describe every step of learning one task after another; S = K, steps count from 1.

    seen_s = 1/s Σ_{k≤s} a_sk, which after the last step is the ACC of Lopez-Paz & Ranzato 2017 (arXiv 1706.08840, §2);
    forgetting_s = 1/(s-1) Σ_{k<s} f_sk (`forgetting_matrix`); backward_transfer_s = 1/(s-1) Σ_{k<s} (a_sk - a_kk),
    their BWT, negative where what was learnt later harms what was learnt before. BWT is linear, so that of the means is
    the mean.
    """
    lost_SK = forgetting_matrix(accuracies_SK)
    steps = []
    for s, now_K in enumerate(accuracies_SK):
        moved = [_minus(now_K[k], accuracies_SK[k][k]) for k in range(s)]
        known, lost, transfer = (_mean_of_all(values) for values in (now_K[: s + 1], lost_SK[s][:s], moved))
        steps.append(Step(s + 1, now_K[s], known, lost, transfer))
    return steps


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
    found = paired(*_marks_of_both(trials_a, trials_b), seed)
    return Pair(name_a, name_b, found.difference, found.ci95, found.n)


def accuracy_of(trials: Sequence[Trial]) -> float | None:
    """Return the accuracy of `summarise` alone, without the resampling behind its interval."""
    exams = (_over_repeats(marks_RQ) for marks_RQ in _marks_by_task(trials).values())
    return mean_measured([mean_measured(marks_Q) for marks_Q in exams])


def difference_of(trials_a: Sequence[Trial], trials_b: Sequence[Trial]) -> float | None:
    """Return the difference b - a of `compare` alone."""
    return _mean(_differences(*_marks_of_both(trials_a, trials_b)))


def before_update(trials: Iterable[Trial]) -> list[Trial]:
    """Read the trials as if nothing had been learnt: the arm of the model before its update.

    The failure is dropped with the update, so that an unusable self-edit is not charged to the model that had none.
    """
    return [replace(t, after_Q=t.before_Q, reward=mean_score(t.before_Q), adapter=None, failure=None) for t in trials]


def of_kind(trials: Iterable[Trial], tasks: Iterable[Task], kind: str) -> list[Trial]:
    """Keep each trial's marks on the questions of one `kind`; trials of tasks without such a question are left out."""
    return _on(trials, tasks, lambda question: question.kind == kind)


def of_role(trials: Iterable[Trial], tasks: Iterable[Task], *roles: Role) -> list[Trial]:
    """Keep each trial's marks on the questions in one of the `roles`, as `of_kind` does those of a kind."""
    return _on(trials, tasks, lambda question: question.role in roles)


def _on(trials: Iterable[Trial], tasks: Iterable[Task], is_wanted: Callable[[Question], bool]) -> list[Trial]:
    places = {task.id: [q for q, question in enumerate(task.questions) if is_wanted(question)] for task in tasks}
    return [
        replace(t, before_Q=_pick(t.before_Q, places[t.task_id]), after_Q=_pick(t.after_Q, places[t.task_id]))
        for t in trials
        if places.get(t.task_id)
    ]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """The mean; None where a value is missing, and of nothing."""
    measured = [value for value in values if value is not None]
    return _mean(measured) if len(measured) == len(values) else None


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _loss(course: Sequence[float | None]) -> float | None:
    """What is lost at the end of a task's course of accuracies against the best before; None if one is missing."""
    measured = [value for value in course if value is not None]
    return max(measured[:-1]) - measured[-1] if len(measured) == len(course) else None


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


def _differences(a_by_passage: Marks, b_by_passage: Marks) -> list[float]:
    """Each shared passage's b - a, in an order that does not depend on the order of the passages."""
    shared = sorted(a_by_passage.keys() & b_by_passage.keys())
    return [d for p in shared if (d := _difference(a_by_passage[p], b_by_passage[p])) is not None]


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


def _marks_of_both(trials_a: Sequence[Trial], trials_b: Sequence[Trial]) -> tuple[Marks, Marks]:
    sizes = _exam_sizes([*trials_a, *trials_b])
    marks_a, marks_b = (
        {task: _over_repeats(marks_RQ) for task, marks_RQ in _marks_by_task(trials, sizes).items()}
        for trials in (trials_a, trials_b)
    )
    return marks_a, marks_b


def _marks(trial: Trial, n_questions: int) -> tuple[float | None, ...]:
    """A trial's marks [Q]: all 0 for an unusable self-edit, all None for a trial that failed before its exam."""
    if trial.after_Q:
        return tuple(score.value for score in trial.after_Q)
    is_bad_edit = trial.failure is not None and trial.failure.stage == "parse"
    return (0.0 if is_bad_edit else None,) * n_questions


def _over_repeats(marks_RQ: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Average each question over its repeats, [Q]; None where no repeat was measured."""
    return [mean_measured(marks_R) for marks_R in zip(*marks_RQ, strict=True)]
