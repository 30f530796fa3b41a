"""What runs when changes no result: slots, refills, passes, and running out of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selfedit.engine import pool as pool_module
from selfedit.engine.lora import LoraStack, shapes_of
from selfedit.engine.pool import Pool, Room, Trained
from selfedit.engine.ragged import Batch, label_losses
from selfedit.types import Failure, TrainJob, TrainSettings
from tests.unit.engine.conftest import (
    WIDE,
    assert_same_weights,
    bare,
    distance,
    lora,
    ragged,
    run_pool,
    start,
    train_together,
    weighed,
)

SETTINGS = TrainSettings(rank=4, alpha=8.0, epochs=2, batch_size=2, learning_rate=1e-2)
JOBS = [  # of unlike ranks, targets and lengths, the longest neither first nor last
    TrainJob(ragged(5, 21, 9, seed=1), replace(SETTINGS, targets="default"), seed=1),
    TrainJob(ragged(14, 3, 8, 30, 6, seed=2), replace(SETTINGS, rank=9, epochs=4), seed=2),
    TrainJob(weighed(ragged(12, 25, 4, seed=3), 0.5, 0.0, -1.0), replace(SETTINGS, targets=("up_proj",)), seed=3),
    TrainJob(ragged(10, 16, seed=4), replace(SETTINGS, batch_size=1, weight_decay=0.3), seed=4),
]
TWO_SLOTS = replace(WIDE, tokens_per_step=40)


@pytest.fixture(autouse=True)
def one_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count stacks and passes alike on every machine."""
    monkeypatch.setattr(pool_module, "SLOTS_PER_LANE", 10**9)


@pytest.fixture(scope="module")
def network(tiny_model_dir: Path) -> Any:
    return bare(tiny_model_dir, torch.float64)  # in which nothing hides behind rounding


@pytest.fixture(scope="module")
def alone(network: Any) -> list[Trained]:
    return [train_together(network, [job])[0] for job in JOBS]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The slots of every stack that is opened."""
    slots: list[int] = []
    init = LoraStack.__init__

    def noting(self: LoraStack, shapes: Any, count: int, *args: Any, **kwargs: Any) -> None:
        slots.append(count)
        init(self, shapes, count, *args, **kwargs)

    monkeypatch.setattr(LoraStack, "__init__", noting)
    return slots


def assert_same(results: Sequence[Trained | Failure], expected: Sequence[Trained]) -> None:
    for ours, theirs in zip(results, expected, strict=True):
        assert isinstance(ours, Trained), ours
        assert ours.losses == pytest.approx(theirs.losses, rel=1e-10)
        assert_same_weights(ours.update, theirs.update, 1e-10)


def refusing(monkeypatch: pytest.MonkeyPatch, is_too_much: Callable[[Batch], bool]) -> list[int]:
    """Let passes that are too much run out of memory halfway; return the tokens of every pass that is tried."""
    tried: list[int] = []

    def losses(network: Any, batch: Batch) -> Tensor:
        found = label_losses(network, batch)
        tried.append(len(batch.tokens_N))
        if is_too_much(batch):
            raise torch.OutOfMemoryError(f"no memory for {tried[-1]} tokens\nand a long story")
        return found

    monkeypatch.setattr(pool_module, "label_losses", losses)
    return tried


@pytest.fixture
def two_cores() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2, "the cores were not given back"
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_cores")
def test_lanes_on_two_cores_give_what_one_gives_and_the_same_digits_each_time(
    network: Any, alone: list[Trained], opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "SLOTS_PER_LANE", 2)
    once, again = (train_together(network, JOBS) for _ in range(2))
    assert_same(once, alone)
    assert opened == [2, 2, 2, 2]
    assert [trained.losses for trained in once] == [trained.losses for trained in again]


@pytest.mark.usefixtures("two_cores")
def test_what_fails_in_a_lane_fails_alone(network: Any, alone: list[Trained], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "SLOTS_PER_LANE", 2)
    broken = replace(JOBS[1], data=weighed(JOBS[1].data, float("nan")))
    failed, *others = run_pool(network, [broken, *JOBS[2:], JOBS[0]])
    assert isinstance(failed, Failure)
    assert_same(others, [*alone[2:], alone[0]])


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]], ids=["as-they-are", "shuffled"])
def test_results_come_in_the_order_of_the_jobs_whatever_ran_when(
    network: Any, alone: list[Trained], opened: list[int], order: list[int]
) -> None:
    assert_same(train_together(network, [JOBS[i] for i in order], TWO_SLOTS), [alone[i] for i in order])
    assert opened == [2]


def test_a_refilled_slot_starts_with_neither_momentum_nor_steps_of_the_one_before(
    network: Any, alone: list[Trained], opened: list[int]
) -> None:
    one_slot = replace(WIDE, tokens_per_step=1)
    assert_same(train_together(network, [*JOBS, *JOBS], one_slot), [*alone, *alone])
    assert opened == [1]


def test_as_many_slots_are_opened_as_pay_fit_and_end_together(network: Any, opened: list[int]) -> None:
    jobs = [replace(JOBS[3], seed=seed) for seed in range(6)]  # 13 tokens a step
    per_slot = LoraStack.bytes_per_slot(shapes_of([lora(start(network, jobs[0]).start)]), 4, learns=True)
    for room in (
        Room(tokens_per_step=10**6, tokens_per_pass=10**6, bytes_of_slots=10**9),
        Room(tokens_per_step=5 * 13, tokens_per_pass=10**6, bytes_of_slots=10**9),  # 5 pay, 3 end together
        Room(tokens_per_step=10**6, tokens_per_pass=10**6, bytes_of_slots=2 * per_slot),
        Room(tokens_per_step=10**6, tokens_per_pass=10**6, bytes_of_slots=1),
    ):
        train_together(network, jobs, room)
    assert opened == [6, 3, 2, 1]


def test_what_does_not_fit_into_memory_runs_in_halves_and_loses_nothing(
    network: Any, alone: list[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = refusing(monkeypatch, lambda batch: len(batch.tokens_N) > 40)
    pool = Pool(network, WIDE, True)
    works = [start(network, job) for job in JOBS]
    assert_same(pool.train(works), alone)
    assert 1 <= sum(tokens > 40 for tokens in tried) <= 3
    tried.clear()
    assert_same(pool.train(works), alone)
    assert max(tried) <= 40, "what was learnt about memory was forgotten"


def test_memory_that_runs_out_in_a_later_pass_counts_nothing_twice(
    network: Any, alone: list[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = refusing(monkeypatch, lambda batch: len(tried) in (2, 9))
    works = [start(network, job) for job in JOBS]
    assert_same(Pool(network, replace(WIDE, tokens_per_pass=60), True).train(works), alone)


def test_a_sequence_too_large_for_memory_fails_its_job_alone_and_by_name(
    network: Any, alone: list[Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, lambda batch: max(batch.lengths_S) > 28)  # the longest of the second job has 29 inputs
    for room in (WIDE, TWO_SLOTS):
        results = Pool(network, room, True).train([start(network, job) for job in JOBS])
        assert results.pop(1) == Failure("train", "OutOfMemoryError", "no memory for 29 tokens")
        assert_same(results, [alone[0], *alone[2:]])


def test_an_error_that_is_not_about_memory_passes(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Tensor:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(pool_module, "label_losses", broken)
        with pytest.raises(RuntimeError, match="a bug"):
            train_together(network, JOBS)
    hooks = [name for name, module in network.named_modules() if module._forward_hooks]
    assert not hooks
    assert network.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("part", ["weights", "moments"])
def test_without_memory_for_all_slots_fewer_are_opened(
    network: Any, alone: list[Trained], opened: list[int], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    kind: Any = {"weights": LoraStack, "moments": torch.optim.AdamW}[part]
    init = kind.__init__

    def small(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if opened[-1] > 1:
            raise torch.OutOfMemoryError("no memory for slots")

    monkeypatch.setattr(kind, "__init__", small)
    assert_same(train_together(network, JOBS), alone)
    assert opened == [4, 2, 1]


def test_the_same_jobs_twice_give_the_same_adapters_bit_by_bit(tiny_model_dir: Path) -> None:
    network = bare(tiny_model_dir)
    dropping = [replace(job, settings=replace(job.settings, dropout=0.3)) for job in JOBS]
    first, second = (train_together(network, dropping, TWO_SLOTS) for _ in range(2))
    for ours, same in zip(first, second, strict=True):
        assert ours.losses == same.losses
        assert_same_weights(ours.update, same.update, 0.0)
        assert distance(ours.update, same.update) == 0.0
