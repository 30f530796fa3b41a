"""Families of transformers, tiny and random: many at once is each alone, packed is padded, whatever the layers are.

Where sequences can be laid end to end, logits and losses are those that each sequence has alone in the model's own
attention: grouped heads, windows shorter than the sequences, soft caps, learned positions. Where they cannot (layers
that mix tokens by convolution or recurrence, windows that only the mask knows), `can_pack` says so and rows are padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, PretrainedConfig

from selfedit.engine.pool import Pool, Trained
from selfedit.engine.ragged import Batch, _packed_logits, can_pack, label_losses, labelled, packing
from selfedit.types import Datum, Failure, TrainJob, TrainSettings
from tests.unit.engine.conftest import WIDE, distance, lora, ragged, start, train_together, weighed

# GPT-2's layers are transposed, which matters to PEFT in merging only.
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}


def config(name: str, **changes: Any) -> Callable[[], PretrainedConfig]:
    """Make a configuration of the class `name` of transformers; a change to None leaves the setting out."""
    values = {key: value for key, value in (SIZES | changes).items() if value is not None}
    make: Callable[..., PretrainedConfig] = getattr(transformers, name)
    return lambda: make(**values)


PACKED = {
    "llama": config("LlamaConfig"),
    "qwen2": config("Qwen2Config"),
    "qwen2-window": config("Qwen2Config", use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "qwen3": config("Qwen3Config", head_dim=8),
    "qwen3-moe": config("Qwen3MoeConfig", head_dim=8, **EXPERTS),
    "mistral": config("MistralConfig", sliding_window=6),
    "gemma": config("GemmaConfig", head_dim=8),
    "gemma2": config("Gemma2Config", head_dim=8, sliding_window=6, attn_logit_softcapping=2.0, query_pre_attn_scalar=8),
    "gemma3": config("Gemma3TextConfig", head_dim=8, sliding_window=6, query_pre_attn_scalar=8, **ALTERNATING),
    "phi": config("PhiConfig", partial_rotary_factor=0.5),
    "phi3": config("Phi3Config", sliding_window=6),
    "gpt-neox": config("GPTNeoXConfig", num_key_value_heads=None),
    "gpt2": config("GPT2Config", num_key_value_heads=None),
    "olmo2": config("Olmo2Config"),
    "olmo3": config("Olmo3Config", sliding_window=6, **ALTERNATING),
    "granite": config("GraniteConfig", attention_multiplier=0.4, residual_multiplier=0.5, logits_scaling=2.0),
    "starcoder2": config("Starcoder2Config", sliding_window=6),
    "smollm3": config("SmolLM3Config", no_rope_layers=[1, 0]),
    "deepseek-v3": config(
        "DeepseekV3Config",
        num_key_value_heads=4,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=12,
        first_k_dense_replace=2,
    ),
}
PADDED = {
    "stablelm": config("StableLmConfig"),  # an attention of its own
    "gpt-oss": config(  # sinks, of which attention here knows nothing
        "GptOssConfig", head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=6, **ALTERNATING
    ),
    "bloom": config("BloomConfig", num_key_value_heads=None),
    "mamba": config("MambaConfig", state_size=4, num_attention_heads=None, num_key_value_heads=None),
    "lfm2": config("Lfm2Config", layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    "qwen3-next": config(
        "Qwen3NextConfig",
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        shared_expert_intermediate_size=16,
        **LINEAR,
        **EXPERTS,
    ),
    # Windows that stand in the mask alone, and are longer than what `can_pack` tries.
    "qwen2-moe-window": config(
        "Qwen2MoeConfig",
        use_sliding_window=True,
        sliding_window=20,
        max_window_layers=2,
        shared_expert_intermediate_size=16,
        **EXPERTS,
    ),
    "phimoe": config("PhimoeConfig", num_local_experts=4, sliding_window=20),
    "llama4": config("Llama4TextConfig", head_dim=8, attention_chunk_size=20, intermediate_size_mlp=64),
}
ALL = PACKED | PADDED
DATA = ragged(40, 3, 17, 8, 33, 5, 2, 41)  # more than one bucket in attention, and longer than every window
TARGETS = {  # where PEFT's "all-linear" means layers that it, or this engine, cannot adapt
    "mamba": ("in_proj", "x_proj"),  # of 10 outputs: no kernel takes that
    "qwen3-next": ("q_proj", "o_proj", "in_proj_qkvz", "out_proj"),
    **dict.fromkeys(("qwen3-moe", "gpt-oss", "phimoe", "llama4"), ("q_proj", "o_proj")),
}
SETTINGS = TrainSettings(rank=4, alpha=8.0, epochs=2, batch_size=2, learning_rate=2e-3)


def jobs_for(name: str) -> list[TrainJob]:
    settings = replace(SETTINGS, targets=TARGETS.get(name, "all-linear"))
    return [
        TrainJob(ragged(30, 4, 11, seed=1), settings, seed=1),
        TrainJob(weighed(ragged(7, 26, 2, 9, seed=2), 1.0, 0.5, -0.5, 0.0), replace(settings, rank=9), seed=2),
    ]


def build(make: Callable[[], PretrainedConfig]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoModelForCausalLM.from_config(make())
        for name, parameter in network.named_parameters():
            if "sinks" in name:
                nn.init.normal_(parameter)
    return network.eval().requires_grad_(False)


def alone(network: Any, datum: Datum) -> Tensor:
    """The logits at a sequence's labels, by nothing but the model itself, [L, V]."""
    tokens = torch.tensor([datum.tokens])
    at = torch.tensor([t - 1 for t in labelled(datum)])
    return torch.as_tensor(network(input_ids=tokens, use_cache=False).logits[0, at])


@torch.no_grad()
@pytest.mark.parametrize("name", ALL)
def test_sequences_end_to_end_give_what_each_gives_alone(name: str) -> None:
    network = build(ALL[name])
    assert can_pack(network) == (name in PACKED)
    data = (*DATA[:4], *weighed(DATA[4:], 0.0, 1.0, 0.0))
    expected = torch.cat([alone(network, datum) for datum in data])
    with packing(network, name in PACKED) as is_packed:
        batch = Batch.of(list(enumerate(data)), is_packed, network.device)
        losses = label_losses(network, batch)
        if is_packed:
            torch.testing.assert_close(_packed_logits(network, batch), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        losses, functional.cross_entropy(expected, batch.labels_L, reduction="none"), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", ALL)
def test_jobs_trained_together_learn_what_each_learns_alone(name: str) -> None:
    network, jobs = build(ALL[name]), jobs_for(name)
    assert_same(train_together(network, jobs), [train_together(network, [job])[0] for job in jobs])


@pytest.mark.parametrize("name", PACKED)
def test_packed_jobs_learn_what_padded_ones_learn(name: str) -> None:
    network = build(PACKED[name])
    works = [start(network, job) for job in jobs_for(name)]
    assert_same(*(Pool(network, WIDE, is_packed).train(works) for is_packed in (True, False)))


def assert_same(ours: Sequence[Trained | Failure], expected: Sequence[Trained | Failure]) -> None:
    for mine, theirs in zip(ours, expected, strict=True):
        assert isinstance(mine, Trained), mine
        assert isinstance(theirs, Trained), theirs
        assert mine.losses == pytest.approx(theirs.losses, rel=1e-5, abs=1e-5)
        assert distance(mine.update, theirs.update) < 1e-3
        assert all(bool(up.any()) for _, up in lora(mine.update).weights.values()), "a layer learnt nothing"


class Int8Linear(nn.Module):
    """A linear layer with weights in int8 and a scale: all that an adapter asks for is [..., in] → [..., out]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = float(linear.weight.abs().max() / 127)
        self.register_buffer("codes", (linear.weight / self.scale).round().to(torch.int8))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.get_buffer("codes").to(x.dtype) * self.scale, self.bias)


def test_adapters_learn_on_quantised_layers_and_leave_them_alone() -> None:
    network = build(PACKED["qwen2"])
    works = [start(network, job) for job in jobs_for("qwen2")]
    for name in works[0].start.weights:
        parent, _, last = name.rpartition(".")
        linear = network.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(network.get_submodule(parent), last, Int8Linear(linear))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert can_pack(network)
    pool = Pool(network, WIDE, True)
    assert_same(pool.train(works), [pool.train([work])[0] for work in works])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
