"""What a writer writes, line by line: which kinds of lines there are, and how many of each. Pure.

A reward says that a writer got better; this says at what. Every line is of one kind by its wording, which can be told
for any text, and of one by what a domain knows of it, such as whether it is true. Whether it names its subject matters
by itself: a line is trained on alone, and "She was born in Karstel" does not say who.

    found = count_lines({task.id: [edit.text]}, {task.id: task}, judge)
    found[task.id].share("wording", "copied")

A passage is the unit: its lines are pooled over its self-edits, and it weighs the same however many it has.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selfedit.types import Task

Judge = Callable[[Task, str], str]
"""A domain's kind of a line."""

WORDING, SUBJECT, JUDGED = "wording", "subject", "judged"
SETTINGS = "settings"  # a way to tell self-edits apart, by what they choose for their update
WORDINGS = ("copied", "in other words", "new", "question", "repeated", "empty")
SUBJECTS = ("names its subject", "does not name it")
_HALF = 0.5  # of a line's words, from which on it rather retells the passage than adds to it
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a passage's `n_edits` self-edits, `n` in all: how many are of a (way to tell them apart, kind)."""

    n_edits: int
    n: int
    counts: Mapping[tuple[str, str], int]

    def share(self, way: str, kind: str) -> float:
        """Return the share of the lines that are of this kind, in [0, 1]."""
        return self.counts.get((way, kind), 0) / self.n

    def an_edit(self, way: str, kind: str) -> float:
        """Return how many lines of this kind a self-edit has."""
        return self.counts.get((way, kind), 0) / self.n_edits


def count_lines(
    edits_by_passage: Mapping[str, Sequence[str]], tasks: Mapping[str, Task], judge: Judge | None = None
) -> dict[str, Lines]:
    """Sort the lines of self-edits, given by the passage that they are on. A passage without a line is left out."""
    found = {}
    for passage, edits in edits_by_passage.items():
        kinds_N = [kinds for text in edits for kinds in _kinds_of(tasks[passage], text, judge)]
        if kinds_N:
            counts = Counter(kind for kinds in kinds_N for kind in kinds)
            found[passage] = Lines(len(edits), len(kinds_N), counts)
    return found


def lines_of(text: str) -> list[str]:
    """Cut a self-edit into its lines; an answer belongs to the question before it."""
    return [line.strip() for line in re.split(r"\n(?!\s*Answer:)", text) if line.strip()]


def wording(task: Task, line: str, earlier: frozenset[str] = frozenset()) -> str:
    """Say how a line is worded, as one of `WORDINGS`; `earlier` are the words of those before it in its self-edit.

    - "empty": without a word;
    - "repeated": as worded before in this self-edit;
    - "question": with a question mark, answered or not;
    - "copied": its words stand in the passage in this order, one after the other;
    - "in other words": at least half of its words stand in the passage or its title, elsewhere;
    - "new": what is left.
    """
    words = _words(line)
    said = " ".join(words)
    if not words:
        return "empty"
    if said in earlier:
        return "repeated"
    if "?" in line:
        return "question"
    passage = _words(task.context)
    if f" {said} " in f" {' '.join(passage)} ":
        return "copied"
    known = {*passage, *_words(task.title)}
    return "in other words" if sum(word in known for word in words) >= _HALF * len(words) else "new"


def names_subject(task: Task, line: str) -> bool:
    """Say whether all words of the title stand in a line."""
    return set(_words(task.title)) <= set(_words(line))


def _kinds_of(task: Task, text: str, judge: Judge | None) -> list[list[tuple[str, str]]]:
    """The kinds of every line of a self-edit, one for each way to tell lines apart."""
    kinds_N = []
    earlier: frozenset[str] = frozenset()
    for line in lines_of(text):
        judged = [(JUDGED, judge(task, line))] if judge else []
        is_named = SUBJECTS[0 if names_subject(task, line) else 1]
        kinds_N.append([(WORDING, wording(task, line, earlier)), (SUBJECT, is_named), *judged])
        earlier |= {" ".join(_words(line))}
    return kinds_N


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
