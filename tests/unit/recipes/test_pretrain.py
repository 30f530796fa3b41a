"""A writer rewarded for pretraining text: equal tokens, nothing of the exam in a corpus, each edit its own reward."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfedit.cli import main
from selfedit.config import list_recipes, load_recipe
from selfedit.engine.local import LocalBackend
from selfedit.errors import ConfigError
from selfedit.experiment.run import load_program, run_experiment
from selfedit.recipes.pretrain import run as program
from selfedit.recipes.pretrain.learner import Learner, fresh, going_round
from selfedit.recipes.pretrain.report import summarise, table
from selfedit.recipes.pretrain.run import compose, dealt, run
from selfedit.recipes.pretrain.statements import hold_out
from selfedit.runs import open_run, read_trials
from selfedit.tasks.knowledge import over_world
from selfedit.tasks.world import ATTRIBUTES, fresh_tasks
from selfedit.types import Adapter, Datum, Sample, Score, Task, TrainJob, Trial

TASKS = fresh_tasks("train", 12, seed=100)
RECIPE = load_recipe("world-pretrain")
DOMAIN = over_world("implications", RECIPE.inner)
SMALL = [
    *("seeds=1", "seed=100", "n=2", "eval_repeats=1", "outer.tasks=2", "outer.rounds=1", "sample.edits=2"),
    *("sample.max_tokens=30", "outer.train.epochs=1", "outer.train.rank=4"),
]


def sample(text: str) -> Sample:
    return Sample("prompt", (1,), (2, 0), (-1.0, -1.0), text, "eos")


def all_that_can_be_said(task: Task) -> str:
    """Tell every fact of a task by name, in every phrasing there is, and once more in capitals."""
    asked = {question.question: question.answer for question in task.questions}
    lines = []
    for attribute in ATTRIBUTES[task.meta["kind"]]:
        for form in attribute.ask:
            if value := asked.get(form.format(n=task.title)):
                told = [f.format(S=task.title, P=f"{task.title}'s", n=task.title, v=value) for f in attribute.tell]
                lines += [*told, *(line.upper() for line in told)]
    return "\n".join(lines)


# ── what is held out ──


def test_every_fact_is_held_out_in_words_that_its_passage_does_not_use() -> None:
    for task, statements in zip(TASKS, hold_out(TASKS), strict=True):
        assert sorted(s.value for s in statements) == sorted(q.answer for q in task.questions)
        for statement in statements:
            assert statement.text.startswith(f"{statement.before}{statement.value}")
            assert task.title in statement.before and statement.text not in task.context
            assert len({statement.value, *statement.others}) == 8


def test_wrong_values_are_those_of_other_passages_where_there_are_enough() -> None:
    tasks = fresh_tasks("train", 60, seed=100)
    told = {question.answer for task in tasks for question in task.questions}
    others = [other for statements in hold_out(tasks) for s in statements for other in s.others]
    assert sum(other in told for other in others) > 0.95 * len(others)
    assert sum(o in told for statements in hold_out(TASKS) for s in statements for o in s.others) < 0.5 * 96 * 7


@pytest.mark.parametrize("writes", [True, False], ids=["written", "raw"])
def test_no_corpus_holds_a_held_out_statement(writes: bool) -> None:
    samples = [sample(all_that_can_be_said(task)) if writes else None for task in TASKS]
    texts = [" ".join(text.split()).casefold() for text in compose(DOMAIN, TASKS, samples)]
    held_out = [s.text.casefold() for statements in hold_out(TASKS) for s in statements]
    assert len(held_out) > 80 and not any(statement in text for statement in held_out for text in texts)
    assert len(texts) > 500 if writes else len(texts) == len(TASKS)


def test_an_edit_that_says_what_is_examined_is_read_as_if_it_had_not() -> None:
    (statements, *_), honest = hold_out(TASKS), f"{TASKS[0].title} is worth knowing.\nIt is spoken of."
    cribbed = "\n".join([honest, *(statement.text for statement in statements)])
    rest = [None] * (len(TASKS) - 1)
    assert compose(DOMAIN, TASKS, [sample(cribbed), *rest]) == compose(DOMAIN, TASKS, [sample(honest), *rest])
    assert len(compose(DOMAIN, TASKS, [sample(honest), *rest])) == len(TASKS) + 2


def test_an_edit_that_cannot_be_read_leaves_its_passage_alone() -> None:
    assert compose(DOMAIN, TASKS[:1], [sample("...")]) == [f"{TASKS[0].title}\n{TASKS[0].context}"]


# ── equal tokens ──


def documents(*lengths: int) -> list[Datum]:
    return [Datum((i,) * length, (1.0,) * length) for i, length in enumerate(lengths)]


@pytest.mark.parametrize("lengths", [(7,), (120, 130, 110), tuple(range(3, 40))])
@pytest.mark.parametrize("n_tokens", [5, 1000, 1001])
def test_whatever_is_read_is_read_for_the_same_number_of_tokens(lengths: tuple[int, ...], n_tokens: int) -> None:
    data = going_round(documents(*lengths), n_tokens, seed=0)
    assert sum(len(datum.tokens) for datum in data) == sum(len(datum.weights) for datum in data) == n_tokens


def test_going_round_no_document_is_read_twice_more_than_another() -> None:
    data = going_round(documents(10, 20, 30, 40), 1050, seed=0)
    times = [sum(datum.tokens[0] == i for datum in data[:-1]) for i in range(4)]
    assert max(times) - min(times) <= 1


def test_another_seed_is_another_order_of_reading() -> None:
    first, second, again = (going_round(documents(*range(3, 40)), 500, seed) for seed in (0, 1, 0))
    assert first == again != second


def test_a_corpus_without_documents_is_refused() -> None:
    with pytest.raises(ValueError, match="needs documents"):
        going_round([], 10, seed=0)


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Learner:
    return fresh(tmp_path_factory.mktemp("fresh"), 0, RECIPE.inner)


def test_raw_and_written_corpora_take_as_many_tokens_and_about_as_many_steps(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[TrainJob] = []

    def train(given: list[TrainJob]) -> list[Adapter]:
        jobs.extend(given)
        return [Adapter("read", learner.engine.base, None, 0)]

    monkeypatch.setattr(learner.engine, "train", train)
    written = [sample(all_that_can_be_said(task)) for task in TASKS]
    for samples in ([None] * len(TASKS), written):
        learner.read(compose(DOMAIN, TASKS, samples), 65_536, seed=0)
    tokens = [sum(len(datum.tokens) for datum in job.data) for job in jobs]
    steps = [len(job.data) / job.settings.batch_size for job in jobs]
    assert tokens == [65_536, 65_536]
    assert steps == pytest.approx([128, 128], rel=0.15)


# ── the fresh model ──


def test_fresh_weights_depend_on_the_seed_alone(tmp_path: Path, learner: Learner) -> None:
    again, other = (fresh(tmp_path / str(seed), seed, RECIPE.inner) for seed in (0, 1))
    assert again.engine.base.partition("@")[2] == learner.engine.base.partition("@")[2]
    assert other.engine.base.partition("@")[2] != learner.engine.base.partition("@")[2]


def test_a_fresh_model_knows_nothing_and_what_it_reads_it_knows_better(learner: Learner) -> None:
    statements_P = hold_out(TASKS[:4])
    told = [f"{s.title}\n{s.text}" for statements in statements_P for s in statements]
    adapter = learner.read(told, 16_384, seed=0)
    before, after = ([known for each in learner.knows(statements_P, of) for known in each] for of in (None, adapter))
    assert [len(each) for each in learner.knows(statements_P, None)] == [len(each) for each in statements_P]
    assert sum(known.is_chosen for known in before) < 0.4 * len(before)
    assert sum(known.is_chosen for known in after) > 0.8 * len(after)
    assert all(b.logprob < a.logprob < 0 for b, a in zip(before, after, strict=True))
    assert learner.loss(told, adapter) < 0.5 * learner.loss(told, None)


# ── credit ──


def test_every_edit_is_in_one_corpus_of_a_repeat_and_in_other_company_each_time() -> None:
    deals = [[dealt(task, repeat, 5) for task in TASKS] for repeat in range(2)]
    assert all(sorted(edits) == [0, 1, 2, 3, 4] for deal in deals for edits in deal)
    assert len({tuple(edits) for edits in deals[0]}) > 6
    assert deals[0] != deals[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("run")
    recipe = load_recipe("world-pretrain", SMALL)
    return folder, list(run(recipe, folder, "cpu", lambda done, total: None, tokens=1024))


def test_an_edits_trial_is_the_model_that_read_it(finished: tuple[Path, list[str]]) -> None:
    """The trial of edit g holds edit g, and the trials of an adapter the edits of one corpus."""
    folder, recipe = finished[0] / "seed-100", load_recipe("world-pretrain", SMALL)
    trials = [trial for key, trial in read_trials(folder).items() if key.startswith("train-1/")]
    with open_run(folder, replace(recipe, seeds=1), json.loads((folder / "recipe.json").read_text())["base"]) as opened:
        drawn = opened.drawn()
    assert [trial.sample for trial in trials] == [drawn[f"train-1/{t.task_id}"][t.edit] for t in trials]
    tasks = {task.id: task for task in fresh_tasks("train", 2, 100)}
    corpora = {(t.adapter, dealt(tasks[t.task_id], t.repeat, 2).index(t.edit)) for t in trials}
    assert len(trials) == 4 and len(corpora) == len({adapter for adapter, _ in corpora}) == 2


def test_a_reward_is_the_mean_over_repeats_of_what_the_models_that_read_the_edit_know(
    finished: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, written = TASKS[:2], [[sample("a"), sample("b")], [sample("c"), sample("d")]]
    worth = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}

    def learn(lab: Any, stage: str, tasks_P: Any, samples_P: Any, edits_P: Any, repeat: int) -> Iterator[Trial]:
        for task, each, edit in zip(tasks_P, samples_P, edits_P, strict=True):
            known = {"logprob": (worth[each.text] if each else -9.0) + repeat}
            yield Trial("", task.id, edit, repeat, 0, each, "", (), (Score(1.0, ""),), 1.0, None, {}, None, known)

    monkeypatch.setattr(program, "learn", learn)
    recipe = load_recipe("world-pretrain", [*SMALL, "outer.repeats=2"])
    lab: Any = type("Lab", (), {"recipe": recipe})
    groups = program.reward(lab, "train-1", tasks, written)
    assert [[rollout.reward for rollout in group] for group in groups] == [[1.5, 2.5], [3.5, 4.5]]
    assert [[rollout.sample.text for rollout in group] for group in groups] == [["a", "b"], ["c", "d"]]
    assert {rollout.baseline for group in groups for rollout in group} == {-8.5}


# ── the whole ──


def test_the_whole_runs_and_compares_every_arm(finished: tuple[Path, list[str]]) -> None:
    folder, lines = finished
    result = json.loads((folder / "result.json").read_text())
    arms = ["raw", "round-0", "round-1", "shuffled-reward", "random-edits"]
    assert [arm["name"] for arm in result["arms"]] == arms
    assert all(arm["logprob"]["n"] == arm["chosen"]["n"] == 2 for arm in result["arms"])
    assert all(arm["logprob"]["mean"] < 0 <= arm["chosen"]["mean"] <= 1 and arm["loss"] > 0 for arm in result["arms"])
    pairs = [(pair["a"], pair["b"]) for pair in result["differences"]]
    assert pairs == [("raw", "round-0"), *((other, "round-1") for other in ("raw", "round-0", *arms[3:]))]
    assert result["models"] == program.count_models(load_recipe("world-pretrain", SMALL)) == 8
    assert [line.split()[0] for line in lines[1:6]] == arms
    assert lines == list(table(summarise([folder / "seed-100"], 1)))


def test_a_killed_run_goes_on_to_the_same_trials(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    there = finished[0] / "seed-100"
    (tmp_path / "seed-100").mkdir()
    for name in ("recipe.json", "samples.jsonl", "trials.jsonl"):
        lines = (there / name).read_bytes().splitlines(keepends=True)
        kept = lines if name == "recipe.json" else lines[: len(lines) // 2 + 1]
        (tmp_path / "seed-100" / name).write_bytes(b"".join(kept))
    heard: list[tuple[int, int]] = []
    run_again = run(
        load_recipe("world-pretrain", SMALL), tmp_path, "cpu", lambda *done: heard.append(done), tokens=1024
    )
    list(run_again)
    first, second = (read_trials(folder / "seed-100") for folder in (finished[0], tmp_path))
    assert [replace(t, cost={}) for t in second.values()] == [replace(t, cost={}) for t in first.values()]
    assert [done for done, _ in heard] == sorted(done for done, _ in heard) and heard[-1] == (8, 8)


def test_a_folder_of_another_number_of_tokens_is_refused(finished: tuple[Path, list[str]]) -> None:
    with pytest.raises(Exception, match="1024 tokens"):
        list(run(load_recipe("world-pretrain", SMALL), finished[0], "cpu", lambda *done: None, tokens=2048))


def test_selfedit_run_runs_it_and_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: tuple[Path, list[str]],
) -> None:
    """On a finished run it trains nothing, neither model nor writer."""
    monkeypatch.setattr(program.run, "__defaults__", (1024,))
    monkeypatch.setattr(LocalBackend, "train", lambda self, jobs: pytest.fail("something was trained again"))
    command = ["selfedit", "run", "world-pretrain", *SMALL, "--out", str(finished[0]), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", command)
    main()
    assert "round-1 - shuffled-reward" in capsys.readouterr().out


def test_it_is_listed_and_is_no_experiment_in_arms(tmp_path: Path) -> None:
    assert "equal tokens" in dict(list_recipes())["world-pretrain"]
    assert load_program(RECIPE) is run
    with pytest.raises(ConfigError, match="give `selfedit run world-pretrain`"):
        run_experiment(RECIPE, tmp_path)
    with pytest.raises(ConfigError, match="expected a module:function"):
        load_program(replace(RECIPE, program="selfedit.nowhere:run"))


def test_a_setting_that_means_nothing_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="together is 2"):
        list(run(replace(RECIPE, together=2), tmp_path, "cpu", lambda *done: None))
