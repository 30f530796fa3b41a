"""What a self-edit says of its own update: learning rate and epochs, within bounds or off a menu.

In arXiv 2506.10943 the self-edits of grids choose both (`arc`) and those of passages neither. Here a passage's may, in
any format: `Recipe.menu` says what there is to choose from, the prompt tells it, and the last line of a self-edit makes
the choice and is not trained on. It comes last so that how long to train can follow from what there is to train on.

    line = write_settings(0.005, 8)  # "Settings: learning rate 0.005, epochs 8"
    text, train = take_settings(f"It is old.\\n{line}", TrainSettings(), MenuSettings((0.001, 0.005), (2, 8)))
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from selfedit.errors import BadEdit, near_miss
from selfedit.types import LARGEST_RATE, MOST_EPOCHS, MenuSettings, TrainSettings

RATE, EPOCHS = "learning rate", "epochs"
_LINE = re.compile(r"^Settings:(.*)$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?", re.ASCII)
_WHOLE = re.compile(r"\d{1,9}", re.ASCII)
_LONGEST = 40  # characters of a wrong value that a message repeats


def write_settings(learning_rate: float, epochs: int) -> str:
    """Word a settings line as `take_settings` reads it."""
    return f"Settings: {RATE} {learning_rate:g}, {EPOCHS} {epochs}"


def ask_for_settings(menu: MenuSettings) -> str:
    """Word the sentence of a prompt that asks for a settings line; "" without a menu."""
    if not menu.is_offered:
        return ""
    rates, epochs = (", ".join(f"{each:g}" for each in offered) for offered in (menu.learning_rates, menu.epochs))
    return (
        f'The last line says how to train on it: "Settings: {RATE} L, {EPOCHS} E", L being one of {rates} and E one of '
        f"{epochs}."
    )


def take_settings(text: str, train: TrainSettings, menu: MenuSettings) -> tuple[str, TrainSettings]:
    """Part a self-edit from its settings lines and put the choice of the last one into `train`.

    Raises `BadEdit` where there is none, or where it is no choice off the menu.
    """
    found = _LINE.findall(text)
    if not found:
        raise BadEdit(f"no settings line of the form {write_settings(0.002, 10)!r}")
    return without_settings(text), choose(train, *_read(found[-1]), menu)


def without_settings(text: str) -> str:
    """Leave out all settings lines, whatever they say."""
    return _LINE.sub("", text)


def choose(
    train: TrainSettings,
    learning_rate: object,
    epochs: object,
    menu: MenuSettings | None = None,
    names: tuple[str, str] = (RATE, EPOCHS),
) -> TrainSettings:
    """Put a chosen learning rate and number of epochs, called `names`, into `train`.

    Raises `BadEdit` for what is no number, out of bounds or not on the menu, if there is one.
    """
    rates, numbers = (menu.learning_rates, menu.epochs) if menu else ((), ())
    if not isinstance(learning_rate, int | float) or (
        learning_rate not in rates if rates else not 0 < learning_rate <= LARGEST_RATE
    ):
        expected = _one_of(rates) or f"a number above 0, at most {LARGEST_RATE:g}"
        raise BadEdit(f"{names[0]!r} is {learning_rate!r}; expected {expected}")
    if type(epochs) is not int or (epochs not in numbers if numbers else not 1 <= epochs <= MOST_EPOCHS):
        expected = _one_of(numbers) or f"a whole number from 1 to {MOST_EPOCHS}"
        raise BadEdit(f"{names[1]!r} is {epochs!r}; expected {expected}")
    return replace(train, learning_rate=float(learning_rate), epochs=epochs)


def _one_of(offered: Sequence[float]) -> str:
    return f"one of {', '.join(f'{each:g}' for each in offered)}" if offered else ""


def _read(line: str) -> tuple[object, object]:
    """Read the two values off a line. What is no number stays text, which is then refused as a value."""
    given: dict[str, str] = {}
    for part in line.split(","):
        key, _, value = part.strip().rpartition(" ")
        if key not in (RATE, EPOCHS):
            raise BadEdit(f"unknown key {key[:_LONGEST]!r} in the settings line; {near_miss(key, (RATE, EPOCHS))}")
        if key in given:
            raise BadEdit(f"{key!r} is in the settings line twice")
        given[key] = value
    missing = [key for key in (RATE, EPOCHS) if key not in given]
    if missing:
        raise BadEdit(f"the settings line lacks {missing[0]!r}")
    rate, epochs = given[RATE], given[EPOCHS]
    return (
        float(rate) if _NUMBER.fullmatch(rate) else rate[:_LONGEST],
        int(epochs) if _WHOLE.fullmatch(epochs) else epochs[:_LONGEST],
    )
