"""How far one exam stands for another: the same updates, their gains by two exams, correlated with intervals. Pure.

Where a model writes its own exam, three gains of every update are known: on the visible half of it, which the writer is
rewarded for, on the hidden half, and in data that have questions on those. Do they agree? A correlation over all edits
mixes two things, so both stand beside it: between passages (is the passage's mean gain the same?) and within them (are
the same edits of a passage the better ones?). Only the second matters to whoever chooses among a passage's edits, and
`Choice` says what that choice is worth.

Edits of a passage share its text and its exam, so intervals resample passages with all their edits, 10,000 times; ranks
are taken anew in every resample.

    found = agreement("visible", "given", {"p1": [(0.5, 0.4), (0.0, 0.1)], "p2": [(0.25, 0.5)]})

Axis suffixes: P passages, N edits of all passages, B resamples, U different values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfedit.report.stats import RESAMPLES
from selfedit.types import Role, Task, Trial, mean_measured

Gains = Mapping[str, Sequence[tuple[float, float]]]
"""Passage id → its edits' gains by the one exam and by the other."""

Array = NDArray[np.floating[Any]]
_EQUAL = 1e-9  # gains closer than this are rounding
_CHUNK = 500  # resamples computed at once: bounds memory to _CHUNK x edits


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A number with its 95 % interval; None where it does not exist, as a correlation with what never varies."""

    value: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Level:
    """Correlations in [-1, 1] over `n` points: all "edits", edits "within" their passages, or "passages"."""

    name: str
    pearson: Coefficient
    spearman: Coefficient
    n: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What it is worth to choose each passage's best edit by one exam, judged on the other, over `n` passages.

    `chosen`, `average` and `best` are mean gains by the other exam: of the chosen edits, of all, and of those that it
    would have chosen itself, which flatters it, since it judges its own choice. `kept` is the share of best - average
    that chosen - average is; `as_good` the share of passages in which the chosen edit is as good as the best,
    `by_chance` what that is for an edit drawn at random.
    """

    chosen: float
    average: float
    best: float
    kept: Coefficient
    as_good: Coefficient
    by_chance: float
    n: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the gains by exam `a` are those by exam `b`, and what choosing by `a` is worth in terms of `b`; None
    where no passage has two edits."""

    a: str
    b: str
    levels: tuple[Level, ...]
    choice: Choice | None


def gains(
    trials: Iterable[Trial], tasks: Iterable[Task], a: Sequence[Role], b: Sequence[Role]
) -> dict[str, list[tuple[float, float]]]:
    """Return each edit's mean gain, after less before the update, on the questions in the roles `a` and on those in
    `b`, by passage.

    Repeats of an edit are averaged; one without a gain on either is left out.
    """
    places = {
        task.id: [[q for q, asked in enumerate(task.questions) if asked.role in roles] for roles in (a, b)]
        for task in tasks
    }
    repeats: dict[tuple[str, int], list[Trial]] = {}
    for trial in trials:
        if trial.task_id in places:
            repeats.setdefault((trial.task_id, trial.edit), []).append(trial)
    found: dict[str, list[tuple[float, float]]] = {}
    for (task_id, _), trials_R in sorted(repeats.items()):
        by_a, by_b = (mean_measured([_gain(trial, at) for trial in trials_R]) for at in places[task_id])
        if by_a is not None and by_b is not None:
            found.setdefault(task_id, []).append((by_a, by_b))
    return found


def agreement(a: str, b: str, gains_by_passage: Gains, seed: int = 0) -> Agreement:
    """Correlate two exams' gains over edits, within passages and between them, and say what choosing by `a` is worth.

    Pearson's r, and Spearman's is r of the mid-ranks. Within: each passage's mean is taken off its edits first.
    Degenerate: no value where either gain is the same everywhere; no interval below two passages.
    """
    passages_P = [
        np.array(gains_by_passage[key], dtype=np.float64) for key in sorted(gains_by_passage) if gains_by_passage[key]
    ]
    if not passages_P:
        return Agreement(a, b, (), None)
    of_N = np.repeat(np.arange(len(passages_P)), [len(edits) for edits in passages_P])
    all_N = np.concatenate(passages_P)
    within_N = np.concatenate([edits - edits.mean(axis=0) for edits in passages_P])
    means_P = np.array([edits.mean(axis=0) for edits in passages_P])
    counts_BP = np.random.default_rng(seed).multinomial(
        len(passages_P), [1 / len(passages_P)] * len(passages_P), RESAMPLES
    )
    levels = (
        _level("edits", all_N, of_N, counts_BP),
        _level("within passages", within_N, of_N, counts_BP),
        _level("passages", means_P, np.arange(len(means_P)), counts_BP),
    )
    return Agreement(a, b, levels, _choice(passages_P, seed))


def _gain(trial: Trial, places: Sequence[int]) -> float | None:
    """Average what the questions at some places gained; None where none was measured both times."""
    if not trial.before_Q or not trial.after_Q:
        return None
    marks = [(trial.before_Q[q].value, trial.after_Q[q].value) for q in places]
    return mean_measured([after - before for before, after in marks if before is not None and after is not None])


def _level(name: str, points_N: Array, of_N: NDArray[np.intp], counts_BP: NDArray[np.int64]) -> Level:
    points_N = np.round(points_N, 9)  # what rounding tells apart are ties
    x_N, y_N = points_N[:, 0], points_N[:, 1]

    def ranked(weights_BN: Array) -> Array:
        return _pearson(_ranks(x_N, weights_BN), _ranks(y_N, weights_BN), weights_BN)

    def linear(weights_BN: Array) -> Array:
        return _pearson(x_N, y_N, weights_BN)

    pearson, spearman = (_over_resamples(measure, of_N, counts_BP) for measure in (linear, ranked))
    return Level(name, pearson, spearman, len(points_N))


def _over_resamples(
    measure: Callable[[Array], Array], of_N: NDArray[np.intp], counts_BP: NDArray[np.int64]
) -> Coefficient:
    value = float(measure(np.ones((1, len(of_N))))[0])
    drawn_B = [measure(counts_BP[i : i + _CHUNK, of_N].astype(np.float64)) for i in range(0, len(counts_BP), _CHUNK)]
    return _coefficient(value, np.concatenate(drawn_B), counts_BP.shape[1])


def _coefficient(value: float, drawn_B: Array, n_passages: int) -> Coefficient:
    """Take the quantiles of the resamples in which the number exists."""
    if not np.isfinite(value):
        return Coefficient(None, None)
    low, high = np.nanquantile(drawn_B, (0.025, 0.975))
    return Coefficient(value, (float(low), float(high)) if n_passages > 1 else None)


def _pearson(x_BN: Array, y_BN: Array, weights_BN: Array) -> Array:
    """Correlate with weights, [B]; not a number where one of the two does not vary."""
    total_B = weights_BN.sum(axis=1, keepdims=True)
    dx, dy = (v - (weights_BN * v).sum(axis=1, keepdims=True) / total_B for v in (x_BN, y_BN))
    cov_B, xx_B, yy_B = ((weights_BN * product).sum(axis=1) for product in (dx * dy, dx * dx, dy * dy))
    return _ratio(cov_B, np.sqrt(xx_B * yy_B))


def _ratio(above_B: Array, below_B: Array) -> Array:
    """Divide; not a number where there is nothing to divide by."""
    found_B: Array = np.full_like(above_B, np.nan)
    np.divide(above_B, below_B, out=found_B, where=below_B > _EQUAL)
    return found_B


def _ranks(x_N: Array, weights_BN: Array) -> Array:
    """Rank values of which each stands `weights` times, equal ones in the middle of their places, [B][N]."""
    values_U, place_N = np.unique(x_N, return_inverse=True)
    is_U = np.eye(len(values_U))[place_N]
    mass_BU = weights_BN @ is_U
    middle_BU = mass_BU.cumsum(axis=1) - mass_BU / 2
    return middle_BU[:, place_N]


def _choice(passages_P: Sequence[Array], seed: int) -> Choice | None:
    several = [edits for edits in passages_P if len(edits) > 1]
    if not several:
        return None
    chosen_P = np.array([edits[edits[:, 0].argmax(), 1] for edits in several])
    average_P, best_P = (np.array([take(edits[:, 1]) for edits in several]) for take in (np.mean, np.max))
    as_good_P = (chosen_P > best_P - _EQUAL).astype(np.float64)
    by_chance = np.mean([(edits[:, 1] > edits[:, 1].max() - _EQUAL).mean() for edits in several])
    n = len(several)
    counts_BP = np.random.default_rng(seed).multinomial(n, [1 / n] * n, RESAMPLES)

    def kept(weights_BP: Array) -> Array:
        return _ratio(weights_BP @ (chosen_P - average_P), weights_BP @ (best_P - average_P))

    one_BP = np.ones((1, n))
    return Choice(
        float(chosen_P.mean()),
        float(average_P.mean()),
        float(best_P.mean()),
        _coefficient(float(kept(one_BP)[0]), kept(counts_BP.astype(np.float64)), n),
        _coefficient(float(as_good_P.mean()), counts_BP @ as_good_P / n, n),
        float(by_chance),
        n,
    )
