"""The inner loop: a self-edit becomes an adapter, the adapter is examined closed-book, the result is a Trial.

This is the one place that captures failures. What the model did wrong (an edit that cannot be used) is a real 0; what went
wrong on our side (a crash, a grader that gave no mark, no memory) is a Trial without a reward, never a 0.

    written_P = propose(tasks_P, domain, writer, engine, recipe.sample, seed=0)
    units = plan(tasks_P, written_P, label="train-1", repeats=3, seed=0)
    for trial in run_trials(units, domain, learner, engine, grade, recipe.exam): ...

Axis suffixes: P tasks, G edits of a task, R repeats (seeds) of an edit, Q questions, N units flattened.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
    Task,
    TrainJob,
    Trial,
    mean_score,
)

WAVE = 8  # units handed to the engine at once; what a kill can cost

Written = list[Sample] | Failure


@dataclass(frozen=True, slots=True)
class Unit:
    """One inner loop to run. `sample` None trains on the bare passage; a Failure means that nothing could be written."""

    key: str
    task: Task
    edit: int
    repeat: int
    seed: int
    sample: Sample | Failure | None


def seed_of(*key: str | int) -> int:
    """Derive a seed in [0, 2**31) from a key: the same everywhere, whatever runs beside it."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big") >> 1


def propose(
    tasks_P: Sequence[Task], domain: Domain, writer: Adapter | None, engine: Backend, settings: SampleSettings, seed: int
) -> list[Written]:
    """Let the writer write `settings.edits` self-edits for each task, [P][G]; a Failure in place of a task's edits that it could not write."""
    jobs = [
        SampleJob(
            domain.prompt(task),
            settings.edits,
            seed_of(seed, "propose", task.id),
            writer,
            settings.temperature,
            settings.top_p,
            settings.max_tokens,
        )
        for task in tasks_P
    ]
    with boundary("propose") as caught:
        return engine.sample(jobs)
    assert caught.failure
    return [caught.failure for _ in jobs]


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

    `learner` is the adapter under the fresh ones (None: the bare base). Each task's marks before the update are measured
    once, whatever the number of its edits.
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
    """Ask every task's questions of the adapter beside it and mark the answers, [N][Q]. What failed is a Score of None."""
    jobs = [AnswerJob(tuple(domain.exam(t)), a, exam.max_tokens) for t, a in zip(tasks_N, adapters_N, strict=True)]
    asked = [i for i, job in enumerate(jobs) if job.prompts]
    with boundary("answer") as caught:
        answered = dict(zip(asked, engine.answer([jobs[i] for i in asked]), strict=True))
    if caught.failure:
        answered = {i: caught.failure for i in asked}
    return [_mark(task, answered.get(i, []), grade) for i, task in enumerate(tasks_N)]


def _mark(task: Task, answers: list[str] | Failure, grade: Grader) -> tuple[Score, ...]:
    if isinstance(answers, Failure):
        return tuple(Score(None, "", answers.message) for _ in task.questions)
    with boundary("grade") as caught:
        return tuple(grade(task.questions, answers))
    assert caught.failure
    return tuple(Score(None, answer, caught.failure.message) for answer in answers)


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
    ready = [i for i, adapter in enumerate(adapters) if isinstance(adapter, Adapter)]
    marks = examine([wave[i].task for i in ready], [_held(adapters[i]) for i in ready], domain, engine, grade, exam)
    after = dict(zip(ready, marks, strict=True))
    cost = {"train_s": (trained - clock) / len(wave), "examine_s": (time.perf_counter() - trained) / len(wave)}
    for i in ready:
        engine.release(_held(adapters[i]))
    return [_trial(unit, adapters[i], before[unit.task.id], after.get(i, ()), cost) for i, unit in enumerate(wave)]


def _held(adapter: Adapter | Failure) -> Adapter:
    assert isinstance(adapter, Adapter)
    return adapter


def _read(unit: Unit, domain: Domain) -> SelfEdit | Failure:
    if isinstance(unit.sample, Failure):
        return unit.sample
    with boundary("parse") as caught:
        try:
            return domain.parse(unit.task, unit.sample) if unit.sample else domain.without_edit(unit.task)
        except BadEdit as error:
            return Failure("parse", "BadEdit", str(error))
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
    runnable = [job for job in jobs if isinstance(job, TrainJob)]
    with boundary("train") as caught:
        trained = iter(engine.train(runnable))
    if caught.failure:
        trained = iter([caught.failure] * len(runnable))
    return [next(trained) if isinstance(job, TrainJob) else job for job in jobs]


def _trial(
    unit: Unit,
    adapter: Adapter | Failure,
    before_Q: tuple[Score, ...],
    after_Q: tuple[Score, ...],
    cost: dict[str, float],
) -> Trial:
    failure = adapter if isinstance(adapter, Failure) else None
    if failure and failure.kind == "BadEdit":
        after_Q = tuple(Score(0.0, "", failure.message) for _ in unit.task.questions)
    elif failure:
        after_Q = tuple(Score(None, "", failure.message) for _ in unit.task.questions)
    return Trial(
        key=unit.key,
        task_id=unit.task.id,
        edit=unit.edit,
        repeat=unit.repeat,
        seed=unit.seed,
        sample=unit.sample if isinstance(unit.sample, Sample) else None,
        adapter=adapter.id if isinstance(adapter, Adapter) else None,
        before_Q=before_Q,
        after_Q=after_Q,
        reward=mean_score(after_Q),
        failure=failure,
        cost=cost,
    )
