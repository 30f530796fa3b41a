"""The inner loop: a self-edit becomes an adapter, the adapter is examined closed-book, the result is a Trial.

This is the one place that captures failures. What the model did wrong (an edit that cannot be used) is a real 0; what
went wrong on our side (a crash, a grader that gave no mark, no memory) is a Trial without a reward, never a 0.

    written_P = propose(tasks_P, domain, writer, engine, recipe.sample, seed=0)
    units = plan(tasks_P, written_P, label="train-1", repeats=3, seed=0)
    for trial in run_trials(units, domain, learner, engine, grade, recipe.exam): ...

Axis suffixes: P tasks, G edits of a task, R repeats (seeds) of an edit, Q questions, N units flattened.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from selfedit.engine.base import AnswerJob, Backend, SampleJob
from selfedit.errors import BadEdit, boundary
from selfedit.tasks.base import Domain, Grader
from selfedit.types import (
    Adapter,
    ExamSettings,
    Failure,
    Sample,
    SampleSettings,
    Score,
    SelfEdit,
    Stage,
    Task,
    TrainJob,
    Trial,
    mean_score,
)

WAVE = 8  # units handed to the engine at once; what a kill can cost

Written = list[Sample] | Failure
Job = TypeVar("Job", SampleJob, TrainJob, AnswerJob)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Unit:
    """One inner loop to run. `sample` None trains on the bare passage; a Failure: nothing could be written."""

    key: str
    task: Task
    edit: int
    repeat: int
    seed: int
    sample: Sample | Failure | None


def seed_of(*key: str | int) -> int:
    """Derive a seed in [0, 2**31) from a key: the same everywhere, whatever runs beside it."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big") >> 1


def is_bad_edit(failure: Failure | None) -> bool:
    """Say whether the model is to blame: its text could not be used. Every other failure is ours."""
    return failure is not None and failure.stage == "parse" and failure.kind == BadEdit.__name__


def propose(
    tasks_P: Sequence[Task],
    domain: Domain,
    writer: Adapter | None,
    engine: Backend,
    settings: SampleSettings,
    seed: int,
) -> list[Written]:
    """Let the writer write `settings.edits` self-edits for each task, [P][G].

    A Failure stands for the edits of a task for which it could not write.
    """
    jobs: list[SampleJob | Failure] = []
    for task in tasks_P:
        with boundary("propose") as caught:
            jobs.append(
                SampleJob(
                    domain.prompt(task),
                    settings.edits,
                    seed_of(seed, "propose", task.id),
                    writer,
                    settings.temperature,
                    settings.top_p,
                    settings.max_tokens,
                )
            )
        if caught.failure:
            jobs.append(caught.failure)
    return _run_jobs("propose", engine.sample, jobs)


def _run_jobs(
    stage: Stage, run: Callable[[list[Job]], list[Result | Failure]], jobs: Sequence[Job | Failure]
) -> list[Result | Failure]:
    """Run the jobs; a Failure among them stays what it is."""
    results = iter(_run_batch(stage, run, [job for job in jobs if not isinstance(job, Failure)]))
    return [job if isinstance(job, Failure) else next(results) for job in jobs]


def _run_batch(
    stage: Stage, run: Callable[[list[Job]], list[Result | Failure]], jobs: list[Job]
) -> list[Result | Failure]:
    """Run a batch, and one by one what breaks as a whole, so that no job takes another with it."""
    if not jobs:
        return []
    with boundary(stage) as caught:
        results = run(jobs)
        if len(results) != len(jobs):
            raise RuntimeError(f"the engine gave {len(results)} results for {len(jobs)} jobs")
        return results
    if len(jobs) > 1:
        return [result for job in jobs for result in _run_batch(stage, run, [job])]
    assert caught.failure
    return [caught.failure]


def plan(
    tasks_P: Sequence[Task], written_P: Sequence[Written | None], label: str, repeats: int, seed: int, edits: int = 1
) -> list[Unit]:
    """List the inner loops of `label`, [P][G][R] flattened. Keys are unique within a run.

    `written_P` holds None for a task that is learnt from its bare passage, and a Failure stands for `edits` edits.
    """
    units = []
    for task, written in zip(tasks_P, written_P, strict=True):
        samples = list(written) if isinstance(written, list) else [written] * (1 if written is None else edits)
        for edit, sample in enumerate(samples):
            for repeat in range(repeats):
                key = f"{label}/{task.id}/{edit}/{repeat}"
                units.append(Unit(key, task, edit, repeat, seed_of(seed, key), sample))
    return units


def run_trials(
    units_N: Sequence[Unit], domain: Domain, learner: Adapter | None, engine: Backend, grade: Grader, exam: ExamSettings
) -> Iterator[Trial]:
    """Train and examine every unit, in order; the Trials of a wave are yielded as soon as it is done.

    `learner` is the adapter under the fresh ones (None: the bare base). Each task's marks before the update are
    measured once, whatever the number of its edits. Without an exam nothing is measured, and an unusable edit has no
    reward either.
    """
    before: dict[str, tuple[Score, ...]] = {}
    for start in range(0, len(units_N), WAVE):
        wave = units_N[start : start + WAVE]
        new = {unit.task.id: unit.task for unit in wave if unit.task.id not in before}
        marks = examine(list(new.values()), [learner] * len(new), domain, engine, grade, exam)
        before |= dict(zip(new, marks, strict=True))
        yield from _run_wave(wave, before, domain, learner, engine, grade, exam)


def examine(
    tasks_N: Sequence[Task],
    adapters_N: Sequence[Adapter | None],
    domain: Domain,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
) -> list[tuple[Score, ...]]:
    """Ask every task's questions of the adapter beside it and mark the answers, [N][Q]; None: it failed."""
    return [marks.scores_Q for marks in _examine(tasks_N, adapters_N, domain, engine, grade, exam)]


@dataclass(frozen=True, slots=True)
class _Marks:
    """One exam's marks, and what kept it from being marked."""

    scores_Q: tuple[Score, ...]
    failure: Failure | None = None


def _examine(
    tasks_N: Sequence[Task],
    adapters_N: Sequence[Adapter | None],
    domain: Domain,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
) -> list[_Marks]:
    asked = [i for i, task in enumerate(tasks_N) if task.questions]
    jobs = [_exam_job(tasks_N[i], adapters_N[i], domain, exam) for i in asked]
    answered = dict(zip(asked, _run_jobs("answer", engine.answer, jobs), strict=True))
    return [_mark(task, answered[i], grade) if i in answered else _Marks(()) for i, task in enumerate(tasks_N)]


def _exam_job(task: Task, adapter: Adapter | None, domain: Domain, exam: ExamSettings) -> AnswerJob | Failure:
    with boundary("answer") as caught:
        return AnswerJob(tuple(domain.exam(task)), adapter, exam.max_tokens)
    assert caught.failure
    return caught.failure


def _mark(task: Task, answers_Q: list[str] | Failure, grade: Grader) -> _Marks:
    if isinstance(answers_Q, Failure):
        return _unmeasured(task, answers_Q)
    with boundary("grade") as caught:
        scores_Q = tuple(grade(task.questions, answers_Q))
        if len(scores_Q) != len(task.questions):
            raise RuntimeError(f"the grader gave {len(scores_Q)} marks for {len(task.questions)} questions")
        return _Marks(scores_Q)
    assert caught.failure
    return _Marks(tuple(Score(None, answer, caught.failure.message) for answer in answers_Q), caught.failure)


def _unmeasured(task: Task, failure: Failure) -> _Marks:
    """The exam that could not be taken; that of an edit which the model spoilt counts, with 0 for every question."""
    value = 0.0 if is_bad_edit(failure) else None
    return _Marks(tuple(Score(value, "", failure.message) for _ in task.questions), failure)


def _run_wave(
    wave: Sequence[Unit],
    before: dict[str, tuple[Score, ...]],
    domain: Domain,
    learner: Adapter | None,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
) -> list[Trial]:
    edits = [_read(unit, domain) for unit in wave]
    clock = time.perf_counter()
    adapters = _train(wave, edits, learner, engine)
    trained = time.perf_counter()
    ready = {i: adapter for i, adapter in enumerate(adapters) if isinstance(adapter, Adapter)}
    marks = _examine([wave[i].task for i in ready], list(ready.values()), domain, engine, grade, exam)
    after = dict(zip(ready, marks, strict=True))
    cost = {"train_s": (trained - clock) / len(wave), "examine_s": (time.perf_counter() - trained) / len(wave)}
    for adapter in ready.values():
        engine.release(adapter)
    return [_trial(unit, adapters[i], before[unit.task.id], after.get(i), cost) for i, unit in enumerate(wave)]


def _read(unit: Unit, domain: Domain) -> SelfEdit | Failure:
    if isinstance(unit.sample, Failure):
        return unit.sample
    with boundary("parse") as caught:
        return domain.parse(unit.task, unit.sample) if unit.sample else domain.without_edit(unit.task)
    assert caught.failure
    return caught.failure


def _train(
    wave: Sequence[Unit], edits: Sequence[SelfEdit | Failure], learner: Adapter | None, engine: Backend
) -> list[Adapter | Failure]:
    jobs: list[TrainJob | Failure] = []
    for unit, edit in zip(wave, edits, strict=True):
        if isinstance(edit, Failure):
            jobs.append(edit)
            continue
        with boundary("encode") as caught:
            jobs.append(TrainJob(engine.encode(edit.examples, edit.train), edit.train, unit.seed, under=learner))
        if caught.failure:
            jobs.append(caught.failure)
    return _run_jobs("train", engine.train, jobs)


def _trial(
    unit: Unit,
    adapter: Adapter | Failure,
    before_Q: tuple[Score, ...],
    after: _Marks | None,
    cost: dict[str, float],
) -> Trial:
    marks = _unmeasured(unit.task, adapter) if isinstance(adapter, Failure) else after or _Marks(())
    return Trial(
        key=unit.key,
        task_id=unit.task.id,
        edit=unit.edit,
        repeat=unit.repeat,
        seed=unit.seed,
        sample=unit.sample if isinstance(unit.sample, Sample) else None,
        adapter=None if isinstance(adapter, Failure) else adapter.id,
        before_Q=before_Q,
        after_Q=marks.scores_Q,
        reward=mean_score(marks.scores_Q),
        failure=marks.failure,
        cost=cost,
    )
