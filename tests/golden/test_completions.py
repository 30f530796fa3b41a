"""Completions as the authors published them: every file is read, and every one is for a passage of its own file's."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfedit.errors import InputError
from selfedit.experiment.material import read_material
from selfedit.recipe import Recipe
from selfedit.sources.completions import match, read_completions
from selfedit.sources.datasets import read_dataset

FILES = {"base": 200, "gpt4_1": 200, "iter1": 250, "iter2": 200, "rewrite_base": 200, "self_qa_base": 200}


def published(folder: Path, name: str) -> Path:
    return folder / "seal" / f"self_edits_eval_{name}.json"


@pytest.mark.parametrize(("name", "n"), FILES.items())
def test_every_published_file_gives_five_completions_to_each_of_its_passages(
    data_folder: Path, name: str, n: int
) -> None:
    path = published(data_folder, name)
    texts, lacking = match(read_completions(path), read_dataset(str(path)).tasks, 5)
    assert len(texts) == n
    assert lacking == {}
    assert {len(each) for each in texts.values()} == {5}


def test_they_are_found_for_the_same_passages_of_the_whole_validation_set(data_folder: Path) -> None:
    tasks = read_dataset(str(data_folder / "seal" / "squad_val.json")).tasks
    texts, lacking = match(read_completions(published(data_folder, "gpt4_1")), tasks, 1)
    assert len(tasks) == 2067
    assert len(tasks) - len(lacking) == sum(bool(found) for found in texts.values()) == 200


def test_the_file_of_empty_completions_is_refused(data_folder: Path) -> None:
    with pytest.raises(InputError, match="holds no usable line"):
        read_completions(published(data_folder, "naive"))
    with pytest.raises(InputError, match="no row of"):
        read_completions(published(data_folder, "naive"), skip_bad=True)


def test_the_validation_set_is_read_whole(data_folder: Path) -> None:
    path = data_folder / "seal" / "squad_val.json"
    recipe, material = read_material(Recipe(domain="documents", data=str(path)))
    assert (len(material.tasks), sum(len(task.questions) for task in material.tasks)) == (2067, 10570)
    assert material.left_out == ()
    assert recipe.data.startswith("squad_val.json@")
