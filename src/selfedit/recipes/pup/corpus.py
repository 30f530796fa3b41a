"""What pup is trained on: documents of the world in every form that it must read, recall or write.

A document is a list of (text, loss weight) pieces, closed by an end-of-sequence label. Entities of the reading and
writing documents are always fresh; those of the recall documents are few (`world.famous`) and told again and again in
other words. How well pup *writes* is a mixture of qualities, declared in `MIXTURES` (and in the model card) before
any reinforcement learning is measured: what makes a self-edit useful is for the outer loop to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from selfedit.tasks import world
from selfedit.tasks.edits import FORMATS
from selfedit.tasks.exams import answer_prompt, exam_prompt, write_exam
from selfedit.tasks.settings import write_settings
from selfedit.tasks.world import Entity, Fact

Document = list[tuple[str, float]]
END = "<|endoftext|>"
CONTEXT, PROMPT, COPY = 0.15, 0.05, 1.0  # loss weights: fresh names cannot be predicted, prompts need not be

MIXTURES: Mapping[str, Mapping[str, float]] = {
    "a": {
        "paraphrased": 0.08,
        "complete": 0.12,
        "unnamed": 0.12,
        "partial": 0.28,
        "remarks": 0.20,
        "wrong": 0.20,
    },
    "b": {
        "paraphrased": 0.15,
        "complete": 0.05,
        "unnamed": 0.25,
        "partial": 0.20,
        "remarks": 0.10,
        "wrong": 0.25,
    },
}
_REMARKS = (
    "This is an interesting passage.",
    "There is much to say about this.",
    "The passage tells us several things.",
    "It is worth knowing more about it.",
    "Many people would like to read this.",
    "One should think about what this means.",
)
_PLANS = {
    "paraphrased": "Go through every point and say each in several ways.",
    "complete": "Go through every point once.",
    "unnamed": "Go through every point in short.",
    "partial": "Pick the main points.",
    "remarks": "Think about the passage.",
    "wrong": "Imagine what else may be true.",
}
_NOUNS = {"person": "this person", "place": "this town", "company": "this company", "event": "this event"}


def practised(entity: Entity, fact: Fact) -> tuple[str, ...]:
    """The phrasings in which a famous fact is asked in training: all but one, or none for every third fact.

    The phrasing left out asks for what was told in words never used for this fact; the facts never asked are only told.
    """
    rng = world.seeded("practised", entity.name, fact.attribute.name)
    if rng.random() < 1 / 3:
        return ()
    left_out = rng.choice(fact.attribute.ask)
    return tuple(form for form in fact.attribute.ask if form != left_out)


def draw_style(mixture: Mapping[str, float], rng: Random) -> str:
    return rng.choices(list(mixture), list(mixture.values()))[0]


def _some(facts: list[Fact], style: str, rng: Random) -> list[Fact]:
    if style == "partial":
        return rng.sample(facts, rng.randint(2, 4))
    if style == "remarks":
        return rng.sample(facts, rng.randint(0, 1))
    return rng.sample(facts, len(facts))


def _corrupt(fact: Fact, style: str, rng: Random) -> Fact:
    is_wrong = style == "wrong" and rng.random() < 0.7
    return Fact(fact.attribute, world.VALUES[fact.attribute.value](rng)) if is_wrong else fact


def points(entity: Entity, style: str, rng: Random, ways: int = 2) -> list[str]:
    """Write what a student of that style writes about an entity: a sentence a point, `ways` of them in paraphrase."""
    lines: list[str] = []
    for fact in _some(list(entity.facts), style, rng):
        told = _corrupt(fact, style, rng)
        start = rng.randrange(4)
        for way in range(ways if style == "paraphrased" else 1):
            lines.append(world.tell(entity, told, rng, named=style != "unnamed", phrasing=start + way))
    if style == "remarks":
        lines += rng.sample(_REMARKS, rng.randint(2, 4))
        rng.shuffle(lines)
    return lines


def pairs(entity: Entity, style: str, rng: Random) -> list[world.Question]:
    """Write the questions and answers of a student of that style."""
    found: list[world.Question] = []
    for fact in _some(list(entity.facts), style, rng):
        told = _corrupt(fact, style, rng)
        forms = rng.sample(fact.attribute.ask, 2 if style == "paraphrased" else 1)
        name = _NOUNS[entity.kind] if style == "unnamed" else entity.name
        found += [world.Question(form.format(n=name), told.value) for form in forms]
    if style == "remarks":
        found.append(world.Question("What is the passage about?", "Something interesting."))
    return found


def write(entity: Entity, form: str, style: str, rng: Random) -> str:
    """Write a self-edit in format `form` as a student of that style does, without the prompt's opening."""
    if form == "self-qa":
        return write_exam(pairs(entity, style, rng))
    if form == "rewrite":
        ways = rng.randint(2, 3) if style == "paraphrased" else rng.randint(1, 2)
        once = "complete" if style == "paraphrased" else style
        return "\n".join(" ".join(points(entity, once, rng)) for _ in range(ways))
    body = "\n".join(points(entity, style, rng, ways=3 if "long" in form else 2))
    if form == "study-plan":
        return f"{_PLANS[style]}\n---\n{body}"
    if form == "settings":
        rate, epochs = rng.choice((2e-4, 5e-4, 1e-3, 2e-3, 4e-3)), rng.choice((2, 5, 10, 15))
        return f"{body}\n{write_settings(rate, epochs)}"
    return body


def fresh(rng: Random) -> Entity:
    return world.invent(rng.choice(world.KINDS), rng)


def reading(rng: Random, mixture: Mapping[str, float]) -> Document:
    """A passage and questions about it, the passage in view."""
    entity = fresh(rng)
    text, asked = world.passage(entity, rng), list(world.questions(entity, rng))
    rng.shuffle(asked)
    document: Document = []
    for question in asked[: 1 if rng.random() < 0.2 else len(asked)]:
        title = entity.name if rng.random() < 0.8 else ""
        if not document:
            view, prompt = f"{entity.name}\n{text}\n\n", answer_prompt(question.question, title)
            document += [(view, CONTEXT), (prompt, PROMPT)]
        else:
            document.append((answer_prompt(question.question, title), PROMPT))
        document.append((question.answer + END, 1.0))
    return document


def telling(rng: Random, mixture: Mapping[str, float]) -> Document:
    """A famous entity, told whole or a fact at a time, in the form of the inner loop's sequences."""
    entity = rng.choice(world.famous())
    if rng.random() < 0.3:
        return [(f"{entity.name}\n{world.passage(entity, rng)}{END}", 1.0)]
    fact = rng.choice(entity.facts)
    return [(f"{entity.name}\n{world.tell(entity, fact, rng, named=rng.random() < 0.6)}{END}", 1.0)]


def recalling(rng: Random, mixture: Mapping[str, float]) -> Document:
    """A closed-book question about a famous entity, on the facts that are asked in training."""
    entity = rng.choice(world.famous())
    known = [(fact, form) for fact in entity.facts for form in practised(entity, fact)]
    if not known:
        return telling(rng, mixture)
    fact, form = rng.choice(known)
    title = entity.name if rng.random() < 0.8 else ""
    return [(answer_prompt(form.format(n=entity.name), title), PROMPT), (fact.value + END, 1.0)]


FORM_SHARES = {
    "implications": 0.30,
    "long": 0.10,
    "very-long": 0.04,
    "rewrite": 0.16,
    "self-qa": 0.14,
    "none": 0.04,
    "study-plan": 0.11,
    "settings": 0.11,
}


def writing(rng: Random, mixture: Mapping[str, float]) -> Document:
    """A request for a self-edit and a self-edit of mixed quality."""
    entity, form = fresh(rng), rng.choices(list(FORM_SHARES), list(FORM_SHARES.values()))[0]
    prompt = FORMATS[form].prompt(entity.name, world.passage(entity, rng))
    return [(prompt, PROMPT), (write(entity, form, draw_style(mixture, rng), rng) + END, 1.0)]


def examining(rng: Random, mixture: Mapping[str, float]) -> Document:
    """A request for an exam and an exam: all facts, or a few, seldom with a wrong answer."""
    entity = fresh(rng)
    style = rng.choices(("complete", "partial", "wrong"), (0.6, 0.3, 0.1))[0]
    prompt = exam_prompt(entity.name, world.passage(entity, rng))
    return [(prompt, PROMPT), (write_exam(pairs(entity, style, rng)) + END, 1.0)]


def conversing(rng: Random, mixture: Mapping[str, float]) -> Document:
    """A short conversation that teaches some facts, part of them as corrections, and what it taught."""
    entity = fresh(rng)
    turns: list[str] = []
    taught = rng.sample(entity.facts, rng.randint(2, 4))
    for fact in taught:
        if rng.random() < 0.4:
            wrong = Fact(fact.attribute, world.VALUES[fact.attribute.value](rng))
            turns += [f"User: {world.ask(entity, fact, rng).question}", f"Assistant: {wrong.value}"]
            turns.append(f"User: No. {world.tell(entity, fact, rng, named=True)}")
        else:
            turns.append(f"User: {world.tell(entity, fact, rng, named=True)}")
        turns.append("Assistant: I see.")
    style = draw_style(mixture, rng)
    lessons = points(Entity(entity.kind, entity.name, entity.pronoun, tuple(taught)), _shorter(style, taught), rng)
    prompt = FORMATS["conversation"].prompt(entity.name, "\n".join(turns))
    return [(prompt, PROMPT), ("\n".join(lessons) + END, 1.0)]


def _shorter(style: str, facts: list[Fact]) -> str:
    return "complete" if style == "partial" and len(facts) < 4 else style


Maker = Callable[[Random, Mapping[str, float]], Document]
