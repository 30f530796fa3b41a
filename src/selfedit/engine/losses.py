"""What a training step minimises: the loss of every label, and by what the sum over a job's batch is divided.

With w the weight of a label, π its probability now, π_old when it was drawn and π_ref under a reference:

    imitated     -w · ln π                                     data without old log-probabilities
    reinforced   -min(r · w, clip(r, 1 - ε, 1 + ε) · w)        data with them: r = π / π_old, w an advantage
    taught       w · KL(τ ‖ π), or w · KL(π ‖ τ)               where a label has soft targets τ, by `divergence`
    any          + kl · (π_ref / π - ln(π_ref / π) - 1)        where kl > 0

The second is PPO's surrogate (arXiv 1707.06347) with an advantage for every token, as in GRPO (arXiv 2402.03300). At
r = 1, so in the first step, its gradient is that of -w · ln π, the policy gradient. Once r has moved beyond 1 ± ε the
way that w asks for, a token has no gradient, which is what allows several epochs over the same samples. The last is
GRPO's estimator "k3" of the divergence from the reference: never negative, 0 where the two agree, and its mean over
samples of π is KL(π || π_ref). It counts where a weight is not 0.

A teacher's targets are its likeliest tokens (`types.SoftTargets`), and what mass they leave is one event more, "any
other token": both divergences are of these k + 1 events, never more than those of the whole vocabulary, and equal to
them at k = V. The forward one, KL(τ ‖ π) = Σ τ ln(τ / π), asks the student to allow for all that the teacher does; at
a teacher that is sure of the label it is the label's cross-entropy. The reverse one, KL(π ‖ τ) = Σ π ln(π / τ), asks it
to say nothing that the teacher would not (generalised knowledge distillation, arXiv 2306.13649, has both as ends of its
JSD). Its gradient weighs a token by π: to a token that the student thinks impossible it is next to nothing. In the
reverse one the rest has a mass of `REST` at least, as what rounding leaves is no certainty.

Old log-probabilities are those before temperature and top-p, as π is here: r compares two policies, not two samplers.
So samples are to be drawn at temperature 1. Top-p 0.95 leaves out a tail of each token's distribution, of a twentieth
at most: what is in the nucleus comes by up to that share more often than under π_old, and this is not corrected.

A step of imitation is divided by Σ |w| of its batch. One of reinforcement is divided by the labels that a batch of the
job holds on average, the same number in every step, as by the constant of Dr. GRPO (arXiv 2503.20783): batches are
small, and each divided by its own sum would weigh a token by how long the sequences beside it are, and take a batch of
small advantages for as important as one of large ones.

    losses_L = token_losses(label_losses(network, batch), batch, {slot: job.settings})
    (losses_L.sum() / (usual_size(job) or size_of(data))).backward()

Axes: L labels of a pass, J of them with soft targets, C tokens that these name, E = C + 1 events, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from selfedit.engine.ragged import Batch, Soft, labelled
from selfedit.errors import InputError
from selfedit.types import Datum, SoftTargets, TrainJob, TrainSettings

ROUNDING = 1e-3  # by which probabilities may add up to more than 1
REST = 1e-6  # the least mass of all tokens that a teacher does not name, for who may not say what it rules out


def token_losses(
    entropies_L: Tensor, batch: Batch, settings: Mapping[int, TrainSettings], divergences_J: Tensor | None = None
) -> Tensor:
    """Turn the cross-entropies -ln π of a batch's labels into losses, [L]. `settings` are those of its owners,
    `divergences_J` what the labels with soft targets have in place of a cross-entropy."""
    losses_L = batch.weights_L * entropies_L
    if batch.soft is not None and divergences_J is not None:
        at_J = batch.soft.at_J
        losses_L = losses_L.index_copy(0, at_J, batch.weights_L[at_J] * divergences_J)
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


def divergences(logits_LV: Tensor, soft: Soft, batch: Batch, settings: Mapping[int, TrainSettings]) -> Tensor:
    """Say how far the student is from its teacher at each label with soft targets, [J], in nats."""
    students_JE = _student(logits_LV[soft.at_J], soft)
    named_JC = soft.logprobs_JC.exp()
    rests_J1 = (1.0 - named_JC.sum(1, keepdim=True)).clamp(min=0.0)
    teachers_JE = torch.cat([named_JC, rests_J1], 1)
    logs_JE = torch.cat([soft.logprobs_JC, rests_J1.clamp(min=REST).log()], 1)
    is_event_JE = logs_JE.isfinite() & students_JE.isfinite()
    gaps_JE = torch.where(is_event_JE, students_JE - logs_JE, 0.0)
    is_reverse_L = _by_owner(batch, {owner: each.divergence == "reverse" for owner, each in settings.items()})
    weights_JE = torch.where(is_reverse_L[soft.at_J, None] > 0, students_JE.exp(), -teachers_JE)
    return (weights_JE * gaps_JE).sum(1)


def _student(logits_JV: Tensor, soft: Soft) -> Tensor:
    """The student's log-probabilities of the tokens that the teacher names and of any other, [J, E]: -∞ where there is
    no other."""
    logprobs_JV = logits_JV.log_softmax(1)
    others_JV = logprobs_JV.scatter(1, soft.tokens_JC, -math.inf)
    return torch.cat([logprobs_JV.gather(1, soft.tokens_JC), others_JV.logsumexp(1, keepdim=True)], 1)


def check_soft(datum: Datum, soft: SoftTargets, vocabulary: int) -> None:
    """Raise `InputError` for soft targets that are no distributions over the vocabulary, one for each token."""
    length = len(datum.tokens)
    if not len(soft.tokens) == len(soft.logprobs) == length:
        raise InputError(f"a sequence has {length} tokens and {len(soft.tokens)} soft targets; give each token its own")
    for t in labelled(datum):
        tokens, logprobs = soft.tokens[t], soft.logprobs[t]
        if not len(tokens) == len(logprobs) == len(set(tokens)):
            raise InputError(
                f"a soft target names {len(tokens)} tokens with {len(logprobs)} log-probabilities; give each token once"
            )
        if not all(map(math.isfinite, logprobs)) or sum(map(math.exp, logprobs)) > 1 + ROUNDING:
            raise InputError("a soft target's log-probabilities are not finite, or add up to more than certainty")
        if tokens and not 0 <= min(tokens) <= max(tokens) < vocabulary:
            raise InputError(f"a soft target names a token id outside the vocabulary of {vocabulary}")


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
