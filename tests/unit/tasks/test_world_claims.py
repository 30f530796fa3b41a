"""Reading lines about the world back: each statement of a fact is one, and a changed value is found out."""

from __future__ import annotations

import pytest

from selfedit.recipes.pup import corpus
from selfedit.tasks import world
from selfedit.tasks.world_claims import BY_NAME, FALSE, NAMELESS, NOTHING, claims, kind_of_line

KNOWN = [
    (entity, world.to_task(entity, "t", world.seeded("told", i, kind)))
    for i in range(12)
    for kind in world.KINDS
    for entity in [world.invent(kind, world.seeded("claims", i))]
]
CASES = [(entity, task, fact) for entity, task in KNOWN for fact in entity.facts]
RNG = world.seeded("lines")


def phrasings(entity: world.Entity, fact: world.Fact, named: bool) -> set[str]:
    return {world.tell(entity, fact, RNG, named, i) for i in range(len(fact.attribute.tell))}


def test_a_fact_told_in_any_phrasing_is_true_with_its_name_or_without() -> None:
    for entity, task, fact in CASES:
        assert {kind_of_line(task, line) for line in phrasings(entity, fact, named=True)} == {BY_NAME}
        assert {kind_of_line(task, line) for line in phrasings(entity, fact, named=False)} == {NAMELESS}


def test_a_changed_value_is_false_in_any_phrasing() -> None:
    for entity, task, fact in CASES:
        other = world.Fact(fact.attribute, f"{fact.value} Ost")
        lines = phrasings(entity, other, named=True) | phrasings(entity, other, named=False)
        assert {kind_of_line(task, line) for line in lines} == {FALSE}


def test_a_fact_that_the_passage_does_not_have_is_false() -> None:
    (kind, entity, task) = next((e.kind, e, t) for e, t in KNOWN if len(e.facts) < len(world.ATTRIBUTES[e.kind]))
    missing = next(a for a in world.ATTRIBUTES[kind] if a not in {fact.attribute for fact in entity.facts})
    line = world.tell(entity, world.Fact(missing, world.VALUES[missing.value](RNG)), RNG, named=True)
    assert kind_of_line(task, line) == FALSE


def test_what_is_true_of_the_entity_is_false_of_another() -> None:
    for entity, task, fact in CASES:
        line = next(iter(sorted(phrasings(entity, fact, named=True))))
        assert kind_of_line(task, line.replace(entity.name, "Tavo Ost")) == FALSE


def test_questions_count_with_their_answers() -> None:
    for entity, task, fact in CASES:
        for form in fact.attribute.ask:
            asked = form.format(n=entity.name)
            assert kind_of_line(task, f"Question 3: {asked}\nAnswer: {fact.value}") == BY_NAME
            assert kind_of_line(task, f"{asked}\nAnswer: {fact.value} Ost") == FALSE
            assert kind_of_line(task, asked) == NOTHING


@pytest.mark.parametrize("remark", corpus._REMARKS)
def test_a_remark_claims_nothing(remark: str) -> None:
    assert {kind_of_line(task, remark) for _, task in KNOWN} == {NOTHING}


def test_a_passage_is_true_throughout_and_one_wrong_sentence_spoils_it() -> None:
    for entity, task in KNOWN:
        assert kind_of_line(task, task.context) == NAMELESS
        assert len(claims(entity.kind, task.context)) == len(entity.facts)
        wrong = world.Fact(entity.facts[0].attribute, "Ost Ost")
        assert kind_of_line(task, f"{task.context} {world.tell(entity, wrong, RNG, named=True)}") == FALSE
