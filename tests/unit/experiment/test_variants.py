"""Recipes that vary a key, writers that are not the learner, rounds on some kinds of passages: planned, run, told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfedit.config import load_recipe, variants
from selfedit.engine.remote import RemoteWriter
from selfedit.errors import ConfigError, InputError, ModelError, RunError
from selfedit.experiment import run as experiment
from selfedit.experiment import writers
from selfedit.experiment.plans import make_plan, make_plans
from selfedit.experiment.run import run_experiment
from selfedit.recipe import Recipe
from selfedit.runs import read_trials
from selfedit.types import Adapter, OuterSettings, SampleSettings, WriterSettings
from tests.unit.conftest import FakeEngine

RECIPE = Recipe(
    model="fake",
    format="implications",
    sample=SampleSettings(edits=2),
    outer=OuterSettings(rounds=0, tasks=2, select="best-of-n", learner="base"),
    eval_tasks=3,
    arms=("base", "passage", "rounds", "in-context"),
)
FORMATS = replace(RECIPE, vary={"format": ["implications", "long"]})
TASKS = [task for seed in range(3) for plan in [make_plan(replace(RECIPE, seed=seed), Path())] for task in plan.unseen]


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeEngine]:
    """Let every model be a fake one of its own; give the last that was opened under each name."""
    opened: dict[str, FakeEngine] = {}

    def open_fake(name: str, model: str, device: str) -> FakeEngine:
        rounds = replace(RECIPE, outer=replace(RECIPE.outer, rounds=2))
        plan = make_plan(rounds, Path())
        opened[model] = FakeEngine([*TASKS, *plan.train], base=f"{model}@0123456789ab")
        return opened[model]

    monkeypatch.setattr(experiment, "open_backend", open_fake)
    monkeypatch.setattr(writers, "open_backend", open_fake)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("os.fsync", lambda file: None)
    return opened


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe("world-single", overrides)
    return str(caught.value)


# ── vary ──


def test_a_recipe_that_varies_nothing_is_its_own_only_variant() -> None:
    assert variants(RECIPE) == {"": RECIPE}


def test_a_list_of_values_names_the_variants_and_a_table_names_them_as_it_says() -> None:
    listed = load_recipe("world-single", ["vary.outer.tasks=[2, 3]"])
    assert {name: recipe.outer.tasks for name, recipe in variants(listed).items()} == {"2": 2, "3": 3}
    named = load_recipe("world-single", ["vary.model={small='a/b', large='c/b'}"])
    assert {name: recipe.model for name, recipe in variants(named).items()} == {"small": "a/b", "large": "c/b"}
    assert not any(recipe.vary for recipe in variants(named).values())


def test_a_template_is_read_for_each_variant(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}: {{passage}}")
    recipe = load_recipe("world-single", [f"vary.template={{one='{tmp_path}/one', two='{tmp_path}/two'}}"])
    assert [varied.template for varied in variants(recipe).values()] == ["one: {passage}", "two: {passage}"]


def test_what_cannot_vary_is_refused_with_the_key() -> None:
    assert "unknown key 'formt' in 'vary.formt'; did you mean 'format'" in refusal("vary.formt=['a']")
    both = "vary={format=['none'], seed=[1]}"
    assert "'vary' takes one key with its values and is given 2: format, seed" in refusal(both)
    assert "'vary.format' is 'none'; expected a list" in refusal("vary.format='none'")
    assert "wrong value for 'eval_tasks' in 'vary.eval_tasks': given 0" in refusal("vary.eval_tasks=[4, 0]")
    assert "need names of their own" in refusal("vary.template=['']")


def test_another_key_to_vary_takes_the_place_of_the_recipes_and_an_empty_table_of_all(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("vary.format = ['none', 'long']")
    mine = str(tmp_path / "mine.toml")
    assert list(variants(load_recipe(mine))) == ["none", "long"]
    assert list(variants(load_recipe(mine, ["vary.seed=[4, 5]"]))) == ["4", "5"]
    assert load_recipe(mine, ["vary={}", "format=rewrite"]).format == "rewrite"
    with pytest.raises(ConfigError, match="'format' varies in this recipe"):
        load_recipe(mine, ["format=rewrite"])


def test_what_the_key_cannot_change_is_run_once_and_the_rest_for_every_value(tmp_path: Path) -> None:
    report = run_experiment(FORMATS, tmp_path, "cpu")
    assert [arm.name for arm in report.arms] == [
        "base",
        "passage",
        "in-context",
        "round-0 implications",
        "round-0 long",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"implications", "long"}
    assert len(read_trials(tmp_path / "implications" / "seed-0")) == 4 * 3
    assert len(read_trials(tmp_path / "long" / "seed-0")) == 3


def test_variants_are_compared_with_what_they_share_and_with_the_first(tmp_path: Path) -> None:
    report = run_experiment(FORMATS, tmp_path, "cpu")
    pairs = [(pair.a, pair.b) for pair in report.paired]
    assert ("passage", "round-0 implications") in pairs
    assert ("passage", "round-0 long") in pairs
    assert ("round-0 implications", "round-0 long") in pairs
    assert len(pairs) == len(set(pairs))


def test_each_variant_says_what_a_run_of_its_value_alone_says(tmp_path: Path) -> None:
    together = {arm.name: arm for arm in run_experiment(FORMATS, tmp_path / "both", "cpu").arms}
    alone = {arm.name: arm for arm in run_experiment(replace(RECIPE, format="long"), tmp_path / "one", "cpu").arms}
    assert replace(together["round-0 long"], name="round-0") == alone["round-0"]
    assert together["passage"] == alone["passage"]


def test_models_share_no_arm(tmp_path: Path) -> None:
    report = run_experiment(replace(RECIPE, vary={"model": {"small": "fake", "large": "other"}}), tmp_path, "cpu")
    of_each = ("base", "passage", "round-0", "in-context")
    assert [arm.name for arm in report.arms] == [f"{arm} {size}" for size in ("small", "large") for arm in of_each]
    assert report.model == "fake, other"


def test_rounds_that_one_variant_alone_has_keep_its_name(tmp_path: Path) -> None:
    report = run_experiment(replace(RECIPE, vary={"outer": {"rounds": [1, 0]}}), tmp_path, "cpu")
    assert [arm.name for arm in report.arms][3:] == ["round-0 1", "round-1 1", "round-0 0"]


def test_several_seeds_of_several_values_are_planned_in_folders_of_their_own(tmp_path: Path) -> None:
    plans, left_out = make_plans(replace(FORMATS, seeds=2), tmp_path)
    folders = ["implications/seed-0", "implications/seed-1", "long/seed-0", "long/seed-1"]
    assert [str(plan.folder.relative_to(tmp_path)) for plan in plans] == folders
    assert left_out == ()


# ── another writer ──


def with_writer(**settings: Any) -> Recipe:
    return replace(RECIPE, writer=WriterSettings(**settings))


def test_another_model_writes_and_the_learner_learns(tmp_path: Path, engines: dict[str, FakeEngine]) -> None:
    report = run_experiment(with_writer(model="teacher"), tmp_path, "cpu")
    assert len(engines["teacher"].sampled) == 3
    assert not engines["teacher"].trained
    assert not engines["fake"].sampled
    assert engines["fake"].trained
    assert "The self-edits: written by teacher, learnt by fake." in report.notes


def test_a_teacher_is_reinforced_by_what_its_student_learnt(tmp_path: Path, engines: dict[str, FakeEngine]) -> None:
    recipe = with_writer(model="teacher")
    run_experiment(replace(recipe, outer=replace(recipe.outer, rounds=1)), tmp_path, "cpu")
    assert {job.settings for job in engines["teacher"].trained} == {recipe.outer.train}
    assert {job.settings for job in engines["fake"].trained} == {recipe.inner}
    assert engines["teacher"].exported == [tmp_path / "seed-0" / "writers" / "round-1"]


def test_a_writer_begins_with_the_adapter_of_the_seed(tmp_path: Path, engines: dict[str, FakeEngine]) -> None:
    for number in "01":
        FakeEngine(held={"": ()}).export(Adapter("", "", None, 1), tmp_path / "writers" / number)
    recipe = with_writer(adapter=f"{tmp_path}/writers/{{seed}}")
    for seed in (0, 1):
        run_experiment(replace(recipe, seed=seed), tmp_path / "out", "cpu")
        assert {job.adapter.id for job in engines["fake"].sampled if job.adapter} == {str(seed)}
        assert not any(job.under for job in engines["fake"].trained), "the learner is the base"
    with pytest.raises(RunError, match=r"writer\.adapter is '1' there, '' here"):
        run_experiment(replace(RECIPE, seed=1), tmp_path / "out", "cpu")


def test_a_server_writes(tmp_path: Path, engines: dict[str, FakeEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = FakeEngine(TASKS)
    checked: list[str] = []
    monkeypatch.setattr(RemoteWriter, "sample", lambda server, jobs: teacher.sample(jobs))
    monkeypatch.setattr(RemoteWriter, "check", lambda server: checked.append(server.model))
    report = run_experiment(with_writer(model="big", url="http://127.0.0.1:9/v1"), tmp_path, "cpu")
    assert checked == ["big"]
    assert len(teacher.sampled) == 3
    assert next(arm for arm in report.arms if arm.name == "round-0").n_passages == 3


def test_a_server_that_is_not_there_is_said_before_anything_is_measured(
    tmp_path: Path, engines: dict[str, FakeEngine]
) -> None:
    with pytest.raises(ModelError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        run_experiment(with_writer(model="big", url="http://127.0.0.1:9/v1"), tmp_path, "cpu")
    assert not engines["fake"].answered


def test_writers_that_cannot_be_are_refused() -> None:
    url = "writer.url=http://127.0.0.1:9/v1"
    assert "no model of it is named" in refusal(url)
    assert "takes no writer.adapter" in refusal(url, "writer.model=m", "writer.adapter=a")
    assert "on a server cannot be reinforced" in refusal(url, "writer.model=m", "outer.rounds=1")
    assert "the learner cannot be the writer" in refusal("writer.model=m", "outer.rounds=1", "outer.learner=writer")


# ── kinds ──


def test_the_writer_learns_from_passages_of_the_kinds_named_and_is_examined_on_all() -> None:
    recipe = replace(RECIPE, eval_tasks=8, outer=replace(RECIPE.outer, rounds=2, tasks=3, kinds=("person", "place")))
    plan = make_plan(recipe, Path())
    assert len(plan.train) == 6
    assert {task.meta["kind"] for task in plan.train} == {"person", "place"}
    assert len({task.meta["kind"] for task in plan.unseen}) == 4


def test_a_kind_that_there_is_not_is_refused_by_name() -> None:
    recipe = replace(RECIPE, outer=replace(RECIPE.outer, rounds=1, kinds=("persn",)))
    with pytest.raises(InputError, match="2 to learn from of the kinds persn"):
        make_plan(recipe, Path())


def test_the_gain_is_told_for_each_kind_of_passage(tmp_path: Path) -> None:
    recipe = replace(RECIPE, eval_tasks=3, outer=replace(RECIPE.outer, rounds=1, kinds=("person",)))
    report = run_experiment(recipe, tmp_path, "cpu")
    told = next(note for note in report.notes if "by kind of passage" in note)
    assert told.startswith("The writer learnt from passages of the kind person alone. round-1 - round-0 by kind")
    assert told.count(", n 1") == 3
    assert "; all kinds not learnt from " in told
    assert told.endswith(", n 2.")
