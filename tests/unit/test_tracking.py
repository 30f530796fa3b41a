"""A run seen from elsewhere: what TensorBoard really holds afterwards, and what the others are told."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfedit import tracking
from selfedit.errors import ConfigError, MissingExtra, RunError
from selfedit.experiment import run as experiment
from selfedit.experiment.plans import make_plan
from selfedit.experiment.run import run_experiment
from selfedit.recipe import Recipe
from selfedit.runs import Metric, Run, open_run, read_metrics
from selfedit.tracking import TRACKERS, check_trackers, how_stages_do, reporting, watch
from selfedit.types import Failure, OuterSettings, SampleSettings, Trial
from tests.unit.conftest import FakeEngine

RECIPE = Recipe(name="demo", report_to=("tensorboard",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "seed-0"


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read what TensorBoard shows: the curves of a run folder as (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def trial(key: str, reward: float | None = 0.5, failure: Failure | None = None, **cost: float) -> Trial:
    _, task, edit, repeat = key.split("/")
    return Trial(key, task, int(edit), int(repeat), 0, None, None, (), (), reward, failure, cost)


# ── TensorBoard, really ──


def test_tensorboard_gets_every_metric_under_its_name_and_step(folder: Path) -> None:
    with open_run(folder, RECIPE, "base@0") as run, reporting(run, RECIPE):
        run.metric("train/reward/mean", 0.25, step=1)
        run.metric("train/reward/mean", 0.5, step=2)
        run.metric("train/edits/kept", 3, step=1)
    assert scalars(folder) == {"train/reward/mean": [(1, 0.25), (2, 0.5)], "train/edits/kept": [(1, 3.0)]}
    assert read_metrics(folder) == [
        Metric("train/reward/mean", 0.25, 1),
        Metric("train/reward/mean", 0.5, 2),
        Metric("train/edits/kept", 3, 1),
    ]


def test_a_run_that_is_taken_up_again_goes_on_in_the_same_curves(folder: Path) -> None:
    for steps in ([1, 2], [1, 2, 3]):
        with open_run(folder, RECIPE, "base@0") as run, reporting(run, RECIPE):
            for step in steps:
                run.metric("reward/mean", step / 4, step)
    assert scalars(folder) == {"reward/mean": [(1, 0.25), (2, 0.5), (3, 0.75)]}


def test_a_tracker_that_comes_late_gets_what_it_missed(folder: Path) -> None:
    with open_run(folder, RECIPE, "base@0") as run, reporting(run, replace(RECIPE, report_to=())):
        run.metric("reward/mean", 0.25, 1)
    assert not (folder / "tensorboard").exists()
    with open_run(folder, RECIPE, "base@0") as run, reporting(run, RECIPE):
        run.metric("reward/mean", 0.5, 2)
    assert scalars(folder) == {"reward/mean": [(1, 0.25), (2, 0.5)]}


def test_tensorboard_keeps_the_settings_once(folder: Path) -> None:
    for _ in range(2):
        with open_run(folder, RECIPE, "base@0") as run, reporting(run, RECIPE):
            pass
    (settings,) = (folder / "tensorboard").rglob("hparams.yml")
    lines = settings.read_text().splitlines()
    assert "inner.rank: 32" in lines
    assert "arms: base, passage, rounds" in lines


def test_without_trackers_nothing_is_added_to_the_folder(folder: Path) -> None:
    with open_run(folder, Recipe(), "base@0") as run, reporting(run, Recipe()):
        run.metric("reward/mean", 0.5, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "metrics.jsonl", "recipe.json"]


# ── the others, by what they are told ──


@dataclass
class FakeTracker:
    """One of Accelerate's trackers, without the service behind it."""

    project: str
    options: dict[str, Any]
    settings: list[dict[str, Any]] = field(default_factory=list)
    logged: list[tuple[dict[str, float], int | None]] = field(default_factory=list)
    defined: list[tuple[str, str]] = field(default_factory=list)
    finished: int = 0
    error: Exception | None = None
    start_error: Exception | None = None

    def start(self) -> None:
        if self.start_error:
            raise self.start_error

    @property
    def tracker(self) -> Any:
        def define_metric(name: str, step_metric: str) -> None:
            self.defined.append((name, step_metric))

        found = "found-1"
        return SimpleNamespace(id=found, name=found, info=SimpleNamespace(run_id=found), define_metric=define_metric)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings.append(values)

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        if self.error:
            raise self.error
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeTracker]]:
    """Have all trackers installed, none of them real; give those that were made."""
    import accelerate.tracking

    made: list[FakeTracker] = []

    def make(project: str, *place: str, **options: Any) -> FakeTracker:
        made.append(FakeTracker(project, options))
        return made[-1]

    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    monkeypatch.setattr(accelerate.tracking, "LOGGER_TYPE_TO_CLASS", dict.fromkeys(TRACKERS, make))
    yield made


def report(folder: Path, name: str, *metrics: tuple[str, float, int]) -> None:
    recipe = replace(RECIPE, report_to=(name,))
    with open_run(folder, recipe, "base@0") as run, reporting(run, recipe):
        for metric in metrics:
            run.metric(*metric)


def test_wandb_is_given_steps_as_values_since_it_refuses_those_that_go_back(
    folder: Path, started: list[FakeTracker]
) -> None:
    report(folder, "wandb", ("a", 0.5, 24), ("b", 0.25, 1))
    (wandb,) = started
    assert wandb.logged == [({"a": 0.5, "step": 24}, None), ({"b": 0.25, "step": 1}, None)]
    assert wandb.defined == [("*", "step")]


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_the_others_are_given_steps_as_steps(folder: Path, started: list[FakeTracker], name: str) -> None:
    report(folder, name, ("a", 0.5, 24), ("b", 0.25, 1))
    assert started[0].logged == [({"a": 0.5}, 24), ({"b": 0.25}, 1)]


@pytest.mark.parametrize(
    ("name", "first", "again"),
    [
        (
            "wandb",
            {"name": "demo-seed-0", "id": None, "resume": "allow"},
            {"name": "demo-seed-0", "id": "found-1", "resume": "allow"},
        ),
        (
            "mlflow",
            {"run_name": "demo-seed-0", "run_id": None},
            {"run_name": "demo-seed-0", "run_id": "found-1"},
        ),
        (
            "trackio",
            {"name": "demo-seed-0-……", "resume": "never"},
            {"name": "found-1", "resume": "allow"},
        ),
    ],
)
def test_a_run_is_found_again_where_it_went_before(
    folder: Path, started: list[FakeTracker], name: str, first: dict[str, Any], again: dict[str, Any]
) -> None:
    report(folder, name, ("a", 0.5, 1))
    report(folder, name, ("a", 0.5, 1), ("a", 1.0, 2))
    assert [tracker.project for tracker in started] == ["selfedit", "selfedit"]
    given = [{key: value for key, value in tracker.options.items() if key != "dir"} for tracker in started]
    if name == "trackio":  # which tells runs apart by their names alone
        given[0]["name"] = re.sub(r"[0-9a-f]{6}$", "……", given[0]["name"])
    assert given == [first, again]
    assert [len(tracker.settings) for tracker in started] == [1, 0]
    assert [len(tracker.logged) for tracker in started] == [1, 1]
    assert [tracker.finished for tracker in started] == [1, 1]


def test_settings_are_plain_values_under_dotted_names(folder: Path, started: list[FakeTracker]) -> None:
    report(folder, "mlflow")
    (settings,) = started[0].settings
    assert settings["outer.train.rank"] == 64
    assert settings["report_to"] == "mlflow"
    assert all(isinstance(value, bool | int | float | str | None) for value in settings.values())


def test_several_trackers_get_the_same_and_one_that_is_named_twice_gets_it_once(
    folder: Path, started: list[FakeTracker]
) -> None:
    recipe = replace(RECIPE, report_to=("mlflow", "trackio", "mlflow"))
    with open_run(folder, recipe, "base@0") as run, reporting(run, recipe):
        run.metric("a", 0.5, 1)
    assert [tracker.logged for tracker in started] == [[({"a": 0.5}, 1)]] * 2


def test_a_tracker_that_fails_on_the_way_takes_nothing_with_it_and_gets_the_rest_later(
    folder: Path, started: list[FakeTracker], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = replace(RECIPE, report_to=("mlflow", "trackio"))
    with open_run(folder, recipe, "base@0") as run, reporting(run, recipe):
        run.metric("a", 0.25, 1)
        started[0].error = ConnectionError("no network")
        with caplog.at_level(logging.WARNING, "selfedit"):
            run.metric("a", 0.5, 2)
            run.metric("a", 0.75, 3)
    assert [record.message for record in caplog.records if "'mlflow' failed (no network)" in record.message]
    assert len(caplog.records) == 1
    assert [len(tracker.logged) for tracker in started] == [1, 3]
    report(folder, "mlflow")
    assert started[-1].logged == [({"a": 0.5}, 2), ({"a": 0.75}, 3)]
    assert [metric.value for metric in read_metrics(folder)] == [0.25, 0.5, 0.75]


def test_a_kill_while_a_metric_is_sent_does_not_send_it_twice(folder: Path, started: list[FakeTracker]) -> None:
    recipe = replace(RECIPE, report_to=("mlflow",))
    with pytest.raises(KeyboardInterrupt), open_run(folder, recipe, "base@0") as run, reporting(run, recipe):
        started[0].log = _killed  # type: ignore[method-assign]
        run.metric("a", 0.25, 1)
    report(folder, "mlflow", ("a", 0.5, 2))
    assert started[-1].logged == [({"a": 0.5}, 2)]


def _killed(values: dict[str, float], step: int | None = None) -> None:
    raise KeyboardInterrupt


def test_a_tracker_that_cannot_be_started_stops_the_run_before_it_begins(
    folder: Path, started: list[FakeTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTracker, "start", _no_login)
    with pytest.raises(RunError, match=r"the tracker 'wandb' cannot be started: no API key configured; .*report_to"):
        report(folder, "wandb", ("a", 0.5, 1))
    assert read_metrics(folder) == []


def _no_login(tracker: FakeTracker) -> None:
    raise ValueError("no API key\nconfigured")


def test_a_damaged_note_is_named(folder: Path, started: list[FakeTracker]) -> None:
    report(folder, "mlflow")
    (folder / "tracker-mlflow.json").write_text('{"run": ')
    with pytest.raises(RunError, match=r"tracker-mlflow\.json is damaged; remove it"):
        report(folder, "mlflow")


# ── names ──


def test_an_unknown_tracker_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown tracker 'tensorbord' in report_to; did you mean 'tensorboard'\?"):
        check_trackers(["tensorbord"])


@pytest.mark.parametrize(
    ("name", "line"), [("tensorboard", r"pip install 'selfedit\[track\]'"), ("trackio", "pip install trackio")]
)
def test_a_tracker_that_is_not_installed_comes_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch, name: str, line: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=line):
        check_trackers([name])


def test_without_accelerate_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtra, match=r"pip install 'selfedit\[track\]'"):
        report(folder, "tensorboard")


def test_trackers_are_no_part_of_what_a_run_is(folder: Path) -> None:
    with open_run(folder, replace(RECIPE, report_to=()), "base@0"):
        pass
    with open_run(folder, RECIPE, "base@0"):
        pass
    assert json.loads((folder / "recipe.json").read_text())["recipe"]["report_to"] == ["tensorboard"]


# ── what is watched ──


def test_every_stage_tells_its_mean_reward_its_failures_and_its_pace() -> None:
    bad = Failure("parse", "BadEdit", "no lines")
    ours = Failure("train", "OutOfMemoryError", "no memory")
    found = how_stages_do(
        [
            trial("train-1/t/0/0", 1.0, train_s=2.0, examine_s=1.0),
            trial("train-1/t/1/0", 0.0, bad, train_s=2.0, examine_s=1.0),
            trial("round-0/u/0/0", None, ours, train_s=1.0, examine_s=0.0),
            trial("train-1/t/2/0", None, ours, train_s=5.0, examine_s=1.0),
        ]
    )
    assert found == [
        Metric("stage/train-1/reward/mean", 0.5, 3),
        Metric("stage/train-1/edits/unusable", 1, 3),
        Metric("stage/train-1/failure/trials", 1, 3),
        Metric("stage/train-1/time/examine_s", 1.0, 3),
        Metric("stage/train-1/time/train_s", 3.0, 3),
        Metric("stage/train-1/speed/trials_per_min", 15.0, 3),
        Metric("stage/round-0/edits/unusable", 0, 1),
        Metric("stage/round-0/failure/trials", 1, 1),
        Metric("stage/round-0/time/examine_s", 0.0, 1),
        Metric("stage/round-0/time/train_s", 1.0, 1),
        Metric("stage/round-0/speed/trials_per_min", 60.0, 1),
    ]


def test_a_stage_without_costs_tells_no_pace() -> None:
    assert [metric.name for metric in how_stages_do([trial("base/t/0/0")])] == [
        "stage/base/reward/mean",
        "stage/base/edits/unusable",
        "stage/base/failure/trials",
    ]
    assert how_stages_do([]) == []


def test_what_is_watched_twice_is_written_once(folder: Path) -> None:
    with open_run(folder, RECIPE, "base@0") as run:
        run.append(trial("base/t/0/0", 1.0, train_s=0.1))
        watch(run)
        once = read_metrics(folder)
        watch(run)
    with open_run(folder, RECIPE, "base@0") as run:
        watch(run)
    assert read_metrics(folder) == once
    assert len(once) == 5


# ── a whole experiment ──

SMALL = Recipe(
    name="small",
    model="fake",
    format="implications",
    sample=SampleSettings(edits=3),
    outer=OuterSettings(rounds=2, tasks=4, select="best-of-n"),
    eval_tasks=5,
    report_to=("tensorboard",),
)


@pytest.fixture
def fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_fake(name: str, model: str, device: str) -> FakeEngine:
        plan = make_plan(SMALL, Path())
        return FakeEngine([*plan.train, *plan.unseen])

    monkeypatch.setattr(experiment, "open_backend", open_fake)
    monkeypatch.setattr("os.fsync", lambda file: None)


class Killed(BaseException):
    """What a kill is to the process."""


def without_clock(folder: Path) -> dict[str, list[tuple[int, float]]]:
    return {name: curve for name, curve in scalars(folder).items() if "time/" not in name and "speed/" not in name}


@pytest.mark.usefixtures("fake_engines")
@pytest.mark.parametrize("after", [0, 7, 30])
def test_a_killed_experiment_leaves_the_curves_of_an_unbroken_one(tmp_path: Path, after: int) -> None:
    def kill(done: int, total: int) -> None:
        if done > after:
            raise Killed

    run_experiment(SMALL, tmp_path / "whole", "cpu")
    whole = without_clock(tmp_path / "whole" / "seed-0")
    with pytest.raises(Killed):
        run_experiment(SMALL, tmp_path / "killed", "cpu", kill)
    run_experiment(SMALL, tmp_path / "killed", "cpu")
    run_experiment(SMALL, tmp_path / "killed", "cpu")
    assert without_clock(tmp_path / "killed" / "seed-0") == whole
    assert [step for step, _ in whole["train/reward/mean"]] == [1, 2]
    for stage, n in {"base": 5, "passage": 5, "train-1": 12, "train-2": 12, "round-2": 5}.items():
        steps = [step for step, _ in whole[f"stage/{stage}/reward/mean"]]
        assert steps == sorted(set(steps))
        assert steps[-1] == n


@pytest.mark.usefixtures("fake_engines")
def test_the_curves_hold_what_the_ledger_says(tmp_path: Path) -> None:
    run_experiment(SMALL, tmp_path, "cpu")
    curves = scalars(tmp_path / "seed-0")
    for metric in read_metrics(tmp_path / "seed-0"):
        shown = [value for step, value in curves[metric.name] if step == metric.step]
        assert shown == [pytest.approx(metric.value, rel=1e-6)]
    assert curves["time/run_s"][0][1] > 0


@pytest.mark.usefixtures("fake_engines")
def test_a_misspelt_tracker_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        run_experiment(replace(SMALL, report_to=("wanbd",)), tmp_path, "cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_listener_hears_a_metric_after_it_is_written(folder: Path) -> None:
    heard: list[tuple[Metric, int]] = []

    def listen(run: Run) -> Callable[[Metric], None]:
        return lambda metric: heard.append((metric, len(read_metrics(run.folder))))

    with open_run(folder, RECIPE, "base@0") as run:
        run.listen(listen(run))
        run.metric("a", 0.5, 1)
        run.metric("a", 0.5, 1)
        run.metric("a", 0.75, 1)
    assert heard == [(Metric("a", 0.5, 1), 1), (Metric("a", 0.75, 1), 2)]
