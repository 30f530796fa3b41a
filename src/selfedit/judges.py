"""Who judges: a grader with the server behind it, if it asks one, and the verdicts that were given before.

    check_grader(recipe.exam.grader, recipe.judge)  # before anything is run
    grade = open_grader(recipe.exam.grader, recipe.judge, Path("runs/demo"))

A prompt that stands several times in a batch is sent once, one with a verdict in the folder's `verdicts.jsonl` not at
all, and a new verdict is written there as it comes in: a kill loses only what was still under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfedit.engine.remote import RemoteWriter, open_writer
from selfedit.tasks.base import Grader
from selfedit.tasks.graders import JUDGED, load_grader
from selfedit.tasks.judge import Complete, read_verdict
from selfedit.types import Failure, JudgeSettings
from selfedit.verdicts import Verdicts, verdict_key

VERDICTS = "verdicts.jsonl"


def check_grader(name: str, judge: JudgeSettings) -> None:
    """Refuse what could not mark anything: an unknown grader, one that asks nobody, a server that is not there.

    Raises `ConfigError`, and `ModelError` for the server.
    """
    if _asks(name, judge):
        _open(judge).check()
    else:
        load_grader(name)


def open_grader(name: str, judge: JudgeSettings, folder: Path) -> Grader:
    """Return the grader called `name`; what a judge decides for it is kept in `folder`. Nothing is sent yet.

    Raises `ConfigError` as `check_grader` does, and `RunError` where verdicts cannot be written there.
    """
    if not _asks(name, judge):
        return load_grader(name)
    return load_grader(name, _remembering(_open(judge), judge, Verdicts(folder / VERDICTS)))


def open_judge(judge: JudgeSettings) -> Complete:
    """Return what completes a prompt by the judge's model, for whoever asks it more than yes or no."""
    server = _open(judge)

    def complete(prompts: Sequence[str]) -> list[str | Failure]:
        replies = dict(server.completions(prompts, judge.max_tokens))
        return [replies[place] for place in range(len(prompts))]

    return complete


def _asks(name: str, judge: JudgeSettings) -> bool:
    return name in JUDGED and bool(judge.model and judge.url)


def _open(judge: JudgeSettings) -> RemoteWriter:
    return open_writer(
        judge.model,
        judge.url,
        judge.key_env,
        extra=judge.extra,
        concurrency=judge.concurrency,
        timeout_s=judge.timeout_s,
        retries=judge.retries,
    )


def _remembering(server: RemoteWriter, judge: JudgeSettings, verdicts: Verdicts) -> Complete:
    """Complete prompts for a grader, which learns no more of a remembered reply than its verdict."""

    def complete(prompts: Sequence[str]) -> list[str | Failure]:
        verdicts.refresh()
        keys = {prompt: verdict_key(judge.model, judge.extra, prompt) for prompt in prompts}
        unknown = [prompt for prompt, key in keys.items() if verdicts.get(key) is None]
        replies: dict[str, str | Failure] = {}
        for place, reply in server.completions(unknown, judge.max_tokens):
            prompt = unknown[place]
            verdict = None if isinstance(reply, Failure) else read_verdict(reply)
            if verdict is None:
                replies[prompt] = reply
            else:
                verdicts.add(keys[prompt], verdict)
        return [replies[prompt] if prompt in replies else _word(verdicts.get(keys[prompt])) for prompt in prompts]

    return complete


def _word(verdict: bool | None) -> str:
    return "yes" if verdict else "no"
