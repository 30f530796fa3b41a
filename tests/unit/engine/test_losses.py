"""Losses of labels against an obvious slow loop, and what reinforcement by them does to a policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest
import torch
from torch import Tensor

from selfedit.engine import pool as pool_module
from selfedit.engine.full import Full, merged
from selfedit.engine.local import LocalBackend
from selfedit.engine.losses import size_of, token_losses, usual_size
from selfedit.engine.pool import Pool, Trained, Work
from selfedit.engine.ragged import Batch, labelled
from selfedit.types import Adapter, Datum, Failure, TrainJob, TrainSettings
from tests.unit.engine.conftest import (
    NARROW,
    WIDE,
    assert_same_weights,
    bare,
    lora_of,
    on_peft,
    ragged,
    start,
    train_with_peft,
    weighed,
)

# PEFT 0.21 asks transformers 5.23 for an attribute that has a new name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CPU = torch.device("cpu")
SETTINGS = TrainSettings(rank=4, alpha=8.0, epochs=4, batch_size=2, learning_rate=1e-2, clip=0.0)
NEAR = replace(SETTINGS, clip_ratio=0.1, kl=0.3)


def drawn(data: Sequence[Datum], *advantages: float, seed: int = 0, is_near: bool = False) -> tuple[Datum, ...]:
    """Give sequences these advantages in turn behind a prompt of two tokens, and log-probabilities of some policy."""
    rng = Random(seed)
    found = []
    for i, datum in enumerate(data):
        size = len(datum.tokens)
        advantage = advantages[i % len(advantages)]
        old, reference = (tuple(-5.7 + rng.uniform(-0.4, 0.4) for _ in range(size)) for _ in range(2))
        weights = (0.0, 0.0, *(advantage for _ in range(size - 2)))
        found.append(Datum(datum.tokens, weights, old, reference if is_near else None))
    return tuple(found)


JOBS = [  # imitation and reinforcement side by side, with and without a reference, of unlike sizes
    TrainJob(ragged(5, 21, 9, seed=1), SETTINGS, seed=1),
    TrainJob(drawn(ragged(14, 4, 8, 30, 6, seed=2), 1.0, -0.5, 0.25), SETTINGS, seed=2),
    TrainJob(drawn(ragged(12, 25, 5, seed=3), 0.7, -1.4, seed=3, is_near=True), replace(NEAR, clip=0.5), seed=3),
    TrainJob(tuple(replace(d, logprobs=None) for d in drawn(ragged(10, 16, seed=4), 1.0, is_near=True)), NEAR, seed=4),
    TrainJob(drawn(ragged(9, 9, 18, seed=5), -0.3, 2.0), replace(SETTINGS, clip_ratio=0.0, epochs=2), seed=5),
]


@pytest.fixture(scope="module")
def exact(tiny_model_dir: Path) -> Any:
    return bare(tiny_model_dir, torch.float64)


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> LocalBackend:
    return LocalBackend(str(tiny_model_dir), "cpu")


def slow_loss(logprob: float, t: int, datum: Datum, settings: TrainSettings) -> float:
    """The loss of one label, written out."""
    weight = datum.weights[t]
    if datum.logprobs is None:
        loss = -weight * logprob
    else:
        ratio = math.exp(logprob - datum.logprobs[t])
        low, high = 1 - settings.clip_ratio, 1 + settings.clip_ratio
        near = min(max(ratio, low), high) if settings.clip_ratio else ratio
        loss = -min(ratio * weight, near * weight)
    if settings.kl and datum.reference is not None:
        rest = math.exp(datum.reference[t] - logprob)
        loss += settings.kl * (rest - math.log(rest) - 1)
    return loss


def slow_size(job: TrainJob, data: Sequence[Datum]) -> float:
    """By what a step is divided, written out."""
    if job.data[0].logprobs is None:
        return sum(abs(weight) for datum in data for weight in datum.weights[1:])
    labels = sum(weight != 0 for datum in job.data for weight in datum.weights[1:])
    return labels / len(job.data) * min(job.settings.batch_size, len(job.data))


def plain_loss(job: TrainJob, model: Any, data: Sequence[Datum]) -> Tensor:
    """The same with gradients, a sequence and a label at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for datum in data:
        tokens = torch.tensor(datum.tokens)
        logprobs = model(input_ids=tokens[None]).logits[0, :-1].log_softmax(-1)
        for t in labelled(datum):
            now, weight = logprobs[t - 1, datum.tokens[t]], datum.weights[t]
            if datum.logprobs is None:
                loss = -weight * now
            else:
                ratio = (now - datum.logprobs[t]).exp()
                low, high = 1 - job.settings.clip_ratio, 1 + job.settings.clip_ratio
                is_free = low < ratio.item() < high or job.settings.clip_ratio == 0
                asks_back = (ratio.item() >= high and weight < 0) or (ratio.item() <= low and weight > 0)
                loss = -ratio * weight if is_free or asks_back else 0 * now - weight * min(max(ratio.item(), low), high)
            if job.settings.kl and datum.reference is not None:
                rest = datum.reference[t] - now
                loss = loss + job.settings.kl * (rest.exp() - rest - 1)
            total = total + loss
    return total / (slow_size(job, data) or 1.0)


def about(network: Any, job: TrainJob, seed: int = 0) -> TrainJob:
    """Put log-probabilities in the place of the job's that are near the network's own, some within clipping."""
    rng = Random(seed)

    def near(own: Sequence[float], given: Sequence[float] | None) -> tuple[float, ...] | None:
        return tuple(logprob + rng.uniform(-0.15, 0.15) for logprob in own) if given else None

    data = []
    for datum in job.data:
        tokens = torch.tensor(datum.tokens)
        logprobs = network(input_ids=tokens[None]).logits[0, :-1].log_softmax(-1)
        own = [0.0, *logprobs.gather(1, tokens[1:, None])[:, 0].tolist()]
        data.append(replace(datum, logprobs=near(own, datum.logprobs), reference=near(own, datum.reference)))
    return replace(job, data=tuple(data))


def batch_of(jobs: Sequence[TrainJob]) -> tuple[Batch, dict[int, TrainSettings]]:
    sequences = [(k, datum) for k, job in enumerate(jobs) for datum in job.data]
    return Batch.of(sequences, True, CPU), {k: job.settings for k, job in enumerate(jobs)}


def entropies(batch: Batch, seed: int = 0) -> Tensor:
    """What a network might say of the labels, some of it far from what the data bring."""
    generator = torch.Generator().manual_seed(seed)
    return 5.7 + torch.rand(len(batch.labels_L), generator=generator, dtype=torch.float64) - 0.5


# ── the losses ──


def test_losses_are_those_of_a_slow_loop_whatever_lies_in_the_pass() -> None:
    batch, settings = batch_of(JOBS)
    entropies_L = entropies(batch)
    expected, logprobs = [], iter((-entropies_L).tolist())
    for job in JOBS:
        expected += [slow_loss(next(logprobs), t, d, job.settings) for d in job.data for t in labelled(d)]
    assert token_losses(entropies_L, batch, settings).tolist() == pytest.approx(expected, rel=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    batch, settings = batch_of(JOBS)
    entropies_L = entropies(batch, seed=1).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda e: token_losses(e, batch, settings), (entropies_L,), eps=1e-7)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient"),  # of the loss by ln π
    [
        (1.0, 2.0, -2.0),
        (1.1, 1.0, -1.1),
        (1.3, 1.0, 0.0),  # as likely as it may get
        (1.3, -1.0, 1.3),  # likelier than it was, though it should be less likely: pushed back without a limit
        (0.7, -1.0, 0.0),
        (0.7, 1.0, -0.7),
    ],
)
def test_a_token_that_moved_far_enough_the_way_it_should_has_no_gradient(
    ratio: float, advantage: float, gradient: float
) -> None:
    datum = Datum((1, 2), (0.0, advantage), (0.0, -2.0))
    batch = Batch.of([(0, datum)], True, CPU)
    logprob = torch.tensor([-2.0 + math.log(ratio)], dtype=torch.float64, requires_grad=True)
    token_losses(-logprob, batch, {0: SETTINGS}).sum().backward()
    assert logprob.grad is not None
    assert logprob.grad.item() == pytest.approx(gradient)


def test_at_the_policy_that_drew_the_gradient_is_the_policy_gradient() -> None:
    batch, settings = batch_of(JOBS[1:2])
    assert batch.old_L is not None
    entropies_L = (-batch.old_L).requires_grad_(True)
    token_losses(entropies_L, batch, settings).sum().backward()
    assert entropies_L.grad is not None
    torch.testing.assert_close(entropies_L.grad, batch.weights_L)


def test_the_divergence_is_0_at_the_reference_and_in_the_mean_of_draws_that_of_kullback_and_leibler() -> None:
    policy, reference = ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6])
    expected = sum(p * math.log(p / q) for p, q in zip(policy, reference, strict=True))
    settings = replace(NEAR, kl=1.0)

    def divergence(logprob: float, other: float) -> float:
        batch = Batch.of([(0, Datum((1, 2), (0.0, 1.0), None, (0.0, other)))], True, CPU)
        return token_losses(torch.tensor([-logprob], dtype=torch.float64), batch, {0: settings}).item() + logprob

    found = [divergence(math.log(p), math.log(q)) for p, q in zip(policy, reference, strict=True)]
    assert min(found) > 0
    assert sum(p * each for p, each in zip(policy, found, strict=True)) == pytest.approx(expected)
    assert divergence(-1.5, -1.5) == pytest.approx(0.0, abs=1e-12)


def test_what_would_overflow_in_one_job_leaves_the_gradients_of_the_others_alone() -> None:
    far = TrainJob((Datum((1, 2), (0.0, -1.0), (0.0, -1e4), (0.0, -1e-3)),), NEAR, seed=0)
    batch, settings = batch_of([*JOBS, far])
    entropies_L = torch.cat([entropies(batch)[:-1], torch.tensor([0.1])]).requires_grad_(True)
    losses_L = token_losses(entropies_L, batch, settings)
    losses_L.sum().backward()
    assert entropies_L.grad is not None
    assert losses_L[:-1].isfinite().all()
    assert entropies_L.grad[:-1].isfinite().all()


# ── by what a step is divided ──


def test_imitation_is_divided_by_each_steps_own_weights_and_reinforcement_by_the_same_in_every_step() -> None:
    imitated, reinforced = JOBS[0], JOBS[1]
    assert usual_size(imitated) is None
    assert size_of(weighed(imitated.data[:2], 0.5, -1.0)) == (2 * 1.0 + 2 * 0.5) + (10 * 1.0 + 10 * 0.5)
    whole = replace(reinforced, settings=replace(SETTINGS, batch_size=99))
    labels = sum(len(datum.tokens) - 2 for datum in reinforced.data)
    assert usual_size(whole) == labels
    assert usual_size(reinforced) == pytest.approx(labels * 2 / 5)
    doubled = replace(reinforced, data=drawn(reinforced.data, 2.0, -1.0, 0.5))
    assert usual_size(doubled) == usual_size(reinforced)


# ── training ──


@pytest.mark.parametrize("room", [WIDE, NARROW], ids=["one-pass", "refilled-slots-and-several-passes"])
@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "padded"])
def test_jobs_of_both_kinds_at_once_are_those_of_peft_one_by_one(exact: Any, room: Any, is_packed: bool) -> None:
    works = [start(exact, about(exact, job)) for job in JOBS]
    for work, ours in zip(works, Pool(exact, room, is_packed).train(works), strict=True):
        assert isinstance(ours, Trained), ours
        model = on_peft(exact, work)
        losses = train_with_peft(model, work.job, partial(plain_loss, work.job))
        assert ours.losses == pytest.approx(losses, rel=1e-9, abs=1e-10)
        assert_same_weights(ours.update, lora_of(model, work.start), 1e-8)


@pytest.mark.parametrize("job", [JOBS[1], JOBS[2]], ids=["clipped", "near-a-reference"])
def test_a_full_update_is_reinforced_as_by_the_plain_loop(exact: Any, job: TrainJob) -> None:
    job = about(exact, replace(job, settings=replace(job.settings, method="full", learning_rate=1e-3)))
    (ours,) = Pool(exact, WIDE, True).train([Work(job, merged(exact, []))])
    model = deepcopy(exact).requires_grad_(True)
    losses = train_with_peft(model, job, partial(plain_loss, job))
    assert isinstance(ours, Trained)
    assert isinstance(ours.update, Full)
    assert ours.losses == pytest.approx(losses, rel=1e-9)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours.update.weights[name], parameter.detach(), rtol=0, atol=1e-8)


def test_data_without_old_log_probabilities_train_bit_by_bit_as_by_weights_times_entropies(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = bare(tiny_model_dir)
    jobs = [JOBS[0], JOBS[1], replace(JOBS[0], data=weighed(JOBS[0].data, 0.3, 0.0, -0.2, 1.0), seed=7)]
    works = [start(network, job) for job in jobs]
    ours = Pool(network, WIDE, True).train(works)
    monkeypatch.setattr(pool_module, "token_losses", lambda entropies_L, batch, settings: batch.weights_L * entropies_L)
    plain = Pool(network, WIDE, True).train(works)
    for k in (0, 2):
        one, other = ours[k], plain[k]
        assert isinstance(one, Trained)
        assert isinstance(other, Trained)
        assert one.losses == other.losses
        assert_same_weights(one.update, other.update, 0.0)


# ── what becomes of a policy ──


def reinforce(engine: LocalBackend, data: tuple[Datum, ...], **changes: Any) -> tuple[Adapter, list[float]]:
    """Train; give the adapter and the ratios that it left the tokens with, of all labels."""
    settings = replace(SETTINGS, **changes)
    (trained,) = engine.train([TrainJob(data, settings, seed=1)])
    assert isinstance(trained, Adapter), trained
    now = engine.logprobs(data, trained)
    pairs = [(row, datum.logprobs or ()) for row, datum in zip(now, data, strict=True)]
    gaps = [row[t] - old[t] for (row, old), datum in zip(pairs, data, strict=True) for t in labelled(datum)]
    return trained, [math.exp(gap) for gap in gaps]


@pytest.fixture(scope="module")
def own(engine: LocalBackend) -> tuple[Datum, ...]:
    """Sequences with the log-probabilities that the bare model gives them, which it is to stay near, too."""
    data = ragged(14, 11, 8, 20, seed=6)
    found = zip(data, map(tuple, engine.logprobs(data)), (1.0, -1.0, 0.5, -0.5), strict=True)
    return tuple(
        Datum(d.tokens, (0.0, 0.0, *(a for _ in d.tokens[2:])), logprobs, logprobs) for d, logprobs, a in found
    )


def test_a_positive_advantage_makes_tokens_likelier_and_a_negative_one_less_likely(
    engine: LocalBackend, own: tuple[Datum, ...]
) -> None:
    _, ratios = reinforce(engine, own)
    signs = [datum.weights[t] > 0 for datum in own for t in labelled(datum)]
    assert fmean(math.log(r) for r, is_up in zip(ratios, signs, strict=True) if is_up) > 0.05
    assert fmean(math.log(r) for r, is_up in zip(ratios, signs, strict=True) if not is_up) < -0.05


def test_over_several_epochs_a_clipped_ratio_keeps_near_the_policy_that_drew_and_so_does_the_divergence(
    engine: LocalBackend, own: tuple[Datum, ...]
) -> None:
    def distance(**changes: Any) -> float:
        ratios = reinforce(engine, own, epochs=16, learning_rate=1e-3, **changes)[1]
        return fmean(abs(math.log(ratio)) for ratio in ratios)

    free, clipped, held = distance(clip_ratio=0.0), distance(clip_ratio=0.1), distance(clip_ratio=0.0, kl=10.0)
    assert clipped < 0.6 * free
    assert held < 0.6 * free


def test_in_its_first_step_reinforcement_is_the_weighted_loss(engine: LocalBackend, own: tuple[Datum, ...]) -> None:
    once: dict[str, Any] = {"epochs": 1, "batch_size": 9}
    _, reinforced = reinforce(engine, own, **once)
    (plain,) = engine.train([TrainJob(tuple(replace(d, logprobs=None) for d in own), replace(SETTINGS, **once), 1)])
    assert isinstance(plain, Adapter)
    now = engine.logprobs(own, plain)
    expected = [math.exp(row[t] - (d.logprobs or ())[t]) for row, d in zip(now, own, strict=True) for t in labelled(d)]
    assert reinforced == pytest.approx(expected, rel=1e-4)


# ── refusals ──


@pytest.mark.parametrize(
    ("spoil", "changes", "words"),
    [
        (lambda d: replace(d, logprobs=None), {}, "some sequences of the job have old log-probabilities and others"),
        (lambda d: replace(d, logprobs=(-1.0,)), {}, "14 tokens and 1 old log-probabilities"),
        (lambda d: replace(d, reference=(-1.0,)), {}, "14 tokens and 1 reference log-probabilities"),
        (lambda d: replace(d, logprobs=(math.nan,) * 14), {}, "old log-probabilities that are not finite"),
        (lambda d: replace(d, reference=None), {"kl": 0.1}, "kl is 0.1, and a sequence has no reference"),
        (lambda d: d, {"clip_ratio": -0.1}, "clip_ratio is -0.1; it must be 0 or more"),
        (lambda d: d, {"kl": math.nan}, "kl is nan; it must be 0 or more"),
    ],
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_data_that_cannot_be_reinforced_are_a_failure_with_a_sentence(
    engine: LocalBackend,
    own: tuple[Datum, ...],
    spoil: Callable[[Datum], Datum],
    changes: dict[str, Any],
    words: str,
    method: Any,
) -> None:
    job = TrainJob((spoil(own[0]), *own[1:]), replace(SETTINGS, method=method, **changes), seed=0)
    (failure,) = engine.train([job])
    assert isinstance(failure, Failure)
    assert words in failure.message
