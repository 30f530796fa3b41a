"""The arms: four ways to train the same LoRAs on the same tokens, each as good as it can honestly be made.

All of them train rank 32, alpha 64, ten epochs, batch 1, AdamW at 1e-3 falling linearly, gradients clipped to norm 1.

- `Official`: as SEAL's published code does it. A new `get_peft_model` and a new `Trainer` for every self-edit, every
  sequence padded to 2048 with labels on the padding, the adapter written to disk and read back. With `width=None` it
  is padded to the longest sequence of the self-edit instead.
- `Sequential`: what a careful engineer writes. One PEFT model whose LoRA is drawn anew for each self-edit, no padding,
  no wrapper in the way, one fused AdamW over the LoRA alone, gradients set to None. Threads, attention and (on CUDA)
  autocast are those that a short trial finds fastest on this model.
- `Graphed`: the same with a CUDA graph of the whole step for every length, rounded up to a multiple of 16. To record
  the graphs is not timed. Where there is no CUDA the same padded step runs unrecorded, for the dry run.
- `Ours`: `engine.pool.Pool` with exactly K slots. Drawing the first weights and hashing the result, which the engine
  does around the pool, is timed too.

Each is called for one timing and returns seconds per self-edit of the mean size. Where it trained fewer epochs, steps
or self-edits, the part that grows with them is scaled up, by padded tokens in `Official` and by tokens in the others.
What happens once per self-edit is counted once; opening our slots is scaled with the rest, to our disadvantage.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from itertools import islice, pairwise, product
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from bench.measure import clock, seconds_of
from bench.subjects import Edit, Subject, twin
from selfedit.engine.adapters import Lora, Place, find_targets, fresh_lora
from selfedit.engine.checkpoints import Checkpoint
from selfedit.engine.local import ROOM
from selfedit.engine.lora import LoraStack, shapes_of
from selfedit.engine.pool import Pool, Room, Trained, Work
from selfedit.engine.ragged import can_pack
from selfedit.engine.schedules import batches, seeded
from selfedit.engine.updates import content_id
from selfedit.types import Datum, TrainJob

IGNORED = -100  # a label that transformers leaves out of the loss
BUCKET = 16  # tokens: lengths are rounded up to a multiple of this where there is a graph for each


def lora_config(subject: Subject) -> LoraConfig:
    """Word the settings for PEFT."""
    settings = subject.settings
    targets = None if settings.targets == "default" else str(settings.targets)
    return LoraConfig(r=settings.rank, lora_alpha=int(settings.alpha), target_modules=targets, task_type="CAUSAL_LM")


def places_of(subject: Subject, network: Any) -> dict[str, Place]:
    """Find the modules that are adapted."""
    checkpoint = Checkpoint(network, None, "", "bench@0", 2048, network.config.vocab_size, 0, frozenset())
    return find_targets(checkpoint, subject.settings.targets)


@cache
def lora_parameters(subject: Subject) -> int:
    """Count a LoRA's weights."""
    places = places_of(subject, subject.network).values()
    return sum(subject.settings.rank * (place.inputs + place.outputs) for place in places)


def ordered(edit: Edit, epochs: int, seed: int) -> list[tuple[int, ...]]:
    """List the sequences in the order of training, which is the engine's."""
    return [edit[row] for rows in batches(len(edit), 1, epochs, seeded(seed, "order")) for row in rows.tolist()]


class Ours:
    """The engine's pool with `slots` slots, on the first `edits` self-edits for `epochs` epochs."""

    def __init__(self, subject: Subject, slots: int, edits: int, epochs: int) -> None:
        self._subject = subject
        self._network = twin(subject.network)
        self._edits = subject.edits[:edits]
        self._share = subject.share(self._edits, epochs)
        self._settings = replace(subject.settings, epochs=epochs)
        self._places = places_of(subject, self._network)
        self._can_pack = can_pack(self._network)
        lora = self._fresh(0)
        bytes_of_slots = slots * LoraStack.bytes_per_slot(shapes_of([lora]), lora.rank, learns=True)
        default = ROOM[subject.device.type]
        self._room = Room(10**9, default.tokens_per_pass, bytes_of_slots)
        layout = "packed" if self._can_pack else "padded"
        self.timed = f"{len(self._edits)} self-edits, {epochs} of {subject.settings.epochs} epochs, {layout}"

    def __call__(self) -> float:
        """Train, and scale the loop up; first weights and the content's hash count once for each self-edit."""
        device = self._subject.device
        if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] < self._room.bytes_of_slots:
            raise RuntimeError("there is no memory for all slots; the pool would open fewer")
        start = clock(device)
        lora = self._fresh(0)
        fresh = clock(device) - start
        works = [Work(self._job(i, edit), lora) for i, edit in enumerate(self._edits)]
        start = clock(device)
        results = Pool(self._network, self._room, self._can_pack).train(works)
        looped = clock(device) - start
        trained = [result for result in results if isinstance(result, Trained)]
        if len(trained) < len(works):
            raise RuntimeError(f"{len(works) - len(trained)} of {len(works)} jobs failed: {results}"[:300])
        hashed = seconds_of(lambda: content_id("bench@0", "", trained[0].update), device)
        return fresh + looped / self._share + hashed

    def _fresh(self, seed: int) -> Lora:
        settings = self._subject.settings
        return fresh_lora(self._places, settings.rank, settings.alpha, seeded(seed, "weights"))

    def _job(self, seed: int, edit: Edit) -> TrainJob:
        return TrainJob(tuple(Datum(tokens, (1.0,) * len(tokens)) for tokens in edit), self._settings, seed)


class Options(NamedTuple):
    """What the sequential arm may choose."""

    threads: int
    attention: str
    autocast: bool

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.attention}{', autocast' if self.autocast else ''}"


class Sequential:
    """One PEFT model, one self-edit after another, one sequence after another."""

    def __init__(self, subject: Subject, edits: int, epochs: int) -> None:
        self._subject = subject
        self._edits = subject.edits[:edits]
        self._epochs = epochs
        self._share = subject.share(self._edits, epochs)
        self._model: Any = get_peft_model(twin(subject.network), lora_config(subject))
        self._network: Any = self._model.get_base_model().train()
        self._layers = [module for module in self._network.modules() if isinstance(module, LoraLayer)]
        self._weights = [weight for weight in self._network.parameters() if weight.requires_grad]
        self._optimizer = self._make_optimizer()
        self.options = Options(torch.get_num_threads(), "sdpa", subject.device.type == "cuda")
        self.timed = f"{len(self._edits)} self-edits, {epochs} of {subject.settings.epochs} epochs"
        self._settle()

    def __call__(self) -> float:
        """Train one self-edit after another; drawing the weights counts once for each."""
        device = self._subject.device
        with self._chosen(self.options):
            resets, looped = 0.0, 0.0
            for i, edit in enumerate(self._edits):
                resets += seconds_of(self._reset, device)
                sequences = [self._as_tensor(tokens) for tokens in ordered(edit, self._epochs, i)]
                looped += seconds_of(partial(self._train, sequences, len(edit)), device)
        return resets / len(self._edits) + looped / self._share

    def _settle(self, steps: int = 5) -> None:
        """Choose the options with which a few steps run fastest."""
        edit = [self._as_tensor(tokens) for tokens in islice(ordered(self._edits[0], self._epochs, 0), steps)]
        found = {}
        for options in self._choices():
            with self._chosen(options):
                self._train(edit[:1], steps)
                found[options] = min(seconds_of(partial(self._train, edit, steps), self._subject.device) for _ in "ab")
        self.options = min(found, key=lambda options: found[options])
        self.timed += f"; {self.options}"

    def _choices(self) -> Iterator[Options]:
        attentions = ("sdpa", "eager")
        if self._subject.device.type == "cuda":
            yield from (Options(torch.get_num_threads(), a, c) for a, c in product(attentions, (True, False)))
        else:
            yield from (Options(t, a, False) for t, a in product({1, torch.get_num_threads()}, attentions))

    @contextmanager
    def _chosen(self, options: Options) -> Iterator[None]:
        threads = torch.get_num_threads()
        torch.set_num_threads(options.threads)
        self._network.set_attn_implementation(options.attention)
        try:
            with torch.autocast(self._subject.device.type, torch.bfloat16, enabled=options.autocast):
                yield
        finally:
            torch.set_num_threads(threads)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self._weights, lr=1e-3, weight_decay=0.0, fused=True)

    def _reset(self) -> None:
        for layer in self._layers:
            layer.reset_lora_parameters("default", True)  # type: ignore[no-untyped-call]
        self._optimizer.state.clear()

    def _as_tensor(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor([tokens], device=self._subject.device)

    def _train(self, sequences: Sequence[Tensor], per_epoch: int) -> None:
        steps = per_epoch * self._subject.settings.epochs
        for step, tokens_1T in enumerate(sequences):
            self._set_rate(self._subject.settings.learning_rate * (1 - step / steps))
            self._step(tokens_1T)

    def _set_rate(self, rate: float) -> None:
        self._optimizer.param_groups[0]["lr"] = rate

    def _step(self, tokens_1T: Tensor) -> None:
        self._network(input_ids=tokens_1T, labels=tokens_1T, use_cache=False).loss.backward()
        self._update()

    def _update(self) -> None:
        torch.nn.utils.clip_grad_norm_(self._weights, self._subject.settings.clip, foreach=True)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


class Graphed(Sequential):
    """The same, every step a replay of the CUDA graph for its length."""

    def __init__(self, subject: Subject, edits: int, epochs: int) -> None:
        self._is_recorded = subject.device.type == "cuda"
        super().__init__(subject, edits, epochs)
        self._pool = torch.cuda.graph_pool_handle() if self._is_recorded else None
        self._replays: dict[int, tuple[Tensor, Tensor, Callable[[], object]]] = {}
        with self._chosen(self.options):
            for width in sorted({_rounded(len(tokens)) for edit in self._edits for tokens in edit}, reverse=True):
                self._replays[width] = self._record(width)

    def _settle(self, steps: int = 0) -> None:
        """There is nothing to choose: a recorded step needs autocast, and no threads."""

    @contextmanager
    def _chosen(self, options: Options) -> Iterator[None]:
        self._network.set_attn_implementation("sdpa")
        # Autocast's cache of cast weights would outlive the graph in which they were cast.
        with torch.autocast(self._subject.device.type, torch.bfloat16, enabled=options.autocast, cache_enabled=False):
            yield

    def _make_optimizer(self) -> torch.optim.Optimizer:
        device = self._subject.device
        self._rate = torch.tensor(1e-3, device=device)
        return torch.optim.AdamW(
            self._weights, lr=self._rate, weight_decay=0.0, fused=True, capturable=device.type == "cuda"
        )

    def _reset(self) -> None:
        for layer in self._layers:
            layer.reset_lora_parameters("default", True)  # type: ignore[no-untyped-call]
        for state in self._optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    def _set_rate(self, rate: float) -> None:
        self._rate.fill_(rate)

    def _record(self, width: int) -> tuple[Tensor, Tensor, Callable[[], object]]:
        ids_1T = torch.zeros(1, width, dtype=torch.long, device=self._subject.device)
        labels_1T = torch.zeros_like(ids_1T)
        step = partial(self._padded_step, ids_1T, labels_1T)
        if not self._is_recorded:
            return ids_1T, labels_1T, step
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step()
        return ids_1T, labels_1T, graph.replay

    def _padded_step(self, ids_1T: Tensor, labels_1T: Tensor) -> None:
        self._network(input_ids=ids_1T, labels=labels_1T, use_cache=False).loss.backward()
        self._update()

    def _step(self, tokens_1T: Tensor) -> None:
        length = tokens_1T.shape[1]
        ids_1T, labels_1T, replay = self._replays[_rounded(length)]
        ids_1T[:, :length] = tokens_1T
        labels_1T[:, :length] = tokens_1T
        labels_1T[:, length:] = IGNORED
        replay()


def _rounded(length: int) -> int:
    return math.ceil(length / BUCKET) * BUCKET


class _Stopwatch(TrainerCallback):
    """Note when each step of a Trainer ended."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.times.append(clock(self._device))

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(clock(self._device))


class Official:
    """A new PEFT model and Trainer for each of `edits` self-edits, of which `steps` steps are timed."""

    def __init__(self, subject: Subject, edits: int, steps: int, width: int | None) -> None:
        self._subject = subject
        self._network = twin(subject.network)
        self._edits = subject.edits[:edits]
        self._steps = steps
        self._width = width
        padded = f"padded to {width}" if width else "padded to the longest"
        self.timed = f"{len(self._edits)} self-edits, {steps} steps each, {padded}"
        # Padded tokens of the mean self-edit; over all of them, as the longest sequence differs between them.
        self._tokens = subject.settings.epochs * fmean(len(edit) * self._width_of(edit) for edit in subject.edits)

    def __call__(self) -> float:
        """Train a few steps of each, and scale them by their padded tokens; what surrounds the loop counts once."""
        around, per_token = [], []
        for edit in self._edits:
            times, total = self._train(edit)
            steps = [end - start for start, end in pairwise(times)]
            around.append(total - sum(steps))
            per_token.append(median(steps) / self._width_of(edit))
        return fmean(around) + fmean(per_token) * self._tokens

    def _width_of(self, edit: Edit) -> int:
        return self._width or max(map(len, edit))

    def _train(self, edit: Edit) -> tuple[list[float], float]:
        """Return when the loop began and its steps ended, and the seconds of all there is to it."""
        device = self._subject.device
        stopwatch = _Stopwatch(device)
        start = clock(device)
        with tempfile.TemporaryDirectory() as folder:
            model: Any = get_peft_model(self._network, lora_config(self._subject))
            trainer = Trainer(
                model=model,
                args=self._arguments(folder),
                train_dataset=self._rows(edit),
                callbacks=[stopwatch],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            model.save_pretrained(folder)
            self._network = model.unload()
            reloaded: Any = PeftModel.from_pretrained(self._network, folder)
            self._network = reloaded.unload()
        return stopwatch.times, clock(device) - start

    def _arguments(self, folder: str) -> TrainingArguments:
        settings = self._subject.settings
        return TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=1,
            max_steps=self._steps,
            learning_rate=settings.learning_rate,
            weight_decay=0.0,
            max_grad_norm=settings.clip,
            lr_scheduler_type="linear",
            bf16=self._subject.device.type == "cuda",
            use_cpu=self._subject.device.type == "cpu",
            dataloader_pin_memory=self._subject.device.type == "cuda",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )

    def _rows(self, edit: Edit) -> list[dict[str, list[int]]]:
        """Pad to the width, with labels on the padding as in the published code."""
        rows = []
        for tokens in edit:
            padded = [*tokens, *[0] * (self._width_of(edit) - len(tokens))]
            rows.append({"input_ids": padded, "attention_mask": [1] * len(tokens), "labels": padded})
            rows[-1]["attention_mask"] += [0] * (len(padded) - len(tokens))
        return rows
