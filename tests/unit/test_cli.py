"""The command line: one sentence for every error, an exit code that is not 0, nothing lost, no traceback."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest

from selfedit import cli, workspace
from selfedit.config import list_recipes
from selfedit.experiment import run as experiment
from selfedit.report.record import Report
from selfedit.report.stats import Arm, Pair
from selfedit.tasks.graders import GRADERS, JUDGED


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
        (["learn", "empty"], "there is no document in the folder 'empty'"),
        (["learn", "binary"], "is not UTF-8 text"),
        (["learn", "broken"], "line 2 of"),
        (["learn", "binary", "--skip-bad"], "no document in the folder 'binary' can be used"),
        (["learn", "notes", "--recipe", "claen"], "unknown recipe 'claen'; did you mean 'clean'?"),
        (["learn", "notes", "inner.learnin_rate=1"], "did you mean 'inner.learning_rate'?"),
        (["learn", "notes", "--model", "/no/such/model"], "no model at"),
        (["learn", "notes", "--device", "tpu"], "unknown device 'tpu'"),
        (["ask", "Who?"], "nothing has been learnt"),
        (["run", "dmeo"], "unknown recipe 'dmeo'; did you mean 'demo'?"),
        (["eval", "dmeo"], "unknown recipe 'dmeo'; did you mean 'demo'?"),
        (["eval", "squad-single"], "add data=PATH"),
        (["eval", "squad-single", "data=none.json"], "none.json"),
        (["eval", "squad-single", "data=notes"], "have no question"),
        (["eval", "demo", "template=none.txt"], "cannot read the template 'none.txt'"),
        (["eval", "demo", "arms=['completions']"], "add completions=PATH"),
        (["eval", "demo", "--json", "-", "--html", "-"], "stdout takes one"),
        (["eval", "demo", "--json", "none/x.json"], "name a file in a folder that exists"),
        (["eval", "demo", "--html", "notes"], "cannot write to 'notes'"),
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


def test_what_is_left_out_is_named_a_line_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in {"good.md": "Ada wrote.", "empty.md": " ", "scan.pdf": "no PDF", "logo.png": "PNG"}.items():
        (tmp_path / name).write_text(content)
    read: list[int] = []

    class Stop(Exception): ...

    def opened(*_: object) -> None:
        read.append(1)
        raise Stop

    monkeypatch.setattr(workspace, "Workspace", opened)
    assert call(monkeypatch, "learn", str(tmp_path), "--skip-bad") != 0
    lines = capsys.readouterr().out.splitlines()
    assert read == [1]
    assert lines[0].startswith("not read: logo.png (only .md, .txt, .html, .pdf and source code are)")
    assert [line.partition(":")[0] for line in lines[-2:]] == ["left out", "left out"]
    assert "empty.md" in lines[-2]
    assert "scan.pdf" in lines[-1]


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
    assert [line.split()[0] for line in lines] == [name for name, _ in list_recipes()]
    assert {"clean", "demo", "evidence", "paper", "squad-single", "squad-200", "world-single"} < dict(
        list_recipes()
    ).keys()
    assert all(len(line.split()) > 3 for line in lines)


RESULT = Report(
    "pup",
    0,
    1.0,
    (Arm("base", 0.1, (0.0, 0.2), 9, 40, 0), Arm("passage", 0.3, (0.2, 0.4), 9, 40, 2)),
    (Pair("base", "passage", 0.2, (0.1, 0.3), 9),),
    notes=("A note.",),
    left_out=("row 3 is empty", "row 4 is empty"),
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(experiment, "run_experiment", lambda *given: RESULT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_eval_prints_one_table_with_every_mean_beside_its_n_interval_and_failures(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "eval", "world-single", "--json", "a.json", "--html", "a.html") == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert said[:2] == ["left out: row 3 is empty", "left out: row 4 is empty"]
    assert "passage 30.0 20.0 to 40.0 9 40 2" in said
    assert "passage \N{MINUS SIGN} base +20.0 +10.0 to +30.0 9" in said
    assert "A note." in said
    assert said[-1].startswith("report: runs/world-single/report.html")
    document = json.loads((measured / "a.json").read_text(encoding="utf-8"))
    assert document == json.loads((measured / "runs" / "world-single" / "report.json").read_text(encoding="utf-8"))
    assert document["left_out"] == list(RESULT.left_out)
    assert "<svg" in (measured / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("option", "head"), [("--json", "{"), ("--html", "<!DOCTYPE html>")])
def test_eval_gives_stdout_to_the_program_that_reads_it(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str, head: str
) -> None:
    assert call(monkeypatch, "eval", "world-single", option, "-") == 0
    said = capsys.readouterr()
    assert said.out.startswith(head)
    assert said.out.rstrip().endswith(("}", "</html>"))
    assert "passage" in said.err


def test_the_help_of_grade_names_every_grader(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "grade", "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert [name for name in (*GRADERS, *JUDGED) if name not in said.split("--grader")[1]] == []
