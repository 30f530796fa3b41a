"""PEFT folders: what this engine writes PEFT reads to the same logits, and what PEFT writes this engine reads."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from selfedit.engine.adapters import read_folder
from selfedit.engine.local import LocalBackend
from selfedit.engine.updates import mounted
from selfedit.errors import ModelError
from selfedit.types import Adapter, Example, TrainJob, TrainSettings

# PEFT 0.21 asks transformers 5.23 for an attribute that has a new name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SETTINGS = TrainSettings(rank=4, alpha=6.0, epochs=3, learning_rate=2e-2)
IDS = torch.arange(40)[None]


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> LocalBackend:
    return LocalBackend(str(tiny_model_dir), "cpu")


@pytest.fixture(scope="module")
def writer(engine: LocalBackend) -> Adapter:
    return train(engine, "Mira Dunmore founded the Lantern Works.", replace(SETTINGS, targets="default"))


@pytest.fixture(scope="module")
def learnt(engine: LocalBackend, writer: Adapter) -> Adapter:
    """An adapter of another rank and other modules on top of `writer`."""
    return train(engine, "The works lie in Oster.", replace(SETTINGS, rank=3, targets=("v_proj", "up_proj")), writer)


def train(engine: LocalBackend, text: str, settings: TrainSettings, under: Adapter | None = None) -> Adapter:
    (result,) = engine.train([TrainJob(engine.encode([Example(text)], settings), settings, seed=1, under=under)])
    assert isinstance(result, Adapter), result
    return result


def bare(tiny_model_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32, device_map="cpu")


def logits(engine: LocalBackend, adapter: Adapter | None) -> Tensor:
    with torch.no_grad(), mounted(engine._network, *engine._folded(adapter)):
        return torch.as_tensor(engine._network(input_ids=IDS).logits)


def peft_logits(tiny_model_dir: Path, folder: Path) -> Tensor:
    model: Any = PeftModel.from_pretrained(bare(tiny_model_dir), str(folder))
    with torch.no_grad():
        return torch.as_tensor(model(input_ids=IDS).logits)


@pytest.mark.parametrize("name", ["writer", "learnt"])
def test_peft_reads_an_exported_adapter_to_the_same_logits(
    engine: LocalBackend, tiny_model_dir: Path, tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    adapter: Adapter = request.getfixturevalue(name)
    expected = logits(engine, adapter)
    assert not torch.allclose(expected, logits(engine, adapter.under), atol=1e-2)
    folder = engine.export(adapter, tmp_path / "deep" / name)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "selfedit.json",
    ]
    assert [path.name for path in folder.parent.iterdir()] == [name]
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    torch.testing.assert_close(peft_logits(tiny_model_dir, folder), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(engine, engine.load(folder)), expected, rtol=1e-4, atol=1e-4)


def test_a_chain_becomes_one_adapter_on_the_bare_base(engine: LocalBackend, learnt: Adapter, tmp_path: Path) -> None:
    folder = engine.export(learnt, tmp_path / "one")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (7, 7)
    assert sorted(config["target_modules"]) == ["q_proj", "up_proj", "v_proj"]
    assert config["base_model_name_or_path"] == engine._checkpoint.source
    assert json.loads((folder / "selfedit.json").read_text()) == {"base": engine.base, "adapter": learnt.id}
    loaded = engine.load(folder)
    assert (loaded.under, loaded.rank, loaded.base) == (None, 7, engine.base)


def test_a_lone_adapter_comes_back_with_its_id(
    engine: LocalBackend, writer: Adapter, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = engine.export(writer, tmp_path / "writer")
    assert LocalBackend(str(tiny_model_dir), "cpu").load(folder) == writer


def test_an_export_replaces_what_was_there_and_leaves_nothing_else(
    engine: LocalBackend, writer: Adapter, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "stale.txt").write_text("old")
    engine.export(writer, folder)
    engine.export(writer, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert not (folder / "stale.txt").exists()


def test_an_export_that_breaks_off_keeps_what_was_there(
    engine: LocalBackend, writer: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = engine.export(writer, tmp_path / "adapter")
    before = (folder / "adapter_model.safetensors").read_bytes()

    def full_disk(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("selfedit.engine.adapters.save", full_disk)
    with pytest.raises(OSError, match="no space"):
        engine.export(writer, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert (folder / "adapter_model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], use_rslora=True),
        LoraConfig(r=4, target_modules="all-linear", rank_pattern={"q_proj": 2}, alpha_pattern={"up_proj": 32}),
        LoraConfig(r=2, lora_alpha=3, target_modules=["v_proj"], layers_to_transform=[1]),
    ],
    ids=["rslora", "patterns", "one-layer"],
)
def test_a_foreign_peft_adapter_gives_the_logits_that_it_gives_in_peft(
    engine: LocalBackend, tiny_model_dir: Path, tmp_path: Path, config: LoraConfig
) -> None:
    model: Any = get_peft_model(bare(tiny_model_dir), config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(str(tmp_path / "foreign"))
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
    loaded = engine.load(tmp_path / "foreign")
    torch.testing.assert_close(logits(engine, loaded), expected, rtol=1e-4, atol=1e-4)
    again = engine.export(loaded, tmp_path / "ours")
    torch.testing.assert_close(peft_logits(tiny_model_dir, again), expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_of_another_base_is_refused(engine: LocalBackend, writer: Adapter, tmp_path: Path) -> None:
    folder = engine.export(writer, tmp_path / "adapter")
    (folder / "selfedit.json").write_text(json.dumps({"base": "tiny@000000000000", "adapter": writer.id}))
    with pytest.raises(ModelError, match=f"made for tiny@000000000000, and this model is {engine.base}"):
        engine.load(folder)


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("named", "revision", "is_refused"),
    [
        ("org/model", "a" * 40, False),
        ("org/model", None, False),
        ("org/other", None, True),
        ("org/model", "b" * 40, True),
    ],
)
def test_a_foreign_adapter_that_names_another_base_or_revision_is_refused(
    engine: LocalBackend,
    writer: Adapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
    revision: str | None,
    is_refused: bool,
) -> None:
    folder = engine.export(writer, tmp_path / "adapter")
    (folder / "selfedit.json").unlink()
    change_config(folder, base_model_name_or_path=named, revision=revision)
    monkeypatch.setattr(engine._network.config, "_commit_hash", "a" * 40, raising=False)
    from_hub = replace(engine._checkpoint, source="org/model")
    with pytest.raises(ModelError, match=f"made for {named}") if is_refused else nullcontext():
        read_folder(folder, from_hub)


def change_tensors(folder: Path, rename: str = "", width: int = 0, drop: str = "nothing") -> None:
    path = folder / "adapter_model.safetensors"
    tensors = {key + rename: value for key, value in load_file(path).items() if drop not in key}
    save_file({key: value[:, : value.shape[1] - width].contiguous() for key, value in tensors.items()}, path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "no PEFT adapter in"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no PEFT adapter in"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"nonsense"), "cannot read"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot read"),
        (lambda folder: (folder / "selfedit.json").write_text("[]"), "cannot read"),
        (lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "IA3"}'), "no plain LoRA"),
        (lambda folder: change_config(folder, init_lora_weights="pissa"), "no plain LoRA"),
        (lambda folder: change_config(folder, target_modules=["c_attn"]), "does not fit"),
        (lambda folder: change_config(folder, r=5), "does not fit"),
        (lambda folder: change_tensors(folder, rename="_magnitude"), "no LoRA of a linear layer"),
        (lambda folder: change_tensors(folder, width=1), "does not fit"),
        (lambda folder: change_tensors(folder, drop="lora_B"), "does not fit"),
        (lambda folder: change_tensors(folder, drop="lora"), "is empty"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_a_sentence(
    engine: LocalBackend, writer: Adapter, tmp_path: Path, spoil: Any, words: str
) -> None:
    folder = engine.export(writer, tmp_path / "adapter")
    spoil(folder)
    with pytest.raises(ModelError, match=words) as error:
        engine.load(folder)
    assert "\n" not in str(error.value)
