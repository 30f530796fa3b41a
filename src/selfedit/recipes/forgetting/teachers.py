"""Somebody else's self-edits, to imitate: every fact of a passage, told exactly, in text that the writer did not draw.

A teacher needs no inner loop. *statements* are in the lines that the writer was asked for, each fact once and by name;
*questions* tell the same facts as questions with answers, which this writer never gives to that prompt. Both go by the
facts of a task of the synthetic world, each in one of the world's own phrasings, drawn by the task alone.

    data = taught(TEACHERS["sft-statements"], tasks_P, domain, engine, settings)

Axis suffixes: P tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from selfedit.engine.base import Backend
from selfedit.recipes.pretrain.statements import facts_of
from selfedit.tasks.base import Domain
from selfedit.tasks.exams import write_exam
from selfedit.tasks.world import Entity, Fact, ask, seeded, tell
from selfedit.types import Datum, Example, Task, TrainSettings

Teacher = Callable[[Task], str]


def statements(task: Task) -> str:
    """Tell every fact once, by name, a line each."""
    rng = seeded("taught", task.id)
    entity = _entity(task)
    return "\n".join(tell(entity, fact, rng, named=True) for fact in rng.sample(entity.facts, len(entity.facts)))


def questions(task: Task) -> str:
    """Ask for every fact once, and answer it in the next line."""
    rng = seeded("taught", task.id)
    entity = _entity(task)
    asked = write_exam([ask(entity, fact, rng) for fact in rng.sample(entity.facts, len(entity.facts))])
    return f"Question 1: {asked}"


TEACHERS: Mapping[str, Teacher] = {"sft-statements": statements, "sft-questions": questions}


def taught(
    teacher: Teacher, tasks_P: Sequence[Task], domain: Domain, engine: Backend, settings: TrainSettings
) -> list[Datum]:
    """Make a training sequence of each task: the writer's own prompt with the teacher's self-edit after it."""
    return list(engine.encode([Example(teacher(task), domain.prompt(task)) for task in tasks_P], settings))


def _entity(task: Task) -> Entity:
    """Put together what a task tells of, as far as telling it by name needs."""
    return Entity(task.meta["kind"], task.title, "It", tuple(Fact(*fact) for fact in facts_of(task)))
