"""Distilling the chain: what a model finds by asking itself two questions in a row, made one answer.

An update has taught the one-step facts of both passages of every chain. The model then asks itself the steps of every
other two-step question, and what its chains agree on (`lessons`) is trained into a further adapter: as the final
answer, or as the chain with it. No gold answer has a say. As a control, chains are dealt to the questions of other
passages. Everybody is then asked all whole questions, in the phrasing that is never trained on, and one-step ones.

    chain      the model before distilling, which asks itself both steps
    direct     the same model, asked the whole question
    answers, chains, shuffled-answers, shuffled-chains     after distilling, asked the whole question

Axis suffixes: C chains, Q two-step questions of a chain, F phrasings.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from selfedit.recipes.thinking.bench import Bench, as_distilling
from selfedit.recipes.thinking.chains import Chain
from selfedit.recipes.thinking.lessons import FORMS, Form, Told, agreed, dealt_on, distilled, final, is_taught
from selfedit.tasks.exams import answer_prompt
from selfedit.types import Adapter, Task, mean_measured

STAGE = "afterwards"
BEFORE = ("chain", "direct")
DISTILLED = (*FORMS, *(f"shuffled-{form}" for form in FORMS))
ARMS = (*BEFORE, *DISTILLED)


def afterwards(bench: Bench) -> None:
    """Run what is missing: the update, its chains, and every way to distil them."""
    if bench.is_done(STAGE, ARMS):
        return
    started = time.process_time()
    taught_C = teach(bench)
    tried_CQF = asked_in_turn(bench, taught_C)
    told_CQ = [[agreed(tried_F) for tried_F in tried_QF] for tried_QF in tried_CQF]
    found_CQ = [[tried_F[-1].value for tried_F in tried_QF] for tried_QF in tried_CQF]
    measures_C = [
        {"one-step": known, "first": float(tried_QF[0][-1].who == chain.far.title), **of_kept(bench, chain, told_Q)}
        for chain, known, tried_QF, told_Q in zip(
            bench.chains_C, one_step(bench, taught_C), tried_CQF, told_CQ, strict=True
        )
    ]
    bench.record(STAGE, "chain", taught_C, found_CQ, measures_C, started)
    examine(bench, "direct", taught_C, told_CQ, time.process_time())
    for form in FORMS:
        distil(bench, form, form, told_CQ, told_CQ, taught_C)
        distil(bench, f"shuffled-{form}", form, dealt_on(bench.chains_C, told_CQ), told_CQ, taught_C)
    bench.release(taught_C)


def teach(bench: Bench) -> list[Adapter | None]:
    """Learn the one-step facts of both passages from the model's own questions about them, [C]."""
    near_C = bench.studies([chain.near for chain in bench.chains_C])
    far_C = bench.studies([chain.far for chain in bench.chains_C])
    both_C = [[*near, *far] for near, far in zip(near_C, far_C, strict=True)]
    return bench.train(STAGE, both_C, bench.recipe.inner)


def asked_in_turn(bench: Bench, taught_C: Sequence[Adapter | None]) -> list[list[list[Told]]]:
    """Let the model ask itself both steps, closed-book, once in each phrasing, [C][Q][F]."""
    n = len(bench.chains_C[0].order[0])
    first = [[answer_prompt(chain.first(f), chain.near.title) for f in range(n)] for chain in bench.chains_C]
    who_CF = bench.ask(first, taught_C)
    second = [
        [answer_prompt(chain.second(q, who, f), who) for q in range(len(chain.hops)) for f, who in enumerate(who_F)]
        for chain, who_F in zip(bench.chains_C, who_CF, strict=True)
    ]
    values_CN = bench.ask(second, taught_C)
    return [
        [[Told(who_F[f], values[q * n + f]) for f in range(n)] for q in range(len(chain.hops))]
        for chain, who_F, values in zip(bench.chains_C, who_CF, values_CN, strict=True)
    ]


def of_kept(bench: Bench, chain: Chain, told_Q: Sequence[Told | None]) -> dict[str, float | None]:
    """Measure the share of the questions for distilling whose chains agreed, and of these the share that is right."""
    gold_Q = chain.far.questions
    kept = [(gold_Q[q], told.value) for q, told in enumerate(told_Q) if told and is_taught(q)]
    right = bench.mark([gold for gold, _ in kept], [value for _, value in kept])
    return {"kept": len(kept) / sum(map(is_taught, range(len(told_Q)))), "kept-right": right}


def distil(
    bench: Bench,
    arm: str,
    form: Form,
    taught_by_CQ: Sequence[Sequence[Told | None]],
    told_CQ: Sequence[Sequence[Told | None]],
    taught_C: Sequence[Adapter | None],
) -> None:
    """Train chains into adapters on top of what was taught, and examine them."""
    started = time.process_time()
    examples_C = [distilled(*each, form) for each in zip(bench.chains_C, taught_by_CQ, strict=True)]
    settings = as_distilling(bench.recipe.outer.train)
    adapters_C = bench.train(f"{STAGE}/{form}", examples_C, settings, taught_C)  # a control has the form's own seed
    examine(bench, arm, adapters_C, told_CQ, started)
    bench.release([adapter for adapter in adapters_C if adapter not in taught_C])


def examine(
    bench: Bench,
    arm: str,
    adapters_C: Sequence[Adapter | None],
    told_CQ: Sequence[Sequence[Told | None]],
    started: float,
) -> None:
    """Ask every whole question and every one-step one; say how often the answer is what the model's own chain was."""
    prompts = [
        [answer_prompt(question.question, chain.near.title) for question in chain.exam(-1)] for chain in bench.chains_C
    ]
    answers_CQ = [[final(answer) for answer in answers] for answers in bench.ask(prompts, adapters_C)]
    measures_C = [
        {"one-step": known, "as-chain": agreement(answers, told_Q)}
        for known, answers, told_Q in zip(one_step(bench, adapters_C), answers_CQ, told_CQ, strict=True)
    ]
    bench.record(STAGE, arm, adapters_C, answers_CQ, measures_C, started)


def agreement(answers_Q: Sequence[str], told_Q: Sequence[Told | None]) -> float | None:
    """Return the share of the kept chains whose end the answers are; None where none was kept."""
    pairs = [(answers_Q[q], told.value) for q, told in enumerate(told_Q) if told and is_taught(q)]
    return mean_measured([float(answer == value) for answer, value in pairs])


def one_step(bench: Bench, adapters_C: Sequence[Adapter | None]) -> list[float | None]:
    """Examine the one-step facts of both passages, closed-book: mean marks, [C]."""
    tasks_CN: list[tuple[Task, Task]] = [(chain.near, chain.far) for chain in bench.chains_C]
    prompts = [[answer_prompt(q.question, task.title) for task in tasks for q in task.questions] for tasks in tasks_CN]
    return [
        bench.mark([q for task in tasks for q in task.questions], [final(answer) for answer in answers])
        for tasks, answers in zip(tasks_CN, bench.ask(prompts, adapters_C), strict=True)
    ]
