"""Reinforced or taught, at equal gain: exact teachers, drift with the right sign, costs read off curves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from selfedit.cli import main
from selfedit.config import list_recipes, load_recipe, recipe_hash
from selfedit.engine.base import Backend, SampleJob, open_backend
from selfedit.engine.local import LocalBackend
from selfedit.errors import ConfigError, RunError
from selfedit.experiment.plans import make_plans
from selfedit.experiment.run import load_program, run_experiment
from selfedit.loop.probes import divergence
from selfedit.recipes.forgetting import measure, report
from selfedit.recipes.forgetting import run as forgetting
from selfedit.recipes.forgetting.curves import Point, cost_at, jackknife, mean_curve
from selfedit.recipes.forgetting.measure import MEASURES, draw, gold
from selfedit.recipes.forgetting.report import MEASURED, Way, summarise, table
from selfedit.recipes.forgetting.run import BY_EPOCHS, kept, reinforced, run
from selfedit.recipes.forgetting.teachers import TEACHERS, questions, statements, taught
from selfedit.report.stats import by_seed
from selfedit.runs import open_run, read_metrics, read_trials
from selfedit.tasks.edits import split_completion
from selfedit.tasks.exams import read_exam
from selfedit.tasks.knowledge import over_world
from selfedit.tasks.world import famous_tasks, fresh_tasks
from selfedit.tasks.world_claims import BY_NAME, kind_of_line
from selfedit.types import Adapter, Datum, Failure, Sample, Score, TrainJob, TrainSettings, Trial

TASKS = fresh_tasks("train", 24, seed=100)
RECIPE = load_recipe("world-forgetting")
DOMAIN = over_world("implications", RECIPE.inner)
SMALL = [  # rewarded by log-probability, which tells self-edits apart that teach next to nothing
    *("seeds=1", "seed=100", "n=2", "outer.rounds=1", "outer.tasks=2", "sample.edits=2", "sample.max_tokens=24"),
    *("inner.epochs=1", "exam.max_tokens=4", "outer.reward=logprob", "outer.train.rank=4"),
    *("outer.train.learning_rate=5e-3", "vary.outer.train.epochs=[1]"),
]


@pytest.fixture(scope="module")
def engine() -> Backend:
    return open_backend("local", "pup", "cpu")


# ── the teachers ──


def test_a_teachers_statements_tell_every_fact_once_by_name_and_nothing_else() -> None:
    for task in TASKS:
        lines = statements(task).split("\n")
        assert [kind_of_line(task, line) for line in lines] == [BY_NAME] * len(task.questions)
        assert all(sum(q.answer in line for line in lines) >= 1 for q in task.questions)


def test_a_teachers_questions_ask_for_every_fact_and_answer_it() -> None:
    for task in TASKS:
        assert sorted(q.answer for q in read_exam(questions(task))) == sorted(q.answer for q in task.questions)
        *learnt, _ = split_completion(questions(task), task.title, task.context, by_line=True)
        pairs = [text.removeprefix(f"{task.title}\n") for text in learnt]
        assert [kind_of_line(task, pair) for pair in pairs] == [BY_NAME] * len(task.questions)
        assert questions(task).startswith("Question 1: ")


@pytest.mark.parametrize("name", TEACHERS)
def test_the_writer_imitates_what_a_teacher_answers_to_its_own_request(engine: Backend, name: str) -> None:
    teacher, settings = TEACHERS[name], RECIPE.outer.train
    (datum,) = taught(teacher, TASKS[:1], DOMAIN, engine, settings)
    (sample,) = _asked(engine, DOMAIN.prompt(TASKS[0]))
    n_prompt = len(sample.prompt_tokens)
    assert datum.tokens[:n_prompt] == sample.prompt_tokens
    assert datum.weights == (0.0,) * n_prompt + (1.0,) * (len(datum.tokens) - n_prompt)
    assert len(datum.tokens) > n_prompt + 40


def _asked(engine: Backend, prompt: str) -> list[Sample]:
    (drawn,) = engine.sample([SampleJob(prompt, 1, 0, max_tokens=1)])
    assert not isinstance(drawn, Failure)
    return drawn


# ── drift ──


def test_the_divergence_is_what_the_drawer_finds_likelier_than_the_other() -> None:
    """By hand: weighted tokens only, (-1 + 2 - 1 + 1.5) / 2 = 0.75 nats."""
    texts = [Datum((1, 2, 3), (0.0, 1.0, 1.0))]
    drawer, other = [[-9.0, -1.0, -1.0]], [[0.0, -2.0, -1.5]]
    assert divergence(texts, drawer, other) == pytest.approx(0.75)
    assert divergence(texts, other, drawer) == pytest.approx(-0.75)


@pytest.fixture(scope="module")
def bent(engine: Backend) -> Adapter:
    """A writer that has learnt hard to tell one passage's facts as questions."""
    settings = TrainSettings(rank=8, alpha=16, epochs=20, learning_rate=5e-3, loss_on="completion")
    data = taught(questions, TASKS[:1], DOMAIN, engine, settings)
    (writer,) = engine.train([TrainJob(tuple(data), settings, 0)])
    assert isinstance(writer, Adapter)
    return writer


def test_drift_is_above_0_in_both_directions_where_a_writer_has_moved(engine: Backend, bent: Adapter) -> None:
    prompts = [DOMAIN.prompt(task) for task in TASKS[1:5]]
    base, own = (draw(engine, prompts, writer, 0, 40) for writer in (None, bent))
    assert divergence(base.data, base.logprobs, engine.logprobs(base.data, bent)) > 0.2
    assert divergence(own.data, own.logprobs, engine.logprobs(own.data, None)) > 0.2
    assert divergence(base.data, base.logprobs, engine.logprobs(base.data, None)) == pytest.approx(0)


def test_a_known_answer_fades_for_a_writer_that_has_moved_and_not_for_the_base(engine: Backend, bent: Adapter) -> None:
    famous = famous_tasks(4)
    known = gold(engine, famous, [prompt for task in famous for prompt in DOMAIN.exam(task)])
    assert known.fading(engine, bent) > 0.5
    assert known.fading(engine, bent) == pytest.approx(-_reversed(engine, known, bent))


def _reversed(engine: Backend, known: measure.Answers, writer: Adapter) -> float:
    seen_from_there = replace(known, before=tuple(measure.whole(engine, known.data, writer)))
    assert seen_from_there.fading(engine, writer) == pytest.approx(0)
    return sum(a - b for a, b in zip(seen_from_there.before, known.before, strict=True)) / len(known.before)


# ── equal gain ──

CURVE = [Point(1, 0.04, {"lost": 0.1}), Point(3, 0.08, {"lost": 0.3}), Point(8, 0.06, {"lost": 0.9})]


@pytest.mark.parametrize(
    ("gain", "cost"), [(0.0, 0.0), (0.02, 0.05), (0.04, 0.1), (0.05, 0.15), (0.06, 0.2), (0.08, 0.3), (0.09, None)]
)
def test_the_cost_at_a_gain_is_read_where_the_curve_first_gets_there(gain: float, cost: float | None) -> None:
    expected = None if cost is None else pytest.approx(cost)
    assert cost_at(CURVE, gain, "lost") == expected
    assert cost_at(CURVE[::-1], gain, "lost") == expected


def test_what_was_not_measured_on_the_way_leaves_the_cost_unknown() -> None:
    holed = [CURVE[0], Point(3, None, {"lost": 0.3}), CURVE[2]]
    assert cost_at(holed, 0.03, "lost") == pytest.approx(0.075)
    assert cost_at(holed, 0.05, "lost") is None
    assert cost_at([Point(1, 0.04, {"lost": None})], 0.02, "lost") is None
    assert cost_at([], 0.02, "lost") is None


def test_a_mean_curve_averages_the_seeds_amount_by_amount() -> None:
    other = [Point(1, 0.02, {"lost": 0.2}), Point(3, None, {"lost": 0.5}), Point(8, 0.1, {"lost": None})]
    mean = mean_curve([CURVE, other])
    assert [point.amount for point in mean] == [1, 3, 8]
    assert [point.gain for point in mean] == pytest.approx([0.03, 0.08, 0.08])
    assert [point.costs["lost"] for point in mean] == pytest.approx([0.15, 0.4, 0.9])


def test_of_a_mean_the_jackknife_says_what_students_t_says() -> None:
    values = [0.1, 0.4, 0.2, 0.7, 0.3]
    found = jackknife(lambda seeds: sum(values[s] for s in seeds) / len(seeds), 5)
    known = by_seed(values)
    assert found.mean == pytest.approx(known.mean)
    assert found.ci95 == pytest.approx(known.ci95)


def test_a_gain_that_hangs_on_one_seed_has_no_interval() -> None:
    found = jackknife(lambda seeds: 1.0 if 2 in seeds else None, 3)
    assert (found.mean, found.ci95) == (None, None)


# ── the report ──

WAYS = [Way("a", "a", "round-{}", (1, 3)), Way("b", MEASURED, "b-{}", (1, 3))]
NOWHERE = [Way("A", "a", "nothing-{}", (1, 3)), Way("B", MEASURED, "nothing-{}", (1, 3))]
SEEDS = {f"seed-{seed}": ["x", "y"] for seed in range(3)}


def write_run(folder: Path, accuracy: dict[str, float], forgotten: dict[tuple[str, int], float]) -> None:
    """Write a run folder of two passages and a third that is not of the comparison; all measures of a writer are the
    same number."""
    with open_run(folder, replace(RECIPE, vary={}), "pup@0") as opened:
        for stage, value in accuracy.items():
            for task, mark in (("x", value + 0.1), ("y", value - 0.1), ("z", 1.0)):
                opened.append(Trial(f"{stage}/{task}/0/0", task, 0, 0, 0, None, "", (), (Score(mark, ""),), mark, None))
        for (way, amount), value in forgotten.items():
            for name in MEASURES:
                opened.metric(f"{way}/{name}", value, amount)


@pytest.fixture
def three_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Reinforcement (a) gains 0.1 in two steps and teaching (b) in one, at more than the cost."""
    monkeypatch.setattr(report, "GAINS", (0.05, 0.075))
    for seed in range(3):
        costs = {("a", 1): 0.01, ("a", 3): 0.02 + seed / 1000, ("b", 1): 0.06, ("b", 3): 0.08}
        write_run(tmp_path / "a" / f"seed-{seed}", {"round-0": 0.3, "round-1": 0.35, "round-3": 0.4}, {})
        write_run(tmp_path / MEASURED / f"seed-{seed}", {"b-1": 0.4, "b-3": 0.45}, costs)
    return tmp_path


def test_what_teaching_costs_more_at_equal_gain_is_above_0(three_seeds: Path) -> None:
    """By hand, 5 points: a is at 0.01, b halfway to 0.06. 7.5: a halfway from 0.01 to its last cost, b at 0.045."""
    found = {(d.gain, d.cost): d for d in summarise(three_seeds, WAYS, SEEDS).differences}
    half, more = found[0.05, "lost/recall"], found[0.075, "lost/recall"]
    assert (half.a, half.b) == ("a", "b")
    assert half.at_a == pytest.approx(0.01) and half.at_b == pytest.approx(0.03)
    assert half.pooled.mean == pytest.approx(0.02)
    assert half.pooled.ci95 == pytest.approx((0.02, 0.02))
    assert more.by_seed.values == pytest.approx((0.03, 0.0295, 0.029))
    assert more.pooled.mean == more.by_seed.mean == pytest.approx(0.0295)
    assert more.pooled.ci95 == pytest.approx(more.by_seed.ci95)


def test_only_the_passages_of_the_comparison_count(three_seeds: Path) -> None:
    result = summarise(three_seeds, WAYS, SEEDS)
    assert [row.gain for row in result.rows if row.seed == "seed-0"] == pytest.approx([0.05, 0.1, 0.1, 0.15])
    assert [row.accuracy for row in result.rows if row.seed == "seed-0"] == pytest.approx([0.35, 0.4, 0.4, 0.45])
    assert result.untrained.mean == pytest.approx(0.3)


def test_a_way_that_never_gains_as_much_is_not_compared(three_seeds: Path) -> None:
    result = summarise(three_seeds, [*WAYS, *NOWHERE], SEEDS)
    nowhere = [d for d in result.differences if {d.a, d.b} & {"A", "B"}]
    assert len(nowhere) == 5 * 2 * len(report.COSTS)
    assert all((d.pooled.mean, d.pooled.ci95, d.by_seed.mean) == (None, None, None) for d in nowhere)
    assert [row.gain for row in result.rows if row.way == "A"] == [None] * 6
    assert "+5 points on the mean curve: not reached by A, B" in list(table(result))


def test_writers_are_ranked_within_their_seed(three_seeds: Path) -> None:
    found = {(a.predictor, a.forgotten): a.tau for a in summarise(three_seeds, WAYS, SEEDS).agreements}
    assert found["kl/task/forward", "lost/recall"].values == pytest.approx((1, 1, 1))
    assert found["gain", "lost/recall"].mean == pytest.approx(0.9129, abs=1e-4)  # two of four gain the same


# ── the whole ──


@pytest.mark.parametrize(("name", "other"), [("rest_em", "world-rounds"), ("grpo", "world-grpo")])
def test_what_another_recipe_has_reinforced_need_not_be_run_again(name: str, other: str) -> None:
    assert recipe_hash(reinforced(RECIPE)[name]) == recipe_hash(load_recipe(other))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "READ": 1,
            "FAMOUS": 2,
            "DRAWN": 2,
            "TOLD": 2,
            "PLAIN_TOKENS": 8,
            "ASKED_TOKENS": 16,
        }.items():
            patch.setattr(measure, name, value)
        yield folder, list(run(load_recipe("world-forgetting", SMALL), folder, "cpu", lambda done, total: None))


def test_the_whole_runs_and_measures_every_writer(finished: tuple[Path, list[str]]) -> None:
    folder, lines = finished
    found = json.loads((folder / "report.json").read_text())
    writers = [(row["way"], row["amount"]) for row in found["rows"]]
    assert writers == [("rest_em", 1), ("grpo", 1), *((name, 1) for name in BY_EPOCHS)]
    assert all(row["measures"][name] is not None for row in found["rows"] for name in MEASURES)
    assert all(row["gain"] is not None for row in found["rows"])
    assert sum(line.split(" ")[0] in dict(writers) and " and " not in line for line in lines) == len(writers)
    assert (folder / "report.html").read_text().count("<svg") == 2


def test_of_its_own_the_writer_imitates_the_best_self_edit_of_each_passage(finished: tuple[Path, list[str]]) -> None:
    (plan,) = make_plans(reinforced(load_recipe("world-forgetting", SMALL))["rest_em"], finished[0] / "rest_em")[0]
    trials = [trial for key, trial in read_trials(plan.folder).items() if key.startswith("train-1/")]
    best = [
        max((t for t in trials if t.task_id == task.id), key=lambda t: t.measures["logprob"] or 0.0)
        for task in plan.train
    ]
    assert len(trials) == 4
    assert [d.tokens for d in kept(plan, plan.train)] == [
        t.sample.prompt_tokens + t.sample.tokens for t in best if t.sample
    ]


def test_a_killed_run_goes_on_to_the_same_trials_and_measures(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "run")
    there, here = (folder / MEASURED / "seed-100" for folder in (finished[0], tmp_path / "run"))
    for name in ("samples.jsonl", "trials.jsonl", "metrics.jsonl"):
        lines = (there / name).read_bytes().splitlines(keepends=True)
        (here / name).write_bytes(b"".join(lines[: len(lines) // 2 + 1]))
    heard: list[tuple[int, int]] = []
    list(run(load_recipe("world-forgetting", SMALL), tmp_path / "run", "cpu", lambda *done: heard.append(done)))
    first, second = (read_trials(folder) for folder in (there, here))
    assert len(first) == 6
    assert [replace(t, cost={}) for t in second.values()] == [replace(t, cost={}) for t in first.values()]
    measured = [[m for m in read_metrics(folder) if not m.name.startswith("time")] for folder in (there, here)]
    assert measured[0] == measured[1]
    done, total = heard[-1]
    assert done == total and [each for each, _ in heard] == sorted(each for each, _ in heard)


def test_selfedit_run_runs_it_and_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: tuple[Path, list[str]]
) -> None:
    for verb in ("train", "sample", "answer"):
        monkeypatch.setattr(LocalBackend, verb, lambda self, jobs, verb=verb: pytest.fail(f"{verb} was run again"))
    command = ["selfedit", "run", "world-forgetting", *SMALL, "--out", str(finished[0]), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", command)
    main()
    assert "Kendall" in capsys.readouterr().out


def test_a_folder_of_other_settings_is_refused(finished: tuple[Path, list[str]]) -> None:
    other = load_recipe("world-forgetting", [*SMALL, "outer.train.learning_rate=1e-3"])
    with pytest.raises(RunError, match="learning_rate"):
        list(run(other, finished[0], "cpu", lambda *done: None))


def test_rounds_in_which_nothing_was_reinforced_end_the_run_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forgetting, "run_experiment", lambda *given: None)
    with pytest.raises(RunError, match="rest_em found nothing worth reinforcing in seed-100"):
        list(run(load_recipe("world-forgetting", SMALL), tmp_path, "cpu", lambda *done: None))


def test_it_is_listed_and_is_no_experiment_in_arms(tmp_path: Path) -> None:
    assert "forget" in dict(list_recipes())["world-forgetting"]
    assert load_program(RECIPE) is run
    with pytest.raises(ConfigError, match="give `selfedit run world-forgetting`"):
        run_experiment(RECIPE, tmp_path)


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"vary": {}}, "amounts of training"), ({"together": 2}, "together is 2"), ({"eval_repeats": 2}, "eval_repeats")],
)
def test_a_recipe_that_means_nothing_here_is_refused(
    changed: dict[str, object], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "run_experiment", lambda *given: pytest.fail("it was run"))
    with pytest.raises(ConfigError, match=words):
        list(run(replace(RECIPE, **changed), tmp_path, "cpu", lambda *done: None))  # type: ignore[arg-type]
