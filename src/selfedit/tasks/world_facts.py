"""What can be true in the synthetic world: kinds of things, what each has, how that is told and asked.

The tables behind `world.py`. Every sort of value has at least a hundred possible ones, none likelier than 1 in 25.
"""

# ruff: noqa: SIM905 — a list of words reads best as a line of text

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal["person", "place", "company", "event"]
KINDS: tuple[Kind, ...] = ("person", "place", "company", "event")

_SYLLABLES = (
    "ba be bo da de do fa fi fo ga ge go ka ke ko la le li lo ma me mi mo na ne no pa pe po ra re ri ro sa se si so ta "
    "te ti to va ve vi vo za ze zo bel dor fen gar hal jor kar lan mer nor per quin ral sel tor van wen yar zel"
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

    In `tell`, {S} stands for the subject (its name or pronoun), {P} for its possessive, {n} for its name, {v} for the
    value; in `ask`, {n} for the name. `via` names the attribute that a two-step fact passes through; `aside` is how a
    passage then tells the second step ({w}: the value of `via`), while `tell` states what follows from both.
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
            (
                "{S} was born on {v}.",
                "{P} birthday is {v}.",
                "{S} has a birthday on {v}.",
                "The birthday of {n} is {v}.",
            ),
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
            (
                "{S} lies on the {v}.",
                "{P} river is the {v}.",
                "{S} was built beside the {v}.",
                "The river of {n} is the {v}.",
            ),
            ("On which river does {n} lie?", "What is the river of {n}?", "Beside which river was {n} built?"),
        ),
        Attribute(
            "founded",
            "year",
            (
                "{S} was founded in {v}.",
                "{P} founding year is {v}.",
                "{S} has existed since {v}.",
                "The founding year of {n} is {v}.",
            ),
            ("When was {n} founded?", "What is the founding year of {n}?", "Since when has {n} existed?"),
        ),
        Attribute(
            "founder",
            "person",
            (
                "{S} was founded by {v}.",
                "{P} founder was {v}.",
                "{S} owes its first houses to {v}.",
                "The founder of {n} was {v}.",
            ),
            ("Who founded {n}?", "Who was the founder of {n}?", "To whom does {n} owe its first houses?"),
        ),
        Attribute(
            "ware",
            "ware",
            (
                "{S} is famous for {v}.",
                "{P} pride is its {v}.",
                "{S} is known for making {v}.",
                "The pride of {n} is its {v}.",
            ),
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
            (
                "{S} is twinned with {v}.",
                "{P} twin town is {v}.",
                "{S} has a partner town, {v}.",
                "The twin town of {n} is {v}.",
            ),
            ("With which town is {n} twinned?", "What is the twin town of {n}?", "Which partner town does {n} have?"),
        ),
        Attribute(
            "people",
            "number",
            (
                "{S} is home to {v} people.",
                "{P} population is {v}.",
                "{S} counts {v} people.",
                "The population of {n} is {v}.",
            ),
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
            (
                "{S} was founded in {v}.",
                "{P} founding year is {v}.",
                "{S} has existed since {v}.",
                "The founding year of {n} is {v}.",
            ),
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
            (
                "{S} sells {v}.",
                "{P} main product is {v}.",
                "{S} makes its money with {v}.",
                "The main product of {n} is {v}.",
            ),
            ("What does {n} sell?", "What is the main product of {n}?", "With what does {n} make its money?"),
        ),
        Attribute(
            "director",
            "person",
            (
                "{S} is run by {v}.",
                "{P} director is {v}.",
                "{S} is in the hands of {v}.",
                "The director of {n} is {v}.",
            ),
            ("By whom is {n} run?", "Who is the director of {n}?", "In whose hands is {n}?"),
        ),
        Attribute(
            "staff",
            "number",
            (
                "{S} employs {v} people.",
                "{P} staff is {v} people.",
                "{S} pays the wages of {v} people.",
                "The staff of {n} is {v} people.",
            ),
            (
                "How many people does {n} employ?",
                "How large is the staff of {n}?",
                "Of how many people does {n} pay the wages?",
            ),
        ),
        Attribute(
            "emblem",
            "emblem",
            (
                "{S} has a {v} as emblem.",
                "{P} emblem is a {v}.",
                "{S} shows a {v} on its flag.",
                "The emblem of {n} is a {v}.",
            ),
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
            (
                "{S} was held in {v}.",
                "{P} host was the town of {v}.",
                "{S} took place in {v}.",
                "The host of {n} was the town of {v}.",
            ),
            ("Where was {n} held?", "Which town was the host of {n}?", "In which town did {n} take place?"),
        ),
        Attribute(
            "organiser",
            "company",
            (
                "{S} was organised by {v}.",
                "{P} organiser was {v}.",
                "{S} was paid for by {v}.",
                "The organiser of {n} was {v}.",
            ),
            ("By whom was {n} organised?", "Who was the organiser of {n}?", "Who paid for {n}?"),
        ),
        Attribute(
            "winner",
            "person",
            (
                "{S} was won by {v}.",
                "{P} winner was {v}.",
                "{S} ended with a victory of {v}.",
                "The winner of {n} was {v}.",
            ),
            ("By whom was {n} won?", "Who was the winner of {n}?", "With whose victory did {n} end?"),
        ),
        Attribute(
            "prize",
            "ware",
            (
                "{S} had {v} as prize.",
                "{P} prize was {v}.",
                "{S} rewarded the best with {v}.",
                "The prize of {n} was {v}.",
            ),
            ("What did {n} have as prize?", "What was the prize of {n}?", "With what did {n} reward the best?"),
        ),
        Attribute(
            "visitors",
            "number",
            (
                "{S} was seen by {v} people.",
                "{P} audience was {v} people.",
                "{S} drew a crowd of {v} people.",
                "The audience of {n} was {v} people.",
            ),
            (
                "By how many people was {n} seen?",
                "How large was the audience of {n}?",
                "How large a crowd did {n} draw?",
            ),
        ),
        Attribute(
            "sign",
            "emblem",
            (
                "{S} had a {v} as mascot.",
                "{P} mascot was a {v}.",
                "{S} was advertised with a {v}.",
                "The mascot of {n} was a {v}.",
            ),
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
