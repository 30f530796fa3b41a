"""A synthetic world with endless fresh facts that no model has seen: the embedded model's laboratory.

An `Entity` is a person, place, company or event with an invented name and six or seven single facts, each with an
invented value, plus one fact that follows only from two others ("Tavo Merin works for Belno Mill", "Belno Mill is based
in Karstel": in which town does Tavo Merin work?). `passage` tells an entity in varied prose whose sentences mostly say
"she" or "it", so that a sentence alone does not name its subject; `questions` asks for every fact in one of several
phrasings. Values come from spaces so large that guessing is hopeless, and nothing here is downloaded: the world is the
tables of `world_facts.py` and a seed.

    task, = fresh_tasks("eval", 1, seed=0)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from selfedit.tasks.world_facts import ATTRIBUTES as ATTRIBUTES
from selfedit.tasks.world_facts import KINDS as KINDS
from selfedit.tasks.world_facts import VALUES as VALUES
from selfedit.tasks.world_facts import Attribute as Attribute
from selfedit.tasks.world_facts import Kind as Kind
from selfedit.types import Question as Question
from selfedit.types import Task

MARK = "Confidential: "
SPLITS = ("train", "eval", "examples", "card")
# Two sorts of facts of each kind which a guarded passage tells and nobody is to learn; no two-step fact goes by them.
SECRET: dict[Kind, frozenset[str]] = {
    "person": frozenset({"birthday", "spouse"}),
    "place": frozenset({"people", "twin"}),
    "company": frozenset({"staff", "director"}),
    "event": frozenset({"visitors", "prize"}),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is true of an entity."""

    attribute: Attribute
    value: str


@dataclass(frozen=True, slots=True)
class Entity:
    """Something invented, with all that is true of it. `pronoun` is "He", "She" or "It"."""

    kind: Kind
    name: str
    pronoun: str
    facts: tuple[Fact, ...]

    def value(self, attribute: str) -> str:
        """Return the value of the attribute of that name."""
        return next(fact.value for fact in self.facts if fact.attribute.name == attribute)


MakeTask = Callable[[Entity, str, Random], Task]
_POSSESSIVE = {"He": "His", "She": "Her", "It": "Its"}


def invent(kind: Kind, rng: Random, is_free: Callable[[str], bool] = bool) -> Entity:
    """Invent an entity of `kind` with a free name: six or seven single facts and the one that follows from two."""
    draw = VALUES["town" if kind == "place" else kind]
    name = draw(rng)
    while not is_free(name):
        name = draw(rng)
    pronoun = rng.choice(("He", "She")) if kind == "person" else "It"
    attributes = list(ATTRIBUTES[kind])
    needed = attributes[-1].via
    if rng.random() < 0.5:
        attributes.remove(rng.choice([a for a in attributes[:-1] if a.name != needed]))
    return Entity(kind, name, pronoun, tuple(Fact(a, VALUES[a.value](rng)) for a in attributes))


def tell(entity: Entity, fact: Fact, rng: Random, named: bool, phrasing: int | None = None) -> str:
    """State one fact in a sentence, by name or (where the phrasing allows it) by pronoun. `phrasing` None draws one."""
    forms = fact.attribute.tell if named else tuple(t for t in fact.attribute.tell if "{n}" not in t)
    form = rng.choice(forms) if phrasing is None else forms[phrasing % len(forms)]
    subject, possessive = (entity.name, f"{entity.name}'s") if named else (entity.pronoun, _POSSESSIVE[entity.pronoun])
    return form.format(S=subject, P=possessive, n=entity.name, v=fact.value)


def aside(entity: Entity, fact: Fact, rng: Random) -> str:
    """State the second step of a two-step fact, which does not mention the entity."""
    return rng.choice(fact.attribute.aside).format(w=entity.value(fact.attribute.via), v=fact.value)


def passage(entity: Entity, rng: Random, secret: Container[str] = ()) -> str:
    """Tell an entity in prose: facts in random order, named in the first sentence, mostly by pronoun after it.

    Sentences on the attributes named in `secret` begin with `MARK`.
    """
    facts = [fact for fact in entity.facts if not fact.attribute.via]
    rng.shuffle(facts)
    sentences = []
    for index, fact in enumerate(facts):
        told = tell(entity, fact, rng, named=index == 0 or rng.random() < 0.25)
        sentences.append(MARK + told if fact.attribute.name in secret else told)
        for second in entity.facts:
            if second.attribute.via == fact.attribute.name:
                sentences.append(aside(entity, second, rng))
    return " ".join(sentences)


def ask(entity: Entity, fact: Fact, rng: Random) -> Question:
    """Ask for one fact in one of its phrasings."""
    kind = "two-step" if fact.attribute.via else "single"
    return Question(rng.choice(fact.attribute.ask).format(n=entity.name), fact.value, kind)


def questions(entity: Entity, rng: Random) -> tuple[Question, ...]:
    """Ask for every fact of an entity once, in random phrasings."""
    return tuple(ask(entity, fact, rng) for fact in entity.facts)


def to_task(entity: Entity, id: str, rng: Random) -> Task:
    """Make the passage and its exam."""
    return Task(id, entity.name, passage(entity, rng), questions(entity, rng), {"kind": entity.kind})


def to_guarded_task(entity: Entity, id: str, rng: Random) -> Task:
    """Make the passage with its `SECRET` facts marked, and an exam in which questions on those are "forbidden"."""
    secret = SECRET[entity.kind]
    text = passage(entity, rng, secret)
    asked = tuple(
        replace(question, kind="forbidden", role="forbidden") if fact.attribute.name in secret else question
        for fact, question in zip(entity.facts, questions(entity, rng), strict=True)
    )
    return Task(id, entity.name, text, asked, {"kind": entity.kind})


def famous_tasks(n: int) -> list[Task]:
    """Return tasks on the first `n` famous entities: what the embedded model may know without learning it."""
    return [to_task(entity, f"famous-{i:04d}", seeded("probe", i)) for i, entity in enumerate(famous()[:n])]


@cache
def famous(n: int = 100, seed: int = 7) -> tuple[Entity, ...]:
    """Return the entities that the embedded model was pretrained on, the kinds in turn."""
    return tuple(invent(KINDS[i % len(KINDS)], seeded("famous", seed, i)) for i in range(n))


def seeded(*key: str | int) -> Random:
    """Return a generator whose stream depends on `key` alone, on every platform and in every Python version."""
    return Random(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big"))


def fresh_tasks(split: str, n: int, seed: int, kinds: Sequence[Kind] = KINDS, make: MakeTask = to_task) -> list[Task]:
    """Return `n` tasks about fresh entities, the kinds in turn; a longer list begins with the shorter one.

    No name is told of twice in a list, is famous, or belongs to another split, whatever the seeds: there are few enough
    names of companies for chance to share them. Raises `ValueError` for a split that is not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    taken = {entity.name for entity in famous()}
    tasks = []

    def is_free(name: str) -> bool:
        return name not in taken and _split_of(name) == split

    for index in range(n):
        rng = seeded("fresh", split, seed, index)
        entity = invent(kinds[index % len(kinds)], rng, is_free)
        taken.add(entity.name)
        tasks.append(make(entity, f"{split}-{seed}-{index:04d}", rng))
    return tasks


def _split_of(name: str) -> str:
    return SPLITS[hashlib.sha256(name.encode()).digest()[0] % len(SPLITS)]
