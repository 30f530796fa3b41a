"""Who writes: the model that learns, another checkpoint of this machine, or a model on a server.

writers = open_writers(load_recipe("clean", ["writer.model=…"]), engine, "cpu")
samples = writers.writes.sample([SampleJob(prompt, n=5, seed=0, adapter=writers.begins)])
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from selfedit.engine.base import Backend, Writer, open_backend
from selfedit.engine.remote import open_writer
from selfedit.recipe import Recipe
from selfedit.types import Adapter


@dataclass(frozen=True, slots=True)
class Writers:
    """What writes, what it begins with, and the recipe with what they are, weights and all, in place of where they lay.

    `teacher` is None where the learner writes for itself.
    """

    recipe: Recipe
    writes: Writer
    teacher: Writer | None
    begins: Adapter | None

    @property
    def name(self) -> str:
        """What wrote: its base, with the adapter on it if there is one; on a server its name there."""
        base = self.writes.base if isinstance(self.writes, Backend) else self.recipe.writer.model
        return f"{base}+{self.begins.id}" if self.begins else base


def open_writers(recipe: Recipe, learner: Backend | None, device: str) -> Writers:
    """Open what writes under `recipe`; without a `learner` to do it and without a writer of its own, the model does.

    Raises `ModelError` for a model or adapter that cannot be used, and for a server that does not answer or lacks the
    model: with `skip_bad` its failures are counted instead.
    """
    writer = recipe.writer
    if writer.url:
        server = open_writer(writer.model, writer.url, writer.key_env, is_chat=writer.is_chat, extra=writer.extra)
        if not recipe.skip_bad:
            server.check()
        return Writers(recipe, server, server, None)
    teacher = open_backend("local", writer.model, device) if writer.model else None
    writes = teacher or learner or open_backend("local", recipe.model, device)
    begins = writes.load(Path(writer.adapter.replace("{seed}", str(recipe.seed)))) if writer.adapter else None
    named = replace(writer, model=teacher.base if teacher else "", adapter=begins.id if begins else "")
    return Writers(replace(recipe, writer=named), writes, teacher, begins)
