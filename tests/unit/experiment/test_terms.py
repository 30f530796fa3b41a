from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from selfedit.config import load_recipe
from selfedit.errors import ConfigError, InputError, RunError
from selfedit.experiment.plans import domain_of, make_plan
from selfedit.experiment.run import run_experiment
from selfedit.experiment.terms import (
    check_questions,
    check_reward,
    in_header,
    keep_reward,
    probe_tasks,
    refuse_another_reward,
    with_reward,
)
from selfedit.loop.arms import count_trials
from selfedit.loop.outer import Lab
from selfedit.loop.probes import Probes
from selfedit.recipe import Recipe, _determining, recipe_hash
from selfedit.runs import read_metrics, read_trials
from selfedit.sources.datasets import read_dataset
from selfedit.tasks.graders import load_grader
from selfedit.types import OuterSettings, RewardSettings
from tests.unit.conftest import FakeEngine, make_tasks

TINY = [
    *("eval_tasks=1", "outer.rounds=1", "outer.tasks=2", "sample.edits=2", "arms=['rounds']"),
    *("inner.epochs=1", "outer.train.epochs=1", "sample.max_tokens=40", "exam.max_tokens=8"),
]
ROW = {"title": "Otrar", "context": "Mira founded Otrar.", "questions": [{"question": "Who?", "answer": "Mira"}]}


def own(folder: Path, body: str) -> Path:
    path = folder / "own.py"
    path.write_text(f"def worth(task, trials):\n    {body}\n")
    return path


# ── before anything is run ──


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["outer.reward=retntion"], "did you mean 'retention'"),
        (["outer.reward=rubric", "outer.select=improves"], 'set outer.select="best-of-n"'),
        (["outer.reward=learnt", "sample.edits=1"], "tries some self-edits of a text and predicts the others"),
        (
            ["outer.race.by=logprob", "outer.repeats=2", "outer.reward=rubric"],
            "'rubric' does without; leave out outer.race",
        ),
        (["outer.race.by=logprob", "outer.repeats=2", "outer.reward=learnt"], "'learnt' does without; leave out"),
        (["outer.reward=retention", "model=other"], "name a file of them: outer.terms.probes=PATH"),
    ],
)
def test_a_reward_that_could_not_be_given_is_refused_with_what_to_do(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_reward(load_recipe("demo", overrides))


@pytest.mark.parametrize("reward", ["accuracy", "gain", "logprob", "retention", "forbidden", "learnt", "rubric"])
def test_every_reward_of_the_package_can_be_given_on_the_embedded_model(reward: str) -> None:
    check_reward(load_recipe("demo", [f"outer.reward={reward}"]))


def test_forbidden_needs_something_forbidden() -> None:
    recipe = load_recipe("demo", ["outer.reward=forbidden", *TINY])
    with pytest.raises(ConfigError, match="the domain 'world' has none; set domain=\"world-forbidden\""):
        check_questions(recipe, make_plan(recipe, Path()).train)
    guarded = replace(recipe, domain="world-forbidden")
    check_questions(guarded, make_plan(guarded, Path()).train)


def test_probes_of_a_file_are_the_tasks_that_it_asks_about(tmp_path: Path) -> None:
    path = tmp_path / "known.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps({"text": "nothing asked"}) + "\n")
    outer = OuterSettings(reward="retention", terms=RewardSettings(probes=str(path)))
    assert [task.title for task in probe_tasks(Recipe(model="other", outer=outer))] == ["Otrar"]


@pytest.mark.parametrize(
    ("text", "told"), [(json.dumps({"text": "a"}), "holds no question"), (None, "there is no file")]
)
def test_probes_that_ask_nothing_are_refused(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "known.jsonl"
    if text:
        path.write_text(text)
    outer = OuterSettings(reward="retention", terms=RewardSettings(probes=str(path)))
    with pytest.raises(InputError, match=told):
        probe_tasks(Recipe(outer=outer))


def test_a_question_of_a_data_set_may_be_forbidden(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        json.dumps(ROW | {"questions": [*ROW["questions"], {"question": "When?", "answer": "1", "role": "forbidden"}]})
    )
    (task,) = read_dataset(str(path)).tasks
    assert [question.role for question in task.questions] == ["exam", "forbidden"]
    path.write_text(path.read_text().replace("forbidden", "fobidden"))
    with pytest.raises(InputError, match='has the role \'fobidden\'; expected "exam" or "forbidden"'):
        read_dataset(str(path))


@pytest.mark.parametrize(("reward", "tried"), [("accuracy", 5 * 3), ("learnt", 2 * 3), ("rubric", 5)])
def test_the_inner_loops_that_a_reward_spares_are_not_counted(reward: str, tried: int) -> None:
    recipe = load_recipe("demo", [f"outer.reward={reward}", "outer.repeats=3", "outer.tasks=4", "arms=['rounds']"])
    assert count_trials(recipe, 8, 1) == 2 * 4 * tried + 3


@pytest.mark.parametrize(("by", "first", "second"), [("one-seed", 5 + 2, 5 + 2), ("learnt", 5 + 2, 2)])
def test_the_inner_loops_that_a_race_spares_are_not_counted(by: str, first: int, second: int) -> None:
    recipe = load_recipe("demo", [f"outer.race.by={by}", "outer.repeats=3", "outer.tasks=4", "arms=['rounds']"])
    assert count_trials(recipe, 8, 1) == 4 * (first + second) + 3


@pytest.mark.parametrize(
    ("reward", "by", "measured"),
    [("accuracy", "logprob", ("logprob",)), ("logprob", "logprob", ("logprob",)), ("gain", "one-seed", None)],
)
def test_a_race_has_measured_what_it_goes_by(reward: str, by: str, measured: tuple[str, ...] | None) -> None:
    recipe = load_recipe("demo", [f"outer.reward={reward}", f"outer.race.by={by}", "outer.repeats=2"])
    engine = FakeEngine(make_tasks(1))
    lab = Lab(domain_of(recipe), engine, load_grader("exact"), recipe.sample, recipe.exam, recipe.seed)
    probe = with_reward(lab, recipe).probe
    assert (probe.names if isinstance(probe, Probes) else None) == measured


# ── names and folders ──


def test_a_recipe_without_rewards_of_its_own_has_the_hash_it_had() -> None:
    assert "terms" not in _determining(asdict(Recipe()))["outer"]
    assert recipe_hash(Recipe()) != recipe_hash(Recipe(outer=OuterSettings(terms=RewardSettings(kl=0.2))))


def test_a_recipe_names_its_own_reward_and_probes_beside_it(tmp_path: Path) -> None:
    own(tmp_path, "return 1.0")
    (tmp_path / "known.jsonl").write_text(json.dumps(ROW))
    file = tmp_path / "recipe.toml"
    file.write_text('[outer]\nreward = "own.py:worth"\n[outer.terms]\nprobes = "known.jsonl"\n')
    recipe = load_recipe(str(file))
    assert recipe.outer.reward == f"{tmp_path}/own.py:worth"
    assert recipe.outer.terms.probes == f"{tmp_path}/known.jsonl"
    named = in_header(recipe).outer
    assert named.reward == "own.py:worth"
    assert named.terms.probes.startswith("known.jsonl@")


def test_writers_are_not_gone_on_with_under_another_reward(tmp_path: Path) -> None:
    path = own(tmp_path, "return 1.0")
    recipe = Recipe(outer=OuterSettings(reward=f"{path}:worth"))
    refuse_another_reward(tmp_path, recipe)
    keep_reward(tmp_path, recipe)
    refuse_another_reward(tmp_path, recipe)
    own(tmp_path, "return 2.0")
    with pytest.raises(RunError, match=r"rounds that another text of own\.py has rewarded"):
        refuse_another_reward(tmp_path, recipe)


# ── the whole of it, on the embedded model ──


def test_a_broken_reward_is_mended_without_a_trial_run_twice(tmp_path: Path) -> None:
    path = own(tmp_path, "return 1 / 0")
    recipe = load_recipe("demo", [*TINY, f"outer.reward={path}:worth"])
    with pytest.raises(RunError, match=r"failed for all 4 self-edits of train-1 \(ZeroDivisionError"):
        run_experiment(recipe, tmp_path / "run", "cpu")
    folder = tmp_path / "run" / "seed-0"
    lost = read_trials(folder)
    assert sum(key.startswith("train-1/") for key in lost) == 4
    own(tmp_path, "return trials[0].reward or 0.0")
    run_experiment(recipe, tmp_path / "run", "cpu")
    assert {key: read_trials(folder)[key] for key in lost} == lost
    assert (folder / "reward.py").read_text() == path.read_text()


def test_what_a_reward_measured_stands_in_the_ledger(tmp_path: Path) -> None:
    recipe = load_recipe("demo", [*TINY, "outer.reward=retention"])
    run_experiment(recipe, tmp_path, "cpu")
    trials = read_trials(tmp_path / "seed-0").values()
    assert len(trials) == 6
    for trial in trials:
        known, drift = trial.measures["known"], trial.measures["kl"]
        assert known is not None and drift is not None and 0 <= known <= 1
    assert any(trial.measures["kl"] for trial in trials)
    assert {m.name for m in read_metrics(tmp_path / "seed-0")} >= {"train/reward/mean", "train/failure/rewards"}


def test_log_probabilities_rise_with_what_is_learnt(tmp_path: Path) -> None:
    run_experiment(load_recipe("demo", ["arms=['passage']", "eval_tasks=2", "outer.reward=logprob"]), tmp_path, "cpu")
    for trial in read_trials(tmp_path / "seed-0").values():
        before, after = trial.measures["logprob_before"], trial.measures["logprob"]
        assert before is not None and after is not None and before < after < 0
