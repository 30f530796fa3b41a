"""The laws of every grader in the registry."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.tasks.base import Grader
from selfedit.tasks.graders import GRADERS, JUDGED, load_grader
from selfedit.types import Question

GOLDS = [
    "Otrar",
    "the 20,000 men",
    "-3.5 °C",
    "A",
    "?!",
    "l'homme",
    "東京",
    "United States of America",
    "1219-1221",
    "i.e.",
]
GRIDS = [f"[[{q} 0]\n [0 {q}]]" for q in range(len(GOLDS))]


def golds(name: str) -> list[str]:
    """Give what the grader is for: texts, or grids."""
    return GRIDS if name == "grid" else GOLDS


def exam(name: str) -> list[Question]:
    return [Question(f"Question {q}?", gold) for q, gold in enumerate(golds(name))]


pytestmark = pytest.mark.parametrize("name", sorted({*GRADERS, *JUDGED}))


def load(name: str) -> Grader:
    """Load a grader; one that asks a judge asks this pedant, to whom only the right answer's own letters are right."""
    return load_grader(name, pedant if name in JUDGED else None)


def pedant(prompts: Sequence[str]) -> list[str]:
    told = [dict(line.split(": ", 1) for line in prompt.split("\n") if ': "' in line) for prompt in prompts]
    return ["yes" if json.loads(each["right answer"]) == json.loads(each["student"]) else "no" for each in told]


def test_a_gold_answer_scores_one(name: str) -> None:
    assert [score.value for score in load(name)(exam(name), golds(name))] == [1.0] * len(GOLDS)


@settings(deadline=None)
@given(gold=st.text().filter(str.strip))
def test_any_gold_answer_scores_one(name: str, gold: str) -> None:
    if name == "grid":
        gold = f"[[{' '.join(str(ord(letter) % 10) for letter in gold[:30])}]]"
    (score,) = load(name)([Question("?", gold)], [gold])
    assert score.value == 1.0


@pytest.mark.parametrize("blank", ["", " \n"])
def test_an_empty_answer_scores_zero(name: str, blank: str) -> None:
    assert [score.value for score in load(name)(exam(name), [blank] * len(GOLDS))] == [0.0] * len(GOLDS)


def test_a_wrong_answer_scores_less_than_one(name: str) -> None:
    wrong = ["Bukhara"] * len(GOLDS)
    assert all(score.value is not None and score.value < 1.0 for score in load(name)(exam(name), wrong))


def test_scores_come_in_the_order_of_the_questions_with_their_answers(name: str) -> None:
    answers = [gold if q % 2 else "Bukhara" for q, gold in enumerate(golds(name))]
    scores = load(name)(exam(name), answers)
    assert [score.answer for score in scores] == answers
    assert [score.value == 1.0 for score in scores] == [bool(q % 2) for q in range(len(GOLDS))]


def test_an_empty_exam_has_no_scores(name: str) -> None:
    assert load(name)([], []) == []


def test_an_answer_short_is_an_error_rather_than_a_shift(name: str) -> None:
    with pytest.raises(ValueError, match="shorter"):
        load(name)(exam(name), golds(name)[:-1])
