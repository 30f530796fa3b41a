"""Exams for texts that come without questions: the model that is to learn writes them before it writes any self-edit.

An exam is drawn from the untrained base with the text in view, tried by the same base with the text in view and by the
learner without it, and kept as `tasks.exams` says. It is an event of the run: recorded before the first self-edit is
drawn, it stays what it is whatever the writer becomes, and a run that is taken up again asks the very same questions.

    exams_P = write_exams(tasks_P, domain, engine, grade, recipe.exam, recipe.sample, seed=0)

Axis suffixes: P tasks, Q questions.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from selfedit.engine.base import Backend, SampleJob
from selfedit.errors import InputError
from selfedit.loop.inner import WAVE, examine, run_jobs, seed_of
from selfedit.loop.outer import Known, Lab
from selfedit.tasks.base import Domain, Grader
from selfedit.tasks.exams import describe, exam_prompt, gather, set_exam, with_exam
from selfedit.types import Adapter, Exam, ExamSettings, Failure, Question, SampleSettings, Task


def write_exams(
    tasks_P: Sequence[Task],
    domain: Domain,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
    sample: SampleSettings,
    seed: int,
    learner: Adapter | None = None,
) -> list[Exam]:
    """Let the base write an exam on each task, `exam.draws` draws at the temperature of `sample`; keep what it can
    answer with the text in view and the `learner` cannot without it, [P].

    An exam depends on its task and the seed, whatever stands beside it. Of the questions that a task has, only the
    forbidden ones are looked at: no exam may ask for the same.
    """
    shape = sample.temperature, sample.top_p, sample.max_tokens
    jobs = [
        SampleJob(exam_prompt(task.title, task.context), exam.draws, seed_of(seed, "exam", task.id), None, *shape)
        for task in tasks_P
    ]
    drawn_P = run_jobs("propose", engine.sample, jobs)
    drafts_P = [
        gather([s.text for s in drawn] if isinstance(drawn, list) else [], _forbidden(task))
        for task, drawn in zip(tasks_P, drawn_P, strict=True)
    ]
    asked_P = [replace(task, questions=tuple(found)) for task, (found, _) in zip(tasks_P, drafts_P, strict=True)]
    views_P = [[task] * len(task.questions) for task in asked_P]
    in_view_PQ = examine(asked_P, [None] * len(asked_P), domain, engine, grade, exam, views_P)
    closed_PQ = examine(asked_P, [learner] * len(asked_P), domain, engine, grade, exam)
    return [
        Exam(task.id, failure=drawn) if isinstance(drawn, Failure) else set_exam(task.id, *draft, in_view_Q, closed_Q)
        for task, drawn, draft, in_view_Q, closed_Q in zip(
            tasks_P, drawn_P, drafts_P, in_view_PQ, closed_PQ, strict=True
        )
    ]


def _forbidden(task: Task) -> list[Question]:
    return [question for question in task.questions if question.role == "forbidden"]


def fix_exams(
    tasks_P: Sequence[Task], lab: Lab, known: Known, learner: Adapter | None = None
) -> Generator[Exam, None, list[Task]]:
    """Give each task an exam of the model's own and yield it, unless it is known already; return the tasks with their
    exams, [P], those of which no question survived without one."""
    exams = dict(known.exams)
    missing = [task for task in tasks_P if task.id not in exams]
    for start in range(0, len(missing), WAVE):
        batch = missing[start : start + WAVE]
        for exam in write_exams(batch, lab.domain, lab.engine, lab.grade, lab.exam, lab.sample, lab.seed, learner):
            exams[exam.task_id] = exam
            yield exam
    return [with_exam(task, exams[task.id].questions) for task in tasks_P]


def refuse_without(tasks_P: Sequence[Task], exams: dict[str, Exam]) -> None:
    """Stop a run in which no task has an exam: nothing could be rewarded. Raises `InputError`."""
    found = [exams[task.id] for task in tasks_P]
    if found and not any(exam.questions for exam in found):
        raise InputError(
            f"the model could write no exam that it passes with the text in view and fails without it: "
            f'{describe(found)} Give questions and exam.questions="given", raise exam.draws, or take another model'
        )
