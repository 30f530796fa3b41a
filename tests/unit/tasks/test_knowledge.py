from __future__ import annotations

import pytest

from selfedit.errors import BadEdit, ConfigError
from selfedit.tasks.base import DOMAINS, load_domain
from selfedit.tasks.exams import answer_prompt
from selfedit.tasks.knowledge import over_documents, over_world
from selfedit.types import Example, MenuSettings, Question, Sample, Task, TrainSettings

TRAIN = TrainSettings(epochs=3)
PASSAGES = [name for name in DOMAINS if name != "arc"]  # its laws: tests/contract/test_domains.py
DOCUMENTS = [Task(name, name.upper(), f"Text of {name}.", (Question(f"What is {name}?", name),)) for name in "abc"]
MANY = [
    Task(f"d{i}", f"Title {i}", f"The sign of {i} is x{i}.", (Question("Which sign?", f"x{i}"),)) for i in range(40)
]


def sample(text: str) -> Sample:
    return Sample("p", (), (), (), text, "eos")


@pytest.mark.parametrize("name", PASSAGES)
def test_closed_book_exams_never_hold_the_passage(name: str) -> None:
    domain = load_domain(name, "implications", TRAIN, documents=MANY)
    for task in domain.tasks("eval", 8, seed=0):
        prompts = domain.exam(task)
        assert len(prompts) == len(task.questions) > 0
        for prompt, question in zip(prompts, task.questions, strict=True):
            assert question.question in prompt
            assert task.context not in prompt
            assert not any(sentence in prompt for sentence in task.context.split(". "))
            assert question.answer not in prompt


@pytest.mark.parametrize("name", PASSAGES)
def test_an_open_book_exam_is_the_closed_one_with_the_passage_shown_before_it(name: str) -> None:
    domain = load_domain(name, "implications", TRAIN, documents=MANY)
    task, other = domain.tasks("eval", 2, seed=0)
    for shown in (task, other):
        opened = domain.open_exam(task, [shown] * len(task.questions))
        assert opened == [f"{shown.title}\n{shown.context}\n\n{closed}" for closed in domain.exam(task)]


@pytest.mark.parametrize("name", PASSAGES)
def test_a_longer_list_of_tasks_begins_with_the_shorter_one(name: str) -> None:
    domain = load_domain(name, "implications", TRAIN, documents=MANY)
    for split in ("train", "eval"):
        assert domain.tasks(split, 12, 3)[:5] == domain.tasks(split, 5, 3)


def test_splits_of_documents_are_shuffled_by_the_seed_and_meet_only_where_there_are_no_more() -> None:
    domain = load_domain("documents", "implications", TRAIN, documents=MANY)
    unseen, train = domain.tasks("eval", 30, 0), domain.tasks("train", 10, 0)
    assert sorted([*unseen, *train], key=lambda task: int(task.id[1:])) == MANY
    assert domain.tasks("eval", 99, 0) == domain.tasks("train", 99, 0)[::-1]
    assert [task.id for task in domain.tasks("eval", 40, 1)] != [task.id for task in domain.tasks("eval", 40, 0)]
    without = load_domain("documents", "implications", TRAIN, documents=MANY[1:])
    assert [task for task in domain.tasks("eval", 40, 0) if task != MANY[0]] == without.tasks("eval", 40, 0)


def test_a_template_takes_the_place_of_the_formats_prompt() -> None:
    domain = load_domain("documents", "rewrite", TRAIN, True, "Note on {title}: {passage}", DOCUMENTS)
    assert domain.prompt(DOCUMENTS[0]) == "Note on A: Text of a."


@pytest.mark.parametrize("name", PASSAGES)
def test_a_split_is_the_same_each_time_and_shares_no_task_with_another(name: str) -> None:
    domain = load_domain(name, "implications", TRAIN, documents=MANY)
    train, unseen = domain.tasks("train", 20, 0), domain.tasks("eval", 20, 0)
    assert train == domain.tasks("train", 20, 0)
    assert not {task.id for task in train} & {task.id for task in unseen}
    assert not {task.context for task in train} & {task.context for task in unseen}


def test_the_writer_sees_the_passage_under_its_title() -> None:
    domain = over_documents(DOCUMENTS, "rewrite", TRAIN)
    assert "\nA\nText of a.\n" in domain.prompt(DOCUMENTS[0])


def test_self_edits_are_read_in_the_format_and_mode_of_the_domain() -> None:
    by_line = over_documents(DOCUMENTS, "study-plan", TRAIN, by_line=True)
    whole = over_documents(DOCUMENTS, "study-plan", TRAIN, by_line=False)
    written = sample("Plan.\n---\nOne.\nTwo.")
    bare = Example("A\nText of a.")
    assert by_line.parse(DOCUMENTS[0], written).examples == (Example("A\nOne."), Example("A\nTwo."), bare)
    assert whole.parse(DOCUMENTS[0], written).examples == (Example("A\nOne.\nTwo."), bare)
    assert by_line.parse(DOCUMENTS[0], written).train == TRAIN
    with pytest.raises(BadEdit):
        by_line.parse(DOCUMENTS[0], sample("No plan."))


def test_without_a_self_edit_the_bare_passage_is_learnt() -> None:
    edit = over_world("implications", TRAIN).without_edit(DOCUMENTS[1])
    assert (edit.sample, edit.examples, edit.train) == (None, (Example("B\nText of b."),), TRAIN)


def test_a_piece_of_a_document_is_asked_about_as_the_document() -> None:
    domain = over_documents(DOCUMENTS, "implications", TRAIN)
    piece = Task("a#1", "A - History", "Text.", DOCUMENTS[0].questions, {"topic": "A"})
    assert domain.exam(piece) == domain.exam(DOCUMENTS[0]) == [answer_prompt("What is a?", "A")]


def test_every_split_of_documents_is_all_of_them_in_order() -> None:
    domain = over_documents(DOCUMENTS, "implications", TRAIN)
    assert domain.tasks("train", 3, 0) == domain.tasks("eval", 3, 9) == DOCUMENTS
    assert domain.tasks("train", 2, 0) == DOCUMENTS[:2]


def test_unknown_domains_and_formats_are_answered_with_the_near_miss() -> None:
    with pytest.raises(ConfigError, match="unknown domain 'wrold'; did you mean 'world'"):
        load_domain("wrold", "rewrite", TRAIN)
    with pytest.raises(ConfigError, match="unknown format 'rewrites'; did you mean 'rewrite'"):
        load_domain("world", "rewrites", TRAIN)


@pytest.mark.parametrize("name", PASSAGES)
def test_every_domain_of_passages_takes_a_menu_and_grids_take_none(name: str) -> None:
    menu = MenuSettings((5e-3,), (8,))
    domain = load_domain(name, "rewrite", TRAIN, documents=MANY, menu=menu)
    (task,) = domain.tasks("train", 1, 0)
    edit = domain.parse(task, Sample("", (), (), (), "It is.\nSettings: learning rate 0.005, epochs 8", "eos"))
    assert (edit.train.learning_rate, edit.train.epochs, edit.has_chosen) == (5e-3, 8, True)
    assert "0.005" in domain.prompt(task)
    with pytest.raises(ConfigError, match="a menu is for self-edits on passages"):
        load_domain("arc", "tools", TRAIN, menu=menu)
