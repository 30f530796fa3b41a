"""Reward a writer for pretraining text: what a fresh small model learns from it, against raw text at equal tokens.

SEAL's authors name this as future work. The writer is the embedded model; the learner is a small model with random
weights (`recipes.pup.fresh`), which learns the language along with the facts, from one corpus alone.

A corpus is of P passages. The *raw* one holds each passage under its title. A *written* one holds one self-edit beside
each passage, line by line under the same title: what SEAL's inner loop trains on, and as much of each as there is. Each
is read for the same number of tokens, so the raw text is read more often (`learner.py`). What is examined then is every
fact of a passage, in words that no corpus held (`statements.py`).

Credit. A round draws G edits on each passage and trains G models, not P x G: model c reads edit π_pk(c) of passage p,
with a permutation π_pk of its own for each passage p and repeat k. Let K_p(θ) be the mean log-probability, over the
held-out facts of passage p, of the right value after what stands before it. Then

    reward(p, g) = 1/R Σ_k K_p(θ of repeat k that read edit g of p)      baseline(p) = 1/R Σ_k K_p(θ of k that read raw)

and the gain over raw text is the difference. A repeat has random weights of its own, which all its models share. So an
edit is judged by the facts of its own passage; what else its corpus holds is drawn at random, which is noise but no
bias. An edit in which nothing can be read leaves its passage alone in the corpus.

The rounds are those of `loop.outer`. As controls, "shuffled-reward" deals each passage's rewards to the wrong edits and
"random-edits" keeps any edit, with as many passages and updates. Every writer is examined on unseen passages with fresh
edits and fresh models, next to the raw text.

    selfedit run world-pretrain

Axis suffixes: P tasks (passages), G edits of a task, R repeats.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

from selfedit.engine.base import Backend, open_backend
from selfedit.errors import BadEdit, ConfigError, RunError
from selfedit.loop.algorithms import load_algorithm, random_edits, shuffled
from selfedit.loop.inner import propose, seed_of
from selfedit.recipe import Recipe
from selfedit.recipes.pretrain.learner import Known, Learner, fresh
from selfedit.recipes.pretrain.report import summarise, table
from selfedit.recipes.pretrain.statements import clean, hold_out
from selfedit.runs import Run, open_run, write_atomic
from selfedit.tasks.base import Domain, load_domain
from selfedit.tasks.world import fresh_tasks, seeded
from selfedit.types import (
    Adapter,
    Datum,
    Failure,
    Rollout,
    Sample,
    Score,
    SelfEdit,
    Task,
    TrainJob,
    Trial,
    mean_measured,
)

TOKENS = 196_608  # that every fresh model reads
STRANGERS = 20  # passages about things that no corpus tells of
RAW = -1  # the number of the edit that is none
Progress = Callable[[int, int], None]  # fresh models done, in all
Writer = Callable[[], Adapter | None]  # trained when it is first to write: what is written already needs none


@dataclass(frozen=True, slots=True)
class Lab:
    """What all of a seed's experiment shares. `engine` runs the writer, every fresh model reads `tokens`."""

    recipe: Recipe
    domain: Domain
    engine: Backend
    run: Run
    device: str
    tokens: int
    on_model: Callable[[str], None]

    def seed(self, *key: str | int) -> int:
        """Derive a seed for one purpose."""
        return seed_of(self.recipe.seed, *key)

    def learner(self, repeat: int) -> Learner:
        """Draw a repeat's random weights: the same for every corpus that is compared."""
        return fresh(self.run.folder / f"fresh-{repeat}", self.seed("fresh", repeat), self.recipe.inner, self.device)


def run(recipe: Recipe, out: Path, device: str, progress: Progress, tokens: int = TOKENS) -> Iterator[str]:
    """Run what is missing of every seed in `out`; yield the lines of a report on all of it, `result.json` in short.

    Raises `ConfigError` for settings that mean nothing here, `RunError` for a folder that holds another run, and where
    a model could not write or be trained.
    """
    _check(recipe)
    seeds = [replace(recipe, seed=recipe.seed + i, seeds=1) for i in range(recipe.seeds)]
    folders = [out / f"seed-{each.seed}" for each in seeds]
    models, total = set[str](), len(seeds) * count_models(recipe)

    def on_model(key: str) -> None:
        models.add(key)
        progress(len(models), total)

    for each, folder in zip(seeds, folders, strict=True):
        run_seed(each, folder, device, tokens, on_model)
    result = summarise(folders, recipe.outer.rounds)
    write_atomic(out / "result.json", json.dumps(asdict(result), indent=2) + "\n")
    yield from table(result)


def run_seed(recipe: Recipe, folder: Path, device: str, tokens: int, on_model: Callable[[str], None]) -> None:
    """Run what is missing of one seed; `on_model` hears of every fresh model that has read its corpus, by key."""
    engine = open_backend("local", recipe.model, device)
    domain = load_domain(recipe.domain, recipe.format, recipe.inner, recipe.split_lines)
    with open_run(folder, recipe, f"{engine.base}, {tokens} tokens") as opened:
        experiment(Lab(recipe, domain, engine, opened, device, tokens, on_model))


def _check(recipe: Recipe) -> None:
    """Raise `ConfigError` for a setting of experiments in arms that has no meaning here."""
    plain = Recipe()
    for key in ("domain", "data", "template", "menu", "completions", "arms", "together", "writer", "vary", "report_to"):
        if getattr(recipe, key) != getattr(plain, key):
            raise ConfigError(
                f"{key} is {getattr(recipe, key)!r}, which {recipe.name!r} cannot make use of; leave it out"
            )


def count_models(recipe: Recipe) -> int:
    """Count the fresh models of a seed: those of the rounds (which random edits do without), those of the arms."""
    rewarded = recipe.sample.edits * max(0, 2 * recipe.outer.rounds - 1) + recipe.outer.rounds
    return recipe.outer.repeats * rewarded + recipe.eval_repeats * (recipe.outer.rounds + 4)


def experiment(lab: Lab) -> None:
    """Examine the raw text and the untrained writer; reinforce a writer in each way, and examine it."""
    outer, unseen = lab.recipe.outer, lab.domain.tasks("eval", lab.recipe.eval_tasks, lab.recipe.seed)
    train = lab.domain.tasks("train", outer.tasks * outer.rounds, lab.recipe.seed)
    rewarding = load_algorithm(outer)
    examine(lab, "raw", unseen)
    examine(lab, "round-0", unseen, write(lab, "round-0", unseen, untrained, lab.recipe.eval_repeats))
    for name, algorithm in {
        "round": rewarding,
        "shuffled-reward": shuffled(rewarding, lab.seed("shuffled-reward")),
        "random-edits": random_edits(lab.seed("random-edits")),
    }.items():
        writer: Writer = untrained
        for index in range(1, outer.rounds + 1):
            stage = f"train-{name}-{index}" if index > 1 else "train-1"  # the first round is the same writer's for all
            tasks_P = train[(index - 1) * outer.tasks : index * outer.tasks]
            written_PG = write(lab, stage, tasks_P, writer, lab.recipe.sample.edits)
            groups_PG = unrewarded(written_PG) if name == "random-edits" else reward(lab, stage, tasks_P, written_PG)
            writer = reinforce(lab, f"{name}-{index}", algorithm(groups_PG), writer)
            arm = f"round-{index}" if name == "round" else name
            if name == "round" or index == outer.rounds:
                examine(lab, arm, unseen, write(lab, arm, unseen, writer, lab.recipe.eval_repeats))


def write(lab: Lab, stage: str, tasks_P: Sequence[Task], writer: Writer, edits: int) -> list[tuple[Sample, ...]]:
    """Draw `edits` on each passage, [P][G], or take up what an earlier run has drawn."""
    missing = [task for task in tasks_P if f"{stage}/{task.id}" not in lab.run.drawn()]
    settings = replace(lab.recipe.sample, edits=edits)
    drawn = propose(missing, lab.domain, writer(), lab.engine, settings, lab.seed(stage)) if missing else []
    for task, written in zip(missing, drawn, strict=True):
        if isinstance(written, Failure):
            raise RunError(f"nothing could be written on {task.id}: {written.message}; what was measured is kept")
        lab.run.save_samples(f"{stage}/{task.id}", written)
    return [lab.run.drawn()[f"{stage}/{task.id}"] for task in tasks_P]


def reward(
    lab: Lab, stage: str, tasks_P: Sequence[Task], written_PG: Sequence[Sequence[Sample]]
) -> list[list[Rollout]]:
    """Reward every edit with what is known of its passage after its corpus was read, against the raw text's, [P][G]."""
    n, trials = lab.recipe.sample.edits, list[Trial]()
    for repeat in range(lab.recipe.outer.repeats):
        trials += learn(lab, "train-raw", tasks_P, [None] * len(tasks_P), [RAW] * len(tasks_P), repeat)
        for corpus in range(n):
            edits_P = [dealt(task, repeat, n)[corpus] for task in tasks_P]
            samples_P = [written[edit] for written, edit in zip(written_PG, edits_P, strict=True)]
            trials += learn(lab, stage, tasks_P, samples_P, edits_P, repeat)

    def known(task: Task, edit: int) -> float | None:
        repeats = [trial for trial in trials if (trial.task_id, trial.edit) == (task.id, edit)]
        return mean_measured([trial.measures["logprob"] for trial in repeats])

    return [
        [Rollout(sample, known(task, edit), known(task, RAW)) for edit, sample in enumerate(written)]
        for task, written in zip(tasks_P, written_PG, strict=True)
    ]


def unrewarded(written_PG: Sequence[Sequence[Sample]]) -> list[list[Rollout]]:
    """Group edits for who keeps them at random, [P][G]: nobody need learn from them."""
    return [[Rollout(sample, None, None) for sample in written] for written in written_PG]


def dealt(task: Task, repeat: int, edits: int) -> list[int]:
    """Say which edit on a passage each corpus of a repeat holds, [G]: every edit is in one of them."""
    return seeded("dealt", task.id, repeat).sample(range(edits), edits)


def reinforce(lab: Lab, name: str, data: Sequence[Datum], writer: Writer) -> Writer:
    """Train the next writer on top of the last on what was kept; where nothing was, it stays."""
    if not data:
        return writer

    @cache
    def trained() -> Adapter:
        job = TrainJob(tuple(data), lab.recipe.outer.train, lab.seed("outer", name), under=writer())
        (adapter,) = lab.engine.train([job])
        if isinstance(adapter, Failure):
            raise RunError(f"the writer could not be trained: {adapter.message}; what was measured is kept")
        return adapter

    return trained


def untrained() -> None:
    """Have the bare model write."""


def examine(lab: Lab, arm: str, tasks_P: Sequence[Task], written_PR: Sequence[Sequence[Sample]] = ()) -> None:
    """Have fresh models read the unseen passages with one edit each, another one a repeat, or raw."""
    for repeat in range(lab.recipe.eval_repeats):
        samples_P: list[Sample | None] = [written[repeat] for written in written_PR]
        edits_P = [repeat if written_PR else RAW] * len(tasks_P)
        learn(lab, arm, tasks_P, samples_P or [None] * len(tasks_P), edits_P, repeat)


def learn(
    lab: Lab,
    stage: str,
    tasks_P: Sequence[Task],
    samples_P: Sequence[Sample | None],
    edits_P: Sequence[int],
    repeat: int,
) -> list[Trial]:
    """Let a fresh model read one corpus and examine it on each passage: trials, [P]. What is known is not run again."""
    keys_P = [f"{stage}/{task.id}/{edit}/{repeat}" for task, edit in zip(tasks_P, edits_P, strict=True)]
    if not all(key in lab.run.trials() for key in keys_P):
        clock, learner, statements_P = time.process_time(), lab.learner(repeat), hold_out(tasks_P)
        adapter = learner.read(compose(lab.domain, tasks_P, samples_P), lab.tokens, lab.seed("order", repeat))
        known_P = learner.knows(statements_P, adapter)
        loss = learner.loss([f"{task.title}\n{task.context}" for task in _strangers(lab)], adapter)
        seconds = (time.process_time() - clock) / len(tasks_P)
        for key, task, edit, sample, known in zip(keys_P, tasks_P, edits_P, samples_P, known_P, strict=True):
            lab.run.append(_trial(key, task.id, edit, repeat, sample, adapter.id, known, loss, seconds))
    lab.on_model(keys_P[0])
    return [lab.run.trials()[key] for key in keys_P]


def compose(domain: Domain, tasks_P: Sequence[Task], samples_P: Sequence[Sample | None]) -> list[str]:
    """Make a corpus: every passage with the edit on it, without the lines that hold what is examined."""
    edits_P = [_read(domain, task, sample) for task, sample in zip(tasks_P, samples_P, strict=True)]
    held_out = [statement for statements in hold_out(tasks_P) for statement in statements]
    return clean([example.text for edit in edits_P for example in edit.examples], held_out)


def _read(domain: Domain, task: Task, sample: Sample | None) -> SelfEdit:
    """Read an edit; one that cannot be used leaves its passage alone."""
    try:
        return domain.parse(task, sample) if sample else domain.without_edit(task)
    except BadEdit:
        return domain.without_edit(task)


def _trial(
    key: str,
    task_id: str,
    edit: int,
    repeat: int,
    sample: Sample | None,
    adapter: str,
    known: Sequence[Known],
    loss: float,
    seconds: float,
) -> Trial:
    """Note what a model knows of one passage: `reward` is the share of its facts whose value is chosen, "logprob" the
    mean log-probability of the values, "loss" that of the model on strangers."""
    marks = tuple(Score(float(each.is_chosen), "") for each in known)
    return Trial(
        key=key,
        task_id=task_id,
        edit=edit,
        repeat=repeat,
        seed=repeat,
        sample=sample,
        adapter=adapter,
        before_Q=(),
        after_Q=marks,
        reward=fmean(each.is_chosen for each in known),
        failure=None,
        cost={"seconds": seconds},
        measures={"logprob": fmean(each.logprob for each in known), "loss": loss},
    )


def _strangers(lab: Lab) -> list[Task]:
    return fresh_tasks("card", STRANGERS, lab.recipe.seed)
