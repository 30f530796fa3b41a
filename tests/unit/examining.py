"""A fake engine that writes exams too. Tests import it from here, as they do the plain one from `conftest`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from selfedit.engine.base import SampleJob
from selfedit.tasks.exams import exam_prompt, write_exam
from selfedit.types import Question, Sample, Task
from tests.unit.conftest import FakeEngine

START = exam_prompt("", "").partition("\n")[0]


def unasked(tasks: Sequence[Task]) -> list[Task]:
    """The tasks as somebody has them who never wrote a question."""
    return [replace(task, questions=()) for task in tasks]


def is_exam_job(job: SampleJob) -> bool:
    return job.prompt.startswith(START)


@dataclass
class ExaminingEngine(FakeEngine):
    """A `FakeEngine` that writes the questions of its `tasks` when it is asked for an exam, each draw those of the
    whole text, and in every self-edit the lines `copied`. It knows the answers in `heard` without having learnt them.

    With `wrong` there stands a question in every exam whose answer the passage does not have.
    """

    copied: Sequence[str] = ()
    heard: Sequence[str] = ()
    wrong: bool = False

    def _write(self, job: SampleJob, draw: int) -> Sample:
        if not is_exam_job(job):
            sample = super()._write(job, draw)
            return replace(sample, text="\n".join([sample.text, *self.copied]))
        title = job.prompt.split("Passage:\n")[1].split("\n", 1)[0]
        questions = [q for task in self.tasks if task.title == title for q in task.questions]
        spoilt = [Question("What is the tower of nowhere?", "none")] if self.wrong else []
        text = write_exam([*questions, *spoilt]) if questions or spoilt else "Nothing."
        return Sample(job.prompt, (1,), (2,), (-1.0,), text, "eos")

    def _reply(self, prompt: str, adapter: object) -> str:
        known = [
            q.answer for task in self.tasks for q in task.questions if q.question in prompt and q.answer in self.heard
        ]
        return known[0] if known else super()._reply(prompt, adapter)  # type: ignore[arg-type]
