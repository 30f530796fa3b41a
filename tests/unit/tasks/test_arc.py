from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from selfedit.errors import BadEdit, ConfigError, InputError
from selfedit.loop.inner import plan, run_trials
from selfedit.tasks.arc import (
    MOST_STEPS,
    STRATEGIES,
    demonstrations_of,
    grade,
    over_tasks,
    read_choice,
    to_task,
    write_choice,
)
from selfedit.tasks.arc_augment import TOOLS, practice
from selfedit.tasks.arc_grids import Pair, flip, to_grid, write_grid
from selfedit.tasks.base import load_domain
from selfedit.tasks.graders import load_grader
from selfedit.types import ExamSettings, Failure, Question, Sample, Task, TrainSettings
from tests.unit.conftest import FakeEngine

TRAIN = TrainSettings(batch_size=2, learning_rate=1e-4, epochs=2)
GOOD = write_choice(("basic", "chain"), "train_using_output_tokens", 2e-4, 3)


def pair(*digits: int) -> Pair:
    grid = to_grid([digits[:2], digits[2:]])
    return Pair(grid, flip(grid, 1))


SHOWN = [pair(1, 0, 2, 3), pair(0, 4, 5, 5), pair(6, 7, 0, 0)]
TASK = to_task("mirror", SHOWN, [pair(8, 0, 0, 9), pair(1, 2, 3, 4)], {"kind": "flips"})


def written(text: str) -> Sample:
    return Sample("", (), (), (), text, "eos")


def choice(**changed: Any) -> dict[str, Any]:
    """Return a good choice with values changed, by their keys in one of the two tables; ... takes a key out."""
    made: dict[str, Any] = json.loads(GOOD)
    for key, value in changed.items():
        table = next((made[name] for name in ("data_generation", "training") if key in made[name]), made["training"])
        table[key] = value
        if value is ...:
            del table[key]
    return made


# ── Tasks and prompts ──


def test_a_task_holds_its_demonstrations_as_context_and_its_test_grids_as_questions() -> None:
    assert demonstrations_of(TASK) == tuple(SHOWN)
    assert json.loads(TASK.questions[0].question) == [[8, 0], [0, 9]]
    assert json.loads(TASK.questions[0].answer) == [[0, 8], [9, 0]]
    assert TASK.questions[0].kind == "flips"


def test_of_several_test_grids_the_first_alone_is_rewarded() -> None:
    assert [question.role for question in TASK.questions] == ["exam", "given"]


@pytest.mark.parametrize("context", ["The river is.", "[1]", '[{"input": [[1]]}]', '[{"input": 1, "output": 2}]'])
def test_a_task_of_prose_is_no_task_of_grids(context: str) -> None:
    with pytest.raises(InputError, match="'T' is no task of grids"):
        demonstrations_of(Task("T", "T", context))


def test_the_exam_shows_the_demonstrations_and_asks_for_every_test_grid() -> None:
    first, second = over_tasks([TASK], "tools", TRAIN).exam(TASK)
    assert first.startswith("Input:\n[[1 0]\n [2 3]]\nOutput:\n[[0 1]\n [3 2]]\n\nInput:\n")
    assert first.endswith("\n\nInput:\n[[8 0]\n [0 9]]\nOutput:\n")
    assert second.endswith("\n\nInput:\n[[1 2]\n [3 4]]\nOutput:\n")
    assert first.count("Input:") == 4


def test_an_open_exam_shows_the_demonstrations_of_the_task_beside_the_question() -> None:
    domain, other = over_tasks([TASK], "tools", TRAIN), to_task("other", SHOWN[:1], [pair(1, 1, 1, 0)], {})
    own, others = domain.open_exam(TASK, [TASK, other])
    assert own == domain.exam(TASK)[0]
    assert others.count("Input:") == 2 and others.endswith("Input:\n[[1 2]\n [3 4]]\nOutput:\n")


def test_the_writer_sees_the_demonstrations_and_every_tool() -> None:
    prompt = over_tasks([TASK], "tools", TRAIN).prompt(TASK)
    assert "Input:\n[[1 0]\n [2 3]]\nOutput:\n[[0 1]\n [3 2]]" in prompt
    assert all(f"use_{tool}_augmentations" in prompt for tool in TOOLS) and all(each in prompt for each in STRATEGIES)
    assert "[0 9]" not in prompt  # nothing of what is asked
    assert prompt.endswith("Choice:\n")


def test_a_template_takes_the_place_of_the_prompt() -> None:
    domain = over_tasks([TASK], "tools", TRAIN, "{title}?\n{passage}\nJSON:")
    assert domain.prompt(TASK).startswith("mirror?\nInput:\n[[1 0]") and domain.prompt(TASK).endswith("\nJSON:")


def test_there_is_one_format_for_grids() -> None:
    with pytest.raises(ConfigError, match="unknown format 'rewrite' for tasks of grids; known: tools"):
        load_domain("arc", "rewrite", TRAIN)


def test_tasks_that_name_a_split_stay_in_it_and_others_are_parted_by_a_shuffle() -> None:
    named = [replace(TASK, id=f"{split}{i}", meta={"split": split}) for split in ("train", "eval") for i in range(5)]
    domain = over_tasks(named, "tools", TRAIN)
    assert sorted(task.id for task in domain.tasks("eval", 9, seed=0)) == [f"eval{i}" for i in range(5)]
    orders = [[task.id for task in domain.tasks("train", 5, seed)] for seed in (0, 1)]
    assert orders[0] != orders[1] and set(orders[0]) == set(orders[1])
    unnamed = over_tasks([replace(TASK, id=str(i)) for i in range(9)], "tools", TRAIN)
    parts = [[task.id for task in unnamed.tasks(split, 4, seed=0)] for split in ("train", "eval")]
    assert len({*parts[0], *parts[1]}) == 8


# ── Self-edits ──


def test_a_choice_becomes_the_practice_sets_of_its_tools_and_its_settings() -> None:
    edit = over_tasks([TASK], "tools", TRAIN).parse(TASK, written(GOOD))
    sets = practice(SHOWN, {"basic", "chain"}, seed=0)
    assert len(edit.examples) == len(sets) > 100
    assert edit.train == replace(TRAIN, learning_rate=2e-4, epochs=3, loss_on="completion")
    assert [example.text for example in edit.examples] == [write_grid(each.asked.output) for each in sets]
    assert edit.examples[0].prompt.endswith(f"Input:\n{write_grid(sets[0].asked.input)}\nOutput:\n")
    assert edit.examples[0].prompt.count("Input:") == 1 + len(sets[0].shown)


def test_all_tokens_or_those_of_the_output_are_learnt() -> None:
    losses = {strategy: read_choice(write_choice((), strategy, 1e-4, 1), TRAIN)[1].loss_on for strategy in STRATEGIES}
    assert losses == {"train_using_all_tokens": "all", "train_using_output_tokens": "completion"}


def test_every_combination_of_tools_is_read_back() -> None:
    for number in range(16):
        tools = {tool for place, tool in enumerate(TOOLS) if number >> place & 1}
        assert read_choice(write_choice(sorted(tools), "train_using_all_tokens", 1e-4, 1), TRAIN)[0] == tools


@pytest.mark.parametrize("text", [f"\n {GOOD}\n", f"```json\n{GOOD}\n```", f"```\n{GOOD}\n```\n"])
def test_white_space_and_a_fence_are_forgiven(text: str) -> None:
    assert read_choice(text, TRAIN) == read_choice(GOOD, TRAIN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the choice is not JSON"),
        ("Use rotations.", "the choice is not JSON"),
        (GOOD[:-1], "the choice is not JSON"),
        (f"{GOOD} I chose this because", "the choice is not JSON: Extra data"),
        (f"Here it is: {GOOD}", "the choice is not JSON"),
        (GOOD.replace("2e-4", "x").replace("0.0002", "NaN"), "NaN is no number of JSON"),
        (GOOD.replace('"strategy"', '"num_train_epochs": 1, "strategy"'), "a key is there twice"),
        ("[" * 100_000, "the choice is not JSON"),
        ("9" * 5000, "the choice is not JSON"),
        ("[]", "the choice is a JSON list; expected an object"),
        ("{}", "the choice lacks 'data_generation'"),
        ('{"data_generation": [], "training": {}}', "'data_generation' is .*; expected an object"),
        (json.dumps({**choice(), "note": ""}), "unknown key 'note' in the choice"),
        (json.dumps(choice(learning_rat=1)), "unknown key 'learning_rat' in 'training'; did you mean 'learning_rate'"),
        (json.dumps(choice(strategy=...)), "'training' lacks 'strategy'"),
        (json.dumps(choice(use_size_augmentations=...)), "'data_generation' lacks 'use_size_augmentations'"),
        (json.dumps(choice(use_size_augmentations=1)), "'use_size_augmentations' is 1; expected true or false"),
        (json.dumps(choice(strategy="train")), "unknown strategy 'train'"),
        (json.dumps(choice(strategy=["train_using_all_tokens"])), "unknown strategy"),
        (json.dumps(choice(learning_rate=0)), "'learning_rate' is 0; expected a number above 0, at most 0.1"),
        (json.dumps(choice(learning_rate=1)), "'learning_rate' is 1;"),
        (json.dumps(choice(learning_rate="1e-4")), "'learning_rate' is '1e-4'"),
        (json.dumps(choice(learning_rate=True)), "'learning_rate' is True"),
        (json.dumps(choice(num_train_epochs=0)), "'num_train_epochs' is 0; expected a whole number from 1 to 100"),
        (json.dumps(choice(num_train_epochs=101)), "'num_train_epochs' is 101"),
        (json.dumps(choice(num_train_epochs=2.0)), "'num_train_epochs' is 2.0"),
        (json.dumps(choice(num_train_epochs=True)), "'num_train_epochs' is True"),
    ],
)
def test_a_choice_that_cannot_be_used_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(BadEdit, match=said):
        read_choice(text, TRAIN)


def test_a_choice_that_would_train_for_too_long_is_refused() -> None:
    domain = over_tasks([TASK], "tools", TRAIN)
    sets = len(practice(SHOWN, (), seed=0))
    assert sets == 10
    most = MOST_STEPS // (sets // 2)
    domain.parse(TASK, written(write_choice((), "train_using_all_tokens", 1e-4, most)))
    many = len(practice(SHOWN, {"basic", "chain"}, seed=0))
    epochs = MOST_STEPS // -(-many // 2) + 1
    with pytest.raises(BadEdit, match=f"for {epochs} epochs take .* steps, more than 375"):
        domain.parse(TASK, written(write_choice(("basic", "chain"), "train_using_all_tokens", 1e-4, epochs)))


def test_without_a_writer_the_demonstrations_are_practised_as_they_are() -> None:
    edit = over_tasks([TASK], "tools", TRAIN).without_edit(TASK)
    assert edit.train == TRAIN and edit.sample is None
    assert len(edit.examples) == len(practice(SHOWN, (), seed=0))


# ── Marks ──


def marks(gold: str, *answers: str) -> list[tuple[float | None, str]]:
    return [(score.value, score.why) for score in load_grader("grid")([Question("?", gold)] * len(answers), answers)]


def test_only_the_very_grid_is_right() -> None:
    assert marks("[[1, 2], [3, 4]]", "[[1 2]\n [3 4]]", "[[1 2] [3 5]]", "[[1 2 3]]") == [
        (1.0, ""),
        (0.0, "1 of 4 cells differ"),
        (0.0, "the grid has 1 by 3 cells, not 2 by 2"),
    ]


def test_an_answer_that_is_no_grid_is_wrong_and_says_why() -> None:
    assert marks("[[1]]", "no idea", "[[1 2] [3]]") == [
        (0.0, "the grid is missing: no rows in brackets, as in [[0 1] [2 3]]"),
        (0.0, "the grid is ragged: row 1 has 2 cells and row 2 has 1"),
    ]


def test_a_gold_answer_that_is_no_grid_measures_nothing() -> None:
    ((value, why),) = marks("Otrar", "[[1]]")
    assert value is None and why.startswith("the gold answer is no grid: ")


# ── In the inner loop ──


def test_what_is_too_long_for_the_model_or_bad_fails_alone_and_is_told() -> None:
    large = to_task("large", [Pair(to_grid([[1] * 30] * 30), to_grid([[2] * 30] * 30))] * 2, [pair(1, 2, 3, 4)], {})
    bad = Task("prose", "prose", "no grids", TASK.questions)
    domain = over_tasks([TASK, large, bad], "tools", TRAIN)
    samples = [[written(GOOD), written("nonsense")], [written(GOOD)], [written(GOOD)]]
    units = plan([TASK, large, bad], samples, "train", 1, 0)
    engine = FakeEngine([TASK, large], context=1000)
    trials = list(run_trials(units, domain, None, engine, grade, ExamSettings(grader="grid")))
    assert [trial.failure and (trial.failure.stage, trial.failure.kind) for trial in trials] == [
        None,
        ("parse", "BadEdit"),
        ("encode", "InputError"),
        ("parse", "InputError"),
    ]
    assert [trial.reward for trial in trials] == [0.0, 0.0, None, None]
    assert isinstance(trials[2].failure, Failure) and "do not fit" in trials[2].failure.message
    assert "is no task of grids" in (trials[3].failure or Failure("parse", "", "")).message
