"""Run a recipe: every variant, every seed in its run folder, every arm on the same unseen tasks, one report over all.

Several seeds run side by side, one process each, as far as there are cores; they draw different tasks, so their
passages are pooled as one sample.

    report = run_experiment(load_recipe("demo"), Path("runs/demo"))
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from selfedit.config import variants
from selfedit.engine.base import Backend, find_device, limit_threads, open_backend
from selfedit.errors import ConfigError, InputError, boundary
from selfedit.experiment.plans import Plan, domain_of, make_plans
from selfedit.experiment.results import report_on
from selfedit.experiment.terms import (
    check_questions,
    check_reward,
    in_header,
    keep_reward,
    refuse_another_reward,
    with_reward,
)
from selfedit.experiment.writers import open_writers
from selfedit.judges import check_grader, open_grader
from selfedit.loop.algorithms import load_algorithm
from selfedit.loop.arms import experiment
from selfedit.loop.outer import Known, Lab, Round, Wrote
from selfedit.recipe import Recipe
from selfedit.report.record import Report
from selfedit.runs import Run, count_trials_written, open_run, read_trials
from selfedit.tracking import EVERY, check_trackers, reporting, watch
from selfedit.types import Adapter, Exam, Trial

Progress = Callable[[int, int], None]  # trials done, trials in all
Program = Callable[[Recipe, Path, str, Progress], Iterable[str]]  # its folder, device, progress → lines to show
POLL_S = 0.5


def run_experiment(recipe: Recipe, out: Path, device: str = "auto", progress: Progress | None = None) -> Report:
    """Run what is missing of `recipe` in `out` and report on all of it. `progress` hears how many trials are done.

    Raises `ConfigError` for an unknown name in the recipe, `InputError` for data that cannot be used, `ModelError` for
    an unusable model or a server that does not answer, `RunError` for a folder that holds another run or cannot be
    written.
    """
    if recipe.program:
        raise ConfigError(f"{recipe.name!r} is no experiment in arms but a program; give `selfedit run {recipe.name}`")
    for varied in variants(recipe).values():
        check_grader(varied.exam.grader, varied.judge)
        check_reward(varied)
    load_algorithm(recipe.outer)
    check_trackers(recipe.report_to)
    plans, left_out = make_plans(recipe, out)
    for plan in plans:
        check_questions(plan.recipe, plan.train)
    counter = _Counter(progress, sum(plan.n_trials for plan in plans))
    device = find_device(device)
    workers = 1 if device.startswith("cuda") else min(len(plans), os.cpu_count() or 1)
    if workers > 1:
        _run_side_by_side(plans, device, workers, counter)
    else:
        counter.show(sum(len(read_trials(plan.folder)) for plan in plans))
        for plan in plans:
            run_seed(plan, device, counter.one_more)
    return report_on(plans, left_out)


def load_program(recipe: Recipe) -> Program:
    """Return what runs a recipe that is a program of its own. Raises `ConfigError` where there is no such thing."""
    module, _, name = recipe.program.partition(":")
    try:
        program: Program = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"program is {recipe.program!r}; expected a module:function that can be imported") from error
    return program


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


def run_seed(plan: Plan, device: str, on_trial: Callable[[], None]) -> None:
    """Run what is missing of one seed; every event is in the folder before the next begins."""
    engine = open_backend("local", plan.recipe.model, device)
    writers = open_writers(plan.recipe, engine, device)
    recipe = in_header(writers.recipe)
    started = time.monotonic()
    with open_run(plan.folder, recipe, engine.base) as run, reporting(run, recipe):
        grade = open_grader(recipe.exam.grader, recipe.judge, plan.above)
        settings = recipe.sample, recipe.exam, recipe.seed
        refuse_another_reward(plan.folder, plan.recipe)
        lab = Lab(domain_of(recipe), engine, grade, *settings, writers.teacher, writers.begins)
        lab = with_reward(lab, plan.recipe)
        try:
            _refuse_too_long(plan, lab)
            _follow(replace(plan, recipe=recipe), run, lab, on_trial, plan.recipe)
        finally:
            run.metric("time/run_s", time.monotonic() - started, step=len(run.trials()))


def _refuse_too_long(plan: Plan, lab: Lab) -> None:
    """Find passages that the model cannot take in before anything is measured, not in the middle of it.

    With `skip_bad` they stay, as trials that say why they were not measured.
    """
    too_long = []
    for task in [*plan.train, *plan.unseen] if not plan.recipe.skip_bad else []:
        with boundary("encode") as caught:
            lab.engine.encode(lab.domain.without_edit(task).examples, replace(plan.recipe.inner, pad_to=0))
        if caught.failure and caught.failure.kind == InputError.__name__:
            too_long.append(task.id)
    if too_long:
        raise InputError(
            f"{len(too_long)} of the passages are longer than the context of {lab.engine.base}, which holds "
            f"{lab.engine.context} tokens (such as {too_long[0]!r}); cut them, or go on with the others: skip_bad=true"
        )


def _follow(plan: Plan, run: Run, lab: Lab, on_trial: Callable[[], None], reward_of: Recipe) -> None:
    """`reward_of` is the recipe with the path of a reward of the user's own, which the plan names without it."""
    known = Known.resumed(run.trials(), run.drawn(), run.exams())
    for event in experiment(plan.recipe, plan.train, plan.unseen, lab, known, plan.given):
        match event:
            case Exam():
                run.save_exam(event)
            case Wrote(key, samples):
                run.save_samples(key, samples)
            case Trial():
                run.append(event)
                if len(run.trials()) % EVERY == 0:
                    watch(run)
                on_trial()
            case Round():
                _record_round(run, event)
                keep_reward(plan.folder, reward_of)
                if event.label == "train" and event.writer and not event.is_stop:
                    _keep_writer(event.writer, lab, plan.folder / "writers" / f"round-{event.index}")
    watch(run)


def _keep_writer(writer: Adapter, lab: Lab, folder: Path) -> None:
    engine = lab.teacher or lab.engine
    assert isinstance(engine, Backend), "what trained the writer can write it down"
    engine.export(writer, folder)


def _record_round(run: Run, round: Round) -> None:
    name = round.label
    if round.reward is not None:
        run.metric(f"{name}/reward/mean", round.reward, round.index)
    run.metric(f"{name}/edits/kept", round.n_kept, round.index)
    run.metric(f"{name}/failure/trials", round.n_failed, round.index)
    run.metric(f"{name}/groups/all", round.n_groups, round.index)
    run.metric(f"{name}/groups/without-signal", round.n_degenerate, round.index)
    run.metric(f"{name}/failure/rewards", round.n_unrewarded, round.index)
    if round.fit is not None:
        run.metric(f"{name}/reward/fit", round.fit, round.index)


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
