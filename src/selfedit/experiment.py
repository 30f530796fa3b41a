"""Run a recipe: every seed in its run folder, every arm on the same unseen tasks, one report over all seeds.

A seed is a run folder of its own (`OUT/seed-0`), which can be killed and started again. Several seeds run side by side,
one process each, as far as there are cores; they draw different tasks, so their passages are pooled as one sample.

    report = run_experiment(load_recipe("demo"), Path("runs/demo"))
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import pairwise
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from selfedit.engine.base import Backend, find_device, limit_threads, open_backend
from selfedit.errors import InputError
from selfedit.loop.algorithms import load_algorithm
from selfedit.loop.arms import CONTROLS, OPEN_BOOK, Given, arm_names, count_trials, experiment
from selfedit.loop.inner import is_bad_edit
from selfedit.loop.outer import Known, Lab, Round, Wrote
from selfedit.material import Material, give, read_material
from selfedit.report.record import EditPair, KindArm, Report
from selfedit.report.stats import compare, of_kind, summarise
from selfedit.runs import Run, count_trials_written, open_run, read_seconds, read_trials
from selfedit.tasks.base import Domain, load_domain
from selfedit.tasks.graders import load_grader
from selfedit.tracking import EVERY, check_trackers, reporting, watch
from selfedit.types import Recipe, Task, Trial

Progress = Callable[[int, int], None]  # trials done, trials in all
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """One seed: its recipe, its run folder, the tasks its writer learns from, the unseen ones it is examined on, and
    what arms need for those from outside."""

    recipe: Recipe
    folder: Path
    train: list[Task]
    unseen: list[Task]
    given: Given = field(default_factory=Given)

    @property
    def n_trials(self) -> int:
        return count_trials(self.recipe, len(self.train), len(self.unseen))


def run_experiment(recipe: Recipe, out: Path, device: str = "auto", progress: Progress | None = None) -> Report:
    """Run what is missing of `recipe` in `out` and report on all of it. `progress` hears how many trials are done.

    Raises `ConfigError` for an unknown name in the recipe, `InputError` for data that cannot be used, `ModelError` for
    an unusable model, `RunError` for a folder that holds another run or cannot be written.
    """
    load_grader(recipe.exam.grader)
    load_algorithm(recipe.outer.algorithm)
    check_trackers(recipe.report_to)
    recipe, material = read_material(recipe)
    plans = [make_plan(replace(recipe, seed=recipe.seed + i, seeds=1), out, material) for i in range(recipe.seeds)]
    counter = _Counter(progress, sum(plan.n_trials for plan in plans))
    device = find_device(device)
    workers = 1 if device.startswith("cuda") else min(len(plans), os.cpu_count() or 1)
    if workers > 1:
        _run_side_by_side(plans, device, workers, counter)
    else:
        counter.show(sum(len(read_trials(plan.folder)) for plan in plans))
        for plan in plans:
            run_seed(plan, device, counter.one_more)
    return summarise_plans(recipe, plans, material.left_out)


@dataclass(slots=True)
class _Counter:
    progress: Progress | None
    total: int
    done: int = 0

    def show(self, done: int) -> None:
        self.done = done
        if self.progress:
            self.progress(done, self.total)

    def one_more(self) -> None:
        self.show(self.done + 1)


def make_plan(recipe: Recipe, out: Path, material: Material | None = None) -> Plan:
    """Draw one seed's tasks: fresh ones for every round, unseen ones for the examination.

    Raises `InputError` where the material has too few tasks, or too few completions for them.
    """
    material = material or Material()
    domain = _domain(recipe, material)
    n_train = recipe.outer.tasks * recipe.outer.rounds if {"rounds", *CONTROLS} & set(recipe.arms) else 0
    train, unseen = domain.tasks("train", n_train, recipe.seed), domain.tasks("eval", recipe.eval_tasks, recipe.seed)
    if len({task.id for task in [*train, *unseen]}) < n_train + recipe.eval_tasks:
        raise InputError(
            f"{recipe.data} holds {len(material.tasks)} tasks to examine and learn from, and the recipe asks for "
            f"{recipe.eval_tasks} unseen ones and {n_train} to learn from; lower eval_tasks, outer.tasks or "
            "outer.rounds"
        )
    return Plan(recipe, out / f"seed-{recipe.seed}", train, unseen, give(material, recipe, domain, unseen))


def run_seed(plan: Plan, device: str, on_trial: Callable[[], None]) -> None:
    """Run what is missing of one seed; every event is in the folder before the next begins."""
    engine = open_backend("local", plan.recipe.model, device)
    started = time.monotonic()
    with open_run(plan.folder, plan.recipe, engine.base) as run, reporting(run, plan.recipe):
        try:
            _follow(plan, run, engine, on_trial)
        finally:
            run.metric("time/run_s", time.monotonic() - started, step=len(run.trials()))


def _follow(plan: Plan, run: Run, engine: Backend, on_trial: Callable[[], None]) -> None:
    recipe = plan.recipe
    grade = load_grader(recipe.exam.grader)
    lab = Lab(_domain(recipe), engine, grade, recipe.sample, recipe.exam, recipe.seed)
    known = Known.resumed(run.trials(), run.drawn())
    for event in experiment(recipe, plan.train, plan.unseen, lab, known, plan.given):
        match event:
            case Wrote(key, samples):
                run.save_samples(key, samples)
            case Trial():
                run.append(event)
                if len(run.trials()) % EVERY == 0:
                    watch(run)
                on_trial()
            case Round():
                _record_round(run, event)
                if event.label == "train" and event.writer:
                    engine.export(event.writer, plan.folder / "writers" / f"round-{event.index}")
    watch(run)


def _record_round(run: Run, round: Round) -> None:
    name = round.label
    if round.reward is not None:
        run.metric(f"{name}/reward/mean", round.reward, round.index)
    run.metric(f"{name}/edits/kept", round.n_kept, round.index)
    run.metric(f"{name}/failure/trials", round.n_failed, round.index)


def _run_side_by_side(plans: Sequence[Plan], device: str, workers: int, counter: _Counter) -> None:
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker, (threads,)) as pool:
        running = {pool.submit(_run_quietly, plan, device) for plan in plans}
        while running:
            done, running = wait(running, POLL_S, FIRST_COMPLETED)
            counter.show(sum(count_trials_written(plan.folder) for plan in plans))
            for future in done:
                future.result()


def _begin_worker(threads: int) -> None:
    """Take a share of the cores, and end when the parent is killed: an orphan would hold the run's lock."""
    limit_threads(threads)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _run_quietly(plan: Plan, device: str) -> None:
    run_seed(plan, device, lambda: None)


def _domain(recipe: Recipe, material: Material | None = None) -> Domain:
    documents = material.tasks if material else ()
    return load_domain(recipe.domain, recipe.format, recipe.inner, recipe.split_lines, recipe.template, documents)


def summarise_plans(recipe: Recipe, plans: Sequence[Plan], left_out: Sequence[str] = ()) -> Report:
    """Pool the seeds' trials into one report. A domain's tasks differ from seed to seed, so their ids never meet; those
    of a file may, and a task that several seeds examined counts once, with the mean of its marks.

    What a folder holds beyond the recipe, from a run with more unseen tasks or repeats, is left out.
    """
    planned = [(plan, read_trials(plan.folder)) for plan in plans]
    trials = {name: [t for plan, ledger in planned for t in _of_arm(plan, ledger, name)] for name in arm_names(recipe)}
    tasks = [task for plan in plans for task in plan.unseen]
    return Report(
        model=recipe.model,
        seed=recipe.seed,
        seconds=sum(read_seconds(plan.folder) for plan in plans),
        arms=tuple(summarise(name, found) for name, found in trials.items()),
        paired=tuple(compare(a, trials[a], b, trials[b]) for a, b in _comparisons(list(trials))),
        examples=tuple(_example(plans[0].unseen, trials)),
        kinds=tuple(
            KindArm(kind, summarise(name, of_kind(found, tasks, kind)))
            for kind in sorted({q.kind for task in tasks for q in task.questions} - {""})
            for name, found in trials.items()
        ),
        notes=(*_notes(recipe, planned), *_failures(trials)),
        left_out=tuple(left_out),
    )


def _of_arm(plan: Plan, ledger: Mapping[str, Trial], name: str) -> list[Trial]:
    unseen = {task.id for task in plan.unseen}
    found = [t for key, t in ledger.items() if key.startswith(f"{name}/") and t.task_id in unseen]
    return [t for t in found if max(t.edit, t.repeat) < plan.recipe.eval_repeats]


def _comparisons(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each arm against the one before it, then the last round against the writer it began as and the bare passage, what
    was made elsewhere between passage and rounds, what the last arm lacks of having a passage in view, and the controls
    between those two writers."""
    chain = [name for name in names if name not in (*CONTROLS, *OPEN_BOOK, "completions")]
    yield from pairwise(chain)
    rounds = [name for name in chain if name.startswith("round-")]
    if len(rounds) > 2:
        yield rounds[0], rounds[-1]
    if rounds and "passage" in chain[:-2]:
        yield "passage", rounds[-1]
    if "completions" in names:
        yield from ((name, "completions") for name in chain if name in ("passage", *rounds[:1], *rounds[-1:]))
    shown = [name for name in OPEN_BOOK if name in names]
    yield from ((name, view) for view in shown for name in chain[-1:])
    yield from pairwise(shown)
    for control in CONTROLS:
        if control in names and rounds:
            yield rounds[0], control
            yield control, rounds[-1]


def _example(tasks: Sequence[Task], trials: Mapping[str, Sequence[Trial]]) -> Iterator[EditPair]:
    """Show the first unseen passage that both could write about, not a chosen one, as the untrained writer and the last
    one have studied it."""
    rounds = [name for name in trials if name.startswith("round-")]
    if len(rounds) < 2:
        return
    first, last = ({t.task_id: t for t in trials[name] if t.edit == 0} for name in (rounds[0], rounds[-1]))
    for number, task in enumerate(tasks, 1):
        before, after = first.get(task.id), last.get(task.id)
        if before and after and before.sample and after.sample:
            marks = f"{_share(before)} of the questions right after {rounds[0]}, {_share(after)} after {rounds[-1]}"
            heading = f"{'The first unseen passage' if number == 1 else f'Unseen passage {number}'}: {marks}"
            yield EditPair(heading, task.title, task.context, before.sample.text, after.sample.text)
            return


def _share(trial: Trial) -> str:
    marks = [score.value for score in trial.after_Q if score.value is not None]
    return f"{sum(mark == 1 for mark in marks)} of {len(marks)}"


def _notes(recipe: Recipe, planned: Sequence[tuple[Plan, Mapping[str, Trial]]]) -> Iterator[str]:
    rounds = [name for name in arm_names(recipe) if name.startswith("round-")]
    if {*rounds[1:], *CONTROLS} & set(arm_names(recipe)):
        yield "The unseen passages were not among those that the writer was reinforced on."
    if recipe.seeds > 1 and len(rounds) > 1:
        first, last = rounds[0], rounds[-1]
        pairs = [compare(first, _of_arm(*held, first), last, _of_arm(*held, last)) for held in planned]
        found = ", ".join("-" if p.difference is None else f"{100 * p.difference:+.1f}" for p in pairs)
        yield (
            f"{recipe.seeds} seeds from {recipe.seed} on, pooled; the intervals resample passages, not trainings. "
            f"{last} - {first} seed by seed, in points: {found}."
        )
    if recipe.together > 1:
        yield (
            f"{recipe.together} passages share an adapter. The intervals resample passages; how another training on "
            "the same ones would have gone is not in them."
        )


def _failures(trials: Mapping[str, Sequence[Trial]]) -> Iterator[str]:
    """Say of each arm what its failed trials died of, and how many self-edits were real zeros."""
    for name, found in trials.items():
        failures = [trial.failure for trial in found if trial.failure]
        bad = [failure for failure in failures if is_bad_edit(failure)]
        ours = Counter((failure.stage, failure.kind) for failure in failures if not is_bad_edit(failure))
        if bad:
            yield f"{name}: {len(bad)} of {len(found)} self-edits could not be used and count as 0, {bad[0].message}."
        for (stage, kind), n in ours.items():
            first = next(failure for failure in failures if (failure.stage, failure.kind) == (stage, kind))
            yield f"{name}: {n} of {len(found)} trials were not measured ({stage}, {kind}: {first.message})."
