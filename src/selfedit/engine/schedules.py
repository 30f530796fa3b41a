"""What a training job does when: the seeds, the batches and the learning rates of its steps.

Every random number of a job comes from a generator of its own, named by purpose; nothing draws from the global one, and
nothing here knows what else is being trained.
"""

from __future__ import annotations

import math
from random import Random

import torch
from torch import Tensor

from selfedit.types import Schedule


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
