"""The laws of every grader in the registry."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.tasks.graders import GRADERS, load_grader
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
EXAM = [Question(f"Question {q}?", gold) for q, gold in enumerate(GOLDS)]

pytestmark = pytest.mark.parametrize("name", sorted(GRADERS))


def test_a_gold_answer_scores_one(name: str) -> None:
    assert [score.value for score in load_grader(name)(EXAM, GOLDS)] == [1.0] * len(EXAM)


@settings(deadline=None)
@given(gold=st.text().filter(str.strip))
def test_any_gold_answer_scores_one(name: str, gold: str) -> None:
    (score,) = load_grader(name)([Question("?", gold)], [gold])
    assert score.value == 1.0


@pytest.mark.parametrize("blank", ["", " \n"])
def test_an_empty_answer_scores_zero(name: str, blank: str) -> None:
    assert [score.value for score in load_grader(name)(EXAM, [blank] * len(EXAM))] == [0.0] * len(EXAM)


def test_a_wrong_answer_scores_less_than_one(name: str) -> None:
    wrong = ["Bukhara"] * len(EXAM)
    assert all(score.value is not None and score.value < 1.0 for score in load_grader(name)(EXAM, wrong))


def test_scores_come_in_the_order_of_the_questions_with_their_answers(name: str) -> None:
    answers = [gold if q % 2 else "Bukhara" for q, gold in enumerate(GOLDS)]
    scores = load_grader(name)(EXAM, answers)
    assert [score.answer for score in scores] == answers
    assert [score.value == 1.0 for score in scores] == [bool(q % 2) for q in range(len(EXAM))]


def test_an_empty_exam_has_no_scores(name: str) -> None:
    assert load_grader(name)([], []) == []


def test_an_answer_short_is_an_error_rather_than_a_shift(name: str) -> None:
    with pytest.raises(ValueError, match="shorter"):
        load_grader(name)(EXAM, GOLDS[:-1])
