"""A learnt reward: predict what a self-edit would be rewarded from how it reads, and train only on some of them.

Ridge regression on a dozen features of the text, fitted on the (task, self-edit, measured reward) pairs of all rounds
so far. The paper's authors name learnt reward functions as a next step (arXiv 2506.10943); their own proxy is a rubric,
which nothing is fitted to. The features know of no domain: how much was written, how much of it again, how much of it
is from the passage and how much of the passage is in it, whether lines name what they are about, and what the writer
thought of it. Numbers count apart from words, since invented ones are cheap to write.

    predict = fit(pairs)
    reward = predict(task, sample)

Axis suffixes: N pairs, D features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from selfedit.types import Sample, Task

Predict = Callable[[Task, Sample], float]

PENALTY = 1.0  # on standardised features: of a hundred pairs it shrinks next to nothing, of five nearly all
FOLDS = 5
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Pair:
    """A self-edit on a task and the reward that it was measured to have."""

    task: Task
    sample: Sample
    reward: float


def features(task: Task, sample: Sample) -> list[float]:
    """Describe a self-edit by numbers, [D]; an empty one is all zeros but for its end."""
    lines = [line.strip() for line in sample.text.splitlines() if line.strip()]
    words, source = _words(sample.text), set(_words(f"{task.title} {task.context}"))
    title = set(_words(task.title))
    numbers = [word for word in words if any(c.isdigit() for c in word)]
    return [
        math.log1p(len(lines)),
        _share(len(set(lines)), len(lines)),
        math.log1p(len(words)),
        _share(len(set(words)), len(words)),
        math.log1p(_share(len(words), len(_words(task.context)))),
        _share(sum(word in source for word in words), len(words)),
        _share(len(source & set(words)), len(source)),
        _share(sum(title <= set(_words(line)) for line in lines), len(lines)),
        _share(sum(number not in source for number in numbers), len(numbers)),
        _share(sum(not set(_words(line)) & (source - title) for line in lines), len(lines)),
        fmean(sample.logprobs) if sample.logprobs else 0.0,
        float(sample.stop == "eos"),
    ]


def fit(pairs_N: Sequence[Pair]) -> Predict:
    """Fit min_w Σ_n (r_n - r̄ - w · z_n)² + PENALTY · |w|², z the features less their means, in standard deviations.

    Without pairs nothing is known and every prediction is 0; with equal rewards every one is theirs.
    """
    if not pairs_N:
        return lambda task, sample: 0.0
    x_ND = np.array([features(pair.task, pair.sample) for pair in pairs_N])
    rewards_N = np.array([pair.reward for pair in pairs_N])
    mean_D, spread_D = x_ND.mean(axis=0), x_ND.std(axis=0)
    spread_D[spread_D < 1e-9] = np.inf  # a feature that is always the same tells nothing
    z_ND, mean = (x_ND - mean_D) / spread_D, float(rewards_N.mean())
    weights_D = np.linalg.solve(z_ND.T @ z_ND + PENALTY * np.eye(len(mean_D)), z_ND.T @ (rewards_N - mean))
    return lambda task, sample: mean + float((np.array(features(task, sample)) - mean_D) / spread_D @ weights_D)


def correlation(pairs_N: Sequence[Pair]) -> float | None:
    """Say how well held-out rewards are predicted: Pearson's r in [-1, 1] over `FOLDS` folds of whole tasks.

    None below two tasks, or where the rewards or what is predicted of them are all the same.
    """
    ids = sorted({pair.task.id for pair in pairs_N})
    fold_of = {id: place % FOLDS for place, id in enumerate(ids)}
    real, told = [], []
    for fold in range(min(FOLDS, len(ids)) if len(ids) > 1 else 0):
        predict = fit([pair for pair in pairs_N if fold_of[pair.task.id] != fold])
        held_out = [pair for pair in pairs_N if fold_of[pair.task.id] == fold]
        real += [pair.reward for pair in held_out]
        told += [predict(pair.task, pair.sample) for pair in held_out]
    if len(real) < 2 or min(np.std(real), np.std(told)) < 1e-9:
        return None
    return float(np.corrcoef(real, told)[0, 1])


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
