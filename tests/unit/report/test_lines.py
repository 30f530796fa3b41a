"""Kinds of lines: each has one by its wording, and a passage weighs the same however many it has."""

from __future__ import annotations

import pytest

from selfedit.report.lines import JUDGED, SUBJECT, SUBJECTS, WORDING, WORDINGS, count_lines, lines_of, wording
from selfedit.types import Task

TASK = Task("t", "Tavo Merin", "Tavo Merin works for Belno Mill. She was born in Karstel, and loves red fox sailing.")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("She was born in Karstel", "copied"),
        ("2. -- she WAS born in karstel!", "in other words"),
        ("Tavo Merin was born in Karstel.", "in other words"),
        ("In short, Karstel is the home town", "new"),
        ("Where was Tavo Merin born?\nAnswer: Karstel", "question"),
        ("--- ***", "empty"),
        ("orn in Karstel", "in other words"),
    ],
)
def test_a_line_is_of_one_kind_by_its_wording(line: str, kind: str) -> None:
    assert wording(TASK, line) == kind


def test_a_line_said_before_in_its_self_edit_is_repeated_whatever_it_says() -> None:
    found = count_lines(
        {"t": ["She was born in Karstel.\nshe was born in Karstel", "She was born in Karstel."]}, {"t": TASK}
    )
    assert found["t"].counts[WORDING, "repeated"] == 1
    assert found["t"].counts[WORDING, "copied"] == 2


def test_an_answer_belongs_to_the_question_before_it() -> None:
    assert lines_of("Who? \n Answer: she\n\nNext\n  \n") == ["Who? \n Answer: she", "Next"]


def test_shares_are_of_a_passages_lines_and_counts_a_self_edit() -> None:
    edits = {"t": ["She was born in Karstel.\nAda sings.", "Bo sings.\nBo sings loudly and well."], "empty": ["", " "]}
    found = count_lines(edits, {"t": TASK, "empty": TASK})
    assert list(found) == ["t"]
    assert (found["t"].share(WORDING, "copied"), found["t"].an_edit(WORDING, "new")) == (0.25, 1.5)
    assert sum(found["t"].share(WORDING, kind) for kind in WORDINGS) == 1


def test_a_line_names_its_subject_with_all_words_of_the_title() -> None:
    found = count_lines({"t": ["Merin, Tavo: a carver\nMerin is a carver"]}, {"t": TASK})
    assert found["t"].counts[SUBJECT, SUBJECTS[0]] == found["t"].counts[SUBJECT, SUBJECTS[1]] == 1


def test_what_a_domain_knows_of_lines_is_counted_beside() -> None:
    found = count_lines({"t": ["a\nbb"]}, {"t": TASK}, lambda task, line: f"{task.id}{len(line)}")
    assert {kind for kind in found["t"].counts if kind[0] == JUDGED} == {(JUDGED, "t1"), (JUDGED, "t2")}
    assert not any(way == JUDGED for way, _ in count_lines({"t": ["a"]}, {"t": TASK})["t"].counts)
