from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.errors import BadEdit
from selfedit.tasks import world
from selfedit.tasks.exams import answer_prompt, exam_prompt, read_exam, write_exam
from selfedit.types import Question

# One line of text, as questions and answers are; a line that numbers itself cannot be told from the exam's own.
words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
phrases = st.lists(words, min_size=1, max_size=3).map(" ".join)


@settings(max_examples=50)
@given(st.lists(st.builds(Question, phrases, phrases), min_size=1, max_size=5))
def test_a_written_exam_is_read_again(questions: list[Question]) -> None:
    assert read_exam(write_exam(questions)) == questions


def test_the_worlds_exams_are_read_again_without_their_kinds() -> None:
    for task in world.fresh_tasks("eval", 8, 0):
        assert read_exam(write_exam(task.questions)) == [Question(q.question, q.answer) for q in task.questions]


def test_a_written_exam_goes_on_where_its_prompt_ends() -> None:
    prompt = exam_prompt("Belmora", "It is old.")
    exam = write_exam([Question("Who?", "Ada"), Question("When?", "1872")])
    assert (prompt + exam).endswith(
        "Exam:\nQuestion 1: Who?\nAnswer: Ada\nQuestion 2: When?\nAnswer: 1872",
    )
    assert prompt.count("Belmora\nIt is old.") == 1


def test_remarks_and_blank_lines_around_questions_are_passed_over() -> None:
    text = "Who? \n\n  Answer:  Ada\nThat was easy.\n\n Question 7: When?\nAnswer: 1872\nQuestion 8: Why?"
    assert read_exam(text) == [Question("Who?", "Ada"), Question("When?", "1872")]


def test_an_exam_may_repeat_the_opening() -> None:
    assert read_exam("Question 1: Who?\nAnswer: Ada") == [Question("Who?", "Ada")]


def test_a_missing_answer_takes_no_other_item_with_it() -> None:
    text = "Who?\nAnswer:\nQuestion 2: When?\nAnswer: 1872\nQuestion 3:\nQuestion 4: Where?\nAnswer: here"
    assert read_exam(text) == [Question("When?", "1872"), Question("Where?", "here")]


@pytest.mark.parametrize("text", ["", " \n", "Who?", "Who?\nAnswer:", "Answer: Ada", "Who?\nAda", "Q: Who?\nA: Ada"])
def test_a_text_without_a_question_and_its_answer_is_a_bad_edit(text: str) -> None:
    with pytest.raises(BadEdit, match="no question with an answer"):
        read_exam(text)


@settings(max_examples=20)
@given(phrases, phrases, st.booleans())
def test_closed_book_a_prompt_holds_title_and_question_and_nothing_else(q: str, title: str, has_title: bool) -> None:
    prompt = answer_prompt(q, title if has_title else "")
    topic = f"Topic: {title}\n" if has_title else ""
    assert prompt == f"Answer the question briefly and directly.\n\nQuestion: {topic}{q}\nAnswer:\n"


def test_open_book_the_passage_stands_before_the_same_prompt() -> None:
    closed = answer_prompt("When was it founded?", "Belmora")
    opened = answer_prompt("When was it founded?", "Belmora", "It was founded in 1872.")
    assert opened == f"Belmora\nIt was founded in 1872.\n\n{closed}"
    assert "1872" not in closed
