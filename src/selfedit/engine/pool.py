"""Train many jobs on one frozen network: pack them into slots, step all slots at once, refill a slot when it finishes.

`Room` says how much: slots are taken into use until their batches hold `tokens_per_step`, where a pass becomes
efficient; a step of more than `tokens_per_pass` runs in several passes, whose gradients add up. When memory runs out,
the step is run again in passes half as large. No adapter's result depends on its neighbours, so all of this changes
speed only. Full updates take the same steps one after another, in a stack of one slot.

Axes: K slots, L labels of a pass.

    pool = Pool(network, room, can_pack(network))
    results = pool.train([Work(job, lora), ...])   # Trained or Failure, in the order of the works
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from selfedit.engine.full import Full, FullStack
from selfedit.engine.lora import Dropout, Groups, LoraStack, Stack, StackedAdamW, is_out_of_memory, shapes_of
from selfedit.engine.losses import divergences, size_of, token_losses, usual_size
from selfedit.engine.ragged import Batch, cross_entropies, label_logits, label_losses, labelled, packing, passes
from selfedit.engine.schedules import batches, rate, seeded
from selfedit.engine.updates import Update, mounted
from selfedit.types import Datum, Failure, TrainJob, TrainSettings

SLOTS_PER_LANE = 4  # with fewer, all cores work on one pass


@dataclass(frozen=True, slots=True)
class Room:
    """What a device does well at once: tokens a step of all slots, tokens a pass, bytes of adapters in training."""

    tokens_per_step: int
    tokens_per_pass: int
    bytes_of_slots: int


@dataclass(frozen=True, eq=False, slots=True)
class Work:
    """A job with what it starts from."""

    job: TrainJob
    start: Update


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """A finished update, and its loss before every step."""

    update: Update
    losses: tuple[float, ...]


@dataclass(slots=True)
class _Slot:
    """A work in progress: number `item` of the works, the rows of its batches, what their losses are divided by (None:
    by each one's own weights), the losses so far."""

    item: int
    work: Work
    plan: Sequence[Tensor]
    size: float | None
    losses: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, item: int, work: Work) -> _Slot:
        job = work.job
        order = seeded(job.seed, "order")
        plan = batches(len(job.data), job.settings.batch_size, job.settings.epochs, order)
        return cls(item, work, plan, usual_size(job))

    @property
    def is_finished(self) -> bool:
        return len(self.losses) == len(self.plan)

    def batch(self) -> list[Datum]:
        """Return what the next step trains on; a sequence without weights trains nothing."""
        data = (self.work.job.data[row] for row in self.plan[len(self.losses)].tolist())
        return [datum for datum in data if labelled(datum)]

    def rate(self) -> float:
        settings = self.work.job.settings
        return settings.learning_rate * rate(settings.schedule, len(self.losses), len(self.plan), settings.warmup)

    def dropout(self, start: int, length: int, row: int, device: torch.device) -> Dropout:
        """Say what sequence `row` of the next step drops. Run again, in whatever passes, it drops the same."""
        seed, step = self.work.job.seed, len(self.losses)
        return Dropout(
            start,
            start + length,
            self.work.job.settings.dropout,
            lambda name: seeded(seed, f"dropout/{step}/{row}/{name}", device),
        )

    def result(self, update: Update) -> Trained | Failure:
        losses = torch.stack(self.losses).tolist()
        for step, loss in enumerate(losses, start=1):
            if not math.isfinite(loss):
                return _diverged(f"the loss became {loss} at step {step} of {len(losses)}")
        if not all(tensor.isfinite().all() for tensor in update.tensors()):
            return _diverged(f"the weights are no longer finite after {len(losses)} steps")
        return Trained(update, tuple(losses))


class Pool:
    """Trains jobs on one network. The size of a pass is halved for good when memory runs out."""

    def __init__(self, network: Any, room: Room, can_pack: bool) -> None:
        self._network = network
        self._room = room
        self._can_pack = can_pack

    def train(self, works: Sequence[Work], frozen: Sequence[Update] = ()) -> list[Trained | Failure]:
        """Train LoRAs on top of `frozen`, or full updates; results come in the order of `works`, whatever ran when.

        A work fails alone: with FloatingPointError when its loss or weights stop being finite, with OutOfMemoryError
        when one of its sequences does not fit into memory by itself.
        """
        # The longest is started first, so that no long one is left to run alone at the end.
        waiting = sorted((_Slot.of(i, work) for i, work in enumerate(works)), key=lambda slot: len(slot.plan))
        results: dict[int, Trained | Failure] = {}
        with packing(self._network, self._can_pack), mounted(self._network, *frozen):
            for done in self._in_lanes(waiting):
                results |= done
        return [results[i] for i in range(len(works))]

    def _in_lanes(self, waiting: Sequence[_Slot]) -> Iterator[dict[int, Trained | Failure]]:
        """Run LoRAs on every core of a CPU, in a lane of their own each; on a GPU, and when they are few, in one.

        The small products of LoRA do not gain from a second core; two of them at once do. Who runs in which lane is
        fixed by the order of `waiting`, so that a call gives the same last digits each time.
        """
        is_full = isinstance(waiting[0].work.start, Full)
        cores = torch.get_num_threads() if self._network.device.type == "cpu" and not is_full else 1
        lanes = cores if len(waiting) >= SLOTS_PER_LANE * cores else 1
        room = replace(
            self._room,
            tokens_per_step=math.ceil(self._room.tokens_per_step / lanes),
            bytes_of_slots=self._room.bytes_of_slots // lanes,
        )
        if lanes == 1:
            yield self._run(list(waiting), room)
            return
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(lanes) as pool:
                yield from pool.map(lambda lane: self._run(list(waiting[lane::lanes]), room), range(lanes))
        finally:
            torch.set_num_threads(cores)

    def _run(self, waiting: list[_Slot], room: Room) -> dict[int, Trained | Failure]:
        """Step all slots until nothing is left; `waiting` is taken from its end."""
        results: dict[int, Trained | Failure] = {}
        stack, optimizer = self._open([slot.work for slot in waiting], room)
        slots: dict[int, _Slot] = {}
        with stack.hung_on(self._network):
            while waiting or slots:
                while waiting and len(slots) < stack.slots:
                    index = next(k for k in range(stack.slots) if k not in slots)
                    slots[index] = waiting.pop()
                    stack.put(index, slots[index].work.start)
                    optimizer.restart(index, slots[index].work.job.settings.weight_decay)
                results |= self._step(stack, optimizer, slots)
                for index in [k for k, slot in slots.items() if slot.is_finished]:
                    slot = slots.pop(index)
                    results[slot.item] = slot.result(stack.take(index, slot.work.start))
        return results

    def _open(self, works: Sequence[Work], room: Room) -> tuple[Stack, StackedAdamW]:
        """Make room for as many works as pay, and as fit; a full update is alone on the network."""
        loras = [work.start for work in works if not isinstance(work.start, Full)]
        if not loras:
            alone = FullStack(self._network)
            return alone, StackedAdamW(alone)
        shapes = shapes_of(loras)
        rank = max(lora.rank for lora in loras)
        paying = math.ceil(room.tokens_per_step / fmean(_tokens_per_step(work.job) for work in works))
        fitting = room.bytes_of_slots // LoraStack.bytes_per_slot(shapes, rank, learns=True)
        most = max(1, min(len(works), paying, fitting))
        slots = math.ceil(len(works) / math.ceil(len(works) / most))  # as few as end at the same time
        while True:
            try:
                stack = LoraStack(shapes, slots, rank, self._network, learns=True)
                return stack, StackedAdamW(stack)
            except RuntimeError as error:
                if slots == 1 or not is_out_of_memory(error):
                    raise
                slots //= 2

    def _step(self, stack: Stack, optimizer: StackedAdamW, slots: dict[int, _Slot]) -> dict[int, Failure]:
        """Move every slot by one batch. Those whose data do not fit into memory are emptied, and named by item."""
        failures: dict[int, Failure] = {}
        stack.refresh()
        while True:
            try:
                losses_K = self._backward(stack, slots)
                break
            except _TooLarge as error:
                stack.forget_gradients()
                self._room = replace(self._room, tokens_per_pass=max(1, error.tokens // 2))
                if error.is_single:
                    slot = slots.pop(error.slot)
                    failures[slot.item] = Failure("train", "OutOfMemoryError", str(error))
        rates = {index: slot.rate() for index, slot in slots.items()}
        optimizer.step(rates, {index: slot.work.job.settings.clip for index, slot in slots.items()})
        for index, slot in slots.items():
            slot.losses.append(losses_K[index])
        return failures

    def _backward(self, stack: Stack, slots: dict[int, _Slot]) -> Tensor:
        """Add up the gradients of every slot's next batch; return the losses (`losses.py`), [K], 0 without weight."""
        device = self._network.device
        settings = {index: slot.work.job.settings for index, slot in slots.items()}
        sequences = []
        sizes_K = torch.zeros(stack.slots, dtype=torch.float64)
        for index, slot in sorted(slots.items()):
            data = slot.batch()
            sequences += [(index, datum) for datum in data]
            sizes_K[index] = slot.size or size_of(data)
        sizes_K = sizes_K.to(device)
        seen: Counter[int] = Counter()
        losses_K = torch.zeros(stack.slots, dtype=torch.float64, device=device)
        for part in passes(sequences, self._room.tokens_per_pass):
            try:
                batch = Batch.of(part, self._can_pack, device)
                dropouts = self._dropouts(batch, slots, seen)
                with stack.during(Groups.of(batch.sizes(stack.slots), device), dropouts):
                    losses_L = self._losses(batch, settings) / sizes_K[batch.owners_L]
                    losses_L.sum().backward()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise _TooLarge(part, error) from error
            losses_K.index_add_(0, batch.owners_L, losses_L.detach())
        return losses_K

    def _losses(self, batch: Batch, settings: Mapping[int, TrainSettings]) -> Tensor:
        """Pass a batch through the network; return the loss of every label, [L]."""
        if batch.soft is None:
            return token_losses(label_losses(self._network, batch), batch, settings)
        logits_LV = label_logits(self._network, batch)
        found_J = divergences(logits_LV, batch.soft, batch, settings)
        return token_losses(cross_entropies(logits_LV, batch), batch, settings, found_J)

    def _dropouts(self, batch: Batch, slots: Mapping[int, _Slot], seen: Counter[int]) -> list[Dropout]:
        """List the sequences of a pass that drop some of their inputs; `seen` counts each slot's, from pass to pass."""
        found = []
        for index, start, length in zip(batch.owners_S, batch.starts_S, batch.lengths_S, strict=True):
            if slots[index].work.job.settings.dropout:
                found.append(slots[index].dropout(start, length, seen[index], self._network.device))
            seen[index] += 1
        return found


class _TooLarge(Exception):
    """A pass did not fit into memory: how many tokens it had, and whether it can be cut."""

    def __init__(self, part: Sequence[tuple[int, Datum]], error: RuntimeError) -> None:
        super().__init__(str(error).splitlines()[0])
        self.tokens = sum(len(datum.tokens) for _, datum in part)
        self.is_single = len(part) == 1
        self.slot = part[0][0]


def _tokens_per_step(job: TrainJob) -> float:
    return sum(len(datum.tokens) for datum in job.data) / math.ceil(len(job.data) / job.settings.batch_size)


def _diverged(message: str) -> Failure:
    return Failure("train", "FloatingPointError", message)
