"""Errors that a user can act on, and the one place where an exception becomes a `Failure`.

Raise early, catch late: library code raises these, `loop.inner` turns what hits one item into a `Failure` (a bad
rollout is data, not a crash), and the command line prints the rest as one sentence.

    with boundary("train") as caught:
        adapter = engine.train([job])
    if caught.failure: ...
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from selfedit.types import Failure, Stage


class SelfEditError(Exception):
    """Base of every error with a sentence for the user: what was given, what was expected, what to do."""


class InputError(SelfEditError):
    """A folder, file or question of the user's that cannot be read or used."""


class ConfigError(SelfEditError):
    """A recipe key or value that does not exist or does not fit."""


class ModelError(SelfEditError):
    """A model that cannot be loaded, does not fit, or is no causal language model."""


class RunError(SelfEditError):
    """A run folder or workspace that cannot be continued or written."""


class MissingExtra(SelfEditError):
    """An optional library that is not installed. The message carries the pip line."""


class BadEdit(Exception):
    """The model wrote a self-edit that cannot be used: a real reward of 0, not an error of ours."""


@dataclass(slots=True)
class Caught:
    """What a `boundary` caught, if anything."""

    failure: Failure | None = None


@contextmanager
def boundary(stage: Stage) -> Iterator[Caught]:
    """Turn an exception inside into `caught.failure`. What concerns the run (interrupts, exits, full disks) passes."""
    caught = Caught()
    try:
        yield caught
    except OSError:
        raise
    except Exception as error:
        caught.failure = Failure(stage, type(error).__name__, str(error) or repr(error))


@contextmanager
def from_extra(extra: str, what: str) -> Iterator[None]:
    """Turn a failing import inside into `MissingExtra` with the pip line. `what` is what cannot be done without."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(f"{what} needs more libraries: pip install 'selfedit[{extra}]'") from error


def near_miss(given: str, known: Iterable[str]) -> str:
    """Word the hint at the end of an "unknown …" message: the closest known name, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
