from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfedit.errors import InputError
from selfedit.sources.arc import read_arc
from selfedit.tasks.arc import demonstrations_of, grade

PAIR = {"input": [[0, 1]], "output": [[1, 0]]}
TASK = {"train": [PAIR, {"input": [[2]], "output": [[3]]}], "test": [{"input": [[5, 6]], "output": [[6, 5]]}]}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def challenges(folder: Path, name: str = "training", **changed: Any) -> Path:
    """Write Kaggle's pair of files: two tasks, and whatever else is given."""
    asked = {"train": TASK["train"], "test": [{"input": [[5, 6]]}, {"input": [[7, 8]]}]}
    content = {"aa": asked, "bb": asked} | changed
    write(folder / f"arc-agi_{name}_solutions.json", {"aa": [[[6, 5]], [[8, 7]]], "bb": [[[6, 5]], [[8, 7]]]})
    return write(folder / f"arc-agi_{name}_challenges.json", content)


def test_challenges_are_read_with_the_solutions_beside_them(tmp_path: Path) -> None:
    found = read_arc(challenges(tmp_path))
    assert [task.id for task in found.tasks] == ["aa", "bb"] and not found.bad
    task = found.tasks[0]
    assert [len(pair.input[0]) for pair in demonstrations_of(task)] == [2, 1]
    assert [(question.question, question.answer) for question in task.questions] == [
        ("[[5, 6]]", "[[6, 5]]"),
        ("[[7, 8]]", "[[8, 7]]"),
    ]
    assert [score.value for score in grade(task.questions, ["[[6 5]]", "[[8 7]]"])] == [1.0, 1.0]


def test_of_several_test_grids_the_first_alone_is_rewarded(tmp_path: Path) -> None:
    task = read_arc(challenges(tmp_path)).tasks[0]
    assert [question.role for question in task.questions] == ["exam", "given"]


def test_a_folder_with_a_task_a_file_is_read_with_its_splits(tmp_path: Path) -> None:
    write(tmp_path / "data" / "training" / "aa.json", TASK)
    write(tmp_path / "data" / "evaluation" / "bb.json", TASK)
    found = {task.id: task for task in read_arc(tmp_path).tasks}
    assert {id: task.meta["split"] for id, task in found.items()} == {
        "data/training/aa": "train",
        "data/evaluation/bb": "eval",
    }
    assert [task.id for task in read_arc(tmp_path / "data" / "training").tasks] == ["aa"]
    assert read_arc(tmp_path / "data" / "training").tasks[0].meta["split"] == "train"
    assert read_arc(challenges(tmp_path / "kaggle", "evaluation")).tasks[0].meta == {"split": "eval"}


def test_a_folder_of_concepts_names_the_kind_of_its_tasks(tmp_path: Path) -> None:
    write(tmp_path / "AboveBelow" / "AboveBelow1.json", TASK)
    write(tmp_path / "Center" / "Center1.json", TASK)
    tasks = read_arc(tmp_path).tasks
    assert [(task.id, task.meta) for task in tasks] == [
        ("AboveBelow/AboveBelow1", {"kind": "AboveBelow"}),
        ("Center/Center1", {"kind": "Center"}),
    ]
    assert tasks[0].questions[0].kind == "AboveBelow"


def test_one_task_is_read_from_its_file(tmp_path: Path) -> None:
    (task,) = read_arc(write(tmp_path / "aa.json", TASK)).tasks
    assert task.id == "aa" and task.questions[0].answer == "[[6, 5]]"


def changed(**values: Any) -> dict[str, Any]:
    return {**TASK, **values}


BAD = [
    (changed(train=[]), "the task 'x' has no demonstrations; expected"),
    (changed(train=7), "the task 'x' has no demonstrations"),
    (changed(test=[]), "the task 'x' has no test inputs"),
    (changed(test=[{"input": [[1]]}]), "the task 'x' has no solution to its test input 1; put the file of solutions"),
    (changed(train=[{"input": [[1]]}]), "output 1 of the task 'x' is no grid"),
    (changed(train=[PAIR, {**PAIR, "output": []}]), "output 2 of the task 'x' is no grid"),
    (changed(train=[{**PAIR, "input": [[]]}]), "input 1 of the task 'x' is no grid"),
    (changed(train=[{**PAIR, "input": [[1], [1, 2]]}]), "input 1 of the task 'x' is ragged: its rows have 1, 2 cells"),
    (changed(train=[{**PAIR, "input": [[10]]}]), "input 1 of the task 'x' holds 10, which is no colour 0 to 9"),
    (changed(train=[{**PAIR, "input": [[-1]]}]), "input 1 of the task 'x' holds -1"),
    (changed(train=[{**PAIR, "input": [[1.0]]}]), r"input 1 of the task 'x' holds 1\.0"),
    (changed(train=[{**PAIR, "input": [[True]]}]), "input 1 of the task 'x' holds True"),
    (changed(train=[{**PAIR, "input": ["012"]}]), "input 1 of the task 'x' is no grid"),
    (
        changed(test=[{"input": [[0]] * 31, "output": [[0]]}]),
        "test input 1 of the task 'x' has 31 by 1 cells, more than",
    ),
    (changed(test=[{"input": [[0]], "output": [[0] * 31]}]), "solution 1 of the task 'x' has 1 by 31 cells"),
    ([], "holds no task; expected"),
    ("{", "is not JSON"),
]


@pytest.mark.parametrize(("content", "said"), BAD)
def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_arc(write(tmp_path / "x.json", content))


@pytest.mark.parametrize(("content", "said"), BAD)
def test_what_cannot_be_used_is_left_out_and_named_and_the_rest_goes_on(
    tmp_path: Path, content: Any, said: str
) -> None:
    write(tmp_path / "good.json", TASK)
    write(tmp_path / "x.json", content)
    found = read_arc(tmp_path, skip_bad=True)
    assert [task.id for task in found.tasks] == ["good"] and len(found.bad) == 1


def test_a_bad_challenge_among_good_ones_is_left_out_alone(tmp_path: Path) -> None:
    found = read_arc(challenges(tmp_path, cc={"train": [], "test": []}, dd=7), skip_bad=True)
    assert [task.id for task in found.tasks] == ["aa", "bb"]
    assert ["'cc' has no demonstrations" in found.bad[0], "'dd' is no object" in found.bad[1]] == [True, True]


def test_challenges_without_a_solution_are_refused(tmp_path: Path) -> None:
    path = challenges(tmp_path, cc={"train": TASK["train"], "test": [{"input": [[1]]}]})
    with pytest.raises(InputError, match="the task 'cc' has no solution to its test input 1"):
        read_arc(path)
    path.with_name("arc-agi_training_solutions.json").unlink()
    with pytest.raises(InputError, match="the task 'aa' has no solution"):
        read_arc(path)


def test_nothing_usable_is_an_error_even_where_the_bad_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no task of .* can be used: the task 'x' has no demonstrations"):
        read_arc(write(tmp_path / "x.json", changed(train=[])), skip_bad=True)
    with pytest.raises(InputError, match=r"no folder with \.json files"):
        read_arc(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no folder with \.json files"):
        read_arc(tmp_path / "empty")
    with pytest.raises(InputError, match="no task is in"):
        read_arc(write(tmp_path / "none" / "challenges.json", {}))


def test_the_same_task_in_two_files_is_refused(tmp_path: Path) -> None:
    challenges(tmp_path, "training")
    challenges(tmp_path, "training_filtered")
    with pytest.raises(InputError, match=r"the task 'aa' is in .* and in another file; name one of them"):
        read_arc(tmp_path)
