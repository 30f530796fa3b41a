"""Whether choosing settings is worth anything: what is taught before, what is tried, and how it is compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from selfedit.config import load_recipe
from selfedit.engine.base import SampleJob
from selfedit.errors import ConfigError, RunError
from selfedit.experiment.plans import domain_of, make_plan
from selfedit.experiment.run import Progress, load_program, run_experiment
from selfedit.recipe import Recipe
from selfedit.recipes.settings import warm
from selfedit.recipes.settings.report import SHUFFLED, Result, Tried, best_of, summarise, table
from selfedit.recipes.settings.run import run
from selfedit.recipes.settings.warm import Choice, choices, deal, teach
from selfedit.report.record import Report
from selfedit.report.stats import by_seed
from selfedit.runs import read_trials
from selfedit.types import MenuSettings, Sample, Score, Task, Trial
from tests.unit.conftest import FakeEngine, Fault

RECIPE = replace(
    load_recipe("world-settings", ["outer.tasks=2", "sample.edits=2", "eval_tasks=3", "seeds=2"]),
    menu=MenuSettings((1e-3, 5e-3), (2, 8)),
)
OFFERED = choices(RECIPE.menu)


@dataclass
class Choosing(FakeEngine):
    """Ends with a choice off the menu where the prompt asks for one and it was taught how, and cuts off every sixth
    text. What it trained itself is in `held` by content, what it loaded by folder."""

    def _write(self, job: SampleJob, draw: int) -> Sample:
        sample = super()._write(job, draw)
        rng = Random(f"{job.seed}/{draw}/choice")
        line = f"\n{rng.choice(OFFERED).under('').strip()}" if job.adapter and "Settings:" in job.prompt else ""
        return replace(sample, text=sample.text + line, stop="length" if rng.random() < 1 / 6 else "eos")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Choosing]:
    made: list[Choosing] = []

    def open_fake(name: str, model: str, device: str) -> Choosing:
        plans = [make_plan(replace(RECIPE, seed=seed, writer=Recipe().writer), Path()) for seed in (0, 1)]
        made.append(Choosing([task for plan in plans for task in [*plan.train, *plan.unseen]]))
        return made[-1]

    for module in ("experiment.run", "recipes.settings.warm", "recipes.settings.run"):
        monkeypatch.setattr(f"selfedit.{module}.open_backend", open_fake)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("os.fsync", lambda file: None)
    monkeypatch.setattr("selfedit.report.stats.RESAMPLES", 500)
    return made


def finish(folder: Path, recipe: Recipe = RECIPE) -> list[str]:
    return list(run(recipe, folder, "cpu", lambda done, total: None, grid=2))


# ── what is taught ──


def test_every_choice_is_dealt_equally_often_and_takes_the_place_of_any_other() -> None:
    task, text = Task("t", "T", "Passage."), "It is old.\nSettings: learning rate 0.1, epochs 99\n"
    drawn = [(task, Sample("", (), (), (), text, "eos"))] * (3 * len(OFFERED))
    dealt = [text for _, text in deal(drawn, OFFERED, 0)]
    assert Counter(dealt) == {choice.under("It is old."): 3 for choice in OFFERED}
    assert dealt != [text for _, text in deal(drawn, OFFERED, 1)]
    assert len(deal(drawn[:-1], OFFERED, 0)) == len(drawn) - 1


def test_a_writer_is_taught_its_own_whole_texts_with_a_choice_under_each(
    engines: list[Choosing], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, seeds=1)
    folder = teach(recipe, tmp_path / "seed-0", "cpu")
    (engine,) = engines
    (job,) = engine.trained
    texts = ["".join(map(chr, datum.tokens)) for datum in job.data]
    lines = Counter(text.splitlines()[-1] for text in texts)
    assert len(engine.sampled) == warm.OF_EACH * len(OFFERED) > len(texts) > len(engine.sampled) / 2
    assert set(lines) == {choice.under("").strip() for choice in OFFERED}
    assert max(lines.values()) - min(lines.values()) <= 1
    assert (job.settings.loss_on, job.settings.epochs, job.under) == ("completion", warm.EPOCHS, None)
    assert not any("Settings:" in each.prompt for each in engine.sampled)
    assert teach(recipe, folder, "cpu") == folder
    assert len(engines) == 1
    unseen = {task.title for split in ("train", "eval") for task in domain_of(recipe).tasks(split, 40, 0)}
    assert not any(title in text for title in unseen for text in texts)


@pytest.mark.parametrize(("at", "says"), [("sample", "nothing could be written"), ("train", "could not be taught")])
def test_a_writer_that_cannot_be_taught_ends_the_run(
    engines: list[Choosing], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: str, says: str
) -> None:
    monkeypatch.setattr(warm, "open_backend", lambda name, model, device: Choosing(faults=[Fault(at, "")]))
    with pytest.raises(RunError, match=says):
        teach(RECIPE, tmp_path / "seed-0", "cpu")
    assert not (tmp_path / "seed-0").exists()


# ── the reading ──


def trial(stage: str, passage: str, reward: float, choice: Choice | None = None) -> Trial:
    measures = {"learning_rate": choice.learning_rate, "epochs": float(choice.epochs), "steps": 0.0} if choice else {}
    text = (choice or OFFERED[0]).under("It is old.")
    sample, mark = Sample("", (), (), (), text, "eos"), (Score(reward, ""),)
    return Trial(f"{stage}/{passage}/0/0", passage, 0, 0, 0, sample, "x", mark, mark, reward, None, measures=measures)


def tried_with(worth: Callable[[Choice], float], seed: int = 0) -> Tried:
    best = OFFERED[2]
    name = f"p{seed}"
    chosen = [
        trial("round-0", name, 0.1, OFFERED[0]),
        trial("round-1", name, 0.4 + seed / 10, best),
        trial("shuffled-reward", name, 0.2, OFFERED[1]),
        trial("train-1", name, 0.3, OFFERED[3]),
        trial("train-2", name, 0.9, OFFERED[1]),
    ]
    fixed = [trial("round-0", name, 0.2), trial("round-1", name, 0.3)]
    again = [trial(f"train-1 at {choice.name}", name, worth(choice), choice) for choice in OFFERED]
    again += [trial(f"{arm} at {best.name}", name, 0.5, best) for arm in ("round-0", "round-1", "fixed round-1")]
    chose, held, tried = ({each.key: each for each in trials} for trials in (chosen, fixed, again))
    tasks = {name: Task(name, "Belmora", "It lies by water.")}
    return Tried(chose, held, tried, tasks, domain_of(RECIPE), domain_of(replace(RECIPE, menu=MenuSettings())))


def worth(choice: Choice) -> float:
    return {OFFERED[2]: 0.5, OFFERED[3]: 0.5}.get(choice, 0.1)


def found() -> Result:
    tried_S = [tried_with(worth), tried_with(worth, 1)]
    return summarise(tried_S, OFFERED, best_of(tried_S, OFFERED), 1)


def test_the_best_choice_has_the_highest_mean_over_all_seeds_and_of_equals_is_offered_first() -> None:
    assert best_of([tried_with(worth)], OFFERED) == OFFERED[2]
    assert (
        best_of([tried_with(worth), tried_with(lambda choice: float(choice == OFFERED[1]), 1)], OFFERED) == OFFERED[1]
    )


def test_arms_are_compared_on_the_same_passages_and_by_seed() -> None:
    pairs = {(pair.a, pair.b): pair for pair in found().differences}
    assert pairs["round-0", "round-1"].difference == pytest.approx(0.35)
    assert pairs["round-1 at best", "round-1"].by_seed == by_seed([0.4 - 0.5, 0.5 - 0.5])
    assert pairs[SHUFFLED, "round-1"].difference == pytest.approx(0.25)
    assert pairs["fixed, round-1", "round-1"].difference == pytest.approx(0.15)


def test_the_steps_of_an_arm_are_those_of_its_own_settings() -> None:
    steps = {arm.name: arm.steps for arm in found().arms}
    assert steps["round-0"] == 2 * 2  # two epochs of a line and the passage
    assert steps["round-1"] == steps["round-1 at best"] == OFFERED[2].epochs * 2
    assert steps["fixed, round-1"] == RECIPE.inner.epochs * 3  # to whom a settings line is one like the others


def test_every_choice_is_told_with_what_it_is_worth_for_all_and_who_chose_it() -> None:
    offers = {offer.choice: offer for offer in found().offers}
    assert offers[OFFERED[2]].tried.mean == 0.5
    assert offers[OFFERED[3]].tried.mean == pytest.approx((0.5 + 0.3) / 2)  # as tried with all, and as drawn by one
    assert offers[OFFERED[1]].tried.mean == 0.1
    assert offers[OFFERED[2]].shares == {"round-0": 0.0, "round-1": 1.0, SHUFFLED: 0.0}
    assert offers[OFFERED[3]].rewards["train-1"].mean == 0.3
    assert offers[OFFERED[2]].rewards["train-1"].mean is None


def test_the_table_tells_all_of_it_in_percent() -> None:
    lines = list(table(found()))
    assert lines[0] == "2 seeds; best of the menu for all: 0.005 x 2 (learning rate x epochs)"
    assert any(line.startswith("0.005 x 2 ") and line.endswith("0, 100, 0") for line in lines)
    row = next(line for line in lines if line.startswith("round-1 - round-0 "))
    assert row.split("  ")[-1].strip() == "+30.0 +40.0"
    json.dumps(lines)


# ── the program ──


def test_the_whole_runs_once_and_is_written_down(engines: list[Choosing], tmp_path: Path) -> None:
    lines = finish(tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    arms = {arm["name"]: arm for arm in result["arms"]}
    assert list(arms) == [
        *("round-0", "round-1", "round-2", "shuffled-reward"),
        *("fixed, round-0", "fixed, round-1", "fixed, round-2"),
        *("round-0 at best", "round-2 at best", "fixed, round-2 at best"),
    ]
    assert {arm["n"] for arm in arms.values()} == {2 * 3}
    assert lines[0].startswith("2 seeds")
    assert (tmp_path / "chosen" / "report.html").is_file()


def test_what_is_finished_is_not_trained_again_and_seeds_can_be_added(
    engines: list[Choosing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[int, int]] = []

    def noted(recipe: Recipe, out: Path, device: str, progress: Progress) -> Report:
        ran.append((recipe.seed, recipe.seeds))
        return run_experiment(recipe, out, device, progress)

    monkeypatch.setattr("selfedit.recipes.settings.run.run_experiment", noted)
    one = replace(RECIPE, seeds=1)
    lines, trained = finish(tmp_path, one), sum(len(engine.trained) for engine in engines)
    assert finish(tmp_path, one) == lines
    assert sum(len(engine.trained) for engine in engines) == trained
    finish(tmp_path)
    counts = {folder.name: len(read_trials(folder)) for folder in (tmp_path / "chosen").glob("seed-*")}
    assert counts["seed-0"] == counts["seed-1"] > 0
    assert ran == [(0, 1), (0, 1), (1, 1), (1, 1)]  # with chosen settings and with fixed ones


def test_every_text_is_learnt_again_with_one_choice_for_all(engines: list[Choosing], tmp_path: Path) -> None:
    finish(tmp_path, replace(RECIPE, seeds=1))
    again, chosen = (read_trials(tmp_path / name / "seed-0") for name in ("tried", "chosen"))
    stages = Counter(key.partition("/")[0] for key in again)
    assert {n for stage, n in stages.items() if stage.startswith("train-1 at")} == {2}
    for choice in OFFERED:
        for key, trial in again.items():
            if f" at {choice.name}/" in key:
                assert (trial.measures["learning_rate"], trial.measures["epochs"]) == (
                    choice.learning_rate,
                    choice.epochs,
                )
    (key,) = [key for key in again if key.startswith("round-2 at ") and "-0000/" in key]
    first = chosen[f"round-2/{again[key].task_id}/0/0"].sample
    same = again[key].sample
    assert first and same
    assert same.text.rpartition("\n")[0] == first.text.rpartition("\n")[0]
    assert same.tokens == ()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["menu={learning_rates=[],epochs=[]}"], "needs a menu"),
        (["outer.rounds=0"], "a round or more"),
        (["outer.learner=writer"], 'outer.learner="base"'),
        (["arms=['rounds']"], "compares"),
        (["writer.adapter=somewhere"], "writer is"),
        (["vary.outer.rounds=[1,2]"], "vary is"),
    ],
)
def test_what_would_compare_nothing_is_refused(tmp_path: Path, overrides: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        finish(tmp_path, load_recipe("world-settings", overrides))


def test_it_is_found_by_the_command_line() -> None:
    assert load_program(load_recipe("world-settings")) is run
