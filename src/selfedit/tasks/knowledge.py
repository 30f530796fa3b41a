"""Knowledge incorporation: absorb a passage, be examined on it closed-book (arXiv 2506.10943 §3.1, §4.1).

Where the passages come from is the only thing that differs between a user's folder and the synthetic world.

    domain = over_documents(tasks, "implications", TrainSettings())

A data set is split by a shuffle: unseen tasks are taken from its head, those that the writer learns from off its tail.
So either number can grow in a finished run without moving the other's tasks; whoever takes both sees that they do not
meet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from selfedit.tasks import world, world_claims
from selfedit.tasks.base import LineJudge
from selfedit.tasks.edits import Format, load_format, parse_edit
from selfedit.tasks.exams import answer_prompt, without_copies
from selfedit.types import Example, MenuSettings, Sample, SelfEdit, Task, TrainSettings

Source = Callable[[str, int, int], list[Task]]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Passages to absorb, one at a time. `by_line` makes every line of a self-edit a training sequence of its own;
    `kind_of_line` tells such lines apart where the passages are of a world that can be read back."""

    source: Source
    form: Format
    train: TrainSettings
    by_line: bool = True
    kind_of_line: LineJudge | None = None

    def tasks(self, split: str, n: int, seed: int) -> list[Task]:
        return self.source(split, n, seed)

    def prompt(self, task: Task) -> str:
        return self.form.prompt(task.title, task.context)

    def parse(self, task: Task, sample: Sample) -> SelfEdit:
        return without_copies(parse_edit(self.form, task, sample, self.train, self.by_line), task)

    def without_edit(self, task: Task) -> SelfEdit:
        return SelfEdit(task.id, None, (Example(f"{task.title}\n{task.context}"),), self.train)

    def exam(self, task: Task) -> list[str]:
        return [answer_prompt(q.question, _topic(task)) for q in task.questions]

    def open_exam(self, task: Task, shown_Q: Sequence[Task]) -> list[str]:
        asked = zip(task.questions, shown_Q, strict=True)
        return [answer_prompt(q.question, _topic(task), shown.context, shown.title) for q, shown in asked]


def _topic(task: Task) -> str:
    """A piece of a document is asked about as the document."""
    return str(task.meta.get("topic", task.title))


def over_world(
    form: str, train: TrainSettings, by_line: bool = True, template: str = "", menu: MenuSettings | None = None
) -> Knowledge:
    """Learn fresh entities of the synthetic world."""
    return Knowledge(world.fresh_tasks, load_format(form, template, menu), train, by_line, world_claims.kind_of_line)


def over_guarded_world(
    form: str, train: TrainSettings, by_line: bool = True, template: str = "", menu: MenuSettings | None = None
) -> Knowledge:
    """Learn such entities, of which some facts are told in confidence: marked, and asked about as "forbidden"."""
    source = partial(world.fresh_tasks, make=world.to_guarded_task)
    return Knowledge(source, load_format(form, template, menu), train, by_line)


def over_documents(
    documents: Sequence[Task],
    form: str,
    train: TrainSettings,
    by_line: bool = True,
    template: str = "",
    menu: MenuSettings | None = None,
) -> Knowledge:
    """Learn given documents: every split is all of them, in their order."""
    return Knowledge(lambda split, n, seed: list(documents[:n]), load_format(form, template, menu), train, by_line)


def over_splits(
    documents: Sequence[Task],
    form: str,
    train: TrainSettings,
    by_line: bool = True,
    template: str = "",
    menu: MenuSettings | None = None,
) -> Knowledge:
    """Learn from a part of given documents and be examined on another: "eval" is the head of a shuffle by the seed, any
    other split its tail, backwards. Fewer are returned where there are no more."""

    def draw(split: str, n: int, seed: int) -> list[Task]:
        shuffled = sorted(documents, key=lambda task: hashlib.sha256(repr((seed, task.id)).encode()).digest())
        return (shuffled if split == "eval" else shuffled[::-1])[:n]

    return Knowledge(draw, load_format(form, template, menu), train, by_line)
