"""What a training step minimises: the loss of every label, and by what the sum over a job's batch is divided.

With w the weight of a label, π its probability now, π_old when it was drawn and π_ref under a reference:

    imitated     -w · ln π                                     data without old log-probabilities
    reinforced   -min(r · w, clip(r, 1 - ε, 1 + ε) · w)        data with them: r = π / π_old, w an advantage
    either       + kl · (π_ref / π - ln(π_ref / π) - 1)        where kl > 0

The second is PPO's surrogate (arXiv 1707.06347) with an advantage for every token, as in GRPO (arXiv 2402.03300). At
r = 1, so in the first step, its gradient is that of -w · ln π, the policy gradient. Once r has moved beyond 1 ± ε the
way that w asks for, a token has no gradient, which is what allows several epochs over the same samples. The third is
GRPO's estimator "k3" of the divergence from the reference: never negative, 0 where the two agree, and its mean over
samples of π is KL(π || π_ref). It counts where a weight is not 0.

Old log-probabilities are those before temperature and top-p, as π is here: r compares two policies, not two samplers.
So samples are to be drawn at temperature 1. Top-p 0.95 leaves out a tail of each token's distribution, of a twentieth
at most: what is in the nucleus comes by up to that share more often than under π_old, and this is not corrected.

A step of imitation is divided by Σ |w| of its batch. One of reinforcement is divided by the labels that a batch of the
job holds on average, the same number in every step, as by the constant of Dr. GRPO (arXiv 2503.20783): batches are
small, and each divided by its own sum would weigh a token by how long the sequences beside it are, and take a batch of
small advantages for as important as one of large ones.

    losses_L = token_losses(label_losses(network, batch), batch, {slot: job.settings})
    (losses_L.sum() / (usual_size(job) or size_of(data))).backward()

Axes: L labels of a pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from selfedit.engine.ragged import Batch, labelled
from selfedit.types import Datum, TrainJob, TrainSettings


def token_losses(entropies_L: Tensor, batch: Batch, settings: Mapping[int, TrainSettings]) -> Tensor:
    """Turn the cross-entropies -ln π of a batch's labels into losses, [L]. `settings` are those of its owners."""
    losses_L = batch.weights_L * entropies_L
    if batch.old_L is not None:
        is_drawn_L = ~batch.old_L.isnan()
        clips_L = _by_owner(batch, {owner: each.clip_ratio or math.inf for owner, each in settings.items()})
        surrogates_L = _clipped(_gap(is_drawn_L, -entropies_L, batch.old_L), batch.weights_L, clips_L)
        losses_L = torch.where(is_drawn_L, surrogates_L, losses_L)
    if batch.reference_L is not None:
        is_near_L = ~batch.reference_L.isnan()
        kls_L = _by_owner(batch, {owner: each.kl for owner, each in settings.items()}) * is_near_L
        losses_L = losses_L + kls_L * _k3(_gap(is_near_L, batch.reference_L, -entropies_L))
    return losses_L


def usual_size(job: TrainJob) -> float | None:
    """Say by what every step of a job is divided: the labels of its average batch; None where each has a size of its
    own."""
    if all(datum.logprobs is None for datum in job.data):
        return None
    share = min(job.settings.batch_size, len(job.data)) / len(job.data)
    return share * sum(len(labelled(datum)) for datum in job.data)


def size_of(data: Sequence[Datum]) -> float:
    """Add up the weights of a batch, Σ |w|."""
    return sum(sum(abs(weight) for weight in datum.weights[1:]) for datum in data)


def _clipped(gaps_L: Tensor, advantages_L: Tensor, clips_L: Tensor) -> Tensor:
    ratios_L = gaps_L.exp()
    near_L = ratios_L.clamp(1.0 - clips_L, 1.0 + clips_L)
    return -torch.minimum(ratios_L * advantages_L, near_L * advantages_L)


def _k3(gaps_L: Tensor) -> Tensor:
    return gaps_L.exp() - gaps_L - 1.0


def _gap(is_meant_L: Tensor, above_L: Tensor, below_L: Tensor) -> Tensor:
    """Subtract log-probabilities; 0 for labels that are not meant, so that no gradient of theirs can overflow."""
    return torch.where(is_meant_L, above_L - below_L, 0.0)


def _by_owner(batch: Batch, values: Mapping[int, float]) -> Tensor:
    """Give every label the value of its owner, [L]."""
    table = [values.get(owner, 0.0) for owner in range(max(values) + 1)]
    return batch.weights_L.new_tensor(table)[batch.owners_L]
