"""Marks for answers: exact match, containment, token F1, and a grader that learnt from a judge. Pure.

Answers are normalised as SQuAD's evaluation script does (arXiv 1606.05250 §6.1; evaluate-v1.1.py): lower case, no
punctuation, no articles, single spaces. Three departures, because a mark is a reward here and must not be wrong:

- punctuation is Unicode's, not ASCII's alone, so that curly and straight quotes agree;
- in numbers the decimal point and the minus sign stay (3.5 is not 35, -5 is not 5), while "1,000" is 1000;
- a gold answer of which nothing would be left ("The", "?") keeps its articles, or its punctuation.

A question without a gold answer cannot be marked: its score is None.

Against GPT-4.1's verdicts on the 89,048 answers that SEAL's authors published, containment agrees on 85.9 % (a mark of
1 is right in 95.8 %; it misses what is said in other words) and exact match on 68.7 %: base models answer in sentences.
`calibrated` learnt from those verdicts (`tasks.calibrated`).

    load_grader("f1")(task.questions, answers)
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from selfedit.errors import ConfigError, near_miss
from selfedit.tasks.base import Grader
from selfedit.tasks.judge import Complete, calibrated_first, judge_grader
from selfedit.types import Question, Score

ARTICLES = frozenset({"a", "an", "the"})
_NUMBER_SIGN = re.compile(r"(?<=\d)\.(?=\d)|(?<!\S)[^\w\s-]*-(?=\d)")  # ends with a decimal point, or a word's minus


def exact_match(gold: str, answer: str) -> float:
    """1.0 where the normalised texts are equal, else 0.0 (arXiv 1606.05250 §6.1)."""
    return float(normalise(gold) == normalise(answer))


def containment(gold: str, answer: str) -> float:
    """1.0 where the gold answer's tokens stand in the answer, side by side and in order, else 0.0.

    Extra detail is allowed, as the judge of arXiv 2506.10943 allows it. So is a contradiction, which this cannot see:
    an answer that lists every candidate scores.
    """
    return float(f" {' '.join(normalise(gold))} " in f" {' '.join(normalise(answer))} ")


def token_f1(gold: str, answer: str) -> float:
    """F1 = 2PR / (P + R) of the two bags of tokens, in [0, 1] (arXiv 1606.05250 §6.1). No shared token: 0.0."""
    gold_tokens, answer_tokens = normalise(gold), normalise(answer)
    shared = (Counter(gold_tokens) & Counter(answer_tokens)).total()
    return 2 * shared / (len(gold_tokens) + len(answer_tokens)) if shared else 0.0


def normalise(text: str) -> list[str]:
    """Split into SQuAD's tokens. Where articles or punctuation are all there is, they are the tokens; blank: []."""
    lowered = unicodedata.normalize("NFC", text).replace("\N{MINUS SIGN}", "-").lower()
    kept = {match.end() - 1 for match in _NUMBER_SIGN.finditer(lowered)}
    left = "".join(c for i, c in enumerate(lowered) if i in kept or not _is_punctuation(c))
    words = unicodedata.normalize("NFC", left).split()  # again: an accent may have come to stand behind another letter
    return [word for word in words if word not in ARTICLES] or words or lowered.split()


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _each(mark: Callable[[str, str], float]) -> Grader:
    """Make a grader of a mark for one (gold, answer). It raises `ValueError` unless every question has one answer."""

    def grade(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
        return [
            Score(mark(q.answer, answer), answer) if q.answer.strip() else Score(None, answer, "no gold answer")
            for q, answer in zip(questions, answers, strict=True)
        ]

    return grade


def _calibrated(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
    from selfedit.tasks.calibrated import grade  # loads numpy and the model, which the others need not wait for

    return grade(questions, answers)


def _grid(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
    from selfedit.tasks.arc import grade  # loads numpy, too

    return grade(questions, answers)


GRADERS: dict[str, Grader] = {
    "exact": _each(exact_match),
    "contains": _each(containment),
    "f1": _each(token_f1),
    "calibrated": _calibrated,
    "grid": _grid,
}


# Graders that ask a model, made of what completes prompts.
JUDGED: dict[str, Callable[[Complete], Grader]] = {
    "judge": judge_grader,
    "calibrated+judge": calibrated_first,
}


def load_grader(name: str, complete: Complete | None = None) -> Grader:
    """Return the grader called `name`, which asks through `complete` if it is one that asks a model.

    Raises `ConfigError` for an unknown one, and for one that asks where there is nobody to ask.
    """
    if name not in (*GRADERS, *JUDGED):
        raise ConfigError(f"unknown grader {name!r}; {near_miss(name, [*GRADERS, *JUDGED])}")
    if name in GRADERS:
        return GRADERS[name]
    if complete is None:
        raise ConfigError(
            f"the grader {name!r} asks a model on a server and none is named; set judge.model and judge.url "
            "(`selfedit grade`: --judge-model and --judge-url)"
        )
    return JUDGED[name](complete)
