"""Knowledge incorporation: absorb a passage, be examined on it closed-book (arXiv 2506.10943 §3.1, §4.1).

Where the passages come from is the only thing that differs between a user's folder and the synthetic world.

    domain = over_documents(tasks, "implications", TrainSettings())
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfedit.tasks import world
from selfedit.tasks.edits import Format, load_format, parse_edit
from selfedit.tasks.exams import answer_prompt
from selfedit.types import Example, Sample, SelfEdit, Task, TrainSettings

Source = Callable[[str, int, int], list[Task]]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Passages to absorb, one at a time. `by_line` makes every line of a self-edit a training sequence of its own."""

    source: Source
    form: Format
    train: TrainSettings
    by_line: bool = True

    def tasks(self, split: str, n: int, seed: int) -> list[Task]:
        return self.source(split, n, seed)

    def prompt(self, task: Task) -> str:
        return self.form.prompt(task.title, task.context)

    def parse(self, task: Task, sample: Sample) -> SelfEdit:
        return parse_edit(self.form, task, sample, self.train, self.by_line)

    def without_edit(self, task: Task) -> SelfEdit:
        return SelfEdit(task.id, None, (Example(f"{task.title}\n{task.context}"),), self.train)

    def exam(self, task: Task) -> list[str]:
        topic = task.meta.get("topic", task.title)  # a piece of a document is asked about as the document
        return [answer_prompt(q.question, topic) for q in task.questions]


def over_world(form: str, train: TrainSettings, by_line: bool = True) -> Knowledge:
    """Learn fresh entities of the synthetic world."""
    return Knowledge(world.fresh_tasks, load_format(form), train, by_line)


def over_documents(documents: Sequence[Task], form: str, train: TrainSettings, by_line: bool = True) -> Knowledge:
    """Learn given documents: every split is all of them, in their order."""
    return Knowledge(lambda split, n, seed: list(documents[:n]), load_format(form), train, by_line)
