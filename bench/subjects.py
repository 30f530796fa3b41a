"""What the arms are run on: networks of known shape with random weights, and the self-edits of workload B.

Weights are made in memory under a seed, on the device: what a multiplication costs does not depend on what is
multiplied. Every arm works on a twin of the network, a module tree of its own over the same weights, since PEFT
rebuilds the tree it is given.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, Self

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bench.workload import as_tokens
from selfedit.types import TrainSettings

Edit = Sequence[tuple[int, ...]]  # the training sequences of a self-edit, as tokens


@dataclass(frozen=True)
class Shape:
    """A network's shape, in the words of transformers' configurations."""

    model_type: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool = True


SHAPES: Mapping[str, Shape] = {
    "2M": Shape("qwen2", 192, 4, 6, 6, 640, 512),  # that of the embedded model
    "10M": Shape("qwen2", 384, 6, 6, 6, 896, 1024),
    "30M": Shape("qwen2", 512, 9, 8, 8, 1408, 1024),
    "100M": Shape("qwen2", 768, 14, 12, 12, 2048, 4096),
    "1B": Shape("llama", 2048, 16, 32, 8, 8192, 128256),  # Llama-3.2-1B
    "7B": Shape("qwen2", 3584, 28, 28, 4, 18944, 152064, tie_word_embeddings=False),  # Qwen2.5-7B
}


def toy(shape: Shape) -> Shape:
    """Shrink a shape to nothing, with its kind of attention and of head."""
    heads = 2 * min(2, shape.num_attention_heads // shape.num_key_value_heads)
    small: dict[str, Any] = {
        "hidden_size": 16 * heads,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "vocab_size": 256,
    }
    return replace(shape, **small, num_attention_heads=heads, num_key_value_heads=2)


def make_network(shape: Shape, dtype: torch.dtype, device: torch.device, seed: int) -> Any:
    """Make a frozen causal language model with random weights on the device."""
    fields = dict(vars(shape))
    config = AutoConfig.for_model(
        **fields, max_position_embeddings=2048, bos_token_id=None, eos_token_id=None, pad_token_id=0
    )
    torch.manual_seed(seed)
    with device:
        network: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return network.eval().requires_grad_(False)


def twin(network: Any) -> Any:
    """Copy the module tree over the same weights."""
    return copy.deepcopy(network, {id(weight): weight for weight in network.parameters()})


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with the self-edits that it is trained on."""

    model: str
    network: Any
    device: torch.device
    settings: TrainSettings
    edits: Sequence[Edit]
    workload: str = "B"

    @classmethod
    def of(
        cls, model: str, network: Any, targets: str, lengths: Sequence[Sequence[int]], seed: int, workload: str = "B"
    ) -> Self:
        """Fill the lengths with tokens, and settle the inner loop's settings."""
        edits = [as_tokens(lengths_S, network.config.vocab_size, seed + i) for i, lengths_S in enumerate(lengths)]
        return cls(model, network, network.device, TrainSettings(targets=targets), edits, workload)

    @cached_property
    def parameters(self) -> int:
        """Count the weights that are multiplied with: all but an input embedding that is not the head as well."""
        embedding = 0 if self.network.config.tie_word_embeddings else self.network.get_input_embeddings().weight.numel()
        return int(sum(weight.numel() for weight in self.network.parameters()) - embedding)

    @property
    def tokens(self) -> float:
        """Real tokens of the mean self-edit, all epochs."""
        return self.settings.epochs * fmean(sum(map(len, edit)) for edit in self.edits)

    @property
    def steps(self) -> float:
        """Steps of the mean self-edit, all epochs."""
        return self.settings.epochs * fmean(map(len, self.edits))

    def share(self, edits: Sequence[Edit], epochs: int) -> float:
        """Say how many mean self-edits' worth of tokens there are in `epochs` of these."""
        return epochs * sum(sum(map(len, edit)) for edit in edits) / self.tokens
