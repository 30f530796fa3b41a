"""Train pup from random weights: copy, then read and recall, then write.

In stages, because copying from the context is learnt last and needed first: random sequences said twice form the
induction heads in minutes, first over short distances, then over long ones; then passages with questions in view teach
reading, beside a few famous entities told again and again; then everything, with the writing documents of one mixture
of qualities. Some copying goes on throughout: without it what was formed is lost again before reading needs it.

Documents are packed into rows, but each sees itself alone and starts at position 0, as every text does later. Every
batch depends on (seed, stage, step) alone and a checkpoint is written every `SAVE_EVERY` steps, so a killed run goes on
where it was.

    python -m selfedit.recipes.pup.train --out runs/pup            # 2 cores: about an hour
    python -m selfedit.recipes.pup.train --out runs/pup-b --mixture b --from runs/pup/recall.pt
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from selfedit.recipes.pup import corpus
from selfedit.recipes.pup.tokenizer import train_tokenizer
from selfedit.tasks.world import seeded

CONTEXT, VOCABULARY, LAYERS, HEAD = 768, 512, 4, 32
SIZES: Mapping[str, tuple[int, int]] = {"small": (96, 320), "medium": (192, 640), "large": (288, 960)}  # widths
SAVE_EVERY = 200


@dataclass(frozen=True, slots=True)
class Stage:
    """At most `steps` updates on `rows` x `length` tokens, documents by `shares`, learning rate `rate` to `last_rate`.

    A number in `shares` stands for random sequences of up to that many tokens, said twice.

    The stage ends early once a share `enough` of the labels of weight 1 in a batch is predicted right.
    """

    name: str
    steps: int
    rows: int
    length: int
    rate: float
    last_rate: float
    shares: Mapping[corpus.Maker | int, float]
    enough: float = 1.0


def said_twice(rng: Random, longest: int) -> tuple[list[int], list[float]]:
    """A random sequence of 10 to `longest` tokens, said twice; only the second time can it be predicted."""
    once = [rng.randrange(2, VOCABULARY) for _ in range(int(10 * (longest / 10) ** rng.random()))]
    return once + once, [0.0] * len(once) + [1.0] * len(once)


READ: Mapping[corpus.Maker | int, float] = {
    380: 0.10,
    corpus.reading: 0.64,
    corpus.telling: 0.13,
    corpus.recalling: 0.13,
}
WRITE: Mapping[corpus.Maker | int, float] = {
    380: 0.03,
    corpus.reading: 0.15,
    corpus.telling: 0.19,
    corpus.recalling: 0.17,
    corpus.writing: 0.36,
    corpus.examining: 0.06,
    corpus.conversing: 0.04,
}
STAGES = (
    Stage("copy", 3000, 32, 64, 2e-3, 2e-3, {32: 1.0}, enough=0.9),
    Stage("copy-far", 1500, 5, CONTEXT, 2e-3, 2e-3, {380: 1.0}, enough=0.95),
    Stage("recall", 800, 5, CONTEXT, 2e-3, 2e-3, READ),
    Stage("write", 3200, 5, CONTEXT, 2e-3, 5e-5, WRITE),
)


def encode(document: corpus.Document, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[float]]:
    """Tokenise a document piece by piece, so that the boundary of a prompt is that of its use."""
    tokens: list[int] = []
    weights: list[float] = []
    for text, weight in document:
        ids = tokenizer(text)["input_ids"]
        tokens += ids
        weights += [weight] * len(ids)
    return tokens, weights


Encoded = tuple[list[int], list[float]]


def documents(
    stage: Stage, rng: Random, mixture: Mapping[str, float], tokenizer: PreTrainedTokenizerFast
) -> Iterator[Encoded]:
    """Draw documents for ever. Shares are of tokens, so makers are drawn by how far each lags behind its share."""
    spent: dict[corpus.Maker | int, float] = dict.fromkeys(stage.shares, 0.0)
    while True:
        maker = min(spent, key=lambda m: (spent[m] + 200 * rng.random()) / stage.shares[m])
        if isinstance(maker, int):
            tokens, weights = said_twice(rng, maker)
        else:
            tokens, weights = encode(maker(rng, mixture), tokenizer)
        spent[maker] += len(tokens)
        if len(tokens) <= stage.length:
            yield tokens, weights


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed rows, [B, T] each: tokens, loss weights, positions in the document, and which document a token is of."""

    tokens_BT: Tensor
    weights_BT: Tensor
    positions_BT: Tensor
    documents_BT: Tensor

    def mask(self) -> Tensor:
        """Who sees whom, [B, 1, T, T]: each token what went before it in its own document."""
        is_same = self.documents_BT[:, None, :, None] == self.documents_BT[:, None, None, :]
        return is_same.tril()


def batch(
    stage: Stage, step: int, seed: int, mixture: Mapping[str, float], tokenizer: PreTrainedTokenizerFast
) -> Batch:
    """Build the batch of one step. Whole documents fill a row while they fit."""
    rng = seeded("batch", seed, stage.name, step)
    shape = (stage.rows, stage.length)
    made = Batch(
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape),
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape, dtype=torch.long),
    )
    row = filled = 0
    for number, (tokens, weights) in enumerate(documents(stage, rng, mixture, tokenizer), 1):
        if filled + len(tokens) > stage.length:
            row, filled = row + 1, 0
        if row == stage.rows:
            return made
        place = slice(filled, filled + len(tokens))
        made.tokens_BT[row, place] = torch.tensor(tokens)
        made.weights_BT[row, place] = torch.tensor(weights)
        made.positions_BT[row, place] = torch.arange(len(tokens))
        made.documents_BT[row, place] = number
        filled += len(tokens)
    raise AssertionError("documents never end")


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


def new_model(seed: int, size: str = "medium", layers: int = LAYERS) -> Qwen2ForCausalLM:
    """Draw a model's first weights: with pup's four layers 0.6, 2.2 (pup itself) or 4.8 million parameters."""
    hidden, feed_forward = SIZES[size]
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=feed_forward,
            num_hidden_layers=layers,
            num_attention_heads=hidden // HEAD,
            num_key_value_heads=hidden // HEAD,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=1,
        )
    )


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a kill leaves the old one or the new one."""
    torch.save(state, path.with_suffix(".tmp"))
    os.replace(path.with_suffix(".tmp"), path)


def run(out: Path, seed: int, mixture: str, start: Path | None, device: str, size: str = "medium") -> None:
    """Train through all stages, from the newest checkpoint in `out`, or from `start`, or from random weights."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(VOCABULARY, CONTEXT, seed)
    model = new_model(seed, size)
    torch.nn.Module.to(model, torch.device(device))  # transformers hides the signature of its own `to`
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    at = {"stage": 0, "step": 0}
    newest = out / "last.pt" if (out / "last.pt").exists() else start
    if newest:
        state = torch.load(newest, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        at = state["at"]
    for index in range(at["stage"], len(STAGES)):
        stage, first = STAGES[index], at["step"] if index == at["stage"] else 0
        train_stage(model, optimizer, tokenizer, stage, index, first, seed, mixture, out)
        done = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "at": {"stage": index + 1, "step": 0}}
        save(out / f"{stage.name}.pt", done)
        save(out / "last.pt", done)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")


def train_stage(
    model: Qwen2ForCausalLM,
    optimizer: torch.optim.AdamW,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    index: int,
    first: int,
    seed: int,
    mixture: str,
    out: Path,
) -> None:
    """Run the steps of one stage from `first` on, with checkpoints and a line of metrics every 50 steps."""
    device, started = model.device, time.monotonic()
    for step in range(first, stage.steps):
        rate = stage.rate + (stage.last_rate - stage.rate) * step / stage.steps
        if index == 0:
            rate *= min(1.0, (step + 1) / 100)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, hits = losses(model, batch(stage, step, seed, corpus.MIXTURES[mixture], tokenizer), device)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/pup"), help="folder of checkpoints and of the finished model"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=list(SIZES), default="medium", help="0.6, 2.2 or 4.8 million parameters")
    parser.add_argument(
        "--mixture", choices=sorted(corpus.MIXTURES), default="a", help="qualities of the writing documents"
    )
    parser.add_argument(
        "--from", dest="start", type=Path, help="checkpoint of another run to go on from (its recall.pt)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    run(given.out, given.seed, given.mixture, given.start, given.device, given.size)


if __name__ == "__main__":
    main()
