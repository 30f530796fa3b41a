from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from selfedit.errors import ConfigError, InputError, RunError
from selfedit.experiment import run as experiment
from selfedit.experiment.material import read_material
from selfedit.experiment.plans import make_plan
from selfedit.experiment.results import report_on
from selfedit.experiment.run import run_experiment
from selfedit.loop.arms import CONTROLS
from selfedit.recipe import Recipe
from selfedit.report.record import Report
from selfedit.report.stats import Arm
from selfedit.runs import read_seconds, read_trials
from selfedit.types import OuterSettings, SampleSettings, Task, Trial
from tests.unit.conftest import FakeEngine, Fault, make_tasks, plain

RECIPE = Recipe(
    model="fake",
    domain="world",
    format="implications",
    seeds=2,
    sample=SampleSettings(edits=2),
    outer=OuterSettings(rounds=2, tasks=2, select="best-of-n"),
    eval_tasks=3,
    arms=("base", "passage", "rounds", *CONTROLS),
)
CHAIN = ["base", "passage", "round-0", "round-1", "round-2"]
N_TRIALS = 2 * (3 + 3 * 4 + 2 * 3 + 4 * (1 + 3))


@pytest.fixture(autouse=True)
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    """Let every model be a fake one, on one core; give those that were opened."""
    opened: list[FakeEngine] = []

    def open_fake(name: str, model: str, device: str) -> FakeEngine:
        plans = [make_plan(replace(RECIPE, seed=seed, eval_tasks=9), Path()) for seed in range(3)]
        engine = FakeEngine([task for plan in plans for task in [*plan.train, *plan.unseen]])
        opened.append(engine)
        return engine

    monkeypatch.setattr(experiment, "open_backend", open_fake)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("os.fsync", lambda file: None)  # what a power cut does is runs.py's to test
    return opened


def ledger(out: Path) -> dict[str, Trial]:
    folders = sorted(out.iterdir())
    return {f"{folder.name}/{key}": plain(t) for folder in folders for key, t in read_trials(folder).items()}


def arm(report: Report, name: str) -> Arm:
    return next(arm for arm in report.arms if arm.name == name)


def pairs(report: Report) -> list[tuple[str, str]]:
    return [(pair.a, pair.b) for pair in report.paired]


# ── the report ──


def test_the_passages_of_all_seeds_are_pooled(tmp_path: Path) -> None:
    report = run_experiment(RECIPE, tmp_path, "cpu")
    trials = ledger(tmp_path)
    assert [each.name for each in report.arms] == [*CHAIN, *CONTROLS]
    for each in report.arms:
        rewards = [t.reward for key, t in trials.items() if key.split("/")[1] == each.name and t.reward is not None]
        assert each.n_passages == len(rewards) == 6
        assert each.accuracy == pytest.approx(fmean(rewards))
    assert arm(report, "base").accuracy == 0
    assert (arm(report, "round-0").accuracy or 0) > 0


def test_a_difference_is_taken_passage_by_passage(tmp_path: Path) -> None:
    report = run_experiment(RECIPE, tmp_path, "cpu")
    trials = ledger(tmp_path)
    for pair in report.paired:
        a, b = (
            {t.task_id: t.reward or 0.0 for key, t in trials.items() if key.split("/")[1] == name}
            for name in (pair.a, pair.b)
        )
        assert pair.n == 6
        assert pair.difference == pytest.approx(fmean(b[task] - a[task] for task in a))


def test_every_arm_is_compared_with_the_one_before_and_the_last_round_with_what_it_should_beat(tmp_path: Path) -> None:
    assert pairs(run_experiment(RECIPE, tmp_path, "cpu")) == [
        ("base", "passage"),
        ("passage", "round-0"),
        ("round-0", "round-1"),
        ("round-1", "round-2"),
        ("round-0", "round-2"),
        ("passage", "round-2"),
        ("round-0", "shuffled-reward"),
        ("shuffled-reward", "round-2"),
        ("round-0", "random-edits"),
        ("random-edits", "round-2"),
    ]


@pytest.mark.parametrize(
    ("arms", "rounds", "expected"),
    [
        (("base", "rounds"), 1, [("base", "round-0"), ("round-0", "round-1")]),
        (("passage", "rounds"), 1, [("passage", "round-0"), ("round-0", "round-1"), ("passage", "round-1")]),
        (("base", "passage", "rounds"), 0, [("base", "passage"), ("passage", "round-0")]),
        (("base", "passage"), 2, [("base", "passage")]),
        (("random-edits",), 2, []),
        (("base", "random-edits"), 2, []),
        ((), 2, []),
    ],
)
def test_no_pair_is_compared_twice_whatever_the_arms(
    tmp_path: Path, arms: tuple[str, ...], rounds: int, expected: list[tuple[str, str]]
) -> None:
    recipe = replace(RECIPE, seeds=1, arms=arms, outer=replace(RECIPE.outer, rounds=rounds))
    assert pairs(run_experiment(recipe, tmp_path, "cpu")) == expected


def test_questions_of_each_kind_are_reported_for_every_arm(tmp_path: Path) -> None:
    report = run_experiment(RECIPE, tmp_path, "cpu")
    assert [(each.kind, each.arm.name) for each in report.kinds] == [
        (kind, name) for kind in ("single", "two-step") for name in [*CHAIN, *CONTROLS]
    ]
    for name in CHAIN:
        asked = [each.arm.n_questions for each in report.kinds if each.arm.name == name]
        assert sum(asked) == arm(report, name).n_questions


def test_the_seconds_of_all_seeds_and_all_sittings_are_added(tmp_path: Path) -> None:
    first = run_experiment(RECIPE, tmp_path, "cpu").seconds
    assert first == pytest.approx(sum(read_seconds(tmp_path / f"seed-{seed}") for seed in (0, 1)))
    assert 0 < first < run_experiment(RECIPE, tmp_path, "cpu").seconds


def test_what_could_not_be_measured_is_counted_and_not_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = make_plan(replace(RECIPE, seed=0), tmp_path).unseen
    engine = FakeEngine(unseen, faults=[Fault("answer", unseen[0].title)])
    monkeypatch.setattr(experiment, "open_backend", lambda name, model, device: engine)
    passage = arm(run_experiment(replace(RECIPE, seeds=1), tmp_path, "cpu"), "passage")
    assert (passage.n_passages, passage.n_failed) == (2, len(unseen[0].questions))


# ── the example ──


def test_the_example_is_the_first_unseen_passage_as_the_first_and_the_last_writer_studied_it(tmp_path: Path) -> None:
    report = run_experiment(RECIPE, tmp_path, "cpu")
    first = make_plan(replace(RECIPE, seed=0), tmp_path).unseen[0]
    before, after = (read_trials(tmp_path / "seed-0")[f"round-{r}/{first.id}/0/0"] for r in (0, 2))
    (example,) = report.examples
    assert before.sample is not None
    assert after.sample is not None
    assert (example.title, example.passage) == (first.title, first.context)
    assert (example.before, example.after) == (before.sample.text, after.sample.text)
    n = len(first.questions)
    right = [f"{sum(score.value == 1 for score in trial.after_Q)} of {n}" for trial in (before, after)]
    marks = f"{right[0]} of the questions right after round-0, {right[1]} after round-2"
    assert example.heading == f"The first unseen passage: {marks}"


def test_of_several_self_edits_the_example_shows_the_first(tmp_path: Path) -> None:
    recipe = replace(RECIPE, seeds=1, eval_repeats=2)
    (example,) = run_experiment(recipe, tmp_path, "cpu").examples
    first = make_plan(recipe, tmp_path).unseen[0]
    sample = read_trials(tmp_path / "seed-0")[f"round-0/{first.id}/0/0"].sample
    assert sample is not None
    assert example.before == sample.text


def test_an_example_that_is_not_the_first_passage_does_not_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = make_plan(replace(RECIPE, seed=0), tmp_path).unseen
    engine = FakeEngine(unseen, faults=[Fault("sample", f"Passage:\n{unseen[0].title}\n")])
    monkeypatch.setattr(experiment, "open_backend", lambda name, model, device: engine)
    (example,) = run_experiment(replace(RECIPE, seeds=1), tmp_path, "cpu").examples
    assert example.title == unseen[1].title
    assert example.heading.startswith("Unseen passage 2: ")


@pytest.mark.parametrize("arms", [("base", "passage"), ("random-edits",)])
def test_without_two_writers_there_is_no_example(tmp_path: Path, arms: tuple[str, ...]) -> None:
    assert run_experiment(replace(RECIPE, seeds=1, arms=arms), tmp_path, "cpu").examples == ()


def test_the_notes_tell_the_gain_of_every_seed(tmp_path: Path) -> None:
    report = run_experiment(RECIPE, tmp_path, "cpu")
    gain = next(pair for pair in report.paired if (pair.a, pair.b) == ("round-0", "round-2")).difference
    assert report.notes[1].startswith("2 seeds from 0 on, pooled")
    by_seed = [float(points) for points in re.findall(r"[+-]\d+\.\d", report.notes[1])]
    assert len(by_seed) == 2
    assert gain is not None
    assert sum(by_seed) / 2 == pytest.approx(100 * gain, abs=0.1)
    one = report_on([make_plan(RECIPE, tmp_path)]).notes
    assert "seeds" not in " ".join(one)


def test_the_notes_name_a_round_whose_rewards_told_no_edit_from_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "rewarded alike" not in " ".join(run_experiment(RECIPE, tmp_path / "told", "cpu").notes)
    monkeypatch.setattr(experiment, "open_backend", lambda name, model, device: FakeEngine())  # which answers nothing
    recipe = replace(RECIPE, arms=("rounds",), outer=replace(RECIPE.outer, algorithm="grpo"))
    notes = run_experiment(recipe, tmp_path / "alike", "cpu").notes
    assert [note.partition(":")[0] for note in notes if "rewarded alike" in note] == [
        f"train, seed {seed}, round {index}" for seed in (0, 1) for index in (1, 2)
    ]


# ── running ──


def test_seeds_draw_different_tasks_and_train_on_none_that_they_examine(tmp_path: Path) -> None:
    plans = [make_plan(replace(RECIPE, seed=seed), tmp_path) for seed in (0, 1)]
    drawn = [task.title for plan in plans for task in [*plan.train, *plan.unseen]]
    assert [len(plan.train) for plan in plans] == [4, 4]
    assert len(set(drawn)) == len(drawn) == 14


def test_progress_reaches_the_number_of_trials(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    run_experiment(RECIPE, tmp_path, "cpu", lambda done, total: heard.append((done, total)))
    assert heard == [(done, N_TRIALS) for done in range(N_TRIALS + 1)]
    heard.clear()
    run_experiment(RECIPE, tmp_path, "cpu", lambda done, total: heard.append((done, total)))
    assert heard == [(N_TRIALS, N_TRIALS)]


class Killed(BaseException):
    """What a kill is to the process."""


@pytest.mark.parametrize("after", [0, 1, 9, 23, 38, 50])
def test_a_run_killed_and_started_again_gives_the_same_trials_each_once(tmp_path: Path, after: int) -> None:
    def kill(done: int, total: int) -> None:
        if done > after:
            raise Killed

    whole = run_experiment(RECIPE, tmp_path / "whole", "cpu")
    with pytest.raises(Killed):
        run_experiment(RECIPE, tmp_path / "killed", "cpu", kill)
    assert len(ledger(tmp_path / "killed")) == after + 1
    report = run_experiment(RECIPE, tmp_path / "killed", "cpu")
    assert ledger(tmp_path / "killed") == ledger(tmp_path / "whole")
    lines = [(tmp_path / "killed" / f"seed-{s}" / "trials.jsonl").read_bytes().count(b"\n") for s in (0, 1)]
    assert sum(lines) == N_TRIALS
    assert replace(report, seconds=0) == replace(whole, seconds=0)


def test_a_finished_run_is_reported_without_running_anything(tmp_path: Path, engines: list[FakeEngine]) -> None:
    first = run_experiment(RECIPE, tmp_path, "cpu")
    engines.clear()
    again = run_experiment(RECIPE, tmp_path, "cpu")
    assert replace(again, seconds=0) == replace(first, seconds=0)
    assert all(not engine.sampled and not engine.answered for engine in engines)


def test_a_finished_run_can_be_extended_and_gives_what_the_longer_one_gives(tmp_path: Path) -> None:
    short = replace(RECIPE, arms=("base", "rounds"), eval_tasks=2, outer=replace(RECIPE.outer, rounds=1))
    longer = replace(RECIPE, eval_repeats=2)
    run_experiment(short, tmp_path / "extended", "cpu")
    extended = run_experiment(longer, tmp_path / "extended", "cpu")
    whole = run_experiment(longer, tmp_path / "whole", "cpu")
    assert ledger(tmp_path / "extended") == ledger(tmp_path / "whole")
    assert replace(extended, seconds=0) == replace(whole, seconds=0)


def test_a_report_leaves_out_what_its_recipe_does_not_ask_for(tmp_path: Path) -> None:
    more = replace(RECIPE, eval_tasks=5, eval_repeats=2, outer=replace(RECIPE.outer, rounds=3))
    run_experiment(more, tmp_path / "more", "cpu")
    report = run_experiment(RECIPE, tmp_path / "more", "cpu")
    assert replace(report, seconds=0) == replace(run_experiment(RECIPE, tmp_path / "own", "cpu"), seconds=0)


def test_seeds_side_by_side_give_what_they_give_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one = run_experiment(RECIPE, tmp_path / "one", "cpu")

    def threads(workers: int, context: Any, initializer: Any, initargs: tuple[int]) -> ThreadPoolExecutor:
        shares.append(initargs[0])
        return ThreadPoolExecutor(workers)

    shares: list[int] = []
    heard: list[tuple[int, int]] = []
    monkeypatch.setattr(experiment, "ProcessPoolExecutor", threads)
    monkeypatch.setattr(experiment, "POLL_S", 0.01)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    together = run_experiment(RECIPE, tmp_path / "two", "cpu", lambda done, total: heard.append((done, total)))
    assert shares == [2]
    assert heard[-1] == (N_TRIALS, N_TRIALS)
    assert replace(together, seconds=0) == replace(one_by_one, seconds=0)
    assert ledger(tmp_path / "two") == ledger(tmp_path / "one")


@pytest.mark.parametrize("device", ["auto", "cuda:0"])
def test_on_a_gpu_seeds_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(experiment, "_run_side_by_side", lambda *given: pytest.fail("several models on one GPU"))
    run_experiment(RECIPE, tmp_path, device)


def test_the_writers_of_the_real_rounds_are_kept_as_folders_and_those_of_the_controls_are_not(
    tmp_path: Path, engines: list[FakeEngine]
) -> None:
    run_experiment(replace(RECIPE, seeds=1), tmp_path, "cpu")
    writers = tmp_path / "seed-0" / "writers"
    assert engines[0].exported == [writers / "round-1", writers / "round-2"]


def test_every_round_leaves_its_reward_and_its_failures(tmp_path: Path) -> None:
    run_experiment(replace(RECIPE, seeds=1), tmp_path, "cpu")
    metrics = (tmp_path / "seed-0" / "metrics.jsonl").read_text()
    for label in ("train", *CONTROLS):
        for name in ("reward/mean", "edits/kept", "failure/trials", "groups/all", "groups/without-signal"):
            assert metrics.count(f'"{label}/{name}"') == 2


@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, exam=replace(RECIPE.exam, grader="exakt")),
        replace(RECIPE, outer=replace(RECIPE.outer, algorithm="rest_me")),
        replace(RECIPE, domain="wrold"),
        replace(RECIPE, format="rewrit"),
    ],
    ids=["grader", "algorithm", "domain", "format"],
)
def test_an_unknown_name_is_refused_before_a_model_is_loaded(
    tmp_path: Path, engines: list[FakeEngine], recipe: Recipe
) -> None:
    with pytest.raises(ConfigError, match="did you mean"):
        run_experiment(recipe, tmp_path, "cpu")
    assert engines == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run_experiment(replace(RECIPE, arms=("base",)), tmp_path, "cpu")
    with pytest.raises(RunError, match="another recipe"):
        run_experiment(replace(RECIPE, format="rewrite"), tmp_path, "cpu")


# ── data and completions of the user's ──

NOTES = make_tasks(9)
COLUMNS = Recipe(
    model="fake",
    format="implications",
    sample=SampleSettings(edits=2),
    outer=OuterSettings(rounds=1, tasks=3, select="best-of-n"),
    eval_tasks=4,
    arms=("base", "passage", "completions", "rounds", "retrieval", "in-context"),
)


def columns(folder: Path, n_completions: int = 2, tasks: list[Task] = NOTES) -> Recipe:
    """Write the tasks, and the sentences of each as completions; give the recipe that names the files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "title": task.title,
            "context": task.context,
            "questions": [{"question": q.question, "answer": q.answer} for q in task.questions],
            "completions": task.context.rstrip(".").split(". ")[:n_completions],
        }
        for task in tasks
    ]
    path = folder / "notes.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return replace(COLUMNS, data=str(path), completions=str(path), domain="documents")


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that every model is, knowing the questions of the notes."""
    engine = FakeEngine(NOTES)
    monkeypatch.setattr(experiment, "open_backend", lambda name, model, device: engine)
    return engine


def test_every_column_stands_in_one_report_on_the_same_passages(tmp_path: Path, reader: FakeEngine) -> None:
    report = run_experiment(columns(tmp_path / "in"), tmp_path / "out", "cpu")
    names = ["base", "passage", "completions", "round-0", "round-1", "retrieval", "in-context"]
    assert [each.name for each in report.arms] == names
    assert {(each.n_passages, each.n_questions, each.n_failed) for each in report.arms} == {(4, 16, 0)}
    assert all(each.ci95 for each in report.arms)
    assert arm(report, "base").accuracy == 0
    assert arm(report, "completions").accuracy == 0.25
    assert arm(report, "retrieval").accuracy == arm(report, "in-context").accuracy == 1
    assert pairs(report) == [
        ("base", "passage"),
        ("passage", "round-0"),
        ("round-0", "round-1"),
        ("passage", "round-1"),
        ("passage", "completions"),
        ("round-0", "completions"),
        ("round-1", "completions"),
        ("round-1", "retrieval"),
        ("round-1", "in-context"),
        ("retrieval", "in-context"),
    ]


def test_what_is_examined_is_not_what_the_writer_learns_from(tmp_path: Path, reader: FakeEngine) -> None:
    run_experiment(columns(tmp_path / "in"), tmp_path / "out", "cpu")
    trials = read_trials(tmp_path / "out" / "seed-0").values()
    train = {trial.task_id for trial in trials if trial.key.startswith("train-")}
    unseen = {trial.task_id for trial in trials if not trial.key.startswith("train-")}
    assert (len(train), len(unseen), train & unseen) == (3, 4, set())


def test_too_few_tasks_for_what_is_asked_are_refused_with_the_numbers(tmp_path: Path, reader: FakeEngine) -> None:
    recipe = replace(columns(tmp_path / "in"), eval_tasks=7)
    with pytest.raises(InputError, match=r"holds 9 tasks .* 7 unseen ones and 3 to learn from"):
        run_experiment(recipe, tmp_path / "out", "cpu")
    only_columns = replace(recipe, eval_tasks=9, arms=("base", "in-context"))
    assert run_experiment(only_columns, tmp_path / "all", "cpu").arms[0].n_passages == 9


@pytest.mark.parametrize("together", [1, 2, 4])
def test_the_columns_killed_and_started_again_give_the_same_trials(
    tmp_path: Path, reader: FakeEngine, together: int
) -> None:
    recipe = replace(columns(tmp_path / "in"), together=together)
    whole = run_experiment(recipe, tmp_path / "whole", "cpu")
    for after in (1, 5, 9, 13, 17):

        def kill(done: int, total: int, after: int = after) -> None:
            if done > after:
                raise Killed

        with pytest.raises(Killed):
            run_experiment(recipe, tmp_path / "killed", "cpu", kill)
    report = run_experiment(recipe, tmp_path / "killed", "cpu")
    assert ledger(tmp_path / "killed") == ledger(tmp_path / "whole")
    assert replace(report, seconds=0) == replace(whole, seconds=0)


def test_together_the_passages_share_one_adapter_and_the_report_says_so(tmp_path: Path, reader: FakeEngine) -> None:
    report = run_experiment(replace(columns(tmp_path / "in"), together=4), tmp_path / "out", "cpu")
    trials = read_trials(tmp_path / "out" / "seed-0")
    for name in ("passage", "completions", "round-0", "round-1"):
        assert len({trial.adapter for key, trial in trials.items() if key.startswith(f"{name}/")}) == 1
    assert arm(report, "completions").accuracy == 0.5, "two sentences of each passage were trained on"
    assert any(note.startswith("4 passages share an adapter") for note in report.notes)


def test_a_finished_run_of_shared_adapters_can_be_extended(tmp_path: Path, reader: FakeEngine) -> None:
    recipe = replace(columns(tmp_path / "in"), together=2, outer=replace(COLUMNS.outer, rounds=0))
    run_experiment(recipe, tmp_path / "extended", "cpu")
    longer = replace(recipe, eval_tasks=8)
    extended = run_experiment(longer, tmp_path / "extended", "cpu")
    whole = run_experiment(longer, tmp_path / "whole", "cpu")
    assert ledger(tmp_path / "extended") == ledger(tmp_path / "whole")
    assert replace(extended, seconds=0) == replace(whole, seconds=0)


def test_a_run_knows_its_files_by_their_content(tmp_path: Path, reader: FakeEngine) -> None:
    first = run_experiment(columns(tmp_path / "in"), tmp_path / "out", "cpu")
    moved = run_experiment(columns(tmp_path / "moved"), tmp_path / "out", "cpu")
    assert replace(moved, seconds=0) == replace(first, seconds=0)
    with pytest.raises(RunError, match=r"data is 'notes.json@\w+' there, 'notes.json@\w+' here"):
        run_experiment(columns(tmp_path / "changed", tasks=make_tasks(9, "X")), tmp_path / "out", "cpu")
    with pytest.raises(RunError, match=r"completions is 'notes.json@\w+' there"):
        run_experiment(columns(tmp_path / "fewer", n_completions=1), tmp_path / "out", "cpu")


def test_what_failed_is_counted_with_its_reason(tmp_path: Path, reader: FakeEngine) -> None:
    recipe = columns(tmp_path / "in")
    first = next(t for t in NOTES if t.title == unseen_titles(recipe, tmp_path)[0])
    reader.faults = [Fault("encode", f" of {first.id} is ", ValueError("too long for the context"))]
    reader.spoilt = [(unseen_titles(recipe, tmp_path)[1], 0)]
    report = run_experiment(recipe, tmp_path / "out", "cpu")
    assert (arm(report, "passage").n_passages, arm(report, "passage").n_failed) == (3, 4)
    assert "passage: 1 of 4 trials were not measured (encode, ValueError: too long for the context)." in report.notes
    unusable = "round-0: 1 of 4 self-edits could not be used and count as 0, the self-edit holds no text."
    assert unusable in report.notes
    assert arm(report, "round-0").n_passages == 3


def unseen_titles(recipe: Recipe, folder: Path) -> list[str]:
    named, material = read_material(recipe)
    return [task.title for task in make_plan(named, folder, material).unseen]


def test_what_was_left_out_of_the_files_is_told(tmp_path: Path, reader: FakeEngine) -> None:
    recipe = columns(tmp_path / "in")
    rows = json.loads(Path(recipe.data).read_text())
    rows[0]["questions"][0]["answer"] = ""
    rows[1]["completions"] = [" "]
    Path(recipe.data).write_text(json.dumps(rows))
    with pytest.raises(InputError, match="gives no answer"):
        run_experiment(recipe, tmp_path / "out", "cpu")
    report = run_experiment(replace(recipe, skip_bad=True, eval_tasks=6), tmp_path / "out", "cpu")
    assert len(report.left_out) == 3
    assert "question 1 of row 1" in report.left_out[0]
    assert sum(each.n_failed for each in report.arms) == 4 * any("NoCompletion" in note for note in report.notes)


def test_a_template_is_what_the_writer_is_asked_with(tmp_path: Path, reader: FakeEngine) -> None:
    template = "Say it again.\nPassage:\n{title}\n{passage}\n\nAgain:"
    recipe = replace(columns(tmp_path / "in"), template=template, arms=("rounds",))
    run_experiment(recipe, tmp_path / "out", "cpu")
    assert all(job.prompt.startswith("Say it again.\n") for job in reader.sampled)
    with pytest.raises(RunError, match="template is"):
        run_experiment(replace(recipe, template=f"{template}!"), tmp_path / "out", "cpu")


def test_a_passage_that_several_seeds_examine_counts_once(tmp_path: Path, reader: FakeEngine) -> None:
    recipe = replace(columns(tmp_path / "in"), seeds=2, eval_tasks=9, arms=("base", "passage", "in-context"))
    report = run_experiment(recipe, tmp_path / "out", "cpu")
    assert {each.n_passages for each in report.arms} == {9}


def test_a_passage_longer_than_the_context_is_refused_or_left_out_with_its_reason_and_takes_no_other_with_it(
    tmp_path: Path, reader: FakeEngine
) -> None:
    long = replace(NOTES[0], context=NOTES[0].context + " And so on." * 400)
    for together in (1, 3):
        recipe = replace(columns(tmp_path / "in", tasks=[long, *NOTES[1:3]]), together=together, eval_tasks=3)
        recipe = replace(recipe, arms=("base", "passage", "completions"))
        with pytest.raises(InputError, match=r"1 of the passages are longer than the context .* skip_bad=true"):
            run_experiment(recipe, tmp_path / f"out-{together}", "cpu")
        assert not reader.answered
        report = run_experiment(replace(recipe, skip_bad=True), tmp_path / f"out-{together}", "cpu")
        reader.answered.clear()
        assert [each.n_passages for each in report.arms] == [3, 2, 2]
        assert [each.n_failed for each in report.arms] == [0, 4, 4]
        assert any("1 of 3 trials were not measured (encode, InputError: " in note for note in report.notes)
