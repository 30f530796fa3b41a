"""Thinking with updates: only what the model said itself is asked on, noted and trained on; a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from selfedit.cli import main
from selfedit.config import list_recipes, load_recipe
from selfedit.engine.base import SampleJob
from selfedit.engine.local import LocalBackend
from selfedit.errors import ConfigError, RunError
from selfedit.experiment.run import load_program
from selfedit.recipes.thinking import afterwards, midway, report
from selfedit.recipes.thinking import run as program
from selfedit.recipes.thinking.bench import Bench
from selfedit.recipes.thinking.chains import Chain, fresh_chains
from selfedit.recipes.thinking.lessons import Told, agreed, dealt_on, distilled, final, own_questions, study
from selfedit.recipes.thinking.report import ALL, HELD_OUT, TAUGHT, marks, summarise, table
from selfedit.runs import open_run, read_trials
from selfedit.tasks.graders import load_grader
from selfedit.tasks.knowledge import over_world
from selfedit.types import Adapter, Datum, Example, Failure, Sample, Score, TrainSettings, Trial
from tests.unit.conftest import FakeEngine, plain

CHAINS = fresh_chains("eval", 8, seed=100)
RECIPE = load_recipe("world-thinking")
SMALL = [
    *("seeds=1", "seed=100", "n=2", "together=2", "sample.edits=1", "sample.max_tokens=60", "exam.draws=1"),
    *("inner.epochs=1", "inner.rank=4", "outer.train.epochs=1", "outer.train.rank=4", "exam.max_tokens=12"),
]


# ── chains ──


def test_near_leads_to_far_and_tells_nothing_more_of_it() -> None:
    for chain in CHAINS:
        assert chain.near.context.count(chain.far.title) == 1 and chain.near.title not in chain.far.context
        for hop, gold in zip(chain.hops, chain.far.questions, strict=True):
            assert gold.question in [form.format(n=chain.far.title) for form in hop.ask]
            assert gold.answer in chain.far.context and gold.answer not in chain.near.context


def test_a_longer_list_begins_with_the_shorter_one_and_no_name_comes_twice() -> None:
    assert fresh_chains("eval", 4, seed=100) == CHAINS[:4]
    names = [task.title for chain in CHAINS for task in (chain.near, chain.far)]
    assert len(set(names)) == len(names) == 16


def test_a_two_step_question_names_near_alone_and_the_second_step_whoever_was_found() -> None:
    chain = CHAINS[3]
    assert (chain.bridge.name, chain.hops[0].name) == ("winner", "birthplace")
    chain = replace(chain, near=replace(chain.near, title="X"), order=((1, 2, 0), *chain.order[1:]))
    assert chain.first(1) == "Who was the winner of X?"
    assert chain.second(0, "Zed", 0) == "What is the birthplace of Zed?"
    assert [chain.whole(0, form) for form in (0, -1)] == [
        "What is the birthplace of the winner of X?",
        "Where was the winner of X born?",
    ]
    assert chain.link("Zed") == "The winner of X was Zed."
    assert replace(chain, far=replace(chain.far, title="Y")).note(0, "Zork") == "The birthplace of Y is Zork."


# ── what is trained on ──


def sample(text: str) -> Sample:
    return Sample("", (), (), (), text, "eos")


def test_own_questions_count_once_and_their_written_answers_are_not_learnt() -> None:
    drawn = [sample("Who is Ann?\nAnswer: A\nQuestion 2: Where is Ann?\nAnswer: B"), sample("Who is Ann?\nAnswer: C")]
    questions = own_questions(drawn)
    assert questions == ["Who is Ann?", "Where is Ann?"]
    examples = study(CHAINS[0].near, questions, ["read 1", "read 2"])
    assert [example.text for example in examples] == ["read 1", "read 2"]
    assert all(f"Topic: {CHAINS[0].near.title}\n{q}" in e.prompt for q, e in zip(questions, examples, strict=True))


@pytest.mark.parametrize(
    ("values", "kept"),
    [("aab", "a0"), ("baa", "a1"), ("aba", "a0"), ("abc", None), ("aaa", "a0"), ("", None), ("a", None)],
)
def test_a_chain_is_kept_where_two_phrasings_end_alike(values: str, kept: str | None) -> None:
    found = agreed([Told(str(i), value) for i, value in enumerate(values)])
    assert (found and found.value + found.who) == kept


def test_chains_that_end_in_nothing_are_not_kept() -> None:
    assert agreed([Told("a", ""), Told("b", ""), Told("c", "x")]) is None


def told_of(chain: Chain, name: str) -> list[Told | None]:
    return [Told(f"who {name}", f"{name}{q}") for q in range(len(chain.hops))]


def test_every_other_question_is_distilled_in_all_phrasings_but_the_last() -> None:
    chain = CHAINS[0]
    told_Q = told_of(chain, "v")
    told_Q[2] = None
    taught = [q for q in range(0, len(chain.hops), 2) if q != 2]
    answers, chains = (distilled(chain, told_Q, form) for form in ("answers", "chains"))
    assert [e.text for e in answers] == [f"v{q}" for q in taught for _ in (0, 1)]
    assert [e.text for e in chains] == [f"who v. v{q}" for q in taught for _ in (0, 1)]
    asked = [e.prompt.splitlines()[-2] for e in answers]
    assert asked == [e.prompt.splitlines()[-2] for e in chains]
    assert asked == [chain.whole(q, form) for q in taught for form in (0, 1)]
    assert not set(asked) & {question.question for question in chain.exam(-1)}


def test_a_control_learns_as_many_chains_of_the_same_sort_which_are_anothers() -> None:
    told_CQ = [told_of(chain, f"{c}-") for c, chain in enumerate(CHAINS)]
    dealt_CQ = dealt_on(CHAINS, told_CQ)
    moved = 0
    for c, (chain, dealt_Q) in enumerate(zip(CHAINS, dealt_CQ, strict=True)):
        for q, dealt in enumerate(dealt_Q):
            assert q % 2 == 0 or dealt is None
            if dealt:
                other, place = map(int, dealt.value.split("-"))
                assert other != c and CHAINS[other].hops[place] == chain.hops[q]
                moved += 1
    assert moved > 15
    assert dealt_on(CHAINS[:1], told_CQ[:1]) == [[None] * len(CHAINS[0].hops)]


@pytest.mark.parametrize(
    ("answer", "end"), [("Karstel", "Karstel"), ("Tavo Merin. Karstel", "Karstel"), ("", ""), ("A. B. 3 May ", "3 May")]
)
def test_the_answer_is_the_end_of_a_chain(answer: str, end: str) -> None:
    assert final(answer) == end


# ── the second step ──


def test_each_view_of_the_second_step_shows_what_it_says() -> None:
    chain = CHAINS[3]
    notes_Q = [f"note {q}" for q in range(len(chain.hops))]
    seen = {view: midway.second_prompts(chain, view, notes_Q, "Zed") for view in (*midway.VIEWS, midway.IN_VIEW)}
    for q in range(len(chain.hops)):
        at = {view: prompts[q] for view, prompts in seen.items()}
        others = [note for note in notes_Q if note != notes_Q[q]]
        assert sum(note in at["other-note"] for note in others) == 1 and notes_Q[q] not in at["other-note"]
        assert notes_Q[q] in at["needed-note"] and not any(note in at["needed-note"] for note in others)
        for view in ("no-note", "direct", "in-view"):
            assert not any(note in at[view] for note in notes_Q)
        for view in ("other-note", "needed-note"):
            assert chain.link("Zed") in at[view]
        assert [view for view, prompt in at.items() if chain.far.context in prompt] == ["in-view"]
        assert [view for view, prompt in at.items() if "Zed" not in prompt] == ["direct"]
        assert chain.whole(q, -1) in at["direct"]


# ── no gold answer goes into anything ──


@dataclass
class Parrot(FakeEngine):
    """Answers every prompt with words of its own, made of the prompt, and asks one question of every passage."""

    def _write(self, job: SampleJob, draw: int) -> Sample:
        is_exam = job.prompt.rstrip().endswith("Question 1:")
        return sample(f"Who is {_own(job.prompt)}?\nAnswer: nobody" if is_exam else f"It is {_own(job.prompt)}.")

    def _reply(self, prompt: str, adapter: Adapter | None) -> str:
        return _own(prompt)


def _own(prompt: str) -> str:
    return f"W{hashlib.sha256(prompt.encode()).hexdigest()[:5]}"


def bench_of(engine: FakeEngine, chains: Sequence[Chain], folder: Path) -> Bench:
    recipe = load_recipe("world-thinking", SMALL)
    domain = over_world(recipe.format, recipe.inner, recipe.split_lines)
    run = open_run(folder, recipe, engine.base)
    return Bench(recipe, domain, engine, load_grader("exact"), run, chains, lambda key: None)


def with_gold(chain: Chain, gold: str) -> Chain:
    def spoilt(questions: Sequence[object]) -> tuple[object, ...]:
        return tuple(replace(q, answer=f"{gold}{i}") for i, q in enumerate(questions))  # type: ignore[type-var]

    near, far = (replace(task, questions=spoilt(task.questions)) for task in (chain.near, chain.far))  # type: ignore[arg-type]
    return replace(chain, near=near, far=far)


@dataclass
class Consistent(Parrot):
    """A parrot whose chains agree, so that they are distilled; it keeps what it was asked, and what it was to learn."""

    seen: list[str] = field(default_factory=list)
    learnt: list[str] = field(default_factory=list)

    def _encode(self, example: Example, settings: TrainSettings) -> Datum:
        self.learnt.append(example.prompt + example.text)
        return super()._encode(example, settings)

    def _reply(self, prompt: str, adapter: Adapter | None) -> str:
        self.seen.append(prompt)
        return "Wend" if adapter else _own(prompt)


def used(chains: Sequence[Chain], folder: Path) -> tuple[list[str], list[str]]:
    """Run both parts; return all texts that were trained on and all prompts."""
    engine = Consistent()
    bench = bench_of(engine, chains, folder)
    with bench.run:
        midway.midway(bench)
        afterwards.afterwards(bench)
    return engine.learnt, engine.seen


def test_gold_answers_change_nothing_that_is_trained_on_or_asked(tmp_path: Path) -> None:
    true = used(CHAINS[:4], tmp_path / "true")
    false = used([with_gold(chain, "Zork") for chain in CHAINS[:4]], tmp_path / "false")
    assert true == false
    trained, asked = false
    assert len(trained) > 20 and len(asked) > 200
    assert not any("Zork" in text for text in (*trained, *asked))


def test_no_examined_question_is_trained_on(tmp_path: Path) -> None:
    trained, _ = used(CHAINS[:4], tmp_path)
    whole = {chain.whole(q, f) for chain in CHAINS[:4] for q in range(0, len(chain.hops), 2) for f in (0, 1)}
    assert {question for question in whole if any(question in text for text in trained)} == whole
    examined = [question.question for chain in CHAINS[:4] for question in chain.exam(-1)]
    held_out = [chain.whole(q, f) for chain in CHAINS[:4] for q in range(1, len(chain.hops), 2) for f in range(3)]
    one_step = [q.question for chain in CHAINS[:4] for task in (chain.near, chain.far) for q in task.questions]
    assert not any(question in text for question in (*examined, *held_out, *one_step) for text in trained)


def test_the_second_step_is_asked_of_whoever_the_model_found(tmp_path: Path) -> None:
    engine = Consistent()
    bench = bench_of(engine, CHAINS[:2], tmp_path)
    with bench.run:
        midway.go_on(bench, "passage", [["note"] * len(chain.hops) for chain in CHAINS[:2]])
    second = [prompt for job in engine.answered for prompt in job.prompts if CHAINS[0].second(0, "Wend", -1) in prompt]
    assert len(second) == 3  # in every view but the direct one
    assert not any(CHAINS[0].second(0, CHAINS[0].far.title, -1) in prompt for prompt in engine.seen)


def test_a_control_is_trained_on_what_others_chains_led_to(tmp_path: Path) -> None:
    told_CQ = [told_of(chain, f"{c}-") for c, chain in enumerate(CHAINS[:4])]
    engine = Consistent()
    bench = bench_of(engine, CHAINS[:4], tmp_path)
    with bench.run:
        afterwards.distil(bench, "shuffled-answers", "answers", dealt_on(CHAINS[:4], told_CQ), told_CQ, [None] * 4)
    (trained,) = [["".join(map(chr, datum.tokens)) for datum in job.data] for job in engine.trained if job.data][:1]
    assert trained and not any(text.startswith(("0-", "2-")) for text in trained)  # nobody else has a far of their kind


def test_chains_are_distilled_on_top_of_what_was_taught_and_by_their_answers_alone(tmp_path: Path) -> None:
    engine = Consistent()
    bench = bench_of(engine, CHAINS[:4], tmp_path)
    with bench.run:
        afterwards.afterwards(bench)
    taught, others = engine.trained[:2], engine.trained[2:]  # two chains share an adapter
    assert [job.under for job in taught] == [None, None] and {job.settings.loss_on for job in taught} == {"all"}
    assert len({job.under for job in others}) == 2 and None not in {job.under for job in others}
    assert {job.settings for job in others} == {replace(bench.recipe.outer.train, loss_on="completion")}


def test_an_update_that_fails_is_told_and_what_was_measured_is_kept(tmp_path: Path) -> None:
    engine = Consistent()
    engine.train = lambda jobs: [Failure("train", "OutOfMemoryError", "no memory left") for _ in jobs]  # type: ignore[method-assign]
    bench = bench_of(engine, CHAINS[:2], tmp_path)
    with (
        bench.run,
        pytest.raises(RunError, match=r"'midway/passage' failed: no memory left; what was measured is kept"),
    ):
        midway.midway(bench)
    assert {trial.key.split("/")[1] for trial in read_trials(tmp_path).values()} == {"none"}


# ── the report ──


def trial(arm: str, id: str, values: Sequence[float | None], **measures: float | None) -> Trial:
    scores = tuple(Score(value, "") for value in values)
    return Trial(f"{arm}/{id}", id, 0, 0, 0, None, None, (), scores, None, None, {"seconds": 1.0}, None, measures)


def test_questions_for_distilling_and_held_out_ones_are_told_apart() -> None:
    trials = [
        trial("afterwards/answers", "a", (1.0, 0.0, None, 1.0), **{"one-step": 0.5}),
        trial("afterwards/shuffled-answers", "a", (0.0, 0.0, 0.0, 0.0)),
    ]
    assert marks(trials, "afterwards/answers", ALL) == {"a": [1.0, 0.0, None, 1.0]}
    assert marks(trials, "afterwards/answers", TAUGHT) == {"a": [1.0, None]}
    assert marks(trials, "afterwards/answers", HELD_OUT) == {"a": [0.0, 1.0]}
    assert marks(trials, "afterwards/answers", "one-step") == {"a": [0.5]}
    assert marks(trials, "afterwards/shuffled-answers", "one-step") == {}


def test_differences_are_paired_by_passage_and_by_seed() -> None:
    arms = ("midway/none/direct", "midway/edit/direct")
    seeds = [
        [trial(arms[0], "a", (0.0, 0.0)), trial(arms[1], "a", (1.0, 0.0)), trial(arms[1], "alone", (1.0, 1.0))],
        [trial(arms[0], "b", (1.0, 0.0)), trial(arms[1], "b", (0.0, 0.0))],
        [trial(arms[0], "c", (0.0, 0.0)), trial(arms[1], "c", (1.0, 1.0))],
    ]
    found = report._difference(*arms, ALL, seeds)
    assert found.by_seed.values == (0.5, -0.5, 1.0)
    assert found.by_passage.difference == pytest.approx(1 / 3) and found.by_passage.n == 3
    assert report._difference(*arms, ALL, [*seeds, []]).by_seed.values == (0.5, -0.5, 1.0, None)


# ── the whole ──


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, list(program.run(load_recipe("world-thinking", SMALL), folder, "cpu", lambda done, total: None))


def test_the_whole_runs_and_compares_every_arm(finished: tuple[Path, list[str]]) -> None:
    folder, lines = finished
    trials = read_trials(folder / "seed-100")
    arms = [*(f"midway/{arm}" for arm in midway.ARMS), *(f"afterwards/{arm}" for arm in afterwards.ARMS)]
    assert sorted({key.rpartition("/")[0] for key in trials}) == sorted(arms)
    assert {trial.task_id for trial in trials.values()} == {"eval-100-000", "eval-100-001"}
    result = json.loads((folder / "report.json").read_text())
    reading = {cell["arm"]: cell["value"]["mean"] for cell in result["cells"] if cell["what"] == ALL}
    assert reading["midway/none/in-view"] > 0.9 > 0.1 > reading["midway/none/direct"]
    assert all(d["by_passage"]["n"] == 2 for d in result["differences"])
    assert lines == list(table(summarise([folder / "seed-100"])))
    assert (
        lines[0]
        == f"2 pairs of passages, {sum(len(chain.hops) for chain in CHAINS[:2])} two-step questions; in percent"
    )


def test_a_killed_run_goes_on_to_the_same_trials(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    there = finished[0] / "seed-100"
    (tmp_path / "seed-100").mkdir()
    for name in ("recipe.json", "samples.jsonl", "trials.jsonl"):
        rows = (there / name).read_bytes().splitlines(keepends=True)
        kept = rows if name == "recipe.json" else rows[: 2 * len(rows) // 3]
        (tmp_path / "seed-100" / name).write_bytes(b"".join(kept))
    heard: list[tuple[int, int]] = []
    lines = list(program.run(load_recipe("world-thinking", SMALL), tmp_path, "cpu", lambda *done: heard.append(done)))
    first, second = (read_trials(folder / "seed-100") for folder in (finished[0], tmp_path))
    assert {key: plain(trial) for key, trial in second.items()} == {key: plain(trial) for key, trial in first.items()}
    assert heard[-1] == (46, 46) and [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert lines[:-1] == finished[1][:-1]


def test_selfedit_run_runs_it_and_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], finished: tuple[Path, list[str]]
) -> None:
    monkeypatch.setattr(LocalBackend, "train", lambda self, jobs: pytest.fail("something was trained again"))
    monkeypatch.setattr(LocalBackend, "answer", lambda self, jobs: pytest.fail("something was asked again"))
    command = ["selfedit", "run", "world-thinking", *SMALL, "--out", str(finished[0]), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", command)
    main()
    assert "afterwards/answers - afterwards/direct" in capsys.readouterr().out


def test_a_folder_of_another_number_of_chains_is_refused(finished: tuple[Path, list[str]]) -> None:
    with pytest.raises(RunError, match="2 chains"):
        list(program.run(load_recipe("world-thinking", [*SMALL, "n=4"]), finished[0], "cpu", lambda *done: None))


def test_it_is_listed_and_a_setting_that_means_nothing_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "run_seed", lambda *given: pytest.fail("it was run all the same"))
    assert "chain of thought" in dict(list_recipes())["world-thinking"]
    assert load_program(RECIPE) is program.run
    with pytest.raises(ConfigError, match="eval_repeats is 2"):
        list(program.run(replace(RECIPE, eval_repeats=2), tmp_path, "cpu", lambda *done: None))


def test_examined_answers_are_read_off_the_end_of_a_chain_and_compared_with_the_models_own() -> None:
    told: list[Told | None] = [Told("w", "a"), Told("w", "b"), None, None, Told("w", "c")]
    assert afterwards.agreement(["a", "x", "y", "z", "d"], told) == 0.5  # those for distilling: the first, third, fifth
    assert afterwards.agreement(["a"], [None]) is None
