"""What a line says of an entity of the synthetic world, and whether it is true.

The world is told in phrasings of its own (`world_facts`), so a line can be read back without a model: which attribute,
of whom, which value. It is how a report knows what a writer has learnt to write, and what a card measures.

    kind_of_line(task, "Tavo Merin was born in Karstel.")  # "true, by name"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from selfedit.tasks.world_facts import ATTRIBUTES, Attribute, Kind
from selfedit.types import Task

BY_NAME, NAMELESS, FALSE, NOTHING = "true, by name", "true, without the name", "false", "claims nothing"
KINDS_OF_LINES = (BY_NAME, NAMELESS, FALSE, NOTHING)

_SLOTS = {
    "S": r"(?P<subject>[\w ]+?)",
    "P": r"(?P<owner>[\w' ]+?)",
    "n": r"(?P<name>[\w ]+?)",
    "w": r"(?P<way>[\w ]+?)",
    "v": r"(?P<value>[\w ]+?)",
}
_NAMELESS = {"he", "she", "it", "his", "her", "its", "this person", "this town", "this company", "this event"}


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement: that the attribute of `subject` (as it is called there) is `value`. An aside is about `way`, the
    value through which a fact of two steps passes, and has no subject."""

    attribute: Attribute
    subject: str
    value: str
    way: str = ""


def statements(kind: Kind, text: str) -> Iterator[Claim]:
    """Find what a text may state of its entity, by every phrasing that a sentence of it can be read as."""
    for attribute in ATTRIBUTES[kind]:
        for form in attribute.tell:
            yield from (_claim(attribute, found) for found in _statement(form).finditer(text))


def claims(kind: Kind, line: str) -> list[Claim]:
    """Find all that a line claims: statements, asides, and questions with their answers.

    A sentence is read by the phrasing that leaves least of it open: "won by somebody from Karstel" names no winner.
    """
    read: dict[int, tuple[int, Claim]] = {}
    for attribute in ATTRIBUTES[kind]:
        patterns = [*map(_statement, (*attribute.tell, *attribute.aside)), *map(_answered, attribute.ask)]
        for found in (found for pattern in patterns for found in pattern.finditer(line)):
            said = len(found[0]) - sum(map(len, found.groups()))
            if said > read.get(found.start(), (0, None))[0]:
                read[found.start()] = said, _claim(attribute, found)
    return [claim for _, claim in read.values()]


def kind_of_line(task: Task, line: str) -> str:
    """Judge a line by what it claims, as one of `KINDS_OF_LINES`.

    One claim that is not a fact of the task's passage makes it false, and so does a true one of somebody else. It is
    true by name if every claim names the entity. The task is one of the world's, which has its facts in its questions.
    """
    kind: Kind = task.meta["kind"]
    facts = _facts(task, kind)
    found = claims(kind, line)
    if not found:
        return NOTHING
    if not all(_is_true(claim, facts, kind, task.title) for claim in found):
        return FALSE
    return BY_NAME if all(claim.subject == task.title for claim in found) else NAMELESS


def _is_true(claim: Claim, facts: dict[str, str], kind: Kind, title: str) -> bool:
    is_fact = facts.get(claim.attribute.name) == claim.value
    if claim.way:
        return is_fact and facts.get(claim.attribute.via) == claim.way
    return is_fact and (claim.subject == title or claim.subject.lower() in _NAMELESS)


def _facts(task: Task, kind: Kind) -> dict[str, str]:
    """Read a task's facts off its questions."""
    answers = {q.question: q.answer for q in task.questions}
    asked = {a.name: [form.format(n=task.title) for form in a.ask] for a in ATTRIBUTES[kind]}
    return {name: answers[form] for name, forms in asked.items() for form in forms if form in answers}


def _claim(attribute: Attribute, found: re.Match[str]) -> Claim:
    parts = found.groupdict()
    subject = parts.get("subject") or parts.get("name") or parts.get("owner", "").removesuffix("'s")
    return Claim(attribute, subject, parts["value"], parts.get("way", ""))


@cache
def _statement(form: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|(?<=\. )){_filled(form)}(?=\s|$)", re.MULTILINE)


@cache
def _answered(form: str) -> re.Pattern[str]:
    return re.compile(rf"^(?:Question \d+: )?{_filled(form)}\s*Answer: (?P<value>[\w ]+?)\.?\s*$")


def _filled(form: str) -> str:
    parts = re.split(r"\{(\w)\}", form)
    return "".join(_SLOTS[part] if i % 2 else re.escape(part) for i, part in enumerate(parts))
