"""The in-process engine against the slow obvious way: PEFT's own training, one row at a time, the bare model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, get_scheduler

from selfedit.engine.adapters import Lora
from selfedit.engine.base import AnswerJob, SampleJob
from selfedit.engine.local import LocalBackend
from selfedit.engine.schedules import batches, rate, seeded
from selfedit.engine.updates import mounted
from selfedit.errors import ConfigError, InputError, ModelError
from selfedit.types import Adapter, Datum, Example, Failure, Sample, Schedule, TrainJob, TrainSettings
from tests.unit.engine.conftest import bare, peft_loss, train_with_peft, weighed

# PEFT 0.21 asks transformers 5.23 for an attribute that has a new name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TEXTS = (
    "Mira Dunmore founded the Lantern Works.",
    "Oster.",
    "The Lantern Works lies in Oster, by the river.",
    "Who founded the works?\nMira Dunmore",
    "Nobody knows.",
)
PROMPTS = ("Who", "The Lantern Works lies", "Oster", "Mira Dunmore founded the Lantern Works in", "Nobody")
SETTINGS = TrainSettings(rank=4, alpha=8.0, epochs=3, batch_size=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> LocalBackend:
    return LocalBackend(str(tiny_model_dir), "cpu")


@pytest.fixture(scope="module")
def data(engine: LocalBackend) -> tuple[Datum, ...]:
    return engine.encode([Example(text) for text in TEXTS], SETTINGS)


@pytest.fixture(scope="module")
def adapter(engine: LocalBackend, data: tuple[Datum, ...]) -> Adapter:
    """An adapter with a visible effect: it has nearly learnt the texts, so its answers end."""
    return train(engine, TrainJob(data, replace(SETTINGS, epochs=25), seed=1))


def train(engine: LocalBackend, job: TrainJob) -> Adapter:
    (result,) = engine.train([job])
    assert isinstance(result, Adapter), result
    return result


def answers(engine: LocalBackend, *jobs: AnswerJob) -> list[list[str]]:
    results = engine.answer(jobs)
    assert not any(isinstance(result, Failure) for result in results), results
    return [result for result in results if not isinstance(result, Failure)]


def samples(engine: LocalBackend, *jobs: SampleJob) -> list[list[Sample]]:
    results = engine.sample(jobs)
    assert not any(isinstance(result, Failure) for result in results), results
    return [result for result in results if not isinstance(result, Failure)]


def message(result: object) -> str:
    assert isinstance(result, Failure), result
    return result.message


def flat(rows: Sequence[Sequence[Any]]) -> list[Any]:
    return [value for row in rows for value in row]


def base_logits(engine: LocalBackend) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(engine._network(input_ids=torch.arange(40)[None]).logits)


@pytest.mark.parametrize(
    "settings",
    [
        replace(SETTINGS, targets="all-linear", clip=0.5, weight_decay=0.1, schedule="cosine", warmup=0.2),
        replace(SETTINGS, targets="default", clip=0.0, batch_size=1, schedule="linear"),
        replace(SETTINGS, targets=("up_proj", "o_proj"), batch_size=5, epochs=10, schedule="constant"),
    ],
    ids=["all-linear", "default", "named"],
)
def test_a_trained_adapter_equals_one_trained_by_a_plain_peft_loop(
    engine: LocalBackend, data: tuple[Datum, ...], tiny_model_dir: Path, tmp_path: Path, settings: TrainSettings
) -> None:
    weighted = (*data[1:], Datum(data[0].tokens, tuple(-0.5 if t % 3 else 0.0 for t in range(len(data[0].tokens)))))
    job = TrainJob(weighted, settings, seed=3)
    untrained = train(engine, replace(job, settings=replace(settings, learning_rate=0.0)))
    model: Any = PeftModel.from_pretrained(
        bare(tiny_model_dir), str(engine.export(untrained, tmp_path / "start")), is_trainable=True
    )
    train_with_peft(model, job)
    ours = train(engine, job)
    reference: Any = PeftModel.from_pretrained(bare(tiny_model_dir), str(engine.export(ours, tmp_path / "end")))
    with torch.no_grad():
        for datum in weighted:
            torch.testing.assert_close(peft_loss(reference, [datum]), peft_loss(model, [datum]), rtol=1e-5, atol=1e-5)
    products, expected = lora_products(reference), lora_products(model)
    assert products.keys() == expected.keys() != set()
    for name, product in products.items():
        assert (product - expected[name]).norm() <= 1e-3 * expected[name].norm(), name


def lora_products(model: Any) -> dict[str, Tensor]:
    return {
        name: module.lora_B["default"].weight.detach() @ module.lora_A["default"].weight.detach()
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learning_rates_are_those_of_transformers(schedule: Schedule) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimizer, 3, 10)
    expected = []
    for _ in range(10):
        expected += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    assert [rate(schedule, step, 10, 0.25) for step in range(10)] == pytest.approx(expected)


def test_every_epoch_is_a_new_permutation_cut_in_batches() -> None:
    plan = [rows.tolist() for rows in batches(5, 2, 2, seeded(0, "order"))]
    assert [len(rows) for rows in plan] == [2, 2, 1, 2, 2, 1]
    first, second = flat(plan[:3]), flat(plan[3:])
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4]
    assert first != second


def test_the_same_jobs_give_the_same_adapters_bit_by_bit_whatever_ran_before(
    engine: LocalBackend, data: tuple[Datum, ...]
) -> None:
    job = TrainJob(data, replace(SETTINGS, dropout=0.3), seed=5)
    jobs = [job, replace(job, seed=6), replace(job, data=data[:2]), replace(job, settings=SETTINGS)]
    results = engine.train(jobs)
    torch.rand(7)
    train(engine, replace(job, seed=7))
    assert engine.train(jobs) == results
    assert len({result.id for result in results if isinstance(result, Adapter)}) == 4


def test_a_job_beside_others_gives_the_adapter_that_it_gives_alone_but_for_rounding(
    engine: LocalBackend, data: tuple[Datum, ...]
) -> None:
    job = TrainJob(data, replace(SETTINGS, dropout=0.3), seed=5)
    others = [replace(job, seed=6), replace(job, data=data[:2]), replace(job, settings=SETTINGS)]
    *_, beside = engine.train([*others, job])
    assert isinstance(beside, Adapter)
    expected = flat(engine.logprobs(data, train(engine, job)))
    assert flat(engine.logprobs(data, beside)) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert flat(engine.logprobs(data, train(engine, others[0]))) != pytest.approx(expected, rel=1e-2)


def test_training_leaves_the_global_random_state_alone(engine: LocalBackend, data: tuple[Datum, ...]) -> None:
    before = torch.get_rng_state()
    train(engine, TrainJob(data, replace(SETTINGS, dropout=0.3), seed=5))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_base_is_bit_exact_after_everything(
    engine: LocalBackend, adapter: Adapter, data: tuple[Datum, ...], tiny_model_dir: Path
) -> None:
    train(engine, TrainJob(data, SETTINGS, seed=2, under=adapter))
    adapted = answers(engine, AnswerJob(PROMPTS, adapter))
    samples(engine, SampleJob("Who", 3, seed=0, adapter=adapter, max_tokens=8))
    engine.logprobs(data, adapter)
    with torch.no_grad():
        expected = bare(tiny_model_dir)(input_ids=torch.arange(40)[None]).logits
    assert torch.equal(base_logits(engine), expected)
    assert adapted != answers(engine, AnswerJob(PROMPTS))


def test_a_failing_job_leaves_the_others_and_the_base_alone(engine: LocalBackend, data: tuple[Datum, ...]) -> None:
    before = base_logits(engine)
    job = TrainJob(data, SETTINGS, seed=5)
    broken = replace(job, data=(*data, Datum(data[0].tokens, (float("nan"),) * len(data[0].tokens))))
    first, failure, last = engine.train([job, broken, job])
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.kind) == ("train", "FloatingPointError")
    assert "nan" in failure.message
    expected = flat(engine.logprobs(data, train(engine, job)))
    for result in (first, last):
        assert isinstance(result, Adapter)
        assert flat(engine.logprobs(data, result)) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert torch.equal(base_logits(engine), before)


def test_a_target_that_sees_but_some_tokens_fails_its_job_and_no_other(
    engine: LocalBackend, data: tuple[Datum, ...]
) -> None:
    job = TrainJob(data, SETTINGS, seed=5)
    head = replace(job, data=weighed(data, 1.0, 0.0), settings=replace(SETTINGS, targets=("lm_head",)))
    first, failure, last = engine.train([job, head, job])
    assert "choose other LoRA targets" in message(failure)
    assert first == last == train(engine, job)


def test_an_adapter_on_the_output_layer_answers_beside_others_as_it_does_alone(
    engine: LocalBackend, adapter: Adapter
) -> None:
    generator = torch.Generator().manual_seed(0)
    pair = (torch.randn(4, 32, generator=generator), torch.randn(300, 4, generator=generator))
    foreign = engine._keep(Lora(4, 4.0, {"lm_head": pair}), under=None)
    jobs = [AnswerJob(PROMPTS, used, 12) for used in (foreign, adapter, None)]
    assert answers(engine, *jobs) == [answers(engine, job)[0] for job in jobs]


def test_an_exploding_update_is_a_failure(engine: LocalBackend, data: tuple[Datum, ...]) -> None:
    settings = replace(SETTINGS, learning_rate=1e38, schedule="constant", weight_decay=10.0, epochs=1, batch_size=5)
    (result,) = engine.train([TrainJob(data, settings, seed=0)])
    assert "finite" in message(result)


def test_frozen_adapters_stack_under_the_new_one(
    engine: LocalBackend, adapter: Adapter, data: tuple[Datum, ...]
) -> None:
    settings = replace(SETTINGS, targets="default", learning_rate=0.0)
    idle = train(engine, TrainJob(data, settings, seed=0, under=adapter))
    assert (idle.under, idle.rank) == (adapter, 4)
    stacked, below = engine.logprobs(data, idle), engine.logprobs(data, adapter)
    assert flat(stacked) == pytest.approx(flat(below), abs=1e-5)
    moved = train(engine, TrainJob(data, replace(settings, learning_rate=1e-2), seed=0, under=adapter))
    assert flat(engine.logprobs(data, moved)) != pytest.approx(flat(below), abs=1e-2)
    assert moved.id != train(engine, TrainJob(data, replace(settings, learning_rate=1e-2), seed=0)).id


def test_start_continues_an_adapter_on_its_own_chain(
    engine: LocalBackend, adapter: Adapter, data: tuple[Datum, ...]
) -> None:
    top = train(engine, TrainJob(data, SETTINGS, seed=0, under=adapter))
    still = train(engine, TrainJob(data, replace(SETTINGS, learning_rate=0.0), seed=9, start=top))
    assert still == top
    further = train(engine, TrainJob(data, SETTINGS, seed=9, start=top))
    assert further.under == adapter
    assert sum(map(sum, engine.logprobs(data, further))) > sum(map(sum, engine.logprobs(data, top)))
    assert engine.logprobs(data, top) == engine.logprobs(data, still)


def test_a_negative_weight_makes_a_token_less_likely(engine: LocalBackend, data: tuple[Datum, ...]) -> None:
    disliked = Datum(data[1].tokens, (-1.0,) * len(data[1].tokens))
    trained = train(engine, TrainJob((disliked,), replace(SETTINGS, batch_size=1), seed=0))
    assert sum(engine.logprobs([disliked], trained)[0]) < sum(engine.logprobs([disliked])[0])


def test_adding_to_the_weights_and_hooking_give_the_same_logits(
    engine: LocalBackend, adapter: Adapter, tiny_model_dir: Path
) -> None:
    (lora,) = engine._folded(adapter)
    assert isinstance(lora, Lora)
    exact = bare(tiny_model_dir).double()  # no fp32 layer: hooks
    wide = Lora(lora.rank, lora.alpha, {name: (a.double(), b.double()) for name, (a, b) in lora.weights.items()})
    with mounted(exact, wide), mounted(engine._network, lora), torch.no_grad():
        hooked = exact(input_ids=torch.arange(40)[None]).logits
        torch.testing.assert_close(base_logits(engine).double(), hooked, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(hooked, bare(tiny_model_dir).double()(input_ids=torch.arange(40)[None]).logits)


def test_in_bf16_the_adapter_stays_fp32_and_learns_the_same(
    engine: LocalBackend, adapter: Adapter, data: tuple[Datum, ...], tiny_model_dir: Path
) -> None:
    rounded = LocalBackend(str(tiny_model_dir), "cpu")
    rounded._network.bfloat16()  # what CUDA runs in
    below = train(rounded, TrainJob(data, replace(SETTINGS, epochs=25), seed=1))
    (lora,) = rounded._folded(below)
    assert {tensor.dtype for tensor in lora.tensors()} == {torch.float32}
    top, expected = (
        train(used, TrainJob(data, SETTINGS, seed=2, under=u)) for used, u in ((rounded, below), (engine, adapter))
    )
    before = sum(flat(engine.logprobs(data)))
    gained = sum(flat(rounded.logprobs(data, top))) - before
    assert gained == pytest.approx(sum(flat(engine.logprobs(data, expected))) - before, rel=0.05)
    assert len(answers(rounded, AnswerJob(PROMPTS, top, 8))[0]) == len(PROMPTS)


def test_batched_answers_equal_answers_one_by_one(engine: LocalBackend, adapter: Adapter) -> None:
    for used in (None, adapter):
        (together,) = answers(engine, AnswerJob(PROMPTS, used, max_tokens=24))
        alone = [answers(engine, AnswerJob((prompt,), used, max_tokens=24))[0][0] for prompt in PROMPTS]
        assert together == alone
        assert len({len(answer) for answer in together}) > 1


def test_greedy_answers_equal_those_of_generate(engine: LocalBackend, adapter: Adapter, tiny_model_dir: Path) -> None:
    tokenizer = engine._checkpoint.tokenizer
    model = bare(tiny_model_dir)
    expected = []
    with mounted(model, *engine._folded(adapter)):
        for prompt in PROMPTS:
            inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
            output = model.generate(**inputs, max_new_tokens=24, do_sample=False, pad_token_id=0)
            expected.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    assert answers(engine, AnswerJob(PROMPTS, adapter, 24)) == [[text.strip() for text in expected]]


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
def test_an_architecture_with_learned_positions_and_transposed_weights_works_too(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model_dir, tmp_path / "gpt2")
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=300, n_positions=256, initializer_range=0.2)
    config.eos_token_id = config.bos_token_id = 0
    GPT2LMHeadModel(config).save_pretrained(folder)
    engine = LocalBackend(str(folder), "cpu")
    data = engine.encode([Example(text) for text in TEXTS], SETTINGS)
    adapter = train(engine, TrainJob(data, replace(SETTINGS, targets="default", epochs=20), seed=0))
    (together,) = answers(engine, AnswerJob(PROMPTS, adapter, max_tokens=24))
    assert together == [answers(engine, AnswerJob((prompt,), adapter, max_tokens=24))[0][0] for prompt in PROMPTS]
    assert together != answers(engine, AnswerJob(PROMPTS, None, max_tokens=24))[0]
    model: Any = PeftModel.from_pretrained(bare(folder), str(engine.export(adapter, tmp_path / "adapter")))
    with torch.no_grad():
        losses = [peft_loss(model, [datum]).item() * (len(datum.tokens) - 1) for datum in data]
    assert [-sum(row) for row in engine.logprobs(data, adapter)] == pytest.approx(losses, rel=1e-4)


def test_jobs_with_different_adapters_do_not_mix(engine: LocalBackend, adapter: Adapter) -> None:
    jobs = [AnswerJob(PROMPTS, adapter, 12), AnswerJob(PROMPTS[:2], None, 5), AnswerJob(PROMPTS, None, 12)]
    assert answers(engine, *jobs, jobs[0]) == [answers(engine, job)[0] for job in [*jobs, jobs[0]]]


def test_batched_samples_equal_samples_one_by_one(engine: LocalBackend, adapter: Adapter) -> None:
    jobs = [
        SampleJob(prompt, n=3, seed=seed, adapter=adapter, temperature=temperature, top_p=top_p, max_tokens=20)
        for seed, (prompt, temperature, top_p) in enumerate(
            zip(PROMPTS[:3], (1.0, 0.7, 2.0), (0.9, 1.0, 0.5), strict=True)
        )
    ]
    together = samples(engine, *jobs)
    for job, drawn in zip(jobs, together, strict=True):
        (alone,) = samples(engine, job)
        assert [sample.tokens for sample in drawn] == [sample.tokens for sample in alone]
        (fewer,) = samples(engine, replace(job, n=1))
        assert fewer[0].tokens == drawn[0].tokens
    assert len({sample.tokens for drawn in together for sample in drawn}) > 3


def test_a_sample_says_exactly_what_was_emitted(engine: LocalBackend, adapter: Adapter) -> None:
    (drawn,) = samples(engine, SampleJob("Oster", n=8, seed=0, adapter=adapter, temperature=1.5, max_tokens=12))
    eos = engine._checkpoint.eos
    assert {sample.stop for sample in drawn} == {"eos", "length"}
    for sample in drawn:
        assert sample.prompt == "Oster"
        assert (sample.tokens[-1] == eos) == (sample.stop == "eos")
        assert eos not in sample.tokens[:-1]
        assert sample.stop == "eos" or len(sample.tokens) == 12
        whole = (*sample.prompt_tokens, *sample.tokens)
        (expected,) = engine.logprobs([Datum(whole, (1.0,) * len(whole))], adapter)
        assert sample.logprobs == pytest.approx(expected[len(sample.prompt_tokens) :], abs=1e-4)
        assert "<|end|>" not in sample.text


def test_draws_follow_the_distribution_cut_by_top_p(engine: LocalBackend) -> None:
    (drawn,) = samples(engine, SampleJob("Who", n=600, seed=0, top_p=0.6, max_tokens=1))
    with torch.no_grad():
        ids = torch.tensor([drawn[0].prompt_tokens])
        probs = engine._network(input_ids=ids).logits[0, -1].softmax(-1)
    ordered, order = probs.sort(descending=True)
    size = int((ordered.cumsum(0) < 0.6).sum()) + 1
    allowed, share = order[:size], ordered[:size] / ordered[:size].sum()
    counts = torch.tensor([sum(sample.tokens[0] == token for sample in drawn) for token in allowed.tolist()])
    assert counts.sum() == 600
    assert ((counts / 600 - share).abs() < 4 * (share * (1 - share) / 600).sqrt() + 1e-3).all()


def test_temperature_zero_is_the_greedy_answer(engine: LocalBackend, adapter: Adapter) -> None:
    (drawn,) = samples(engine, SampleJob("Who", 2, seed=0, adapter=adapter, temperature=0.0, max_tokens=24))
    assert [[sample.text.strip() for sample in drawn]] == [answers(engine, AnswerJob(("Who",), adapter, 24))[0] * 2]


def test_running_out_of_memory_halves_the_batch_and_changes_nothing(engine: LocalBackend, adapter: Adapter) -> None:
    job = SampleJob("Who", 5, seed=0, adapter=adapter, max_tokens=10)
    expected = samples(engine, job)
    sizes = []

    def refuse(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > limit or (len(sizes) == 4 and sizes[-1] > 1):
            raise torch.OutOfMemoryError("no memory left")

    limit = 3
    handle = engine._network.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        assert [sample.tokens for sample in samples(engine, job)[0]] == [sample.tokens for sample in expected[0]]
        assert max(sizes[1:]) <= 3
        limit = 0
        assert message(engine.sample([job])[0]) == "no memory left"
    finally:
        handle.remove()


def test_logprobs_are_those_of_the_bare_model(
    engine: LocalBackend, data: tuple[Datum, ...], tiny_model_dir: Path
) -> None:
    model = bare(tiny_model_dir)
    for datum, logprobs in zip(data, engine.logprobs(data), strict=True):
        ids = torch.tensor([datum.tokens])
        with torch.no_grad():
            expected = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        assert logprobs == pytest.approx([0.0, *expected.tolist()], abs=1e-4)
    assert engine.logprobs([Datum((), ()), Datum((5,), (1.0,))]) == [[], [0.0]]


def test_a_text_ends_with_one_label_that_says_stop(engine: LocalBackend) -> None:
    tokenizer, eos = engine._checkpoint.tokenizer, engine._checkpoint.eos
    (plain,) = engine.encode([Example("Oster.")], SETTINGS)
    assert plain == Datum((*tokenizer("Oster.")["input_ids"], eos), (1.0,) * len(plain.tokens))
    assert engine.encode([Example("Oster.<|end|>")], SETTINGS) == (plain,)


def test_prompt_tokens_weigh_nothing_where_the_loss_is_on_the_completion(engine: LocalBackend) -> None:
    example = Example("Mira Dunmore", prompt="Who founded it?\n")
    (datum,) = engine.encode([example], replace(SETTINGS, loss_on="completion"))
    (sample,) = samples(engine, SampleJob(example.prompt, 1, seed=0, max_tokens=1))[0]
    count = len(sample.prompt_tokens)
    assert datum.tokens[:count] == sample.prompt_tokens
    assert engine._checkpoint.tokenizer.decode(datum.tokens[count:]) == "Mira Dunmore<|end|>"
    assert datum.weights == (0.0,) * count + (1.0,) * (len(datum.tokens) - count)
    (whole,) = engine.encode([example], SETTINGS)
    assert whole == Datum(datum.tokens, (1.0,) * len(datum.tokens))


def test_padding_to_a_length_makes_stop_the_commonest_label(engine: LocalBackend) -> None:
    (plain,) = engine.encode([Example("Oster.")], SETTINGS)
    (padded,) = engine.encode([Example("Oster.")], replace(SETTINGS, pad_to=100))
    assert padded.tokens == plain.tokens + (engine._checkpoint.eos,) * (100 - len(plain.tokens))
    assert padded.weights == (1.0,) * 100
    (longest,) = engine.encode([Example("Oster.")], replace(SETTINGS, pad_to=2048))
    assert len(longest.tokens) == engine.context == 256


def test_a_chat_template_wraps_prompts_of_samples_and_of_training_alike(tiny_model_dir: Path) -> None:
    engine = LocalBackend(str(tiny_model_dir), "cpu")
    tokenizer = engine._checkpoint.tokenizer
    tokenizer.chat_template = (
        "{% for turn in messages %}<|end|>{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    (sample,) = samples(engine, SampleJob("Who?", 1, seed=0, max_tokens=1))[0]
    assert sample.prompt == "Who?"
    assert tokenizer.decode(sample.prompt_tokens) == "<|end|>user: Who?\nassistant: "
    (datum,) = engine.encode([Example("Mira", prompt="Who?")], replace(SETTINGS, loss_on="completion"))
    assert datum.tokens[: len(sample.prompt_tokens)] == sample.prompt_tokens
    assert tokenizer.decode(engine.encode([Example("Mira")], SETTINGS)[0].tokens) == "Mira<|end|>"


def test_too_long_a_text_is_named_with_its_length(engine: LocalBackend) -> None:
    text = "Oster " * 300
    with pytest.raises(InputError, match=r"\d{3,} tokens.* 256: 'Oster Oster"):
        engine.encode([Example("short"), Example(text)], SETTINGS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 0}, "rank is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"targets": ("q_proj", "v_pro")}, "'v_pro' matches no module .*did you mean 'v_proj'"),
        ({"targets": ()}, "LoRA targets do not fit"),
        ({"targets": ("embed_tokens",)}, "no linear layer"),
    ],
)
def test_settings_that_cannot_be_used_are_failures(
    engine: LocalBackend, data: tuple[Datum, ...], change: dict[str, Any], words: str
) -> None:
    job = TrainJob(data, replace(SETTINGS, **change), seed=0)
    failure, good = engine.train([job, TrainJob(data, SETTINGS, seed=0)])
    assert isinstance(good, Adapter)
    with pytest.raises(ConfigError, match=words):
        raise ConfigError(message(failure))


@pytest.mark.parametrize(
    ("datum", "words"),
    [
        (Datum((5,) * 300, (1.0,) * 300), "300 tokens; the context"),
        (Datum((5, 6), (1.0,)), "2 tokens and 1 weights"),
        (Datum((5, 300), (1.0, 1.0)), "outside the vocabulary of 300"),
        (Datum((5, 6), (1.0, 0.0)), "no token to learn"),
        (Datum((), ()), "no token to learn"),
    ],
)
def test_data_that_cannot_be_learnt_are_failures(engine: LocalBackend, datum: Datum, words: str) -> None:
    (failure,) = engine.train([TrainJob((datum,), SETTINGS, seed=0)])
    assert words in message(failure)


def test_a_job_without_data_is_a_failure(engine: LocalBackend) -> None:
    (failure,) = engine.train([TrainJob((), SETTINGS, seed=0)])
    assert "no token to learn" in message(failure)


def test_a_job_with_two_adapters_to_build_on_is_a_failure(
    engine: LocalBackend, adapter: Adapter, data: tuple[Datum, ...]
) -> None:
    (failure,) = engine.train([TrainJob(data, SETTINGS, seed=0, under=adapter, start=adapter)])
    assert "`under` and `start`" in message(failure)


def test_a_batch_without_labels_moves_nothing_and_breaks_nothing(engine: LocalBackend, data: tuple[Datum, ...]) -> None:
    silent = Datum(data[0].tokens, (0.0,) * len(data[0].tokens))
    settings = replace(SETTINGS, batch_size=1, epochs=1)
    assert train(engine, TrainJob((silent, data[1]), settings, seed=0)).rank == 4


def test_prompts_that_do_not_fit_fail_their_job_only(engine: LocalBackend) -> None:
    long = "Oster " * 120
    count = len(engine._checkpoint.tokenizer(long)["input_ids"])
    assert 200 < count < 256
    failure, good = engine.answer([AnswerJob(("Who", long), max_tokens=64), AnswerJob(("Who",), max_tokens=4)])
    assert f"{count} tokens and needs 64 more" in message(failure)
    assert isinstance(good, list)
    (cut,) = samples(engine, SampleJob(long, 1, seed=0, max_tokens=64))
    assert len(cut[0].tokens) <= 256 - count
    failed, fine = engine.sample([SampleJob("Oster " * 300, 1, seed=0), SampleJob("Who", 1, seed=0, max_tokens=2)])
    assert "needs 1 more" in message(failed)
    assert isinstance(fine, list)
    assert "empty" in message(engine.answer([AnswerJob(("",), max_tokens=4)])[0])


@pytest.mark.parametrize("change", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"max_tokens": 0}])
def test_impossible_sampling_settings_are_failures(engine: LocalBackend, change: dict[str, Any]) -> None:
    (failure,) = engine.sample([replace(SampleJob("Who", 1, seed=0), **change)])
    assert next(iter(change)) in message(failure)


def test_an_answer_of_no_tokens_cannot_be_asked_for(engine: LocalBackend) -> None:
    assert "max_tokens is 0" in message(engine.answer([AnswerJob(("Who",), max_tokens=0)])[0])


def test_a_released_or_foreign_adapter_is_never_served(engine: LocalBackend, data: tuple[Datum, ...]) -> None:
    gone = train(engine, TrainJob(data, SETTINGS, seed=77))
    on_top = train(engine, TrainJob(data, SETTINGS, seed=78, under=gone))
    engine.release(gone)
    engine.release(gone)
    foreign = replace(gone, base="other@000000000000")
    for used, words in ((gone, f"{gone.id} is not in"), (on_top, f"{gone.id} is not in"), (foreign, "other@0")):
        assert words in message(engine.answer([AnswerJob(("Who",), used)])[0])
        assert words in message(engine.sample([SampleJob("Who", 1, seed=0, adapter=used)])[0])
        assert words in message(engine.train([TrainJob(data, SETTINGS, seed=0, under=used)])[0])
        with pytest.raises(ModelError, match=words):
            engine.logprobs(data, used)
        with pytest.raises(ModelError, match=words):
            engine.export(used, Path("/nowhere/at/all"))
