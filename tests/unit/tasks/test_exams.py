from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.errors import BadEdit
from selfedit.tasks import world
from selfedit.tasks.exams import (
    answer_prompt,
    describe,
    exam_prompt,
    gather,
    halve,
    read_exam,
    set_exam,
    with_exam,
    without_copies,
    write_exam,
)
from selfedit.tasks.graders import normalise
from selfedit.types import Exam, Example, Failure, Question, Score, SelfEdit, Task, TrainSettings

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


# ── an exam of the model's own ──


def marks(*values: float | None) -> list[Score]:
    return [Score(value, "", "no judge") for value in values]


def asked(*pairs: tuple[str, str]) -> list[Question]:
    return [Question(question, answer) for question, answer in pairs]


WHO, WHEN = asked(("Who built the bridge?", "Ada Lind"), ("When was it built?", "1872"))


def test_a_question_that_several_draws_write_is_gathered_once() -> None:
    draws = [write_exam([WHO, WHEN]), "no exam", write_exam([Question("who built the  Bridge", "ada lind."), WHEN])]
    assert gather(draws) == ([WHO, WHEN], 4)


def test_a_question_with_two_answers_is_tried_with_both() -> None:
    other = Question(WHO.question, "Bo Lind")
    drafted, n = gather([write_exam([other]), write_exam([WHO])])
    assert (drafted, n) == ([other, WHO], 2)
    exam = set_exam("t", drafted, n, marks(0, 1), marks(0, 0))
    assert [(q.question, q.answer) for q in exam.questions] == [(WHO.question, WHO.answer)]


def test_what_asks_for_a_forbidden_fact_is_left_out_and_forbidden_it_stays() -> None:
    secret = Question("Who was its builder?", "Lind", "forbidden", "forbidden")
    assert gather([write_exam([WHO, WHEN])], [secret]) == ([WHEN], 1)
    task = with_exam(Task("t", "T", "c", (WHO, secret)), halve([WHEN]))
    assert [q.role for q in task.questions] == ["exam", "given", "forbidden"]


def test_a_question_is_asked_once_though_two_answers_to_it_were_right() -> None:
    exam = set_exam("t", [WHO, replace(WHO, answer="Lind")], 2, marks(1, 1), marks(0, 0))
    assert ([q.answer for q in exam.questions], exam.n_repeated) == ([WHO.answer], 1)


def test_what_is_too_short_to_ask_anything_is_left_out() -> None:
    assert gather([write_exam(asked(("Who?", "Ada"), ("Why so?!", "1")))]) == ([], 0)


def test_a_question_that_is_answered_without_the_passage_is_dropped_and_so_is_one_that_is_not_answered_with_it() -> (
    None
):
    drafted = asked(*((f"What is thing {i}?", f"answer{i}") for i in range(5)))
    exam = set_exam("t", drafted, 7, marks(1, 1, 0, 0.5, None), marks(0, 1, 0, 0, 0))
    assert [q.question for q in exam.questions] == ["What is thing 0?"]
    assert (exam.n_written, exam.n_repeated, exam.n_known, exam.n_wrong, exam.n_unmarked) == (7, 2, 1, 2, 1)
    assert exam.failure is None


def test_an_exam_of_which_no_answer_could_be_marked_failed_and_may_be_tried_again() -> None:
    exam = set_exam("t", [WHO, WHEN], 2, marks(None, None), marks(None, None))
    assert exam.questions == ()
    assert exam.failure == Failure("grade", "Unmarked", "no answer to the exam could be marked: no judge")
    assert set_exam("t", [], 0, [], []).failure is None


LINKED = [
    (("When was it built?", "1872"), ("In what year was it built?", "in 1872")),
    (("Who led it?", "Ada Lind"), ("Who was its leader?", "Lind")),
    (("Who wrote Emma?", "Jane Austen"), ("What did Jane Austen write?", "Emma")),
    (("Is the bridge old, or new?", "old"), ("The bridge: is new, or old?", "quite ancient")),
]


@pytest.mark.parametrize(("a", "b"), LINKED)
def test_two_wordings_of_one_fact_are_never_in_different_halves(a: tuple[str, str], b: tuple[str, str]) -> None:
    filler = asked(*((f"What is thing {i}?", f"word{i}") for i in range(3)))
    for order in permutations([*filler, *asked(a, b)]):
        role = {q.question: q.role for q in halve(order)}
        assert role[a[0]] == role[b[0]]
        assert set(role.values()) == {"exam", "hidden"}


def test_different_facts_are_shared_out_evenly_the_first_to_the_visible_half() -> None:
    roles = [q.role for q in halve(asked(*((f"What is thing {i}?", f"word{i}") for i in range(5))))]
    assert roles == ["exam", "hidden", "exam", "hidden", "exam"]
    assert [q.role for q in halve([WHO])] == ["exam"]
    assert halve([]) == ()


tokens = st.lists(st.sampled_from(["ada", "bo", "1872", "bell", "river", "tower"]), min_size=1, max_size=3).map(
    " ".join
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.builds(Question, tokens, tokens), max_size=12))
def test_no_answer_and_no_question_of_the_visible_half_says_what_the_hidden_half_asks(
    questions: list[Question],
) -> None:
    halved = halve(questions)
    assert [(q.question, q.answer) for q in halved] == [(q.question, q.answer) for q in questions]
    visible, hidden = ([q for q in halved if q.role == role] for role in ("exam", "hidden"))
    for a, b in product(visible, hidden):
        asks_a, says_a, asks_b, says_b = (set(text.split()) for q in (a, b) for text in (q.question, q.answer))
        assert not says_a <= says_b
        assert not says_b <= says_a
        assert asks_a != asks_b
        assert not (says_a <= asks_b and says_b <= asks_a)


# ── copies ──

OWN_TASK = with_exam(Task("t", "The bridge", "Ada Lind built it. It is of 1872."), halve([WHO, WHEN]))
BARE = Example("The bridge\nAda Lind built it. It is of 1872.")


def edited(*pieces: str, task: Task = OWN_TASK) -> SelfEdit:
    examples = (*(Example(f"{task.title}\n{piece}") for piece in pieces), BARE)
    return without_copies(SelfEdit(task.id, None, examples, TrainSettings()), task)


def said(edit: SelfEdit) -> list[str]:
    return [example.text.partition("\n")[2] for example in edit.examples if example != BARE]


def test_lines_that_copy_a_question_of_either_half_are_dropped_and_counted() -> None:
    edit = edited(
        "Ada Lind built the bridge.", "WHO built the Bridge", "Note: when was it built? In 1872.", "It is old."
    )
    assert said(edit) == ["Ada Lind built the bridge.", "It is old."]
    assert edit.n_copied == 2
    assert BARE in edit.examples


def test_a_copied_question_takes_the_answer_under_it_along_and_no_other() -> None:
    edit = edited(
        "Question 1: Who built the bridge?\nAnswer: Ada Lind",
        "Question 2: Is it old?\nAnswer: yes\n"
        "Question 3: When was it built?\n\nAnswer: 1872\nQuestion 4: Whose?\nAnswer: Ada",
    )
    assert said(edit) == ["Question 2: Is it old?\nAnswer: yes\nQuestion 4: Whose?\nAnswer: Ada"]
    assert edit.n_copied == 2


def test_a_copy_that_runs_over_two_lines_costs_its_whole_piece() -> None:
    edit = edited("It is old.", "Who built\nthe bridge? Ada.")
    assert (said(edit), edit.n_copied) == (["It is old."], 1)


def test_a_self_edit_of_nothing_but_copies_cannot_be_used() -> None:
    with pytest.raises(BadEdit, match="every line of the self-edit copies a question of the exam"):
        edited("Question 1: Who built the bridge?\nAnswer: Ada Lind", "Question 2:\nWhen was it built?\nAnswer: 1872")


def test_a_passage_that_asks_its_own_questions_stays() -> None:
    faq = Task("t", "FAQ", "Who built the bridge? Ada Lind.")
    edit = SelfEdit("t", None, (Example("FAQ\nAda."), Example("FAQ\nWho built the bridge? Ada Lind.")), TrainSettings())
    assert without_copies(edit, with_exam(faq, halve([WHO]))) == edit


def test_questions_that_came_with_a_text_forbid_no_line() -> None:
    given_task = with_exam(replace(OWN_TASK, questions=(WHO,)), halve([WHEN]))
    assert given_task.questions[-1].role == "given"
    edit = edited("Who built the bridge? Ada.", task=given_task)
    assert (said(edit), edit.n_copied) == (["Who built the bridge? Ada."], 0)


lines = st.sampled_from(
    [WHO.question, WHEN.question, "Answer: Ada", "It is old.", "", "Question 1:", "Who built", "the bridge?"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(lines, min_size=1, max_size=4).map("\n".join), min_size=1, max_size=4))
def test_nothing_that_is_trained_on_holds_a_question_of_the_exam(pieces: list[str]) -> None:
    try:
        edit = edited(*pieces)
    except BadEdit:
        return
    flat = ["".join(normalise(text)) for text in said(edit)]
    assert not any("".join(normalise(q.question)) in text for q in (WHO, WHEN) for text in flat)


def test_what_became_of_exams_is_told_with_every_count_and_who_has_none() -> None:
    exams = [
        Exam("a", halve([WHO, WHEN]), n_written=9, n_repeated=3, n_wrong=2, n_known=1, n_unmarked=1),
        Exam("b", failure=Failure("propose", "X", "no memory")),
    ]
    assert describe(exams) == (
        "1 of 2 texts have an exam that the model wrote before any self-edit. Of the 9 questions it wrote, 3 repeated "
        "others, 2 were answered wrongly with the text in view, 1 rightly without it, 1 could not be marked; 1 choose, "
        "1 choose nothing and are reported. Without an exam, and so without a score: 'b' (no memory)."
    )
