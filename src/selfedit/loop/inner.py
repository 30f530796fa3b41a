"""The inner loop: a self-edit becomes an adapter, the adapter is examined closed-book, the result is a Trial.

This is the one place that captures failures. What the model did wrong (an edit that cannot be used) is a real 0; what
went wrong on our side (a crash, a grader that gave no mark, no memory) is a Trial without a reward, never a 0.

    written_P = propose(tasks_P, domain, writer, engine, recipe.sample, seed=0)
    units = plan(tasks_P, written_P, label="train-1", repeats=3, seed=0)
    for trial in run_trials(units, domain, learner, engine, grade, recipe.exam): ...

A unit is one task's part of it. Mostly it has an adapter of its own; with `together`, as many units in a row share one
that is trained on all their texts, and each is examined with it and keeps a Trial of its own.

Axis suffixes: P tasks, G edits of a task, R repeats (seeds) of an edit, Q questions, N units flattened.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from selfedit.engine.base import AnswerJob, Backend, SampleJob, Writer
from selfedit.errors import BadEdit, boundary
from selfedit.tasks.base import Domain, Grader
from selfedit.types import (
    Adapter,
    Datum,
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
    mean_rewarded,
)

WAVE = 48  # units handed to the engine at once: enough for all its slots, and what a kill can cost

Written = list[Sample] | Failure
Job = TypeVar("Job", SampleJob, TrainJob, AnswerJob)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Unit:
    """One inner loop to run, or one task's part in a shared one. It trains on all `samples`, without any on the bare
    passage; a Failure: nothing could be written."""

    key: str
    task: Task
    edit: int
    repeat: int
    seed: int
    samples: tuple[Sample, ...] | Failure


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
    engine: Writer,
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
        for edit, samples in enumerate(_one_each(written, edits)):
            units += [_unit(label, task, edit, repeat, seed, samples) for repeat in range(repeats)]
    return units


def plan_together(
    tasks_P: Sequence[Task], written_P: Sequence[Written | None], label: str, repeats: int, seed: int, edits: int
) -> list[Unit]:
    """List the inner loops of `label` for adapters that tasks share, [R][P] flattened: repeat by repeat, the tasks in
    their order. Each unit trains on the next `edits` of its task's self-edits, a Failure stands for all of them."""
    return [
        _unit(label, task, 0, repeat, seed, _all_at_once(written, repeat * edits, edits))
        for repeat in range(repeats)
        for task, written in zip(tasks_P, written_P, strict=True)
    ]


def _unit(label: str, task: Task, edit: int, repeat: int, seed: int, samples: tuple[Sample, ...] | Failure) -> Unit:
    key = f"{label}/{task.id}/{edit}/{repeat}"
    return Unit(key, task, edit, repeat, seed_of(seed, key), samples)


def _one_each(written: Written | None, edits: int) -> list[tuple[Sample, ...] | Failure]:
    if isinstance(written, Failure):
        return [written] * edits
    return [()] if written is None else [(sample,) for sample in written]


def _all_at_once(written: Written | None, first: int, edits: int) -> tuple[Sample, ...] | Failure:
    return written if isinstance(written, Failure) else tuple((written or [])[first : first + edits])


def run_trials(
    units_N: Sequence[Unit],
    domain: Domain,
    learner: Adapter | None,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
    known: Mapping[str, Trial] | None = None,
    together: int = 1,
) -> Iterator[Trial]:
    """Train and examine every unit, in order; the Trials of a wave are yielded as soon as it is done.

    `learner` is the adapter under the fresh ones (None: the bare base). `together` units in a row share an adapter, and
    never end up in different waves. Each task's marks before the update are measured once, whatever the number of its
    edits. Without an exam nothing is measured, and an unusable edit has no reward either.

    Units in `known` are not yielded. A wave of which only some are known is run whole all the same: what shares a pass
    changes the last digits, and a resumed run shall be the unbroken one to the last of them.
    """
    known = known or {}
    before: dict[str, tuple[Score, ...]] = {}
    for wave in _waves(units_N, together):
        before |= {unit.task.id: known[unit.key].before_Q for unit in wave if unit.key in known}
        if all(unit.key in known for unit in wave):
            continue
        new = {unit.task.id: unit.task for unit in wave if unit.task.id not in before}
        marks = examine(list(new.values()), [learner] * len(new), domain, engine, grade, exam)
        before |= dict(zip(new, marks, strict=True))
        edits = [_read(unit, domain) for unit in wave]
        for part in _parts(edits, together):
            trials = _run_part(wave[part], edits[part], before, domain, learner, engine, grade, exam, together)
            yield from (trial for trial in trials if trial.key not in known)


def examine_untrained(
    units_N: Sequence[Unit],
    domain: Domain,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
    known: Mapping[str, Trial] | None = None,
    shown: Mapping[str, Sequence[Task]] | None = None,
) -> Iterator[Trial]:
    """Examine the bare base on every unit's task; the Trials come as those of `run_trials` do.

    `shown` holds, by task id, the task whose passage is in view at each question, [Q]; without it no passage is. The
    marks before and after are the same ones: there is no update.
    """
    known = known or {}
    for wave in _waves(units_N):
        if all(unit.key in known for unit in wave):
            continue
        views_N = [shown[unit.task.id] if shown is not None else None for unit in wave]
        marks = _examine([unit.task for unit in wave], [None] * len(wave), domain, engine, grade, exam, views_N)
        for unit, found in zip(wave, marks, strict=True):
            if unit.key not in known:
                yield _trial(unit, None, found.scores_Q, found, {})


def _waves(units_N: Sequence[Unit], together: int = 1) -> Iterator[Sequence[Unit]]:
    size = together * max(1, WAVE // together)
    return (units_N[start : start + size] for start in range(0, len(units_N), size))


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
    views_N: Sequence[Sequence[Task] | None] | None = None,
) -> list[_Marks]:
    views_N = views_N or [None] * len(tasks_N)
    asked = [i for i, task in enumerate(tasks_N) if task.questions]
    jobs = [_exam_job(tasks_N[i], adapters_N[i], domain, exam, views_N[i]) for i in asked]
    answered = dict(zip(asked, _run_jobs("answer", engine.answer, jobs), strict=True))
    return [_mark(task, answered[i], grade) if i in answered else _Marks(()) for i, task in enumerate(tasks_N)]


def _exam_job(
    task: Task, adapter: Adapter | None, domain: Domain, exam: ExamSettings, view_Q: Sequence[Task] | None
) -> AnswerJob | Failure:
    with boundary("answer") as caught:
        prompts = domain.exam(task) if view_Q is None else domain.open_exam(task, view_Q)
        return AnswerJob(tuple(prompts), adapter, exam.max_tokens)
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


def _parts(edits: Sequence[tuple[SelfEdit, ...] | Failure], together: int) -> list[slice]:
    """Say which units of a wave are trained at once: all of them, save where one is a full update.

    That takes as much memory as the model: it is examined and released before the next is trained.
    """
    is_full = any(edit.train.method == "full" for each in edits if not isinstance(each, Failure) for edit in each)
    size = together if is_full else len(edits)
    return [slice(start, start + size) for start in range(0, len(edits), size)]


def _run_part(
    wave: Sequence[Unit],
    edits: Sequence[tuple[SelfEdit, ...] | Failure],
    before: dict[str, tuple[Score, ...]],
    domain: Domain,
    learner: Adapter | None,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
    together: int,
) -> list[Trial]:
    clock = time.perf_counter()
    adapters = _train(wave, edits, domain, learner, engine, together)
    trained = time.perf_counter()
    ready = {i: adapter for i, adapter in enumerate(adapters) if isinstance(adapter, Adapter)}
    marks = _examine([wave[i].task for i in ready], list(ready.values()), domain, engine, grade, exam)
    after = dict(zip(ready, marks, strict=True))
    cost = {"train_s": (trained - clock) / len(wave), "examine_s": (time.perf_counter() - trained) / len(wave)}
    for adapter in set(ready.values()):
        engine.release(adapter)
    return [_trial(unit, adapters[i], before[unit.task.id], after.get(i), cost) for i, unit in enumerate(wave)]


def _read(unit: Unit, domain: Domain) -> tuple[SelfEdit, ...] | Failure:
    """Read what is usable among a unit's self-edits. Only where nothing is, or something of ours breaks, it failed."""
    if isinstance(unit.samples, Failure):
        return unit.samples
    read = [_parse(unit.task, sample, domain) for sample in unit.samples or (None,)]
    failures = [edit for edit in read if isinstance(edit, Failure)]
    usable = tuple(edit for edit in read if isinstance(edit, SelfEdit))
    ours = [failure for failure in failures if not is_bad_edit(failure)]
    return (ours or failures)[0] if ours or not usable else usable


def _parse(task: Task, sample: Sample | None, domain: Domain) -> SelfEdit | Failure:
    with boundary("parse") as caught:
        return domain.parse(task, sample) if sample else domain.without_edit(task)
    assert caught.failure
    return caught.failure


def _train(
    wave: Sequence[Unit],
    edits: Sequence[tuple[SelfEdit, ...] | Failure],
    domain: Domain,
    learner: Adapter | None,
    engine: Backend,
    together: int,
) -> list[Adapter | Failure]:
    """Train an adapter for every `together` units. One that cannot be learnt fails alone, the others share the rest."""
    data = [each if isinstance(each, Failure) else _encode(each, engine) for each in edits]
    jobs = []
    for start in range(0, len(wave), together):
        shared = slice(start, start + together)
        jobs.append(_train_job(wave[shared], edits[shared], data[shared], domain, learner))
    trained = _run_jobs("train", engine.train, jobs)
    return [each if isinstance(each, Failure) else trained[i // together] for i, each in enumerate(data)]


def _encode(edits: Sequence[SelfEdit], engine: Backend) -> tuple[Datum, ...] | Failure:
    with boundary("encode") as caught:
        return tuple(datum for edit in edits for datum in engine.encode(edit.examples, edit.train))
    assert caught.failure
    return caught.failure


def _train_job(
    units: Sequence[Unit],
    edits: Sequence[tuple[SelfEdit, ...] | Failure],
    data: Sequence[tuple[Datum, ...] | Failure],
    domain: Domain,
    learner: Adapter | None,
) -> TrainJob | Failure:
    """Train on all that is there with the settings that the edits agree on, else with those of the bare passage."""
    sound = [part for part in data if not isinstance(part, Failure)]
    if not sound:
        return next(part for part in data if isinstance(part, Failure))
    chosen = {edit.train for each in edits if not isinstance(each, Failure) for edit in each}
    with boundary("parse") as caught:
        settings = chosen.pop() if len(chosen) == 1 else domain.without_edit(units[0].task).train
        return TrainJob(tuple(datum for part in sound for datum in part), settings, units[0].seed, under=learner)
    assert caught.failure
    return caught.failure


def _trial(
    unit: Unit,
    adapter: Adapter | Failure | None,
    before_Q: tuple[Score, ...],
    after: _Marks | None,
    cost: dict[str, float],
) -> Trial:
    marks = _unmeasured(unit.task, adapter) if isinstance(adapter, Failure) else after or _Marks(())
    samples = () if isinstance(unit.samples, Failure) else unit.samples
    return Trial(
        key=unit.key,
        task_id=unit.task.id,
        edit=unit.edit,
        repeat=unit.repeat,
        seed=unit.seed,
        sample=samples[0] if len(samples) == 1 else None,
        adapter=adapter.id if isinstance(adapter, Adapter) else None,
        before_Q=before_Q,
        after_Q=marks.scores_Q,
        reward=mean_rewarded(unit.task.questions, marks.scores_Q),
        failure=marks.failure,
        cost=cost,
        baseline=mean_rewarded(unit.task.questions, before_Q),
    )
