"""One LoRA trained on one frozen network: the hooks that hang it there, the loss, the schedule, the loop.

A LoRA that learns is a forward hook on each module that it adapts: `out + scale · x Aᵀ Bᵀ`. There is no wrapping and
unwrapping, since PEFT's injection costs more than a training step of a small model. All A and B lie in one flat tensor,
so that clipping and AdamW are single operations. A frozen LoRA is added to the weights in fp32, and is a hook like the
other in bf16, where adding would round small updates away.

What differs from the Trainer that SEAL uses: padding is left out of the loss; the base stays in evaluation mode, so
that only the adapter has dropout; every random number comes from generators of the job, none from the global one. Same
job, same device, same number of threads: the same adapter, bit by bit, whatever ran before.

Axes: N sequences of a job, B rows of a batch, T tokens.

    lora = train_lora(network, job, frozen=None, lora=fresh_lora(places, 32, 64.0, seeded(job.seed, "weights")))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from selfedit.engine.adapters import Lora
from selfedit.types import Datum, Schedule, TrainJob


def seeded(seed: int, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
    """Make the generator for one purpose ("weights", "order", "dropout") of a job: nothing else draws from it."""
    return torch.Generator(device).manual_seed(Random(f"{seed}/{purpose}").getrandbits(63))


def batches(count: int, size: int, epochs: int, generator: torch.Generator) -> list[Tensor]:
    """Cut a new permutation of `count` rows into batches of `size` for every epoch; an epoch's last may be smaller."""
    return [rows for _ in range(epochs) for rows in torch.randperm(count, generator=generator).split(size)]


def rate(schedule: Schedule, step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at `step` of `steps`, as in transformers: a linear rise, then the way to 0."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return step / rising
    progress = (step - rising) / max(1, steps - rising)
    return {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}[schedule]


def train_lora(network: Any, job: TrainJob, frozen: Lora | None, lora: Lora) -> Lora:
    """Train a copy of `lora` on top of `frozen`. Raises `FloatingPointError` when loss or weights stop being finite."""
    settings, device = job.settings, network.device
    flat, learning = _trainable(lora, device)
    gradient = flat.grad
    assert gradient is not None
    optimizer = torch.optim.AdamW([flat], lr=0.0, weight_decay=settings.weight_decay, fused=True)
    tokens_NT, weights_NT = pad_right(job.data)
    lengths_N = torch.tensor([len(datum.tokens) for datum in job.data])
    plan = batches(len(job.data), settings.batch_size, settings.epochs, seeded(job.seed, "order"))
    dropout = partial(_drop, share=settings.dropout, generator=seeded(job.seed, "dropout", device))
    with mounted(network, frozen), _learning(network, learning, dropout if settings.dropout else None):
        for step, rows_B in enumerate(plan):
            longest = int(lengths_N[rows_B].max())
            loss = _loss(network, tokens_NT[rows_B, :longest], weights_NT[rows_B, :longest])
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"the loss became {loss.item()} at step {step + 1} of {len(plan)}")
            if loss.requires_grad:
                loss.backward()
            if settings.clip:
                gradient.mul_((settings.clip / (gradient.norm() + 1e-6)).clamp(max=1.0))
            share = rate(settings.schedule, step, len(plan), settings.warmup)
            optimizer.param_groups[0]["lr"] = settings.learning_rate * share
            optimizer.step()
            gradient.zero_()
    if not bool(flat.isfinite().all()):
        raise FloatingPointError(f"the weights are no longer finite after {len(plan)} steps")
    weights = {name: (down.detach(), up.detach()) for name, (down, up) in learning.weights.items()}
    return Lora(lora.rank, lora.alpha, weights)


def _trainable(lora: Lora, device: torch.device) -> tuple[Tensor, Lora]:
    """Copy all A and B into one flat tensor, and view it as a LoRA whose gradients are views of the flat gradient."""
    tensors = [tensor for pair in lora.weights.values() for tensor in pair]
    flat = torch.cat([tensor.flatten() for tensor in tensors]).to(device)
    flat.grad = torch.zeros_like(flat)
    sizes = [tensor.numel() for tensor in tensors]
    views = []
    for tensor, value, gradient in zip(tensors, flat.split(sizes), flat.grad.split(sizes), strict=True):
        view = value.view_as(tensor).requires_grad_()
        view.grad = gradient.view_as(tensor)
        views.append(view)
    pairs = zip(views[::2], views[1::2], strict=True)
    return flat, Lora(lora.rank, lora.alpha, dict(zip(lora.weights, pairs, strict=True)))


def pad_right(data: Sequence[Datum]) -> tuple[Tensor, Tensor]:
    """Pad to the longest with id 0 and weight 0, on the right, where causal attention never looks; [N, T] both."""
    longest = max(len(datum.tokens) for datum in data)
    tokens_NT = [[*datum.tokens, *[0] * (longest - len(datum.tokens))] for datum in data]
    weights_NT = [[*datum.weights, *[0.0] * (longest - len(datum.weights))] for datum in data]
    return torch.tensor(tokens_NT), torch.tensor(weights_NT, dtype=torch.float32)


def _loss(network: Any, tokens_BT: Tensor, weights_BT: Tensor) -> Tensor:
    """Weighted mean of the cross-entropies, Σ w·ce / Σ |w|; 0 for a batch in which nothing has weight."""
    positions = (weights_BT[:, 1:] != 0).any(0).nonzero()[:, 0] + 1
    if not len(positions):
        return torch.zeros(())
    losses_BT = cross_entropy_at(network, tokens_BT, positions)
    weights_BT = weights_BT[:, positions].to(losses_BT.device)
    return (weights_BT * losses_BT).sum() / weights_BT.abs().sum()


def cross_entropy_at(network: Any, tokens_BT: Tensor, positions: Tensor) -> Tensor:
    """Cross-entropy of the tokens at `positions` given those before, [B, positions]; logits are made there only.

    No attention mask is needed, since padding is on the right and nothing before it sees it.
    """
    tokens_BT, positions = tokens_BT.to(network.device), positions.to(network.device)
    output = network(input_ids=tokens_BT[:, :-1], use_cache=False, logits_to_keep=positions - 1)
    losses = functional.cross_entropy(
        output.logits.flatten(0, 1).float(), tokens_BT[:, positions].flatten(), reduction="none"
    )
    return losses.view(len(tokens_BT), -1)


@contextmanager
def mounted(network: Any, lora: Lora | None) -> Iterator[None]:
    """Put a frozen LoRA (None: nothing) on the network, and take it off again whatever happens.

    In fp32 it is added to the weights, with which a small model decodes half as fast again as with hooks; the untouched
    parameter is set aside and put back, so the base returns bit by bit. What is no plain fp32 linear layer gets a hook.
    """
    with ExitStack() as stack:
        for name, pair in lora.weights.items() if lora else ():
            module, scale = network.get_submodule(name), lora.scale if lora else 0.0
            if type(module) is nn.Linear and module.weight.dtype == torch.float32:
                stack.callback(setattr, module, "weight", module.weight)
                module.weight = nn.Parameter(module.weight.addmm(pair[1], pair[0], alpha=scale), requires_grad=False)
            else:
                stack.callback(_hang(module, pair, scale, dropout=None))
        yield


@contextmanager
def _learning(network: Any, lora: Lora, dropout: Callable[[Tensor], Tensor] | None) -> Iterator[None]:
    """Hang the LoRA that is being trained on the network."""
    with ExitStack() as stack:
        for name, pair in lora.weights.items():
            stack.callback(_hang(network.get_submodule(name), pair, lora.scale, dropout))
        yield


def _hang(
    module: nn.Module, pair: tuple[Tensor, Tensor], scale: float, dropout: Callable[[Tensor], Tensor] | None
) -> Callable[[], None]:
    """Hook A and B onto a module; return what takes them off."""
    hook = partial(_add_lora, down=pair[0], up=pair[1], scale=scale, dropout=dropout)
    return module.register_forward_hook(hook).remove


def _add_lora(
    module: Any,
    args: tuple[Tensor, ...],
    out: Tensor,
    *,
    down: Tensor,
    up: Tensor,
    scale: float,
    dropout: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """out + scale · x Aᵀ Bᵀ, in the dtype of x; the masters A and B stay fp32."""
    x = args[0].flatten(0, -2)
    low = (dropout(x) if dropout else x) @ down.to(x.dtype).T
    return torch.addmm(out.flatten(0, -2), low, up.to(x.dtype).T, alpha=scale).view_as(out)


def _drop(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Dropout from a given generator, which `torch.nn.functional.dropout` does not take."""
    keep = torch.empty_like(x).bernoulli_(1.0 - share, generator=generator)
    return x * keep.div_(1.0 - share)
