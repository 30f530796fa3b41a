"""Two ideas that SEAL's authors name and leave to others (arXiv 2506.10943): to update the weights in the middle of a
chain of thought, and to distil the chain afterwards.

Both are tried on two-step questions over two passages (`chains`), on the embedded model: `midway` and `afterwards` say
how, `report` compares. A seed is a run folder; killed and started again, it goes on.

    selfedit run world-thinking
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from selfedit.engine.base import open_backend
from selfedit.errors import ConfigError
from selfedit.recipe import Recipe
from selfedit.recipes.thinking import afterwards as after
from selfedit.recipes.thinking import midway as mid
from selfedit.recipes.thinking.bench import Bench
from selfedit.recipes.thinking.chains import fresh_chains
from selfedit.recipes.thinking.report import summarise, table
from selfedit.runs import open_run, write_atomic
from selfedit.tasks.base import load_domain
from selfedit.tasks.graders import load_grader

Progress = Callable[[int, int], None]  # trials done, in all


def run(recipe: Recipe, out: Path, device: str, progress: Progress) -> Iterator[str]:
    """Run what is missing of every seed in `out`; yield the lines of a report on all of it, `report.json` in short.

    Raises `ConfigError` for settings that mean nothing here, `RunError` for a folder that holds another run, and where
    the model could not write, learn or answer.
    """
    _check(recipe)
    seeds = [replace(recipe, seed=recipe.seed + i, seeds=1) for i in range(recipe.seeds)]
    folders = [out / f"seed-{each.seed}" for each in seeds]
    done, total = set[str](), len(seeds) * recipe.eval_tasks * (len(mid.ARMS) + len(after.ARMS))

    def on_trial(key: str) -> None:
        done.add(key)
        progress(len(done), total)

    for each, folder in zip(seeds, folders, strict=True):
        run_seed(each, folder, device, on_trial)
    result = summarise(folders)
    write_atomic(out / "report.json", json.dumps(asdict(result), indent=2) + "\n")
    yield from table(result)


def run_seed(recipe: Recipe, folder: Path, device: str, on_trial: Callable[[str], None]) -> None:
    """Run what is missing of one seed; `on_trial` hears of every trial, those of an earlier run at once."""
    engine = open_backend("local", recipe.model, device)
    domain = load_domain(recipe.domain, recipe.format, recipe.inner, recipe.split_lines)
    chains = fresh_chains("eval", recipe.eval_tasks, recipe.seed)
    with open_run(folder, recipe, f"{engine.base}, {recipe.eval_tasks} chains") as opened:
        bench = Bench(recipe, domain, engine, load_grader(recipe.exam.grader), opened, chains, on_trial)
        mid.midway(bench)
        after.afterwards(bench)


def _check(recipe: Recipe) -> None:
    """Raise `ConfigError` for a setting of experiments in arms that has no meaning here."""
    plain = Recipe()
    for key in ("domain", "data", "template", "completions", "arms", "writer", "vary", "report_to", "eval_repeats"):
        if getattr(recipe, key) != getattr(plain, key):
            raise ConfigError(
                f"{key} is {getattr(recipe, key)!r}, which {recipe.name!r} cannot make use of; leave it out"
            )
