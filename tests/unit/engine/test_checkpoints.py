"""Opening models: what cannot be opened says why in one sentence, and a digest names what was opened."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from selfedit.engine.base import open_backend
from selfedit.engine.checkpoints import open_checkpoint
from selfedit.engine.local import LocalBackend
from selfedit.errors import ConfigError, ModelError

CPU = torch.device("cpu")


@pytest.fixture
def model_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "tiny"))


def spoil_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_checkpoint_is_named_by_its_folder_and_a_digest_of_its_weights(tiny_model_dir: Path, model_dir: Path) -> None:
    base = open_checkpoint(str(tiny_model_dir), CPU).base
    name, _, digest = base.partition("@")
    assert name == "tiny"
    assert len(digest) == 12
    assert open_checkpoint(str(model_dir), CPU).base == base
    renamed = model_dir.rename(model_dir.with_name("other"))
    assert open_checkpoint(str(renamed), CPU).base == f"other@{digest}"
    tensors = load_file(renamed / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, renamed / "model.safetensors", metadata={"format": "pt"})
    assert open_checkpoint(str(renamed), CPU).base.partition("@")[2] != digest


def test_a_network_is_frozen_and_its_limits_are_read_off_its_configuration(tiny_model_dir: Path) -> None:
    checkpoint = open_checkpoint(str(tiny_model_dir), CPU)
    assert (checkpoint.context, checkpoint.vocabulary, checkpoint.eos) == (256, 300, 0)
    assert not checkpoint.network.training
    assert not any(parameter.requires_grad for parameter in checkpoint.network.parameters())
    assert {parameter.dtype for parameter in checkpoint.network.parameters()} == {torch.float32}


def test_every_stop_id_of_the_generation_settings_ends_an_answer(model_dir: Path) -> None:
    spoil_json(model_dir / "generation_config.json", eos_token_id=[7, 9])
    assert open_checkpoint(str(model_dir), CPU).stops == {0, 7, 9}


def test_opening_prints_nothing(tiny_model_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    LocalBackend(str(tiny_model_dir), "cpu")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("model", ["/no/such/model", "./no-such-model", "no/such/model"])
def test_a_path_that_does_not_exist_is_named(model: str) -> None:
    with pytest.raises(ModelError, match=r"no model at '.*model'; give an existing folder, or a hub id"):
        open_checkpoint(model, CPU)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "a checkpoint folder holds config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot load"),
        (lambda folder: spoil_json(folder / "config.json", hidden_size=33), "cannot load"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"nonsense"), "cannot load"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot load"),
        (lambda folder: drop_tensor(folder, "model.norm.weight"), "it lacks model.norm.weight"),
        (lambda folder: BertForMaskedLM(BertConfig(**SMALL)).save_pretrained(folder), "is a BertForMaskedLM"),
        (lambda folder: T5ForConditionalGeneration(T5Config(d_model=8, d_kv=2, d_ff=8, num_layers=1, vocab_size=9))
            .save_pretrained(folder), "no causal language model"),
        (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "has no tokenizer"),
        (lambda folder: spoil_json(folder / "tokenizer_config.json", eos_token=None), "no end-of-sequence token"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_causal_language_model_is_refused_with_a_sentence(
    model_dir: Path, spoil: Any, words: str
) -> None:
    spoil(model_dir)
    with pytest.raises(ModelError, match=words) as error:
        open_checkpoint(str(model_dir), CPU)
    assert "\n" not in str(error.value)


SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 9,
    "max_position_embeddings": 8,
}


def drop_tensor(folder: Path, name: str) -> None:
    path = folder / "model.safetensors"
    save_file({key: tensor for key, tensor in load_file(path).items() if key != name}, path, metadata={"format": "pt"})


def test_a_file_is_no_model(tiny_model_dir: Path) -> None:
    with pytest.raises(ModelError, match="is a file"):
        open_checkpoint(str(tiny_model_dir / "config.json"), CPU)


def test_too_little_memory_is_said_so(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 14 GiB\nmore")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)
    with pytest.raises(ModelError, match="does not fit in the memory of cpu; choose a smaller model"):
        open_checkpoint(str(tiny_model_dir), CPU)


def test_devices_are_checked(tiny_model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="unknown device 'gpu'; known: auto, cpu, cuda"):
        LocalBackend(str(tiny_model_dir), "gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="no CUDA device"):
            LocalBackend(str(tiny_model_dir), "cuda")


def test_adapters_get_no_more_room_than_half_of_the_free_memory(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = LocalBackend(str(tiny_model_dir), "cpu")._room
    monkeypatch.setattr("selfedit.engine.local.virtual_memory", lambda: SimpleNamespace(available=4_096_000))
    assert LocalBackend(str(tiny_model_dir), "cpu")._room == replace(roomy, bytes_of_slots=2_048_000)


def test_the_registry_opens_this_engine_by_name(tiny_model_dir: Path) -> None:
    assert isinstance(open_backend("local", str(tiny_model_dir), "cpu"), LocalBackend)
