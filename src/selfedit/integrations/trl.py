"""The inner loop as a reward function for TRL's `GRPOTrainer` (or `RLOOTrainer`).

    recipe = load_recipe("clean", ["data=squad.json", "model=Qwen/Qwen2.5-0.5B"])
    trainer = GRPOTrainer(recipe.model, inner_loop_reward(recipe), GRPOConfig("runs/trl"), prompts(recipe))
    trainer.train()

TRL owns the writer: it draws G self-edits for each prompt, compares the rewards in a group, and reinforces. This file
owns what a self-edit is worth: each becomes an adapter on a second, frozen copy of the recipe's model, which is then
examined closed-book. All that TRL hands over at once, G edits for each of several passages, goes to the engine at once
and is trained in one batch (in waves of 48), so give TRL a `per_device_train_batch_size` of several groups.

The package's own `grpo` (`outer.algorithm`) does the same in rounds, within a run that is killed and resumed trial by
trial, where the learner may be the writer itself as in the paper (arXiv 2506.10943), with controls and unseen passages
in one report. Take that one to measure and compare. Take TRL where the writer outgrows it: sharded over many GPUs,
sampled by vLLM, with a loss, a schedule or a further reward that TRL has; then measure the trained writer with
`selfedit eval RECIPE writer.model=FOLDER`.

An edit that cannot be used is a real 0. What could not be measured is None: TRL takes such an edit out of its group's
mean and gives it no advantage (before TRL 1.7 it became a 0). TRL's log has the fractions of both, as
"failure/unusable" and "failure/unmeasured".

With several processes each one tries the edits that it drew, on a learner of its own: on its own GPU, and with its own
`folder/rank-N`. The learner and its adapters share that GPU with the writer, unless `device` names another one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from selfedit.engine.base import find_device
from selfedit.errors import InputError, from_extra
from selfedit.experiment.plans import domain_of
from selfedit.experiment.rewarding import Rewarded, Rewarding, plan_practice
from selfedit.recipe import Recipe

TASK_ID = "task_id"
Completion = str | Sequence[Mapping[str, Any]]

_log = logging.getLogger(__name__)


def prompts(recipe: Recipe, split: Literal["train", "eval"] = "train") -> Any:
    """Make the `datasets.Dataset` of the prompts for the tasks of all the recipe's rounds, or of its unseen ones.

    Its columns are `prompt`, a user's turn, or bare text where the recipe says `writer.is_chat = false` (for a model
    without a chat template), and `task_id`. Raises as `plan_practice` does, and `MissingExtra` without TRL.
    """
    _require_trl()
    from datasets import Dataset

    plan = plan_practice(recipe)
    tasks, domain = plan.unseen if split == "eval" else plan.train, domain_of(plan.recipe)
    texts = [domain.prompt(task) for task in tasks]
    turns = [[{"role": "user", "content": text}] for text in texts]
    asked = turns if recipe.writer.is_chat else texts
    return Dataset.from_dict({"prompt": asked, TASK_ID: [task.id for task in tasks]})


def inner_loop_reward(
    recipe: Recipe, device: str = "auto", folder: Path | None = None
) -> Callable[..., list[float | None]]:
    """Load the learner; return the function for TRL's `reward_funcs`. With a `folder` its trials are kept there, and
    are not run again when training is resumed.

    Raises as `plan_practice` and `Rewarding` do, and `MissingExtra` without TRL.
    """
    _require_trl()
    rewarding = Rewarding(plan_practice(recipe), _own(device), _own_part(folder))

    def inner_loop(
        completions: Sequence[Completion], log_metric: Callable[[str, float], None], **columns: Any
    ) -> list[float | None]:
        """Reward a batch of TRL's, [N]. Raises `InputError` for a data set that `prompts` did not make."""
        if TASK_ID not in columns:
            raise InputError(
                f"the data set has no column {TASK_ID!r} to say what a prompt is about; make it with prompts(recipe), "
                "and let the trainer keep its columns: remove_unused_columns=False"
            )
        texts = map(_text, completions)
        rewarded_N = rewarding.reward(list(zip(columns[TASK_ID], texts, strict=True)))
        _tell(rewarded_N, log_metric)
        return [rewarded.reward for rewarded in rewarded_N]

    return inner_loop


def _require_trl() -> None:
    with from_extra("trl", "a reward for TRL's trainers"):
        import_module("trl")


def _own(device: str) -> str:
    """Return the GPU of this process among those that `accelerate launch` or torchrun started."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank and device in ("auto", "cuda") and find_device("auto") == "cuda" else device


def _own_part(folder: Path | None) -> Path | None:
    """Return where this process keeps its trials: a run folder has one writer."""
    is_alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    return folder if folder is None or is_alone else folder / f"rank-{os.environ['RANK']}"


def _text(completion: Completion) -> str:
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def _tell(rewarded_N: Sequence[Rewarded], log_metric: Callable[[str, float], None]) -> None:
    """Give TRL's log the fractions that failed, 0 included, since it is averaged; say why nothing was measured."""
    lost = [rewarded for rewarded in rewarded_N if rewarded.reward is None]
    log_metric("failure/unusable", sum(rewarded.is_unusable for rewarded in rewarded_N) / len(rewarded_N))
    log_metric("failure/unmeasured", len(lost) / len(rewarded_N))
    why = next((rewarded.failure for rewarded in lost if rewarded.failure), None)
    if lost:
        reason = f", such as this one ({why.stage}): {why.message}" if why else ""
        _log.warning("%d of %d self-edits could not be measured%s", len(lost), len(rewarded_N), reason)
