from __future__ import annotations

import sys

import pytest

from selfedit.errors import MissingExtra
from selfedit.memory.retrieve import nearest
from selfedit.tasks.world import fresh_tasks

TEXTS = [
    "Otrar\nThe town of Otrar fell in 1219.",
    "Belmora\nThe town of Belmora lies by the sea.",
    "Apollo 8\nThe crew of Apollo 8 flew around the moon.",
]


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("When did Otrar fall?", 0),
        ("what lies by the SEA?", 1),
        ("Who flew with Apollo 8?", 2),
        ("Otrar", 0),
        ("the town of Otrar", 0),
    ],
)
def test_the_text_that_shares_the_rarest_words_is_found(query: str, place: int) -> None:
    assert nearest([query], TEXTS) == [place]


def test_a_query_gets_the_same_text_alone_and_among_others() -> None:
    queries = ["the sea", "Otrar", "8"]
    assert nearest(queries, TEXTS) == [place for query in queries for place in nearest([query], TEXTS)]


@pytest.mark.parametrize("query", ["", "?", "the of in", "zebra"])
def test_a_query_without_a_known_word_gets_the_first_text(query: str) -> None:
    assert nearest([query], TEXTS) == [0]


def test_of_equal_texts_the_first_is_found() -> None:
    assert nearest(["sea"], ["the river", "the sea", "the sea"]) == [1]


def test_texts_without_a_word_are_no_trouble() -> None:
    assert nearest(["sea"], ["", " ?", "the sea"]) == [2]
    assert nearest(["sea", ""], ["", "?"]) == [0, 0]


def test_without_texts_there_is_nothing_to_retrieve() -> None:
    with pytest.raises(ValueError, match="no text"):
        nearest(["sea"], [])


def test_no_query_finds_nothing() -> None:
    assert nearest([], TEXTS) == []


def test_single_facts_of_the_world_are_found_by_the_name_in_the_question() -> None:
    tasks = fresh_tasks("eval", 12, seed=3)
    texts = [f"{task.title}\n{task.context}" for task in tasks]
    asked = [(i, question.question) for i, task in enumerate(tasks) for question in task.questions]
    found = nearest([query for _, query in asked], texts)
    assert sum(place == i for place, (i, _) in zip(found, asked, strict=True)) >= 0.9 * len(asked)


def test_without_the_library_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtra, match=r"pip install 'selfedit\[retrieval\]'"):
        nearest(["sea"], TEXTS)
