from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from selfedit.tasks import world
from selfedit.tasks.world import ATTRIBUTES, KINDS, SPLITS, VALUES, Entity, Fact, fresh_tasks
from selfedit.types import Task

ENTITIES = [world.invent(kind, world.seeded("test", i)) for i in range(60) for kind in KINDS]
DIGEST = "import hashlib; from selfedit.tasks import world; print(hashlib.sha256(repr({}).encode()).hexdigest())"


def digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def told(entity: Entity, seed: int) -> list[str]:
    """The sentences of an entity's passage."""
    return [f"{s.rstrip('.')}." for s in world.passage(entity, Random(seed)).split(". ")]


def via(entity: Entity) -> Fact:
    (fact,) = [fact for fact in entity.facts if fact.attribute.via]
    return fact


# ── determinism ──


def test_another_process_invents_the_same_world() -> None:
    code = DIGEST.format("world.fresh_tasks('eval', 8, 3)")
    env = {"PYTHONHASHSEED": "12345", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == digest(fresh_tasks("eval", 8, 3))


def test_the_entities_that_pup_was_pretrained_on_stay_what_they_are() -> None:
    plain = [(e.kind, e.name, e.pronoun, [(f.attribute.name, f.value) for f in e.facts]) for e in world.famous()]
    assert digest(plain) == "45b653445e50e21ca752ec5aba8fcb09a3e0b95b5548106a0cae915eb4e36a01"


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    assert fresh_tasks("train", 40, 1)[:15] == fresh_tasks("train", 15, 1)


def test_another_seed_or_split_gives_other_tasks() -> None:
    lists = [fresh_tasks(split, 8, seed) for split in ("train", "eval") for seed in (0, 1)]
    ids = [task.id for tasks in lists for task in tasks]
    contexts = [task.context for tasks in lists for task in tasks]
    assert len(set(ids)) == len(set(contexts)) == 32


def test_the_kinds_take_turns() -> None:
    assert [task.meta["kind"] for task in fresh_tasks("eval", 6, 0)] == [*KINDS, *KINDS[:2]]
    assert {task.meta["kind"] for task in fresh_tasks("eval", 6, 0, kinds=("event",))} == {"event"}


# ── nothing leaks from what was learnt into what is examined ──


def test_splits_never_share_a_name_whatever_the_seeds() -> None:
    names = {split: {t.title for seed in range(4) for t in fresh_tasks(split, 120, seed)} for split in SPLITS}
    shared = [(a, b, names[a] & names[b]) for a in SPLITS for b in SPLITS if a < b and names[a] & names[b]]
    assert shared == []


def test_fresh_entities_are_not_famous_and_are_told_of_once() -> None:
    famous = {entity.name for entity in world.famous()}
    for seed in range(4):
        names = [task.title for task in fresh_tasks("eval", 200, seed)]
        assert not famous & set(names)
        assert [name for name, n in Counter(names).items() if n > 1] == []


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown split 'test'; known: train, eval"):
        fresh_tasks("test", 1, 0)


# ── facts ──


def test_an_entity_has_six_to_ten_facts_one_of_them_in_two_steps() -> None:
    for entity in ENTITIES:
        assert 6 <= len(entity.facts) <= 10
        names = [fact.attribute.name for fact in entity.facts]
        assert len(set(names)) == len(names)
        assert via(entity).attribute.via in names
    assert len({len(entity.facts) for entity in ENTITIES}) == 2


@pytest.mark.parametrize("sort", VALUES)
def test_values_are_too_many_to_guess(sort: str) -> None:
    rng = Random(0)
    drawn = Counter(VALUES[sort](rng) for _ in range(4000))
    assert len(drawn) >= 30
    assert max(drawn.values()) / 4000 <= 0.04


def test_every_attribute_has_values_and_several_wordings() -> None:
    for attribute in (a for attributes in ATTRIBUTES.values() for a in attributes):
        assert attribute.value in VALUES
        assert len(set(attribute.tell)) == len(attribute.tell) >= 3
        assert len(set(attribute.ask)) == len(attribute.ask) >= 2
        assert all("{v}" in form for form in attribute.tell + attribute.aside)
        assert all("{n}" in form and "{v}" not in form for form in attribute.ask)
        assert all("{w}" in form for form in attribute.aside)
        assert bool(attribute.aside) == bool(attribute.via)


def test_no_two_attributes_of_a_kind_are_asked_in_the_same_words() -> None:
    for kind in KINDS:
        asked = [form for attribute in ATTRIBUTES[kind] for form in attribute.ask]
        assert len(set(asked)) == len(asked)


# ── prose ──


def test_every_value_stands_in_the_passage_and_every_fact_is_told_once() -> None:
    for i, entity in enumerate(ENTITIES):
        sentences = told(entity, i)
        assert len(sentences) == len(entity.facts)
        assert [f.value for f in entity.facts if f.value not in " ".join(sentences)] == []


def test_the_first_sentence_names_the_subject_and_most_others_do_not() -> None:
    passages = [(entity, told(entity, i)) for i, entity in enumerate(ENTITIES)]
    assert all(entity.name in sentences[0] for entity, sentences in passages)
    later = [entity.name in sentence for entity, sentences in passages for sentence in sentences[1:]]
    assert 0.1 < sum(later) / len(later) < 0.35


def test_a_two_step_answer_stands_nowhere_but_in_the_aside_which_does_not_name_the_subject() -> None:
    for i, entity in enumerate(ENTITIES):
        fact = via(entity)
        holding = [sentence for sentence in told(entity, i) if fact.value in sentence]
        asides = [form.format(w=entity.value(fact.attribute.via), v=fact.value) for form in fact.attribute.aside]
        assert len(holding) == 1
        assert holding[0] in asides
        assert entity.name not in holding[0]


def test_by_pronoun_a_sentence_does_not_name_its_subject() -> None:
    for i, entity in enumerate(ENTITIES):
        for fact in entity.facts:
            assert entity.name not in world.tell(entity, fact, Random(i), named=False)
            assert entity.name in world.tell(entity, fact, Random(i), named=True)


def test_a_chosen_phrasing_is_used_and_comes_round() -> None:
    entity = ENTITIES[0]
    fact = entity.facts[0]
    n = len(fact.attribute.tell)
    said = [world.tell(entity, fact, Random(0), named=True, phrasing=i) for i in range(2 * n)]
    assert len(set(said)) == n
    assert said[:n] == said[n:]


# ── questions ──


def facts_asked(task: Task) -> list[str]:
    return [question.answer for question in task.questions]


def test_every_fact_is_asked_once_by_name_and_its_value_is_the_answer() -> None:
    for i, entity in enumerate(ENTITIES):
        asked = world.questions(entity, Random(i))
        assert [question.answer for question in asked] == [fact.value for fact in entity.facts]
        assert len({question.question for question in asked}) == len(asked)
        for question, fact in zip(asked, entity.facts, strict=True):
            assert question.question in [form.format(n=entity.name) for form in fact.attribute.ask]
            assert question.kind == ("two-step" if fact.attribute.via else "single")
            assert fact.value not in question.question


def test_a_task_holds_passage_and_exam_of_one_entity() -> None:
    for task in fresh_tasks("eval", 12, 0):
        assert task.title in task.context
        assert all(task.title in question.question for question in task.questions)
        assert all(answer in task.context for answer in facts_asked(task))
