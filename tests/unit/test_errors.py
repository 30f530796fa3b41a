from __future__ import annotations

import errno

import pytest

from selfedit.errors import BadEdit, InputError, SelfEditError, boundary, near_miss
from selfedit.types import Failure


def test_a_boundary_turns_an_exception_into_a_failure_of_its_stage() -> None:
    with boundary("train") as caught:
        raise ValueError("rank must be positive")
    assert caught.failure == Failure("train", "ValueError", "rank must be positive")


def test_a_boundary_without_an_exception_catches_nothing() -> None:
    with boundary("grade") as caught:
        pass
    assert caught.failure is None


def test_an_exception_without_words_is_still_named() -> None:
    with boundary("answer") as caught:
        raise KeyError
    assert caught.failure == Failure("answer", "KeyError", "KeyError()")


def test_a_bad_edit_is_caught_and_can_be_told_from_a_crash_of_ours() -> None:
    with boundary("parse") as caught:
        raise BadEdit("no text")
    assert caught.failure == Failure("parse", "BadEdit", "no text")
    assert not issubclass(BadEdit, SelfEditError)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1), OSError(errno.ENOSPC, "No space left on device")])
def test_what_concerns_the_whole_run_passes_through_a_boundary(stop: BaseException) -> None:
    with pytest.raises(type(stop)), boundary("train"):
        raise stop


def test_a_user_can_catch_every_error_of_ours_at_once() -> None:
    with pytest.raises(SelfEditError):
        raise InputError("no such folder")


def test_a_near_miss_is_offered() -> None:
    assert near_miss("exct", ["exact", "f1", "grid"]) == "did you mean 'exact'?"


def test_without_a_near_miss_all_that_is_known_is_listed_in_order() -> None:
    assert near_miss("zzz", ["grid", "exact"]) == "known: exact, grid"
