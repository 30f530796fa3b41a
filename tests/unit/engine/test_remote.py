"""A writer on a server, against a real one on this machine that speaks OpenAI's API and misbehaves as it is told."""

from __future__ import annotations

import logging
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from selfedit.engine.base import SampleJob, Writer
from selfedit.engine.remote import RemoteWriter, open_writer
from selfedit.errors import ConfigError, MissingExtra, ModelError
from selfedit.types import Adapter, Failure, Sample
from tests.unit.serving import HANG_UP, Reply, Service, chat, refusal

KEY = "sk-do-not-show-0123456789"


@pytest.fixture
def opened() -> Iterator[Callable[..., RemoteWriter]]:
    """Open writers that try once; close their connections at the end."""
    writers: list[RemoteWriter] = []

    def make(url: str, key_env: str = "", **settings: Any) -> RemoteWriter:
        writers.append(open_writer("big-model", url, key_env, **{"retries": 0, **settings}))
        return writers[-1]

    yield make
    for writer in writers:
        writer.client.close()


Open = Callable[..., RemoteWriter]


def job(prompt: str = "p", n: int = 1, seed: int = 0, **settings: Any) -> SampleJob:
    return SampleJob(prompt, n, seed, **settings)


def texts(drawn: list[Sample] | Failure) -> list[str]:
    assert isinstance(drawn, list), drawn
    return [sample.text for sample in drawn]


def failure(found: object) -> Failure:
    assert isinstance(found, Failure), found
    assert "\n" not in found.message
    assert "Traceback" not in found.message
    return found


# ── what is asked and what comes back ──


def test_every_draw_is_a_request_with_the_jobs_settings_and_a_seed_of_its_own(service: Service, opened: Open) -> None:
    writer: Writer = opened(service.url)
    (drawn,) = writer.sample([job("Study this", n=3, seed=7, temperature=0.7, top_p=0.9, max_tokens=50)])
    assert texts(drawn) == ["wrote Study this"] * 3
    assert service.paths == ["/v1/chat/completions"] * 3
    for body in service.asked:
        assert body["model"] == "big-model"
        assert body["messages"] == [{"role": "user", "content": "Study this"}]
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.7, 0.9, 50)
    assert len({body["seed"] for body in service.asked}) == 3


def test_draws_keep_their_seeds_when_more_are_asked_for(service: Service, opened: Open) -> None:
    service.reply = lambda body: (200, chat(str(body["seed"])))
    writer = opened(service.url)
    few, many, other = writer.sample([job(n=2, seed=3), job("another", n=4, seed=3), job(n=2, seed=4)])
    assert texts(many)[:2] == texts(few)
    assert not set(texts(few)) & set(texts(other))
    assert all(0 <= int(seed) < 2**31 for seed in texts(many))


def test_a_text_without_token_ids_is_a_sample_with_none(service: Service, opened: Open) -> None:
    assert opened(service.url).sample([job("p")]) == [[Sample("p", (), (), (), "wrote p", "eos")]]
    assert "logprobs" not in service.asked[0]


def test_token_ids_and_logprobs_are_kept_where_they_are_asked_for_and_given(service: Service, opened: Open) -> None:
    logprobs: dict[str, Any] = {
        "content": [{"token": t, "logprob": -0.5, "bytes": None, "top_logprobs": []} for t in "ab"]
    }
    answer = chat("ab", logprobs=logprobs, token_ids=[5, 0]) | {"prompt_token_ids": [1, 2]}
    service.reply = lambda body: (200, answer)
    drawn = opened(service.url, wants_tokens=True).sample([job("p")])
    assert drawn == [[Sample("p", (1, 2), (5, 0), (-0.5, -0.5), "ab", "eos")]]
    assert service.asked[0]["logprobs"] is True
    assert service.asked[0]["return_token_ids"] is True


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"token_ids": [5, 0]},
        {"token_ids": [5, 0], "logprobs": {"content": [{"token": "a", "logprob": -1, "top_logprobs": []}]}},
        {"logprobs": {"content": [{"token": "a", "logprob": -1, "top_logprobs": []}]}},
    ],
)
def test_token_ids_without_a_logprob_each_are_not_half_kept(
    service: Service, opened: Open, given: dict[str, Any]
) -> None:
    service.reply = lambda body: (200, chat("ab", **given) | {"prompt_token_ids": [1, 2]})
    assert opened(service.url, wants_tokens=True).sample([job("p")]) == [[Sample("p", (), (), (), "ab", "eos")]]


def test_a_base_model_continues_the_bare_prompt(service: Service, opened: Open) -> None:
    choice = {
        "index": 0,
        "text": " more",
        "finish_reason": "stop",
        "prompt_token_ids": [1],
        "token_ids": [4],
        "logprobs": {"token_logprobs": [-2.0], "tokens": ["x"], "text_offset": [0], "top_logprobs": None},
    }
    whole = {"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": [choice]}
    service.reply = lambda body: (200, whole)
    drawn = opened(service.url, is_chat=False, wants_tokens=True).sample([job("Once")])
    assert drawn == [[Sample("Once", (1,), (4,), (-2.0,), " more", "eos")]]
    assert service.paths == ["/v1/completions"]
    assert service.asked[0]["prompt"] == "Once"
    assert service.asked[0]["logprobs"] == 1


def test_what_the_api_has_no_word_for_goes_along_as_it_is(service: Service, opened: Open) -> None:
    opened(service.url, extra={"top_k": -1, "chat_template_kwargs": {"enable_thinking": False}}).sample([job()])
    assert service.asked[0]["top_k"] == -1
    assert service.asked[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_openais_own_models_get_the_names_that_their_reasoning_ones_want() -> None:
    from selfedit.engine.remote import _for_reasoning

    assert _for_reasoning({"max_tokens": 5, "temperature": 1.0, "top_p": 0.9}) == {
        "max_completion_tokens": 5,
        "top_p": 0.9,
    }


def test_completions_for_others_are_greedy_stripped_and_in_order(service: Service, opened: Open) -> None:
    def slow_first(body: dict[str, Any]) -> Reply:
        name = body["messages"][0]["content"]
        time.sleep(0.2 if name == "a" else 0.0)
        return 200, chat(f" {name}!\n")

    service.reply = slow_first
    assert opened(service.url).complete(["a", "b"], max_tokens=9) == ["a!", "b!"]
    assert {(body["temperature"], body["max_tokens"]) for body in service.asked} == {(0.0, 9)}


def test_no_jobs_ask_nothing(service: Service, opened: Open) -> None:
    assert opened(service.url).sample([]) == []
    assert opened(service.url).complete([]) == []
    assert service.asked == []


# ── many at once ──


def test_results_keep_the_order_of_the_jobs_whichever_is_answered_first(service: Service, opened: Open) -> None:
    def slow_first(body: dict[str, Any]) -> Reply:
        name = body["messages"][0]["content"]
        time.sleep(0.2 if name == "job 0" else 0.0)
        return 200, chat(name)

    service.reply = slow_first
    drawn = opened(service.url, concurrency=8).sample([job(f"job {i}", n=2) for i in range(6)])
    assert [texts(each) for each in drawn] == [[f"job {i}"] * 2 for i in range(6)]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_run_at_once_than_allowed(service: Service, opened: Open, concurrency: int) -> None:
    def slow(body: dict[str, Any]) -> Reply:
        time.sleep(0.15)
        return 200, chat("text")

    service.reply = slow
    opened(service.url, concurrency=concurrency).sample([job(n=3) for _ in range(4)])
    assert len(service.asked) == 12
    assert service.most == concurrency


def test_a_writer_may_be_called_from_several_threads(service: Service, opened: Open) -> None:
    writer = opened(service.url)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: writer.complete([f"{i}"]), range(8)))
    assert found == [[f"wrote {i}"] for i in range(8)]


# ── what goes wrong ──


def test_a_job_that_fails_takes_no_other_with_it(service: Service, opened: Open) -> None:
    def refuse_one(body: dict[str, Any]) -> Reply:
        name = body["messages"][0]["content"]
        return (400, refusal("prompt too long: 9000 tokens")) if name == "long" else (200, chat(name))

    service.reply = refuse_one
    first, second, third = opened(service.url).sample([job("a", n=2), job("long", n=2), job("b", n=2)])
    assert (texts(first), texts(third)) == (["a", "a"], ["b", "b"])
    found = failure(second)
    assert (found.stage, found.kind) == ("propose", "Refused")
    assert "status 400" in found.message
    assert "prompt too long: 9000 tokens" in found.message


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (401, "Unauthorized", "key_env"),
        (403, "Refused", "status 403.*no such model"),
        (404, "NotFound", "'big-model'.*no such model.*/v1/models"),
        (422, "Refused", "no such model"),
        (429, "RateLimited", "lower concurrency"),
        (500, "ServerError", "look into its log"),
        (503, "ServerError", "status 503"),
    ],
)
def test_a_refusal_says_what_was_given_and_what_to_do(
    service: Service, opened: Open, status: int, kind: str, advice: str
) -> None:
    service.reply = lambda body: (status, refusal("no such model"))
    (found,) = opened(service.url).sample([job()])
    assert failure(found).kind == kind
    assert service.url in failure(found).message
    assert re.search(advice, failure(found).message)


@pytest.mark.parametrize("status", [401, 404])
def test_what_concerns_every_request_is_not_asked_again_in_the_same_batch(
    service: Service, opened: Open, status: int
) -> None:
    service.reply = lambda body: (status, refusal("no"))
    found = opened(service.url, concurrency=1).sample([job(n=5) for _ in range(3)])
    assert len({failure(each).message for each in found}) == 1
    assert len(service.asked) == 1
    opened(service.url).complete(["again"])
    assert len(service.asked) == 2


def test_a_server_that_is_not_there_is_said_to_be_unreachable(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        first, second = opened(url).sample([job(), job()])
    assert failure(first).kind == failure(second).kind == "Unreachable"
    assert url in failure(first).message
    assert "refused" in failure(first).message


def test_a_server_that_breaks_off_over_one_prompt_is_asked_the_others(service: Service, opened: Open) -> None:
    def hang_up_on_one(body: dict[str, Any]) -> Reply:
        name = body["messages"][0]["content"]
        return (HANG_UP, None) if name == "poison" else (200, chat(name))

    service.reply = hang_up_on_one
    first, second, third = opened(service.url, concurrency=1).complete(["a", "poison", "b"])
    assert (first, third) == ("a", "b")
    assert failure(second).kind == "Disconnected"


def test_a_server_that_is_too_slow_is_not_waited_for(service: Service, opened: Open) -> None:
    def slow(body: dict[str, Any]) -> Reply:
        time.sleep(0.5)
        return 200, chat("late")

    service.reply = slow
    (found,) = opened(service.url, timeout_s=0.1).sample([job()])
    assert failure(found).kind == "Timeout"
    assert "within 0.1 s" in failure(found).message


def test_a_request_that_fails_for_a_moment_is_sent_again(service: Service, opened: Open) -> None:
    def at_first_busy(body: dict[str, Any]) -> Reply:
        return (429, refusal("busy")) if len(service.asked) == 1 else (200, chat("at last"))

    service.reply = at_first_busy
    assert opened(service.url, retries=1).complete(["p"]) == ["at last"]


@pytest.mark.parametrize("text", ["", " \n", None])
def test_an_empty_answer_is_a_failure(service: Service, opened: Open, text: str | None) -> None:
    service.reply = lambda body: (200, chat(text))
    writer = opened(service.url)
    (found,) = writer.sample([job(n=2)])
    assert failure(found).kind == "Empty"
    (judged,) = writer.complete(["p"])
    assert (failure(judged).stage, failure(judged).kind) == ("grade", "Empty")


def test_an_answer_that_was_cut_off_is_a_failure_and_the_limit_is_named(service: Service, opened: Open) -> None:
    service.reply = lambda body: (200, chat("half a sent", "length"))
    (found,) = opened(service.url).sample([job(n=2, max_tokens=4)])
    assert failure(found).kind == "Truncated"
    assert "after 4 tokens" in failure(found).message
    (judged,) = opened(service.url).complete(["p"], max_tokens=4)
    assert failure(judged).kind == "Truncated"


def test_one_cut_or_empty_draw_of_several_costs_the_others_nothing(service: Service, opened: Open) -> None:
    replies = {0: chat("whole"), 1: chat("half a", "length"), 2: chat("")}
    service.reply = lambda body: (200, replies[len(service.asked) - 1])
    (drawn,) = opened(service.url, concurrency=1).sample([job(n=3)])
    assert isinstance(drawn, list)
    assert [(sample.text, sample.stop) for sample in drawn] == [("whole", "eos"), ("half a", "length"), ("", "eos")]


@pytest.mark.parametrize(
    "content",
    [
        b"<html>Welcome to nginx</html>",
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": [{"message": {"content": 7}, "finish_reason": "stop"}]},
        ["what"],
        "what",
        None,
    ],
)
def test_an_answer_that_is_none_of_this_api_is_said_to_be_so(service: Service, opened: Open, content: Any) -> None:
    service.reply = lambda body: (200, content)
    (found,) = opened(service.url).complete(["p"])
    assert failure(found).kind == "BadAnswer"
    assert "/v1" in failure(found).message


def test_a_page_instead_of_words_is_cut_to_a_line(service: Service, opened: Open) -> None:
    service.reply = lambda body: (502, b"<html>\n" + b"<p>Bad gateway</p>\n" * 500)
    (found,) = opened(service.url).complete(["p"])
    assert failure(found).kind == "ServerError"
    assert len(failure(found).message) < 500


def test_a_job_with_an_adapter_is_refused_and_the_server_not_asked(service: Service, opened: Open) -> None:
    here = Adapter("a1b2", "base", None, 8)
    refused, drawn = opened(service.url).sample([job("a", n=2, adapter=here), job("b")])
    assert "a1b2" in failure(refused).message
    assert texts(drawn) == ["wrote b"]
    assert len(service.asked) == 1


# ── the key, the address, the library ──


def test_the_key_is_sent_and_shown_nowhere(
    service: Service, opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    caplog.set_level(logging.DEBUG)

    def refusing(status: int) -> Callable[[dict[str, Any]], Reply]:
        return lambda body: (status, refusal(f"Incorrect key: {KEY}") | {"choices": []})

    writer = opened(service.url, "MY_KEY")
    shown = [repr(writer), str(writer)]
    for status in (200, 400, 401, 404, 429, 500):
        service.reply = refusing(status)
        shown += [failure(found).message for found in writer.complete(["p"])]
    assert service.keys == [f"Bearer {KEY}"] * 6
    assert KEY not in "\n".join([*shown, caplog.text, *(repr(record.args) for record in caplog.records)])
    assert "MY_KEY" in shown[4]


def test_no_key_is_taken_that_was_not_named(service: Service, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    opened(service.url).complete(["p"])
    assert service.keys == ["Bearer EMPTY"]


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "schlüssel"])
def test_a_key_that_is_not_there_is_found_out_at_once(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match="environment variable MY_KEY holds no key") as caught:
        open_writer("m", "http://127.0.0.1:8000/v1", "MY_KEY")
    assert "schlüssel" not in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:8000/v1", "", "ftp://a/v1", "http://", "http://[::1/v1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected one like http://"):
        open_writer("m", address)


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="environment variable") as caught:
        open_writer("m", "https://me:secret@example.com/v1")
    assert "secret" not in str(caught.value)


def test_at_least_one_request_runs_at_once() -> None:
    with pytest.raises(ConfigError, match="concurrency is 0"):
        open_writer("m", "http://127.0.0.1:8000/v1", concurrency=0)


def test_without_the_client_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"http://127\.0\.0\.1:8000/v1 needs .*pip install 'selfedit\[remote\]'"):
        open_writer("m", "http://127.0.0.1:8000/v1")


# ── before anything is asked ──


def listing(*models: str) -> Callable[[dict[str, Any]], Reply]:
    return lambda body: (200, {"object": "list", "data": [{"id": model, "object": "model"} for model in models]})


@pytest.mark.parametrize(
    "reply", [listing("big-model", "other"), listing(), lambda body: (404, {}), lambda body: (200, b"<html>")]
)
def test_a_server_that_has_the_model_or_lists_none_passes(
    service: Service, opened: Open, reply: Callable[[dict[str, Any]], Reply]
) -> None:
    service.reply = reply
    opened(service.url).check()
    assert service.paths == ["/v1/models"]


def test_a_server_without_the_model_names_the_nearest(service: Service, opened: Open) -> None:
    service.reply = listing("big-model-2")
    with pytest.raises(ModelError, match="has no model 'big-model'; did you mean 'big-model-2'"):
        opened(service.url).check()


def test_a_key_that_is_refused_is_refused_before_anything_is_asked(
    service: Service, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    service.reply = lambda body: (401, refusal(f"wrong key {KEY}"))
    with pytest.raises(ModelError, match="refuses the key in MY_KEY") as caught:
        opened(service.url, "MY_KEY").check()
    assert KEY not in str(caught.value)


def test_a_server_that_is_not_there_is_an_error_of_the_check(opened: Open) -> None:
    with pytest.raises(ModelError, match="start it or correct the address"):
        opened("http://127.0.0.1:9/v1").check()
