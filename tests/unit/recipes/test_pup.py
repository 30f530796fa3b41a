"""What pup is trained on, and how its batches are built."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
import torch

from selfedit.recipes.pup import corpus
from selfedit.recipes.pup.packing import Stage, batch, said_twice
from selfedit.recipes.pup.stages import losses
from selfedit.recipes.pup.tokenizer import train_tokenizer
from selfedit.recipes.pup.train import STAGES, new_model
from selfedit.tasks import world
from selfedit.tasks.edits import FORMATS, parse_edit
from selfedit.tasks.exams import read_exam
from selfedit.types import Sample, TrainSettings

MIXTURE = corpus.MIXTURES["a"]
SMALL = Stage("small", 1, 2, 256, 1e-3, 1e-3, {50: 0.3, corpus.telling: 0.4, corpus.recalling: 0.3})


def sample(text: str) -> Sample:
    return Sample("", (), (), (), text, "eos")


@pytest.mark.parametrize("name", corpus.MIXTURES)
def test_the_card_declares_the_mixture_that_is_trained(name: str) -> None:
    card = files("selfedit").joinpath("pup/README.md").read_text()
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| (\d+) % \| (\d+) % \|$", card, re.MULTILINE)
    declared = {student: int(share[list(corpus.MIXTURES).index(name)]) for student, *share in rows}
    assert declared == {student: round(100 * share) for student, share in corpus.MIXTURES[name].items()}
    assert sum(declared.values()) == 100


@pytest.mark.parametrize("form", corpus.FORM_SHARES)
@pytest.mark.parametrize("style", MIXTURE)
def test_every_student_writes_every_format_so_that_it_can_be_read(form: str, style: str) -> None:
    rng = world.seeded("student", form, style)
    entity = corpus.fresh(rng)
    task = world.to_task(entity, "t", rng)
    edit = parse_edit(FORMATS[form], task, sample(corpus.write(entity, form, style, rng)), TrainSettings())
    assert len(edit.examples) >= 2


def test_a_complete_student_tells_every_fact_and_a_wrong_one_does_not() -> None:
    rng = world.seeded("quality")
    entity = world.invent("person", rng)
    told = "\n".join(corpus.points(entity, "complete", rng))
    assert all(fact.value in told for fact in entity.facts)
    wrong = "\n".join(corpus.points(entity, "wrong", rng))
    assert not all(fact.value in wrong for fact in entity.facts)


def test_an_exam_document_can_be_read_back() -> None:
    (_, _), (text, _) = corpus.examining(world.seeded("exam"), MIXTURE)
    assert read_exam(text.removesuffix(corpus.END))


def test_one_phrasing_of_every_asked_fact_is_never_used_in_training() -> None:
    for entity in world.famous():
        for fact in entity.facts:
            assert len(corpus.practised(entity, fact)) in (0, len(fact.attribute.ask) - 1)


def test_only_the_second_saying_of_a_random_sequence_is_learnt() -> None:
    tokens, weights = said_twice(world.seeded("twice"), 40, 512)
    half = len(tokens) // 2
    assert tokens[:half] == tokens[half:]
    assert weights == [0.0] * half + [1.0] * half


def test_a_batch_depends_on_seed_stage_and_step_alone() -> None:
    tokenizer = train_tokenizer(512, 256, 0)
    one, same, other = (batch(SMALL, step, 0, MIXTURE, tokenizer) for step in (3, 3, 4))
    assert torch.equal(one.tokens_BT, same.tokens_BT)
    assert not torch.equal(one.tokens_BT, other.tokens_BT)


def test_a_packed_document_is_learnt_as_if_it_were_alone() -> None:
    tokenizer = train_tokenizer(512, 256, 0)
    made, model = batch(SMALL, 0, 0, MIXTURE, tokenizer), new_model(0)
    second = made.documents_BT[0] == made.documents_BT[0].unique()[1]
    with torch.no_grad():
        packed = model.model(
            input_ids=made.tokens_BT, attention_mask=made.mask(), position_ids=made.positions_BT, use_cache=False
        ).last_hidden_state[0, second]
        alone = model.model(input_ids=made.tokens_BT[:1, second], use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)
    loss, hits = losses(model, made, torch.device("cpu"))
    assert loss.isfinite()
    assert 0 <= hits <= 1


def test_the_stages_fit_the_context() -> None:
    assert all(stage.length <= 768 for stage in STAGES)
