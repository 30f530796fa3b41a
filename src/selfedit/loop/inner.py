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
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from selfedit.engine.base import AnswerJob, Backend, SampleJob, Writer
from selfedit.errors import BadEdit, boundary
from selfedit.loop.marking import Marks, grade_exams
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

COPIED = "copied_lines"  # a trial's measure
WAVE = 48  # units handed to the engine at once: enough for all its slots, and what a kill can cost

Written = list[Sample] | Failure
Reading = tuple[Task, str]  # a task, and the text of a self-edit on it
Assess = Callable[[list[Reading]], list[Mapping[str, float] | Failure]]
Job = TypeVar("Job", SampleJob, TrainJob, AnswerJob, Reading)
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


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a unit beside marks, by name: None where that failed, and the first thing it failed of."""

    values: Mapping[str, float | None] = field(default_factory=dict)
    failure: Failure | None = None

    def and_also(self, other: Measured) -> Measured:
        """Put both together."""
        return Measured({**self.values, **other.values}, self.failure or other.failure)


class Probe(Protocol):
    """What measures more than marks, for rewards that need it (`loop.probes`). It has a value for every unit, [N]."""

    def before(self, tasks_N: Sequence[Task], learner: Adapter | None) -> list[Measured]:
        """Measure the model before each task's update; the names end in "_before"."""

    def after(self, tasks_N: Sequence[Task], adapters_N: Sequence[Adapter], learner: Adapter | None) -> list[Measured]:
        """Measure each adapter, which was trained for the task beside it on top of `learner`."""

    def unchanged(self, before: Measured) -> Measured:
        """Say what `after` would find of a model that was not updated."""


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
    return run_jobs("propose", engine.sample, jobs)


def run_jobs(
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
    probe: Probe | None = None,
) -> Iterator[Trial]:
    """Train and examine every unit, in order; the Trials of a wave are yielded as soon as it is done.

    `learner` is the adapter under the fresh ones (None: the bare base). `together` units in a row share an adapter, and
    never end up in different waves. Each task's marks before the update are measured once, whatever the number of its
    edits. Without an exam nothing is measured, and an unusable edit has no reward either. `probe` measures what
    a reward needs beside marks.

    Units in `known` are not yielded. A wave of which only some are known is run whole all the same: what shares a pass
    changes the last digits, and a resumed run shall be the unbroken one to the last of them.
    """
    known = known or {}
    before: dict[str, _Before] = {}
    for wave in _waves(units_N, together):
        before |= {unit.task.id: _recalled(known[unit.key]) for unit in wave if unit.key in known}
        if all(unit.key in known for unit in wave):
            continue
        new = {unit.task.id: unit.task for unit in wave if unit.task.id not in before}
        marks = examine(list(new.values()), [learner] * len(new), domain, engine, grade, exam)
        measured = probe.before(list(new.values()), learner) if probe else [Measured()] * len(new)
        before |= dict(zip(new, map(_Before, marks, measured), strict=True))
        edits = [_read(unit, domain) for unit in wave]
        for part in _parts(edits, together):
            trials = _run_part(wave[part], edits[part], before, domain, learner, engine, grade, exam, together, probe)
            yield from (trial for trial in trials if trial.key not in known)


def assess_units(
    units_N: Sequence[Unit], domain: Domain, assess: Assess, known: Mapping[str, Trial] | None = None
) -> Iterator[Trial]:
    """Let `assess` read every unit's self-edit in place of an update; its marks are the Trials' measures.

    Nothing is trained or examined. An edit that cannot be used is not read, as it would not be learnt.
    """
    for wave in _waves([unit for unit in units_N if unit.key not in (known or {})]):
        bad = {i: edit for i, edit in enumerate(_read(unit, domain) for unit in wave) if isinstance(edit, Failure)}
        usable = [i for i in range(len(wave)) if i not in bad]
        marks = _run_batch("reward", assess, [(wave[i].task, _samples(wave[i])[0].text) for i in usable])
        found = bad | dict(zip(usable, marks, strict=True))
        for i, unit in enumerate(wave):
            marked = found[i]
            measured = Measured(failure=marked) if isinstance(marked, Failure) else Measured(marked)
            reward = 0.0 if is_bad_edit(measured.failure) else None
            yield replace(_trial(unit, None, (), None, {}, measured), reward=reward)


def _samples(unit: Unit) -> tuple[Sample, ...]:
    return () if isinstance(unit.samples, Failure) else unit.samples


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


@dataclass(frozen=True, slots=True)
class _Before:
    """What was found of a task before its update."""

    scores_Q: tuple[Score, ...]
    measured: Measured = Measured()


def _recalled(trial: Trial) -> _Before:
    values = {name: value for name, value in trial.measures.items() if name.endswith("_before")}
    return _Before(trial.before_Q, Measured(values))


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
    views_N: Sequence[Sequence[Task] | None] | None = None,
) -> list[tuple[Score, ...]]:
    """Ask every task's questions of the adapter beside it and mark the answers, [N][Q]; None: it failed.

    `views_N` holds the task whose passage is in view at each question, [N][Q]; without it no passage is.
    """
    return [marks.scores_Q for marks in _examine(tasks_N, adapters_N, domain, engine, grade, exam, views_N)]


def _examine(
    tasks_N: Sequence[Task],
    adapters_N: Sequence[Adapter | None],
    domain: Domain,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
    views_N: Sequence[Sequence[Task] | None] | None = None,
) -> list[Marks]:
    views_N = views_N or [None] * len(tasks_N)
    asked = [i for i, task in enumerate(tasks_N) if task.questions]
    jobs = [_exam_job(tasks_N[i], adapters_N[i], domain, exam, views_N[i]) for i in asked]
    answers = run_jobs("answer", engine.answer, jobs)
    marks = dict(zip(asked, _mark([tasks_N[i] for i in asked], answers, grade), strict=True))
    return [marks.get(i, Marks(())) for i in range(len(tasks_N))]


def _exam_job(
    task: Task, adapter: Adapter | None, domain: Domain, exam: ExamSettings, view_Q: Sequence[Task] | None
) -> AnswerJob | Failure:
    with boundary("answer") as caught:
        prompts = domain.exam(task) if view_Q is None else domain.open_exam(task, view_Q)
        return AnswerJob(tuple(prompts), adapter, exam.max_tokens)
    assert caught.failure
    return caught.failure


def _mark(tasks_N: Sequence[Task], answers_N: Sequence[list[str] | Failure], grade: Grader) -> list[Marks]:
    """Mark the exams that were taken; a Failure in place of the answers says why one was not."""
    exams = list(zip(tasks_N, answers_N, strict=True))
    taken = [(task.questions, answers) for task, answers in exams if not isinstance(answers, Failure)]
    marks = iter(grade_exams(taken, grade))
    return [_unmeasured(task, found) if isinstance(found, Failure) else next(marks) for task, found in exams]


def _unmeasured(task: Task, failure: Failure) -> Marks:
    """The exam that could not be taken; that of an edit which the model spoilt counts, with 0 for every question."""
    value = 0.0 if is_bad_edit(failure) else None
    return Marks(tuple(Score(value, "", failure.message) for _ in task.questions), failure)


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
    before: dict[str, _Before],
    domain: Domain,
    learner: Adapter | None,
    engine: Backend,
    grade: Grader,
    exam: ExamSettings,
    together: int,
    probe: Probe | None,
) -> list[Trial]:
    clock = time.perf_counter()
    adapters = _train(wave, edits, domain, learner, engine, together)
    trained = time.perf_counter()
    ready = {i: adapter for i, adapter in enumerate(adapters) if isinstance(adapter, Adapter)}
    marks = _examine([wave[i].task for i in ready], list(ready.values()), domain, engine, grade, exam)
    after = dict(zip(ready, marks, strict=True))
    found = probe.after([wave[i].task for i in ready], list(ready.values()), learner) if probe else []
    measured = dict(zip(ready, found, strict=False))
    cost = {"train_s": (trained - clock) / len(wave), "examine_s": (time.perf_counter() - trained) / len(wave)}
    for adapter in set(ready.values()):
        engine.release(adapter)
    trials = []
    for i, unit in enumerate(wave):
        update, then = adapters[i], before[unit.task.id]
        if probe and i not in measured:
            is_as_before = isinstance(update, Failure) and is_bad_edit(update)
            measured[i] = probe.unchanged(then.measured) if is_as_before else Measured()
        whole = then.measured.and_also(measured.get(i, Measured())).and_also(Measured(_told(edits[i])))
        trials.append(_trial(unit, update, then.scores_Q, after.get(i), cost, whole))
    return trials


def _told(edits: tuple[SelfEdit, ...] | Failure) -> dict[str, float | None]:
    """Note how many lines were left out of a unit's self-edits as copies of its exam, and what a single one chose."""
    if isinstance(edits, Failure):
        return {}
    n_copied = sum(edit.n_copied for edit in edits)
    return ({COPIED: float(n_copied)} if n_copied else {}) | (edits[0].chosen if len(edits) == 1 else {})


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
    trained = run_jobs("train", engine.train, jobs)
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
    after: Marks | None,
    cost: dict[str, float],
    measured: Measured = Measured(),
) -> Trial:
    marks = _unmeasured(unit.task, adapter) if isinstance(adapter, Failure) else after or Marks(())
    samples = _samples(unit)
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
        failure=marks.failure or measured.failure,
        cost=cost,
        baseline=mean_rewarded(unit.task.questions, before_Q),
        measures=measured.values,
    )
