"""A writer on a server: any that speaks OpenAI's API (vLLM, SGLang, llama.cpp, OpenAI, …) writes, another model learns.

The paper's writer and learner are one model. A server's model can be far larger than the one that learns here, and it
runs in an environment of its own. It only samples: it is a `Writer`, not a `Backend`, and stands beside the engine that
trains. What it completes for others, such as a judge's verdicts, goes through `complete`.

    writer = open_writer("Qwen/Qwen3-32B", "http://127.0.0.1:8000/v1")
    samples_PG = writer.sample([SampleJob(prompt, n=5, seed=0)])
    verdicts_N = writer.complete(["Is the answer right? …"])

A prompt is a user's turn, as in the engine of this process; base models, which have no chat template, take `is_chat =
False`. Every draw is a request of its own with a seed from its job and its number, so that draw 3 stays draw 3 when
more are asked for; how far a server honours a seed is the server's affair. So are sampling settings which the API has
no word for: vLLM takes top_k and penalties from the model's files, llama.cpp has defaults of its own. `extra` goes into
every request as it is, such as {"top_k": -1, "chat_template_kwargs": {"enable_thinking": False}}.

OpenAI's API gives text and no token ids. vLLM gives them where `wants_tokens` asks; a server that does not know the
question ignores it or refuses with status 400. A sample without token ids can be learnt from, but its writer cannot be
reinforced: the algorithms refuse it with a sentence, because a second tokenisation is not what the writer emitted.

A request that fails is retried by the client, with growing pauses; what fails for good is a `Failure` of its job. What
concerns every request (no server, no entry, no such model) is found out once and not asked again in the same batch.
The key is read from an environment variable that is named, never from one that happens to be set, and is in no message,
log or repr.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from selfedit.engine.base import SampleJob
from selfedit.errors import ConfigError, ModelError, from_extra, near_miss
from selfedit.types import Failure, Sample, Stage

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

CONCERNS_ALL = ("Unreachable", "Unauthorized", "NotFound")
NO_KEY = "EMPTY"  # what servers without keys expect
OPENAI = "api.openai.com"


def open_writer(
    model: str,
    base_url: str,
    key_env: str = "",
    *,
    is_chat: bool = True,
    wants_tokens: bool = False,
    extra: Mapping[str, Any] | None = None,
    concurrency: int = 16,
    timeout_s: float = 600.0,
    retries: int = 4,
) -> RemoteWriter:
    """Prepare to write with `model` of the server at `base_url`; nothing is sent yet.

    `key_env` names the environment variable that holds the key, "" sends none. At most `concurrency` requests run at
    once, each for `timeout_s` seconds and again up to `retries` times. Raises `ConfigError` for an address that is none
    or a key that is not there, `MissingExtra` without the client.
    """
    _check_address(base_url)
    if concurrency < 1:
        raise ConfigError(f"concurrency is {concurrency}; it must be 1 or more")
    key = _read_key(key_env) if key_env else NO_KEY
    with from_extra("remote", f"the server {base_url}"):
        from openai import OpenAI
    client = OpenAI(api_key=key, base_url=base_url, timeout=timeout_s, max_retries=retries)
    return RemoteWriter(model, base_url, client, key_env, is_chat, wants_tokens, dict(extra or {}), concurrency)


def _check_address(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
    except ValueError:
        parts = urlsplit("")
    if parts.username or parts.password:
        raise ConfigError("the server's address holds a name or password; put the key into an environment variable")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"the address {base_url!r} is none of a server; expected one like http://127.0.0.1:8000/v1")


def _read_key(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {name} holds no key; set it, or name the one that does")
    if not all("!" <= character <= "~" for character in key):
        raise ConfigError(
            f"the environment variable {name} holds no key, but text that no header can carry; set it anew"
        )
    return key


@dataclass(frozen=True, slots=True)
class _Request:
    """One completion to draw."""

    stage: Stage
    prompt: str
    max_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True, slots=True)
class RemoteWriter:
    """A model on a server that writes. Made by `open_writer`; may be called from several threads."""

    model: str
    base_url: str
    client: OpenAI = field(repr=False)
    key_env: str = ""
    is_chat: bool = True
    wants_tokens: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 16

    def sample(self, jobs: Sequence[SampleJob]) -> list[list[Sample] | Failure]:
        """Draw every job's completions, in order.

        A job fails where one of its requests does, and where no draw is usable: all of them empty, or all cut off at
        `max_tokens`. Of several draws a cut one stays, with `stop` "length", as from the engine of this process.
        """
        refusals = [self._refusal(job) for job in jobs]
        requests = [
            _Request("propose", job.prompt, job.max_tokens, job.temperature, job.top_p, _seed(job.seed, draw))
            for job, refusal in zip(jobs, refusals, strict=True)
            if not refusal
            for draw in range(job.n)
        ]
        drawn = iter(self._send(requests))
        return [
            refusal or self._usable("propose", job.max_tokens, list(islice(drawn, job.n)))
            for job, refusal in zip(jobs, refusals, strict=True)
        ]

    def complete(
        self, prompts: Sequence[str], max_tokens: int = 1024, temperature: float = 0.0, stage: Stage = "grade"
    ) -> list[str | Failure]:
        """Complete every prompt once, stripped, in order; greedily by default. A cut completion is a failure."""
        found = dict(self.completions(prompts, max_tokens, temperature, stage))
        return [found[place] for place in range(len(prompts))]

    def completions(
        self, prompts: Sequence[str], max_tokens: int = 1024, temperature: float = 0.0, stage: Stage = "grade"
    ) -> Iterator[tuple[int, str | Failure]]:
        """Complete every prompt as `complete` does; yield each as soon as it is there, with its place."""
        requests = [_Request(stage, prompt, max_tokens, temperature, 1.0, _seed(0, 0)) for prompt in prompts]
        for place, sample in self._as_they_come(requests):
            found = self._usable(stage, max_tokens, [sample])
            yield place, found if isinstance(found, Failure) else found[0].text.strip()

    def check(self) -> None:
        """Ask the server for its models. Raises `ModelError` where it is not there, refuses the key, or lists others.

        A server that keeps no list is taken at its word.
        """
        import openai

        try:
            listed = [model.id for model in self.client.with_options(max_retries=1).models.list()]
        except openai.APIConnectionError as error:
            raise ModelError(self._cut_off("propose", error.__cause__ or error).message) from error
        except openai.APIStatusError as error:
            if error.status_code == 404:
                return
            raise ModelError(self._explain("propose", error).message) from error
        except (openai.OpenAIError, AttributeError, TypeError, ValueError):
            return
        if listed and self.model not in listed:
            raise ModelError(f"{self.base_url} has no model {self.model!r}; {near_miss(self.model, listed)}")

    def _refusal(self, job: SampleJob) -> Failure | None:
        if job.adapter is None:
            return None
        words = (
            f"{self.model} at {self.base_url} writes without adapters, and the job has {job.adapter.id}; leave it out"
        )
        return Failure("propose", "ConfigError", words)

    def _usable(self, stage: Stage, max_tokens: int, drawn: Sequence[Sample | Failure]) -> list[Sample] | Failure:
        failure = next((each for each in drawn if isinstance(each, Failure)), None)
        if failure:
            return failure
        samples = [each for each in drawn if isinstance(each, Sample)]
        if samples and all(sample.stop == "length" for sample in samples):
            words = f"{self.model} was cut off after {max_tokens} tokens each time; raise max_tokens"
            return Failure(stage, "Truncated", f"{words}, or turn its thinking off where it has such")
        if samples and not any(sample.text.strip() for sample in samples):
            words = f"{self.model} at {self.base_url} gave an empty answer; look whether the prompt suits the model"
            return Failure(stage, "Empty", f"{words} (a base model needs is_chat = false)")
        return samples

    # Requests

    def _send(self, requests: Sequence[_Request]) -> list[Sample | Failure]:
        """Send all, at most `concurrency` at once; return what came, in the same order."""
        found = dict(self._as_they_come(requests))
        return [found[place] for place in range(len(requests))]

    def _as_they_come(self, requests: Sequence[_Request]) -> Iterator[tuple[int, Sample | Failure]]:
        hopeless: list[Failure] = []

        def ask(request: _Request) -> Sample | Failure:
            if hopeless:
                return hopeless[0]
            answer = self._ask(request)
            if isinstance(answer, Failure) and answer.kind in CONCERNS_ALL:
                hopeless.append(answer)
            return answer

        pool = ThreadPoolExecutor(self.concurrency, "writer")
        try:
            places = {pool.submit(ask, request): place for place, request in enumerate(requests)}
            for future in as_completed(places):
                yield places[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, request: _Request) -> Sample | Failure:
        import openai

        try:
            answer = self._create(request)
        except openai.APITimeoutError:
            words = f"{self.base_url} gave no answer within {self.client.timeout:g} s"
            return Failure(request.stage, "Timeout", f"{words}; lower max_tokens or concurrency, or raise timeout_s")
        except openai.APIConnectionError as error:
            return self._cut_off(request.stage, error.__cause__ or error)
        except openai.APIStatusError as error:
            return self._explain(request.stage, error)
        except (openai.OpenAIError, ValueError):
            return self._odd(request.stage)
        try:
            return _read_sample(request.prompt, answer)
        except (AttributeError, LookupError, TypeError, ValueError):
            return self._odd(request.stage)

    def _create(self, request: _Request) -> Any:
        settings: dict[str, Any] = {
            "model": self.model,
            "seed": request.seed,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "max_tokens": request.max_tokens,
            "extra_body": dict(self.extra),
        }
        if self.wants_tokens:
            settings["logprobs"] = True if self.is_chat else 1
            settings["extra_body"] = {"return_token_ids": True} | settings["extra_body"]
        if not self.is_chat:
            return self.client.completions.create(prompt=request.prompt, **settings)
        if urlsplit(self.base_url).hostname == OPENAI:
            settings = _for_reasoning(settings)
        return self.client.chat.completions.create(messages=[{"role": "user", "content": request.prompt}], **settings)

    # Failures

    def _cut_off(self, stage: Stage, cause: BaseException) -> Failure:
        """Tell a server that is not there from one that broke off, perhaps over this one prompt."""
        why = self._without_key(cause)
        if type(cause).__name__.startswith("Connect"):
            words = f"no server answers at {self.base_url} ({why}); start it or correct the address"
            return Failure(stage, "Unreachable", words)
        words = f"{self.base_url} broke off without an answer ({why}); look into its log and go on when it is well"
        return Failure(stage, "Disconnected", words)

    def _explain(self, stage: Stage, error: APIStatusError) -> Failure:
        """Word a refusal: what the server said, save about keys, and what to do."""
        status, said = error.status_code, self._without_key(_said(error))
        if status == 401:
            key = f"the key in {self.key_env}" if self.key_env else "a request without a key"
            words = f"{self.base_url} refuses {key} (status 401); name the variable with the right key in key_env"
            return Failure(stage, "Unauthorized", words)
        if status == 404:
            words = f"{self.base_url} knows no model {self.model!r}, or its address is another: {said}"
            return Failure(stage, "NotFound", f"{words}; its models are listed at {self.base_url.rstrip('/')}/models")
        if status == 429:
            words = (
                f"{self.base_url} limits how much may be asked: {said}; lower concurrency (it is {self.concurrency})"
            )
            return Failure(stage, "RateLimited", f"{words} or go on later")
        if status >= 500:
            words = f"{self.base_url} failed with status {status}: {said}; look into its log and go on when it is well"
            return Failure(stage, "ServerError", words)
        words = f"{self.base_url} refuses the request (status {status}): {said}; change what it names"
        return Failure(stage, "Refused", words)

    def _odd(self, stage: Stage) -> Failure:
        words = f"{self.base_url} answers, but not as OpenAI's API does; most addresses end in /v1"
        return Failure(stage, "BadAnswer", words)

    def _without_key(self, words: object) -> str:
        """Make one line of what came from outside, without the key."""
        said = str(words).replace(self.client.api_key, "***") if self.key_env else str(words)
        line = " ".join(said.split())
        return line if len(line) <= 200 else f"{line[:200]} …"


def _seed(seed: int, draw: int) -> int:
    """Derive a draw's seed in [0, 2**31)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{draw}".encode()).digest()[:4], "big") >> 1


def _for_reasoning(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Word settings as OpenAI's own reasoning models want them; the others take both. 1 is the default there."""
    renamed = {"max_completion_tokens" if key == "max_tokens" else key: value for key, value in settings.items()}
    return {key: value for key, value in renamed.items() if key not in ("temperature", "top_p") or value != 1}


def _said(error: APIStatusError) -> object:
    body = error.body
    if isinstance(body, Mapping):
        return body.get("message") or body.get("detail") or dict(body)
    return body or error.response.reason_phrase


def _read_sample(prompt: str, answer: Any) -> Sample:
    choice = answer.choices[0]
    message = getattr(choice, "message", None)
    text = (message.content if message else choice.text) or ""
    if not isinstance(text, str):
        raise TypeError("the text is no text")
    stop: Literal["eos", "length"] = "length" if choice.finish_reason == "length" else "eos"
    prompt_tokens = _numbers(getattr(answer, "prompt_token_ids", None) or getattr(choice, "prompt_token_ids", None))
    tokens = _numbers(getattr(choice, "token_ids", None))
    logprobs = tuple(float(value) for value in _logprobs(choice))
    if not prompt_tokens or not tokens or len(tokens) != len(logprobs):
        return Sample(prompt, (), (), (), text, stop)
    return Sample(prompt, prompt_tokens, tokens, logprobs, text, stop)


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values or ())


def _logprobs(choice: Any) -> Sequence[float]:
    found = getattr(choice, "logprobs", None)
    of_chat = getattr(found, "content", None)
    return [token.logprob for token in of_chat] if of_chat else getattr(found, "token_logprobs", None) or ()
