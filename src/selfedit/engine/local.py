"""The engine in this process: one frozen transformers model, many adapters trained and examined at once.

It runs on a CPU in fp32 and on CUDA in bf16. An adapter is a LoRA or, by method "full", all weights of the model; it
is kept in memory as tensors and found again by its content id. A chain (an adapter on top of another) is used as the
one LoRA that it sums up to, on the full update at its foot, where there is one. What both kinds have in common stands
in `updates.py`, how LoRAs share a pass in `lora.py`, how all weights learn in `full.py`, who trains when in `pool.py`,
how text is generated in `decoding.py`, what is on disk in `checkpoints.py`, `adapters.py` and `full.py`.

In fp32 what else is in a batch changes logits by rounding only; in bf16 on CUDA that can suffice for another token. A
job with `start` keeps the rank, alpha and targets of that adapter; those of its settings are not looked at. A full
update takes in what it is trained on top of: nothing is under it, and what was may be released. Calls from several
threads take turns.

    engine = LocalBackend("pup")
    adapter, = engine.train([TrainJob(engine.encode(examples, settings), settings, seed=0)])
    answers, = engine.answer([AnswerJob(("Who founded Dunmore?",), adapter)])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import torch
from psutil import virtual_memory
from torch import Tensor

from selfedit.engine.adapters import Lora, Place, find_targets, fresh_lora
from selfedit.engine.base import AnswerJob, SampleJob, find_device
from selfedit.engine.checkpoints import open_checkpoint
from selfedit.engine.decoding import Row, decode
from selfedit.engine.full import Full, check_memory, check_weights, merged
from selfedit.engine.lora import LoraStack, shapes_of
from selfedit.engine.losses import check_soft
from selfedit.engine.pool import Pool, Room, Trained, Work
from selfedit.engine.ragged import Batch, can_pack, label_logits, label_losses, labelled, packing, passes
from selfedit.engine.schedules import seeded
from selfedit.engine.updates import Update, content_id, fold, mounted, read, write
from selfedit.errors import ConfigError, InputError, ModelError, boundary, near_miss
from selfedit.types import Adapter, Datum, Example, Failure, Sample, SoftTargets, Stage, TrainJob, TrainSettings

METHODS = ("lora", "full")
TOKENS_PER_BATCH = {"cpu": 16_384, "cuda": 131_072}  # when generating; halved as often as CUDA's memory asks for it
LOGITS_PER_PASS = 2**26  # tokens * vocabulary in `logprobs`: a quarter of a gigabyte
SHARE_OF_FREE_MEMORY = 0.5  # for adapters in training; the rest is for activations
ROOM = {
    "cpu": Room(tokens_per_step=1024, tokens_per_pass=4096, bytes_of_slots=2 * 2**30),
    "cuda": Room(tokens_per_step=2048, tokens_per_pass=8192, bytes_of_slots=64 * 2**30),
}

Job = TypeVar("Job", AnswerJob, SampleJob)
Item = TypeVar("Item")


class LocalBackend:
    """`Backend` in this process. `model` is "pup", a folder or a hub id; `device` is "auto", "cpu" or "cuda"."""

    def __init__(self, model: str, device: str = "auto") -> None:
        self._device = torch.device(find_device(device))
        self._checkpoint = open_checkpoint(model, self._device)
        self._network = self._checkpoint.network
        self._can_pack = can_pack(self._network)
        self._room = _room_beside(self._device)
        self._pool = self._new_pool()
        self._updates: dict[str, Update] = {}
        self._places: dict[str | tuple[str, ...], dict[str, Place]] = {}
        self._lock = RLock()

    @property
    def base(self) -> str:
        """`name@digest` of the weight files; the same on every device."""
        return self._checkpoint.base

    @property
    def context(self) -> int:
        """The most tokens a sequence may have."""
        return self._checkpoint.context

    def encode(self, examples: Sequence[Example], settings: TrainSettings) -> tuple[Datum, ...]:
        """Tokenise texts as the tokenizer does by default, each with one end-of-sequence label of weight 1 at its end.

        A `prompt` goes before the text exactly as `sample` would show it (chat template included); its labels weigh 0
        where `loss_on` is "completion". `pad_to` > 0 appends end-of-sequence labels of weight 1 up to the smaller of it
        and the context: SEAL's trap, where nearly all labels say "stop". Raises `InputError` for a text that does not
        fit in the context.
        """
        return tuple(self._encode_one(example, settings) for example in examples)

    def train(self, jobs: Sequence[TrainJob]) -> list[Adapter | Failure]:
        """Train one adapter a job: LoRAs on top of the same one at once, full updates one by one."""
        results: dict[int, Adapter | Failure] = {}
        groups: dict[tuple[Adapter | None, int | None], dict[int, TrainJob]] = {}
        for i, job in enumerate(jobs):
            with boundary("train") as caught:
                self._check_job(job)
                groups.setdefault((_under(job), i if job.settings.method == "full" else None), {})[i] = job
            if caught.failure:
                results[i] = caught.failure
        for (under, _), group in groups.items():
            with boundary("train") as caught:
                results |= zip(group, self._train(list(group.values()), under), strict=True)
            if caught.failure:  # one by one, so that what breaks a pass takes no other job with it
                results |= {i: self.train([job])[0] if len(group) > 1 else caught.failure for i, job in group.items()}
        return [results[i] for i in range(len(jobs))]

    def answer(self, jobs: Sequence[AnswerJob]) -> list[list[str] | Failure]:
        """Answer greedily; answers are stripped, without special tokens.

        A prompt after which the context does not hold `max_tokens` more fails its job.
        """
        return self._generate("answer", jobs, self._answer_rows, self._as_answers)

    def sample(self, jobs: Sequence[SampleJob]) -> list[list[Sample] | Failure]:
        """Draw completions; `max_tokens` is cut to what the context leaves, temperature 0 is greedy.

        A prompt that leaves no token fails its job.
        """
        return self._generate("propose", jobs, self._sample_rows, self._as_samples)

    def logprobs(self, data: Sequence[Datum], adapter: Adapter | None = None) -> list[list[float]]:
        """Natural log-probability of every token given those before it; 0.0 for the first.

        Raises `InputError` for a sequence that cannot be used, `ModelError` for an adapter that is not here.
        """
        for datum in data:
            self._check_datum(datum)
        results = [[0.0] * len(datum.tokens) for datum in data]
        whole = [Datum(datum.tokens, (1.0,) * len(datum.tokens)) for datum in data]
        for part, losses_L in self._in_passes(whole, adapter, label_losses):
            losses = iter(losses_L.tolist())
            for i, datum in part:
                results[i][1:] = [-next(losses) for _ in datum.tokens[1:]]
        return results

    def top_logprobs(self, data: Sequence[Datum], k: int, adapter: Adapter | None = None) -> list[SoftTargets]:
        """What the model expects in the place of every label with a weight, `k` tokens of the vocabulary at most.

        Given to a student as `Datum.soft`, it is that student's teacher. Raises as `logprobs` does, and `ConfigError`
        for a k below 1.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; a teacher needs to name at least 1 token")
        for datum in data:
            self._check_datum(datum)
        tokens, logprobs = ([[()] * len(datum.tokens) for datum in data] for _ in range(2))
        for part, logits_LV in self._in_passes(data, adapter, label_logits):
            found = logits_LV.log_softmax(1).topk(min(k, self._checkpoint.vocabulary), 1)
            rows = zip(found.indices.tolist(), found.values.tolist(), strict=True)
            for i, datum in part:
                for t in labelled(datum):
                    tokens[i][t], logprobs[i][t] = map(tuple, next(rows))
        return [SoftTargets(tuple(of), tuple(at)) for of, at in zip(tokens, logprobs, strict=True)]

    def merge(self, adapter: Adapter) -> Adapter:
        """Merge an adapter with those under it into a full update, which takes the sums in fp32.

        In fp32 it computes what the chain computes, but for the order of additions. Where the network computes in bf16
        its weights are rounded to bf16 with the update in them, as in a checkpoint that was merged and saved, while a
        chain is added to the base's in fp32.
        """
        check_weights(self._checkpoint)
        check_memory(self._checkpoint, virtual_memory().available)
        with self._lock:
            weights = merged(self._network, self._folded(adapter)).weights
            return self._keep(Full({name: tensor.to("cpu", torch.float32) for name, tensor in weights.items()}), None)

    def export(self, adapter: Adapter, folder: Path) -> Path:
        """Write a folder, atomically, valid on the bare base; return it.

        A chain of LoRAs becomes a PEFT folder of one LoRA whose rank is their sum. A full update, with the LoRAs on top
        of it merged in, becomes a checkpoint folder with weights in fp32, which also opens as a model of its own.
        """
        with self._lock:  # writing a checkpoint puts the weights on the network
            write(folder, self._folded(adapter), self._checkpoint, adapter.id)
        return folder

    def load(self, folder: Path) -> Adapter:
        """Read a folder of `export`, or a foreign PEFT folder with a plain LoRA.

        Raises `ModelError` if it was made for another base.
        """
        return self._keep(read(folder, self._checkpoint), under=None)

    def release(self, adapter: Adapter) -> None:
        """Forget an adapter's weights, and with them the use of adapters trained on top of it."""
        self._updates.pop(adapter.id, None)

    # Adapters

    def _keep(self, update: Update, under: Adapter | None) -> Adapter:
        adapter = Adapter(content_id(self.base, under.id if under else "", update), self.base, under, update.rank)
        self._updates[adapter.id] = update
        return adapter

    def _chain(self, adapter: Adapter | None) -> list[Update]:
        """Look up an adapter and those under it, lowest first."""
        if adapter is None:
            return []
        if adapter.base != self.base:
            raise ModelError(f"adapter {adapter.id} belongs to {adapter.base}, and this engine runs {self.base}")
        if adapter.id not in self._updates:
            raise ModelError(f"adapter {adapter.id} is not in this engine (released, or never loaded); load its folder")
        return [*self._chain(adapter.under), self._updates[adapter.id]]

    def _folded(self, adapter: Adapter | None) -> tuple[Update, ...]:
        """Give what is put on the network for an adapter; nothing for the bare base."""
        return fold(self._chain(adapter))

    def _in_passes(
        self, data: Sequence[Datum], adapter: Adapter | None, compute: Callable[[Any, Batch], Tensor]
    ) -> Iterator[tuple[list[tuple[int, Datum]], Tensor]]:
        """Compute something of all labels, pass by pass, with the adapter on the network; what has labels goes with its
        number in `data`."""
        budget = LOGITS_PER_PASS // self._checkpoint.vocabulary
        found = [(i, datum) for i, datum in enumerate(data) if labelled(datum)]
        on_network = mounted(self._network, *self._folded(adapter))
        with self._lock, torch.no_grad(), on_network, packing(self._network, self._can_pack):
            for part in passes(found, budget):
                yield part, compute(self._network, Batch.of(part, self._can_pack, self._device))

    # Training

    def _train(self, jobs: Sequence[TrainJob], under: Adapter | None) -> list[Adapter | Failure]:
        """Train LoRAs on top of one adapter, or a single full update.

        A large model's adapters have so many weights that to draw and to name them takes about as long as to train
        them; both leave Python alone, so threads do it.
        """
        with self._lock, ThreadPoolExecutor() as threads:
            works = list(threads.map(lambda job: Work(job, self._first_weights(job)), jobs))
            # A full update leaves less memory to a pass than LoRAs do: what it finds out is forgotten with its pool.
            pool = self._new_pool() if jobs[0].settings.method == "full" else self._pool
            trained = pool.train(works, self._folded(under))
            return list(threads.map(lambda t: self._keep(t.update, under) if isinstance(t, Trained) else t, trained))

    def _new_pool(self) -> Pool:
        return Pool(self._network, self._room, self._can_pack)

    def _first_weights(self, job: TrainJob) -> Update:
        settings = job.settings
        if settings.method == "full":
            check_memory(self._checkpoint, virtual_memory().available)
            return merged(self._network, self._folded(job.start or job.under))
        if job.start:
            return self._chain(job.start)[-1]
        return fresh_lora(self._places[settings.targets], settings.rank, settings.alpha, seeded(job.seed, "weights"))

    def _check_job(self, job: TrainJob) -> None:
        settings = job.settings
        if settings.method not in METHODS:
            raise ConfigError(f"unknown method {settings.method!r}; {near_miss(settings.method, METHODS)}")
        for name in ("epochs", "batch_size") if settings.method == "full" else ("rank", "epochs", "batch_size"):
            if getattr(settings, name) < 1:
                raise ConfigError(f"{name} is {getattr(settings, name)}; it must be 1 or more")
        for name in ("clip_ratio", "kl"):
            if not 0 <= getattr(settings, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(settings, name)}; it must be 0 or more")
        if job.under and job.start:
            raise ConfigError("a job has both `under` and `start`; give one: an adapter on top, or the same continued")
        if job.start and isinstance(self._chain(job.start)[-1], Full) != (settings.method == "full"):
            raise ConfigError(
                f"method is {settings.method!r}, which cannot continue adapter {job.start.id}, trained by the other "
                "method; give it as `under`"
            )
        if settings.method == "full":
            check_weights(self._checkpoint)
        else:
            self._check_lora(job)
        self._check_data(job)

    def _check_data(self, job: TrainJob) -> None:
        for datum in job.data:
            self._check_datum(datum)
        if len({datum.logprobs is None for datum in job.data}) > 1:
            raise InputError("some sequences of the job have old log-probabilities and others none; give all or none")
        if any(datum.soft and datum.logprobs for datum in job.data):
            raise InputError(
                "a sequence has both soft targets and old log-probabilities; give one: a teacher, or those"
            )
        if job.settings.kl and any(datum.reference is None for datum in job.data):
            raise InputError(f"kl is {job.settings.kl}, and a sequence has no reference to stay near; give it, or kl=0")
        if not any(weight != 0 for datum in job.data for weight in datum.weights[1:]):
            raise InputError("the job has no token to learn: its data are empty, or all weights are 0")

    def _check_lora(self, job: TrainJob) -> None:
        settings = job.settings
        if not 0 <= settings.dropout < 1:
            raise ConfigError(f"dropout is {settings.dropout}; it must be at least 0 and below 1")
        if not job.start and settings.targets not in self._places:
            self._places[settings.targets] = find_targets(self._checkpoint, settings.targets)

    def _check_datum(self, datum: Datum) -> None:
        length = len(datum.tokens)
        if length > self.context:
            raise InputError(f"a sequence has {length} tokens; the context of {self.base} holds {self.context}")
        if len(datum.weights) != length:
            raise InputError(f"a sequence has {length} tokens and {len(datum.weights)} weights; give each token one")
        for name, logprobs in (("old", datum.logprobs), ("reference", datum.reference)):
            if logprobs is not None and len(logprobs) != length:
                raise InputError(f"a sequence has {length} tokens and {len(logprobs)} {name} log-probabilities")
            if logprobs is not None and not all(map(math.isfinite, logprobs)):
                raise InputError(f"a sequence has {name} log-probabilities that are not finite")
        if datum.soft is not None:
            check_soft(datum, datum.soft, self._checkpoint.vocabulary)
        if length and not 0 <= min(datum.tokens) <= max(datum.tokens) < self._checkpoint.vocabulary:
            raise InputError(f"a sequence has a token id outside the vocabulary of {self._checkpoint.vocabulary}")

    # Text and tokens

    def _prompt_tokens(self, prompt: str) -> list[int]:
        """Tokenise a prompt, as a user's turn where the model has a chat template; the template brings its own BOS."""
        tokenizer = self._checkpoint.tokenizer
        if not tokenizer.chat_template:
            return self._text_tokens(prompt)
        turns = [{"role": "user", "content": prompt}]
        return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=False))

    def _text_tokens(self, text: str, special: bool = True) -> list[int]:
        """Tokenise without a closing end-of-sequence token: some tokenizers add one, most do not."""
        tokens = self._checkpoint.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return list(tokens[:-1] if tokens[-1:] == [self._checkpoint.eos] else tokens)

    def _encode_one(self, example: Example, settings: TrainSettings) -> Datum:
        before = self._prompt_tokens(example.prompt) if example.prompt else []
        tokens = [*before, *self._text_tokens(example.text, special=not before), self._checkpoint.eos]
        if len(tokens) > self.context:
            raise InputError(
                f"a text has {len(tokens)} tokens with its prompt and end; {self.base} holds {self.context}: "
                f"{example.text[:40]!r}"
            )
        silent = len(before) if settings.loss_on == "completion" else 0
        padding = max(0, min(settings.pad_to, self.context) - len(tokens))
        weights = [0.0] * silent + [1.0] * (len(tokens) - silent + padding)
        return Datum(tuple(tokens + [self._checkpoint.eos] * padding), tuple(weights))

    # Generation

    def _generate(
        self,
        stage: Stage,
        jobs: Sequence[Job],
        to_rows: Callable[[Job], list[Row]],
        finish: Callable[[Job, list[Row]], list[Item]],
    ) -> list[list[Item] | Failure]:
        """Decode the rows of all jobs of an adapter together; a job that fails takes no other with it."""
        rows_of: dict[int, list[Row]] = {}
        results: dict[int, list[Item] | Failure] = {}
        for i, job in enumerate(jobs):
            with boundary(stage) as caught:
                self._chain(job.adapter)
                rows_of[i] = to_rows(job)
            if caught.failure:
                results[i] = caught.failure
        with boundary(stage) as caught:
            self._decode(stage, {i: jobs[i].adapter for i in rows_of}, rows_of)
        if caught.failure and len({jobs[i].adapter for i in rows_of}) > 1:  # one by one, as in `train`
            return [results.get(i) or self._generate(stage, [job], to_rows, finish)[0] for i, job in enumerate(jobs)]
        for i, rows in rows_of.items():
            failure = caught.failure or next((row.failure for row in rows if row.failure), None)
            results[i] = failure or finish(jobs[i], rows)
        return [results[i] for i in range(len(jobs))]

    def _decode(self, stage: Stage, adapters: Mapping[int, Adapter | None], rows_of: Mapping[int, list[Row]]) -> None:
        """Decode the rows of all jobs: together those of all adapters that stand on one full update, or on none."""
        groups: dict[Adapter | None, dict[Adapter | None, list[Row]]] = {}
        for i, rows in rows_of.items():
            groups.setdefault(self._full_of(adapters[i]), {}).setdefault(adapters[i], []).extend(rows)
        for full, rows_by_adapter in groups.items():
            self._decode_together(stage, full, rows_by_adapter)

    def _decode_together(
        self, stage: Stage, full: Adapter | None, rows: Mapping[Adapter | None, Sequence[Row]]
    ) -> None:
        """Decode the rows of adapters on one full update: a single adapter is mounted, several share a stack."""
        distinct = list(rows)
        shared, loras = self._on_common_ground(full, distinct)
        with self._lock, mounted(self._network, *shared):
            if len(distinct) == 1:
                self._fill(stage, rows[distinct[0]])
                return
            shapes = shapes_of([lora for lora in loras if lora])
            rank = max(lora.rank for lora in loras if lora)
            fitting = max(1, self._room.bytes_of_slots // LoraStack.bytes_per_slot(shapes, rank, learns=False))
            for start in range(0, len(distinct), fitting):
                few = range(start, min(start + fitting, len(distinct)))
                stack = LoraStack(shapes, len(few), rank, self._network)
                for slot, i in enumerate(few):
                    stack.put(slot, loras[i])
                    for row in rows[distinct[i]]:
                        row.slot = slot
                with stack.hung_on(self._network):
                    self._fill(stage, [row for i in few for row in rows[distinct[i]]], stack)
                del stack  # before the next one is made

    def _fill(self, stage: Stage, rows: Sequence[Row], stack: LoraStack | None = None) -> None:
        checkpoint, budget = self._checkpoint, TOKENS_PER_BATCH[self._device.type]
        decode(self._network, rows, checkpoint.stops, checkpoint.eos, budget, stage, stack)

    def _full_of(self, adapter: Adapter | None) -> Adapter | None:
        """Find the full update that an adapter is or stands on; None where there is none."""
        while adapter and adapter.under:
            adapter = adapter.under
        return adapter if adapter and isinstance(self._updates[adapter.id], Full) else None

    def _on_common_ground(
        self, full: Adapter | None, adapters: Sequence[Adapter | None]
    ) -> tuple[tuple[Update, ...], list[Lora | None]]:
        """Split adapters into what all of them stand on, at least `full`, and the LoRA that each adds to it."""
        first = adapters[0]
        if len(adapters) == 1:
            return self._folded(first), [None]
        if first and all(adapter and adapter.under == first.under for adapter in adapters):
            tops = [self._chain(adapter)[-1] for adapter in adapters]
            return self._folded(first.under), [top for top in tops if isinstance(top, Lora)]
        folded = [self._folded(adapter) for adapter in adapters]
        return self._folded(full), [next((u for u in found if isinstance(u, Lora)), None) for found in folded]

    def _answer_rows(self, job: AnswerJob) -> list[Row]:
        prompts = [self._prompt_tokens(prompt) for prompt in job.prompts]
        for tokens in prompts:
            self._check_prompt(tokens, job.max_tokens, room=job.max_tokens)
        return [Row(tokens, job.max_tokens) for tokens in prompts]

    def _sample_rows(self, job: SampleJob) -> list[Row]:
        if job.temperature < 0 or not 0 < job.top_p <= 1:
            raise ConfigError(f"temperature is {job.temperature}, top_p {job.top_p}; they must be in [0, ∞) and (0, 1]")
        tokens = self._prompt_tokens(job.prompt)
        self._check_prompt(tokens, job.max_tokens, room=1)
        limit = min(job.max_tokens, self.context - len(tokens))
        return [Row(tokens, limit, job.temperature, job.top_p, f"{job.seed}/{i}") for i in range(job.n)]

    def _check_prompt(self, tokens: Sequence[int], max_tokens: int, room: int) -> None:
        if max_tokens < 1:
            raise ConfigError(f"max_tokens is {max_tokens}; it must be 1 or more")
        if not tokens:
            raise InputError("the prompt is empty; a model needs at least one token to continue")
        if len(tokens) + room > self.context:
            raise InputError(
                f"the prompt has {len(tokens)} tokens and needs {room} more; {self.base} holds {self.context}"
            )

    def _as_answers(self, job: AnswerJob, rows: list[Row]) -> list[str]:
        return [self._text(row).strip() for row in rows]

    def _as_samples(self, job: SampleJob, rows: list[Row]) -> list[Sample]:
        return [
            Sample(
                prompt=job.prompt,
                prompt_tokens=tuple(row.prompt),
                tokens=tuple(row.tokens),
                logprobs=tuple(row.logprobs),
                text=self._text(row),
                stop=row.stop or "length",
            )
            for row in rows
        ]

    def _text(self, row: Row) -> str:
        decode_tokens = self._checkpoint.tokenizer.decode
        return str(decode_tokens(row.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _room_beside(device: torch.device) -> Room:
    """Lower the room for adapters to what a device has free once the network is there."""
    room = ROOM[device.type]
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else virtual_memory().available
    return replace(room, bytes_of_slots=min(room.bytes_of_slots, int(SHARE_OF_FREE_MEMORY * free)))


def _under(job: TrainJob) -> Adapter | None:
    """Return the adapter that stays frozen under what a job trains; a full update takes it in."""
    if job.settings.method == "full":
        return None
    return job.start.under if job.start else job.under
