"""Two-step questions over two passages: "When is the birthday of the winner of X?" needs who won X, and X's passage
does not say more about them; another one does.

The world's own two-step facts stand in one passage, which tells both steps. Here the second step is any fact of a thing
that has a passage of its own, so that each step is a one-step question, which the embedded model can answer and learn.
Nothing here knows an answer but the `answer` of a question: what a model is asked on the way is worded with what it
said itself.

    for chain in fresh_chains("eval", 16, seed=0): ...

Axis suffixes: Q two-step questions of a chain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from selfedit.tasks.world import ATTRIBUTES, Attribute, Entity, Kind, ask, fresh_tasks, passage, seeded
from selfedit.types import Question, Task

# Which fact of a thing leads to another thing, and of what kind that is.
BRIDGES: dict[Kind, tuple[str, Kind]] = {
    "person": ("employer", "company"),
    "place": ("mayor", "person"),
    "company": ("seat", "place"),
    "event": ("winner", "person"),
}


@dataclass(frozen=True, slots=True)
class Chain:
    """Two passages, `far` and `near`: near tells that its `bridge` is far's thing, far has a fact for each of `hops`.

    Both have an exam on their own facts; far's is in the order of `hops`, [Q]. `order` holds for each hop its phrasings
    in the order in which they are used: the last is never trained on.
    """

    id: str
    near: Task
    far: Task
    bridge: Attribute
    hops: tuple[Attribute, ...]
    order: tuple[tuple[int, ...], ...]

    def first(self, form: int = 0) -> str:
        """Ask for the first step: who or what near's bridge is."""
        return self.bridge.ask[form % len(self.bridge.ask)].format(n=self.near.title)

    def second(self, q: int, who: str, form: int = 0) -> str:
        """Ask for the second step, of whoever the first led to."""
        return self._asked(q, form).format(n=who)

    def whole(self, q: int, form: int = 0) -> str:
        """Ask for both steps at once."""
        return self._asked(q, form).format(n=f"the {self.bridge.name} of {self.near.title}")

    def exam(self, form: int) -> tuple[Question, ...]:
        """All two-step questions, [Q], in one of their phrasings."""
        return tuple(Question(self.whole(q, form), gold.answer) for q, gold in enumerate(self.far.questions))

    def note(self, q: int, value: str) -> str:
        """Note what was read of far's thing."""
        return _told(self.hops[q], self.far.title, value)

    def link(self, who: str) -> str:
        """Note who or what near's bridge was read to be."""
        return _told(self.bridge, self.near.title, who)

    def _asked(self, q: int, form: int) -> str:
        return self.hops[q].ask[self.order[q][form]]


def _told(attribute: Attribute, name: str, value: str) -> str:
    return attribute.tell[-1].format(n=name, S=name, P=f"{name}'s", v=value)


def fresh_chains(split: str, n: int, seed: int) -> list[Chain]:
    """Return `n` chains over fresh passages, the kinds of near in turn; a longer list begins with the shorter one."""
    kinds = [kind for near, (_, far) in BRIDGES.items() for kind in (near, far)]
    drawn: list[Entity] = [task.meta["entity"] for task in fresh_tasks(split, 2 * n, seed, kinds, _unasked)]
    return [
        _chain(f"{split}-{seed}-{i:03d}", near, far)
        for i, (near, far) in enumerate(zip(drawn[::2], drawn[1::2], strict=True))
    ]


def _unasked(entity: Entity, id: str, rng: Random) -> Task:
    return Task(id, entity.name, "", (), {"entity": entity})


def _chain(id: str, near: Entity, far: Entity) -> Chain:
    """Let near lead to far. The second step that near's own passage would tell is left out."""
    rng, name = seeded("chain", id), BRIDGES[near.kind][0]
    facts = [replace(f, value=far.name) if f.attribute.name == name else f for f in near.facts if not f.attribute.via]
    bridge = next(attribute for attribute in ATTRIBUTES[near.kind] if attribute.name == name)
    hops = tuple(fact.attribute for fact in far.facts if not fact.attribute.via)
    order = tuple(tuple(rng.sample(range(len(hop.ask)), len(hop.ask))) for hop in hops)
    near_task = _task(f"{id}-near", replace(near, facts=tuple(facts)), rng)
    return Chain(id, near_task, _task(f"{id}-far", far, rng), bridge, hops, order)


def _task(id: str, entity: Entity, rng: Random) -> Task:
    """Make the passage and an exam on its one-step facts."""
    asked = [ask(entity, fact, rng) for fact in entity.facts if not fact.attribute.via]
    return Task(id, entity.name, passage(entity, rng), tuple(asked), {"kind": entity.kind})
