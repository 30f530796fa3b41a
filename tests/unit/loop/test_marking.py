from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest

from selfedit.loop.marking import Marks, grade_exams
from selfedit.tasks.graders import GRADERS, load_grader
from selfedit.types import Failure, Question, Score

EXAMS = [
    ((Question("Where?", "Otrar"), Question("Who?", "Inalchuq")), ["in Otrar", "Inalchuq"]),
    ((Question("When?", "1219"),), ["1220"]),
    ((), []),
    ((Question("Why?", "the ambush"), Question("?", ""), Question("How?", "by siege")), ["an ambush", "x", "by siege"]),
]
OPEN = Score(None, "a", "reply unreadable: 'hm'")
LOST = Score(None, "a", "call failed: too slow", is_lost=True)
MARKED = Score(1.0, "a")
TWO = (Question("Where?", "Otrar"), Question("Who?", "Inalchuq"))


@pytest.mark.parametrize("name", sorted({"exact", "contains", "f1", "calibrated"} & set(GRADERS)))
def test_exams_marked_in_one_call_have_the_marks_of_exams_marked_alone(name: str) -> None:
    grade = load_grader(name)
    calls: list[int] = []

    def counted(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
        calls.append(len(questions))
        return grade(questions, answers)

    together = grade_exams(EXAMS, counted)
    assert calls == [6]
    assert together == [Marks(tuple(grade(*exam))) for exam in EXAMS]


@pytest.mark.parametrize("how", ["raises", "short", "long"])
def test_an_exam_that_breaks_the_grader_takes_no_other_with_it(how: str) -> None:
    def fussy(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
        scores = load_grader("exact")(questions, answers)
        if any(question.question == "When?" for question in questions):
            if how == "raises":
                raise RuntimeError("no dates")
            return scores[:-1] if how == "short" else [*scores, scores[-1]]
        return scores

    first, second, _, fourth = grade_exams(EXAMS, fussy)
    assert second.failure and second.failure.stage == "grade"
    assert [(score.value, score.answer) for score in second.scores_Q] == [(None, "1220")]
    exact = load_grader("exact")
    assert [first, fourth] == [Marks(tuple(exact(*EXAMS[0]))), Marks(tuple(exact(*EXAMS[3])))]


def test_no_exams_ask_no_grader() -> None:
    def never(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
        raise AssertionError

    assert grade_exams([], never) == []


def test_a_full_disk_is_not_taken_for_a_grader_that_broke() -> None:
    def full(questions: Sequence[Question], answers: Sequence[str]) -> list[Score]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        grade_exams(EXAMS, full)


def marks_of(*scores: Score, questions: Sequence[Question] = TWO) -> Marks:
    (found,) = grade_exams([(questions, ["a"] * len(questions))], lambda asked, answers: list(scores))
    return found


def test_an_exam_that_lost_a_mark_has_none_and_says_why() -> None:
    found = marks_of(MARKED, LOST)
    assert [score.value for score in found.scores_Q] == [None, None]
    assert found.scores_Q[1] == LOST
    told = "1 of 2 answers could not be marked: call failed: too slow"
    assert found.failure == Failure("grade", "Unmarked", told)


def test_a_mark_that_was_withheld_for_good_is_left_out_and_the_others_stay() -> None:
    assert marks_of(MARKED, OPEN) == Marks((MARKED, OPEN))


def test_an_exam_without_any_mark_failed() -> None:
    found = marks_of(OPEN, OPEN)
    assert found.failure and found.failure.message == "2 of 2 answers could not be marked: reply unreadable: 'hm'"


def test_a_question_without_a_gold_answer_is_no_failure() -> None:
    without = Score(None, "a", "no gold answer")
    questions = (Question("Where?", " "), TWO[1])
    assert marks_of(without, MARKED, questions=questions) == Marks((without, MARKED))
    assert marks_of(without, without, questions=[questions[0]] * 2) == Marks((without, without))
