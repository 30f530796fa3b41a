"""Many LoRAs in one forward and backward pass: the stack that holds them, the product by groups, the hooks, AdamW.

K adapters of one frozen network lie in one tensor, a row each. A forward hook on every adapted module adds
`scale · B A x` for each token with the A and B of the slot that the token belongs to; tokens come sorted by slot, and
`Groups` says where each slot's begin and end. Nothing is padded. The backward pass writes gradients straight into rows
of one gradient tensor, so clipping and AdamW work slot by slot: one's learning rate, step count and clipping know
nothing of the others'.

Adapters of unlike rank or targets share a stack: what a slot does not have is zero in A and in B, and there gradients,
momentum and decay are zero for ever.

Why a hook and not a module in the linear layer's place, as in PEFT: nothing has to be put back, what is under it may be
any module that maps [..., in] to [..., out] (quantised ones too), and PEFT's injection costs more than a training step
of a small model. That every adapter trains as if it were alone is proved in tests/unit/engine/test_proofs.py.

Axes: K slots, N tokens of a pass sorted by slot, R rank, I inputs and O outputs of a module, W all weights of a slot.

    stack = LoraStack(shapes_of(loras), slots=16, rank=32, network=network)
    stack.put(0, lora)
    with stack.hung_on(network), stack.during(Groups.of([50, 0, 31, ...], device)):
        network(tokens)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from selfedit.engine.adapters import Lora

ALIGNMENT = 8  # `grouped_mm` wants every row of a matrix to start at a multiple of 16 bytes


@dataclass(frozen=True, eq=False, slots=True)
class Groups:
    """Which of N tokens belong to which slot: slot k has tokens `bounds[k]` to `bounds[k + 1]`; `ends_K` the same.

    `is_even`: every slot has the same number of them.
    """

    bounds: tuple[int, ...]
    ends_K: Tensor
    is_even: bool

    @classmethod
    def of(cls, sizes_K: Sequence[int], device: torch.device) -> Self:
        """Lay out groups of these sizes one after the other; a size may be 0."""
        bounds = (0, *accumulate(sizes_K))
        ends_K = torch.tensor(bounds[1:], dtype=torch.int32, device=device)
        return cls(bounds, ends_K, is_even=len(set(sizes_K)) == 1)


def product(x_NI: Tensor, weights_KIO: Tensor, groups: Groups) -> Tensor:
    """Multiply every token by the matrix of its slot, [N, O]."""
    if groups.is_even:
        return torch.bmm(x_NI.reshape(len(weights_KIO), -1, x_NI.shape[1]), weights_KIO).flatten(0, 1)
    if _has_kernel(x_NI, weights_KIO.shape[2]):
        return functional.grouped_mm(x_NI, weights_KIO, offs=groups.ends_K)
    out_NO = x_NI.new_empty(len(x_NI), weights_KIO.shape[2])
    for weights_IO, (start, end) in zip(weights_KIO, pairwise(groups.bounds), strict=True):
        torch.mm(x_NI[start:end], weights_IO, out=out_NO[start:end])
    return out_NO


def add_outer_products(sums_KIO: Tensor, x_NI: Tensor, y_NO: Tensor, groups: Groups) -> None:
    """Add Σ x yᵀ over the tokens of each slot to its matrix in `sums_KIO`; nothing to that of a slot without tokens."""
    if len(sums_KIO) > 1 and _has_kernel(x_NI, y_NO.shape[1]):
        sums_KIO.add_(functional.grouped_mm(x_NI.T, y_NO, offs=groups.ends_K))
        return
    for sums_IO, (start, end) in zip(sums_KIO, pairwise(groups.bounds), strict=True):
        sums_IO.add_(x_NI[start:end].T @ y_NO[start:end])


def _has_kernel(x_NI: Tensor, outputs: int) -> bool:
    """`grouped_mm` came with torch 2.10 and knows neither fp64 nor odd widths; the loop is the slow, obvious path."""
    is_aligned = x_NI.shape[1] % ALIGNMENT == 0 == outputs % ALIGNMENT
    return hasattr(functional, "grouped_mm") and x_NI.dtype in (torch.float32, torch.bfloat16) and is_aligned


class Shape(NamedTuple):
    """The widths of a module that is adapted."""

    inputs: int
    outputs: int


def shapes_of(loras: Iterable[Lora]) -> dict[str, Shape]:
    """List every module that one of the LoRAs adapts."""
    pairs = (item for lora in loras for item in lora.weights.items())
    return {name: Shape(down_RI.shape[1], up_OR.shape[0]) for name, (down_RI, up_OR) in pairs}


class Dropout(NamedTuple):
    """A sequence, tokens `start` to `end` of a pass, that drops a share of its inputs; every module draws anew."""

    start: int
    end: int
    share: float
    generator: Callable[[str], torch.Generator]


class LoraStack:
    """Room for `slots` LoRAs of at most `rank` on the modules of `network` that `shapes` names.

    `weights_KW` are masters in fp32; where the network computes in bf16, so do the hooks, with a copy that `refresh`
    renews. With `learns`, every backward pass adds to `gradients_KW`.
    """

    def __init__(self, shapes: Mapping[str, Shape], slots: int, rank: int, network: Any, learns: bool = False) -> None:
        self.slots = slots
        self.rank = aligned(rank)
        self._shapes = shapes
        self._dtype: torch.dtype = network.dtype
        device, master = network.device, torch.promote_types(network.dtype, torch.float32)
        width = sum(aligned(self.rank * size) for shape in shapes.values() for size in shape)
        self.weights_KW = torch.zeros(slots, width, device=device, dtype=master)
        self.gradients_KW = torch.zeros_like(self.weights_KW) if learns else None
        self._computed_KW = self.weights_KW if master == self._dtype else self.weights_KW.to(self._dtype)
        self._masters = self._views(self.weights_KW)
        self._factors = self._views(self._computed_KW)
        self._gradients = self._views(self.gradients_KW) if self.gradients_KW is not None else {}
        self._scales_K = torch.zeros(slots, device=device, dtype=master)
        # The first layer's input has no gradient; without this its LoRA would be left out of the backward pass.
        self._anchor = torch.zeros((), device=device, requires_grad=learns)

    @staticmethod
    def bytes_per_slot(shapes: Mapping[str, Shape], rank: int, learns: bool) -> int:
        """Count what a slot takes: weights and their copy, and when it learns a gradient and AdamW's two moments."""
        return sum(aligned(rank) * sum(shape) for shape in shapes.values()) * 4 * (5 if learns else 2)

    def put(self, slot: int, lora: Lora | None, /) -> None:
        """Copy a LoRA into a slot, None: one that does nothing. What the slot held is gone."""
        self.weights_KW[slot].zero_()
        if lora is None:
            return
        self._scales_K[slot] = lora.scale
        for name, (down_RI, up_OR) in lora.weights.items():
            downs_KRI, ups_KOR = self._masters[name]
            downs_KRI[slot, : lora.rank] = down_RI
            ups_KOR[slot, :, : lora.rank] = up_OR

    def take(self, slot: int, like: Lora, /) -> Lora:
        """Copy a slot's LoRA out: rank, alpha and modules are those of `like`."""
        weights = {}
        for name in like.weights:
            downs_KRI, ups_KOR = self._masters[name]
            weights[name] = (downs_KRI[slot, : like.rank].clone(), ups_KOR[slot, :, : like.rank].clone())
        return Lora(like.rank, like.alpha, weights)

    def refresh(self) -> None:
        """Cast the masters to the dtype that is computed in, all at once."""
        if self._computed_KW is not self.weights_KW:
            self._computed_KW.copy_(self.weights_KW)

    @contextmanager
    def hung_on(self, network: Any) -> Iterator[None]:
        """Hang the hooks on the network, and take them off again whatever happens."""
        self.refresh()
        with ExitStack() as hooks:
            for name in self._shapes:
                hook = network.get_submodule(name).register_forward_hook(partial(self._add, name))
                hooks.callback(hook.remove)
            yield

    @contextmanager
    def during(self, groups: Groups, dropouts: Sequence[Dropout] = (), /) -> Iterator[None]:
        """Say whose tokens the next forward pass holds, and which sequences drop some of their inputs."""
        sizes_K = groups.ends_K.diff(prepend=groups.ends_K.new_zeros(1))
        scales_N = self._scales_K.repeat_interleave(sizes_K, output_size=groups.bounds[-1])
        token = _NOW.set(_Now(self, groups, scales_N[:, None], dropouts))
        try:
            yield
        finally:
            _NOW.reset(token)

    def forget_gradients(self) -> None:
        """Set all gradients to 0."""
        if self.gradients_KW is not None:
            self.gradients_KW.zero_()

    def _add(self, name: str, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        now = _NOW.get(None)
        if now is None:
            raise RuntimeError("a forward pass with adapters needs to be told whose tokens it holds")
        if now.stack is not self:
            return out
        x_NI = args[0].flatten(0, -2).to(self._dtype)
        if len(x_NI) != now.groups.bounds[-1]:
            raise RuntimeError(f"{name} sees {len(x_NI)} of {now.groups.bounds[-1]} tokens; choose other LoRA targets")
        x_NI = _drop(x_NI, name, now.dropouts) if now.dropouts else x_NI
        factors = _Factors(now, *self._factors[name], *self._gradients.get(name, (None, None)))
        delta: Tensor = _AddLora.apply(out.flatten(0, -2), x_NI, self._anchor, factors)  # type: ignore[no-untyped-call]
        return delta.view_as(out)

    def _views(self, flat_KW: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """View the rows as A [K, R, I] and B [K, O, R] of every module."""
        views, start = {}, 0
        for name, (inputs, outputs) in self._shapes.items():
            middle = start + aligned(self.rank * inputs)
            views[name] = (
                flat_KW[:, start : start + self.rank * inputs].view(self.slots, self.rank, inputs),
                flat_KW[:, middle : middle + outputs * self.rank].view(self.slots, outputs, self.rank),
            )
            start = middle + aligned(outputs * self.rank)
        return views


def aligned(size: int) -> int:
    """Round up, so that what lies behind so many weights of a row begins where a kernel can read it."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class _Now(NamedTuple):
    """What the hooks need to know of the pass that this thread is running, and whose pass it is."""

    stack: LoraStack
    groups: Groups
    scales_N1: Tensor
    dropouts: Sequence[Dropout]


_NOW: ContextVar[_Now] = ContextVar("now")


class _Factors(NamedTuple):
    """What one module's hook computes with: A, B, and where their gradients go (None: nothing is learnt)."""

    now: _Now
    downs_KRI: Tensor
    ups_KOR: Tensor
    down_gradients_KRI: Tensor | None
    up_gradients_KOR: Tensor | None


class _AddLora(torch.autograd.Function):
    """out + scale · x Aᵀ Bᵀ, each token with the A and B of its slot; gradients of A and B are added to their rows."""

    @staticmethod
    def forward(ctx: Any, out_NO: Tensor, x_NI: Tensor, anchor: Tensor, factors: _Factors) -> Tensor:
        low_NR = product(x_NI, factors.downs_KRI.mT, factors.now.groups).mul_(factors.now.scales_N1)
        if factors.down_gradients_KRI is not None:
            ctx.save_for_backward(x_NI, low_NR)
            ctx.factors = factors
        return product(low_NR, factors.ups_KOR.mT, factors.now.groups).add_(out_NO)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        factors: _Factors = ctx.factors
        groups, scales_N1 = factors.now.groups, factors.now.scales_N1
        x_NI, low_NR = ctx.saved_tensors
        gradient_NO = gradients[0].contiguous()
        assert factors.down_gradients_KRI is not None and factors.up_gradients_KOR is not None
        add_outer_products(factors.up_gradients_KOR, gradient_NO, low_NR, groups)
        low_gradient_NR = product(gradient_NO, factors.ups_KOR, groups).mul_(scales_N1)
        add_outer_products(factors.down_gradients_KRI, low_gradient_NR, x_NI, groups)
        x_gradient_NI = product(low_gradient_NR, factors.downs_KRI, groups) if ctx.needs_input_grad[1] else None
        return gradient_NO, x_gradient_NI, None, None


def _drop(x_NI: Tensor, name: str, dropouts: Sequence[Dropout]) -> Tensor:
    """Dropout from a generator for each sequence and module: what else is in the pass, or adapted, changes no draw."""
    keep_NI = torch.ones_like(x_NI)
    for start, end, share, generator in dropouts:
        keep_NI[start:end].bernoulli_(1.0 - share, generator=generator(name)).div_(1.0 - share)
    return x_NI * keep_NI


class Stack(Protocol):
    """Updates that learn on one network, each in a slot: what the pool and the optimizer ask of a `LoraStack`, and of
    the `FullStack` with its one slot."""

    slots: int
    weights_KW: Tensor
    gradients_KW: Tensor | None

    def put(self, slot: int, update: Any, /) -> None: ...

    def take(self, slot: int, like: Any, /) -> Any: ...

    def refresh(self) -> None: ...

    def hung_on(self, network: Any) -> AbstractContextManager[None]: ...

    def during(self, groups: Groups, dropouts: Sequence[Dropout] = (), /) -> AbstractContextManager[None]: ...

    def forget_gradients(self) -> None: ...


class StackedAdamW:
    """AdamW and clipping over the slots of a stack, each with its own rate, decay, step count and norm."""

    def __init__(self, stack: Stack) -> None:
        assert stack.gradients_KW is not None
        self._gradients_KW = stack.gradients_KW
        self._rows = [nn.Parameter(weights_W) for weights_W in stack.weights_KW]
        self._optimizer = torch.optim.AdamW([{"params": [row]} for row in self._rows], lr=0.0, fused=True)
        # A step that moves nothing makes PyTorch allocate the moments: now, where too little memory means fewer slots.
        self.step(dict.fromkeys(range(stack.slots), 0.0), {})

    def restart(self, slot: int, weight_decay: float) -> None:
        """Forget a slot's moments and its step count."""
        for tensor in self._optimizer.state[self._rows[slot]].values():
            tensor.zero_()
        self._optimizer.param_groups[slot]["weight_decay"] = weight_decay

    def step(self, rates: Mapping[int, float], clips: Mapping[int, float]) -> None:
        """Move the slots in `rates` at these learning rates, their gradients clipped to these norms; 0: not clipped.

        The others stay as they are: neither momentum nor decay moves them. All gradients are 0 afterwards.
        """
        for slot, group in enumerate(self._optimizer.param_groups):
            self._rows[slot].grad = self._gradients_KW[slot] if slot in rates else None
            group["lr"] = rates.get(slot, 0.0)
            if clips.get(slot):
                gradient_W = self._gradients_KW[slot]
                gradient_W.mul_((clips[slot] / (gradient_W.norm() + 1e-6)).clamp(max=1.0))
        self._optimizer.step()
        self._gradients_KW.zero_()


@contextmanager
def mounted_lora(network: Any, lora: Lora) -> Iterator[None]:
    """Put a frozen LoRA on the network for all tokens, and take it off again whatever happens.

    In fp32 it is added to the weights, with which a small model decodes half as fast again as with hooks; the untouched
    parameter is set aside and put back, so the base returns bit by bit. In bf16, where adding would round small updates
    away, and on what is no plain linear layer, it is a hook.
    """
    with ExitStack() as stack:
        for name, pair in lora.weights.items():
            module = network.get_submodule(name)
            if type(module) is nn.Linear and module.weight.dtype == pair[0].dtype:
                stack.callback(setattr, module, "weight", module.weight)
                changed = module.weight.addmm(pair[1], pair[0], alpha=lora.scale)
                module.weight = nn.Parameter(changed, requires_grad=False)
            else:
                hook = module.register_forward_hook(partial(_add_frozen, pair=pair, scale=lora.scale))
                stack.callback(hook.remove)
        yield


def _add_frozen(
    module: nn.Module, args: tuple[Tensor, ...], out: Tensor, *, pair: tuple[Tensor, Tensor], scale: float
) -> Tensor:
    down_RI, up_OR = (factor.to(args[0].dtype) for factor in pair)
    return torch.addmm(out.flatten(0, -2), args[0].flatten(0, -2) @ down_RI.T, up_OR.T, alpha=scale).view_as(out)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell running out of memory from other errors; PyTorch has a class for it on CUDA only."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
