"""Every recipe of `selfedit eval` runs end to end on the embedded model: tiny, but with each of its columns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selfedit.config import load_recipe
from selfedit.experiment.run import run_experiment
from selfedit.report.render import as_json

pytestmark = pytest.mark.e2e

FAST = [
    "inner.epochs=1",
    "inner.pad_to=0",
    "inner.rank=4",
    "outer.train.epochs=1",
    "sample.max_tokens=40",
    "exam.max_tokens=8",
]
TWO = ["n=2", "sample.edits=2"]


def evaluate(folder: Path, recipe: str, *overrides: str) -> dict[str, Any]:
    return as_json(run_experiment(load_recipe(recipe, overrides), folder, "cpu"))


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four short passages in SQuAD's own form, with completions in the authors', and a template."""
    folder = tmp_path_factory.mktemp("squad")
    rows = [
        {
            "title": f"Town {name}",
            "context": f"{name} lies on the river {river}. Its mayor is Ada {name}.",
            "questions": [{"question": "Who is the mayor?", "answer": f"Ada {name}"}],
            "completions": [f"Ada is the mayor of {name}.", f"{name} lies on a river."],
        }
        for name, river in {"Otrar": "Arys", "Belno": "Zape", "Karst": "Tavo", "Mitak": "Lund"}.items()
    ]
    (folder / "squad.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "template.txt").write_text("{title}\n{passage}\n\nIn other words:\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("recipe", "more", "arms"),
    [
        (
            "squad-single",
            ["completions=squad.json", "arms=['base','passage','rounds','retrieval','in-context']"],
            ["base", "passage", "completions", "round-0", "retrieval", "in-context"],
        ),
        (
            "squad-single",
            ["outer.rounds=1", "outer.tasks=2", "outer.repeats=1"],
            ["base", "passage", "round-0", "round-1"],
        ),
        ("squad-200", ["together=2", "completions=squad.json"], ["base", "passage", "completions", "round-0"]),
        ("squad-2067", ["together=2"], ["base", "passage", "round-0"]),
        ("prompts", ["vary={}", "format=long", "template=template.txt"], ["base", "round-0"]),
        ("prompts", ["vary.format=['rewrite','self-qa']"], ["base", "round-0 rewrite", "round-0 self-qa"]),
        ("model-size", ["vary={}"], ["base", "passage", "round-0"]),
    ],
)
def test_a_recipe_on_squad_runs_on_a_data_set_of_the_users(
    squad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, more: list[str], arms: list[str]
) -> None:
    monkeypatch.chdir(squad)
    found = evaluate(tmp_path, recipe, "data=squad.json", "model=pup", *FAST, *TWO, *more)
    assert [arm["name"] for arm in found["arms"]] == arms
    assert all((arm["n_passages"], arm["n_questions"], arm["n_failed"]) == (2, 2, 0) for arm in found["arms"])
    assert all(arm["ci95"] is not None for arm in found["arms"])
    assert all(pair["n"] == 2 for pair in found["paired"])


@pytest.mark.parametrize(
    ("recipe", "more", "arms"),
    [
        ("world-200", ["together=2"], ["base", "passage", "round-0", "retrieval", "in-context"]),
        ("world-200", ["together=2", "inner.method=full", "arms=['passage','rounds']"], ["passage", "round-0"]),
        ("world-prompts", ["vary.format=['rewrite','long']"], ["passage", "round-0 rewrite", "round-0 long"]),
        (
            "world-size",
            ["vary.model={one='pup',two='pup'}", "seeds=1"],
            [f"{arm} {size}" for size in ("one", "two") for arm in ("base", "passage", "round-0", "in-context")],
        ),
        (
            "world-transfer",
            ["outer.rounds=1", "outer.tasks=2", "seeds=1"],
            ["passage", "round-0", "round-1"],
        ),
        (
            "world-rounds",
            ["outer.rounds=2", "outer.tasks=2", "seeds=1", "outer.merge=true"],
            ["base", "passage", "round-0", "round-1", "round-2"],
        ),
        ("world-transfer", ["writer.model=pup", "outer.rounds=0", "seeds=1"], ["passage", "round-0"]),
        (
            "world-grpo",
            ["outer.rounds=1", "outer.tasks=2", "seeds=1"],
            ["base", "passage", "round-0", "round-1", "shuffled-reward"],
        ),
        (
            "world-teacher",
            ["writer.model=pup", "outer.rounds=1", "outer.tasks=2", "seeds=1"],
            ["base", "passage", "round-0", "round-1"],
        ),
        (
            "world-learner",
            ["outer.rounds=1", "outer.tasks=2", "seeds=1"],
            ["base", "passage", *(f"{arm} {who}" for who in ("base", "writer") for arm in ("round-0", "round-1"))],
        ),
        (
            "world-exams",
            ["outer.rounds=1", "outer.tasks=2", "seeds=1", "sample.max_tokens=300", "exam.max_tokens=24"],
            [f"{arm} {exam}" for exam in ("given", "self-made") for arm in ("base", "round-0", "round-1")],
        ),
        (
            "world-weak",
            ["outer.rounds=1", "outer.tasks=2", "seeds=1", "sample.max_tokens=300", "exam.max_tokens=24"],
            ["base", "first-pass", "even-1", "weak-1"],
        ),
    ],
)
def test_a_recipe_on_the_world_runs(tmp_path: Path, recipe: str, more: list[str], arms: list[str]) -> None:
    found = evaluate(tmp_path, recipe, *FAST, *TWO, *more)
    assert [arm["name"] for arm in found["arms"]] == arms
    assert all(arm["n_failed"] == 0 for arm in found["arms"])


def test_on_the_embedded_model_a_passage_in_view_is_worth_more_than_an_update_and_an_update_more_than_none(
    tmp_path: Path,
) -> None:
    run = "from selfedit.cli import main; main()"
    command = [sys.executable, "-c", run, "eval", "world-single", "n=6", "--device", "cpu", "--json", "-"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {arm["name"]: arm["accuracy"] for arm in json.loads(done.stdout)["arms"]}
    assert found["base"] <= 0.05 < found["passage"]
    assert found["base"] + 0.1 <= found["round-0"]
    assert found["retrieval"] > 0.8
    assert found["in-context"] > 0.9
