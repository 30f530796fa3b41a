"""The laws of every domain in the registry."""

from __future__ import annotations

import pytest

from selfedit.errors import BadEdit
from selfedit.tasks.arc import write_choice
from selfedit.tasks.base import DOMAINS, Domain, load_domain
from selfedit.types import Question, Sample, Task, TrainSettings

GIVEN = [Task(f"T{i}", f"Title {i}", f"The river of T{i} is Ister{i}.", (Question("?", "!"),)) for i in range(8)]
FORMATS = {"arc": "tools"}
EDITS = {"arc": write_choice(("basic",), "train_using_all_tokens", 1e-3, 1)}
IN_VIEW = {"arc"}  # where the context is part of every question

pytestmark = pytest.mark.parametrize("name", sorted(DOMAINS))


def load(name: str) -> Domain:
    return load_domain(name, FORMATS.get(name, "rewrite"), TrainSettings(), documents=[] if name == "arc" else GIVEN)


def written(text: str) -> Sample:
    return Sample("", (), (), (), text, "eos")


def test_the_same_seed_gives_the_same_tasks_and_a_longer_list_begins_with_the_shorter(name: str) -> None:
    domain = load(name)
    assert domain.tasks("train", 4, seed=3) == load(name).tasks("train", 4, seed=3)
    assert domain.tasks("train", 4, seed=3)[:2] == domain.tasks("train", 2, seed=3)
    assert domain.tasks("train", 4, seed=3) != domain.tasks("train", 4, seed=4)


def test_splits_never_share_a_task(name: str) -> None:
    domain = load(name)
    train, unseen = (domain.tasks(split, 4, seed=0) for split in ("train", "eval"))
    assert len(train) == len(unseen) == 4
    assert not {task.context for task in train} & {task.context for task in unseen}


def test_the_writer_is_asked_about_the_task(name: str) -> None:
    domain = load(name)
    prompts = [domain.prompt(task) for task in domain.tasks("train", 4, seed=0)]
    assert len(set(prompts)) == 4 and all(prompts)


def test_every_question_has_a_prompt_closed_book_and_open(name: str) -> None:
    domain = load(name)
    for task in domain.tasks("train", 4, seed=0):
        closed, opened = domain.exam(task), domain.open_exam(task, [task] * len(task.questions))
        assert len(closed) == len(opened) == len(task.questions) > 0
        assert (closed == opened) == (name in IN_VIEW)
        assert name in IN_VIEW or not any(task.context in prompt for prompt in closed)


def test_an_edit_becomes_texts_and_an_empty_one_is_bad(name: str) -> None:
    domain = load(name)
    (task,) = domain.tasks("train", 1, seed=0)
    sample = written(EDITS.get(name, "The river is the Ister."))
    edit = domain.parse(task, sample)
    assert edit.task_id == task.id and edit.sample == sample and edit.examples
    assert domain.parse(task, sample) == edit
    with pytest.raises(BadEdit):
        domain.parse(task, written(" \n"))


def test_without_an_edit_there_is_something_to_train_on(name: str) -> None:
    domain = load(name)
    (task,) = domain.tasks("train", 1, seed=0)
    edit = domain.without_edit(task)
    assert edit.sample is None and edit.examples and edit.train == TrainSettings()
