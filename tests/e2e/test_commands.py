"""The README's commands, as a user types them, in a folder of the user's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def selfedit(folder: Path, *args: str) -> str:
    run = "from selfedit.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", run, *args], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_documents_are_taught_examined_and_asked(tmp_path: Path) -> None:
    selfedit(tmp_path, "examples", "notes", "--documents", "3")
    said = selfedit(tmp_path, "learn", "notes", "sample.edits=3")
    assert "pup (the embedded one" in said
    adapters = list((tmp_path / ".selfedit" / "adapters").iterdir())
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in adapters[0].iterdir()}
    question = json.loads((tmp_path / "notes" / "questions.jsonl").read_text().splitlines()[0])["question"]
    said = selfedit(tmp_path, "ask", question, "--without")
    assert [line.split(":")[0] for line in said.splitlines()] == ["learnt", "without"]


def test_documents_without_questions_are_examined_by_questions_that_the_model_wrote(tmp_path: Path) -> None:
    selfedit(tmp_path, "examples", "notes", "--documents", "1")
    (tmp_path / "notes" / "questions.jsonl").unlink()
    said = selfedit(tmp_path, "learn", "notes", "sample.edits=2")
    assert "1 of 1 texts have an exam that the model wrote before any self-edit" in said
    gain = said.split("Gain")[1].split("adapter:")[0]
    assert "before" in gain and "not measured" not in gain
