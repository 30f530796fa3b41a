"""Tasks of grids, in the forms in which they are published: ARC-AGI-1 and -2, ConceptARC, and whatever looks alike.

    arc-agi_training_challenges.json    {"007bbfb7": {"train": [{"input", "output"}], "test": [{"input"}]}}
    arc-agi_training_solutions.json     {"007bbfb7": [[[0, 7], [7, 7]]]}      found beside it by its name
    data/training/007bbfb7.json         {"train": […], "test": [{"input", "output"}]}, a task a file
    corpus/AboveBelow/AboveBelow1.json  the same, a folder a concept

What is below a folder called `training` or `evaluation`, or in a file with that in its name, is of that split; any
other folder names what its tasks are about. A task becomes what every other task is, its demonstrations the context and
its test grids the questions, both as JSON; `tasks.arc` knows what to do with them.

    read_arc(Path("arc-agi_training_challenges.json")).tasks
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selfedit.errors import InputError
from selfedit.sources.documents import Documents
from selfedit.sources.files import leaving_out, read_text
from selfedit.types import Question, Task

LARGEST = 30  # cells a side

_SPLITS = {"training": "train", "evaluation": "eval"}
_FORM = '{"train": [{"input": [[0, 7]], "output": [[7, 0]]}], "test": [{"input": [[0, 3]]}]}'


def read_arc(path: Path, skip_bad: bool = False) -> Documents:
    """Read a file of challenges with its solutions, a file of one task, or all files below a folder.

    Raises `InputError` for a task that cannot be used: one without demonstrations or solutions, a grid that is ragged,
    empty, larger than 30 cells a side or holds more than the colours 0 to 9. With `skip_bad` such tasks are left out
    and named in `bad`, and it raises only where nothing is left.
    """
    bad: list[str] | None = [] if skip_bad else None
    tasks: dict[str, Task] = {}
    for file in _files(path):
        with leaving_out(bad):
            for id, content, solution in _entries(file, path):
                with leaving_out(bad):
                    if id in tasks:
                        raise InputError(f"the task {id!r} is in {str(file)!r} and in another file; name one of them")
                    tasks[id] = _task(id, content, solution, _meta(file, path))
    if not tasks:
        raise InputError(f"no task of {str(path)!r} can be used: {bad[0]}" if bad else f"no task is in {str(path)!r}")
    return Documents(tuple(tasks.values()), (), tuple(bad or ()))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*.json") if "solutions" not in file.name)
    if not files:
        raise InputError(f"{str(path)!r} is no file and no folder with .json files of grids in it")
    return files


def _entries(file: Path, root: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield id, content and solutions of each task in a file; None where the solutions are in the content itself."""
    content = _load(file)
    if not isinstance(content, Mapping):
        raise InputError(f"{str(file)!r} holds no task; expected {_FORM}, or several by their ids")
    if "train" in content:
        yield (file.relative_to(root).with_suffix("").as_posix() if file != root else file.stem), content, None
        return
    beside = file.with_name(file.name.replace("challenges", "solutions"))
    solutions = _load(beside) if beside != file and beside.is_file() else None
    for id, challenge in content.items():
        yield id, challenge, solutions.get(id, []) if isinstance(solutions, Mapping) else None


def _load(file: Path) -> Any:
    try:
        return json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(file)!r} is not JSON: {error}; repair it or remove it") from error


def _meta(file: Path, root: Path) -> dict[str, str]:
    folders = [part.name for part in file.relative_to(root).parents if part.name] if file != root else []
    named = [*folders, root.stem, file.stem]
    split = next((split for word, split in _SPLITS.items() if any(word in name for name in named)), "")
    concept = next((name for name in folders if not any(word in name for word in _SPLITS)), "")
    return ({"split": split} if split else {}) | ({"kind": concept} if concept else {})


def _task(id: str, content: Any, solution: Any, meta: Mapping[str, str]) -> Task:
    where = f"the task {id!r}"
    if not isinstance(content, Mapping):
        raise InputError(f"{where} is no object; expected {_FORM}")
    shown = [
        {side: _grid(pair.get(side), f"{side} {number} of {where}") for side in ("input", "output")}
        for number, pair in enumerate(_pairs(content, "train", where, "demonstrations"), 1)
    ]
    kind = meta.get("kind", "")
    asked = [
        # The paper counts the first test input alone; the others are asked and marked, and are no reward.
        Question(
            json.dumps(_grid(pair.get("input"), f"test input {i + 1} of {where}")),
            json.dumps(_grid(_solution(pair, solution, i, where), f"solution {i + 1} of {where}")),
            kind,
            "given" if i else "exam",
        )
        for i, pair in enumerate(_pairs(content, "test", where, "test inputs"))
    ]
    return Task(id, id, json.dumps(shown), tuple(asked), meta)


def _pairs(content: Mapping[str, Any], key: str, where: str, what: str) -> list[Mapping[str, Any]]:
    pairs = content.get(key)
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, Mapping) for pair in pairs):
        raise InputError(f"{where} has no {what}; expected {_FORM}")
    return pairs


def _solution(pair: Mapping[str, Any], solution: Any, place: int, where: str) -> Any:
    if isinstance(solution, list) and place < len(solution):
        return solution[place]
    if "output" not in pair:
        raise InputError(
            f"{where} has no solution to its test input {place + 1}; put the file of solutions beside the challenges"
        )
    return pair["output"]


def _grid(rows: Any, what: str) -> list[list[int]]:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise InputError(f"{what} is no grid; expected rows of colours such as [[0, 7], [7, 7]], none of them empty")
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"{what} is ragged: its rows have {', '.join(sorted({str(len(row)) for row in rows}))} cells")
    if max(len(rows), len(rows[0])) > LARGEST:
        raise InputError(f"{what} has {len(rows)} by {len(rows[0])} cells, more than {LARGEST} by {LARGEST}")
    wrong = [cell for row in rows for cell in row if type(cell) is not int or not 0 <= cell <= 9]
    if wrong:
        raise InputError(f"{what} holds {wrong[0]!r}, which is no colour 0 to 9")
    return rows
