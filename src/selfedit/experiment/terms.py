"""What a recipe rewards, opened: the reward, what measures its terms, who reads where a rubric is all there is.

    check_reward(recipe)  # before anything is run
    lab = with_reward(lab, recipe)

The embedded model's probe questions are on the famous entities that it was trained on; any other model needs a file of
questions that it can answer. A reward of the user's own may be mended between two runs, since the trials stay what they
are, but not after it has chosen what a writer learnt from: its file is kept in the run folder then, and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from selfedit.engine.base import AnswerJob, Backend
from selfedit.errors import ConfigError, InputError, RunError
from selfedit.judges import open_judge
from selfedit.loop.outer import Lab
from selfedit.loop.probes import Probes
from selfedit.loop.rewards import kind_of, load_reward
from selfedit.recipe import Recipe
from selfedit.runs import write_atomic
from selfedit.sources.datasets import read_dataset
from selfedit.tasks.judge import Complete
from selfedit.tasks.rubric import rubric_judge
from selfedit.tasks.world import famous_tasks
from selfedit.types import Failure, Task
from selfedit.userfiles import is_own, split_own

FAMOUS = 16  # entities: enough to find `probes.ASKED` questions of which every other is answered rightly
RUBRIC_TOKENS = 64
KEPT = "reward.py"


def check_reward(recipe: Recipe) -> None:
    """Refuse a reward that could not be given. Raises `ConfigError`, and `InputError` for a file of probes."""
    outer, kind = recipe.outer, kind_of(recipe.outer)
    if {"known", "kl"} & set(kind.measures):
        probe_tasks(recipe)
    if not kind.trains and outer.algorithm == "rest_em" and outer.select == "improves":
        raise ConfigError(
            f'the reward {outer.reward!r} has no mark before the update, which outer.select="improves" compares with; '
            'set outer.select="best-of-n"'
        )
    if outer.race.by and (kind.learns or not kind.trains):
        raise ConfigError(
            f"outer.race spares inner loops of a reward that takes them, and {outer.reward!r} does without; leave out "
            'outer.race, or set outer.race.by="learnt" and outer.reward="accuracy"'
        )
    if kind.learns and outer.rounds and recipe.sample.edits < 2:
        raise ConfigError(
            "the reward 'learnt' tries some self-edits of a text and predicts the others; set sample.edits"
        )


def check_questions(recipe: Recipe, train: Sequence[Task]) -> None:
    """Refuse tasks that hold nothing to reward. Raises `ConfigError`."""
    if (
        recipe.outer.reward in ("forbidden", "guarded")
        and train
        and not any(q.role == "forbidden" for t in train for q in t.questions)
    ):
        raise ConfigError(
            f"the reward {recipe.outer.reward!r} needs questions on what must not be learnt, and the domain "
            f'{recipe.domain!r} has none; set domain="world-forbidden", or give questions in the data the '
            '"role": "forbidden"'
        )


def probe_tasks(recipe: Recipe) -> Sequence[Task]:
    """Return tasks whose questions the model may answer without learning them.

    Raises `ConfigError` where none are known of, `InputError` for a file that has none.
    """
    path = recipe.outer.terms.probes
    if path:
        if not Path(path).is_file():
            raise InputError(f"there is no file {path!r}, which outer.terms.probes names")
        asked = [task for task in read_dataset(path).tasks if task.questions]
        if not asked:
            raise InputError(f"{path!r} holds no question; outer.terms.probes needs some that the model can answer")
        return asked
    if recipe.model != "pup":
        raise ConfigError(
            f"the reward {recipe.outer.reward!r} needs questions that {recipe.model!r} can answer before it learns; "
            "name a file of them: outer.terms.probes=PATH"
        )
    return famous_tasks(FAMOUS)


def with_reward(lab: Lab, recipe: Recipe) -> Lab:
    """Put into a lab what its experiments reward."""
    kind = kind_of(recipe.outer)
    lab = replace(lab, reward=load_reward(recipe.outer), predicts=kind.learns)
    measures = (*kind.measures, *({recipe.outer.race.by} & {"logprob"} - set(kind.measures)))
    if measures:
        tasks = probe_tasks(recipe) if {"known", "kl"} & set(measures) else ()
        probes = Probes(measures, lab.domain, lab.engine, lab.grade, lab.exam, recipe.seed, tasks)
        lab = replace(lab, probe=probes)
    if not kind.trains:
        complete = open_judge(recipe.judge) if recipe.judge.model else _by(lab.engine)
        lab = replace(lab, assess=rubric_judge(complete))
    return lab


def _by(engine: Backend) -> Complete:
    """Let the bare model read its own self-edits, one prompt a job, so that one too long fails alone."""

    def complete(prompts: Sequence[str]) -> list[str | Failure]:
        found = engine.answer([AnswerJob((prompt,), None, RUBRIC_TOKENS) for prompt in prompts])
        return [each if isinstance(each, Failure) else each[0] for each in found]

    return complete


def in_header(recipe: Recipe) -> Recipe:
    """Name the user's files in a recipe without their folders, so that they may move, and probes with their digest."""
    outer = recipe.outer
    if is_own(outer.reward):
        path, function = split_own(outer.reward)
        outer = replace(outer, reward=f"{path.name}:{function}")
    if outer.terms.probes:
        outer = replace(outer, terms=replace(outer.terms, probes=_digested(Path(outer.terms.probes))))
    return replace(recipe, outer=outer)


def _digested(file: Path) -> str:
    return f"{file.name}@{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"


def refuse_another_reward(folder: Path, recipe: Recipe) -> None:
    """Refuse to go on with writers that another text of the user's reward has chosen for. Raises `RunError`."""
    kept = folder / KEPT
    if is_own(recipe.outer.reward) and kept.exists() and kept.read_bytes() != _text(recipe):
        raise RunError(
            f"{folder} holds rounds that another text of {split_own(recipe.outer.reward)[0].name} has rewarded, "
            f"kept as {KEPT} in it; put that back, or choose another folder"
        )


def keep_reward(folder: Path, recipe: Recipe) -> None:
    """Keep the file of a reward of the user's own with the first writer that it chose for."""
    if is_own(recipe.outer.reward) and not (folder / KEPT).exists():
        write_atomic(folder / KEPT, _text(recipe))


def _text(recipe: Recipe) -> bytes:
    return split_own(recipe.outer.reward)[0].read_bytes()
