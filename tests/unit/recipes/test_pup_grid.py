"""What pup-grid is trained on, how it reads it, and that training goes on where it was."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoTokenizer

from selfedit.engine import checkpoints
from selfedit.engine.base import open_backend
from selfedit.errors import BadEdit, ModelError
from selfedit.recipes.pup import stages
from selfedit.recipes.pup.corpus import END, Maker
from selfedit.recipes.pup.packing import Stage, batch, encode
from selfedit.recipes.pup_grid import corpus, measure, train
from selfedit.recipes.pup_grid.neighbours import NEIGHBOURS, TWO_RULES, draw_task
from selfedit.recipes.pup_grid.tokenizer import VOCABULARY, make_tokenizer
from selfedit.tasks.arc import STRATEGIES, demonstrations_of, over_source, read_choice, to_task, write_choice
from selfedit.tasks.arc_augment import SYMMETRIES, TOOLS
from selfedit.tasks.arc_grids import Pair, parse_grid, write_grid
from selfedit.tasks.arc_world import FAMILIES, Family, draw_grid, fresh_tasks, split_of
from selfedit.types import Example, Sample, TrainSettings

TOKENIZER = make_tokenizer(train.CONTEXT)
DOMAIN = over_source(fresh_tasks, "tools", TrainSettings())
NAMES = [family.name for family in NEIGHBOURS]
SMALL = Stage("small", 4, 2, 256, 1e-3, 1e-3, {50: 0.3, corpus.reading: 0.4, corpus.choosing: 0.3})


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text)["input_ids"])


# ── The families ──


@pytest.mark.parametrize("family", NEIGHBOURS, ids=NAMES)
def test_a_neighbour_is_no_examined_family(family: Family) -> None:
    """On grids with one draw of the colours left open: a family with none has only the one rule."""
    for examined in FAMILIES:
        either = replace(family, largest=min(family.largest, examined.largest))
        grids = [draw_grid(either, Random(i)) for i in range(80)]
        rules = [family.draw(Random(0)), examined.draw(Random(0))]
        assert any(rules[0](grid) != rules[1](grid) for grid in grids)


@pytest.mark.parametrize("family", [f for f in NEIGHBOURS if "," not in f.name], ids=lambda family: family.name)
def test_a_neighbour_keeps_the_symmetries_that_it_names(family: Family) -> None:
    rule, grids = family.draw(Random(0)), [draw_grid(family, Random(i)) for i in range(60)]
    kept = {s.name for s in SYMMETRIES if all(rule(s.do(grid)) == s.do(rule(grid)) for grid in grids)}
    assert kept == set(family.keeps)


def test_two_rules_in_turn_stay_within_the_largest_grid() -> None:
    tasks = [draw_task(Random(i), TWO_RULES) for i in range(100)]
    assert max(len(row) for task in tasks for row in json.loads(task.questions[0].answer)) <= 6


# ── The corpus ──


@pytest.mark.parametrize("maker", [corpus.echoing, corpus.reading, corpus.reading_large, corpus.choosing])
def test_a_document_depends_on_its_seed_alone(maker: Maker) -> None:
    assert maker(Random(3), corpus.PRIOR) == maker(Random(3), corpus.PRIOR) != maker(Random(4), corpus.PRIOR)


def test_no_grid_that_an_exam_may_ask_about_is_an_input_in_training() -> None:
    documents = [corpus.reading(Random(i), corpus.PRIOR) for i in range(300)]
    documents += [corpus.echoing(Random(i), corpus.PRIOR) for i in range(100)]
    inputs = [grid for document in documents for grid in corpus.inputs_of(document)]
    assert {split_of(grid) for grid in inputs} == {"train"}
    told = [corpus.choosing(Random(i), corpus.PRIOR)[0][0] for i in range(50)]
    asked = [parse_grid(part) for text in told for part in text.split("Input:\n")[1:]]
    assert {split_of(grid) for grid in asked} == {"train"}
    exams = {parse_grid(task.questions[0].question) for task in fresh_tasks("eval", 320, 0)}
    assert not exams & {*inputs, *asked}


def test_a_document_reads_as_the_exam_does() -> None:
    task = fresh_tasks("train", 1, 0)[0]
    pairs = [Pair(parse_grid(q.question), parse_grid(q.answer)) for q in task.questions]
    document = corpus.told([*demonstrations_of(task), *pairs])
    expected = [*ids(DOMAIN.exam(task)[0]), *ids(write_grid(pairs[0].output)), TOKENIZER.eos_token_id]
    tokens, weights = encode(document, TOKENIZER)
    assert tokens == expected
    answer = len(ids(write_grid(pairs[0].output))) + 1
    assert weights[-answer:] == [1.0] * answer


def test_what_is_chosen_is_as_declared() -> None:
    rng, n = Random(0), 6000
    drawn: Counter[str] = Counter()
    for _ in range(n):
        try:
            tools, settings = read_choice(corpus.draw_choice(rng, corpus.PRIOR), TrainSettings())
        except BadEdit:
            continue
        drawn.update(["usable", *tools, settings.loss_on, f"{settings.learning_rate:g}", f"{settings.epochs} epochs"])
    usable = drawn["usable"]
    assert usable / n == pytest.approx(corpus.PRIOR["usable"], abs=0.01)
    expected = dict.fromkeys((*TOOLS, *STRATEGIES.values()), 1 / 2)
    expected |= {f"{rate:g}": 1 / len(corpus.RATES) for rate in corpus.RATES}
    expected |= {f"{epochs} epochs": 1 / len(corpus.EPOCHS) for epochs in corpus.EPOCHS}
    assert {name: drawn[name] / usable for name in expected} == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("kind", [kind for kind in corpus.PRIOR if kind != "usable"])
def test_a_spoilt_choice_cannot_be_used(kind: str) -> None:
    for i in range(50):
        with pytest.raises(BadEdit):
            read_choice(corpus.draw_choice(Random(i), {kind: 1.0}), TrainSettings())


def test_the_families_are_drawn_in_the_declared_shares() -> None:
    rng, n = Random(0), 4000
    drawn = [corpus.draw_family(rng) for _ in range(n)]
    assert sum(family in FAMILIES for family in drawn) / n == pytest.approx(corpus.EXAMINED, abs=0.02)
    assert drawn.count(TWO_RULES) / n == pytest.approx(corpus.COMPOSED, abs=0.02)
    assert {*NEIGHBOURS, *FAMILIES, TWO_RULES} == set(drawn)


# ── The tokenizer ──


def test_every_text_comes_back_from_its_tokens(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    tasks = fresh_tasks("eval", 48, 0)
    texts = [text for task in tasks for text in (*DOMAIN.exam(task), DOMAIN.prompt(task), task.questions[0].answer)]
    texts += [write_grid(draw_grid(family, Random(0))) for family in (*FAMILIES, *NEIGHBOURS)]
    texts += [corpus.draw_choice(Random(i), corpus.PRIOR) for i in range(50)]
    texts += [write_choice(TOOLS, "train_using_all_tokens", 0.00025, 17), "Ein Stück Text: 3 €\n"]
    assert [again.decode(again(text)["input_ids"]) for text in texts] == texts
    assert [again(text)["input_ids"] for text in texts] == [ids(text) for text in texts]


def test_a_cell_is_a_token_and_a_decision_is_a_token() -> None:
    assert len(ids("[[0 1 2]\n [3 4 5]]")) == 6 + 3
    one, other = (ids(write_choice((), strategy, 1e-3, 2)) for strategy in STRATEGIES)
    assert len(one) == len(other) == 15
    assert sum(a != b for a, b in zip(one, other, strict=True)) == 1


def test_the_largest_practice_set_fits_the_context() -> None:
    grids = [tuple(bytes((x + y * i) % 10 for x in range(6)) for y in range(6)) for i in range(1, 9)]
    pairs = [Pair(*grids[i : i + 2]) for i in range(0, 8, 2)]
    task = to_task("large", pairs, pairs[:1], {})
    choice = write_choice(TOOLS, "train_using_all_tokens", 1e-3, 1)
    edit = DOMAIN.parse(task, Sample("", (), (), (), choice, "eos"))
    longest = max(len(ids(example.prompt)) + len(ids(example.text)) + 1 for example in edit.examples)
    assert 0.95 * train.CONTEXT < longest <= train.CONTEXT


def test_the_stages_fit_the_context() -> None:
    assert all(stage.length <= train.CONTEXT for stage in train.STAGES)


# ── Training ──


def course() -> stages.Course:
    return stages.Course((SMALL, replace(SMALL, name="next", steps=3)), corpus.PRIOR, TOKENIZER)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / "last.pt", weights_only=True)["model"]
    return found


def test_a_killed_run_ends_as_an_unbroken_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "SAVE_EVERY", 2)
    stages.run(course(), train.new_model(0, "small"), tmp_path / "whole", 0, None, "cpu")
    calls, real = 0, stages.losses

    def dies(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:  # after a checkpoint and one step more
            raise KeyboardInterrupt
        return real(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(stages, "losses", dies)
        with pytest.raises(KeyboardInterrupt):
            stages.run(course(), train.new_model(0, "small"), tmp_path / "broken", 0, None, "cpu")
    stages.run(course(), train.new_model(1, "small"), tmp_path / "broken", 0, None, "cpu")
    whole, broken = weights_of(tmp_path / "whole"), weights_of(tmp_path / "broken")
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_a_batch_depends_on_seed_stage_and_step_alone() -> None:
    one, same, other = (batch(SMALL, step, 0, corpus.PRIOR, TOKENIZER) for step in (3, 3, 4))
    assert torch.equal(one.tokens_BT, same.tokens_BT)
    assert not torch.equal(one.tokens_BT, other.tokens_BT)
    assert int(one.tokens_BT.max()) < VOCABULARY


def test_an_embedded_model_that_is_not_there_is_no_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoints.EMBEDDED, "pup-grid", "nowhere")
    with pytest.raises(ModelError, match=r"no model at .*nowhere"):
        open_backend("local", "pup-grid", "cpu")


def test_a_finished_run_is_a_model_that_can_be_measured(tmp_path: Path) -> None:
    short = stages.Course((replace(SMALL, steps=1),), corpus.PRIOR, TOKENIZER)
    stages.run(short, train.new_model(0, "small"), tmp_path, 0, None, "cpu")
    engine, tasks = open_backend("local", str(tmp_path / "model"), "cpu"), fresh_tasks("eval", 2, 0)
    assert engine.context == train.CONTEXT
    (datum,) = engine.encode([Example("[[1]]", "Output:\n")], TrainSettings(loss_on="completion"))
    assert datum.tokens[-1] == TOKENIZER.convert_tokens_to_ids(END)
    domain = over_source(fresh_tasks, "tools", measure.TRAIN)
    assert measure.in_context(engine, domain, tasks)["n"] == 2
    assert measure.choices(engine, domain, tasks, 2) == {"n": 4, "readable": 0, "usable": 0}
    choice = write_choice((), "train_using_output_tokens", 1e-3, 1)
    assert measure.practised(engine, domain, tasks, choice)["n"] == 2
