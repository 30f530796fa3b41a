from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selfedit.engine.base import half_fits
from selfedit.errors import ConfigError, InputError, MissingExtra
from selfedit.experiment.material import Material, give, read_material
from selfedit.recipe import Recipe, recipe_hash
from selfedit.tasks.knowledge import over_documents
from selfedit.types import ExamSettings, Failure, Sample, SampleSettings, TrainSettings
from tests.unit.conftest import make_tasks

TASKS = make_tasks(4)
RECIPE = Recipe(domain="documents", format="implications", eval_tasks=4)


def squad(folder: Path, name: str = "squad.json", **changes: Any) -> str:
    rows = [
        {
            "id": task.id,
            "title": task.title,
            "context": task.context,
            "questions": [{"question": q.question, "answer": q.answer} for q in task.questions],
        }
        for task in TASKS
    ]
    rows[1] |= changes
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(rows), encoding="utf-8")
    return str(folder / name)


def made(folder: Path, n: int = 1, tasks: int = 4) -> str:
    rows = [{"id": t.id, "completions": [f"{t.id} says {i}" for i in range(n)]} for t in TASKS[:tasks]]
    (folder / "made.json").write_text(json.dumps(rows), encoding="utf-8")
    return str(folder / "made.json")


def test_a_file_of_tasks_is_read_and_named_by_its_content(tmp_path: Path) -> None:
    recipe, material = read_material(replace(RECIPE, data=squad(tmp_path)))
    assert [(t.id, t.title, t.context, t.questions) for t in material.tasks] == [
        (t.id, t.title, t.context, t.questions) for t in TASKS
    ]
    assert recipe.data.startswith("squad.json@")
    assert recipe.domain == "documents"


def test_a_file_may_move_but_not_change(tmp_path: Path) -> None:
    def digest(path: str) -> str:
        return recipe_hash(read_material(replace(RECIPE, data=path))[0])

    first = digest(squad(tmp_path))
    assert digest(squad(tmp_path / "elsewhere")) == first
    assert digest(squad(tmp_path, context="Something else.")) != first


def test_a_folder_of_documents_is_read_with_its_questions(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\nAda was born in Lund.\n")
    (tmp_path / "logo.png").write_bytes(b"PNG")
    asked = {"question": "Where was Ada born?", "answer": "Lund", "source": "a.md"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(asked))
    recipe, material = read_material(replace(RECIPE, data=str(tmp_path)))
    assert [task.title for task in material.tasks] == ["A"]
    assert material.left_out == ("logo.png is not of a kind that is read",)
    assert recipe.data.startswith(f"{tmp_path.name}@")


def test_a_long_document_is_cut_for_the_model_that_learns_it(tmp_path: Path) -> None:
    parts = [f"## Part {i}\n\n{'Nothing happens here. ' * 40}The mayor of part {i} is Ada {i}.\n" for i in range(3)]
    (tmp_path / "a.md").write_text("# A\n\n" + "\n".join(parts))
    asked = {"question": "Who is the mayor of part 1?", "answer": "Ada 1", "source": "a.md"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(asked))
    _, material = read_material(replace(RECIPE, model="pup", data=str(tmp_path)))
    (piece,) = material.tasks
    assert piece.title.startswith("A — Part 1")
    assert "Ada 1" in piece.context
    assert half_fits("pup")(f"{piece.title}\n{piece.context}")


def test_without_data_a_recipe_over_documents_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"add data=PATH"):
        read_material(RECIPE)


def test_the_arm_completions_without_a_file_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match=r"add completions=PATH"):
        read_material(Recipe(arms=("completions",)))


def test_a_recipe_without_files_is_left_as_it_is() -> None:
    assert read_material(Recipe()) == (Recipe(), Material())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"context": " "}, "an empty text under 'context'"),
        ({"questions": [{"question": "Who?", "answer": ""}]}, "gives no answer"),
        ({"questions": []}, "1 of 4 passages"),
        ({"id": "T0"}, "has the id 'T0'"),
    ],
)
def test_a_task_that_cannot_be_used_is_refused_or_left_out_and_named(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    recipe = replace(RECIPE, data=squad(tmp_path, **changes))
    with pytest.raises(InputError, match=says):
        read_material(recipe)
    _, material = read_material(replace(recipe, skip_bad=True))
    assert [task.id for task in material.tasks] == ["T0", "T2", "T3"]
    assert material.left_out
    assert all("T1" in said or "2" in said for said in material.left_out)


def test_leaving_out_what_is_bad_changes_no_hash_by_itself(tmp_path: Path) -> None:
    recipe = replace(RECIPE, data=squad(tmp_path))
    hashes = {recipe_hash(read_material(replace(recipe, skip_bad=skip))[0]) for skip in (False, True)}
    assert len(hashes) == 1


def test_a_folder_has_no_splits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave out data_split"):
        read_material(replace(RECIPE, data=str(tmp_path), data_split="train"))


# ── what arms are given ──


def given_for(recipe: Recipe, path: str) -> dict[str, Any]:
    recipe, material = read_material(replace(recipe, arms=("completions",), completions=path, domain="world"))
    domain = over_documents(TASKS, "implications", TrainSettings())
    return dict(give(material, recipe, domain, TASKS).completions)


def test_completions_become_samples_of_the_domains_prompt(tmp_path: Path) -> None:
    (sample,) = given_for(RECIPE, made(tmp_path, n=3))["T2"]
    domain = over_documents(TASKS, "implications", TrainSettings())
    assert sample == Sample(domain.prompt(TASKS[2]), (), (), (), "T2 says 0", "eos")


def test_as_many_completions_are_taken_as_the_update_trains_on(tmp_path: Path) -> None:
    several = replace(RECIPE, together=2, sample=SampleSettings(edits=3), eval_repeats=2)
    assert {len(samples) for samples in given_for(several, made(tmp_path, n=7)).values()} == {6}
    with pytest.raises(InputError, match="4 of 4 tasks have no or too few"):
        given_for(several, made(tmp_path, n=5))


def test_a_task_without_a_completion_is_refused_or_left_unmeasured(tmp_path: Path) -> None:
    path = made(tmp_path, tasks=3)
    with pytest.raises(InputError, match=r"1 of 4 tasks .*\('T3'\)"):
        given_for(RECIPE, path)
    written = given_for(replace(RECIPE, skip_bad=True), path)
    assert isinstance(written["T3"], Failure)
    assert (written["T3"].stage, written["T3"].kind) == ("propose", "NoCompletion")
    assert isinstance(written["T2"], list)


def test_retrieval_gives_a_task_for_every_question() -> None:
    domain = over_documents(TASKS, "implications", TrainSettings())
    found = give(Material(), Recipe(arms=("retrieval",)), domain, TASKS).found
    assert {task_id: [t.id for t in shown] for task_id, shown in found.items()} == {t.id: [t.id] * 4 for t in TASKS}


def test_retrieval_without_its_library_is_refused_before_anything_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    domain = over_documents(TASKS, "implications", TrainSettings())
    with pytest.raises(MissingExtra, match=r"selfedit\[retrieval\]"):
        give(Material(), Recipe(arms=("retrieval",)), domain, TASKS)


def test_texts_without_questions_are_taken_where_the_model_writes_its_own_exam(tmp_path: Path) -> None:
    own = replace(RECIPE, exam=ExamSettings(questions="self-made"))
    _, material = read_material(replace(own, data=squad(tmp_path, questions=[])))
    assert [len(task.questions) for task in material.tasks] == [4, 0, 4, 4]
    assert material.left_out == ()
    for task in TASKS:
        (tmp_path / "notes").mkdir(exist_ok=True)
        (tmp_path / "notes" / f"{task.id}.md").write_text(f"# {task.title}\n\n{task.context}\n")
    _, material = read_material(replace(own, model="pup", data=str(tmp_path / "notes")))
    assert [(task.title, task.questions) for task in material.tasks] == [(task.title, ()) for task in TASKS]
    with pytest.raises(InputError, match=r"let the model write its own: exam.questions=self-made"):
        read_material(replace(RECIPE, data=squad(tmp_path, questions=[])))


def test_retrieval_needs_given_questions() -> None:
    domain = over_documents(TASKS, "implications", TrainSettings())
    unseen = [TASKS[0], replace(TASKS[1], questions=())]
    with pytest.raises(InputError, match=r"'retrieval' searches .* 1 of the unseen passages have none"):
        give(Material(), replace(RECIPE, arms=("retrieval",)), domain, unseen)
