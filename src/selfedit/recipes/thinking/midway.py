"""An update in the middle of a thought: think, write a self-edit, learn it, go on; and the same thought without it.

One passage is in view at a time. First far's, of which nobody can know what will be needed: the model notes one fact of
it, and writes a self-edit on all of it. Then near's, which says that near's bridge is far's thing. Then neither: the
second step is asked of whoever the model found in the first. Notes, what the first step found and what is trained on
are the model's own words.

Updates: "none", "passage" (the bare passage), "edit" (self-edits) and "study" (its own questions with the answers that
it read). Views, of the second step:

    other-note    both thoughts in view, and the note is on another fact: what is asked can be in the weights alone
    needed-note   both in view, and the note is on the fact that is asked: the update has nothing to add
    no-note       nothing in view; the first step's finding stands in the question
    direct        thoughts dropped: both steps in one question, nothing in view
    in-view       far's passage in view again, where there is no update: what reading alone can do

Axis suffixes: C chains, Q two-step questions of a chain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from selfedit.recipes.thinking.bench import Bench
from selfedit.recipes.thinking.chains import Chain
from selfedit.tasks.exams import answer_prompt
from selfedit.types import Adapter, Example, Task

STAGE = "midway"
UPDATES = ("none", "passage", "edit", "study")
VIEWS = ("other-note", "needed-note", "no-note", "direct")
IN_VIEW = "in-view"
ARMS = (*(f"{update}/{view}" for update in UPDATES for view in VIEWS), f"none/{IN_VIEW}")
_HEADING = "Notes"


def midway(bench: Bench) -> None:
    """Run what is missing of every update; the notes are the same for all."""
    far_C, notes_CQ = [chain.far for chain in bench.chains_C], list[list[str]]()
    for update in UPDATES:
        if bench.is_done(f"{STAGE}/{update}", views_of(update)):
            continue
        notes_CQ = notes_CQ or bench.read(far_C, [[q.question for q in far.questions] for far in far_C])
        go_on(bench, update, notes_CQ)


def views_of(update: str) -> tuple[str, ...]:
    """Name the views of the second step after an update."""
    return (*VIEWS, IN_VIEW) if update == "none" else VIEWS


def go_on(bench: Bench, update: str, notes_CQ: Sequence[Sequence[str]]) -> None:
    """Learn far's passages, read near's, and take the second step in every view. The cost of the update is the first
    view's."""
    started = time.process_time()
    adapters_C = updated(bench, update)
    first_C = [
        [answer_prompt(chain.first(), chain.near.title, chain.near.context)] for chain in bench.chains_C
    ]  # near's passage is in view now, and far's no longer
    who_C = [found for (found,) in bench.ask(first_C, adapters_C)]
    measures_C = [{"first": float(who == chain.far.title)} for chain, who in zip(bench.chains_C, who_C, strict=True)]
    for view in views_of(update):
        prompts_CQ = [
            second_prompts(chain, view, notes, who)
            for chain, notes, who in zip(bench.chains_C, notes_CQ, who_C, strict=True)
        ]
        bench.record(f"{STAGE}/{update}", view, adapters_C, bench.ask(prompts_CQ, adapters_C), measures_C, started)
        started = time.process_time()
    bench.release(adapters_C)


def updated(bench: Bench, update: str) -> list[Adapter | None]:
    """Train on what was written of far's passages, [C]."""
    write: dict[str, Callable[[Sequence[Task]], list[list[Example]]]] = {
        "passage": bench.passages,
        "edit": bench.edits,
        "study": bench.studies,
    }
    if update == "none":
        return [None] * len(bench.chains_C)
    examples_C = write[update]([chain.far for chain in bench.chains_C])
    return bench.train(f"{STAGE}/{update}", examples_C, bench.recipe.inner)


def second_prompts(chain: Chain, view: str, notes_Q: Sequence[str], who: str) -> list[str]:
    """Word the second step of every question, [Q]: `notes_Q` is what was noted of far, `who` what the first step
    found. Whatever the view, the phrasing is the one that is never trained on."""
    prompts = []
    for q in range(len(chain.hops)):
        asked = chain.second(q, who, -1)
        if view == "direct":
            prompts.append(answer_prompt(chain.whole(q, -1), chain.near.title))
        elif view == "no-note":
            prompts.append(answer_prompt(asked, who))
        elif view == IN_VIEW:
            prompts.append(answer_prompt(asked, who, chain.far.context, chain.far.title))
        else:
            noted = q if view == "needed-note" else (q + 1) % len(chain.hops)
            thoughts = f"{chain.note(noted, notes_Q[noted])} {chain.link(who)}"
            prompts.append(answer_prompt(asked, who, thoughts, _HEADING))
    return prompts
