from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from selfedit.errors import RunError
from selfedit.verdicts import Verdicts, verdict_key

A, B, C = (verdict_key("m", {}, prompt) for prompt in "abc")


def test_a_verdict_is_known_by_the_model_the_settings_and_the_whole_prompt() -> None:
    assert verdict_key("m", {}, "p") == verdict_key("m", {}, "p")
    assert verdict_key("m", {"a": 1, "b": 2}, "p") == verdict_key("m", {"b": 2, "a": 1}, "p")
    others = [verdict_key("n", {}, "p"), verdict_key("m", {"top_k": 1}, "p"), verdict_key("m", {}, "q")]
    assert len({verdict_key("m", {}, "p"), *others}) == 4


def test_what_was_decided_is_known_in_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / "verdicts.jsonl"
    verdicts = Verdicts(path)
    assert verdicts.get(A) is None
    verdicts.add(A, True)
    verdicts.add(B, False)
    assert (verdicts.get(A), verdicts.get(B)) == (True, False)
    again = Verdicts(path)
    assert (again.get(A), again.get(B), again.get(C)) == (True, False, None)


def test_a_verdict_is_on_the_disk_when_it_is_added(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    code = (
        "import os; from pathlib import Path; from selfedit.verdicts import Verdicts;"
        f"Verdicts(Path({str(path)!r})).add({A!r}, True); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    assert Verdicts(path).get(A) is True


@pytest.mark.parametrize("torn", [b'{"key": "', b'{"key": "x", "correct": true', b"\x00\x00"])
def test_a_torn_last_line_costs_itself_alone(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "verdicts.jsonl"
    Verdicts(path).add(A, True)
    with path.open("ab") as file:
        file.write(torn)
    again = Verdicts(path)
    again.add(B, False)
    last = Verdicts(path)
    assert (last.get(A), last.get(B)) == (True, False)


def test_a_line_torn_beside_a_process_that_goes_on_does_not_swallow_its_next(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    verdicts = Verdicts(path)
    with path.open("ab") as file:
        file.write(b'{"key": "')
    verdicts.add(A, True)
    assert Verdicts(path).get(A) is True


@pytest.mark.parametrize("line", ["[]", "{}", '{"key": "k", "correct": 1}', '{"key": [], "correct": true}', "odd"])
def test_a_line_of_another_form_is_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text(f"{line}\n{json.dumps({'key': A, 'correct': True})}\n")
    assert Verdicts(path).get(A) is True
    assert Verdicts(path).get("k") is None


def test_what_others_have_added_is_known_after_a_refresh(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    mine, theirs = Verdicts(path), Verdicts(path)
    theirs.add(A, True)
    assert mine.get(A) is None
    mine.refresh()
    assert mine.get(A) is True
    with path.open("ab") as file:
        file.write(b'{"key": "half')
    mine.refresh()
    with path.open("ab") as file:
        file.write(b'", "correct": false}\n')
    mine.refresh()
    assert mine.get("half") is False, "a line is read when it is whole"


def _add_many(path: Path, name: str) -> None:
    verdicts = Verdicts(path)
    for i in range(300):
        verdicts.add(f"{name}-{i}", i % 2 == 0)


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        for done in [pool.submit(_add_many, path, name) for name in "xyz"]:
            done.result()
    verdicts = Verdicts(path)
    assert all(verdicts.get(f"{name}-{i}") is (i % 2 == 0) for name in "xyz" for i in range(300))
    assert path.read_bytes().count(b"\n") == 900


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot keep a judge's verdicts in .*file/verdicts"):
        Verdicts(tmp_path / "file" / "verdicts.jsonl")
    (tmp_path / "verdicts.jsonl").mkdir()
    with pytest.raises(RunError, match="cannot keep"):
        Verdicts(tmp_path / "verdicts.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    verdicts = Verdicts(tmp_path / "verdicts.jsonl")
    os.replace(tmp_path / "verdicts.jsonl", tmp_path / "moved")
    (tmp_path / "verdicts.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        verdicts.add(A, True)
    assert verdicts.get(A) is None
