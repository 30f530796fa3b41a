"""What the names of SEAL's published results say: which there are, where each stands, which pairs are worth comparing.

place_of("alternate_prompts/eval/iter2_prompt-long")  # Place("eval", "round-2", "long")
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

DEFAULT_PROMPT = "implications"
_PROMPTS = ("long", "very-long", "rewrite", "self-qa")
EXPECTED = (
    *(f"eval/{writer}" for writer in ("naive", "gpt4_1", "base", "iter1", "iter2")),
    *(f"alternate_prompts/eval/{base}_prompt-{p}" for p in _PROMPTS for base in ("base", "iter1", "iter2")),
    *(f"train/rank_iter{i}" for i in range(2)),
    *(f"alternate_prompts/train/rank_iter{i}_prompt-{p}" for p in _PROMPTS for i in range(2)),
    *(f"cpt/cpt_{writer}" for writer in ("naive", "gpt4_1", "base", "iter2")),
)
"""The results that the authors released, in the order of the tables."""


@dataclass(frozen=True, slots=True)
class Place:
    """A result's `table` ("eval", "train" or "cpt"), its writer ("round-0" is before RL) and its prompt format."""

    table: str
    writer: str
    prompt: str


def place_of(name: str) -> Place | None:
    """Read the authors' name of a result; None for another."""
    found = re.fullmatch(r"(?:alternate_prompts/)?(eval|train|cpt)/(?:rank_|cpt_)?(\w+?)(?:_prompt-([\w-]+))?", name)
    if found is None:
        return None
    table, writer, prompt = found.groups()
    stage = re.fullmatch(r"iter(\d+)|base", writer)
    return Place(table, f"round-{stage[1] or 0}" if stage else writer, prompt or DEFAULT_PROMPT)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort names of results as the tables have them, unknown ones last."""
    places = {name: i for i, name in enumerate(EXPECTED)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def kind_of(a: Place, b: Place) -> str | None:
    """Say in what alone two results differ (see `Comparison`); None where in more, in nothing, or in the passages."""
    if a.table != b.table or (a.writer == b.writer) == (a.prompt == b.prompt):
        return None
    if a.prompt != b.prompt:
        return "formats"
    return "rounds" if _is_round(a) and _is_round(b) else "writers"


def _is_round(place: Place) -> bool:
    return place.writer.startswith("round-")


def pairs(names: Sequence[str], exams: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """Name the pairs to compare as (kind, a, b): those of one known exam that differ in one thing alone."""
    places = {name: place for name in names if (place := place_of(name)) and exams.get(name)}
    kinds = [(kind_of(places[a], places[b]), a, b) for a, b in combinations(places, 2) if exams[a] == exams[b]]
    return [(kind, a, b) for wanted in ("rounds", "writers", "formats") for kind, a, b in kinds if kind == wanted]
