"""The command line: one sentence for every error, an exit code that is not 0, nothing lost, no traceback."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest

from selfedit import cli, workspace


def call(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    """Run `selfedit ARGS` in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["selfedit", *args])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["learn", "nowhere"], "there is no folder 'nowhere'"),
        (["learn", "empty"], "there is no .md or .txt file in the folder 'empty'"),
        (["learn", "binary"], "is not UTF-8 text"),
        (["learn", "broken"], "line 2 of"),
        (["learn", "notes", "--recipe", "claen"], "unknown recipe 'claen'; did you mean 'clean'?"),
        (["learn", "notes", "inner.learnin_rate=1"], "did you mean 'inner.learning_rate'?"),
        (["learn", "notes", "--model", "/no/such/model"], "no model at"),
        (["learn", "notes", "--device", "tpu"], "unknown device 'tpu'"),
        (["ask", "Who?"], "nothing has been learnt"),
        (["run", "dmeo"], "unknown recipe 'dmeo'; did you mean 'demo'?"),
        (["lern"], "did you mean 'learn'?"),
        (["examples", "notes"], "notes"),
    ],
)
def test_bad_input_is_one_sentence_and_a_bad_exit_code(
    args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "binary", "broken", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "binary" / "a.md").write_bytes(b"\x89PNG\xff\xfe")
    for name in ("broken", "notes"):
        (tmp_path / name / "a.md").write_text("# A\n\nAda was born in Lund.\n")
    good = json.dumps({"question": "Who?", "answer": "Ada", "source": "a.md"})
    (tmp_path / "broken" / "questions.jsonl").write_text(f"{good}\n{{not json\n")
    assert call(monkeypatch, *args) != 0
    said = capsys.readouterr().err
    assert says.lower() in said.lower()
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said


def test_debug_lets_the_traceback_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["selfedit", "--debug", "learn", "nowhere"])
    with pytest.raises(Exception, match="nowhere"):
        cli.main()


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "goes on where it was"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "disk is full"),
        (RuntimeError("odd"), 2, "defect of selfedit"),
    ],
)
def test_an_interruption_is_one_sentence(
    raised: BaseException,
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object) -> None:
        raise raised

    monkeypatch.setattr(workspace, "write_examples", interrupted)
    assert call(monkeypatch, "examples", str(tmp_path / "new")) == code
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_examples_can_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "examples", str(tmp_path / "new"), "--documents", "3") == 0
    documents = workspace.read_documents(tmp_path / "new")
    assert len(documents.tasks) == 3
    assert all(len(task.questions) >= 6 for task in documents.tasks)


def test_every_packaged_recipe_is_listed_with_a_title(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["clean", "demo", "evidence", "paper"]
    assert all(len(line.split()) > 3 for line in lines)
