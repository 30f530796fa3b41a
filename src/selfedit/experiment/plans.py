"""Plans: what a recipe comes to before anything is run, a `Plan` for every seed of every variant.

A seed is a run folder of its own (`OUT/seed-0`), which can be killed and started again. A recipe that varies a key has
a folder above them for each of its values (`OUT/self-qa/seed-0`); arms which the key cannot change are in the first
variant alone and stand for all.

    plans, left_out = make_plans(load_recipe("world-prompts"), Path("runs/world-prompts"))
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from selfedit.config import variants, varied_key
from selfedit.errors import InputError
from selfedit.experiment.material import Material, give, read_material
from selfedit.loop.arms import CONTROLS, OPEN_BOOK, Given, count_trials
from selfedit.recipe import Recipe
from selfedit.tasks.base import Domain, load_domain
from selfedit.types import Task

FOR_THE_WRITER = ("format", "template", "menu", "writer", "outer")  # keys that say what is written, and by whom
NOTHING_WRITTEN = ("base", "passage", *OPEN_BOOK)
MOST_DOUBLINGS = 6  # of a draw from a domain that may be endless: a kind rarer than one task in 32 is not found


@dataclass(frozen=True, slots=True)
class Plan:
    """One seed of one variant ("" where nothing varies): its recipe, its run folder, the tasks its writer learns from,
    the unseen ones it is examined on, and what arms need for those from outside."""

    recipe: Recipe
    folder: Path
    train: list[Task]
    unseen: list[Task]
    given: Given = field(default_factory=Given)
    variant: str = ""

    @property
    def above(self) -> Path:
        """The folder of the whole experiment, with all its variants and seeds."""
        return self.folder.parents[1 if self.variant else 0]

    @property
    def n_trials(self) -> int:
        return count_trials(self.recipe, len(self.train), len(self.unseen))


def make_plans(recipe: Recipe, out: Path) -> tuple[list[Plan], tuple[str, ...]]:
    """Plan every seed of every variant; return with them a sentence for everything that was left out of the files.

    Raises `ConfigError` for a recipe that needs a file and names none, `InputError` for files that cannot be used.
    """
    key = varied_key(recipe)
    plans: list[Plan] = []
    left_out: tuple[str, ...] = ()
    for variant, varied in variants(recipe).items():
        folder = out / variant.replace(" ", "-") if variant else out
        named, material = read_material(_without_repetition(varied, key) if plans else varied)
        seeds = [replace(named, seed=named.seed + i, seeds=1) for i in range(named.seeds)]
        plans += [replace(make_plan(seed, folder, material), variant=variant) for seed in seeds]
        left_out = tuple(dict.fromkeys((*left_out, *material.left_out)))
    return plans, left_out


def _without_repetition(recipe: Recipe, key: str) -> Recipe:
    """Leave out the arms that the first variant has measured for all."""
    if key.partition(".")[0] not in FOR_THE_WRITER:
        return recipe
    return replace(recipe, arms=tuple(arm for arm in recipe.arms if arm not in NOTHING_WRITTEN))


def make_plan(recipe: Recipe, out: Path, material: Material | None = None) -> Plan:
    """Draw one seed's tasks: fresh ones for every round, unseen ones for the examination.

    Raises `InputError` where the material has too few tasks, or too few completions for them.
    """
    material = material or Material()
    domain = domain_of(recipe, material)
    n_train = recipe.outer.tasks * recipe.outer.rounds if {"rounds", *CONTROLS} & set(recipe.arms) else 0
    train = _of_kinds(domain, n_train, recipe)
    unseen = domain.tasks("eval", recipe.eval_tasks, recipe.seed)
    if len({task.id for task in [*train, *unseen]}) < n_train + recipe.eval_tasks:
        kinds = f" of the kinds {', '.join(recipe.outer.kinds)}" if recipe.outer.kinds else ""
        held = f"{recipe.data} holds {len(material.tasks)}" if recipe.data else f"{recipe.domain!r} has too few"
        raise InputError(
            f"{held} tasks to examine and learn from, and the recipe asks for {recipe.eval_tasks} unseen ones and "
            f"{n_train} to learn from{kinds}; lower eval_tasks, outer.tasks or outer.rounds, or name other outer.kinds"
        )
    return Plan(recipe, out / f"seed-{recipe.seed}", train, unseen, give(material, recipe, domain, unseen))


def domain_of(recipe: Recipe, material: Material | None = None) -> Domain:
    """Return the recipe's domain over the tasks of the material, if it needs any."""
    documents = material.tasks if material else ()
    return load_domain(
        recipe.domain, recipe.format, recipe.inner, recipe.split_lines, recipe.template, documents, recipe.menu
    )


def _of_kinds(domain: Domain, n: int, recipe: Recipe) -> list[Task]:
    """Draw `n` tasks for the writer's rounds, of the recipe's kinds alone; fewer where the domain has no more."""
    if not recipe.outer.kinds:
        return domain.tasks("train", n, recipe.seed)
    wanted: list[Task] = []
    for drawn in (n << doublings for doublings in range(MOST_DOUBLINGS)):
        tasks = domain.tasks("train", drawn, recipe.seed)
        wanted = [task for task in tasks if task.meta.get("kind") in recipe.outer.kinds]
        if len(wanted) >= n or len(tasks) < drawn:
            break
    return wanted[:n]
