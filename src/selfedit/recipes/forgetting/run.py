"""Does reinforcing a writer make it forget less than teaching it, at equal gain?

SEAL's authors ask what their model forgets (arXiv 2506.10943, section 6). That reinforcement forgets less than
imitation, since it learns from what the model itself draws, is the claim of "RL's Razor" (arXiv 2509.04259). Here the
task learnt is to write self-edits that teach, and five ways to learn it are compared, all LoRAs of one rank and rate.

Two are reinforced as in world-rounds and world-grpo, to the last key: what was run there need not be run again. ReST-EM
imitates the best of five self-edits, GRPO weighs all five, and each round's are drawn afresh. Two are taught: they
imitate somebody else's self-edits (`teachers.py`) on the passages of the first round, for several numbers of epochs,
and need no inner loop. "own-best" differs from those in nothing but the text: it imitates, for as many epochs, what
ReST-EM keeps of the untrained writer's own self-edits on these passages.

On unseen passages each writer writes one self-edit, of which the learner learns; what that brings over the untrained
writer's is its gain. What it has forgotten is measured in `measure.py`.

    OUT/rest_em, OUT/grpo    experiments, with their writers after every round
    OUT/taught               the taught writers with their trials, and the measures of all writers as metrics

    selfedit run world-forgetting

Axis suffixes: P tasks (passages).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from selfedit.config import variants, varied_key
from selfedit.engine.base import open_backend
from selfedit.errors import ConfigError, RunError
from selfedit.experiment.plans import Plan, domain_of, make_plans
from selfedit.experiment.run import run_experiment
from selfedit.loop.algorithms import load_algorithm
from selfedit.loop.inner import seed_of
from selfedit.loop.outer import FIRST, Event, Known, Lab, Wrote, write_and_try
from selfedit.loop.rewards import load_reward
from selfedit.loop.rollouts import group
from selfedit.recipe import Recipe
from selfedit.recipes.forgetting.measure import MEASURES, Memory, remember
from selfedit.recipes.forgetting.page import page
from selfedit.recipes.forgetting.report import MEASURED, Way, is_there, summarise, table
from selfedit.recipes.forgetting.teachers import TEACHERS, taught
from selfedit.runs import Run, open_run, read_metrics, read_trials, write_atomic
from selfedit.tasks.graders import load_grader
from selfedit.types import Adapter, Datum, Failure, OuterSettings, Task, TrainJob, TrainSettings, Trial

OWN = "own-best"
BY_EPOCHS = (OWN, *TEACHERS)
AMOUNT = "outer.train.epochs"  # what the recipe varies: how long writers are taught

Progress = Callable[[int, int], None]  # inner loops done, in all


@dataclass(slots=True)
class Bench:
    """What all of a seed's writers share. The base is remembered when a writer is first measured against it."""

    plan: Plan
    lab: Lab
    run: Run
    known: Known
    on_trial: Callable[[], None]
    _memory: Memory | None = None

    def measure(self, way: str, amount: int, writer: Callable[[], Adapter]) -> None:
        """Write down what a writer has forgotten, unless that was done."""
        noted = {(metric.name, metric.step) for metric in read_metrics(self.run.folder)}
        if all((f"{way}/{name}", amount) in noted for name in MEASURES):
            return
        if not self._memory:
            lab = self.lab
            self._memory = remember(lab.engine, lab.domain, lab.grade, self.plan.recipe, self.plan.unseen)
        for name, value in self._memory.of(writer()).items():
            if value is not None:
                self.run.metric(f"{way}/{name}", value, amount)

    def drive(self, events: Generator[Event, None, list[Trial]]) -> None:
        """Write down what happens."""
        for event in events:
            match event:
                case Wrote(key, samples):
                    self.run.save_samples(key, samples)
                case Trial():
                    self.run.append(event)
                    self.on_trial()
            self.known.note(event)


def run(recipe: Recipe, out: Path, device: str, progress: Progress) -> Iterator[str]:
    """Run what is missing of every seed in `out`; yield the lines of a report on all of it, `report.json` and
    `report.html` in short.

    Raises `ConfigError` for settings that mean nothing here, `RunError` for a folder that holds another run, and where
    a writer could not be trained.
    """
    epochs = _epochs(recipe)
    experiments = reinforced(recipe)
    plans = {name: make_plans(each, out / name)[0] for name, each in experiments.items()}
    sizes = {name: sum(plan.n_trials for plan in each) for name, each in plans.items()}
    n_taught = recipe.seeds * len(BY_EPOCHS) * len(epochs) * recipe.eval_tasks
    done, total = 0, sum(sizes.values()) + n_taught

    def on_trial() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    for name, each in experiments.items():
        if not all(is_there(plan.folder, plan.unseen, recipe.outer.rounds) for plan in plans[name]):
            before = done
            run_experiment(each, out / name, device, lambda of_it, _: progress(before + of_it, total))  # noqa: B023
        _check_reinforced(name, plans[name])
        done += sizes[name]
    for plan in plans["rest_em"]:
        run_seed(plan, out, device, epochs, on_trial)
    rounds = tuple(range(1, recipe.outer.rounds + 1))
    ways = [Way(name, name, "round-{}", rounds) for name in experiments]
    ways += [Way(name, MEASURED, f"{name}-{{}}", epochs) for name in BY_EPOCHS]
    result = summarise(out, ways, {plan.folder.name: [task.id for task in plan.unseen] for plan in plans["rest_em"]})
    write_atomic(out / "report.json", json.dumps(asdict(result), indent=2) + "\n")
    write_atomic(out / "report.html", page(result))
    yield from table(result)


def _check_reinforced(name: str, plans: Sequence[Plan]) -> None:
    """Raise `RunError` where a seed has a round without a writer: its rewards told nothing."""
    for plan in plans:
        if not is_there(plan.folder, plan.unseen, plan.recipe.outer.rounds):
            raise RunError(
                f"{name} found nothing worth reinforcing in {plan.folder.name}; start in another folder, with more "
                "outer.tasks or sample.edits"
            )


def reinforced(recipe: Recipe) -> dict[str, Recipe]:
    """Return the experiments that reinforce: the recipe with ReST-EM, and with GRPO as it was tuned for world-grpo.

    That takes half of the epochs, each in as many steps, since there are as many times more sequences as self-edits of
    a passage.
    """
    plain, outer = replace(recipe, program="", vary={}), recipe.outer
    train = replace(
        outer.train,
        epochs=max(1, outer.train.epochs // 2),
        batch_size=outer.train.batch_size * recipe.sample.edits,
    )
    grpo = replace(outer, algorithm="grpo", select=OuterSettings().select, train=train)
    return {"rest_em": plain, "grpo": replace(plain, outer=grpo)}


def _epochs(recipe: Recipe) -> tuple[int, ...]:
    """Read how long writers are taught. Raises `ConfigError` for a recipe without it, or with what is of no use."""
    if varied_key(recipe) != AMOUNT:
        raise ConfigError(f"this recipe compares amounts of training; name several in vary.{AMOUNT}, such as [1, 3]")
    plain = replace(Recipe(), arms=("rounds",))
    for key in ("domain", "data", "template", "completions", "arms", "together", "writer", "report_to", "eval_repeats"):
        if getattr(recipe, key) != getattr(plain, key):
            raise ConfigError(
                f"{key} is {getattr(recipe, key)!r} where {recipe.name!r} needs {getattr(plain, key)!r}; leave it so"
            )
    return tuple(sorted(each.outer.train.epochs for each in variants(recipe).values()))


def run_seed(plan: Plan, out: Path, device: str, epochs: Sequence[int], on_trial: Callable[[], None]) -> None:
    """Teach and examine what is missing of one seed, and measure all of its writers; `on_trial` hears of every inner
    loop, those of an earlier run at once."""
    engine, recipe, seed = open_backend("local", plan.recipe.model, device), plan.recipe, plan.folder.name
    lab = Lab(domain_of(recipe), engine, load_grader(recipe.exam.grader), recipe.sample, recipe.exam, recipe.seed)
    started = time.process_time()
    with open_run(out / MEASURED / seed, recipe, engine.base) as opened:
        bench = Bench(plan, lab, opened, Known.resumed(opened.trials(), opened.drawn()), on_trial)
        for _ in bench.known.trials:
            on_trial()
        for name in reinforced(recipe):
            for index in range(1, recipe.outer.rounds + 1):
                folder = out / name / seed / "writers" / f"round-{index}"
                bench.measure(name, index, lambda: engine.load(folder))  # noqa: B023
        for name in BY_EPOCHS:
            for amount in epochs:
                writer = teach(bench, name, amount)
                write_one_each(bench, f"{name}-{amount}", writer)
                bench.measure(name, amount, lambda: writer)  # noqa: B023
        opened.metric("time/processor_s", time.process_time() - started, step=len(opened.trials()))


def teach(bench: Bench, name: str, epochs: int) -> Adapter:
    """Have a writer imitate a teacher on the passages of the first round, unless that was done; take it from its folder
    in any case, so that a run that was killed goes on with the same one to the last digit."""
    folder = bench.run.folder / "writers" / f"{name}-{epochs}"
    if not folder.exists():
        trained = train_taught(bench, name, epochs)
        bench.lab.engine.export(trained, folder)
        bench.lab.engine.release(trained)
    return bench.lab.engine.load(folder)


def train_taught(bench: Bench, name: str, epochs: int) -> Adapter:
    """Train on one self-edit for each passage of the first round. Raises `RunError` where that fails."""
    lab, recipe, stage = bench.lab, bench.plan.recipe, f"{name}-{epochs}"
    settings: TrainSettings = replace(recipe.outer.train, epochs=epochs)
    tasks_P = bench.plan.train[: recipe.outer.tasks]
    if name == OWN:
        data = kept(bench.plan, tasks_P)
    else:
        data = taught(TEACHERS[name], tasks_P, lab.domain, lab.engine, settings)
    (writer,) = lab.engine.train([TrainJob(tuple(data), settings, seed_of(recipe.seed, "taught", stage))])
    if isinstance(writer, Failure):
        raise RunError(f"the writer {stage} could not be trained: {writer.message}; what was measured is kept")
    return writer


def kept(plan: Plan, tasks_P: Sequence[Task]) -> list[Datum]:
    """Read what ReST-EM keeps of the first round from its ledger."""
    trials = [trial for key, trial in read_trials(plan.folder).items() if key.startswith(f"{FIRST}/")]
    return load_algorithm(plan.recipe.outer)(group(trials, tasks_P, load_reward(plan.recipe.outer)))


def write_one_each(bench: Bench, stage: str, writer: Adapter) -> None:
    """Have a writer write on every unseen passage, and the base learn from it."""
    sample = replace(bench.lab.sample, edits=1)
    bench.drive(write_and_try(stage, bench.plan.unseen, bench.lab, writer, None, 1, sample, bench.known))
