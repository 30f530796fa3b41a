"""The stack of LoRAs against one matrix product at a time: outputs, gradients, optimizer, slot by slot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from selfedit.engine.adapters import Lora
from selfedit.engine.lora import _NOW, Groups, LoraStack, Shape, StackedAdamW, add_outer_products, mounted_lora, product
from tests.unit.engine.conftest import bare

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


class Net(nn.Module):
    """Two layers, of which the second is called twice."""

    def __init__(self, widths: tuple[int, int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(*widths), nn.Linear(widths[1], widths[1], bias=False)
        self.dtype, self.device = dtype, CPU
        self.to(dtype).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.second(torch.tanh(self.second(torch.tanh(self.first(x))))))


def draw(rank: int, alpha: float, **widths: tuple[int, int]) -> Lora:
    weights = {name: (torch.randn(rank, i) * 0.3, torch.randn(o, rank) * 0.3) for name, (i, o) in widths.items()}
    return Lora(rank, alpha, weights)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("widths", [(16, 8), (7, 8), (16, 5), (3, 1)], ids=str)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_products_by_groups_are_products_group_by_group(
    dtype: torch.dtype, widths: tuple[int, int], sizes: list[int]
) -> None:
    torch.manual_seed(0)
    inputs, outputs = widths
    x_NI, y_NO = (torch.randn(sum(sizes), width).to(dtype) for width in widths)
    weights_KIO = torch.randn(len(sizes), outputs, inputs).to(dtype).mT
    wide = torch.promote_types(dtype, torch.float32)
    sums_KIO = torch.ones(len(sizes), inputs, outputs, dtype=wide)
    groups = Groups.of(sizes, CPU)
    out_NO = product(x_NI, weights_KIO, groups)
    add_outer_products(sums_KIO, x_NI, y_NO, groups)
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-5
    start = 0
    for k, size in enumerate(sizes):
        x, y = x_NI[start : start + size], y_NO[start : start + size]
        torch.testing.assert_close(out_NO[start : start + size], x @ weights_KIO[k], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(sums_KIO[k], 1 + (x.T @ y).to(wide), rtol=tolerance, atol=tolerance)
        assert size or bool((sums_KIO[k] == 1).all())
        start += size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("widths", [(16, 8), (7, 5)], ids=str)
def test_outputs_and_gradients_of_a_stack_are_those_of_every_lora_alone(
    dtype: torch.dtype, widths: tuple[int, int]
) -> None:
    torch.manual_seed(1)
    network = Net(widths, dtype)
    inner = (widths[1], widths[1])
    loras = [draw(2, 3.0, first=widths, second=inner), draw(5, 1.0, second=inner), draw(9, 4.0, first=widths)]
    sizes = [3, 6, 4]
    stack = LoraStack({"first": Shape(*widths), "second": Shape(*inner)}, 3, 9, network, learns=True)
    for slot, lora in enumerate(loras):
        stack.put(slot, lora)
    x_NI, direction_NO = (torch.randn(sum(sizes), width, dtype=dtype) for width in widths)
    with stack.hung_on(network), stack.during(Groups.of(sizes, CPU)):
        out_NO = network(x_NI[None])[0]
        (out_NO * direction_NO).sum().backward()
    parts = zip(loras, out_NO.split(sizes), x_NI.split(sizes), direction_NO.split(sizes), strict=True)
    assert stack.gradients_KW is not None
    gradients = stack._views(stack.gradients_KW)
    for slot, (lora, out, x, direction) in enumerate(parts):
        pairs = {name: tuple(t.to(dtype).requires_grad_() for t in pair) for name, pair in lora.weights.items()}
        expected = by_hand(network, pairs, lora.scale, x)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
        (expected * direction).sum().backward()
        for name in ("first", "second"):
            rest = 0
            for mine, theirs in zip(gradients[name], pairs.get(name, ()), strict=False):
                part = mine[slot, : theirs.shape[0], : theirs.shape[1]]
                torch.testing.assert_close(part, theirs.grad, rtol=1e-5, atol=1e-5)
                rest += int(mine[slot].count_nonzero() - part.count_nonzero())
            assert rest == 0, "something learns beyond the rank"
        assert all(not g[slot].any() for name in {"first", "second"} - pairs.keys() for g in gradients[name])


def by_hand(network: Net, pairs: dict[str, Any], scale: float, x: Tensor) -> Tensor:
    def layer(name: str, x: Tensor) -> Tensor:
        out = network.get_submodule(name)(x)
        return torch.as_tensor(out + scale * x @ pairs[name][0].T @ pairs[name][1].T if name in pairs else out)

    return layer("second", torch.tanh(layer("second", torch.tanh(layer("first", x)))))


def test_what_is_put_is_taken_out_again_and_nothing_of_the_one_before() -> None:
    network = Net((16, 8))
    stack = LoraStack({"first": Shape(16, 8), "second": Shape(8, 8)}, 2, 6, network)
    wide, narrow = draw(6, 2.0, first=(16, 8), second=(8, 8)), draw(3, 9.0, first=(16, 8))
    stack.put(1, wide)
    stack.put(1, narrow)
    taken = stack.take(1, narrow)
    assert (taken.rank, taken.alpha, taken.weights.keys()) == (3, 9.0, narrow.weights.keys())
    for mine, theirs in zip(taken.weights["first"], narrow.weights["first"], strict=True):
        assert torch.equal(mine, theirs)
    assert int(stack.weights_KW.count_nonzero()) == sum(t.numel() for t in narrow.weights["first"])
    stack.put(1, None)
    assert not stack.weights_KW.any()


def test_a_taken_lora_does_not_move_with_the_slot() -> None:
    stack = LoraStack({"first": Shape(16, 8)}, 1, 4, Net((16, 8)))
    lora = draw(4, 4.0, first=(16, 8))
    stack.put(0, lora)
    taken = stack.take(0, lora)
    stack.weights_KW.fill_(7.0)
    assert torch.equal(taken.weights["first"][0], lora.weights["first"][0])


def test_hooks_come_off_whatever_happens() -> None:
    network = Net((16, 8))
    stack = LoraStack({"first": Shape(16, 8), "second": Shape(8, 8)}, 1, 4, network)
    with pytest.raises(KeyError), stack.hung_on(network), stack.during(Groups.of([1], CPU)):
        raise KeyError
    assert not any(module._forward_hooks for module in network.modules())
    assert _NOW.get(None) is None


def test_a_pass_that_was_not_announced_is_refused() -> None:
    network = Net((16, 8))
    stack = LoraStack({"first": Shape(16, 8)}, 1, 4, network)
    with stack.hung_on(network):
        with pytest.raises(RuntimeError, match="whose tokens"):
            network(torch.zeros(3, 16))
        with pytest.raises(RuntimeError, match="first sees 3 of 4 tokens"), stack.during(Groups.of([4], CPU)):
            network(torch.zeros(3, 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_stacked_adamw_is_adamw_for_every_slot_with_its_own_rates(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    stack = LoraStack({"first": Shape(16, 8)}, 3, 4, Net((16, 8), dtype), learns=True)
    assert stack.weights_KW.dtype == torch.float32
    assert stack.gradients_KW is not None
    stack.weights_KW.normal_()
    rows = [nn.Parameter(row.clone()) for row in stack.weights_KW]
    decays, clips = (0.0, 0.1, 0.5), {0: 0.0, 1: 0.5, 2: 100.0}
    alone = [torch.optim.AdamW([row], weight_decay=d, foreach=False) for row, d in zip(rows, decays, strict=True)]
    ours = StackedAdamW(stack)
    for slot, decay in enumerate(decays):
        ours.restart(slot, decay)
    for step in range(6):
        moving = [slot for slot in range(3) if slot != 1 or step % 2]  # slot 1 rests every other step
        rates = {slot: 1e-2 * (slot + 1) / (step + 1) for slot in moving}
        stack.gradients_KW.normal_()
        for slot in moving:
            rows[slot].grad = stack.gradients_KW[slot].clone()
            if clips[slot]:
                nn.utils.clip_grad_norm_([rows[slot]], clips[slot])
            alone[slot].param_groups[0]["lr"] = rates[slot]
            alone[slot].step()
        ours.step(rates, {slot: clips[slot] for slot in moving})
        assert not stack.gradients_KW.any()
        torch.testing.assert_close(stack.weights_KW, torch.stack([row.detach() for row in rows]), rtol=1e-6, atol=1e-6)


def test_a_restarted_slot_is_a_new_one_and_the_others_go_on() -> None:
    stack = LoraStack({"first": Shape(16, 8)}, 2, 4, Net((16, 8)), learns=True)
    optimizer = StackedAdamW(stack)
    assert stack.gradients_KW is not None
    moved = []
    for step in range(4):
        if step in (0, 3):
            optimizer.restart(0, 0.0)
        if step == 0:
            optimizer.restart(1, 0.0)
        before = stack.weights_KW.clone()
        stack.gradients_KW.fill_(0.5 ** (2 * step))  # smaller by far: what is remembered shows
        optimizer.step({0: 1.0, 1: 1.0}, {})
        moved.append((stack.weights_KW - before).abs().max(dim=1).values.tolist())
    assert moved[0] == pytest.approx([1.0, 1.0])
    assert moved[3][0] == pytest.approx(1.0)
    assert moved[3][1] < 0.9


def test_a_mounted_lora_leaves_the_network_bit_by_bit_as_it_was(tiny_model_dir: Path) -> None:
    network = bare(tiny_model_dir)
    name = "model.layers.0.mlp.up_proj"
    weight = network.get_submodule(name).weight
    before = weight.clone()
    with pytest.raises(KeyError), mounted_lora(network, Lora(2, 2.0, {name: (torch.ones(2, 32), torch.ones(64, 2))})):
        assert not torch.equal(network.get_submodule(name).weight, before)
        raise KeyError
    assert network.get_submodule(name).weight is weight
    assert torch.equal(weight, before)
