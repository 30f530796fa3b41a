"""Pack documents into rows: how the batches of both embedded models are built.

A document is a list of (text, loss weight) pieces and a maker draws one (`corpus`). Documents are packed into rows, but
each sees itself alone and starts at position 0, as every text does later. Every batch depends on (seed, stage, step)
alone, so that a killed run goes on where it was.

    given = batch(stage, step, seed, mixture, tokenizer)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from selfedit.recipes.pup.corpus import Document, Maker
from selfedit.tasks.world import seeded

Encoded = tuple[list[int], list[float]]


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
    shares: Mapping[Maker | int, float]
    enough: float = 1.0


def said_twice(rng: Random, longest: int, vocabulary: int) -> Encoded:
    """A random sequence of 10 to `longest` tokens, said twice; only the second time can it be predicted."""
    once = [rng.randrange(2, vocabulary) for _ in range(int(10 * (longest / 10) ** rng.random()))]
    return once + once, [0.0] * len(once) + [1.0] * len(once)


def encode(document: Document, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Tokenise a document piece by piece, so that the boundary of a prompt is that of its use."""
    tokens: list[int] = []
    weights: list[float] = []
    for text, weight in document:
        ids = tokenizer(text)["input_ids"]
        tokens += ids
        weights += [weight] * len(ids)
    return tokens, weights


def documents(
    stage: Stage, rng: Random, mixture: Mapping[str, float], tokenizer: PreTrainedTokenizerFast
) -> Iterator[Encoded]:
    """Draw documents for ever. Shares are of tokens, so makers are drawn by how far each lags behind its share."""
    vocabulary = len(tokenizer)
    spent: dict[Maker | int, float] = dict.fromkeys(stage.shares, 0.0)
    while True:
        maker = min(spent, key=lambda m: (spent[m] + 200 * rng.random()) / stage.shares[m])
        if isinstance(maker, int):
            tokens, weights = said_twice(rng, maker, vocabulary)
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
