"""An experiment in arms: what self-editing brings, next to everything that could explain it away.

    base             no update                          passage          trained on the bare passage
    round-0          the untrained writer's self-edits  round-k          the writer's after k rounds of reinforcement
    shuffled-reward  a writer reinforced with the same rewards, dealt to the wrong edits
    random-edits     a writer reinforced on edits picked without looking at rewards

All arms are examined on the same unseen tasks, and the controls spend the same number of inner loops in their rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from selfedit.loop.algorithms import ALGORITHMS, random_edits, shuffled
from selfedit.loop.inner import examine, plan, seed_of
from selfedit.loop.outer import Algorithm, Event, Known, Lab, Round, improve, try_units, write_and_try
from selfedit.types import Adapter, Recipe, Task, Trial, mean_score

CONTROLS = ("shuffled-reward", "random-edits")


def experiment(
    recipe: Recipe, train: Sequence[Task], unseen_P: Sequence[Task], lab: Lab, known: Known
) -> Iterator[Event]:
    """Run every arm that `recipe.arms` names; yield each sample, trial and round as it comes, noted in `known`."""
    for event in _arms(recipe, train, unseen_P, lab, known):
        known.note(event)
        yield event


def _arms(recipe: Recipe, train: Sequence[Task], unseen_P: Sequence[Task], lab: Lab, known: Known) -> Iterator[Event]:
    if "base" in recipe.arms:
        yield from _base_trials(unseen_P, lab, known)
    if "passage" in recipe.arms:
        units = plan(unseen_P, [None] * len(unseen_P), "passage", recipe.eval_repeats, lab.seed)
        yield from try_units(units, lab, None, known)
    if "rounds" in recipe.arms:
        yield from _measure("round-0", unseen_P, recipe, lab, None, known)
        for event in improve("train", train, lab, _algorithm(recipe), recipe.outer, known):
            yield event
            if isinstance(event, Round):
                yield from _measure(f"round-{event.index}", unseen_P, recipe, lab, event.writer, known)
    for control in CONTROLS:
        if control in recipe.arms:
            writer: Adapter | None = None
            for event in improve(control, train, lab, _control(control, recipe), recipe.outer, known):
                yield event
                writer = event.writer if isinstance(event, Round) else writer
            yield from _measure(control, unseen_P, recipe, lab, writer, known)


def arm_names(recipe: Recipe) -> list[str]:
    """Return the arms of a recipe by the names that head their trials' keys, in the order of a report."""
    names = {"rounds": [f"round-{i}" for i in range(recipe.outer.rounds + 1)]}
    in_order = [arm for arm in ("base", "passage", "rounds", *CONTROLS) if arm in recipe.arms]
    return [name for arm in in_order for name in names.get(arm, [arm])]


def count_trials(recipe: Recipe, n_train: int, n_unseen: int) -> int:
    """Return how many trials `experiment` will run in all."""
    examined = n_unseen * recipe.eval_repeats
    a_round = min(recipe.outer.tasks, n_train) * recipe.sample.edits * recipe.outer.repeats
    trainings = [arm for arm in ("rounds", *CONTROLS) if arm in recipe.arms]
    shared, own = min(recipe.outer.rounds, 1), max(recipe.outer.rounds - 1, 0)
    once = (
        n_unseen * ("base" in recipe.arms) + examined * ("passage" in recipe.arms) + a_round * shared * bool(trainings)
    )
    writers = (recipe.outer.rounds + 1) * ("rounds" in recipe.arms) + sum(arm in CONTROLS for arm in trainings)
    return once + examined * writers + a_round * own * len(trainings)


def _algorithm(recipe: Recipe) -> Algorithm:
    reinforce = ALGORITHMS[recipe.outer.algorithm]
    return lambda groups_PG: reinforce(groups_PG, recipe.outer.select)


def _control(name: str, recipe: Recipe) -> Algorithm:
    seed = seed_of(recipe.seed, name)
    return shuffled(_algorithm(recipe), seed) if name == "shuffled-reward" else random_edits(seed)


def _measure(
    arm: str, unseen_P: Sequence[Task], recipe: Recipe, lab: Lab, writer: Adapter | None, known: Known
) -> Iterator[Event]:
    """Examine one writer on unseen tasks, each time with one self-edit of its own."""
    learner = writer if recipe.outer.learner == "writer" else None
    one_edit = replace(recipe.sample, edits=recipe.eval_repeats)
    yield from write_and_try(arm, unseen_P, lab, writer, learner, 1, one_edit, known)


def _base_trials(unseen_P: Sequence[Task], lab: Lab, known: Known) -> Iterator[Trial]:
    units = plan(unseen_P, [None] * len(unseen_P), "base", 1, lab.seed)
    missing = [unit for unit in units if unit.key not in known.trials]
    marks = examine([u.task for u in missing], [None] * len(missing), lab.domain, lab.engine, lab.grade, lab.exam)
    for unit, scores in zip(missing, marks, strict=True):
        yield Trial(unit.key, unit.task.id, 0, 0, unit.seed, None, None, scores, scores, mean_score(scores), None)
