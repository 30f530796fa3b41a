"""What every engine does: sample, train, answer; synchronous, a batch in, a batch out, in the same order.

An item that fails comes back as a `Failure` in its place; the others are untouched. Results depend on an item and its
seed, never on what else is in the batch.

    engine = open_backend("local", "pup")
    adapter, = engine.train([TrainJob(engine.encode(examples, settings), settings, seed=0)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from selfedit.errors import ConfigError, ModelError, near_miss
from selfedit.types import Adapter, Datum, Example, Failure, Sample, SoftTargets, TrainJob, TrainSettings


@dataclass(frozen=True, slots=True)
class SampleJob:
    """Draw `n` completions of `prompt` from the base with `adapter` on it; draw i has a generator of (`seed`, i)."""

    prompt: str
    n: int
    seed: int
    adapter: Adapter | None = None
    temperature: float = 1.0
    top_p: float = 0.95
    max_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class AnswerJob:
    """Answer `prompts` greedily with `adapter` on the base, each in at most `max_tokens` tokens."""

    prompts: tuple[str, ...]
    adapter: Adapter | None = None
    max_tokens: int = 64


class Writer(Protocol):
    """What writes self-edits: any `Backend`, or a server that only samples (`engine.remote.open_writer`)."""

    def sample(self, jobs: Sequence[SampleJob]) -> list[list[Sample] | Failure]: ...


@runtime_checkable
class Backend(Protocol):
    """A frozen base model that can hold adapters."""

    @property
    def base(self) -> str:
        """Name of the base model with a digest of its weights: the same string, the same model."""

    @property
    def context(self) -> int:
        """The most tokens a sequence may have."""

    def encode(self, examples: Sequence[Example], settings: TrainSettings) -> tuple[Datum, ...]:
        """Tokenise texts into training sequences, one end-of-sequence label at the end of each.

        Raises `InputError` for a text longer than the context: nothing is cut silently.
        """

    def sample(self, jobs: Sequence[SampleJob]) -> list[list[Sample] | Failure]: ...

    def train(self, jobs: Sequence[TrainJob]) -> list[Adapter | Failure]: ...

    def answer(self, jobs: Sequence[AnswerJob]) -> list[list[str] | Failure]: ...

    def logprobs(self, data: Sequence[Datum], adapter: Adapter | None = None) -> list[list[float]]:
        """Natural log-probability of every token given those before it, [T] each; 0.0 for the first."""

    def top_logprobs(self, data: Sequence[Datum], k: int, adapter: Adapter | None = None) -> list[SoftTargets]:
        """What a model expects in the place of every label with a weight: the `k` likeliest tokens, likeliest first."""

    def merge(self, adapter: Adapter) -> Adapter:
        """Return a full update that is `adapter`, with those under it, merged into all weights of the base.

        Raises `ConfigError` for weights that cannot be merged into: quantised ones, tied ones that it changes alone.
        """

    def export(self, adapter: Adapter, folder: Path) -> Path:
        """Write `adapter` as a folder, atomically; return the folder. Adapters under it are folded in, so that it is
        valid on the bare base: LoRAs as a PEFT folder, what has a full update in it as a checkpoint of its own."""

    def load(self, folder: Path) -> Adapter:
        """Read a folder of `export`, or a foreign PEFT folder. Raises `ModelError` if it was made for another base."""

    def release(self, adapter: Adapter) -> None:
        """Forget an adapter's weights. Releasing twice is no error."""


def _local(model: str, device: str) -> Backend:
    backend: Backend = import_module("selfedit.engine.local").LocalBackend(model, device=device)
    return backend


BACKENDS: dict[str, Callable[[str, str], Backend]] = {"local": _local}


def open_backend(name: str, model: str, device: str = "auto") -> Backend:
    """Load `model` ("pup", a local path or a hub id) into backend `name`; `device` is "auto", "cpu" or "cuda".

    Raises `ConfigError` for an unknown backend and `ModelError` for a model that cannot be loaded or is no causal LM.
    """
    if name not in BACKENDS:
        raise ConfigError(f"unknown backend {name!r}; {near_miss(name, BACKENDS)}")
    return BACKENDS[name](model, device)


def half_fits(model: str) -> Callable[[str], bool]:
    """Say of a text whether it takes up at most half of the context of `model`, as a self-edit on it may the other.

    Opens the tokenizer alone. Raises `ModelError` for a model that has none.
    """
    fits: Callable[[str], bool] = import_module("selfedit.engine.checkpoints").half_fits(model)
    return fits


def find_device(device: str) -> str:
    """Resolve "auto" to "cuda" where there is a GPU, else "cpu"; let "cpu", "cuda" and "cuda:N" be.

    Raises `ConfigError` for another name and `ModelError` for CUDA where there is none.
    """
    if device.partition(":")[0] not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"unknown device {device!r}; known: auto, cpu, cuda")
    has_gpu = bool(import_module("torch").cuda.is_available())
    if device.startswith("cuda") and not has_gpu:
        raise ModelError("no CUDA device is available; use device 'cpu' or 'auto'")
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    return device


def limit_threads(n: int) -> None:
    """Let this process compute on `n` CPU cores, for several engines side by side on one machine."""
    import_module("torch").set_num_threads(n)
