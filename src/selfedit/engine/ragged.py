"""One forward pass over many sequences laid end to end: who sees whom, and the loss at the tokens that carry weight.

Nothing is padded: N tokens in one row, rotary positions that start again with each sequence, logits at labelled
positions only. Linear layers do not care; attention must keep the sequences apart, and transformers' own packing does
not do so reliably. So attention runs here, registered under a name of its own: sequences of like length go side by side
into one call of PyTorch's kernel, where padding wastes less than half and only in attention.

A model whose layers mix tokens elsewhere (state-space and convolution layers) or bring an attention of their own cannot
be packed. `can_pack` finds out by trial, on the model in hand: packed must equal alone. The others get a padded batch.

Axes: S sequences, N tokens of all of them, M positions once padded, L labels, J of them with soft targets, C tokens
that these name, V vocabulary, H heads, D width of a head.

    with packing(network, can_pack(network)) as is_packed:
        batch = Batch.of([(0, datum), (2, other)], is_packed, device)
        losses_L = label_losses(network, batch)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from selfedit.types import Datum

NAME = "selfedit_ragged"
WASTE = 2.0  # the most that attention may pad a sequence, as a multiple of its length
_FOLD: ContextVar[Fold] = ContextVar("fold")  # of the pass that is running: attention is handed nothing of the kind
_WINDOWS: ContextVar[set[int | None]] = ContextVar("windows")  # that attention was told of, while `can_pack` tries


@dataclass(frozen=True, eq=False, slots=True)
class Fold:
    """How N tokens end to end become rows of padded sequences, and come back.

    `shapes` lists the (rows, width) of each bucket. `fill_M` names the token at every padded position (a sequence's
    last one where there is nothing), `back_N` the padded position of every token.
    """

    shapes: tuple[tuple[int, int], ...]
    fill_M: Tensor
    back_N: Tensor

    @classmethod
    def of(cls, lengths_S: Sequence[int], device: torch.device, waste: float = 2.0) -> Self:
        """Put sequences into buckets in which none is padded to more than `waste` times its length."""
        starts_S = [0, *accumulate(lengths_S)]
        back_N = torch.empty(starts_S[-1], dtype=torch.long)
        shapes, fills, base = [], [], 0
        for bucket in _buckets(lengths_S, waste):
            width = max(lengths_S[s] for s in bucket)
            steps_T = torch.arange(width)
            for row, s in enumerate(bucket):
                fills.append(starts_S[s] + steps_T.clamp(max=lengths_S[s] - 1))
                back_N[starts_S[s] : starts_S[s + 1]] = base + row * width + steps_T[: lengths_S[s]]
            shapes.append((len(bucket), width))
            base += len(bucket) * width
        return cls(tuple(shapes), torch.cat(fills).to(device), back_N.to(device))


def _buckets(lengths_S: Sequence[int], waste: float) -> list[list[int]]:
    """Group the numbers of sequences, longest first, each group in its old order."""
    buckets: list[list[int]] = []
    widest = 0
    for s in sorted(range(len(lengths_S)), key=lambda s: -lengths_S[s]):
        if not buckets or widest > waste * lengths_S[s]:
            buckets.append([])
            widest = lengths_S[s]
        buckets[-1].append(s)
    return [sorted(bucket) for bucket in buckets]


@dataclass(frozen=True, eq=False, slots=True)
class Soft:
    """The soft targets of a pass: which labels have them, [J], the tokens named there and their log-probabilities.

    Where a position names fewer than C tokens, its first one stands in again, with a log-probability of -∞.
    """

    at_J: Tensor
    tokens_JC: Tensor
    logprobs_JC: Tensor

    @classmethod
    def of(cls, data: Sequence[Datum], device: torch.device) -> Self | None:
        """Collect what the labels of these sequences have; None where none has any."""
        rows = [
            (datum.soft.tokens[t], datum.soft.logprobs[t]) if datum.soft else ((), ()) for datum, t in _labels(data)
        ]
        told = [(place, tokens, logprobs) for place, (tokens, logprobs) in enumerate(rows) if tokens]
        if not told:
            return None
        width = max(len(tokens) for _, tokens, _ in told)
        tokens_JC = [(*tokens, *[tokens[0]] * (width - len(tokens))) for _, tokens, _ in told]
        logprobs_JC = [(*logprobs, *[-math.inf] * (width - len(logprobs))) for _, _, logprobs in told]
        return cls(
            torch.tensor([place for place, _, _ in told], device=device),
            torch.tensor(tokens_JC, device=device),
            torch.tensor(logprobs_JC, dtype=torch.float64, device=device),
        )


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Sequences laid out for one forward pass. The last token of each is only a label: T tokens have T - 1 inputs.

    Labels are the tokens with a weight other than 0, `predicted_at_L` the inputs that predict them, `owners_L` the
    numbers given with the sequences, `old_L` and `reference_L` the log-probabilities that come with them: NaN where a
    sequence brings none, None where none does. `soft` are the targets of a teacher, if any has one. Inputs after the
    last label are left out. `is_packed` False: padded on the right.
    """

    fold: Fold
    is_packed: bool
    owners_S: tuple[int, ...]
    lengths_S: tuple[int, ...]
    tokens_N: Tensor
    positions_N: Tensor
    labels_L: Tensor
    weights_L: Tensor
    predicted_at_L: Tensor
    owners_L: Tensor
    old_L: Tensor | None
    reference_L: Tensor | None
    soft: Soft | None

    @classmethod
    def of(cls, sequences: Sequence[tuple[int, Datum]], is_packed: bool, device: torch.device) -> Self:
        """Lay out sequences, each with the number of its owner; each has a label somewhere."""
        tokens: list[int] = []
        columns: list[tuple[int, float, int, int]] = []
        lengths: list[int] = []
        for owner, datum in sequences:
            at = labelled(datum)
            columns += [(datum.tokens[t], datum.weights[t], len(tokens) + t - 1, owner) for t in at]
            tokens += datum.tokens[: at[-1]]
            lengths.append(at[-1])
        labels, weights, predicted_at, owners = zip(*columns, strict=True)
        positions = [t for length in lengths for t in range(length)]
        tokens_N, positions_N = torch.tensor([tokens, positions], device=device)
        labels_L, predicted_at_L, owners_L = torch.tensor([labels, predicted_at, owners], device=device)
        return cls(
            fold=Fold.of(lengths, device, waste=WASTE if is_packed else math.inf),
            is_packed=is_packed,
            owners_S=tuple(owner for owner, _ in sequences),
            lengths_S=tuple(lengths),
            tokens_N=tokens_N,
            positions_N=positions_N,
            labels_L=labels_L,
            weights_L=torch.tensor(weights, dtype=torch.float64, device=device),
            predicted_at_L=predicted_at_L,
            owners_L=owners_L,
            old_L=_logprobs([(datum, datum.logprobs) for _, datum in sequences], device),
            reference_L=_logprobs([(datum, datum.reference) for _, datum in sequences], device),
            soft=Soft.of([datum for _, datum in sequences], device),
        )

    @property
    def widths_S(self) -> list[int]:
        """The inputs that the linear layers see of each sequence, padding included."""
        return list(self.lengths_S) if self.is_packed else [self.fold.shapes[0][1]] * len(self.lengths_S)

    @property
    def starts_S(self) -> list[int]:
        """Where each sequence begins among the inputs that the linear layers see."""
        return [0, *accumulate(self.widths_S)][:-1]

    def sizes(self, owners: int) -> list[int]:
        """Count the inputs that the linear layers see of each owner from 0 to `owners` - 1, padding included."""
        sizes = [0] * owners
        for owner, width in zip(self.owners_S, self.widths_S, strict=True):
            sizes[owner] += width
        return sizes


def passes(sequences: Sequence[tuple[int, Datum]], tokens: int) -> list[list[tuple[int, Datum]]]:
    """Cut sequences into passes of at most so many tokens; a longer sequence has a pass of its own."""
    parts: list[list[tuple[int, Datum]]] = []
    filled = tokens
    for owner, datum in sequences:
        if filled + len(datum.tokens) > tokens:
            parts.append([])
            filled = 0
        parts[-1].append((owner, datum))
        filled += len(datum.tokens)
    return parts


def labelled(datum: Datum) -> list[int]:
    """Return where the tokens are that carry weight; the first token is predicted by nothing."""
    return [t for t, weight in enumerate(datum.weights) if t and weight != 0]


def _labels(data: Sequence[Datum]) -> Iterator[tuple[Datum, int]]:
    """Give every label of a batch: its sequence, and where it is in that."""
    return ((datum, t) for datum in data for t in labelled(datum))


def _logprobs(given: Sequence[tuple[Datum, tuple[float, ...] | None]], device: torch.device) -> Tensor | None:
    """Pick out the log-probabilities of all labels, [L], if there are any."""
    if all(logprobs is None for _, logprobs in given):
        return None
    found = [logprobs[t] if logprobs else math.nan for datum, logprobs in given for t in labelled(datum)]
    return torch.tensor(found, dtype=torch.float64, device=device)


def label_losses(network: Any, batch: Batch) -> Tensor:
    """Cross-entropy of every label given what stands before it in its own sequence, [L], in fp32 or better."""
    return cross_entropies(label_logits(network, batch), batch)


def cross_entropies(logits_LV: Tensor, batch: Batch) -> Tensor:
    """Compare what may stand in the place of every label with what does, [L]."""
    return functional.cross_entropy(logits_LV, batch.labels_L, reduction="none")


def label_logits(network: Any, batch: Batch) -> Tensor:
    """Logits of what may stand in the place of every label, [L, V], in fp32 or better."""
    logits_LV = _packed_logits(network, batch) if batch.is_packed else _padded_logits(network, batch)
    return logits_LV.to(torch.promote_types(logits_LV.dtype, torch.float32))


def _packed_logits(network: Any, batch: Batch) -> Tensor:
    token = _FOLD.set(batch.fold)
    try:
        output = network(
            input_ids=batch.tokens_N[None],
            position_ids=batch.positions_N[None],
            attention_mask=None,
            use_cache=False,
            logits_to_keep=batch.predicted_at_L,
        )
    finally:
        _FOLD.reset(token)
    logits_LV: Tensor = output.logits[0]
    return logits_LV


def _padded_logits(network: Any, batch: Batch) -> Tensor:
    """The same with padding on the right, where causal layers never look."""
    tokens_ST = batch.tokens_N[batch.fold.fill_M].view(batch.fold.shapes[0])
    logits_MV: Tensor = network(input_ids=tokens_ST, use_cache=False).logits.flatten(0, 1)
    return logits_MV[batch.fold.back_N[batch.predicted_at_L]]


@contextmanager
def packing(network: Any, is_possible: bool) -> Iterator[bool]:
    """Let the network's attention run here, where that is possible; put its own back afterwards."""
    own = network.config._attn_implementation
    if is_possible:
        network.set_attn_implementation(NAME)
    try:
        yield is_possible
    finally:
        if is_possible:
            network.set_attn_implementation(own)


@torch.no_grad()
def can_pack(network: Any) -> bool:
    """Try: do two sequences end to end give the logits that each has alone?"""
    if not network._supports_attention_backend:
        return False
    tokens = [t % network.config.get_text_config().vocab_size for t in range(3, 3 + 16 * 7, 7)]
    data = [Datum(tuple(tokens[:9]), (1.0,) * 9), Datum(tuple(tokens[9:]), (1.0,) * 7)]
    device = network.device
    alone = [_padded_logits(network, Batch.of([(0, datum)], False, device)) for datum in data]
    try:
        with packing(network, True), _listening() as told:
            together_LV = _packed_logits(network, Batch.of(list(enumerate(data)), True, device)).float()
    except (TypeError, ValueError, RuntimeError):  # an attention with arguments of its own
        return False
    if not _windows(network.config.get_text_config()) <= told:  # a window that only the mask knows
        return False
    alone_LV = torch.cat(alone).float()
    tolerance = 0.05 if network.dtype == torch.bfloat16 else 1e-4
    return bool((together_LV - alone_LV).square().mean().sqrt() <= tolerance * alone_LV.std())


def _windows(config: Any) -> set[int | None]:
    """List the windows that a configuration names, if sequences may be longer than they are."""
    kinds = getattr(config, "layer_types", None) or ["sliding_attention", "chunked_attention"]
    named = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    found = {getattr(config, named[kind], None) for kind in kinds if kind in named}
    return {window for window in found if window and window < getattr(config, "max_position_embeddings", math.inf)}


@contextmanager
def _listening() -> Iterator[set[int | None]]:
    told: set[int | None] = set()
    token = _WINDOWS.set(told)
    try:
        yield told
    finally:
        _WINDOWS.reset(token)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each sequence over itself; query, key, value [1, H, N, D] → [1, N, H, D]."""
    fold = _FOLD.get()
    _WINDOWS.get(set()).add(sliding_window)
    sizes = [rows * width for rows, width in fold.shapes]
    parts = [_Pad.apply(x[0].transpose(0, 1), fold).split(sizes) for x in (query, key, value)]  # type: ignore[no-untyped-call]
    outs = []
    for (rows, width), *buckets in zip(fold.shapes, *parts, strict=True):
        q, k, v = (x.view(rows, width, *x.shape[1:]).transpose(1, 2) for x in buckets)
        mask = _window(width, sliding_window, q.device) if sliding_window and width > sliding_window else None
        out = _soft_capped(q, k, v, mask, scaling, softcap) if softcap else _plain(q, k, v, mask, scaling)
        outs.append(out.transpose(1, 2).flatten(0, 1))
    return _Unpad.apply(torch.cat(outs), fold)[None], None  # type: ignore[no-untyped-call]


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )


def _soft_capped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float | None, cap: float) -> Tensor:
    """Gemma 2's attention, whose scores are squeezed into ±cap: no kernel of PyTorch's does that."""
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    scores = cap * torch.tanh(q @ k.mT * (scaling or q.shape[-1] ** -0.5) / cap)
    mask = _window(q.shape[2], None, q.device) if mask is None else mask
    return scores.masked_fill(~mask, -math.inf).softmax(-1, dtype=torch.float32).to(v.dtype) @ v


def _window(width: int, window: int | None, device: torch.device) -> Tensor:
    """Who sees whom, [T, T]: what came before, and no further back than the window."""
    steps_T = torch.arange(width, device=device)
    distance_TT = steps_T[:, None] - steps_T
    return (distance_TT >= 0) & (distance_TT < (window or width))


class _Pad(torch.autograd.Function):
    """Tokens end to end to padded rows. Causality keeps gradients from the padding, so backward is the way back."""

    @staticmethod
    def forward(ctx: Any, x_NHD: Tensor, fold: Fold) -> Tensor:
        ctx.fold = fold
        return x_NHD.index_select(0, fold.fill_M)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].index_select(0, ctx.fold.back_N), None


class _Unpad(torch.autograd.Function):
    """Padded rows to tokens end to end."""

    @staticmethod
    def forward(ctx: Any, x_MHD: Tensor, fold: Fold) -> Tensor:
        ctx.fold = fold
        return x_MHD.index_select(0, fold.back_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient_NHD = gradients[0]
        padded = gradient_NHD.new_zeros(len(ctx.fold.fill_M), *gradient_NHD.shape[1:])
        return padded.index_copy_(0, ctx.fold.back_N, gradient_NHD), None


AttentionInterface.register(NAME, _attend)
