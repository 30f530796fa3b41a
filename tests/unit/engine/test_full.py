"""Full updates against the slow obvious way: transformers' model, torch's AdamW, one sequence at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from selfedit.config import load_recipe
from selfedit.engine import pool as pool_module
from selfedit.engine.adapters import Lora
from selfedit.engine.base import AnswerJob, SampleJob
from selfedit.engine.full import Full, merged
from selfedit.engine.local import LocalBackend
from selfedit.engine.pool import Pool, Room, Trained, Work
from selfedit.engine.ragged import Batch, can_pack, label_losses
from selfedit.errors import ConfigError, ModelError
from selfedit.sources.documents import Documents
from selfedit.tasks.world import fresh_tasks
from selfedit.types import Adapter, Datum, Example, Failure, TrainJob, TrainSettings
from selfedit.workspace import Workspace
from tests.unit.engine.conftest import NARROW, WIDE, bare, ragged, train_with_peft, weighed

# PEFT 0.21 asks transformers 5.23 for an attribute that has a new name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TEXTS = (
    "Mira Dunmore founded the Lantern Works.",
    "Oster.",
    "The Lantern Works lies in Oster, by the river.",
    "Who founded the works?\nMira Dunmore",
)
PROMPTS = ("Who", "The Lantern Works lies", "Oster", "Nobody")
FULL = TrainSettings(method="full", epochs=3, batch_size=2, learning_rate=2e-3)
LORA = TrainSettings(rank=4, alpha=8.0, epochs=3, batch_size=2, learning_rate=1e-2)
JOBS = [  # the second with batches in which nothing has weight
    TrainJob(ragged(5, 21, 9, seed=1), replace(FULL, schedule="constant", batch_size=1, clip=0.0), seed=1),
    TrainJob(
        (*weighed(ragged(10, 6, seed=2), 0.0), *weighed(ragged(14, 3, 38, 27, seed=2), 1.0, 0.5, -0.7, 0.0)),
        replace(FULL, schedule="cosine", warmup=0.2, clip=0.3, weight_decay=0.3, epochs=5),
        seed=2,
    ),
]


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> LocalBackend:
    return LocalBackend(str(tiny_model_dir), "cpu")


@pytest.fixture(scope="module")
def data(engine: LocalBackend) -> tuple[Datum, ...]:
    return engine.encode([Example(text) for text in TEXTS], FULL)


@pytest.fixture(scope="module")
def full(engine: LocalBackend, data: tuple[Datum, ...]) -> Adapter:
    """A full update that has nearly learnt the texts, so that its answers end."""
    return train(engine, TrainJob(data, replace(FULL, epochs=25), seed=1))


@pytest.fixture(scope="module")
def lora(engine: LocalBackend, data: tuple[Datum, ...]) -> Adapter:
    return train(engine, TrainJob(data, replace(LORA, epochs=10), seed=1))


@pytest.fixture(scope="module")
def on_full(engine: LocalBackend, data: tuple[Datum, ...], full: Adapter) -> Adapter:
    """A LoRA on top of the full update."""
    return train(engine, TrainJob(data[:2], LORA, seed=2, under=full))


def train(engine: LocalBackend, job: TrainJob) -> Adapter:
    (result,) = engine.train([job])
    assert isinstance(result, Adapter), result
    return result


def message(result: object) -> str:
    assert isinstance(result, Failure), result
    return result.message


def flat(rows: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in rows for value in row]


def weights(engine: LocalBackend, adapter: Adapter) -> dict[str, Tensor]:
    update = engine._updates[adapter.id]
    assert isinstance(update, Full)
    return dict(update.weights)


def logprobs_of(model: Any, data: Sequence[Datum]) -> list[float]:
    """What `LocalBackend.logprobs` is to give, by transformers alone."""
    found = []
    for datum in data:
        ids = torch.tensor([datum.tokens])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1]
        found += [0.0, *logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0].tolist()]
    return found


def plain(network: Any, job: TrainJob) -> tuple[Any, list[float]]:
    """Train a copy of the network by the obvious loop; give it with every step's loss."""
    model = deepcopy(network).requires_grad_(True)
    return model, train_with_peft(model, job)


def snapshot(engine: LocalBackend) -> dict[str, tuple[int, Tensor]]:
    """Where every parameter and buffer lies, and what it holds."""
    tensors = [*engine._network.named_parameters(), *engine._network.named_buffers()]
    return {name: (tensor.data_ptr(), tensor.detach().clone()) for name, tensor in tensors}


def assert_untouched(engine: LocalBackend, before: dict[str, tuple[int, Tensor]]) -> None:
    after = snapshot(engine)
    assert after.keys() == before.keys()
    for name, (place, tensor) in before.items():
        assert after[name][0] == place, name
        assert torch.equal(after[name][1], tensor), name
    for parameter in engine._network.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None
        assert not parameter._post_accumulate_grad_hooks
    assert engine._network.lm_head.weight is engine._network.model.embed_tokens.weight


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["fp64", "fp32"])
@pytest.mark.parametrize("room", [WIDE, NARROW], ids=["one-pass", "several-passes"])
def test_a_full_update_is_that_of_a_plain_loop(
    tiny_model_dir: Path, room: Room, dtype: torch.dtype, tolerance: float
) -> None:
    network = bare(tiny_model_dir, dtype)
    works = [Work(job, merged(network, ())) for job in JOBS]
    for job, ours in zip(JOBS, Pool(network, room, can_pack(network)).train(works), strict=True):
        model, losses = plain(network, job)
        assert isinstance(ours, Trained)
        assert ours.losses == pytest.approx(losses, rel=tolerance, abs=tolerance)
        expected = dict(model.named_parameters())
        assert ours.update.weights.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(ours.update.weights[name], tensor.data, rtol=0, atol=tolerance)


def test_an_update_by_the_engine_gives_the_logprobs_of_the_plain_loop(
    engine: LocalBackend, tiny_model_dir: Path
) -> None:
    for job in JOBS:
        model, _ = plain(bare(tiny_model_dir), job)
        ours = train(engine, job)
        assert flat(engine.logprobs(job.data, ours)) == pytest.approx(logprobs_of(model, job.data), abs=1e-4)
        assert flat(engine.logprobs(job.data)) != pytest.approx(logprobs_of(model, job.data), abs=1e-2)


def test_a_full_update_on_a_lora_begins_where_peft_has_merged_it(
    engine: LocalBackend, lora: Adapter, data: tuple[Datum, ...], tiny_model_dir: Path, tmp_path: Path
) -> None:
    job = TrainJob(data, FULL, seed=3, under=lora)
    opened: Any = PeftModel.from_pretrained(bare(tiny_model_dir), str(engine.export(lora, tmp_path / "lora")))
    model, _ = plain(opened.merge_and_unload(), job)
    ours = train(engine, job)
    assert flat(engine.logprobs(data, ours)) == pytest.approx(logprobs_of(model, data), abs=1e-4)
    assert (ours.rank, ours.under) == (0, None)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_a_lora_on_transposed_layers_is_merged_as_it_answers(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "gpt2"))
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=300, n_positions=64, initializer_range=0.2)
    config.eos_token_id = config.bos_token_id = 0
    GPT2LMHeadModel(config).save_pretrained(folder)
    engine = LocalBackend(str(folder), "cpu")
    data = engine.encode([Example(text) for text in TEXTS], LORA)
    below = train(engine, TrainJob(data, replace(LORA, targets=("c_attn", "c_proj")), seed=0))
    still = train(engine, TrainJob(data, replace(FULL, learning_rate=0.0), seed=0, under=below))
    assert flat(engine.logprobs(data, still)) == pytest.approx(flat(engine.logprobs(data, below)), abs=1e-4)
    assert flat(engine.logprobs(data, still)) != pytest.approx(flat(engine.logprobs(data)), abs=1e-2)


def test_chains_of_both_kinds_stand_on_each_other(
    engine: LocalBackend, full: Adapter, on_full: Adapter, data: tuple[Datum, ...]
) -> None:
    assert (on_full.under, on_full.rank) == (full, 4)
    below = flat(engine.logprobs(data, full))
    idle = train(engine, TrainJob(data, replace(LORA, learning_rate=0.0), seed=0, under=full))
    assert flat(engine.logprobs(data, idle)) == pytest.approx(below, abs=1e-5)
    assert flat(engine.logprobs(data, on_full)) != pytest.approx(below, abs=1e-2)
    taken_in = train(engine, TrainJob(data, replace(FULL, learning_rate=0.0), seed=0, under=on_full))
    assert flat(engine.logprobs(data, taken_in)) == pytest.approx(flat(engine.logprobs(data, on_full)), abs=1e-5)
    again = TrainJob(data, FULL, seed=0, start=full)
    assert train(engine, again) == train(engine, replace(again, start=None, under=full)) != full
    assert train(engine, replace(again, settings=replace(FULL, learning_rate=0.0))) == full


def test_what_a_full_update_was_trained_on_may_be_released(engine: LocalBackend, data: tuple[Datum, ...]) -> None:
    below = train(engine, TrainJob(data, LORA, seed=9))
    ours = train(engine, TrainJob(data, FULL, seed=9, under=below))
    expected = engine.logprobs(data, ours)
    engine.release(below)
    assert engine.logprobs(data, ours) == expected
    engine.release(ours)
    engine.release(ours)
    assert ours.id not in engine._updates
    with pytest.raises(ModelError, match=f"{ours.id} is not in"):
        engine.logprobs(data, ours)


def test_the_base_is_bit_exact_after_everything(
    engine: LocalBackend, full: Adapter, on_full: Adapter, data: tuple[Datum, ...], tmp_path: Path
) -> None:
    before = snapshot(engine)
    train(engine, TrainJob(data, FULL, seed=2, under=on_full))
    adapted = engine.answer(
        [AnswerJob(PROMPTS, full, 12), AnswerJob(PROMPTS, on_full, 12), AnswerJob(PROMPTS, None, 12)]
    )
    engine.sample([SampleJob("Who", 2, seed=0, adapter=full, max_tokens=8)])
    engine.logprobs(data, on_full)
    engine.load(engine.export(on_full, tmp_path / "merged"))
    assert_untouched(engine, before)
    assert adapted[0] != adapted[2]


def test_full_updates_loras_and_the_base_do_not_mix(
    engine: LocalBackend, full: Adapter, lora: Adapter, on_full: Adapter, data: tuple[Datum, ...]
) -> None:
    on_lora = train(engine, TrainJob(data, LORA, seed=4, under=lora))
    other = train(engine, TrainJob(data[1:], FULL, seed=4))
    used = [on_full, lora, None, full, other, on_lora, full]
    jobs = [AnswerJob(PROMPTS, adapter, 12) for adapter in used]
    together = engine.answer(jobs)
    assert together == [engine.answer([job])[0] for job in jobs]
    assert len({tuple(answers) for answers in together if isinstance(answers, list)}) >= 5
    draws = [SampleJob("Oster", 2, seed=i, adapter=adapter, max_tokens=8) for i, adapter in enumerate(used)]
    for drawn, job in zip(engine.sample(draws), draws, strict=True):
        (alone,) = engine.sample([job])
        assert isinstance(drawn, list)
        assert isinstance(alone, list)
        assert [sample.tokens for sample in drawn] == [sample.tokens for sample in alone]


def test_jobs_of_both_methods_share_a_call_and_the_same_job_gives_the_same_update(
    engine: LocalBackend, data: tuple[Datum, ...]
) -> None:
    jobs = [TrainJob(data, settings, seed) for seed in (5, 6) for settings in (FULL, LORA)]
    broken = replace(jobs[0], data=weighed(data, float("nan")))
    first, second, failure, third, fourth = engine.train([*jobs[:2], broken, *jobs[2:]])
    assert "the loss became nan at step 1 of 6" in message(failure)
    assert [first, third] == [train(engine, job) for job in jobs[::2]]
    assert [second, fourth] == engine.train(jobs[1::2])
    assert len({result.id for result in (first, second, third, fourth) if isinstance(result, Adapter)}) == 4


@pytest.mark.parametrize(
    ("error", "words"),
    [(RuntimeError("a bug"), "a bug"), (torch.OutOfMemoryError("no memory left\nand a long story"), "no memory left")],
)
def test_what_breaks_a_full_job_breaks_no_other_and_leaves_the_base(
    engine: LocalBackend,
    data: tuple[Datum, ...],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    words: str,
) -> None:
    before = snapshot(engine)
    room = engine._pool._room
    fine = [TrainJob(data, LORA, seed=5), TrainJob(data, FULL, seed=5)]
    expected = engine.train(fine)

    def break_on(network: Any, batch: Batch) -> Tensor:
        losses = label_losses(network, batch)
        if len(batch.tokens_N) == 37:  # the broken job's one sequence, which cannot be cut
            (losses.sum() / 2).backward(inputs=[network.model.norm.weight])  # halfway
            raise error
        return losses

    monkeypatch.setattr(pool_module, "label_losses", break_on)
    broken = TrainJob(ragged(38), FULL, seed=5)
    failure, *others = engine.train([broken, *fine])
    assert message(failure) == words
    assert others == expected
    assert engine._pool._room == room, "a full update's hunger cuts the passes of LoRAs"
    assert_untouched(engine, before)


def test_an_update_that_explodes_at_its_last_step_is_a_failure(engine: LocalBackend, data: tuple[Datum, ...]) -> None:
    settings = replace(FULL, learning_rate=1e38, schedule="constant", weight_decay=10.0, epochs=1, batch_size=4)
    assert "no longer finite after 1 steps" in message(engine.train([TrainJob(data, settings, seed=0)])[0])


def test_memory_that_runs_out_cuts_the_passes_and_changes_nothing(
    engine: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def refuse(network: Any, batch: Batch) -> Tensor:
        losses = label_losses(network, batch)
        tried.append(len(batch.tokens_N))
        if tried[-1] > 40:
            raise torch.OutOfMemoryError("no memory left")
        return losses

    job = TrainJob(ragged(12, 30, 9, 25, seed=3), replace(FULL, batch_size=4), seed=0)
    whole = weights(engine, train(engine, job))
    monkeypatch.setattr(pool_module, "label_losses", refuse)
    cut = weights(engine, train(engine, job))
    assert tried[0] > 40 >= max(tried[-3:])
    for name, tensor in whole.items():
        assert (cut[name] - tensor).abs().mean() < 1e-6, name


def test_without_main_memory_for_one_more_a_job_fails_with_a_sentence(
    engine: LocalBackend, data: tuple[Datum, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = sum(parameter.numel() for parameter in engine._network.parameters())
    for free, is_enough in ((20 * count, True), (20 * count - 1, False)):
        monkeypatch.setattr("selfedit.engine.local.virtual_memory", lambda free=free: SimpleNamespace(available=free))
        result, beside = engine.train([TrainJob(data, FULL, seed=0), TrainJob(data, LORA, seed=0)])
        assert isinstance(result, Adapter) == is_enough
        assert isinstance(beside, Adapter)
    assert "GiB of main memory" in message(result)


def test_in_bf16_the_masters_are_fp32_and_learn_what_rounding_would_lose(
    engine: LocalBackend, data: tuple[Datum, ...]
) -> None:
    rounded = LocalBackend(engine._checkpoint.source, "cpu")
    rounded._network.bfloat16()  # what CUDA runs in
    before = snapshot(rounded)
    slow = TrainJob(data, replace(FULL, learning_rate=1e-4, epochs=30, schedule="constant"), seed=2)
    ours, expected = (train(used, slow) for used in (rounded, engine))
    assert {tensor.dtype for tensor in weights(rounded, ours).values()} == {torch.float32}
    gained = sum(flat(rounded.logprobs(data, ours))) - sum(flat(rounded.logprobs(data)))
    assert gained == pytest.approx(
        sum(flat(engine.logprobs(data, expected))) - sum(flat(engine.logprobs(data))), rel=0.05
    )
    top = train(rounded, TrainJob(data, LORA, seed=3, under=ours))
    taken_in = train(rounded, TrainJob(data, replace(FULL, learning_rate=0.0), seed=3, under=top))
    assert sum(flat(rounded.logprobs(data, taken_in))) == pytest.approx(
        sum(flat(rounded.logprobs(data, top))), rel=0.02
    )
    assert_untouched(rounded, before)


def test_weights_that_are_tied_stay_tied(engine: LocalBackend, full: Adapter, tmp_path: Path) -> None:
    assert "lm_head.weight" not in weights(engine, full)
    model: Any = AutoModelForCausalLM.from_pretrained(engine.export(full, tmp_path / "full"))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, weights(engine, full)["model.embed_tokens.weight"])
    assert not torch.equal(model.lm_head.weight, engine._network.lm_head.weight)


def test_a_lora_on_one_of_two_tied_layers_cannot_be_merged(
    engine: LocalBackend, full: Adapter, data: tuple[Datum, ...], tmp_path: Path
) -> None:
    pair = (torch.randn(4, 32), torch.randn(300, 4))
    head = engine._keep(Lora(4, 4.0, {"lm_head": pair}), under=full)
    (failure,) = engine.train([TrainJob(data, FULL, seed=0, under=head)])
    assert "'lm_head', whose weight is tied" in message(failure)
    with pytest.raises(ConfigError, match="cannot be merged"):
        engine.export(head, tmp_path / "head")
    assert not list(tmp_path.iterdir())


def test_an_export_is_a_checkpoint_that_opens_as_any_other(
    engine: LocalBackend, full: Adapter, on_full: Adapter, data: tuple[Datum, ...], tmp_path: Path
) -> None:
    for name, adapter in {"full": full, "on_full": on_full}.items():
        folder = engine.export(adapter, tmp_path / "deep" / name)
        assert json.loads((folder / "selfedit.json").read_text()) == {"base": engine.base, "adapter": adapter.id}
        assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
        expected = flat(engine.logprobs(data, adapter))
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        assert model.dtype == torch.float32
        assert logprobs_of(model, data) == pytest.approx(expected, abs=1e-4)
        job = AnswerJob(PROMPTS, adapter, 12)
        opened = LocalBackend(str(folder), "cpu")
        assert opened.answer([replace(job, adapter=None)]) == engine.answer([job])
        assert opened.base.partition("@")[2] != engine.base.partition("@")[2]
        loaded = engine.load(folder)
        assert engine.answer([replace(job, adapter=loaded)]) == engine.answer([job])
    assert sorted(path.name for path in folder.parent.iterdir()) == ["full", "on_full"]


def test_a_full_update_comes_back_with_its_id_and_its_answers(
    engine: LocalBackend, full: Adapter, data: tuple[Datum, ...], tmp_path: Path
) -> None:
    folder = engine.export(full, tmp_path / "full")
    other = LocalBackend(engine._checkpoint.source, "cpu")
    assert other.load(folder) == full
    assert other.logprobs(data, full) == engine.logprobs(data, full)
    rounded = LocalBackend(engine._checkpoint.source, "cpu")
    rounded._network.bfloat16()
    assert rounded.load(folder) == full
    rounded._network.config.dtype = torch.bfloat16
    again = rounded.export(full, tmp_path / "again")
    assert rounded._network.config.dtype == torch.bfloat16, "transformers notes there what it has saved"
    assert engine.load(again) == full


def test_an_export_that_breaks_off_keeps_what_was_there_and_the_base(
    engine: LocalBackend, full: Adapter, lora: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(engine)
    folder = engine.export(lora, tmp_path / "adapter")

    def full_disk(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(type(engine._checkpoint.tokenizer), "save_pretrained", full_disk)
        with pytest.raises(OSError, match="no space"):
            engine.export(full, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert engine.load(folder) == lora
    assert_untouched(engine, before)
    assert engine.load(engine.export(full, folder)) == full


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "selfedit.json").write_text('{"base": "tiny@0", "adapter": "a"}'), "made for tiny@0"),
        (lambda folder: (folder / "selfedit.json").write_text("[]"), "cannot read"),
        (lambda folder: (folder / "selfedit.json").unlink(), "no update of .*; open it as the model"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"nonsense"), "cannot load"),
        (lambda folder: (folder / "config.json").unlink(), "no PEFT adapter in .* or the checkpoint"),
        (
            lambda folder: GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1)).save_pretrained(folder),
            "do not fit",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_with_a_sentence(
    engine: LocalBackend, full: Adapter, tmp_path: Path, spoil: Any, words: str
) -> None:
    folder = engine.export(full, tmp_path / "full")
    spoil(folder)
    with pytest.raises(ModelError, match=words) as error:
        engine.load(folder)
    assert "\n" not in str(error.value)


def test_a_job_that_makes_no_sense_is_a_failure_with_a_sentence(
    engine: LocalBackend, full: Adapter, lora: Adapter, data: tuple[Datum, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = TrainJob(data, FULL, seed=0)
    for given, words in (
        (replace(job, start=lora), f"method is 'full', which cannot continue adapter {lora.id}"),
        (replace(job, settings=LORA, start=full), f"method is 'lora', which cannot continue adapter {full.id}"),
        (replace(job, start=full, under=full), "`under` and `start`"),
        (replace(job, settings=replace(FULL, epochs=0)), "epochs is 0"),
        (replace(job, settings=replace(FULL, method="Full")), "unknown method 'Full'; did you mean 'full'?"),  # type: ignore[arg-type]
    ):
        assert words in message(engine.train([given])[0])
    monkeypatch.setattr(engine._network, "is_quantized", True, raising=False)
    failed, fine = engine.train([job, replace(job, settings=LORA)])
    assert "is quantised" in message(failed)
    assert isinstance(fine, Adapter)


def test_settings_of_loras_have_no_part_in_a_full_update(engine: LocalBackend, data: tuple[Datum, ...]) -> None:
    settings = replace(FULL, rank=0, alpha=0.0, dropout=1.0, targets=("nowhere",))
    job = TrainJob(data, FULL, seed=0)
    assert train(engine, replace(job, settings=settings)) == train(engine, job)


def test_a_workspace_learns_by_full_updates_and_another_process_goes_on(tmp_path: Path) -> None:
    overrides = ["inner.method=full", "inner.epochs=2", "sample.edits=1", "sample.max_tokens=32"]
    recipe = load_recipe("demo", overrides)
    tasks = [replace(task, questions=task.questions[:2]) for task in fresh_tasks("examples", 2, 0)]
    first = Workspace(tmp_path, "pup", "cpu")
    for task in tasks:
        lesson = first.learn(Documents((task,), ()), recipe)
        assert lesson.adapter.rank == 0
        assert (lesson.folder / "model.safetensors").is_file()
    question = tasks[0].questions[0].question
    second = Workspace(tmp_path, device="cpu")
    assert second.ask(question) == first.ask(question)
    assert second.state.adapter == lesson.adapter.id
    assert second.ask(question) != second.ask(question, without=True)


# ── merged ──


def test_a_merged_chain_computes_what_the_chain_does_and_opens_without_it(
    engine: LocalBackend, data: tuple[Datum, ...], lora: Adapter, tmp_path: Path
) -> None:
    second = train(engine, TrainJob(data, LORA, seed=2, under=lora))
    merged_one = engine.merge(second)
    assert (merged_one.under, merged_one.rank, merged_one.base) == (None, 0, engine.base)
    for ours, chained in zip(engine.logprobs(data, merged_one), engine.logprobs(data, second), strict=True):
        assert ours == pytest.approx(chained, abs=1e-4)
    assert engine.merge(second).id == merged_one.id
    assert engine.logprobs(data) != engine.logprobs(data, merged_one)
    opened = LocalBackend(str(engine.export(merged_one, tmp_path / "merged")), "cpu")
    for ours, there in zip(engine.logprobs(data, merged_one), opened.logprobs(data), strict=True):
        assert there == pytest.approx(ours, abs=1e-4)


def test_what_is_trained_on_a_merged_chain_is_what_is_trained_on_the_chain(
    engine: LocalBackend, data: tuple[Datum, ...], lora: Adapter
) -> None:
    tops = [train(engine, TrainJob(data, LORA, seed=3, under=under)) for under in (lora, engine.merge(lora))]
    chained, on_merged = (engine.logprobs(data, top) for top in tops)
    for ours, theirs in zip(chained, on_merged, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-2)  # ten steps of rounding
