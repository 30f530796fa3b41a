"""Teach a writer how settings lines look, and nothing of which are good.

A model that has never written such a line could not be reinforced for a good one: all its self-edits would be unusable.
So it imitates self-edits of its own, each with a choice off the menu under it. All choices are dealt equally often, in
an order drawn at random: imitation says nothing for any of them. What cuts off before its end is left out.

    folder = teach(load_recipe("world-settings"), Path("runs/world-settings/warm/seed-0"), "cpu")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random

from selfedit.engine.base import open_backend
from selfedit.errors import RunError
from selfedit.experiment.plans import domain_of
from selfedit.loop.inner import propose, seed_of
from selfedit.recipe import Recipe
from selfedit.tasks.settings import without_settings, write_settings
from selfedit.types import Example, Failure, MenuSettings, Sample, Task, TrainJob

SPLIT = "examples"  # of the world's entities, whose names no other split has
OF_EACH = 6  # self-edits for each choice off the menu
EPOCHS = 4


@dataclass(frozen=True, slots=True)
class Choice:
    """A learning rate and a number of epochs off the menu."""

    learning_rate: float
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.learning_rate:g} x {self.epochs}"

    def under(self, text: str) -> str:
        """Put this choice in the place of any that stands under a self-edit."""
        return f"{without_settings(text).rstrip()}\n{write_settings(self.learning_rate, self.epochs)}"


def choices(menu: MenuSettings) -> list[Choice]:
    """List what a menu offers."""
    return [Choice(rate, epochs) for rate, epochs in product(menu.learning_rates, menu.epochs)]


def teach(recipe: Recipe, folder: Path, device: str) -> Path:
    """Train a seed's writer to write settings lines, unless its adapter is in `folder` already; return the folder.

    Raises `RunError` where the model could not write or be trained.
    """
    if folder.exists():
        return folder
    engine = open_backend("local", recipe.model, device)
    unasked, asked = domain_of(replace(recipe, menu=MenuSettings())), domain_of(recipe)
    tasks = asked.tasks(SPLIT, OF_EACH * len(choices(recipe.menu)), recipe.seed)
    sample = replace(recipe.sample, edits=1)
    written_P = propose(tasks, unasked, None, engine, sample, seed_of(recipe.seed, "warm"))
    drawn = [(task, each) for task, written in zip(tasks, written_P, strict=True) for each in _whole(written)]
    dealt = deal(drawn, choices(recipe.menu), seed_of(recipe.seed, "deal"))
    settings = replace(recipe.outer.train, epochs=EPOCHS)
    data = engine.encode([Example(text, asked.prompt(task)) for task, text in dealt], settings)
    (adapter,) = engine.train([TrainJob(data, settings, seed_of(recipe.seed, "teach"))])
    if isinstance(adapter, Failure):
        raise RunError(f"the writer could not be taught settings lines: {adapter.message}")
    return engine.export(adapter, folder)


def _whole(written: Sequence[Sample] | Failure) -> list[Sample]:
    """Keep the self-edits that were written to their end."""
    if isinstance(written, Failure):
        raise RunError(f"nothing could be written to teach settings lines with: {written.message}")
    return [sample for sample in written if sample.stop == "eos"]


def deal(drawn: Sequence[tuple[Task, Sample]], offered: Sequence[Choice], seed: int) -> list[tuple[Task, str]]:
    """Put a choice under every self-edit: each as often as any other, give or take one, in a drawn order."""
    rng = Random(seed)
    hands = [choice for _ in range(0, len(drawn), len(offered)) for choice in rng.sample(offered, len(offered))]
    return [(task, choice.under(sample.text)) for (task, sample), choice in zip(drawn, hands, strict=False)]
