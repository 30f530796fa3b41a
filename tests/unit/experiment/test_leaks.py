from __future__ import annotations

from pathlib import Path

from selfedit.experiment.leaks import apart, leak_notes
from selfedit.experiment.plans import Plan
from selfedit.recipe import Recipe
from selfedit.types import Question, Score, Task, Trial

GUARDED = Task("g", "G", "text", (Question("a", "1"), Question("b", "2", "forbidden", "forbidden"), Question("c", "3")))
OPEN = Task("o", "O", "text", (Question("a", "1"),))


def trial(key: str, *after: float) -> Trial:
    _, task, *_ = key.split("/")
    scores = tuple(Score(value, "") for value in after)
    return Trial(key, task, 0, 0, 0, None, None, tuple(Score(0.0, "") for _ in after), scores, 0.5, None)


LEDGER = {
    t.key: t for t in (trial("round-0/g/0/0", 1, 1, 0), trial("round-1/g/0/0", 1, 0, 1), trial("round-0/o/0/0", 1))
}
PLAN = Plan(Recipe(), Path("x"), [GUARDED], [GUARDED, OPEN])


def test_a_report_sees_the_exam_without_what_is_forbidden() -> None:
    plan, ledger, leaked = apart(PLAN, LEDGER)
    assert [[q.question for q in task.questions] for task in plan.unseen] == [["a", "c"], ["a"]]
    assert [score.value for score in ledger["round-0/g/0/0"].after_Q] == [1, 0]
    assert [score.value for score in leaked["round-0/g/0/0"].after_Q] == [1]
    assert ledger["round-0/o/0/0"] == LEDGER["round-0/o/0/0"]
    assert "round-0/o/0/0" not in leaked


def test_where_nothing_is_forbidden_everything_stays() -> None:
    plan = Plan(Recipe(), Path("x"), [], [OPEN])
    ledger = {"round-0/o/0/0": LEDGER["round-0/o/0/0"]}
    assert apart(plan, ledger) == (plan, ledger, {})
    assert list(leak_notes({"round-0": []})) == []


def test_an_update_that_failed_keeps_its_empty_exam() -> None:
    failed = {"round-0/g/0/0": trial("round-0/g/0/0")}
    _, ledger, leaked = apart(PLAN, failed)
    assert ledger["round-0/g/0/0"].after_Q == leaked["round-0/g/0/0"].after_Q == ()


def test_the_notes_give_shares_and_what_became_of_them() -> None:
    marks = {"round-0 accuracy": (1, 1, 0, 1), "round-1 accuracy": (1, 1, 1, 1), "round-1 forbidden": (0, 0, 0, 1)}
    arms = {arm: [trial(f"{arm}/{t}/0/0", mark) for t, mark in enumerate(values)] for arm, values in marks.items()}
    arms = {"round-0 forbidden": arms["round-0 accuracy"], **arms}
    order = ["round-0 accuracy", "round-1 accuracy", "round-0 forbidden", "round-1 forbidden"]
    shares, differences = leak_notes({arm: arms[arm] for arm in order})
    assert "round-0 accuracy 75.0 (" in shares
    assert "round-1 forbidden 25.0 (" in shares
    assert "round-1 accuracy - round-0 accuracy +25.0" in differences
    assert "round-1 forbidden - round-0 forbidden -50.0" in differences
    assert "round-1 forbidden - round-1 accuracy -75.0" in differences
