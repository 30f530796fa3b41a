"""What pup-grid is trained on: tasks of grids with their demonstrations in view, and requests for a choice.

A document is a list of (text, loss weight) pieces, as pup's. Reading is taught on neighbours of the examined families
(`neighbours`) and, in the share `EXAMINED`, on these themselves. What pup-grid chooses when asked how to practise says
nothing about the task: every augmentation is on in half of the choices, both strategies are equally frequent, learning
rate and epochs come evenly off a menu from the useless to the harmful, and a part cannot be used (`PRIOR`). That prior
is declared here, and in the model card, before any reinforcement learning is measured, and was not tuned to it: what
makes a choice good, and for which task, is for the outer loop to find out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from random import Random

from selfedit.recipes.pup.corpus import END, Document
from selfedit.recipes.pup_grid.neighbours import NEIGHBOURS, TWO_RULES, draw_task
from selfedit.tasks.arc import STRATEGIES, Grids, ask, demonstrations_of, over_source, write_choice
from selfedit.tasks.arc_augment import AUGMENTERS, TOOLS
from selfedit.tasks.arc_grids import Grid, Pair, parse_grid, recolour, write_grid
from selfedit.tasks.arc_world import FAMILIES, LARGEST, Family, draw_grid, fresh_tasks, split_of
from selfedit.types import Task, TrainSettings

RATES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
EPOCHS = (1, 2, 3, 5, 10)
PRIOR: Mapping[str, float] = {
    "usable": 0.95,
    "cut off": 0.02,
    "unknown strategy": 0.01,
    "one key missing": 0.01,
    "no epochs": 0.01,
}
EXAMINED, COMPOSED = 0.1, 0.2  # shares of the tasks: of the examined families, of two rules in turn

_GIVEN, _FIRST = 0.05, 0.2  # loss weights: inputs are drawn at random, and the first output shows the rule


_ECHO = FAMILIES[0]  # for the look of its grids


def draw_family(rng: Random) -> Family:
    """Draw the family of a task: mostly one neighbour as often as another."""
    lot = rng.random()
    if lot < EXAMINED:
        return rng.choice(FAMILIES)
    return TWO_RULES if lot < EXAMINED + COMPOSED else rng.choice(NEIGHBOURS)


def echoing(rng: Random, mixture: Mapping[str, float]) -> Document:
    """Grids and the same grids again, now and then in other colours: which cell of an input is at a cell of an output.

    That is the head that every other rule needs first, and a plain copy of the last few tokens is none: few colours
    make most contexts of a cell alike.
    """
    largest = rng.randint(2, LARGEST)
    given = [draw_grid(replace(_ECHO, largest=largest), rng) for _ in range(rng.randint(4, 5))]
    table = bytes(rng.sample(range(10), 10)) + bytes(246) if rng.random() < 1 / 3 else bytes(range(256))
    pairs = [Pair(grid, recolour(grid, table)) for grid in given if split_of(grid) == "train"]
    return told(pairs) if pairs else echoing(rng, mixture)


def reading(rng: Random, mixture: Mapping[str, float]) -> Document:
    """A task as it is examined. Its demonstrations' outputs are learnt too: those before are in view."""
    return told(_pairs(draw_task(rng, draw_family(rng))))


def reading_large(rng: Random, mixture: Mapping[str, float]) -> Document:
    """The same with all grids enlarged or repeated, as in practice: so far into the context reaches nothing else."""
    change = rng.choice([augmenter for tool in ("size", "repeat") for augmenter in AUGMENTERS[tool]]).do
    return told([Pair(change(pair.input), change(pair.output)) for pair in _pairs(draw_task(rng, draw_family(rng)))])


def choosing(rng: Random, mixture: Mapping[str, float]) -> Document:
    """A request for a choice and a choice that the task has no say in."""
    return [(_domain().prompt(draw_task(rng, draw_family(rng))), 0.0), (draw_choice(rng, mixture) + END, 1.0)]


def draw_choice(rng: Random, mixture: Mapping[str, float]) -> str:
    """Draw what is written for a choice; `mixture` is as `PRIOR`."""
    kind = rng.choices(list(mixture), list(mixture.values()))[0]
    tools = [tool for tool in TOOLS if rng.random() < 1 / 2]
    text = write_choice(tools, rng.choice(list(STRATEGIES)), rng.choice(RATES), rng.choice(EPOCHS))
    return _spoilt(kind, text, rng)


def _spoilt(kind: str, text: str, rng: Random) -> str:
    choice = json.loads(text)
    if kind == "cut off":
        return text[: rng.randrange(len(text) // 2, len(text))]
    if kind == "unknown strategy":
        choice["training"]["strategy"] = "train_using_input_tokens"
    if kind == "one key missing":
        table = choice[rng.choice(list(choice))]
        del table[rng.choice(list(table))]
    if kind == "no epochs":
        choice["training"]["num_train_epochs"] = 0
    return json.dumps(choice)


@cache
def _domain() -> Grids:
    return over_source(fresh_tasks, "tools", TrainSettings())


def _pairs(task: Task) -> list[Pair]:
    return [*demonstrations_of(task), *(Pair(parse_grid(q.question), parse_grid(q.answer)) for q in task.questions)]


def told(pairs: list[Pair]) -> Document:
    """Word demonstrations and the asked pair in pieces, so that their outputs can weigh more than their inputs."""
    document: Document = []
    for number, (given, made) in enumerate(pairs):
        document += [(ask((), given), _GIVEN), (write_grid(made), _weight(number)), ("\n\n", _GIVEN)]
    return [*document[:-1], (END, 1.0)]


def _weight(number: int) -> float:
    return 1.0 if number else _FIRST


def inputs_of(document: Document) -> list[Grid]:
    """Read the inputs of a document of `reading` back."""
    return [parse_grid(text) for text, _ in document if text.startswith("Input:")]
