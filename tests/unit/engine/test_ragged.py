"""How sequences are laid end to end and come back: nothing lost, little padded, whatever the lengths.

That packed is alone on real models stands in `test_architectures.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from selfedit.engine.ragged import _FOLD, NAME, Batch, Fold, _attend, can_pack, labelled, packing, passes
from selfedit.types import Datum
from tests.unit.engine.conftest import bare, ragged

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 70), min_size=1, max_size=12)


@given(LENGTHS, st.sampled_from([1.0, 1.5, 2.0, float("inf")]))
def test_a_fold_pads_every_sequence_in_a_row_of_its_own_and_brings_it_back(lengths: list[int], waste: float) -> None:
    fold = Fold.of(lengths, CPU, waste)
    tokens_N = torch.arange(sum(lengths))
    padded_M = tokens_N[fold.fill_M]
    assert len(padded_M) == sum(rows * width for rows, width in fold.shapes)
    assert torch.equal(padded_M[fold.back_N], tokens_N)
    owners_N = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    found, start = [], 0
    for rows, width in fold.shapes:
        for row_T in owners_N[fold.fill_M[start : start + rows * width]].view(rows, width):
            found.append(int(row_T[0]))
            assert row_T.unique().tolist() == found[-1:], "a row holds tokens of two sequences"
            assert width <= waste * lengths[found[-1]]
        start += rows * width
    assert sorted(found) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 100))
def test_passes_hold_everything_in_order_and_no_more_than_they_may(lengths: list[int], tokens: int) -> None:
    sequences = [(owner, Datum((1,) * n, (1.0,) * n)) for owner, n in enumerate(lengths)]
    parts = passes(sequences, tokens)
    assert [pair for part in parts for pair in part] == sequences
    sizes = [sum(len(datum.tokens) for _, datum in part) for part in parts]
    assert all(size <= tokens or len(part) == 1 for size, part in zip(sizes, parts, strict=True))
    assert all(a + len(part[0][1].tokens) > tokens for a, part in zip(sizes, parts[1:], strict=False))


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, -0.5, 0.3]), min_size=2, max_size=9), min_size=1, max_size=6))
def test_a_batch_knows_every_label_its_owner_and_where_it_is_predicted(weights: list[list[float]]) -> None:
    drawn = [Datum(tuple(range(10 * i, 10 * i + len(w))), tuple(w)) for i, w in enumerate(weights, start=1)]
    sequences = [(i // 2, datum) for i, datum in enumerate(drawn) if labelled(datum)]
    if not sequences:
        return
    batch = Batch.of(sequences, True, CPU)
    labels = [(owner, d.tokens[t], d.weights[t], d.tokens[t - 1]) for owner, d in sequences for t in labelled(d)]
    found = zip(
        batch.owners_L.tolist(),
        batch.labels_L.tolist(),
        batch.weights_L.tolist(),
        batch.tokens_N[batch.predicted_at_L].tolist(),
        strict=True,
    )
    assert list(found) == labels
    starts = (batch.positions_N == 0).nonzero()[:, 0].tolist()
    assert batch.tokens_N[starts].tolist() == [d.tokens[0] for _, d in sequences]
    assert sum(batch.sizes(3)) == len(batch.tokens_N) == sum(max(labelled(d)) for _, d in sequences)
    assert sum(Batch.of(sequences, False, CPU).sizes(3)) == max(batch.lengths_S) * len(sequences)


@pytest.mark.parametrize(
    ("window", "cap"), [(None, None), (4, None), (None, 1.5), (4, 1.5)], ids=["plain", "window", "cap", "both"]
)
def test_attention_is_softmax_over_what_came_before_in_the_same_sequence(window: int | None, cap: float | None) -> None:
    lengths = [11, 3, 7, 1, 12]
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, sum(lengths), 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2)
    )
    token = _FOLD.set(Fold.of(lengths, CPU))
    try:
        ours, _ = _attend(None, query, key, value, None, scaling=0.3, sliding_window=window, softcap=cap)
    finally:
        _FOLD.reset(token)
    tolerance = 1e-5 if cap else 1e-10  # the softmax of the soft-capped is Gemma's, in fp32
    expected = obvious(query, key, value, lengths, window, cap)
    torch.testing.assert_close(ours[0], expected, rtol=tolerance, atol=tolerance)
    weights = torch.randn_like(expected)
    gradients = torch.autograd.grad((ours[0] * weights).sum(), (query, key, value))
    for mine, theirs in zip(
        gradients, torch.autograd.grad((expected * weights).sum(), (query, key, value)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


def obvious(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], window: int | None, cap: float | None
) -> Tensor:
    """Every token by itself, [N, H, D]."""
    rows, start = [], 0
    for length in lengths:
        for t in range(start, start + length):
            first = max(start, t + 1 - (window or length))
            k, v = (x[0, :, first : t + 1].repeat_interleave(2, 0) for x in (key, value))
            scores = 0.3 * (k @ query[0, :, t, :, None])[..., 0]
            scores = cap * functional.tanh(scores / cap) if cap else scores
            rows.append((scores.softmax(-1)[:, None] @ v)[:, 0])
        start += length
    return torch.stack(rows)


@pytest.fixture(scope="module")
def network(tiny_model_dir: Path) -> Any:
    return bare(tiny_model_dir)


def test_packing_puts_the_networks_own_attention_back_whatever_happens(network: Any) -> None:
    with pytest.raises(KeyError), packing(network, True):
        assert network.config._attn_implementation == NAME
        raise KeyError
    assert network.config._attn_implementation == "sdpa"
    with packing(network, False) as is_packed:
        assert not is_packed
        assert network.config._attn_implementation == "sdpa"


def test_a_network_whose_tokens_see_the_next_sequence_cannot_be_packed(network: Any) -> None:
    assert can_pack(network)

    def leak(module: Any, args: Any, out: Tensor) -> Tensor:
        return out + 0.1 * out.roll(1, dims=1) * (torch.arange(out.shape[1]) > 0)[:, None]

    handle = network.model.layers[0].mlp.register_forward_hook(leak)
    try:
        assert not can_pack(network)
    finally:
        handle.remove()
    assert can_pack(network)


def test_a_sequence_of_one_token_can_be_the_whole_pass(network: Any) -> None:
    with packing(network, True) as is_packed:
        batch = Batch.of([(0, ragged(2)[0])], is_packed, CPU)
        assert batch.lengths_S == (1,)
        assert len(batch.labels_L) == 1
