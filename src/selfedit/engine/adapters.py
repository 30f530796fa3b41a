"""LoRAs as tensors and as PEFT folders: where they go, how a chain becomes one, how they are written and read.

A LoRA in memory is a `Lora`: for every adapted module `A` [rank, in] and `B` [out, rank] in fp32; the module computes
`W x + alpha / rank · B A x`. *Where* it goes is decided by PEFT itself, on a copy of the network without weights, so
that targets, defaults and patterns mean what they mean there.

A folder is PEFT's two files and `selfedit.json`, which PEFT ignores: {"base": name@digest, "adapter": id}. It is valid
on the bare base; the digest keeps it off every other one.

    write_folder(folder, summed([writer, learnt]), checkpoint, adapter_id)
    lora = read_folder(folder, checkpoint)
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from peft.utils import load_peft_weights
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from selfedit.engine.checkpoints import UNREADABLE, Checkpoint, first_line
from selfedit.errors import ConfigError, ModelError, near_miss

REBASING = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that change the base's own weights
PREFIX = "base_model.model."


@dataclass(frozen=True, eq=False, slots=True)
class Lora:
    """A LoRA's tensors: module name → (A [rank, in], B [out, rank]). `alpha / rank` scales every module alike."""

    rank: int
    alpha: float
    weights: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def scale(self) -> float:
        """The factor on B A."""
        return self.alpha / self.rank

    def tensors(self) -> Iterator[Tensor]:
        """Give every tensor, in the order of the names, A before B."""
        return (tensor for name in sorted(self.weights) for tensor in self.weights[name])


@dataclass(frozen=True, slots=True)
class Place:
    """A module that PEFT would adapt: its widths, and the rank and scale that the configuration gives it."""

    inputs: int
    outputs: int
    rank: int
    scale: float


def find_places(checkpoint: Checkpoint, config: LoraConfig) -> dict[str, Place]:
    """Find the modules that PEFT adapts under `config`, in the network's order. Raises `ConfigError` if none fits."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # PEFT's advice on tied and transposed layers is about merging
        skeleton = AutoModelForCausalLM.from_config(checkpoint.network.config)
        try:
            inject_adapter_in_model(config, skeleton, low_cpu_mem_usage=True)
        except ValueError as error:
            raise ConfigError(f"LoRA targets do not fit {checkpoint.base}: {first_line(error)}") from error
    layers = {name: module for name, module in skeleton.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        if not isinstance(layer, Linear):
            raise ConfigError(f"LoRA target {name!r} is no linear layer; choose linear layers")
    return {
        name: Place(
            inputs=int(layer.in_features or 0),
            outputs=int(layer.out_features or 0),
            rank=layer.r["default"],
            scale=layer.scaling["default"],
        )
        for name, layer in layers.items()
    }


def find_targets(checkpoint: Checkpoint, targets: str | tuple[str, ...]) -> dict[str, Place]:
    """Find the modules that `TrainSettings.targets` means. Raises `ConfigError` for a name that matches none."""
    names = None if targets == "default" else [targets] if isinstance(targets, str) else list(targets)
    if names and names != ["all-linear"]:
        modules = [name for name, _ in checkpoint.network.named_modules()]
        for name in names:
            if not any(module == name or module.endswith(f".{name}") for module in modules):
                known = {last for module in modules if (last := module.rpartition(".")[2]).isidentifier()}
                hint = near_miss(name, known)
                raise ConfigError(f"LoRA target {name!r} matches no module of {checkpoint.base}; {hint}")
    return find_places(checkpoint, LoraConfig(r=1, target_modules="all-linear" if names == ["all-linear"] else names))


def fresh_lora(places: Mapping[str, Place], rank: int, alpha: float, generator: torch.Generator) -> Lora:
    """Draw a LoRA that changes nothing yet: A uniform in ±1/√in as PEFT's, B zero. On the CPU: alike on all devices."""
    weights = {}
    for name, place in places.items():
        bound = place.inputs**-0.5
        down = torch.empty(rank, place.inputs).uniform_(-bound, bound, generator=generator)
        weights[name] = (down, torch.zeros(place.outputs, rank))
    return Lora(rank, alpha, weights)


def summed(chain: Sequence[Lora]) -> Lora:
    """Sum a chain of LoRAs exactly into one, by stacking along the rank with the scales moved into B.

    The rank is the sum of ranks; where some of them leave a module alone, their blocks are zeros. One alone is returned
    as it is.
    """
    if len(chain) == 1:
        return chain[0]
    weights = {}
    for name, (down, up) in {name: pair for lora in chain for name, pair in lora.weights.items()}.items():
        blocks = [
            lora.weights.get(name) or (down.new_zeros(lora.rank, down.shape[1]), up.new_zeros(up.shape[0], lora.rank))
            for lora in chain
        ]
        scaled = [block[1] * lora.scale for block, lora in zip(blocks, chain, strict=True)]
        weights[name] = (torch.cat([block[0] for block in blocks]), torch.cat(scaled, dim=1))
    rank = sum(lora.rank for lora in chain)
    return Lora(rank, float(rank), weights)


def write_folder(folder: Path, lora: Lora, checkpoint: Checkpoint, adapter_id: str) -> None:
    """Write a PEFT folder that is valid on the bare base. It appears whole or not at all."""
    config = LoraConfig(
        base_model_name_or_path=checkpoint.source,
        revision=getattr(checkpoint.network.config, "_commit_hash", None),
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=lora.rank,
        lora_alpha=int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,  # type: ignore[arg-type]
        target_modules=_short_names(checkpoint, lora.weights),
    )
    tensors = {
        f"{PREFIX}{name}.lora_{side}.weight": tensor.cpu().contiguous()
        for name, pair in lora.weights.items()
        for side, tensor in zip("AB", pair, strict=True)
    }
    with replacing(folder) as new:
        config.save_pretrained(str(new))
        # `save_file` makes files that only their owner may read; a server may run as somebody else.
        (new / "adapter_model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        write_note(new, checkpoint, adapter_id)


def read_folder(folder: Path, checkpoint: Checkpoint) -> Lora:
    """Read a PEFT LoRA folder, ours or a foreign one whose shapes fit.

    Raises `ModelError` for another base's, for a broken one, and for what is not plain LoRA (DoRA, trained biases or
    embeddings).
    """
    if not (folder / "adapter_config.json").is_file() or not any(folder.glob("adapter_model.*")):
        raise ModelError(
            f"no PEFT adapter in {str(folder)!r}; expected adapter_config.json and adapter_model.safetensors, or the "
            "checkpoint of a full update"
        )
    try:
        config = PeftConfig.from_pretrained(str(folder))
        _check_base(folder, config, checkpoint)
        tensors = load_peft_weights(str(folder), device="cpu")
    except UNREADABLE as error:
        raise ModelError(f"cannot read a PEFT adapter in {str(folder)!r}: {first_line(error)}") from error
    init = str(getattr(config, "init_lora_weights", ""))
    if not isinstance(config, LoraConfig) or config.alora_invocation_tokens or init.startswith(REBASING):
        raise ModelError(f"the adapter in {str(folder)!r} is no plain LoRA on an unchanged base; only that can be used")
    try:
        places = find_places(checkpoint, config)
    except ConfigError as error:
        raise ModelError(f"the adapter in {str(folder)!r} does not fit {checkpoint.base}: {error}") from error
    return _uniform(_pair(folder, tensors, places, checkpoint), places)


def _check_base(folder: Path, config: PeftConfig, checkpoint: Checkpoint) -> None:
    """Compare bases by digest, where the folder has a note of ours.

    A foreign folder names its base by hub id and revision at best; what it does not name cannot be checked.
    """
    if made_for := read_note(folder):
        return check_digest(folder, made_for, checkpoint)
    named, revision = config.base_model_name_or_path, config.revision
    ours = getattr(checkpoint.network.config, "_commit_hash", None)
    is_hub = bool(named) and not Path(str(named)).is_dir() and not Path(checkpoint.source).is_dir()
    if is_hub and (named != checkpoint.source or (revision and ours and revision != ours)):
        raise _made_for_another(folder, f"{named}@{revision}" if revision else str(named), checkpoint)


def _pair(
    folder: Path, tensors: Mapping[str, Tensor], places: Mapping[str, Place], checkpoint: Checkpoint
) -> dict[str, tuple[Tensor, Tensor]]:
    """Sort a folder's tensors by module, and check that each belongs to one and has its shape."""
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, side = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
        if name not in places or side not in ("A", "B"):
            base = checkpoint.base
            raise ModelError(f"the adapter in {str(folder)!r} holds {key!r}, no LoRA of a linear layer of {base}")
        sides.setdefault(name, {})[side] = tensor.float().to(checkpoint.network.device)
    for name, pair in sides.items():
        place = places[name]
        expected = {"A": (place.rank, place.inputs), "B": (place.outputs, place.rank)}
        given = {side: tuple(tensor.shape) for side, tensor in pair.items()}
        if given != expected:
            raise ModelError(f"the adapter in {str(folder)!r} does not fit {name}: {given}, expected {expected}")
    if not sides:
        raise ModelError(f"the adapter in {str(folder)!r} is empty")
    return {name: (sides[name]["A"], sides[name]["B"]) for name in places if name in sides}


def _uniform(weights: Mapping[str, tuple[Tensor, Tensor]], places: Mapping[str, Place]) -> Lora:
    """Bring modules of unlike ranks or scales (PEFT's patterns) to one rank by blocks of zeros, and to scale 1."""
    kinds = {(places[name].rank, places[name].scale) for name in weights}
    rank = max(rank for rank, _ in kinds)
    if len(kinds) == 1:
        return Lora(rank, rank * kinds.pop()[1], weights)
    padded = {}
    for name, (down, up) in weights.items():
        missing = rank - places[name].rank
        scaled = up * places[name].scale
        padded[name] = (functional.pad(down, (0, 0, 0, missing)), functional.pad(scaled, (0, missing)))
    return Lora(rank, float(rank), padded)


def _short_names(checkpoint: Checkpoint, names: Mapping[str, Any]) -> list[str]:
    """Name targets by their last part, as inference servers expect, unless that would catch other modules too."""
    short = {name.rpartition(".")[2] for name in names}
    caught = {name for name, _ in checkpoint.network.named_modules() if name.rpartition(".")[2] in short}
    return sorted(short if caught == set(names) else names)


def write_note(folder: Path, checkpoint: Checkpoint, adapter_id: str) -> Path:
    """Note in an adapter's folder which base it is for, and its id; give the note's path."""
    path = folder / "selfedit.json"
    path.write_text(json.dumps({"base": checkpoint.base, "adapter": adapter_id}) + "\n")
    return path


def read_note(folder: Path) -> str | None:
    """Return the base that a folder's note names; None without a note. Raises `ModelError` for a broken one."""
    path = folder / "selfedit.json"
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text())["base"])
    except UNREADABLE as error:
        raise ModelError(f"cannot read {str(path)!r}: {first_line(error)}") from error


def check_digest(folder: Path, made_for: str, checkpoint: Checkpoint) -> None:
    """Raise `ModelError` if `made_for` has another digest: the same weights under another path are the same base."""
    if made_for.rpartition("@")[2] != checkpoint.base.rpartition("@")[2]:
        raise _made_for_another(folder, made_for, checkpoint)


def _made_for_another(folder: Path, made_for: str, checkpoint: Checkpoint) -> ModelError:
    return ModelError(f"the adapter in {str(folder)!r} was made for {made_for}, and this model is {checkpoint.base}")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give a new sibling folder to fill, and put it in `folder`'s place at the end; an error leaves nothing behind."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    new.mkdir()
    try:
        yield new
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
