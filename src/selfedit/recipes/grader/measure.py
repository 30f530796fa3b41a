"""How well the grader agrees with the judge, and what that is worth where its marks are rewards.

All numbers are computed from cross-fitted probabilities: each was given by networks that saw no answer to the question.

Axis suffixes: N lines of the file, M distinct answers, P passages, G self-edits of a passage.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from selfedit.recipes.grader.verdicts import Answers, Verdicts
from selfedit.tasks.calibrated import Calibrated
from selfedit.tasks.graders import normalise
from selfedit.tasks.words import Array

AGREEMENT = 0.97  # what the grader promises where it does not abstain
RESAMPLES = 2000
ROUND_1 = "train/rank_iter0"


def measures(
    verdicts: Verdicts, answers: Answers, probability_N: Array, sure_N: Array, by_title_N: Array
) -> dict[str, Any]:
    """Return everything that the grader's card says, but for its speed."""
    correct_N = verdicts.correct_N
    groups: dict[str, list[int]] = defaultdict(list)
    for n, row in enumerate(verdicts.rows_N):
        groups[_kind(row["file"])].append(n)
    is_unsure_N = np.maximum(probability_N, 1 - probability_N) < sure_N
    plain_N = token_recall(answers)[answers.line_to_answer_N] >= 0.6
    return {
        "verdicts": verdicts.sha256,
        "n": len(correct_N),
        "distinct": len(answers.count_M),
        "questions": len({(title, asked) for title, asked, *_ in answers.keys_M}),
        "ceiling": ceiling(answers),
        "all": agreement(probability_N, correct_N) | _interval(verdicts, probability_N),
        "by title": agreement(by_title_N, correct_N),
        "token recall": agreement(plain_N.astype(float), correct_N),
        "sure": {
            "coverage": float(1 - is_unsure_N.mean()),
            "agreement": agreement(probability_N[~is_unsure_N], correct_N[~is_unsure_N])["agreement"],
            "thresholds": sorted({round(float(t), 4) for t in sure_N}),
        },
        "calibration": reliability(probability_N, correct_N),
        "kinds": {
            kind: agreement(probability_N[of], correct_N[of]) | {"n": len(of)} for kind, of in sorted(groups.items())
        },
        "selection": {
            "calibrated": selection(verdicts, probability_N),
            "calibrated, cut at 0.5": selection(verdicts, (probability_N >= 0.5).astype(float)),
            "calibrated, the sure ones alone": selection(verdicts, np.where(is_unsure_N, np.nan, probability_N)),
            "token recall": selection(verdicts, plain_N.astype(float)),
        },
    }


def agreement(probability_N: Array, correct_N: Array) -> dict[str, float]:
    """Return the share of equal verdicts, Cohen's kappa, and the mean mark beside the mean verdict."""
    said_N = probability_N >= 0.5
    agreed, said, correct = float((said_N == correct_N).mean()), float(said_N.mean()), float(correct_N.mean())
    by_chance = said * correct + (1 - said) * (1 - correct)
    return {
        "agreement": agreed,
        "kappa": (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else 1.0,
        "mean mark": float(probability_N.mean()),
        "mean verdict": correct,
    }


def sure_from(probability_M: Array, share_M: Array, count_M: Array) -> float:
    """Return the least probability (of either verdict) from which on verdicts agree with the judge in `AGREEMENT`."""
    certainty_M = np.maximum(probability_M, 1 - probability_M)
    agreed_M = np.where(probability_M >= 0.5, share_M, 1 - share_M)
    order = np.argsort(-certainty_M, kind="stable")
    share = np.cumsum((agreed_M * count_M)[order]) / np.cumsum(count_M[order])
    kept = np.flatnonzero(share >= AGREEMENT)
    return float(certainty_M[order[kept[-1]]]) if len(kept) else 1.0


def ceiling(answers: Answers) -> dict[str, float]:
    """Return how often the judge agrees with itself: on answers judged several times, how many lines carry the
    commoner verdict, and how likely two verdicts on one answer are the same."""
    again = answers.count_M > 1
    n, yes = answers.count_M[again], np.rint(answers.share_M[again] * answers.count_M[again])
    same = (yes * (yes - 1) + (n - yes) * (n - yes - 1)) / (n * (n - 1))
    return {
        "answers": int(again.sum()),
        "unanimous": float(((yes == 0) | (yes == n)).mean()),
        "commoner": float(np.maximum(yes, n - yes).sum() / n.sum()),
        "pairs": float((same * n).sum() / n.sum()),
    }


def reliability(probability_N: Array, correct_N: Array) -> list[dict[str, float]]:
    """Return, for tenths of the probability, the mean mark beside the share that the judge passed."""
    tenth_N = np.minimum((probability_N * 10).astype(int), 9)
    return [
        {"mark": float(probability_N[of].mean()), "correct": float(correct_N[of].mean()), "n": int(of.sum())}
        for of in (tenth_N == t for t in range(10))
        if of.any()
    ]


def selection(verdicts: Verdicts, mark_N: Array, seed: int = 0) -> dict[str, Any]:
    """Return what is kept of the gain of picking the best of five self-edits, on round 1's training passages.

    A self-edit's value is its mean verdict over repeats and questions after the update. The gain of a pick is its value
    less the mean of the passage's self-edits; edits with equal marks share the pick. NaN marks are left out of means,
    and an edit without any other mark is not picked. The interval (95 %) resamples passages.
    """
    value_PG, mark_PG = (_by_edit(verdicts, of) for of in (verdicts.correct_N.astype(float), mark_N))
    best, picked = (
        np.array([_pick(of_G, value_G) for of_G, value_G in zip(by, value_PG, strict=True)])
        for by in (value_PG, mark_PG)
    )
    draws = np.random.default_rng(seed).integers(0, len(best), (RESAMPLES, len(best)))
    kept = picked[draws].sum(1) / best[draws].sum(1)
    return {
        "passages": len(best),
        "judge's gain": float(best.mean()),
        "gain": float(picked.mean()),
        "kept": float(picked.sum() / best.sum()),
        "interval": [float(q) for q in np.quantile(kept, (0.025, 0.975))],
    }


def _by_edit(verdicts: Verdicts, mark_N: Array) -> list[list[float]]:
    """Return the mean mark of each self-edit of round 1, by passage."""
    cells: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row, mark in zip(verdicts.rows_N, mark_N, strict=True):
        if row["file"] == ROUND_1 and row["arm"] == "adapter":
            cells[row["article"]][row["completion"]].append(float(mark))
    return [[_mean(marks) for _, marks in sorted(edits.items())] for _, edits in sorted(cells.items())]


def _mean(marks: Sequence[float]) -> float:
    measured = [mark for mark in marks if mark == mark]
    return float(np.mean(measured)) if measured else -1.0


def _pick(mark_G: Sequence[float], value_G: Sequence[float]) -> float:
    """The value of the edit with the highest mark (the mean of several such) less the mean value."""
    best = np.array(mark_G) >= max(mark_G) - 1e-9
    return float(np.array(value_G)[best].mean() - np.mean(value_G))


def token_recall(answers: Answers) -> Array:
    """Return the share of the gold answer's tokens that are in each distinct answer, [M]: the simple rule to beat."""
    _, golds, predictions = answers.texts
    pairs = ((normalise(gold), set(normalise(prediction))) for gold, prediction in zip(golds, predictions, strict=True))
    return np.array([sum(token in said for token in gold) / max(1, len(gold)) for gold, said in pairs])


def speed(grader: Calibrated, answers: Answers, n: int) -> float:
    """Return how many distinct answers the grader marks in a second of this process's time, once it is warm."""
    questions, golds, predictions = (column[:n] for column in answers.texts)
    grader.probabilities(questions, golds, predictions)
    before = time.process_time()
    grader.probabilities(questions, golds, predictions)
    return len(questions) / (time.process_time() - before)


def _interval(verdicts: Verdicts, probability_N: Array, seed: int = 0) -> dict[str, list[float]]:
    """A 95 % interval of the agreement: questions are resampled, since answers to one question err together."""
    asked: dict[tuple[str, str], int] = {}
    question_N = [asked.setdefault((row["title"], row["question"]), len(asked)) for row in verdicts.rows_N]
    n = np.bincount(question_N)
    agreed = np.bincount(question_N, (probability_N >= 0.5) == verdicts.correct_N)
    draws = np.random.default_rng(seed).integers(0, len(n), (RESAMPLES, len(n)))
    shares = agreed[draws].sum(1) / n[draws].sum(1)
    return {"interval": [float(q) for q in np.quantile(shares, (0.025, 0.975))]}


def _kind(file: str) -> str:
    """ "train" or "eval", with the prompt that the self-edits were asked for with."""
    stage = "train" if "train/" in file else "eval"
    return f"{stage}, {file.partition('_prompt-')[2] or 'implications'}"
