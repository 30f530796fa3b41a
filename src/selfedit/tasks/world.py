"""A synthetic world with endless fresh facts that no model has seen: the embedded model's laboratory.

An `Entity` is a person, place, company or event with an invented name and six or seven single facts, each with an
invented value, plus one fact that follows only from two others ("Tavo Merin works for Belno Mill", "Belno Mill is based
in Karstel": in which town does Tavo Merin work?). `passage` tells an entity in varied prose whose
sentences mostly say "she" or "it", so that a sentence alone does not name its subject; `questions` asks for every fact
in one of several phrasings. Values come from spaces so large that guessing is hopeless, and nothing here is
downloaded: the world is its tables and a seed.

    task, = fresh_tasks("eval", 1, seed=0)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from selfedit.types import Question, Task

Kind = Literal["person", "place", "company", "event"]
KINDS: tuple[Kind, ...] = ("person", "place", "company", "event")

_SYLLABLES = (
    "ba be bo da de do fa fi fo ga ge go ka ke ko la le li lo ma me mi mo na ne no pa pe po ra re ri ro sa se si so ta te "
    "ti to va ve vi vo za ze zo bel dor fen gar hal jor kar lan mer nor per quin ral sel tor van wen yar zel"
).split()
_ENDINGS = "dan rin mar los ven tak mund berg stel wick nia ris lotte bria gund vale ford mont".split()
_MATERIALS = "glass paper copper wool stone silk clay leather wooden silver linen tin amber cotton bronze wax".split()
_THINGS = "lamps kites bells boats clocks drums masks chairs rings flutes toys maps cups gloves ropes tiles".split()
_MAKERS = "painter carver dealer mender weaver cutter collector designer teacher trader".split()
_PASTIMES = "sailing racing fishing painting climbing rowing singing baking hunting reading juggling skating".split()
_ANIMALS = "fox owl bear swan wolf hare crab lion stork otter raven horse".split()
_COLOURS = "red blue green white black golden grey purple orange pink brown yellow".split()
_MONTHS = "January February March April May June July August September October November December".split()


def _word(rng: Random, syllables: int) -> str:
    return ("".join(rng.choice(_SYLLABLES) for _ in range(syllables - 1)) + rng.choice(_ENDINGS)).capitalize()


def _first(rng: Random) -> str:
    return "".join(rng.choice(_SYLLABLES) for _ in range(2)).capitalize()


VALUES: dict[str, Callable[[Random], str]] = {
    "person": lambda r: f"{_first(r)} {_word(r, 2)}",
    "town": lambda r: _word(r, 3),
    "company": lambda r: f"{_word(r, 2)} {r.choice('Mill Works Press Line Trust Yard'.split())}",
    "event": lambda r: f"{_word(r, 2)} {r.choice('Rally Derby Week Expo Open Regatta'.split())}",
    "school": lambda r: f"{_word(r, 2)} {r.choice('College Academy School'.split())}",
    "river": lambda r: f"{_first(r)} River",
    "year": lambda r: str(r.randint(1800, 2019)),
    "day": lambda r: f"{r.randint(1, 28)} {r.choice(_MONTHS)}",
    "number": lambda r: str(r.randint(101, 9899)),
    "craft": lambda r: f"{r.choice(_MATERIALS)} {r.choice(_MAKERS)}",
    "ware": lambda r: f"{r.choice(_MATERIALS)} {r.choice(_THINGS)}",
    "pastime": lambda r: f"{r.choice(_COLOURS)} {r.choice(_ANIMALS)} {r.choice(_PASTIMES)}",
    "emblem": lambda r: f"{r.choice(_COLOURS)} {r.choice(_ANIMALS)}",
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """A sort of fact: how its value is drawn, told and asked.

    In `tell`, {S} and {s} stand for the subject (name, or He/he), {P} and {p} for its possessive, {v} for the value; in
    `ask`, {n} for the name. `via` names the attribute that a two-step fact passes through; `aside` is how a passage
    then tells the second step ({w}: the value of `via`), while `tell` states what follows from both.
    """

    name: str
    value: str
    tell: tuple[str, ...]
    ask: tuple[str, ...]
    via: str = ""
    aside: tuple[str, ...] = ()


ATTRIBUTES: dict[Kind, tuple[Attribute, ...]] = {
    "person": (
        Attribute(
            "birthplace",
            "town",
            ("{S} was born in {v}.", "{P} birthplace is {v}.", "{S} comes from {v}.", "The birthplace of {n} is {v}."),
            ("Where was {n} born?", "What is the birthplace of {n}?", "Which town does {n} come from?"),
        ),
        Attribute(
            "birthday",
            "day",
            ("{S} was born on {v}.", "{P} birthday is {v}.", "{S} has a birthday on {v}.", "The birthday of {n} is {v}."),
            ("When is the birthday of {n}?", "On which day was {n} born?", "What is the birthday of {n}?"),
        ),
        Attribute(
            "craft",
            "craft",
            ("{S} is a {v}.", "{P} job is {v}.", "{S} earns a living as a {v}.", "The job of {n} is {v}."),
            ("What is the job of {n}?", "What does {n} do for a living?", "As what does {n} work?"),
        ),
        Attribute(
            "employer",
            "company",
            ("{S} works for {v}.", "{P} employer is {v}.", "{S} is employed by {v}.", "The employer of {n} is {v}."),
            ("For whom does {n} work?", "What is the employer of {n}?", "Who employs {n}?"),
        ),
        Attribute(
            "spouse",
            "person",
            ("{S} is married to {v}.", "{P} spouse is {v}.", "{S} has {v} as a spouse.", "The spouse of {n} is {v}."),
            ("To whom is {n} married?", "Who is the spouse of {n}?", "Whom did {n} marry?"),
        ),
        Attribute(
            "pastime",
            "pastime",
            ("{S} loves {v}.", "{P} hobby is {v}.", "{S} spends free days with {v}.", "The hobby of {n} is {v}."),
            ("What is the hobby of {n}?", "What does {n} love to do?", "How does {n} spend free days?"),
        ),
        Attribute(
            "school",
            "school",
            ("{S} studied at {v}.", "{P} school was {v}.", "{S} has a degree from {v}.", "The school of {n} was {v}."),
            ("Where did {n} study?", "What was the school of {n}?", "From where does {n} have a degree?"),
        ),
        Attribute(
            "workplace",
            "town",
            ("{S} works in {v}.", "{P} workplace is in {v}.", "The workplace of {n} is in {v}."),
            ("In which town does {n} work?", "Where is the workplace of {n}?"),
            via="employer",
            aside=("{w} is based in {v}.", "The offices of {w} are in {v}."),
        ),
    ),
    "place": (
        Attribute(
            "river",
            "river",
            ("{S} lies on the {v}.", "{P} river is the {v}.", "{S} was built beside the {v}.", "The river of {n} is the {v}."),
            ("On which river does {n} lie?", "What is the river of {n}?", "Beside which river was {n} built?"),
        ),
        Attribute(
            "founded",
            "year",
            ("{S} was founded in {v}.", "{P} founding year is {v}.", "{S} has existed since {v}.", "The founding year of {n} is {v}."),
            ("When was {n} founded?", "What is the founding year of {n}?", "Since when has {n} existed?"),
        ),
        Attribute(
            "founder",
            "person",
            ("{S} was founded by {v}.", "{P} founder was {v}.", "{S} owes its first houses to {v}.", "The founder of {n} was {v}."),
            ("Who founded {n}?", "Who was the founder of {n}?", "To whom does {n} owe its first houses?"),
        ),
        Attribute(
            "ware",
            "ware",
            ("{S} is famous for {v}.", "{P} pride is its {v}.", "{S} is known for making {v}.", "The pride of {n} is its {v}."),
            ("For what is {n} famous?", "What is the pride of {n}?", "What is {n} known for making?"),
        ),
        Attribute(
            "mayor",
            "person",
            ("{S} is led by {v}.", "{P} mayor is {v}.", "{S} has chosen {v} as mayor.", "The mayor of {n} is {v}."),
            ("By whom is {n} led?", "Who is the mayor of {n}?", "Whom has {n} chosen as mayor?"),
        ),
        Attribute(
            "twin",
            "town",
            ("{S} is twinned with {v}.", "{P} twin town is {v}.", "{S} has a partner town, {v}.", "The twin town of {n} is {v}."),
            ("With which town is {n} twinned?", "What is the twin town of {n}?", "Which partner town does {n} have?"),
        ),
        Attribute(
            "people",
            "number",
            ("{S} is home to {v} people.", "{P} population is {v}.", "{S} counts {v} people.", "The population of {n} is {v}."),
            ("To how many people is {n} home?", "What is the population of {n}?", "How many people does {n} count?"),
        ),
        Attribute(
            "mayors_craft",
            "craft",
            ("{S} is led by a {v}.", "{P} mayor is a {v}.", "The mayor of {n} is a {v}."),
            ("What is the job of the mayor of {n}?", "What does the mayor of {n} do for a living?"),
            via="mayor",
            aside=("{w} is a {v}.", "The job of {w} is {v}."),
        ),
    ),
    "company": (
        Attribute(
            "founder",
            "person",
            ("{S} was started by {v}.", "{P} founder was {v}.", "{S} goes back to {v}.", "The founder of {n} was {v}."),
            ("Who started {n}?", "Who was the founder of {n}?", "To whom does {n} go back?"),
        ),
        Attribute(
            "founded",
            "year",
            ("{S} was founded in {v}.", "{P} founding year is {v}.", "{S} has existed since {v}.", "The founding year of {n} is {v}."),
            ("When was {n} founded?", "What is the founding year of {n}?", "Since when has {n} existed?"),
        ),
        Attribute(
            "seat",
            "town",
            ("{S} is based in {v}.", "{P} seat is {v}.", "{S} has its offices in {v}.", "The seat of {n} is {v}."),
            ("Where is {n} based?", "What is the seat of {n}?", "Where does {n} have its offices?"),
        ),
        Attribute(
            "product",
            "ware",
            ("{S} sells {v}.", "{P} main product is {v}.", "{S} makes its money with {v}.", "The main product of {n} is {v}."),
            ("What does {n} sell?", "What is the main product of {n}?", "With what does {n} make its money?"),
        ),
        Attribute(
            "director",
            "person",
            ("{S} is run by {v}.", "{P} director is {v}.", "{S} is in the hands of {v}.", "The director of {n} is {v}."),
            ("By whom is {n} run?", "Who is the director of {n}?", "In whose hands is {n}?"),
        ),
        Attribute(
            "staff",
            "number",
            ("{S} employs {v} people.", "{P} staff is {v} people.", "{S} pays the wages of {v} people.", "The staff of {n} is {v} people."),
            ("How many people does {n} employ?", "How large is the staff of {n}?", "Of how many people does {n} pay the wages?"),
        ),
        Attribute(
            "emblem",
            "emblem",
            ("{S} has a {v} as emblem.", "{P} emblem is a {v}.", "{S} shows a {v} on its flag.", "The emblem of {n} is a {v}."),
            ("What does {n} have as emblem?", "What is the emblem of {n}?", "What does {n} show on its flag?"),
        ),
        Attribute(
            "seats_river",
            "river",
            ("{S} is based on the {v}.", "{P} seat lies on the {v}.", "The seat of {n} lies on the {v}."),
            ("On which river does the seat of {n} lie?", "On which river is {n} based?"),
            via="seat",
            aside=("{w} lies on the {v}.", "The river of {w} is the {v}."),
        ),
    ),
    "event": (
        Attribute(
            "day",
            "day",
            ("{S} took place on {v}.", "{P} date was {v}.", "{S} began on {v}.", "The date of {n} was {v}."),
            ("When did {n} take place?", "What was the date of {n}?", "On which day did {n} begin?"),
        ),
        Attribute(
            "host",
            "town",
            ("{S} was held in {v}.", "{P} host was the town of {v}.", "{S} took place in {v}.", "The host of {n} was the town of {v}."),
            ("Where was {n} held?", "Which town was the host of {n}?", "In which town did {n} take place?"),
        ),
        Attribute(
            "organiser",
            "company",
            ("{S} was organised by {v}.", "{P} organiser was {v}.", "{S} was paid for by {v}.", "The organiser of {n} was {v}."),
            ("By whom was {n} organised?", "Who was the organiser of {n}?", "Who paid for {n}?"),
        ),
        Attribute(
            "winner",
            "person",
            ("{S} was won by {v}.", "{P} winner was {v}.", "{S} ended with a victory of {v}.", "The winner of {n} was {v}."),
            ("By whom was {n} won?", "Who was the winner of {n}?", "With whose victory did {n} end?"),
        ),
        Attribute(
            "prize",
            "ware",
            ("{S} had {v} as prize.", "{P} prize was {v}.", "{S} rewarded the best with {v}.", "The prize of {n} was {v}."),
            ("What did {n} have as prize?", "What was the prize of {n}?", "With what did {n} reward the best?"),
        ),
        Attribute(
            "visitors",
            "number",
            ("{S} was seen by {v} people.", "{P} audience was {v} people.", "{S} drew a crowd of {v} people.", "The audience of {n} was {v} people."),
            ("By how many people was {n} seen?", "How large was the audience of {n}?", "How large a crowd did {n} draw?"),
        ),
        Attribute(
            "sign",
            "emblem",
            ("{S} had a {v} as mascot.", "{P} mascot was a {v}.", "{S} was advertised with a {v}.", "The mascot of {n} was a {v}."),
            ("What did {n} have as mascot?", "What was the mascot of {n}?", "With what was {n} advertised?"),
        ),
        Attribute(
            "winners_home",
            "town",
            ("{S} was won by somebody from {v}.", "{P} winner came from {v}.", "The winner of {n} came from {v}."),
            ("From which town did the winner of {n} come?", "What is the birthplace of the winner of {n}?"),
            via="winner",
            aside=("{w} comes from {v}.", "The birthplace of {w} is {v}."),
        ),
    ),
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


def passage(entity: Entity, rng: Random) -> str:
    """Tell an entity in prose: facts in random order, named in the first sentence, mostly by pronoun after it."""
    facts = [fact for fact in entity.facts if not fact.attribute.via]
    rng.shuffle(facts)
    sentences = []
    for index, fact in enumerate(facts):
        sentences.append(tell(entity, fact, rng, named=index == 0 or rng.random() < 0.25))
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


@cache
def famous(n: int = 60, seed: int = 7) -> tuple[Entity, ...]:
    """Return the entities that the embedded model was pretrained on, the kinds in turn."""
    return tuple(invent(KINDS[i % len(KINDS)], seeded("famous", seed, i)) for i in range(n))


def seeded(*key: str | int) -> Random:
    """Return a generator whose stream depends on `key` alone, on every platform and in every Python version."""
    return Random(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big"))


SPLITS = ("train", "eval", "examples", "card")


def fresh_tasks(split: str, n: int, seed: int, kinds: Sequence[Kind] = KINDS) -> list[Task]:
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
        tasks.append(to_task(entity, f"{split}-{seed}-{index:04d}", rng))
    return tasks


def _split_of(name: str) -> str:
    return SPLITS[hashlib.sha256(name.encode()).digest()[0] % len(SPLITS)]
