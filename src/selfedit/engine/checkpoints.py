"""Open a causal language model: network, tokenizer, and a digest of the weights.

There is one path for the embedded model, a local folder and a hub id. The digest is taken over the weight files, so it
is the same on every device and under every folder name, and an adapter is never put on a base that it was not trained
for. Whatever cannot be opened becomes a `ModelError` of one sentence.

    checkpoint = open_checkpoint("pup", torch.device("cpu"))
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging
from transformers.utils.hub import cached_file

from selfedit.errors import ModelError

EMBEDDED = {"pup": "pup", "pup-grid": "pup_grid"}  # by name, the folder in the package
UNREADABLE = (
    *(OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, MemoryError),
    *(SafetensorError, StrictDataclassError),
)
OTHER_HEADS = ("ForMaskedLM", "Classification", "ForQuestionAnswering", "ForPreTraining")
WEIGHT_FILE = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)")


@dataclass(frozen=True, eq=False, slots=True)
class Checkpoint:
    """An opened model. `source` is what PEFT finds it by, `stops` end a generation, `eos` is the one that is trained.

    The network and the tokenizer are typed Any: transformers builds both by name.
    """

    network: Any
    tokenizer: Any
    source: str
    base: str
    context: int
    vocabulary: int
    eos: int
    stops: frozenset[int]


def open_checkpoint(model: str, device: torch.device) -> Checkpoint:
    """Open `model` ("pup", a folder or a hub id) in fp32 on a CPU, in bf16 on CUDA, frozen and in evaluation mode.

    Raises `ModelError`, one sentence, for whatever cannot be opened as a causal language model with a tokenizer.
    """
    source = _locate(model)
    with quiet():
        network = open_network(source, model, device)
        tokenizer = _open_tokenizer(source, model)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {model!r} has no end-of-sequence token; without one no answer would end")
    config = network.config.get_text_config()
    stops = network.generation_config.eos_token_id
    return Checkpoint(
        network=network,
        tokenizer=tokenizer,
        source=source,
        base=f"{Path(source).name if Path(source).is_dir() else source}@{_digest(source, model)}",
        context=_context(config, tokenizer),
        vocabulary=int(network.get_input_embeddings().weight.shape[0]),
        eos=tokenizer.eos_token_id,
        stops=frozenset([tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])]) - {None},
    )


def half_fits(model: str) -> Callable[[str], bool]:
    """Say of a text whether it takes up at most half of the context of `model`, so that one of its length fits beside
    it. Opens the tokenizer alone, not the weights. Raises `ModelError`."""
    source = _locate(model)
    with quiet():
        tokenizer = _open_tokenizer(source, model)
        config = AutoConfig.from_pretrained(source).get_text_config()
    half = _context(config, tokenizer) // 2
    return lambda text: len(tokenizer(text, verbose=False)["input_ids"]) + 1 <= half


def _context(config: Any, tokenizer: Any) -> int:
    return int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)


def _locate(model: str) -> str:
    """Turn the names of embedded models and local folders into paths; leave hub ids as they are."""
    path = Path(str(files("selfedit").joinpath(EMBEDDED[model]))) if model in EMBEDDED else Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(f"no model in {str(path)!r}; a checkpoint folder holds config.json, weights, a tokenizer")
        return str(path)
    if path.exists():
        raise ModelError(f"{model!r} is a file; give the folder of a checkpoint or a hub id")
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise ModelError(f"no model at {str(path)!r}; give an existing folder, or a hub id such as Qwen/Qwen2.5-0.5B")
    return model


def open_network(source: str, model: str, device: torch.device) -> Any:
    """Open the network alone, frozen; `model` is its name in messages. Raises `ModelError`."""
    try:
        heads = AutoConfig.from_pretrained(source).architectures or []
        if any(head.endswith(OTHER_HEADS) for head in heads):
            raise ModelError(f"{model!r} is a {heads[0]}, but a causal language model is needed")
        opened: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
            device_map={"": device},
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise ModelError(_why_not(error, model, device)) from error
    network, info = opened
    if info["missing_keys"]:
        lacks = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(f"{model!r} is no complete causal language model: it lacks {lacks}")
    network.requires_grad_(False)
    return network.eval()


def _open_tokenizer(source: str, model: str) -> Any:
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
    except UNREADABLE as error:
        raise ModelError(f"{model!r} has no tokenizer that can be read: {first_line(error)}") from error
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:  # what transformers makes up where there are no files
        raise ModelError(f"{model!r} has no tokenizer: it lacks tokenizer.json")
    return tokenizer


def _why_not(error: BaseException, model: str, device: torch.device) -> str:
    """Word why a network did not open: kind first, the library's own first line after it."""
    line = first_line(error)
    if isinstance(error, MemoryError) or "memory" in line.lower():
        return f"{model!r} does not fit in the memory of {device}; choose a smaller model"
    if "Unrecognized configuration class" in line:
        return f"{model!r} is no causal language model that transformers knows"
    return f"cannot load {model!r}: {line}"


def _digest(source: str, model: str) -> str:
    """Hash the weight files, 12 hex digits: independent of device, dtype, and the folder's name."""
    folder = Path(source)
    if not folder.is_dir():
        folder = Path(str(cached_file(source, "config.json"))).parent
    found = [path for path in sorted(folder.iterdir()) if WEIGHT_FILE.fullmatch(path.name)]
    chosen = [path for path in found if path.suffix == ".safetensors"] or found
    if not chosen:
        raise ModelError(f"{model!r} has no weight file named model.safetensors or pytorch_model.bin")
    digest = hashlib.sha256()
    for path in chosen:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def first_line(error: BaseException) -> str:
    """Cut a library's message to its first line."""
    return (str(error).strip() or repr(error)).splitlines()[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' log and its progress bars; what matters comes back as an exception."""
    verbosity, is_shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if is_shown:
            logging.enable_progress_bar()
