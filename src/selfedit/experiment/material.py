"""Material: what the files hold that a recipe names, read once for all of its seeds.

The tasks come from `data`, self-edits made elsewhere from `completions`. In the recipe that goes into the run folder,
and into its hash, a file's name and the digest of what was read stand in place of its path: the file may move, and a
run whose file has changed is refused with the key that did.

    recipe, material = read_material(load_recipe("squad-single", ["data=squad.json"]))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from selfedit.engine.base import half_fits
from selfedit.errors import ConfigError, InputError
from selfedit.loop.arms import Given, n_completions
from selfedit.loop.inner import Written
from selfedit.memory.retrieve import nearest
from selfedit.recipe import Recipe
from selfedit.sources.completions import Completions, match, read_completions, refuse_lacking
from selfedit.sources.datasets import read_dataset
from selfedit.sources.documents import Documents, cut_task, read_folder
from selfedit.tasks.base import Domain
from selfedit.types import Failure, Sample, Task


@dataclass(frozen=True, slots=True)
class Material:
    """Tasks and completions from outside, and a sentence for everything that was left out on the way.

    The documents of a folder are cut, as for a lesson, so that a piece and a self-edit of its length fit into the
    model's context; each piece is a task, with the questions that it answers. One that nobody asks about is none,
    unless the model writes its own exam.
    """

    tasks: tuple[Task, ...] = ()
    completions: Completions | None = None
    left_out: tuple[str, ...] = ()


def read_material(recipe: Recipe) -> tuple[Recipe, Material]:
    """Read the files of a recipe; return it with their digests in place of their paths.

    Raises `ConfigError` where a file is needed and none is named, `InputError` for one that cannot be used.
    """
    if recipe.domain == "documents" and not recipe.data:
        raise ConfigError(
            "this recipe learns from data of yours and none is named; add data=PATH (SQuAD's JSON, JSONL, a folder of "
            "documents with questions.jsonl) or data=HUB_ID data_split=SPLIT"
        )
    if "completions" in recipe.arms and not recipe.completions:
        raise ConfigError("the arm 'completions' needs a file of self-edits and none is named; add completions=PATH")
    material = Material()
    if recipe.data:
        recipe, material = _with_data(recipe)
    if recipe.completions:
        found = read_completions(Path(recipe.completions), recipe.skip_bad)
        recipe = replace(recipe, completions=found.name)
        material = replace(material, completions=found, left_out=material.left_out + found.bad)
    return recipe, material


def give(material: Material, recipe: Recipe, domain: Domain, unseen: Sequence[Task]) -> Given:
    """Collect what the recipe's arms need for the unseen tasks: their completions, and what a search finds.

    Raises `InputError` for tasks without enough completions, unless `skip_bad` leaves them unmeasured; `MissingExtra`
    where the library that searches is missing.
    """
    completions = _completions(material, recipe, domain, unseen) if "completions" in recipe.arms else {}
    unasked = [task.id for task in unseen if not task.questions]
    if "retrieval" in recipe.arms and unasked:
        raise InputError(
            f"the arm 'retrieval' searches for the passage of a given question, and {len(unasked)} of the unseen "
            f"passages have none (such as {unasked[0]!r}); leave it out of arms, or give questions"
        )
    return Given(completions, _found(unseen) if "retrieval" in recipe.arms else {})


def _completions(material: Material, recipe: Recipe, domain: Domain, unseen: Sequence[Task]) -> dict[str, Written]:
    assert material.completions is not None, "read_material sees to it"
    texts, lacking = match(material.completions, unseen, n_completions(recipe))
    if not recipe.skip_bad:
        refuse_lacking(lacking, len(unseen))
    written: dict[str, Written] = {}
    for task in unseen:
        if task.id in lacking:
            written[task.id] = Failure("propose", "NoCompletion", lacking[task.id])
        else:
            prompt = domain.prompt(task)
            written[task.id] = [Sample(prompt, (), (), (), text, "eos") for text in texts[task.id]]
    return written


def _found(unseen: Sequence[Task]) -> dict[str, list[Task]]:
    """Search all unseen passages, for each question with what its answerer sees of it: the topic and the question."""
    asked = [(task.id, f"{task.title} {question.question}") for task in unseen for question in task.questions]
    places = nearest([query for _, query in asked], [f"{task.title}\n{task.context}" for task in unseen])
    found: dict[str, list[Task]] = {task.id: [] for task in unseen}
    for (task_id, _), place in zip(asked, places, strict=True):
        found[task_id].append(unseen[place])
    return found


def _with_data(recipe: Recipe) -> tuple[Recipe, Material]:
    path = Path(recipe.data)
    if path.is_dir() and recipe.data_split:
        raise ConfigError(f"{recipe.data!r} is a folder without splits; leave out data_split")
    found = (
        read_folder(path, recipe.skip_bad)
        if path.is_dir()
        else read_dataset(recipe.data, recipe.data_split or None, recipe.skip_bad)
    )
    is_own = recipe.exam.questions == "self-made"
    tasks = [task for task in found.tasks if task.questions or is_own]
    lacking = [task for task in found.tasks if not task.questions and not is_own]
    unasked = [f"{task.id!r} has no question to examine it with" for task in lacking]
    if path.is_dir() and tasks:
        fits = half_fits(recipe.model)
        tasks = [piece for task in tasks for piece in cut_task(task, fits) if piece.questions or is_own]
    if unasked and not (recipe.skip_bad and tasks):
        raise InputError(
            f"{len(unasked)} of {len(found.tasks)} passages in {recipe.data!r} have no question ({unasked[0]}); "
            "add some, leave these out with skip_bad=true, or let the model write its own: exam.questions=self-made"
        )
    named = replace(recipe, data=f"{path.absolute().name}@{_digest(tasks)}", domain="documents")
    return named, Material(tuple(tasks), None, (*_unread(found), *found.bad, *unasked))


def _unread(found: Documents) -> list[str]:
    return [f"{name} is not of a kind that is read" for name in found.skipped]


def _digest(tasks: Sequence[Task]) -> str:
    content = json.dumps([asdict(task) for task in tasks], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:12]
