"""What is trained on, all of it in the model's own words: its questions with its answers, and what its chains led to.

Nothing here reads the gold answer of a question. The model asks itself the first step, and the second of whoever it
named, once in each phrasing; a chain is kept where two phrasings end alike, and then taught by whole questions, as the
answer alone or as the steps with it.

    told_Q = [agreed(tried_F) for tried_F in tried_QF]
    examples = distilled(chain, told_Q, "answers")

Axis suffixes: C chains, Q two-step questions of a chain, F phrasings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from selfedit.recipes.thinking.chains import Chain
from selfedit.tasks.exams import answer_prompt, gather
from selfedit.types import Example, Sample, Task

Form = Literal["answers", "chains"]
FORMS: tuple[Form, ...] = ("answers", "chains")
_STEP = ". "  # between the steps of a chain


@dataclass(frozen=True, slots=True)
class Told:
    """Where a chain led: `who` the first step named, `value` the second."""

    who: str
    value: str


def own_questions(drawn: Sequence[Sample]) -> list[str]:
    """Collect the questions that a model wrote on a passage, each once; the answers that it wrote there are dropped."""
    return list(dict.fromkeys(question.question for question in gather([sample.text for sample in drawn])[0]))


def study(task: Task, questions: Sequence[str], read: Sequence[str]) -> list[Example]:
    """Learn one's own questions, answered as they were `read` with the passage in view."""
    return [Example(a, answer_prompt(q, task.title)) for q, a in zip(questions, read, strict=True)]


def agreed(tried_F: Sequence[Told]) -> Told | None:
    """Return the first of the chains that end alike, where most do so; None where no two of them do."""
    if not tried_F:
        return None
    value, n = Counter(told.value for told in tried_F).most_common(1)[0]
    return next(told for told in tried_F if told.value == value) if n > 1 and value else None


def is_taught(q: int) -> bool:
    """Say whether a two-step question is for distilling: every other one. The rest of its chain is held out."""
    return q % 2 == 0


def distilled(chain: Chain, told_Q: Sequence[Told | None], form: Form) -> list[Example]:
    """Word the chains that were kept of the questions for distilling, in all phrasings but the last."""
    return [
        Example(
            told.value if form == "answers" else f"{told.who}{_STEP}{told.value}",
            answer_prompt(chain.whole(q, phrasing), chain.near.title),
        )
        for q, told in enumerate(told_Q)
        if told and is_taught(q)
        for phrasing in range(len(chain.order[q]) - 1)
    ]


def dealt_on(chains_C: Sequence[Chain], told_CQ: Sequence[Sequence[Told | None]]) -> list[list[Told | None]]:
    """Give every kept chain's place to one that was kept of another pair of passages, [C][Q]: for the same fact of the
    same kind of thing, so that what is learnt looks alike and is true of somebody else. Where there is no other, None.
    """
    places: dict[str, list[tuple[int, int]]] = {}
    for c, (chain, told_Q) in enumerate(zip(chains_C, told_CQ, strict=True)):
        for q, told in enumerate(told_Q):
            if told and is_taught(q):
                places.setdefault(f"{chain.far.meta['kind']}/{chain.hops[q].name}", []).append((c, q))
    dealt: list[list[Told | None]] = [[None] * len(told_Q) for told_Q in told_CQ]
    for found in places.values():
        for (c, q), (other, p) in zip(found, [*found[1:], found[0]], strict=True):
            dealt[c][q] = told_CQ[other][p] if other != c else None
    return dealt


def final(answer: str) -> str:
    """Take the answer off a chain's end; an answer without steps is its own."""
    return answer.rpartition(_STEP)[2].strip()
