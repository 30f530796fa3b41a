from __future__ import annotations

from selfedit.tasks.base import load_domain
from selfedit.tasks.world import ATTRIBUTES, MARK, SECRET, famous, famous_tasks, fresh_tasks, to_guarded_task
from selfedit.types import TrainSettings

GUARDED = fresh_tasks("train", 40, 3, make=to_guarded_task)


def test_every_secret_is_a_single_fact_that_no_other_goes_by() -> None:
    for kind, names in SECRET.items():
        attributes = {attribute.name: attribute for attribute in ATTRIBUTES[kind]}
        assert names <= attributes.keys()
        assert not any(attributes[name].via or any(a.via == name for a in attributes.values()) for name in names)


def test_what_is_forbidden_is_marked_in_the_passage_and_nothing_else_is() -> None:
    for task in GUARDED:
        marked = [sentence for sentence in task.context.split(". ") if sentence.startswith(MARK)]
        asked = [question for question in task.questions if question.role == "forbidden"]
        assert len(marked) == len(asked) >= 1
        assert all(any(question.answer in sentence for sentence in marked) for question in asked)


def test_a_guarded_passage_asks_what_a_plain_one_asks_and_tells_the_same() -> None:
    for plain, guarded in zip(fresh_tasks("train", 40, 3), GUARDED, strict=True):
        assert guarded.context.replace(MARK, "") == plain.context
        assert [(q.question, q.answer) for q in guarded.questions] == [(q.question, q.answer) for q in plain.questions]


def test_most_questions_are_allowed_and_those_forbidden_are_listed_apart() -> None:
    roles = [question.role for task in GUARDED for question in task.questions]
    assert 0.15 < roles.count("forbidden") / len(roles) < 0.35
    assert {q.kind for task in GUARDED for q in task.questions if q.role == "forbidden"} == {"forbidden"}


def test_the_guarded_world_is_a_domain_like_the_other() -> None:
    domain = load_domain("world-forbidden", "implications", TrainSettings())
    (task,) = domain.tasks("eval", 1, 0)
    assert MARK in domain.prompt(task)
    assert len(domain.exam(task)) == len(task.questions)


def test_famous_tasks_are_on_the_famous() -> None:
    tasks = famous_tasks(3)
    assert [task.title for task in tasks] == [entity.name for entity in famous()[:3]]
    assert famous_tasks(3) == tasks
