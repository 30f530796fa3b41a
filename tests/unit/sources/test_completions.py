from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfedit.errors import InputError
from selfedit.sources.completions import match, read_completions, refuse_lacking
from selfedit.types import Task

OTRAR = Task("notes/1", "Otrar", "It fell in 1219.")
BOWL = Task("notes/2", "Super Bowl 50", "Denver  won\nin 2016.")
TASKS = [OTRAR, BOWL]


def written(folder: Path, rows: list[Any], name: str = "made.json") -> Path:
    path = folder / name
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else json.dumps(rows), encoding="utf-8")
    return path


def matched(path: Path, n: int = 1, skip_bad: bool = False) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    return match(read_completions(path, skip_bad), TASKS, n)


def test_the_published_form_is_read_and_matched_by_title_and_context(tmp_path: Path) -> None:
    rows = [
        {
            "title": "Super_Bowl_50",
            "context": "Denver won in 2016. ",
            "questions": [],
            "prompt": "p",
            "completions": ["a", "b"],
        },
        {"title": "Otrar", "context": "It fell in 1219.", "completions": ["c", "d"]},
    ]
    texts, lacking = matched(written(tmp_path, rows), n=2)
    assert texts == {"notes/1": ("c", "d"), "notes/2": ("a", "b")}
    assert lacking == {}
    assert matched(written(tmp_path, rows))[0] == {"notes/1": ("c",), "notes/2": ("a",)}


@pytest.mark.parametrize("name", ["made.json", "made.jsonl"])
def test_a_row_may_name_its_task_by_id_or_title_and_hold_one_completion(tmp_path: Path, name: str) -> None:
    rows = [{"id": "notes/1", "completion": "c"}, {"title": "super bowl 50".title(), "completions": ["a"]}]
    assert matched(written(tmp_path, rows, name))[0] == {"notes/1": ("c",), "notes/2": ("a",)}


def test_a_title_that_several_tasks_have_names_none_of_them(tmp_path: Path) -> None:
    path = written(tmp_path, [{"title": "Otrar", "completion": "c"}])
    twins = [OTRAR, Task("notes/3", "Otrar", "It was a town.")]
    assert set(match(read_completions(path), twins, 1)[1]) == {"notes/1", "notes/3"}
    assert match(read_completions(path), TASKS, 1)[0]["notes/1"] == ("c",)


def test_tasks_without_enough_completions_are_counted_and_named(tmp_path: Path) -> None:
    path = written(tmp_path, [{"title": "Otrar", "completion": "c"}])
    texts, lacking = matched(path, n=2)
    assert texts == {"notes/1": ("c",), "notes/2": ()}
    assert "holds 1 of the 2 completions that 'notes/1' needs" in lacking["notes/1"]
    with pytest.raises(InputError, match=r"2 of 2 tasks have no or too few completions \('notes/1', 'notes/2'\)"):
        refuse_lacking(lacking, 2)
    with pytest.raises(InputError, match=r"5 of 9 .* and 2 more"):
        refuse_lacking({f"t{i}": "x" for i in range(5)}, 9)
    refuse_lacking({}, 2)


BAD_ROWS = [
    ({"title": "Otrar", "completions": []}, "no list of texts"),
    ({"title": "Otrar", "completions": None}, "no list of texts"),
    ({"title": "Otrar"}, "no list of texts"),
    ({"title": "Otrar", "completions": [3]}, "no list of texts"),
    ({"title": "Otrar", "completion": " \n---\n"}, "holds no usable line"),
    ({"title": " ", "completion": "c"}, "names no task"),
    ({"completion": "c"}, "names no task"),
    ("c", "is no object"),
]


@pytest.mark.parametrize(("row", "says"), BAD_ROWS)
def test_a_row_that_cannot_be_used_is_refused_with_its_place_or_left_out_and_named(
    tmp_path: Path, row: Any, says: str
) -> None:
    path = written(tmp_path, [{"id": "notes/2", "completion": "a"}, row])
    with pytest.raises(InputError, match=says) as refused:
        read_completions(path)
    assert "row 2 of" in str(refused.value)
    found = read_completions(path, skip_bad=True)
    assert list(found.texts.values()) == [("a",)]
    assert any(says in sentence for sentence in found.bad)


def test_of_several_completions_only_the_unusable_one_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, [{"id": "notes/1", "completions": ["a", " ", "b"]}])
    with pytest.raises(InputError, match="completion 2 of row 1"):
        read_completions(path)
    found = read_completions(path, skip_bad=True)
    assert list(found.texts.values()) == [("a", "b")]
    assert len(found.bad) == 1


def test_a_second_row_for_a_task_is_refused_with_both_places_or_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, [{"id": "notes/1", "completion": "a"}, {"id": "notes/1", "completion": "b"}], "made.jsonl")
    with pytest.raises(InputError, match=r"line 2 of .* is for 'notes/1', and so is line 1 of"):
        read_completions(path)
    found = read_completions(path, skip_bad=True)
    assert list(found.texts.values()) == [("a",)]
    assert len(found.bad) == 1


@pytest.mark.parametrize("rows", [[], [{"id": "a", "completion": ""}]])
def test_a_file_of_which_nothing_is_left_is_refused_all_the_same(tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(InputError, match="no row of"):
        read_completions(written(tmp_path, rows), skip_bad=True)


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json"):
        read_completions(tmp_path / "none.json")


def test_the_name_says_what_the_file_holds_and_not_where_it_lies(tmp_path: Path) -> None:
    rows = [{"id": "notes/1", "completion": "a"}]
    (tmp_path / "other").mkdir()
    name = read_completions(written(tmp_path, rows)).name
    assert name.startswith("made.json@")
    assert read_completions(written(tmp_path / "other", rows)).name == name
    assert read_completions(written(tmp_path, [{"id": "notes/1", "completion": "b"}])).name != name
