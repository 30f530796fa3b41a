"""Self-distillation as an inner update: the model with the passage in view teaches the same model without it.

SEAL's update is cross-entropy on text that the model wrote with the passage in view. The same model has more to say
about such a text than one token at each place: all the distribution, which can be followed instead (context
distillation), and on any text, the student's own mistakes included (on-policy distillation, arXiv 2306.13649). What is
compared, for each unseen passage from the bare model, in the same number of steps:

    passage               cross-entropy on the bare passage
    implications          cross-entropy on a self-edit's lines and the passage: round-0 of other recipes
    implications, soft    the same texts; on the lines forward KL from the teacher
    answers               cross-entropy on the teacher's answers to the questions of a self-edit
    answers, soft         the same texts, forward KL from the teacher
    on-policy, forward    forward KL from the teacher at answers that the student draws afresh in every round
    on-policy, reverse    reverse KL there
    soft, then on-policy  half of the steps as in "answers, soft", the other half as in "on-policy, reverse"

Three of them are made at half the learning rate, too: who learns less forgets less, whatever the method.

The teacher is the bare model throughout. The gradient is that of the divergence at the tokens drawn, as if they had
been given: how the student's draws change with it is left out, as is usual. A round of on-policy training goes on with
the adapter of the last (`TrainJob.start`, with a new optimizer) at the rate that linear decay over all steps has in the
middle of the round.

    selfedit run world-distil

Axis suffixes: P tasks (passages), Q questions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from selfedit.engine.base import Backend, open_backend
from selfedit.errors import BadEdit, ConfigError, RunError
from selfedit.loop.inner import Measured, examine, is_bad_edit, seed_of
from selfedit.loop.outer import Event, Known, Lab, Wrote, write
from selfedit.loop.probes import Probes
from selfedit.recipe import Recipe
from selfedit.recipes.distil.report import summarise, table
from selfedit.recipes.distil.teaching import Lesson, answered, lines, questions_of, taught, turns
from selfedit.runs import open_run, write_atomic
from selfedit.tasks.base import load_domain
from selfedit.tasks.graders import load_grader
from selfedit.tasks.world import famous_tasks
from selfedit.types import Adapter, Datum, Divergence, Failure, Sample, Task, TrainJob, Trial, mean_rewarded

FAMOUS = 24
NOTHING = Failure("parse", BadEdit.__name__, "the self-edit holds nothing that can be learnt from")
Progress = Callable[[int, int], None]  # inner loops done, in all
Material = Literal["passage", "lines", "answers", "on-policy"]


@dataclass(frozen=True, slots=True)
class Extent:
    """How long every update is: `steps` of one sequence, in so many `rounds` where it is on-policy. `k` tokens of the
    vocabulary are what a teacher names at each position."""

    steps: int = 56
    rounds: int = 14
    k: int = 64


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of an update, by its share of the steps, on one material, at `rate` times the recipe's learning rate;
    without a `divergence` on the text alone."""

    material: Material
    divergence: Divergence | None = None
    share: float = 1.0
    rate: float = 1.0


ARMS: Mapping[str, tuple[Phase, ...]] = {
    "passage": (Phase("passage"),),
    "implications": (Phase("lines"),),
    "implications, soft": (Phase("lines", "forward"),),
    "answers": (Phase("answers"),),
    "answers, soft": (Phase("answers", "forward"),),
    "on-policy, forward": (Phase("on-policy", "forward"),),
    "on-policy, reverse": (Phase("on-policy", "reverse"),),
    "soft, then on-policy": (Phase("answers", "forward", 0.5), Phase("on-policy", "reverse", 0.5)),
    "implications, half rate": (Phase("lines", rate=0.5),),
    "answers, soft, half rate": (Phase("answers", "forward", rate=0.5),),
    "soft, then on-policy, half rate": (
        Phase("answers", "forward", 0.5, rate=0.5),
        Phase("on-policy", "reverse", 0.5, rate=0.5),
    ),
}


@dataclass(frozen=True, slots=True)
class Course:
    """What the updates of a seed share: the passages, a self-edit on each in lines and one in questions."""

    recipe: Recipe
    extent: Extent
    lab: Lab
    tasks_P: Sequence[Task]
    lines_P: Sequence[Sample]
    questions_PQ: Sequence[Sequence[str]]

    @property
    def engine(self) -> Backend:
        return self.lab.engine


def run(recipe: Recipe, out: Path, device: str, progress: Progress, extent: Extent = Extent()) -> Iterator[str]:
    """Run what is missing of every seed in `out`; yield the lines of a report on all of it, `distil.json` in short.

    Raises `ConfigError` for settings that mean nothing here, `RunError` for a folder that holds another run, and where
    something could not be written.
    """
    _check(recipe)
    seeds = [replace(recipe, seed=recipe.seed + i, seeds=1) for i in range(recipe.seeds)]
    folders = [out / f"seed-{each.seed}" for each in seeds]
    done = 0
    total = len(seeds) * len(ARMS) * recipe.eval_tasks

    def on_trial() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    for each, folder in zip(seeds, folders, strict=True):
        run_seed(each, folder, device, extent, on_trial)
    result = summarise(folders, tuple(ARMS))
    write_atomic(out / "distil.json", json.dumps(asdict(result), indent=2) + "\n")
    yield from table(result)


def run_seed(recipe: Recipe, folder: Path, device: str, extent: Extent, on_trial: Callable[[], None]) -> None:
    """Run what is missing of one seed; `on_trial` hears of every update, those of an earlier run at once."""
    engine = open_backend("local", recipe.model, device)
    with open_run(folder, recipe, f"{engine.base}, {extent}") as opened:
        known = Known.resumed(opened.trials(), opened.drawn())
        for _ in known.trials:
            on_trial()
        for event in experiment(recipe, engine, extent, known):
            match event:
                case Wrote(key, samples):
                    opened.save_samples(key, samples)
                case Trial():
                    opened.append(event)
                    on_trial()
            known.note(event)


def _check(recipe: Recipe) -> None:
    """Raise `ConfigError` for a setting of experiments in arms that has no meaning here."""
    plain = Recipe()
    for key in ("domain", "data", "template", "completions", "arms", "together", "writer", "vary", "report_to"):
        if getattr(recipe, key) != getattr(plain, key):
            raise ConfigError(
                f"{key} is {getattr(recipe, key)!r}, which {recipe.name!r} cannot make use of; leave it out"
            )


def experiment(recipe: Recipe, engine: Backend, extent: Extent, known: Known) -> Generator[Event, None, None]:
    """Have both self-edits written on every passage; update on them in each way, and examine what comes of it."""
    domain = load_domain(recipe.domain, recipe.format, recipe.inner, recipe.split_lines)
    asking = load_domain(recipe.domain, "self-qa", recipe.inner, recipe.split_lines)
    exam = load_grader(recipe.exam.grader), recipe.sample, recipe.exam, recipe.seed
    lab = Lab(domain, engine, *exam)
    tasks_P = domain.tasks("eval", recipe.eval_tasks, recipe.seed)
    lines_P = yield from _written("lines", tasks_P, lab, known)
    asked_P = yield from _written("questions", tasks_P, Lab(asking, engine, *exam), known)
    course = Course(recipe, extent, lab, tasks_P, lines_P, [*map(questions_of, tasks_P, asked_P)])
    probes = Probes(("known", "kl"), domain, engine, lab.grade, recipe.exam, recipe.seed, famous_tasks(FAMOUS))
    for arm, phases in ARMS.items():
        if not all(f"{arm}/{task.id}" in known.trials for task in tasks_P):
            yield from (trial for trial in try_arm(course, arm, phases, probes) if trial.key not in known.trials)


def _written(stage: str, tasks_P: Sequence[Task], lab: Lab, known: Known) -> Generator[Event, None, list[Sample]]:
    written_P = yield from write(stage, tasks_P, lab, None, replace(lab.sample, edits=1), known)
    failure = next((each for each in written_P if isinstance(each, Failure)), None)
    if failure:
        raise RunError(f"nothing could be written: {failure.message}; what was measured is kept")
    return [each[0] for each in written_P if not isinstance(each, Failure)]


def try_arm(course: Course, arm: str, phases: Sequence[Phase], probes: Probes) -> list[Trial]:
    """Update on every passage in one way, all at once, and examine what comes of it."""
    recipe, lab, tasks_P = course.recipe, course.lab, course.tasks_P
    started = time.process_time()
    students_P, labels_P = update(course, phases)
    trained = time.process_time()
    seconds = (trained - started) / len(tasks_P)
    ready = {p: each for p, each in enumerate(students_P) if isinstance(each, Adapter)}
    asked = [tasks_P[p] for p in ready]
    exam = lab.domain, lab.engine, lab.grade, recipe.exam
    after = dict(zip(ready, examine(asked, list(ready.values()), *exam), strict=True))
    probed = dict(zip(ready, probes.after(asked, list(ready.values()), None), strict=True))
    before_P = examine(tasks_P, [None] * len(tasks_P), *exam)
    trials = []
    for p, (task, student) in enumerate(zip(tasks_P, students_P, strict=True)):
        found = probed.get(p, Measured())
        failure = student if isinstance(student, Failure) else found.failure
        is_bad = isinstance(student, Failure) and is_bad_edit(student)
        reward = 0.0 if is_bad else mean_rewarded(task.questions, after.get(p, ()))
        trials.append(
            Trial(
                key=f"{arm}/{task.id}",
                task_id=task.id,
                edit=0,
                repeat=0,
                seed=recipe.seed,
                sample=None,
                adapter=ready[p].id if p in ready else None,
                before_Q=before_P[p],
                after_Q=after.get(p, ()),
                reward=reward,
                failure=failure,
                cost={"train_s": seconds},
                baseline=mean_rewarded(task.questions, before_P[p]),
                measures={"labels": float(labels_P[p]), **found.values},
            )
        )
    for adapter in ready.values():
        course.engine.release(adapter)
    return trials


def update(course: Course, phases: Sequence[Phase]) -> tuple[list[Adapter | Failure], list[int]]:
    """Take all steps of an arm on every passage: the students, [P], and how many labels each was trained on, [P]."""
    students_P: list[Adapter | Failure | None] = [None for _ in course.tasks_P]
    labels_P = [0 for _ in course.tasks_P]
    n_done = 0
    for phase in phases:
        for n in _parts(phase, course.extent):
            data_P = material(course, phase, students_P, n, n_done)
            students_P = train(course, phase, students_P, data_P, n_done)
            for p, data in enumerate(data_P):
                labels_P[p] += sum(weight != 0 for datum in data for weight in datum.weights[1:])
            n_done += n
    return [each or NOTHING for each in students_P], labels_P


def material(
    course: Course, phase: Phase, students_P: Sequence[Adapter | Failure | None], n: int, n_done: int
) -> list[tuple[Datum, ...]]:
    """Gather the `n` sequences that the next steps are trained on, [P]; none where a self-edit has nothing to use."""
    engine, seed = course.engine, seed_of(course.recipe.seed, phase.material, n_done)
    lessons_P = _lessons(course, phase.material, students_P, n, seed)
    data_P = [[lesson.datum for lesson in lessons] for lessons in lessons_P]
    if phase.divergence:
        found = iter(taught([lesson for lessons in lessons_P for lesson in lessons], engine, course.extent.k))
        data_P = [[next(found) for _ in lessons] for lessons in lessons_P]
    return [
        turns(data, n, seed_of(seed, task.id)) if data else ()
        for task, data in zip(course.tasks_P, data_P, strict=True)
    ]


def _lessons(
    course: Course, kind: Material, students_P: Sequence[Adapter | Failure | None], n: int, seed: int
) -> list[list[Lesson]]:
    tasks_P, engine, domain = course.tasks_P, course.engine, course.lab.domain
    match kind:
        case "passage":
            return [lines(task, domain.without_edit(task), domain.prompt(task), engine) for task in tasks_P]
        case "lines":
            return [_read(course, task, sample) for task, sample in zip(tasks_P, course.lines_P, strict=True)]
        case "answers":
            return answered(tasks_P, course.questions_PQ, engine, None, seed)
        case "on-policy":
            asked_PQ = [turns(questions, n, seed) for questions in course.questions_PQ]
            now_P = [each if isinstance(each, Adapter) else None for each in students_P]
            return answered(tasks_P, asked_PQ, engine, now_P, seed)


def _read(course: Course, task: Task, sample: Sample) -> list[Lesson]:
    """Read a self-edit's lines; one that cannot be used has none."""
    domain = course.lab.domain
    try:
        return lines(task, domain.parse(task, sample), domain.prompt(task), course.engine)
    except BadEdit:
        return []


def train(
    course: Course,
    phase: Phase,
    students_P: Sequence[Adapter | Failure | None],
    data_P: Sequence[tuple[Datum, ...]],
    n_done: int,
) -> list[Adapter | Failure | None]:
    """Go on with every student that has something to learn, [P]."""
    rate = course.recipe.inner.learning_rate * phase.rate
    settings = replace(course.recipe.inner, epochs=1, learning_rate=rate, divergence=phase.divergence or "forward")
    if phase.material == "on-policy":
        left = 1 - (n_done + max(map(len, data_P)) / 2) / course.extent.steps
        settings = replace(settings, schedule="constant", learning_rate=left * rate)
    learning = [p for p, data in enumerate(data_P) if data and not isinstance(students_P[p], Failure)]
    jobs = []
    for p in learning:
        before, seed = students_P[p], seed_of(course.recipe.seed, "update", course.tasks_P[p].id)
        jobs.append(TrainJob(data_P[p], settings, seed, start=before if isinstance(before, Adapter) else None))
    trained = dict(zip(learning, course.engine.train(jobs), strict=True))
    for p in learning:
        before = students_P[p]
        if isinstance(before, Adapter):
            course.engine.release(before)
    return [trained.get(p, each) for p, each in enumerate(students_P)]


def _parts(phase: Phase, extent: Extent) -> list[int]:
    """Cut a phase's steps into those that have a material of their own."""
    n = round(phase.share * extent.steps)
    return (
        [extent.steps // extent.rounds] * (n * extent.rounds // extent.steps) if phase.material == "on-policy" else [n]
    )
