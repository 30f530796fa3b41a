"""A judge on a server of this machine that misbehaves as it is told, and the verdicts that are kept of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from selfedit.errors import ConfigError, ModelError
from selfedit.judges import VERDICTS, check_grader, open_grader
from selfedit.tasks.base import Grader
from selfedit.types import JudgeSettings, Question, Score
from tests.unit.serving import HANG_UP, Reply, Service, chat, refusal

KEY = "sk-do-not-show-0123456789"
ASKED = Question("Who founded the works?", "Mira Dunmore")
UNSURE = Question("Why?", "to prevent asthma attacks")
VAGUE = "They reduce attacks of several kinds."


def student(body: dict[str, Any]) -> str:
    """The answer that a request is about."""
    prompt = body["messages"][0]["content"]
    return str(json.loads(prompt.partition("\nstudent: ")[2].partition("\n")[0]))


def says_yes_to_mira(body: dict[str, Any]) -> Reply:
    return 200, chat("Yes." if "Mira" in student(body) else "No.")


@pytest.fixture
def judge(service: Service) -> JudgeSettings:
    service.reply = says_yes_to_mira
    return JudgeSettings("big-model", service.url, retries=0)


def mark(grade: Grader, *answers: str) -> list[float | None]:
    return [score.value for score in grade([ASKED] * len(answers), list(answers))]


# ── asking ──


def test_a_judge_marks_what_it_is_asked_about(service: Service, judge: JudgeSettings, tmp_path: Path) -> None:
    assert mark(open_grader("judge", judge, tmp_path), "Mira", "Bo", "It was Mira.") == [1.0, 0.0, 1.0]
    assert {body["model"] for body in service.asked} == {"big-model"}
    assert {(body["temperature"], body["max_tokens"]) for body in service.asked} == {(0.0, 1024)}


def test_the_settings_reach_the_server(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    service.reply = says_yes_to_mira
    judge = JudgeSettings("m", service.url, "JUDGE_KEY", {"temperature": 1, "top_k": -1}, max_tokens=7)
    assert mark(open_grader("judge", judge, tmp_path), "Mira") == [1.0]
    (body,) = service.asked
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (1, -1, 7)
    assert service.keys == [f"Bearer {KEY}"]
    assert KEY not in (tmp_path / VERDICTS).read_text()


def test_an_answer_that_stands_twice_in_a_batch_is_asked_about_once(
    service: Service, judge: JudgeSettings, tmp_path: Path
) -> None:
    assert mark(open_grader("judge", judge, tmp_path), *["Mira", "Bo"] * 10) == [1.0, 0.0] * 10
    assert sorted(map(student, service.asked)) == ["Bo", "Mira"]


def test_calls_run_at_once_up_to_the_limit_and_marks_keep_their_order(service: Service, tmp_path: Path) -> None:
    def slow(body: dict[str, Any]) -> Reply:
        time.sleep(0.4 if student(body) == "Mira 0" else 0.15)
        return says_yes_to_mira(body)

    service.reply = slow
    judge = JudgeSettings("m", service.url, concurrency=4)
    answers = [f"{'Mira' if i % 3 else 'Bo'} {i}" if i else "Mira 0" for i in range(20)]
    assert mark(open_grader("judge", judge, tmp_path), *answers) == [float("Mira" in answer) for answer in answers]
    assert service.most == 4


def test_only_what_calibrated_is_unsure_of_is_sent(service: Service, judge: JudgeSettings, tmp_path: Path) -> None:
    service.reply = lambda body: (200, chat("yes"))
    grade = open_grader("calibrated+judge", judge, tmp_path)
    scores = grade([ASKED, UNSURE, ASKED], ["Mira Dunmore", VAGUE, "a river"])
    assert [score.value for score in scores] == [1.0, 1.0, 0.0]
    assert list(map(student, service.asked)) == [VAGUE]


# ── failing ──


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503, HANG_UP])
def test_a_call_that_fails_is_no_mark_and_says_why_and_is_asked_again(
    service: Service, judge: JudgeSettings, tmp_path: Path, status: int
) -> None:
    grade = open_grader("judge", judge, tmp_path)
    service.reply = lambda body: (status, refusal("not today"))
    (score,) = grade([ASKED], ["Mira"])
    assert (score.value, score.answer) == (None, "Mira")
    assert score.is_lost is (status != 400)
    assert score.why.startswith(("call failed: http://", "judge refused: http://"))
    service.reply = says_yes_to_mira
    assert mark(grade, "Mira") == [1.0]


def test_one_call_that_fails_takes_no_other_with_it(service: Service, judge: JudgeSettings, tmp_path: Path) -> None:
    service.reply = lambda body: (500, refusal("oh")) if student(body) == "Bo" else says_yes_to_mira(body)
    assert mark(open_grader("judge", judge, tmp_path), "Mira", "Bo", "Ed", "Bo") == [1.0, None, 0.0, None]


def test_a_judge_that_is_too_slow_is_not_waited_for(service: Service, tmp_path: Path) -> None:
    def slow(body: dict[str, Any]) -> Reply:
        time.sleep(2.5 if student(body) == "Bo" else 0)
        return says_yes_to_mira(body)

    service.reply = slow
    judge = JudgeSettings("m", service.url, timeout_s=1.5, retries=0)
    good, bad = open_grader("judge", judge, tmp_path)([ASKED] * 2, ["Mira", "Bo"])
    assert (good.value, bad.value, bad.is_lost) == (1.0, None, True)
    assert "no answer within 1.5 s" in bad.why


def test_a_server_that_limits_is_asked_again_before_it_is_given_up(service: Service, tmp_path: Path) -> None:
    service.reply = lambda body: says_yes_to_mira(body) if len(service.asked) > 2 else (429, refusal("slow down"))
    assert mark(open_grader("judge", JudgeSettings("m", service.url, retries=2), tmp_path), "Mira") == [1.0]
    assert len(service.asked) == 3


@pytest.mark.parametrize("reply", ["I'm sorry, but I can't assist with that.", "Hard to say.", "yes and no", ""])
def test_a_refusal_or_nonsense_is_no_mark_and_not_kept(
    service: Service, judge: JudgeSettings, tmp_path: Path, reply: str
) -> None:
    service.reply = lambda body: (200, chat(reply))
    grade = open_grader("judge", judge, tmp_path)
    assert mark(grade, "Mira") == mark(grade, "Mira") == [None]
    assert len(service.asked) == 2
    assert (tmp_path / VERDICTS).read_bytes() == b""


def test_a_verdict_that_is_cut_off_while_thinking_is_no_mark(
    service: Service, judge: JudgeSettings, tmp_path: Path
) -> None:
    service.reply = lambda body: (200, chat("<think>yes, but", finish="length"))
    (score,) = open_grader("judge", judge, tmp_path)([ASKED], ["Mira"])
    assert (score.value, score.is_lost) == (None, True)
    assert "raise max_tokens" in score.why


# ── remembering ──


def test_a_verdict_is_asked_for_once_whoever_asks_again(service: Service, judge: JudgeSettings, tmp_path: Path) -> None:
    first = open_grader("judge", judge, tmp_path)
    asked, answers = [ASKED] * 2, ["Mira", "Bo"]
    scores = first(asked, answers)
    assert first(asked, answers) == scores
    assert open_grader("judge", judge, tmp_path)(asked, answers) == scores, "as after a restart, reasons and all"
    assert open_grader("calibrated+judge", judge, tmp_path)([UNSURE], [VAGUE]) == [Score(0.0, VAGUE, "judged wrong")]
    assert open_grader("judge", judge, tmp_path)([UNSURE], [VAGUE]) == [Score(0.0, VAGUE, "judged wrong")]
    assert len(service.asked) == 3


def test_what_another_process_was_told_meanwhile_is_not_asked_for(
    service: Service, judge: JudgeSettings, tmp_path: Path
) -> None:
    mine, theirs = (open_grader("judge", judge, tmp_path) for _ in range(2))
    assert mark(theirs, "Mira") == mark(mine, "Mira") == [1.0]
    assert len(service.asked) == 1


def test_another_model_or_setting_or_question_is_asked_anew(service: Service, tmp_path: Path) -> None:
    service.reply = says_yes_to_mira
    for settings in (JudgeSettings("a", service.url), JudgeSettings("b", service.url)):
        mark(open_grader("judge", settings, tmp_path), "Mira")
    grade = open_grader("judge", JudgeSettings("a", service.url, extra={"top_k": 1}), tmp_path)
    mark(grade, "Mira")
    grade([Question("Who else?", "Mira Dunmore")], ["Mira"])
    assert len(service.asked) == 4


def test_verdicts_are_kept_as_they_come_so_that_a_kill_loses_only_what_is_under_way(
    service: Service, judge: JudgeSettings, tmp_path: Path
) -> None:
    def hang_at_bo(body: dict[str, Any]) -> Reply:
        time.sleep(60 if student(body).startswith("Bo") else 0)
        return says_yes_to_mira(body)

    service.reply = hang_at_bo
    code = (
        "import sys; from pathlib import Path; from selfedit.judges import *; from selfedit.types import *;"
        f"judge = JudgeSettings('big-model', {service.url!r});"
        f"grade = open_grader('judge', judge, Path({str(tmp_path)!r}));"
        "grade([Question('Who founded the works?', 'Mira Dunmore')] * 6, ['Bo', *(f'Mira {i}' for i in range(5))])"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (tmp_path / VERDICTS).exists() and (tmp_path / VERDICTS).read_bytes().count(b"\n") == 5:
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    service.asked.clear()
    service.reply = says_yes_to_mira
    grade = open_grader("judge", judge, tmp_path)
    assert mark(grade, "Bo", *(f"Mira {i}" for i in range(5))) == [0.0] + [1.0] * 5
    assert list(map(student, service.asked)) == ["Bo"]


# ── before anything is run ──


def test_a_server_that_is_not_there_is_found_before_anything_is_marked(service: Service, judge: JudgeSettings) -> None:
    service.reply = lambda body: (200, {"object": "list", "data": [{"id": "big-model", "object": "model"}]})
    check_grader("judge", judge)
    assert service.paths == ["/v1/models"]
    with pytest.raises(ModelError, match="did you mean 'big-model'"):
        check_grader("calibrated+judge", JudgeSettings("big-modle", service.url))
    with pytest.raises(ModelError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        check_grader("judge", JudgeSettings("m", "http://127.0.0.1:9/v1"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (JudgeSettings(), "judge.model and judge.url"),
        (JudgeSettings("m"), "judge.model and judge.url"),
        (JudgeSettings("m", "not an address"), "is none of a server"),
        (JudgeSettings("m", "http://127.0.0.1:9/v1", "NO_SUCH_KEY"), "NO_SUCH_KEY holds no key"),
    ],
)
def test_a_judge_that_nobody_can_ask_is_one_sentence(settings: JudgeSettings, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        check_grader("judge", settings)
    with pytest.raises(ConfigError, match=says):
        open_grader("judge", settings, tmp_path)


def test_other_graders_touch_neither_server_nor_disk(tmp_path: Path) -> None:
    check_grader("exact", JudgeSettings("m", "http://127.0.0.1:9/v1"))
    assert mark(open_grader("exact", JudgeSettings(), tmp_path), "Mira Dunmore") == [1.0]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="did you mean 'exact'"):
        check_grader("exatc", JudgeSettings())
