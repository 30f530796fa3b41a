"""A grader that learnt from GPT-4.1: how likely would that judge call this answer correct? Offline, on the CPU, numpy.

It was trained by `selfedit.recipes.grader` on the verdicts that SEAL's authors published, and on nothing else; its
card, with what it gets right and where it should not be trusted, is that recipe's README. The features of
`tasks.overlap` go through the boosted trees of `tasks.forest`. An answer is marked alone: its mark does not depend on
what else is marked.

Two uses, two readings of one number. As a *reward* the mark is the probability itself: the mean of such marks estimates
the share of answers that the judge would pass without bias, while leaving out the unsure third would favour whoever
gives answers that are easy to mark. As a *verdict* there is `Calibrated.verdict`, which is None where the grader is
unsure, so that a judge can be asked about those. None as a mark keeps its meaning, "could not be measured": here only a
question without a gold answer.

    load_grader("calibrated")(task.questions, answers)
    grader = load_calibrated()
    [grader.verdict(p) for p in grader.probabilities(questions, golds, predictions)]

Axis suffixes: N answers, F features, D nodes, T trees, L leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import numpy as np

from selfedit.tasks.forest import Forest
from selfedit.tasks.overlap import names, overlap
from selfedit.tasks.words import Array, Lexicon
from selfedit.types import Question, Score

MODEL = "calibrated.npz"
ROWS = 8192  # answers whose features are held at once
WORDS = 200_000  # spellings after which the table of words starts anew


@dataclass(frozen=True)
class Calibrated:
    """The grader: the rarity of words (`rarest`: of those never met), trees that sum to a logit, and the probability,
    of either verdict, from which it is `sure`."""

    rarity: Mapping[str, float]
    rarest: float
    forest: Forest
    sure: float
    _lexicons: list[Lexicon] = field(default_factory=list, repr=False)

    def probabilities(self, questions: Sequence[str], golds: Sequence[str], predictions: Sequence[str]) -> Array:
        """Return the probability that the judge would call each prediction correct, [N] in [0, 1].

        A prediction that is its gold answer to the letter has 1.0, a blank one 0.0. An answer that is asked about
        twice is computed once.
        """
        asked = list(zip(questions, golds, predictions, strict=True))
        distinct = {answer: i for i, answer in enumerate(dict.fromkeys(asked))}
        answers = list(distinct)
        probabilities = [self._block(answers[at : at + ROWS]) for at in range(0, len(answers), ROWS)]
        joined: Array = np.concatenate([np.zeros(0), *probabilities])
        return joined[[distinct[answer] for answer in asked]]

    def verdict(self, probability: float) -> bool | None:
        """Return whether the answer is correct; None where the grader is not sure."""
        is_sure = max(probability, 1 - probability) >= self.sure
        return bool(probability >= 0.5) if is_sure else None

    def _block(self, answers: Sequence[tuple[str, str, str]]) -> Array:
        features_NF = overlap(self._lexicon(), *zip(*answers, strict=True))
        probabilities: Array = 1 / (1 + np.exp(-self.forest.sums(features_NF)))
        bare = [(_bare(gold), _bare(prediction)) for _, gold, prediction in answers]
        probabilities[[gold == prediction for gold, prediction in bare]] = 1.0
        probabilities[[not prediction for _, prediction in bare]] = 0.0
        return probabilities

    def _lexicon(self) -> Lexicon:
        if not self._lexicons or len(self._lexicons[0]) > WORDS:
            self._lexicons[:] = [Lexicon(self.rarity, self.rarest)]
        return self._lexicons[0]


@cache
def load_calibrated() -> Calibrated:
    """Return the grader that comes with the package."""
    with files("selfedit.tasks").joinpath(MODEL).open("rb") as file, np.load(file, allow_pickle=False) as held:
        return unpack(held)


def pack(grader: Calibrated) -> dict[str, Array]:
    """Return the arrays of a model file: texts as bytes, leaves and rarities in half precision."""
    forest = grader.forest
    return {
        "words": _as_bytes(grader.rarity),
        "rarity": np.array(list(grader.rarity.values()), np.float16),
        "rarest": np.float32(grader.rarest),
        "features": _as_bytes(names()),
        "feature_D": forest.feature_D.astype(np.uint8),
        "threshold_D": forest.threshold_D.astype(np.float32),
        "tree_D": forest.tree_D.astype(np.uint16),
        "kept_D": forest.kept_D.astype(np.uint16),
        "leaf_TL": forest.leaf_TL.astype(np.float16),
        "sure": np.float64(grader.sure),
    }


def unpack(held: Mapping[str, Array]) -> Calibrated:
    """Return the grader of a model file's arrays. Raises `ValueError` where it was trained on other features."""
    if _as_texts(held["features"]) != [*names()]:
        raise ValueError(f"{MODEL} was trained on other features; train it again (recipes/grader)")
    rarity = dict(zip(_as_texts(held["words"]), held["rarity"].astype(np.float32).tolist(), strict=True))
    feature_D, threshold_D, tree_D, kept_D = (held[f"{name}_D"] for name in ("feature", "threshold", "tree", "kept"))
    forest = Forest(feature_D, threshold_D, tree_D, kept_D, held["leaf_TL"].astype(np.float32))
    return Calibrated(rarity, float(held["rarest"]), forest, float(held["sure"]))


def grade(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
    """Mark answers with the probability that the judge would pass them; None for a question without a gold answer."""
    grader = load_calibrated()
    texts = [question.question for question in questions], [question.answer for question in questions]
    marks = grader.probabilities(*texts, list(answers)).tolist()
    return [
        Score(mark, answer, _why(grader, mark)) if question.answer.strip() else Score(None, answer, "no gold answer")
        for question, answer, mark in zip(questions, answers, marks, strict=True)
    ]


def _why(grader: Calibrated, probability: float) -> str:
    verdict = {True: "correct", False: "wrong", None: "unsure"}[grader.verdict(probability)]
    return f"{verdict}: GPT-4.1 would say correct with probability {probability:.2f}"


def _bare(text: str) -> str:
    return text.strip().rstrip(".").casefold() or text.strip()


def _as_bytes(texts: Iterable[str]) -> Array:
    return np.frombuffer("\n".join(texts).encode(), np.uint8)


def _as_texts(held: Array) -> list[str]:
    return str(held.tobytes(), "utf-8").split("\n")
