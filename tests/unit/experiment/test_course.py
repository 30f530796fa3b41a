"""What became of a writer, read off ledgers: by seed, with patience, and whatever was not reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from selfedit.engine.base import SampleJob
from selfedit.experiment import run as experiment
from selfedit.experiment.course import (
    MOST_SETTINGS,
    OTHER,
    UNUSABLE,
    count_settings,
    difference_by_seed,
    edits_of,
    names_of_settings,
)
from selfedit.experiment.plans import make_plan
from selfedit.experiment.results import report_on
from selfedit.experiment.run import run_experiment
from selfedit.recipe import Recipe
from selfedit.report.lines import JUDGED, SETTINGS, SUBJECT, WORDING
from selfedit.report.record import Report
from selfedit.runs import read_trials
from selfedit.tasks import world_claims
from selfedit.types import MenuSettings, OuterSettings, Sample, SampleSettings, Trial
from tests.unit.conftest import FakeEngine

RECIPE = Recipe(
    model="fake",
    seeds=2,
    format="implications",
    sample=SampleSettings(edits=2),
    outer=OuterSettings(rounds=3, tasks=2, select="best-of-n", learner="base"),
    eval_tasks=4,
    arms=("passage", "rounds", "random-edits"),
)
ROUNDS = [f"round-{i}" for i in range(4)]


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_fake(name: str, model: str, device: str) -> FakeEngine:
        plans = [make_plan(replace(RECIPE, seed=seed), Path()) for seed in range(3)]
        return FakeEngine([task for plan in plans for task in [*plan.train, *plan.unseen]])

    monkeypatch.setattr(experiment, "open_backend", open_fake)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("os.fsync", lambda file: None)


# ── by seed ──


def test_the_curve_has_a_number_for_every_seed_and_round(tmp_path: Path) -> None:
    report = run_experiment(RECIPE, tmp_path, "cpu")
    assert [(point.round, point.arm) for point in report.course.curve] == list(enumerate(ROUNDS))
    for point in report.course.curve:
        for seed, value in enumerate(point.by_seed.values):
            found = read_trials(tmp_path / f"seed-{seed}").items()
            assert value == pytest.approx(
                fmean(t.reward for key, t in found if key.startswith(f"{point.arm}/") and t.reward is not None)
            )
    pooled = {arm.name: arm.accuracy for arm in report.arms}
    assert [point.by_seed.mean for point in report.course.curve] == pytest.approx([pooled[name] for name in ROUNDS])


def test_every_difference_has_an_interval_by_seed_as_well_where_there_are_several(tmp_path: Path) -> None:
    report = run_experiment(RECIPE, tmp_path, "cpu")
    for pair in report.paired:
        assert pair.by_seed is not None
        assert pair.by_seed.mean == pytest.approx(pair.difference)
        assert len(pair.by_seed.values) == 2
    one = report_on([make_plan(replace(RECIPE, seeds=1), tmp_path)])
    assert [pair.by_seed for pair in one.paired] == [None] * len(one.paired)
    assert difference_by_seed([[], []], [[]]) is None


# ── variety and kinds of lines ──


def test_variety_is_told_of_what_was_rewarded_and_of_what_was_examined(tmp_path: Path) -> None:
    stages = {stage.stage: stage for stage in run_experiment(RECIPE, tmp_path, "cpu").course.variety}
    assert list(stages) == ["train-1", "train-2", "train-3", *ROUNDS, "random-edits"]
    assert stages["train-2"].n_edits == 2 * 2 * 2
    assert stages["round-3"].n_edits == 2 * 4
    assert all(value is not None for value in stages["train-1"].measures["alike_passage"].values)
    assert stages["round-0"].measures["alike_passage"].values == (None, None)
    assert None not in stages["round-0"].measures["alike_all"].values


def test_a_self_edit_counts_once_however_often_it_was_tried() -> None:
    sample = Sample("p", (), (), (), "text", "eos")
    trial = Trial("k", "t", 0, 0, 0, sample, None, (), (), None, None)
    trials = [trial, replace(trial, repeat=1), replace(trial, edit=1), replace(trial, edit=2, sample=None)]
    assert edits_of(trials) == {"t": ["text", "text"]}


def shares(report: Report, arm: str, way: str) -> dict[str, float | None]:
    return {entry.kind: entry.share for entry in report.course.lines if (entry.arm, entry.way) == (arm, way)}


def test_every_line_is_of_one_kind_by_wording_and_of_one_by_what_its_domain_knows(tmp_path: Path) -> None:
    report = run_experiment(RECIPE, tmp_path, "cpu")
    for arm in [*ROUNDS, "random-edits"]:
        for way in (WORDING, JUDGED):
            assert sum(share or 0.0 for share in shares(report, arm, way).values()) == pytest.approx(1)
        assert list(shares(report, arm, SUBJECT)) == ["names its subject"]
    assert set(shares(report, "round-0", JUDGED)) <= set(world_claims.KINDS_OF_LINES)
    copied = shares(report, "round-0", WORDING)["copied"]
    assert copied is not None
    assert copied > 0.9  # all that the fake engine can do


def test_a_change_is_the_last_round_less_the_first_passage_by_passage(tmp_path: Path) -> None:
    report = run_experiment(RECIPE, tmp_path, "cpu")
    assert {(change.a, change.b) for change in report.course.changes} == {("round-0", "round-3")}
    for change in report.course.changes:
        before, after = (shares(report, arm, change.way)[change.kind] for arm in (change.a, change.b))
        assert before is not None
        assert after is not None
        assert change.by_passage.difference == pytest.approx(after - before)
        assert change.by_seed.mean == pytest.approx(after - before)


def test_a_domain_that_knows_nothing_of_lines_is_told_of_by_their_wording_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_experiment(RECIPE, tmp_path, "cpu")
    monkeypatch.setattr("selfedit.experiment.course.judge_of_lines", lambda domain: None)
    plans = [make_plan(replace(RECIPE, seed=seed, seeds=1), tmp_path) for seed in (0, 1)]
    assert {entry.way for entry in report_on(plans).course.lines} == {WORDING, SUBJECT}


def test_without_reinforcement_there_is_no_course(tmp_path: Path) -> None:
    recipe = replace(RECIPE, outer=replace(RECIPE.outer, rounds=0), arms=("passage", "rounds"))
    assert run_experiment(recipe, tmp_path, "cpu").course.curve == ()


# ── settings that the writer chose ──


def chose(rate: float, epochs: int, passage: str = "a", edit: int = 0, reward: float | None = 0.5) -> Trial:
    measures = {"learning_rate": rate, "epochs": float(epochs), "steps": 4.0 * epochs} if rate else {}
    sample = Sample("", (), (), (), "text", "eos")
    return Trial(f"s/{passage}/{edit}/0", passage, edit, 0, 0, sample, "x", (), (), reward, None, measures=measures)


def test_settings_are_named_by_rate_and_epochs_and_what_could_not_be_used_comes_last() -> None:
    trials = [chose(0.01, 8), chose(0, 0, edit=1), chose(0.001, 16, edit=2), chose(0.001, 2, edit=3)]
    assert names_of_settings(trials) == ["0.001 x 2", "0.001 x 16", "0.01 x 8", UNUSABLE]
    assert names_of_settings([chose(0, 0)]) == names_of_settings([]) == []
    many = [chose(0.01, epochs + 1, edit=epochs) for epochs in range(MOST_SETTINGS + 1)] * 2
    assert names_of_settings([*many, chose(0.02, 1, edit=99)])[-1] == OTHER
    assert len(names_of_settings(many)) == MOST_SETTINGS + 1


def test_the_choices_of_a_passage_are_shared_out_among_its_self_edits_each_counted_once() -> None:
    trials = [chose(0.01, 8), chose(0.01, 8), chose(0.001, 2, edit=1), chose(0.001, 2, "b")]
    found = count_settings(trials, names_of_settings(trials))
    assert found["a"].share(SETTINGS, "0.01 x 8") == found["a"].share(SETTINGS, "0.001 x 2") == 0.5
    assert (found["b"].n_edits, found["b"].share(SETTINGS, "0.001 x 2")) == (1, 1.0)


def test_a_choice_is_no_line_of_a_self_edit() -> None:
    text = "One.\nSettings: learning rate 0.01, epochs 8"
    trials = [replace(trial, sample=Sample("", (), (), (), text, "eos")) for trial in (chose(0.01, 8), chose(0, 0))]
    assert [edits_of([trial])["a"][0].split("\n")[-1] for trial in trials] == ["", text.split("\n")[1]]


class Choosing(FakeEngine):
    """Chooses few epochs before it was ever reinforced and many after, and forgets the line at every third draw."""

    def _write(self, job: SampleJob, draw: int) -> Sample:
        epochs = 8 if job.adapter else 2
        line = f"\nSettings: learning rate 0.005, epochs {epochs}" if draw % 3 < 2 else ""
        sample = super()._write(job, draw)
        return replace(sample, text=sample.text + line)


def test_a_report_tells_what_was_chosen_before_and_after_and_what_it_was_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    menu = MenuSettings((5e-3,), (2, 8))
    recipe = replace(RECIPE, menu=menu, seeds=2, sample=SampleSettings(edits=3), outer=replace(RECIPE.outer, rounds=2))
    tasks = [task for seed in (0, 1) for p in [make_plan(replace(recipe, seed=seed), Path())] for task in p.train]
    monkeypatch.setattr(experiment, "open_backend", lambda name, model, device: Choosing(tasks))
    course = run_experiment(recipe, tmp_path, "cpu").course
    shares = {(each.arm, each.kind): each.share for each in course.lines if each.way == SETTINGS}
    assert (shares["round-0", "0.005 x 2"], shares["round-0", "0.005 x 8"]) == (1.0, 0.0)
    assert (shares["round-2", "0.005 x 2"], shares["round-2", "0.005 x 8"]) == (0.0, 1.0)
    moved = {each.kind: each.by_seed.mean for each in course.changes if each.way == SETTINGS}
    assert moved == {"0.005 x 2": -1.0, "0.005 x 8": 1.0, UNUSABLE: 0.0}
    worth = {(each.stage, each.setting): each for each in course.settings}
    assert [each.n_edits for (stage, _), each in worth.items() if stage == "train-1"] == [8, 0, 4]
    assert worth["train-1", UNUSABLE].reward.mean == 0.0
    assert worth["train-1", "0.005 x 2"].steps is not None
    trials = [t for seed in (0, 1) for key, t in read_trials(tmp_path / f"seed-{seed}").items() if "train-1/" in key]
    steps = [t.measures["steps"] for t in trials if t.measures]
    assert worth["train-1", "0.005 x 2"].steps == pytest.approx(sum(filter(None, steps)) / len(steps))


# ── patience ──

REWARDS = """
def told(task, trials):
    seed, index = int(task.id.split("-")[1]), int(trials[0].key.split("/")[0].rpartition("-")[2])
    return ((0.3, 0.5, 0.4), (0.1, 0.2, 0.3))[seed][index - 1]
"""  # of a seed's rounds: the first has stalled in the third


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Reward the rounds by a function of the user's own, and end once one brings nothing."""
    (tmp_path / "rewards.py").write_text(REWARDS)
    outer = replace(RECIPE.outer, reward=f"{tmp_path / 'rewards.py'}:told", patience=1)
    return replace(RECIPE, outer=outer)


def test_the_last_writer_of_a_seed_that_ended_stands_for_its_later_rounds(recipe: Recipe, tmp_path: Path) -> None:
    report = run_experiment(recipe, tmp_path / "run", "cpu")
    ended, whole = (read_trials(tmp_path / "run" / f"seed-{seed}") for seed in (0, 1))
    assert not any(key.startswith("round-3/") for key in ended)
    assert any(key.startswith("round-3/") for key in whole)
    assert [arm.n_passages for arm in report.arms if arm.name == "round-3"] == [8]
    second, third = (point.by_seed.values for point in report.course.curve[2:])
    assert second[0] == third[0]
    (note,) = [note for note in report.notes if "ended" in note]
    assert note == (
        "rounds, seed 0: ended after 2 of 3 rounds, as the mean reward on fresh passages in the last round was not "
        "above the best before (0.300, 0.500, 0.400). The best was that of round-1; in the tables round-2 stands for "
        "the later ones."
    )
    assert [(tmp_path / "run" / f"seed-{s}" / "writers" / "round-3").exists() for s in (0, 1)] == [False, True]


def test_rounds_that_no_seed_reached_are_not_in_the_report(recipe: Recipe, tmp_path: Path) -> None:
    report = run_experiment(replace(recipe, seeds=1), tmp_path / "run", "cpu")
    assert [arm.name for arm in report.arms] == ["passage", *ROUNDS[:3], "random-edits"]
    assert [point.arm for point in report.course.curve] == ROUNDS[:3]


def test_a_run_that_ended_by_patience_goes_on_where_it_was_with_more_of_it(recipe: Recipe, tmp_path: Path) -> None:
    endless = replace(recipe, outer=replace(recipe.outer, patience=0))
    run_experiment(recipe, tmp_path / "short", "cpu")
    longer = run_experiment(endless, tmp_path / "short", "cpu")
    whole = run_experiment(endless, tmp_path / "whole", "cpu")
    assert replace(longer, seconds=0) == replace(whole, seconds=0)
    again = run_experiment(recipe, tmp_path / "short", "cpu")
    assert any("ended after 2 of 3" in note for note in again.notes)
