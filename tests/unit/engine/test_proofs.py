"""Many adapters trained at once are what each would be alone: the laws of the concurrent engine, each against PEFT.

- In fp64 losses and weights are those of PEFT's plain loop to the tenth digit; in fp32 to the fifth.
- Nothing of a slot's neighbours is seen in it: not their number, their order, or what breaks in them.
- Sequences end to end give the losses that each gives alone, whatever the attention.
- What is exported PEFT reads; what is answered PEFT's `generate` says.
- Taught at once, tasks are answered as well as taught one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from selfedit.engine.adapters import Lora
from selfedit.engine.base import AnswerJob, SampleJob
from selfedit.engine.local import LocalBackend
from selfedit.engine.lora import Groups, LoraStack, shapes_of
from selfedit.engine.pool import Pool, Room, Trained
from selfedit.engine.ragged import Batch, can_pack, label_losses, packing
from selfedit.engine.updates import mounted
from selfedit.recipes.pup.corpus import points
from selfedit.tasks import world
from selfedit.tasks.exams import answer_prompt
from selfedit.tasks.graders import load_grader
from selfedit.types import Adapter, Datum, Example, Failure, Sample, Task, TrainJob, TrainSettings
from tests.unit.engine.conftest import (
    NARROW,
    WIDE,
    assert_same_weights,
    bare,
    distance,
    lora,
    lora_of,
    on_peft,
    ragged,
    start,
    train_together,
    train_with_peft,
    weighed,
)

# PEFT 0.21 asks transformers 5.23 for an attribute that has a new name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SETTINGS = TrainSettings(rank=4, alpha=8.0, epochs=3, batch_size=1, learning_rate=1e-2, clip=0.0)
JOBS = [  # unlike in everything, so of unlike numbers of steps too
    TrainJob(ragged(5, 21, 9, seed=1), replace(SETTINGS, schedule="constant", targets="all-linear"), seed=1),
    TrainJob(
        ragged(14, 3, 8, 30, 6, seed=2),
        replace(SETTINGS, rank=3, alpha=5.0, targets="default", batch_size=2, clip=0.5, weight_decay=0.1),
        seed=2,
    ),
    TrainJob(
        weighed(ragged(12, 25, 4, 7, 11, 18, 2, seed=3), 0.3, 0.0, 1.0, -0.7),
        replace(SETTINGS, rank=9, targets=("up_proj", "o_proj"), batch_size=3, schedule="cosine", warmup=0.3, epochs=4),
        seed=3,
    ),
    TrainJob(
        (*weighed(ragged(10, 6, seed=4), 0.0), *ragged(16, 40, seed=4)),  # two batches in which nothing has weight
        replace(SETTINGS, rank=1, alpha=1.0, learning_rate=5e-2, epochs=5, clip=0.1, weight_decay=0.5),
        seed=4,
    ),
    TrainJob(
        tuple(Datum(d.tokens, (0.0,) * 5 + d.weights[5:]) for d in ragged(11, 7, 20, 20, seed=5)),
        replace(SETTINGS, targets=("q_proj",), batch_size=4, epochs=7, schedule="cosine", learning_rate=3e-2, clip=1.0),
        seed=5,
    ),
]
IDS = torch.arange(40)[None]
PROMPTS = ("Who", "The Lantern Works lies", "Oster", "Mira Dunmore founded the Lantern Works in", "Nobody")


@pytest.fixture(scope="module")
def network(tiny_model_dir: Path) -> Any:
    return bare(tiny_model_dir)


@pytest.fixture(scope="module")
def exact(tiny_model_dir: Path) -> Any:
    """The same in fp64, where `grouped_mm` gives way to the loop."""
    return bare(tiny_model_dir, torch.float64)


@pytest.fixture(scope="module")
def by_peft(exact: Any) -> list[Trained]:
    """The jobs trained one by one by PEFT, in fp64."""
    results = []
    for job in JOBS:
        work = start(exact, job)
        model = on_peft(exact, work)
        losses = train_with_peft(model, job)
        results.append(Trained(lora_of(model, work.start), tuple(losses)))
    return results


@pytest.mark.parametrize("room", [WIDE, NARROW], ids=["one-pass", "refilled-slots-and-several-passes"])
def test_unlike_jobs_trained_at_once_are_those_of_peft_one_by_one(
    exact: Any, by_peft: list[Trained], room: Room
) -> None:
    for ours, expected in zip(train_together(exact, JOBS, room), by_peft, strict=True):
        assert ours.losses == pytest.approx(expected.losses, rel=1e-10, abs=1e-10)
        assert_same_weights(ours.update, expected.update, 1e-8)


def test_in_fp32_twenty_steps_and_more_stay_with_peft(network: Any) -> None:
    longer = [(job, replace(job.settings, epochs=3 * job.settings.epochs, learning_rate=2e-3)) for job in JOBS]
    jobs = [replace(job, settings=settings) for job, settings in longer]
    for job, ours in zip(jobs, train_together(network, jobs, NARROW), strict=True):
        work = start(network, job)
        model = on_peft(network, work)
        assert ours.losses == pytest.approx(train_with_peft(model, job), rel=1e-5, abs=1e-5)
        assert len(ours.losses) > 20
        assert distance(ours.update, lora_of(model, work.start)) < 1e-3


@pytest.mark.parametrize("room", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("index", [0, 1, 4], ids=["first", "in-the-middle", "last"])
def test_a_job_learns_the_same_whoever_is_beside_it(exact: Any, index: int, room: Room) -> None:
    job, others = JOBS[1], [JOBS[0], *JOBS[2:]]
    (alone,) = train_together(exact, [job])
    beside = train_together(exact, [*others[:index], job, *others[index:]], room)[index]
    beside_one = train_together(exact, [job, others[index - 1]], room)[0]
    for ours in (beside, beside_one):
        assert ours.losses == pytest.approx(alone.losses, rel=1e-10)
        assert_same_weights(ours.update, alone.update, 1e-10)


def test_dropout_is_the_same_whoever_is_beside_the_job(exact: Any) -> None:
    job = replace(JOBS[1], settings=replace(JOBS[1].settings, dropout=0.4))
    (alone,) = train_together(exact, [job])
    (without,) = train_together(exact, [JOBS[1]])
    assert alone.losses != pytest.approx(without.losses, rel=1e-3)
    for room in (WIDE, NARROW, replace(WIDE, tokens_per_pass=30)):
        beside = train_together(exact, [JOBS[3], job, JOBS[4]], room)[1]
        assert beside.losses == pytest.approx(alone.losses, rel=1e-10), room


@pytest.mark.parametrize("room", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("what", ["data", "weights"])
def test_what_is_not_a_number_stays_in_its_slot_and_fails_its_job_by_name(network: Any, what: str, room: Room) -> None:
    healthy = [start(network, job) for job in JOBS]
    expected = train_together(network, JOBS, room)
    broken = healthy[2]
    if what == "data":
        broken = replace(broken, job=replace(broken.job, data=weighed(broken.job.data, float("nan"))))
    else:
        pairs = {name: (down * float("nan"), up) for name, (down, up) in lora(broken.start).weights.items()}
        broken = replace(broken, start=replace(lora(broken.start), weights=pairs))
    results = Pool(network, room, can_pack(network)).train([*healthy[:2], broken, *healthy[3:]])
    failure = results.pop(2)
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.kind) == ("train", "FloatingPointError")
    assert "the loss became nan at step 1 of 12" in failure.message
    for ours, same in zip(results, [*expected[:2], *expected[3:]], strict=True):
        assert isinstance(ours, Trained)
        assert ours.losses == pytest.approx(same.losses, rel=1e-6)
        assert distance(ours.update, same.update) < 1e-4


def test_a_slot_without_loss_has_no_gradient_at_all(network: Any) -> None:
    works = [start(network, job) for job in JOBS[:3]]
    stack = LoraStack(shapes_of([lora(work.start) for work in works]), 3, 9, network, learns=True)
    for slot, work in enumerate(works):
        stack.put(slot, busy(lora(work.start)))
    batch = Batch.of([(slot, datum) for slot in range(3) for datum in works[slot].job.data[:3]], True, network.device)
    with packing(network, True), stack.hung_on(network), stack.during(Groups.of(batch.sizes(3), network.device)):
        (label_losses(network, batch) * (batch.owners_L != 1)).sum().backward()
    assert stack.gradients_KW is not None
    assert [bool(row.any()) for row in stack.gradients_KW] == [True, False, True]


def busy(lora: Lora) -> Lora:
    """Give a fresh LoRA a B other than 0, so that it has an effect and A a gradient."""
    return replace(lora, weights={name: (a, torch.full_like(b, 0.1)) for name, (a, b) in lora.weights.items()})


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> LocalBackend:
    return LocalBackend(str(tiny_model_dir), "cpu")


@pytest.fixture(scope="module")
def adapters(engine: LocalBackend) -> list[Adapter]:
    """Three of a wave, and two more in a wave on top of the first."""
    wave = trained(engine, JOBS[:3])
    return [*wave, *trained(engine, [replace(job, under=wave[0]) for job in JOBS[1:3]])]


def trained(engine: LocalBackend, jobs: Sequence[TrainJob]) -> list[Adapter]:
    results = engine.train(jobs)
    assert not any(isinstance(result, Failure) for result in results), results
    return [result for result in results if isinstance(result, Adapter)]


def drawn(engine: LocalBackend, jobs: Sequence[SampleJob]) -> list[list[Sample]]:
    results = engine.sample(jobs)
    assert not any(isinstance(result, Failure) for result in results), results
    return [result for result in results if isinstance(result, list)]


def logits(engine: LocalBackend, adapter: Adapter | None) -> Tensor:
    """What the adapters of a chain give one on the other, not summed up."""
    with torch.no_grad(), ExitStack() as stack:
        for update in engine._chain(adapter):
            stack.enter_context(mounted(engine._network, update))
        return torch.as_tensor(engine._network(input_ids=IDS).logits)


def test_adapters_of_a_wave_of_unlike_ones_are_exported_to_the_same_logits_and_come_back(
    engine: LocalBackend, adapters: list[Adapter], tiny_model_dir: Path, tmp_path: Path
) -> None:
    for i, adapter in enumerate(adapters):
        folder = engine.export(adapter, tmp_path / str(i))
        expected = logits(engine, adapter)
        model: Any = PeftModel.from_pretrained(bare(tiny_model_dir), str(folder))
        with torch.no_grad():
            torch.testing.assert_close(model(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(expected, logits(engine, adapter.under), atol=1e-2)
        loaded = engine.load(folder)
        torch.testing.assert_close(logits(engine, loaded), expected, rtol=1e-4, atol=1e-4)
        assert adapter.under or loaded == adapter


def test_greedy_answers_of_many_adapters_at_once_are_those_of_peft_one_by_one(
    engine: LocalBackend, adapters: list[Adapter], tiny_model_dir: Path, tmp_path: Path
) -> None:
    tokenizer = engine._checkpoint.tokenizer
    models: list[Any] = [bare(tiny_model_dir)]
    for i, adapter in enumerate(adapters):
        folder = engine.export(adapter, tmp_path / str(i))
        models.append(PeftModel.from_pretrained(bare(tiny_model_dir), str(folder)))
    used = [None, *adapters]
    jobs = [SampleJob(p, 1, 0, adapter, temperature=0.0, max_tokens=24) for adapter in used for p in PROMPTS]
    ours = [samples[0].tokens for samples in drawn(engine, jobs)]
    expected = [generated(model, tokenizer(p)["input_ids"]) for model in models for p in PROMPTS]
    assert ours == expected
    assert len(set(expected)) > 0.9 * len(jobs)
    said = engine.answer([AnswerJob(PROMPTS, adapter, 24) for adapter in used])
    texts = [tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in expected]
    assert said == [texts[i : i + len(PROMPTS)] for i in range(0, len(texts), len(PROMPTS))]


def generated(model: Any, prompt: Sequence[int]) -> tuple[int, ...]:
    ids = torch.tensor([prompt], device=model.device)
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, pad_token_id=0
    )
    return tuple(output[0, len(prompt) :].tolist())


def test_a_draw_depends_on_neither_the_batch_nor_the_adapters_beside_it(
    engine: LocalBackend, adapters: list[Adapter]
) -> None:
    jobs = [
        SampleJob(prompt, n=2, seed=seed, adapter=adapter, temperature=1.2, top_p=0.9, max_tokens=16)
        for seed, (prompt, adapter) in enumerate(zip(PROMPTS, [*adapters[:3], None, adapters[4]], strict=True))
    ]
    together = [[sample.tokens for sample in samples] for samples in drawn(engine, jobs)]
    for order in ([1, 0], [4, 2, 3], [2], [3], [3, 3, 1]):
        again = [[sample.tokens for sample in samples] for samples in drawn(engine, [jobs[i] for i in order])]
        assert again == [together[i] for i in order]
    assert len({tokens for pair in together for tokens in pair}) == 10


def lessons(engine: LocalBackend, count: int, settings: TrainSettings) -> tuple[list[Task], list[TrainJob]]:
    """Invent entities and write a good self-edit about each."""
    rng = Random(3)
    entities = [world.invent(world.KINDS[i % len(world.KINDS)], rng) for i in range(count)]
    tasks = [world.to_task(entity, f"lesson-{i}", rng) for i, entity in enumerate(entities)]
    texts = [points(entity, "complete", rng) for entity in entities]
    jobs = [TrainJob(engine.encode([Example(line) for line in lines], settings), settings, 0) for lines in texts]
    return tasks, jobs


def exam_prompts(task: Task) -> tuple[str, ...]:
    return tuple(answer_prompt(q.question, task.title) for q in task.questions)


def accuracy(engine: LocalBackend, tasks: Sequence[Task], adapters: Sequence[Adapter]) -> float:
    answered = engine.answer([AnswerJob(exam_prompts(t), a, 24) for t, a in zip(tasks, adapters, strict=True)])
    grade = load_grader("exact")
    marks = [grade(t.questions, said) for t, said in zip(tasks, answered, strict=True) if isinstance(said, list)]
    return fmean(score.value or 0.0 for scores in marks for score in scores)


@pytest.mark.e2e
def test_tasks_taught_at_once_are_answered_as_well_as_taught_one_at_a_time() -> None:
    engine = LocalBackend("pup", "cpu")
    tasks, jobs = lessons(engine, 12, TrainSettings(rank=16, alpha=32.0, epochs=4, learning_rate=5e-3))
    alone = accuracy(engine, tasks, [adapter for job in jobs for adapter in trained(engine, [job])])
    at_once = [accuracy(engine, tasks, trained(engine, [replace(job, seed=seed) for job in jobs])) for seed in range(3)]
    assert min(at_once) > 0.2, "nothing was learnt"
    assert abs(at_once[0] - alone) <= max(at_once) - min(at_once)
    assert min(at_once) < max(at_once)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: what is proved is bf16 there")
def test_in_bf16_on_cuda_losses_and_answers_stay_with_peft() -> None:
    assert_stays_with_peft(LocalBackend("pup", "cuda"))


def assert_stays_with_peft(engine: LocalBackend) -> None:
    """Losses within 2 % (0.01 where that is more) at every step, 95 % of answers equal; so must PEFT be, run again."""
    assert engine._network.dtype == torch.bfloat16
    tasks, jobs = lessons(engine, 8, TrainSettings(rank=16, alpha=32.0, epochs=4, learning_rate=1e-3))
    prompts = [exam_prompts(task) for task in tasks]
    by_peft, control = (
        [learnt_with_peft(engine, job, asked) for job, asked in zip(jobs, prompts, strict=True)] for _ in range(2)
    )
    losses = [result.losses for result in train_together(engine._network, jobs)]
    said = engine.answer([AnswerJob(p, a, 24) for p, a in zip(prompts, trained(engine, jobs), strict=True)])
    for ours in ((losses, said), ([c[0] for c in control], [c[1] for c in control])):
        for mine, (theirs, _) in zip(ours[0], by_peft, strict=True):
            assert mine == pytest.approx(theirs, rel=0.02, abs=0.01)
        equal = [
            answer == same
            for answers, (_, expected) in zip(ours[1], by_peft, strict=True)
            if isinstance(answers, list)
            for answer, same in zip(answers, expected, strict=True)
        ]
        assert fmean(equal) >= 0.95


def learnt_with_peft(engine: LocalBackend, job: TrainJob, prompts: Sequence[str]) -> tuple[list[float], list[str]]:
    model = on_peft(engine._network, start(engine._network, job))
    losses = train_with_peft(model, job)
    tokens = [generated(model, engine._prompt_tokens(prompt)) for prompt in prompts]
    return losses, [engine._checkpoint.tokenizer.decode(row, skip_special_tokens=True).strip() for row in tokens]
