"""A fake engine that writes exams too. Tests import it from here, as they do the plain one from `conftest`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from selfedit.engine.base import SampleJob
from selfedit.experiment import run as experiment
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


def open_examiners(monkeypatch: pytest.MonkeyPatch, tasks: Sequence[Task]) -> list[ExaminingEngine]:
    """Let experiments run one seed after another on engines that know `tasks`; return those that were opened."""
    opened: list[ExaminingEngine] = []

    def open_fake(name: str, model: str, device: str) -> ExaminingEngine:
        opened.append(ExaminingEngine(tasks))
        return opened[-1]

    monkeypatch.setattr(experiment, "open_backend", open_fake)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("os.fsync", lambda file: None)
    return opened


def write_notes(folder: Path, tasks: Sequence[Task]) -> Path:
    """Write tasks as a user's folder of documents, with the questions that they have."""
    folder.mkdir(exist_ok=True)
    for task in tasks:
        (folder / f"{task.id}.md").write_text(f"# {task.title}\n\n{task.context}\n")
    rows = [
        f'{{"question": "{q.question}", "answer": "{q.answer}", "source": "{task.id}.md"}}\n'
        for task in tasks
        for q in task.questions
    ]
    (folder / "questions.jsonl").write_text("".join(rows))
    return folder
