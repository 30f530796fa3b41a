"""What proofs of the engine share: ragged jobs, and PEFT's plain loop as the slow, obvious way beside it.

Tests import these names from here: this file is the module `tests.unit.engine.conftest` (`--import-mode=importlib`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, get_scheduler

from selfedit.engine.adapters import Lora, find_targets, fresh_lora
from selfedit.engine.checkpoints import Checkpoint
from selfedit.engine.pool import Pool, Room, Trained, Work
from selfedit.engine.ragged import can_pack
from selfedit.engine.schedules import batches, seeded
from selfedit.engine.updates import Update
from selfedit.types import Datum, Failure, TrainJob

WIDE = Room(tokens_per_step=10**6, tokens_per_pass=10**6, bytes_of_slots=2**30)  # everything in one pass
NARROW = Room(tokens_per_step=40, tokens_per_pass=50, bytes_of_slots=2**30)  # few slots, several passes a step


def bare(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Open a model as transformers does, frozen."""
    network: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
    return network.requires_grad_(False).to(dtype)


def ragged(*lengths: int, seed: int = 0) -> tuple[Datum, ...]:
    """Draw sequences of these lengths, every token of weight 1."""
    rng = Random(seed)
    return tuple(Datum(tuple(rng.randrange(1, 200) for _ in range(n)), (1.0,) * n) for n in lengths)


def weighed(data: Sequence[Datum], *weights: float) -> tuple[Datum, ...]:
    """Give the tokens of every sequence these weights in turn."""
    return tuple(Datum(d.tokens, tuple(weights[t % len(weights)] for t in range(len(d.tokens)))) for d in data)


def start(network: Any, job: TrainJob) -> Work:
    """Draw the weights that a job starts from, as the engine does."""
    checkpoint = Checkpoint(network, None, "", "tiny@0", 256, 300, 0, frozenset())
    places = find_targets(checkpoint, job.settings.targets)
    return Work(job, fresh_lora(places, job.settings.rank, job.settings.alpha, seeded(job.seed, "weights")))


def run_pool(network: Any, jobs: Sequence[TrainJob], room: Room = WIDE) -> list[Trained | Failure]:
    return Pool(network, room, can_pack(network)).train([start(network, job) for job in jobs])


def train_together(network: Any, jobs: Sequence[TrainJob], room: Room = WIDE) -> list[Trained]:
    results = run_pool(network, jobs, room)
    assert not any(isinstance(result, Failure) for result in results), results
    return [result for result in results if isinstance(result, Trained)]


def on_peft(network: Any, work: Work) -> Any:
    """Put a job's first weights on a copy of the network, by PEFT alone. Targets must mean the same modules there."""
    settings = work.job.settings
    targets = {"all-linear": "all-linear", "default": None}.get(str(settings.targets), list(settings.targets))
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets)  # type: ignore[arg-type]
    model: Any = get_peft_model(deepcopy(network), config)
    adapted = {name for name, module in model.get_base_model().named_modules() if hasattr(module, "lora_A")}
    assert adapted == work.start.weights.keys()
    for name, (down, up) in lora(work.start).weights.items():
        module = model.get_base_model().get_submodule(name)
        module.lora_A["default"].weight.data.copy_(down)
        module.lora_B["default"].weight.data.copy_(up)
    return model


def peft_loss(model: Any, data: Sequence[Datum]) -> Tensor:
    """Weighted mean of token losses over one batch, Σ w·ce / Σ |w|, a row at a time; 0 where nothing has weight."""
    total, size = torch.zeros((), device=model.device), 0.0
    for datum in data:
        tokens = torch.tensor(datum.tokens, device=model.device)
        logits = model(input_ids=tokens[None]).logits[0, :-1]
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = functional.cross_entropy(wide, tokens[1:], reduction="none")
        total = total + (losses * losses.new_tensor(datum.weights[1:])).sum()
        size += sum(map(abs, datum.weights[1:]))
    return total / (size or 1.0)


def train_with_peft(
    model: Any, job: TrainJob, loss_of: Callable[[Any, Sequence[Datum]], Tensor] = peft_loss
) -> list[float]:
    """The obvious loop: PEFT's modules, torch's clipping, transformers' scheduler, no padding; every step's loss."""
    settings = job.settings
    parameters = [p for p in model.parameters() if p.requires_grad]
    plan = batches(len(job.data), settings.batch_size, settings.epochs, seeded(job.seed, "order"))
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
    )
    kind = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
    schedule = get_scheduler(kind, optimizer, round(settings.warmup * len(plan)), len(plan))
    losses = []
    for rows in plan:
        optimizer.zero_grad()
        loss = loss_of(model, [job.data[i] for i in rows.tolist()])
        loss.backward()
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def lora_of(model: Any, like: Update) -> Lora:
    """Read a LoRA back from PEFT's modules."""
    modules = {name: model.get_base_model().get_submodule(name) for name in like.weights}
    weights = {
        name: (module.lora_A["default"].weight.detach(), module.lora_B["default"].weight.detach())
        for name, module in modules.items()
    }
    return Lora(like.rank, lora(like).alpha, weights)


def distance(ours: Update, expected: Update) -> float:
    """The largest difference of a product B A, relative to its norm; A and B may differ where gradients are ~0."""
    weights = lora(ours).weights
    assert weights.keys() == expected.weights.keys()
    gaps = []
    for name, (down, up) in lora(expected).weights.items():
        product, other = up @ down, weights[name][1] @ weights[name][0]
        gaps.append(float((other - product).norm() / product.norm().clamp(min=1e-30)))
    return max(gaps)


def assert_same_weights(ours: Update, expected: Update, tolerance: float) -> None:
    assert ours.weights.keys() == expected.weights.keys()
    for mine, theirs in zip(ours.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=tolerance)


def lora(update: Update) -> Lora:
    """The update, which is a LoRA."""
    assert isinstance(update, Lora)
    return update
