"""A teacher's distributions as targets: the divergences against what anybody would write down, and what they teach."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from selfedit.engine.local import LocalBackend
from selfedit.engine.losses import divergences, token_losses
from selfedit.engine.pool import Pool, Trained
from selfedit.engine.ragged import Batch, labelled
from selfedit.errors import ConfigError
from selfedit.types import Adapter, Datum, Divergence, Failure, SoftTargets, TrainJob, TrainSettings
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
)

# PEFT 0.21 asks transformers 5.23 for an attribute that has a new name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CPU = torch.device("cpu")
V = 11
SETTINGS = TrainSettings(rank=4, alpha=8.0, epochs=3, batch_size=2, learning_rate=1e-2, clip=0.0)
REVERSE = replace(SETTINGS, divergence="reverse")
DIRECTIONS = pytest.mark.parametrize("divergence", ["forward", "reverse"])
RATES = {"lora": 1e-2, "full": 3e-3}
SEEDS = st.integers(0, 10**6)


def distribution(seed: int, spread: float = 3.0, width: int = V) -> Tensor:
    """Draw a distribution's logarithms, [V]."""
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(width, generator=generator, dtype=torch.float64)).log_softmax(0)


def top(logprobs_V: Tensor, k: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """What a teacher names of its distribution."""
    found = logprobs_V.topk(k)
    return tuple(found.indices.tolist()), tuple(found.values.tolist())


def one_label(tokens: tuple[int, ...], logprobs: tuple[float, ...], label: int = 1) -> Datum:
    return Datum((0, label), (0.0, 1.0), soft=SoftTargets(((), tokens), ((), logprobs)))


def divergence_of(logits_LV: Tensor, data: Sequence[Datum], divergence: Divergence) -> Tensor:
    batch = Batch.of([(0, datum) for datum in data], True, CPU)
    assert batch.soft is not None
    return divergences(logits_LV, batch.soft, batch, {0: replace(SETTINGS, divergence=divergence)})


def naive(logits_V: Tensor, teacher_V: Tensor, named: Sequence[int], divergence: Divergence) -> Tensor:
    """Kullback and Leibler in plain probabilities, over the named tokens and all others as one."""
    others = [v for v in range(len(logits_V)) if v not in named]

    def events(probabilities_V: Tensor) -> Tensor:
        rest = [probabilities_V[others].sum()[None]] if others else []
        return torch.cat([probabilities_V[list(named)], *rest])

    p_E, q_E = events(teacher_V.exp()), events(logits_V.softmax(0))
    return (p_E * (p_E / q_E).log() if divergence == "forward" else q_E * (q_E / p_E).log()).sum()


# ── the divergences ──


@given(SEEDS, st.integers(0, V - 1))
def test_at_a_teacher_that_is_sure_of_the_label_the_forward_divergence_is_the_cross_entropy(
    seed: int, label: int
) -> None:
    datum = one_label((label,), (0.0,), label)
    ours, plain = (distribution(seed)[None].requires_grad_(True) for _ in range(2))
    found, expected = divergence_of(ours, [datum], "forward"), functional.cross_entropy(plain, torch.tensor([label]))
    found.sum().backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=1e-12)


@DIRECTIONS
@given(seed=SEEDS, k=st.integers(1, V))
def test_value_and_gradient_are_those_of_a_naive_sum(divergence: Divergence, seed: int, k: int) -> None:
    teacher_V = distribution(seed + 1, spread=1.0)
    datum = one_label(*top(teacher_V, k))
    ours, plain = (distribution(seed).requires_grad_(True) for _ in range(2))
    found = divergence_of(ours[None], [datum], divergence)
    expected = naive(plain, teacher_V, top(teacher_V, k)[0], divergence)
    found.sum().backward()
    expected.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=1e-10)


@DIRECTIONS
@given(seed=SEEDS, k=st.integers(1, V))
def test_where_the_teacher_is_the_student_nothing_is_lost_and_nothing_moves(
    divergence: Divergence, seed: int, k: int
) -> None:
    logits_LV = distribution(seed, spread=1.0)[None].requires_grad_(True)
    found = divergence_of(logits_LV, [one_label(*top(logits_LV[0].detach(), k))], divergence)
    found.sum().backward()
    assert found.item() == pytest.approx(0.0, abs=1e-12)
    assert logits_LV.grad is not None
    assert logits_LV.grad.abs().max() < 1e-12


@DIRECTIONS
@given(seed=SEEDS)
def test_the_more_tokens_a_teacher_names_the_more_is_seen_of_a_divergence(divergence: Divergence, seed: int) -> None:
    teacher_V, logits_LV = distribution(seed + 1, spread=1.0), distribution(seed)[None]
    found = [divergence_of(logits_LV, [one_label(*top(teacher_V, k))], divergence).item() for k in range(1, V + 1)]
    assert all(few <= more + 1e-9 for few, more in pairwise(found))


def test_a_teacher_that_rules_all_else_out_leaves_finite_gradients_both_ways() -> None:
    logits_LV = torch.tensor([[0.0, *[9.0] * (V - 1)]], dtype=torch.float64, requires_grad=True)
    for divergence in ("forward", "reverse"):
        found = divergence_of(logits_LV, [one_label((0,), (0.0,))], divergence)
        (gradient_LV,) = torch.autograd.grad(found.sum(), logits_LV)
        assert found.item() > 10  # the student says something else
        assert gradient_LV.isfinite().all()
        assert gradient_LV[0, 0] < 0


def test_the_reverse_divergence_hardly_moves_towards_what_the_student_thinks_impossible_and_the_forward_one_does() -> (
    None
):
    teacher = torch.full((V,), -12.0, dtype=torch.float64)
    teacher[3] = 0.0
    logits_LV = torch.zeros(1, V, dtype=torch.float64)
    logits_LV[0, 3] = -20.0
    pulls = {}
    for divergence in ("forward", "reverse"):
        leaf = logits_LV.clone().requires_grad_(True)
        divergence_of(leaf, [one_label(*top(teacher.log_softmax(0), V))], divergence).sum().backward()
        assert leaf.grad is not None
        pulls[divergence] = -leaf.grad[0, 3].item()
    assert pulls["forward"] == pytest.approx(1.0, abs=1e-3)
    assert 0 < pulls["reverse"] < 1e-6


def test_teachers_of_unlike_width_and_labels_without_one_share_a_pass() -> None:
    wide, narrow = top(distribution(1), V), top(distribution(2), 2)
    soft = SoftTargets(((), wide[0], (), narrow[0]), ((), wide[1], (), narrow[1]))
    taught = Datum((0, 1, 2, 3), (0.0, 2.0, 0.5, -1.0), soft=soft)
    plain = Datum((4, 5), (0.0, 1.0))
    batch = Batch.of([(0, taught), (1, plain), (2, one_label(*narrow))], True, CPU)
    logits_LV = torch.stack([distribution(10 + i) for i in range(5)])
    settings = {0: SETTINGS, 1: SETTINGS, 2: REVERSE}
    assert batch.soft is not None
    found_J = divergences(logits_LV, batch.soft, batch, settings)
    entropies_L = functional.cross_entropy(logits_LV, batch.labels_L, reduction="none")
    expected = [
        2.0 * naive(logits_LV[0], distribution(1), wide[0], "forward").item(),
        0.5 * entropies_L[1].item(),
        -1.0 * naive(logits_LV[2], distribution(2), narrow[0], "forward").item(),
        entropies_L[3].item(),
        naive(logits_LV[4], distribution(2), narrow[0], "reverse").item(),
    ]
    assert token_losses(entropies_L, batch, settings, found_J).tolist() == pytest.approx(expected, rel=1e-9)


# ── training ──


@pytest.fixture(scope="module")
def exact(tiny_model_dir: Path) -> Any:
    return bare(tiny_model_dir, torch.float64)


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> LocalBackend:
    return LocalBackend(str(tiny_model_dir), "cpu")


def with_teacher(data: Sequence[Datum], vocabulary: int, seed: int) -> tuple[Datum, ...]:
    """Give sequences some teacher, who names between one and all tokens, at most of their places."""
    rng, found = Random(seed), []
    for datum in data:
        rows = [
            top(distribution(rng.randrange(10**6), width=vocabulary), rng.choice([1, 5, 40, vocabulary]))
            if rng.random() < 0.8
            else ((), ())
            for _ in datum.tokens
        ]
        soft = SoftTargets(tuple(tokens for tokens, _ in rows), tuple(logprobs for _, logprobs in rows))
        found.append(replace(datum, soft=soft))
    return tuple(found)


def jobs_of(vocabulary: int) -> list[TrainJob]:
    plain, drawn = ragged(5, 21, 9, seed=1), ragged(14, 4, 8, seed=2)
    old = tuple(
        replace(d, weights=(0.0, *[0.7] * (len(d.tokens) - 1)), logprobs=(-5.7,) * len(d.tokens)) for d in drawn
    )
    return [
        TrainJob(plain, SETTINGS, seed=1),
        TrainJob(with_teacher(ragged(12, 7, 30, seed=3), vocabulary, 1), SETTINGS, seed=2),
        TrainJob(old, SETTINGS, seed=3),
        TrainJob(with_teacher(ragged(6, 18, 11, seed=4), vocabulary, 2), REVERSE, seed=4),
    ]


def plain_loss(job: TrainJob, model: Any, data: Sequence[Datum]) -> Tensor:
    """The loss of a step written out, a sequence and a label at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for datum in data:
        logits_TV = model(input_ids=torch.tensor(datum.tokens)[None]).logits[0, :-1]
        for t in labelled(datum):
            named = datum.soft.tokens[t] if datum.soft else ()
            if named and datum.soft:
                teacher_V = logits_TV.new_zeros(logits_TV.shape[1])
                teacher_V[list(named)] = torch.tensor(datum.soft.logprobs[t], dtype=torch.float64).exp()
                others = [v for v in range(len(teacher_V)) if v not in named]
                teacher_V[others] = max(1e-6, 1.0 - teacher_V.sum().item()) / max(1, len(others))
                total = total + datum.weights[t] * naive(
                    logits_TV[t - 1], teacher_V.log(), named, job.settings.divergence
                )
            elif datum.logprobs:
                ratio = (logits_TV[t - 1].log_softmax(0)[datum.tokens[t]] - datum.logprobs[t]).exp()
                total = total - torch.minimum(ratio * datum.weights[t], ratio.clamp(0.8, 1.2) * datum.weights[t])
            else:
                total = total - datum.weights[t] * logits_TV[t - 1].log_softmax(0)[datum.tokens[t]]
    if job.data[0].logprobs:
        return total / (sum(map(len, map(labelled, job.data))) * job.settings.batch_size / len(job.data))
    return total / sum(abs(weight) for datum in data for weight in datum.weights[1:])


@pytest.mark.parametrize("room", [WIDE, NARROW], ids=["one-pass", "refilled-slots-and-several-passes"])
@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "padded"])
def test_taught_imitating_and_reinforced_jobs_at_once_are_those_of_peft_one_by_one(
    exact: Any, room: Any, is_packed: bool
) -> None:
    works = [start(exact, job) for job in jobs_of(exact.config.vocab_size)]
    for work, ours in zip(works, Pool(exact, room, is_packed).train(works), strict=True):
        assert isinstance(ours, Trained), ours
        model = on_peft(exact, work)
        losses = train_with_peft(model, work.job, partial(plain_loss, work.job))
        assert ours.losses == pytest.approx(losses, rel=1e-8, abs=1e-9)
        assert_same_weights(ours.update, lora_of(model, work.start), 1e-7)


def test_soft_targets_that_say_nothing_train_bit_by_bit_as_none(tiny_model_dir: Path) -> None:
    network, data = bare(tiny_model_dir), ragged(5, 21, 9, seed=1)
    silent = tuple(replace(d, soft=SoftTargets(((),) * len(d.tokens), ((),) * len(d.tokens))) for d in data)
    for settings in (SETTINGS, REVERSE):
        works = [start(network, TrainJob(given, settings, seed=1)) for given in (data, silent)]
        plain, other = (Pool(network, WIDE, True).train([work])[0] for work in works)
        assert isinstance(plain, Trained)
        assert isinstance(other, Trained)
        assert plain.losses == other.losses
        assert_same_weights(plain.update, other.update, 0.0)


@pytest.mark.parametrize("method", ["lora", "full"])
@DIRECTIONS
def test_a_student_comes_near_its_teacher(engine: LocalBackend, divergence: Divergence, method: Any) -> None:
    texts = ragged(14, 11, 8, 20, seed=6)
    (teacher,) = engine.train([TrainJob(texts, replace(SETTINGS, epochs=6), seed=1)])
    assert isinstance(teacher, Adapter)
    taught = [replace(d, soft=soft) for d, soft in zip(texts, engine.top_logprobs(texts, 300, teacher), strict=True)]
    settings = replace(SETTINGS, divergence=divergence, method=method, epochs=12, learning_rate=RATES[method])
    (student,) = engine.train([TrainJob(tuple(taught), settings, seed=2)])
    assert isinstance(student, Adapter), student

    def distance(adapter: Adapter | None) -> float:
        pairs = zip(engine.logprobs(texts, teacher), engine.logprobs(texts, adapter), strict=True)
        return sum(abs(a - b) for rows in pairs for a, b in zip(*rows, strict=True))

    assert distance(student) < 0.5 * distance(None)


# ── what a teacher says ──


def test_top_logprobs_are_those_of_the_bare_model_at_the_labels(engine: LocalBackend, tiny_model_dir: Path) -> None:
    model = bare(tiny_model_dir)
    data = [Datum(d.tokens, (1.0, 0.0, *[0.5] * (len(d.tokens) - 2))) for d in ragged(9, 17, seed=3)]
    for datum, soft in zip(data, engine.top_logprobs(data, 7), strict=True):
        with torch.no_grad():
            found = model(input_ids=torch.tensor([datum.tokens])).logits[0, :-1].log_softmax(-1).topk(7)
        for t in range(len(datum.tokens)):
            if t in labelled(datum):
                assert soft.tokens[t] == tuple(found.indices[t - 1].tolist())
                assert soft.logprobs[t] == pytest.approx(found.values[t - 1].tolist(), abs=1e-4)
            else:
                assert (soft.tokens[t], soft.logprobs[t]) == ((), ())


def test_a_teacher_names_the_whole_vocabulary_at_most_and_a_token_at_least(engine: LocalBackend) -> None:
    (datum,) = ragged(5, seed=1)
    (soft,) = engine.top_logprobs([datum], 10**6)
    assert sorted(soft.tokens[1]) == list(range(engine._checkpoint.vocabulary))
    assert sum(map(math.exp, soft.logprobs[1])) == pytest.approx(1.0, abs=1e-5)
    assert engine.top_logprobs([Datum((), ()), Datum((5,), (1.0,))], 3) == [
        SoftTargets((), ()),
        SoftTargets(((),), ((),)),
    ]
    with pytest.raises(ConfigError, match="k is 0; a teacher needs to name at least 1 token"):
        engine.top_logprobs([datum], 0)


def _spoilt(tokens: tuple[int, ...], logprobs: tuple[float, ...]) -> Callable[[Datum], Datum]:
    def spoil(datum: Datum) -> Datum:
        size = len(datum.tokens)
        return replace(datum, soft=SoftTargets((tokens,) * size, (logprobs,) * size))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: replace(d, soft=SoftTargets(((1,),), ((0.0,),))), "6 tokens and 1 soft targets"),
        (_spoilt((1, 2), (-1.0,)), "names 2 tokens with 1 log-probabilities"),
        (_spoilt((1, 1), (-1.0, -1.0)), "names 2 tokens with 2 log-probabilities; give each token once"),
        (_spoilt((1,), (math.nan,)), "not finite, or add up to more than certainty"),
        (_spoilt((1, 2), (-0.1, -0.1)), "not finite, or add up to more than certainty"),
        (_spoilt((10**6,), (-1.0,)), "a token id outside the vocabulary"),
        (
            lambda d: replace(_spoilt((1,), (-1.0,))(d), logprobs=(-1.0,) * 6),
            "both soft targets and old log-probabilities",
        ),
    ],
)
def test_soft_targets_that_are_no_distribution_are_a_failure_with_a_sentence(
    engine: LocalBackend, spoil: Callable[[Datum], Datum], words: str
) -> None:
    (failure,) = engine.train([TrainJob((spoil(ragged(6, seed=1)[0]),), SETTINGS, seed=0)])
    assert isinstance(failure, Failure)
    assert words in failure.message
