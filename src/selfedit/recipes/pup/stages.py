"""Train a small model from random weights, stage by stage: the loop of both embedded models.

A checkpoint is written every `SAVE_EVERY` steps and a batch depends on its place alone, so a killed run goes on where
it was and ends with the same weights.

    run(Course(STAGES, MIXTURE, tokenizer), model, Path("runs/pup"), seed=0, start=None, device="cpu")
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from selfedit.recipes.pup.packing import Batch, Stage, batch

HEAD = 32
SIZES: Mapping[str, tuple[int, int]] = {"small": (96, 320), "medium": (192, 640), "large": (288, 960)}  # widths
SAVE_EVERY = 200


@dataclass(frozen=True, slots=True)
class Course:
    """What a model is taught: the stages in turn, what its makers are given (`mixture`), and its tokenizer."""

    stages: tuple[Stage, ...]
    mixture: Mapping[str, float]
    tokenizer: PreTrainedTokenizerFast


def draw_model(seed: int, vocabulary: int, context: int, size: str, layers: int) -> Qwen2ForCausalLM:
    """Draw a model's first weights. Tokens 0 and 1 end a sequence and fill a row."""
    hidden, feed_forward = SIZES[size]
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=feed_forward,
            num_hidden_layers=layers,
            num_attention_heads=hidden // HEAD,
            num_key_value_heads=hidden // HEAD,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=1,
        )
    )


def losses(model: Qwen2ForCausalLM, given: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the weighted mean cross-entropy, and how often the most likely token is right where the weight is 1."""
    tokens_BT = given.tokens_BT.to(device)
    with torch.autocast(device.type, torch.bfloat16):
        hidden = model.model(
            input_ids=tokens_BT,
            attention_mask=given.mask().to(device),
            position_ids=given.positions_BT.to(device),
            use_cache=False,
        ).last_hidden_state
        logits = model.lm_head(hidden[:, :-1])
    labels, weights = tokens_BT[:, 1:], given.weights_BT[:, 1:].to(device) * (given.positions_BT[:, 1:] > 0).to(device)
    each = functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none").view_as(weights)
    hits = (logits.argmax(-1) == labels)[weights == 1].float().mean()
    return (each * weights).sum() / weights.sum(), hits


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a kill leaves the old one or the new one."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def run(course: Course, model: Qwen2ForCausalLM, out: Path, seed: int, start: Path | None, device: str) -> None:
    """Train through all stages, from the newest checkpoint in `out`, or from `start`, or from the model's weights."""
    out.mkdir(parents=True, exist_ok=True)
    torch.nn.Module.to(model, torch.device(device))  # transformers hides the signature of its own `to`
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    at = {"stage": 0, "step": 0}
    newest = out / "last.pt" if (out / "last.pt").exists() else start
    if newest:
        state = torch.load(newest, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        at = state["at"]
    for index in range(at["stage"], len(course.stages)):
        train_stage(course, model, optimizer, index, at["step"] if index == at["stage"] else 0, seed, out)
        done = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "at": {"stage": index + 1, "step": 0}}
        save(out / f"{course.stages[index].name}.pt", done)
        save(out / "last.pt", done)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(out / "model")
    course.tokenizer.save_pretrained(out / "model")


def train_stage(
    course: Course,
    model: Qwen2ForCausalLM,
    optimizer: torch.optim.AdamW,
    index: int,
    first: int,
    seed: int,
    out: Path,
) -> None:
    """Run the steps of one stage from `first` on, with checkpoints and a line of metrics every 50 steps."""
    stage, device, started = course.stages[index], model.device, time.monotonic()
    for step in range(first, stage.steps):
        rate = stage.rate + (stage.last_rate - stage.rate) * step / stage.steps
        if index == 0:
            rate *= min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, hits = losses(model, batch(stage, step, seed, course.mixture, course.tokenizer), device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            line = {
                "stage": stage.name,
                "step": step,
                "loss": loss.item(),
                "hits": hits.item(),
                "s": time.monotonic() - started,
            }
            with (out / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            if hits.item() >= stage.enough:
                return
        if step % SAVE_EVERY == SAVE_EVERY - 1:
            at = {"stage": index, "step": step + 1}
            save(out / "last.pt", {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "at": at})
