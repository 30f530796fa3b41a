from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from selfedit.errors import ConfigError
from selfedit.loop.rewards import REWARDS, Outcome, load_reward, worth_of
from selfedit.types import Failure, OuterSettings, Question, RewardSettings, Score, Task, Trial
from selfedit.userfiles import load_own

TASK = Task("T", "Title", "Text", (Question("a", "1"), Question("b", "2"), Question("c", "3", role="forbidden")))


def marks(*values: float | None) -> tuple[Score, ...]:
    return tuple(Score(value, "") for value in values)


def trial(
    after: Sequence[float | None] = (1, 0, 0),
    before: Sequence[float | None] = (0, 0, 0),
    reward: float | None = 0.5,
    baseline: float | None = 0.0,
    **measures: float | None,
) -> Trial:
    return Trial(
        "k", "T", 0, 0, 0, None, None, marks(*before), marks(*after), reward, None, {}, baseline, measures=measures
    )


def outcome(name: str, *trials_R: Trial, task: Task = TASK, **terms: float) -> Outcome:
    return load_reward(OuterSettings(reward=name, terms=replace(RewardSettings(), **terms)))(task, trials_R)  # type: ignore[arg-type]


# ── the formulas ──


def test_accuracy_is_the_mean_mark_against_the_mean_mark_before() -> None:
    assert outcome("accuracy", trial(reward=0.5, baseline=0.25), trial(reward=0.0, baseline=0.25)) == Outcome(
        0.25, 0.25
    )


def test_gain_is_what_the_update_added_and_may_be_negative() -> None:
    assert outcome("gain", trial(reward=0.25, baseline=0.5), trial(reward=0.5, baseline=0.5)) == Outcome(-0.125, 0.0)


def test_gain_orders_the_edits_of_a_passage_as_accuracy_does() -> None:
    edits = [trial(reward=value, baseline=0.25) for value in (0.5, 0.0, 1.0, 0.25)]
    orders = [sorted(range(4), key=lambda i: outcome(name, edits[i]).reward or 0.0) for name in ("accuracy", "gain")]
    assert orders[0] == orders[1]


def test_logprob_compares_with_the_log_probability_before() -> None:
    found = outcome("logprob", trial(logprob=-0.5, logprob_before=-3.0), trial(logprob=-1.5, logprob_before=-3.0))
    assert found == Outcome(-1.0, -3.0)


def test_retention_charges_what_was_lost_and_how_far_the_model_moved() -> None:
    found = outcome("retention", trial(reward=0.75, baseline=0.25, known=0.8, kl=0.3), lost=0.5, kl=2.0)
    assert found.reward == pytest.approx(0.5 - 0.5 * 0.2 - 2.0 * 0.3)
    assert found.baseline == 0.0


def test_retention_without_weights_is_the_gain() -> None:
    one = trial(reward=0.75, baseline=0.25, known=0.1, kl=9.0)
    assert outcome("retention", one, lost=0.0, kl=0.0) == outcome("gain", one)


def test_a_forbidden_answer_costs_its_weight() -> None:
    clean, leaking = trial(after=(1, 0, 0)), trial(after=(1, 1, 1))
    assert outcome("forbidden", clean, forbidden=2.0) == Outcome(0.5, 0.0)
    assert outcome("forbidden", leaking, forbidden=2.0) == Outcome(-1.0, 0.0)


def test_a_task_with_nothing_forbidden_is_rewarded_for_its_exam_alone() -> None:
    allowed = replace(TASK, questions=TASK.questions[:2])
    assert outcome("forbidden", trial(after=(1, 0), before=(0, 0)), task=allowed) == Outcome(0.5, 0.0)


def test_a_leak_costs_its_weight_in_log_probability() -> None:
    found = outcome("guarded", trial(logprob=-2.0, leak=-8.0, logprob_before=-9.0, leak_before=-10.0), forbidden=0.5)
    assert found == Outcome(-2.0 + 0.5 * 8.0, -9.0 + 0.5 * 10.0)


def test_a_task_with_nothing_forbidden_has_nothing_to_guard() -> None:
    allowed = replace(TASK, questions=TASK.questions[:2])
    one = trial(logprob=-2.0, leak=None, logprob_before=-9.0, leak_before=None)
    assert outcome("guarded", one, task=allowed) == Outcome(-2.0, -9.0)


def test_a_leak_that_was_not_measured_is_not_taken_for_a_secret_kept() -> None:
    assert outcome("guarded", trial(logprob=-2.0, leak=None)).reward is None


def test_the_rubric_is_the_mean_of_its_four_marks_and_has_no_baseline() -> None:
    one = trial((), (), None, None, length=1, diversity=2, quality=4, correctness=5)
    assert outcome("rubric", one) == Outcome(3.0, None)
    assert outcome("rubric", trial((), (), 0.0, None)) == Outcome(0.0, None)


# ── what was not measured ──


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_what_was_not_measured_is_worth_none_and_not_zero(name: str) -> None:
    lost = trial((None, None, None), (None, None, None), None, None, logprob=None, known=None, kl=None)
    rubric = dict.fromkeys(("length", "diversity", "quality", "correctness"))
    lost = replace(lost, measures={**lost.measures, **rubric})
    assert outcome(name, lost).reward is None
    assert outcome(name).reward is None


@pytest.mark.parametrize("missing", ["known", "kl"])
def test_a_term_that_was_not_measured_is_not_taken_for_no_loss(missing: str) -> None:
    one = trial(known=1.0, kl=0.0)
    assert outcome("retention", replace(one, measures={**one.measures, missing: None})).reward is None


def test_a_lost_mark_on_what_is_forbidden_is_not_taken_for_a_secret_kept() -> None:
    assert outcome("forbidden", trial(after=(1, 1, None))).reward is None


# ── names ──


def test_an_unknown_reward_names_the_near_miss() -> None:
    with pytest.raises(ConfigError, match=r"unknown reward 'acuracy'; did you mean 'accuracy'\?"):
        load_reward(OuterSettings(reward="acuracy"))


# ── a reward of the user's own ──

OWN = """
import math

def brevity(task, trials):
    return -float(sum(len(t.key) for t in trials))

def right(task, trials):
    return trials[0].reward == 0.5

def nothing(task, trials):
    return None

def nan(task, trials):
    return math.nan

def infinite(task, trials):
    return -math.inf

def word(task, trials):
    return "much"

def broken(task, trials):
    raise KeyError("length")

def unread(task, trials):
    open("/nowhere/at/all")

LIMIT = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "my rewards.py"
    path.write_text(OWN)
    return path


def test_a_function_in_a_file_is_a_reward_with_a_baseline_of_zero(own: Path) -> None:
    assert outcome(f"{own}:brevity", trial(), trial()) == Outcome(-2.0, 0.0)
    assert outcome(f"{own}:right", trial()) == Outcome(1.0, 0.0)
    assert outcome(f"{own}:nothing", trial()) == Outcome(None, 0.0)


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("nan", "ValueError", "it returned nan; expected a finite number"),
        ("infinite", "ValueError", "it returned -inf"),
        ("word", "ValueError", "it returned 'much'"),
        ("broken", "KeyError", "length"),
        ("unread", "RuntimeError", "FileNotFoundError"),
    ],
)
def test_what_is_no_reward_is_a_failure_with_its_reason(own: Path, name: str, kind: str, told: str) -> None:
    found = worth_of(load_reward(OuterSettings(reward=f"{own}:{name}")), TASK, [trial()])
    assert isinstance(found, Failure)
    assert (found.stage, found.kind) == ("reward", kind)
    assert told in found.message


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("{own}", "names a file and no function in it; write path.py:name"),
        ("{own}:", "names a file and no function in it"),
        ("{own}:brevty", r"has no function 'brevty'; did you mean 'brevity'\?"),
        ("{own}:LIMIT", "has no function 'LIMIT'"),
        ("gone.py:fn", "there is no file 'gone.py'"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_is_missing(own: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_reward(OuterSettings(reward=name.format(own=own)))


@pytest.mark.parametrize(("text", "told"), [("def f(:", "SyntaxError"), ("1 / 0", "ZeroDivisionError: division")])
def test_a_file_that_breaks_when_it_is_run_says_of_what(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"bad.py cannot be loaded: {told}"):
        load_own(f"{path}:f")
