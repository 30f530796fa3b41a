"""An experiment in arms: what self-editing brings, next to everything that could explain it away.

    base             no update                          passage          trained on the bare passage
    completions      self-edits from a file, by another model or by hand
    round-0          the writer's self-edits            round-k          the writer's after k rounds of reinforcement
    retrieval        no update, the passage that a search found in view
    in-context       no update, the right passage in view: what there is to be known
    shuffled-reward  a writer reinforced with the same rewards, dealt to the wrong edits
    random-edits     a writer reinforced on edits picked without looking at rewards
    weak             more self-edits where exams of the model's own find most wrong, round by round (`loop.weak`)
    even             as many, spread evenly

All arms are examined on the same unseen tasks, and the controls spend the same number of inner loops in their rounds.
An update is a task's own, or with `together` one for as many tasks in a row, trained on several self-edits of each: how
much text can an adapter take (arXiv 2506.10943, section 4.1, "continued pretraining")? The writer's own rounds are of
single tasks either way, since a reward has to be somebody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from selfedit.loop.algorithms import Algorithm, load_algorithm, random_edits, shuffled
from selfedit.loop.exams import fix_exams, refuse_without
from selfedit.loop.inner import Unit, Written, examine_untrained, plan, plan_together, seed_of
from selfedit.loop.outer import Event, Known, Lab, Round, improve, learner_of, n_tried, try_units, write
from selfedit.loop.racing import count_loops
from selfedit.loop.rewards import REWARDS
from selfedit.loop.weak import SPREADS, count_at_most, study
from selfedit.recipe import Recipe
from selfedit.types import Adapter, Task

OPEN_BOOK = ("retrieval", "in-context")
CONTROLS = ("shuffled-reward", "random-edits")


@dataclass(frozen=True, slots=True)
class Given:
    """What some arms need from outside, by the id of an unseen task: its `n_completions` self-edits for "completions",
    a Failure where there are none, and the task whose passage "retrieval" shows at each of its questions, [Q]."""

    completions: Mapping[str, Written] = field(default_factory=dict)
    found: Mapping[str, Sequence[Task]] = field(default_factory=dict)


def experiment(
    recipe: Recipe, train: Sequence[Task], unseen_P: Sequence[Task], lab: Lab, known: Known, given: Given | None = None
) -> Iterator[Event]:
    """Run every arm that `recipe.arms` names; yield each sample, trial and round as it comes, noted in `known`.

    Where the model writes its own exams, they come first. Raises `InputError` where none of them has a question.
    """
    for event in _examined_arms(recipe, train, unseen_P, lab, known, given or Given()):
        known.note(event)
        yield event


def _examined_arms(
    recipe: Recipe, train: Sequence[Task], unseen_P: Sequence[Task], lab: Lab, known: Known, given: Given
) -> Iterator[Event]:
    """Fix the exams before anything is written: all that the writer learns from, and the unseen tasks without one."""
    corpus_P = unseen_P
    if recipe.exam.questions == "self-made":
        train = yield from fix_exams(train, lab, known)
        refuse_without(train, known.exams)
        unasked = [task for task in unseen_P if not any(question.role == "exam" for question in task.questions)]
        asked = yield from fix_exams(unasked, lab, known)
        refuse_without(unasked, known.exams)
        own = {task.id: task for task in asked}
        unseen_P = [own.get(task.id, task) for task in unseen_P]
    yield from _arms(recipe, train, unseen_P, lab, known, given)
    if spreads := [spread for spread in SPREADS if spread in recipe.arms]:
        corpus_P = yield from fix_exams(corpus_P, lab, known)
        refuse_without(corpus_P, known.exams)
        yield from study(spreads, corpus_P, recipe, lab, known)


def _arms(
    recipe: Recipe, train: Sequence[Task], unseen_P: Sequence[Task], lab: Lab, known: Known, given: Given
) -> Iterator[Event]:
    if "base" in recipe.arms:
        yield from _untrained("base", unseen_P, lab, known)
    if "passage" in recipe.arms:
        yield from _update("passage", unseen_P, [None] * len(unseen_P), recipe, lab, None, known)
    if "completions" in recipe.arms:
        written_P = [given.completions[task.id] for task in unseen_P]
        yield from _update("completions", unseen_P, written_P, recipe, lab, None, known)
    n_rounds = recipe.outer.rounds
    if "rounds" in recipe.arms:
        yield from _measure("round-0", unseen_P, recipe, lab, lab.begins, known)
        for event in improve("train", train, lab, load_algorithm(recipe.outer), recipe.outer, known):
            yield event
            if isinstance(event, Round) and event.is_stop:
                n_rounds = event.index - 1
            elif isinstance(event, Round):
                yield from _measure(f"round-{event.index}", unseen_P, recipe, lab, event.writer, known)
    if "retrieval" in recipe.arms:
        yield from _untrained("retrieval", unseen_P, lab, known, given.found)
    if "in-context" in recipe.arms:
        right = {task.id: [task] * len(task.questions) for task in unseen_P}
        yield from _untrained("in-context", unseen_P, lab, known, right)
    for control in CONTROLS:
        if control in recipe.arms:
            writer = lab.begins
            outer = replace(recipe.outer, rounds=n_rounds, patience=0)  # as many as the treated writer
            for event in improve(control, train, lab, _control(control, recipe), outer, known):
                yield event
                writer = event.writer if isinstance(event, Round) else writer
            yield from _measure(control, unseen_P, recipe, lab, writer, known)


def arm_names(recipe: Recipe) -> list[str]:
    """Return the arms of a recipe by the names that head their trials' keys, in the order of a report."""
    names = {"rounds": [f"round-{i}" for i in range(recipe.outer.rounds + 1)]}
    order = ("base", "passage", "completions", "rounds", *OPEN_BOOK, *CONTROLS)
    in_order = [arm for arm in order if arm in recipe.arms]
    return [name for arm in in_order for name in names.get(arm, [arm])]


def n_completions(recipe: Recipe) -> int:
    """Return how many self-edits of each unseen task its updates take in all."""
    return recipe.eval_repeats * (recipe.sample.edits if recipe.together > 1 else 1)


def count_trials(recipe: Recipe, n_train: int, n_unseen: int) -> int:
    """Return how many trials `experiment` will run in all; with `outer.patience`, and of a whole corpus, at most."""
    examined = n_unseen * recipe.eval_repeats
    tasks = min(recipe.outer.tasks, n_train)
    first, later = tasks * _trials_of_a_task(recipe, 1), tasks * _trials_of_a_task(recipe, 2)
    trainings = [arm for arm in ("rounds", *CONTROLS) if arm in recipe.arms]
    shared, own = min(recipe.outer.rounds, 1), max(recipe.outer.rounds - 1, 0)
    untrained = sum(arm in recipe.arms for arm in ("base", *OPEN_BOOK))
    updated = sum(arm in recipe.arms for arm in ("passage", "completions"))
    once = n_unseen * untrained + examined * updated + first * shared * bool(trainings)
    writers = (recipe.outer.rounds + 1) * ("rounds" in recipe.arms) + sum(arm in CONTROLS for arm in trainings)
    return once + examined * writers + later * own * len(trainings) + count_at_most(recipe, n_unseen)


def _trials_of_a_task(recipe: Recipe, round: int) -> int:
    """Count the inner loops that a task of a round takes; a race and some rewards spare some of them, or take none."""
    race = recipe.outer.race
    if race.by:
        return count_loops(recipe.sample.edits, recipe.outer.repeats, race.keep, race.by == "learnt" and round > 1)
    kind = REWARDS.get(recipe.outer.reward, REWARDS["accuracy"])
    tried = n_tried(recipe.outer, recipe.sample) if kind.learns else recipe.sample.edits
    return tried * (recipe.outer.repeats if kind.trains else 1)


def _control(name: str, recipe: Recipe) -> Algorithm:
    seed = seed_of(recipe.seed, name)
    return shuffled(load_algorithm(recipe.outer), seed) if name == "shuffled-reward" else random_edits(seed)


def _measure(
    arm: str, unseen_P: Sequence[Task], recipe: Recipe, lab: Lab, writer: Adapter | None, known: Known
) -> Iterator[Event]:
    """Examine one writer on unseen tasks, each time with fresh self-edits of its own."""
    learner = learner_of(writer, lab, recipe.outer)
    written_P = yield from write(arm, unseen_P, lab, writer, replace(recipe.sample, edits=n_completions(recipe)), known)
    yield from _update(arm, unseen_P, written_P, recipe, lab, learner, known)


def _update(
    arm: str,
    unseen_P: Sequence[Task],
    written_P: Sequence[Written | None],
    recipe: Recipe,
    lab: Lab,
    learner: Adapter | None,
    known: Known,
) -> Iterator[Event]:
    """Train on what was written for each task, or on its bare passage, and examine it, `eval_repeats` times."""
    units = _units(arm, unseen_P, written_P, recipe)
    yield from try_units(units, lab, learner, known, recipe.together)


def _units(arm: str, tasks_P: Sequence[Task], written_P: Sequence[Written | None], recipe: Recipe) -> list[Unit]:
    """List `eval_repeats` inner loops for each task: with another seed on a bare passage, with another self-edit else.

    Raises `ValueError` unless the tasks can be shared out among adapters of `together` tasks.
    """
    n = recipe.eval_repeats
    if recipe.together == 1:
        repeats = n if all(written is None for written in written_P) else 1
        return plan(tasks_P, written_P, arm, repeats, recipe.seed, edits=n)
    if len(tasks_P) % recipe.together:
        raise ValueError(f"{len(tasks_P)} tasks cannot be shared out, {recipe.together} to an adapter")
    return plan_together(tasks_P, written_P, arm, n, recipe.seed, recipe.sample.edits)


def _untrained(
    arm: str,
    unseen_P: Sequence[Task],
    lab: Lab,
    known: Known,
    shown: Mapping[str, Sequence[Task]] | None = None,
) -> Iterator[Event]:
    """Examine the model as it is, with the passages that are `shown` in view."""
    units = plan(unseen_P, [None] * len(unseen_P), arm, 1, lab.seed)
    yield from examine_untrained(units, lab.domain, lab.engine, lab.grade, lab.exam, known.trials, shown)
