"""Marking: the answers of many exams go to the grader in one call, since a judge is asked about many at once.

    marks_N = grade_exams([(task.questions, answers_Q)], grade)

Axis suffixes: N exams, Q questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from selfedit.errors import boundary
from selfedit.tasks.base import Grader
from selfedit.types import Failure, Question, Score


@dataclass(frozen=True, slots=True)
class Marks:
    """One exam's marks, and what kept it from being marked."""

    scores_Q: tuple[Score, ...]
    failure: Failure | None = None


def grade_exams(exams: Sequence[tuple[Sequence[Question], list[str]]], grade: Grader) -> list[Marks]:
    """Grade exams in one call, and one by one where that breaks, so that no exam takes another with it."""
    if not exams:
        return []
    questions = [question for questions_Q, _ in exams for question in questions_Q]
    with boundary("grade") as caught:
        scores = grade(questions, [answer for _, answers_Q in exams for answer in answers_Q])
        if len(scores) != len(questions):
            raise RuntimeError(f"the grader gave {len(scores)} marks for {len(questions)} questions")
        rest = iter(scores)
        return [_counted(questions_Q, tuple(islice(rest, len(questions_Q)))) for questions_Q, _ in exams]
    if len(exams) > 1:
        return [marks for exam in exams for marks in grade_exams([exam], grade)]
    failure = caught.failure
    assert failure
    return [Marks(tuple(Score(None, answer, failure.message) for answer in exams[0][1]), failure)]


def _counted(questions_Q: Sequence[Question], scores_Q: tuple[Score, ...]) -> Marks:
    """Keep an exam's marks, or none of them where one was lost: a reward is not to depend on which calls went through.

    A mark that was withheld for good is merely left out, unless all of them were.
    """
    open_Q = [score for q, score in zip(questions_Q, scores_Q, strict=True) if score.value is None and q.answer.strip()]
    lost_Q = [score for score in open_Q if score.is_lost]
    if not lost_Q and (not open_Q or any(score.value is not None for score in scores_Q)):
        return Marks(scores_Q)
    told = f"{len(open_Q)} of {len(scores_Q)} answers could not be marked: {(lost_Q or open_Q)[0].why}"
    unmarked = (s if s.value is None else Score(None, s.answer, "another mark was lost") for s in scores_Q)
    return Marks(tuple(unmarked), Failure("grade", "Unmarked", told))
