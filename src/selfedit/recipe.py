"""A recipe: every knob of an experiment in its one place, and what decides whether two runs are the same one.

The record is plain, so that whoever runs it needs neither pydantic nor the file it was read from by `config`.

    recipe_hash(Recipe(model="pup", format="implications"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from selfedit.types import (
    ExamSettings,
    JudgeSettings,
    MenuSettings,
    OuterSettings,
    RaceSettings,
    RewardSettings,
    SampleSettings,
    TrainSettings,
    WriterSettings,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """An experiment: every knob has its one home here. Read from a recipe file by `config.load_recipe`.

    `model` is "pup", a local path or a hub id; `domain` and `format` name what is learned and how the writer is asked;
    `template` is a prompt of the user's own in place of the format's, with {title} and {passage} in it: in a recipe
    file the path of its text, in this record the text. `split_lines` makes every line of a self-edit a training
    sequence of its own. With a `menu` the last line of a self-edit chooses learning rate and epochs for its update, in
    place of those of `inner`.

    `data` is a file, folder or hub id to take the tasks from (`data_split` of it, where a hub id has several), in place
    of a domain's own; `completions` a file of self-edits made elsewhere; with `skip_bad`, what cannot be used of either
    is left out and named.

    `eval_tasks` unseen tasks are examined with `eval_repeats` seeds for each arm: "base" (no update), "passage" (the
    bare text), "completions" (self-edits from the file), "rounds" (the writer's self-edits before and after every
    round; 0 rounds: before), "retrieval" and "in-context" (no update, with the passage found, or the right one, in
    view), and the controls "shuffled-reward" and "random-edits". "weak" and "even" learn the unseen tasks as a corpus,
    in a first pass and `outer.rounds` rounds of `outer.tasks` x `sample.edits` self-edits (`loop.weak`). `together`
    unseen tasks share one adapter, trained on `sample.edits` self-edits of each; 1 is an adapter and a self-edit a
    task. `inner` is the update that a self-edit causes, `outer.train` the one that makes the next writer. All of it
    runs for `seeds` seeds from `seed` on.

    `vary` runs all of this once for each of several values of one key, which the arms of one table are then named by:
    {"format": ["rewrite", "self-qa"]}, or with names of one's own {"model": {"small": "…", "large": "…"}}.

    `report_to` names trackers that get the run's metrics, too: "tensorboard", "wandb", "mlflow", "trackio".

    `program` is the "module:function" that runs a recipe which is no experiment in arms; "" is `experiment`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str = ""
    model: str = "pup"
    domain: str = "world"
    format: str = "rewrite"
    template: str = ""
    split_lines: bool = True
    menu: MenuSettings = MenuSettings()
    data: str = ""
    data_split: str = ""
    completions: str = ""
    skip_bad: bool = False
    seed: int = 0
    seeds: int = 1
    sample: SampleSettings = SampleSettings()
    inner: TrainSettings = TrainSettings()
    exam: ExamSettings = ExamSettings()
    judge: JudgeSettings = JudgeSettings()
    outer: OuterSettings = OuterSettings()
    writer: WriterSettings = WriterSettings()
    eval_tasks: int = 100
    eval_repeats: int = 1
    together: int = 1
    arms: tuple[str, ...] = ("base", "passage", "rounds")
    vary: Mapping[str, Any] = field(default_factory=dict)
    report_to: tuple[str, ...] = ()
    program: str = ""

    @property
    def asks_judge(self) -> bool:
        """Say whether a judge may have a say in what is measured: as the grader, or by a rubric as the reward."""
        return self.exam.asks_judge or self.outer.reward == "rubric"


# What decides how much is run, or names things, and so has no part in one trial's result. `data` and `completions` have
# one, since a task's id does not say what the task was: whoever reads them puts "name@digest" in place of the path
# before the recipe is hashed, so that a file may move but not change; so with the writer's checkpoint and adapter. What
# `skip_bad` left out shows in that digest. How a judge is reached decides whether there is a mark, and not which.
NOT_IN_HASH = frozenset(
    {
        "name",
        "model",
        "seeds",
        "arms",
        "vary",
        "eval_tasks",
        "eval_repeats",
        "judge.url",
        "judge.key_env",
        "judge.max_tokens",
        "judge.concurrency",
        "judge.timeout_s",
        "judge.retries",
        "outer.rounds",
        "outer.patience",
        "writer.url",
        "writer.key_env",
        "skip_bad",
        "report_to",
        "program",
    }
)

# Keys that came after runs had been made, with the value that means what was done without them. At that value they are
# left out, so that those runs can be gone on with.
CAME_LATER: Mapping[str, Any] = {
    "exam.draws": 6,
    "exam.questions": "given",
    "inner.clip_ratio": 0.2,
    "inner.divergence": "forward",
    "inner.kl": 0.0,
    "menu": asdict(MenuSettings()),
    "outer.keep": 1,
    "outer.merge": False,
    "outer.race": asdict(RaceSettings()),
    "outer.reward": "accuracy",
    "outer.terms": asdict(RewardSettings()),
    "outer.train.clip_ratio": 0.2,
    "outer.train.divergence": "forward",
    "outer.train.kl": 0.0,
}


def recipe_hash(recipe: Recipe) -> str:
    """Digest what determines a trial's result, given its task, edit, seed and base: 12 hexadecimal digits.

    Rounds, arms and the extent of the examination are left out, so that a finished run can be extended; so is the
    model's name, since the base's own digest names the weights. 64 and 64.0 are the same value.
    """
    plain = asdict(recipe)
    if not recipe.asks_judge:
        del plain["judge"]
    canonical = json.dumps(_determining(plain), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _determining(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        keys = {name: f"{key}.{name}" if key else name for name in value}
        told = {name: path for name, path in keys.items() if path not in NOT_IN_HASH and not _is_old(path, value[name])}
        return {name: _determining(value[name], path) for name, path in told.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_old(key: str, value: Any) -> bool:
    return key in CAME_LATER and bool(value == CAME_LATER[key])
