"""Grading a file of answers: every line back in its order, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from selfedit import cli, grading
from selfedit.errors import ConfigError, InputError, ModelError
from selfedit.grading import Graded, grade_file
from selfedit.types import JudgeSettings
from tests.unit.serving import Reply, Service, chat, refusal

RIGHT = {"question": "Who was it?", "gold": "Inalchuq", "prediction": "Inalchuq", "id": 7, "note": "é"}
WRONG = {"question": "Who was it?", "gold": "Inalchuq", "prediction": "a river"}
UNASKED = {"question": "Who was it?", "gold": " ", "prediction": "Inalchuq"}
OPEN = {"question": "Why?", "gold": "to prevent asthma attacks", "prediction": "They reduce attacks of several kinds."}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_lines_come_back_in_order_with_all_their_keys(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", WRONG, RIGHT, UNASKED)
    counts = grade_file(source, "calibrated", tmp_path / "out.jsonl")
    wrong, right, unasked = read(tmp_path / "out.jsonl")
    assert counts == Graded(1, 1, {"no gold answer": 1})
    assert (counts.lines, counts.undecided) == (3, 1)
    assert right == RIGHT | {"probability": 1.0, "correct": True}
    assert wrong == WRONG | {"probability": wrong["probability"], "correct": False}
    assert 0 <= wrong["probability"] < 0.1
    assert unasked == UNASKED | {"probability": None, "correct": None}


def test_what_the_grader_is_unsure_of_is_decided_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.jsonl", OPEN)
    grade_file(source, "calibrated", tmp_path / "a.jsonl")
    grade_file(source, "calibrated", tmp_path / "b.jsonl", decide_all=True)
    (abstained,), (decided,) = read(tmp_path / "a.jsonl"), read(tmp_path / "b.jsonl")
    assert abstained["correct"] is None
    assert decided["correct"] is (decided["probability"] >= 0.5)
    assert abstained["probability"] == decided["probability"]


@pytest.mark.parametrize(("grader", "found"), [("exact", False), ("contains", True), ("f1", True)])
def test_rules_have_no_probability(tmp_path: Path, grader: str, found: bool) -> None:
    row = RIGHT | {"prediction": "the governor Inalchuq"}
    grade_file(write(tmp_path / "in.jsonl", row), grader, tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl") == [row | {"probability": None, "correct": found}]


def test_compressed_files_are_read_and_written_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(json.dumps(RIGHT).encode() + b"\n\n"))
    grade_file(tmp_path / "in.jsonl.gz", "contains", tmp_path / "out.jsonl.gz")
    assert [row["correct"] for row in read(tmp_path / "out.jsonl.gz")] == [True]


def test_batches_do_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in.jsonl", *[RIGHT, WRONG, OPEN, UNASKED] * 3)
    grade_file(source, "calibrated", tmp_path / "a.jsonl")
    monkeypatch.setattr(grading, "AT_ONCE", 5)
    grade_file(source, "calibrated", tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


BAD = [
    (b'{"question": "a", "gold": "b", "prediction": "c"}\n{"question"\n', "line 2 of .* is no JSON"),
    (b'\n{"question": "a", "gold": "b"}\n', "line 2 of .* has no 'prediction'"),
    (b'{"question": "a", "gold": 3, "prediction": "c"}\n', "line 1 of .* has something other than text as 'gold'"),
    (b"[1]\n", "line 1 of .* is no object"),
    (b"", "there is no line in"),
    (b"\n \n", "there is no line in"),
    (b'{"question": "\xff"}\n', "line 1 of .* is not UTF-8"),
]


@pytest.mark.parametrize(("content", "says"), BAD)
def test_a_bad_line_is_named_and_nothing_is_left(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=says):
        grade_file(tmp_path / "in.jsonl", "contains", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_what_was_graded_before_stays_when_grading_fails(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("before")
    with pytest.raises(InputError, match="line 2"):
        grade_file(write(tmp_path / "in.jsonl", RIGHT, [1]), "exact", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "before"


def test_a_file_that_is_cut_short_or_missing_or_not_compressed_is_named(tmp_path: Path) -> None:
    (tmp_path / "short.gz").write_bytes(gzip.compress(json.dumps(RIGHT).encode() * 50)[:-20])
    (tmp_path / "plain.gz").write_bytes(b"{}\n")
    for name, says in (
        ("short.gz", "no whole .gz"),
        ("plain.gz", "no whole .gz"),
        ("none", "no file"),
        (".", "cannot read"),
    ):
        with pytest.raises(InputError, match=says):
            grade_file(tmp_path / name, "exact", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_an_unknown_grader_or_target_is_said_before_anything_is_read(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", RIGHT)
    with pytest.raises(ConfigError, match="did you mean 'calibrated'"):
        grade_file(tmp_path / "none", "calibrate", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="name a file in a folder that exists"):
        grade_file(source, "exact", tmp_path / "no" / "out.jsonl")
    with pytest.raises(InputError, match="name another one"):
        grade_file(source, "exact", source)


def call(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["selfedit", "grade", *args])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_line_grades_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write(tmp_path / "in.jsonl", RIGHT, WRONG, UNASKED, OPEN), tmp_path / "out.jsonl"
    assert call(monkeypatch, str(source), "--out", str(target)) == 0
    assert "4 answers: 1 correct, 1 wrong, 2 undecided (1 no gold answer, 1 unsure)\n" in capsys.readouterr().out
    assert call(monkeypatch, str(source), "--out", str(target), "--no-abstain") == 0
    assert ", 1 undecided (1 no gold answer)\n" in capsys.readouterr().out
    assert len(read(target)) == 4


def test_the_command_line_says_what_is_wrong_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in.jsonl", [1])
    assert call(monkeypatch, str(source), "--out", str(tmp_path / "out.jsonl"), "--grader", "exatc") == 2
    assert "did you mean 'exact'" in capsys.readouterr().err
    assert call(monkeypatch, str(source), "--out", str(tmp_path / "out.jsonl")) == 2
    assert "Traceback" not in capsys.readouterr().err


# ── by a judge ──


def moody(body: dict[str, Any]) -> Reply:
    """Say yes to a governor and no to a river; nothing readable of men, and break off over ships."""
    prompt = body["messages"][0]["content"] if body else ""
    answer = prompt.partition("\nstudent: ")[2].partition("\n")[0]
    if "ship" in answer:
        return 500, refusal("out of memory")
    return 200, chat("hard to say" if "men" in answer else "**yes**" if "governor" in answer else "No.")


ANSWERS = ["the governor", "a river", "some men", "a ship", "the governor", ""]
ROWS: list[dict[str, Any]] = [
    {"question": "Who was it?", "gold": "Inalchuq", "prediction": answer, "id": i} for i, answer in enumerate(ANSWERS)
]


def test_a_judge_decides_or_leaves_null_and_the_counts_say_why(service: Service, tmp_path: Path) -> None:
    service.reply = moody
    source = write(tmp_path / "in.jsonl", *ROWS, UNASKED)
    judge = JudgeSettings("m", service.url, retries=0)
    counts = grade_file(source, "judge", tmp_path / "out.jsonl", judge=judge)
    found = [True, False, None, None, True, False, None]
    assert read(tmp_path / "out.jsonl") == [
        row | {"probability": None, "correct": correct} for row, correct in zip([*ROWS, UNASKED], found, strict=True)
    ]
    assert (counts.correct, counts.wrong) == (2, 2)
    assert counts.open == {"reply unreadable": 1, "call failed": 1, "no gold answer": 1}
    assert "out of memory" in counts.example


def test_grading_again_asks_only_for_the_verdicts_that_are_missing(service: Service, tmp_path: Path) -> None:
    service.reply = moody
    source = write(tmp_path / "in.jsonl", *ROWS)
    judge = JudgeSettings("m", service.url, retries=0)
    grade_file(source, "judge", tmp_path / "out.jsonl", judge=judge)
    service.asked.clear()
    service.reply = lambda body: (200, chat("no"))
    counts = grade_file(source, "judge", tmp_path / "again.jsonl.gz", judge=judge)
    assert sum("messages" in body for body in service.asked) == 2
    assert counts == Graded(2, 4)


def test_calibrated_first_sends_only_what_it_is_not_sure_of(service: Service, tmp_path: Path) -> None:
    service.reply = lambda body: (200, chat("yes"))
    source = write(tmp_path / "in.jsonl", RIGHT, WRONG, OPEN, UNASKED)
    counts = grade_file(source, "calibrated+judge", tmp_path / "out.jsonl", judge=JudgeSettings("m", service.url))
    assert [row["correct"] for row in read(tmp_path / "out.jsonl")] == [True, False, True, None]
    assert [row["probability"] for row in read(tmp_path / "out.jsonl")] == [None] * 4
    assert counts == Graded(2, 1, {"no gold answer": 1})
    assert sum("messages" in body for body in service.asked) == 1


def test_a_judge_that_cannot_be_asked_is_said_before_anything_is_read(tmp_path: Path) -> None:
    gone = JudgeSettings("m", "http://127.0.0.1:9/v1")
    with pytest.raises(ModelError, match="no server answers"):
        grade_file(tmp_path / "none", "judge", tmp_path / "out.jsonl", judge=gone)
    with pytest.raises(ConfigError, match="--judge-model and --judge-url"):
        grade_file(tmp_path / "none", "judge", tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match="the grader 'exact' asks none; choose --grader judge"):
        grade_file(tmp_path / "none", "exact", tmp_path / "out.jsonl", judge=gone)


def test_the_command_line_takes_a_judge_and_closes_with_what_is_open(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    service.reply = lambda body: (400, refusal("the prompt is too long")) if "ship" in str(body) else moody(body)
    source = write(tmp_path / "in.jsonl", *ROWS)
    judge = "--judge-model", "m", "--judge-url", service.url, "--judge-key-env", "JUDGE_KEY"
    assert call(monkeypatch, str(source), "--out", str(tmp_path / "out.jsonl"), "--grader", "judge", *judge) == 0
    said = capsys.readouterr().out
    assert "6 answers: 2 correct, 2 wrong, 2 undecided (1 reply unreadable, 1 judge refused)\n" in said
    assert "(status 400): the prompt is too long; change what it names; the same command asks again\n" in said
    assert set(service.keys) == {"Bearer sk-secret"}
    assert "sk-secret" not in said
