"""Recipes: an experiment as a file, read strictly into the plain records of `types`.

A recipe is `selfedit/recipes/<name>/recipe.toml` inside the package, with a README beside it, or a TOML file of the
user's. What it leaves out has the defaults of `Recipe`, and `key=value` overrides come on top, table by table: an
override of `outer.train.epochs` leaves the rest of `outer.train` as it was. Nothing is guessed: an unknown key, a
number in quotes or a probability of 1.5 is a `ConfigError` that names the key and where it was set.

A path in a recipe file (`data`, `completions`, `template`) is looked for beside that file first. A template is read
here, so that its text, not its path, is what the recipe says; `data` implies the domain "documents", `completions` the
arm of that name. On the command line `n` is short for `eval_tasks`.

    recipe = load_recipe("paper", ["model=Qwen/Qwen2.5-7B", "inner.learning_rate=2e-3"])
    recipes = variants(load_recipe("paper", ["vary.format=['rewrite','self-qa']"]))
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from selfedit.errors import ConfigError, near_miss
from selfedit.recipe import Recipe, recipe_hash
from selfedit.types import LARGEST_RATE, MOST_EPOCHS

__all__ = ["ARMS", "list_recipes", "load_recipe", "recipe_hash", "resolved", "variants", "varied_key"]

ARMS = (
    "base",
    "passage",
    "completions",
    "rounds",
    "retrieval",
    "in-context",
    "shuffled-reward",
    "random-edits",
    "even",
    "weak",
)
_PATHS = ("data", "completions", "template", "outer.reward", "outer.terms.probes")
_SHORT = {"n": "eval_tasks"}

# pydantic speaks JSON; a recipe is TOML.
_EXPECTED = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a string",
    "a valid boolean": "true or false",
    "a valid array": 'a list such as ["a", "b"]',
    "an object": "a table",
}


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe of the package by name, or a file by its path ending in .toml, and put `overrides` on top.

    An override is `dotted.key=value`, the value in TOML; what is no TOML is a string, so that words need no quotes. A
    recipe without a `name` is called after its folder, or its file. Raises `ConfigError`.
    """
    file, name = _find(name_or_path)
    layers = [_Layer(str(file), _beside(file, _read_toml(file))), *(_read_override(text) for text in overrides)]
    recipe = _build(Recipe(), layers)
    key = varied_key(recipe)
    if key and any(_known_part(key.split("."), layer.values)[0] == key for layer in layers[1:]):
        raise ConfigError(f"{key!r} varies in this recipe; name its values in vary.{key}=[…], or add vary={{}}")
    varied = variants(recipe)  # what is wrong with one of them is better known now than after the others have run
    if recipe.judge.model and not any(each.asks_judge for each in varied.values()):
        raise ConfigError(
            f"the judge {recipe.judge.model!r} is named and the grader {recipe.exam.grader!r} asks none; "
            'set exam.grader="judge" (or "calibrated+judge"), or leave out judge.model'
        )
    return recipe if recipe.name else replace(recipe, name=name)


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipes that `vary` stands for, by name: one for each value of its key, or the recipe itself by "".

    Raises `ConfigError` for a `vary` that names no key, or several, or a value that the key cannot have.
    """
    key = varied_key(recipe)
    if not key:
        return {"": recipe}
    values = _known_part(key.split("."), recipe.vary)[1]
    named = values if isinstance(values, dict) else {str(value).replace("/", "-"): value for value in values}
    if len(named) < len(values) or not all(named):
        raise ConfigError(f"the values of 'vary.{key}' need names of their own: write {{ name = value, … }} for them")
    plain = replace(recipe, vary={})
    return {name: _build(plain, [_Layer(f"'vary.{key}'", _nested(key, value))]) for name, value in named.items()}


def varied_key(recipe: Recipe) -> str:
    """Return the dotted key that `vary` has values for; "" where nothing varies. Raises `ConfigError`."""
    keys: list[str] = []
    table: Any = resolved(Recipe())
    at: Any = recipe.vary
    while isinstance(table, dict) and isinstance(at, dict) and at:
        if len(at) > 1:
            raise ConfigError(f"'vary' takes one key with its values and is given {len(at)}: {', '.join(at)}")
        ((part, at),) = at.items()
        keys.append(part)
        table = table.get(part)
    key = ".".join(keys)
    if keys and not (isinstance(at, list | dict) and at):
        raise ConfigError(f"'vary.{key}' is {at!r}; expected a list of values, or a table of names and values")
    return key


def _build(below: Recipe, layers: Sequence[_Layer]) -> Recipe:
    """Put layers over a recipe, check the whole, and add what it implies."""
    values = resolved(below)
    for layer in layers:
        if "vary" in layer.values:  # another key to vary takes the place of the one before
            values["vary"] = {}
        values = _merge(values, layer.values)
    recipe = _validate(values, layers)
    _check(recipe, layers)
    return _with_implied(recipe, layers)


def _nested(key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def list_recipes() -> list[tuple[str, str]]:
    """Name every recipe of the package with the first line of its README, without the heading's mark."""
    return [(name, _title(folder / "README.md")) for name, folder in sorted(_packaged().items())]


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Write a recipe out with all its defaults, as plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain


@dataclass(frozen=True, slots=True)
class _Layer:
    """Values from one place; `source` names the place in error messages."""

    source: str
    values: dict[str, Any]


def _packaged() -> dict[str, Traversable]:
    folders = (files("selfedit") / "recipes").iterdir()
    return {folder.name: folder for folder in folders if (folder / "recipe.toml").is_file()}


def _title(readme: Traversable) -> str:
    return readme.read_text("utf-8").partition("\n")[0].lstrip("# ")


def _find(name_or_path: str) -> tuple[Traversable, str]:
    """Return a recipe's file and the name that it has by its place."""
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise ConfigError(f"there is no recipe file {name_or_path!r}; `selfedit recipes` lists the package's own")
        return path, path.absolute().parent.name if path.stem == "recipe" else path.stem
    packaged = _packaged()
    if name_or_path not in packaged:
        hint = near_miss(name_or_path, packaged)
        raise ConfigError(f"unknown recipe {name_or_path!r}; {hint} (a recipe of your own is a path ending in .toml)")
    return packaged[name_or_path] / "recipe.toml", name_or_path


def _read_toml(file: Traversable) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"the recipe {file} is not UTF-8 text: see line {line}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"(at the end, line {text.rstrip().count(chr(10)) + 1})"
        raise ConfigError(f"the recipe {file} is not TOML: {error}".replace("(at end of document)", end)) from error


def _beside(file: Traversable, values: dict[str, Any], table: str = "") -> dict[str, Any]:
    """Replace paths that are meant from the recipe file's folder by paths that are meant from here.

    Of "path.py:function" the part before the colon is the path.
    """
    folder = Path(str(file)).parent
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found[key] = _beside(file, value, f"{table}{key}.")
        elif table + key in _PATHS and isinstance(value, str) and value:
            path = value.rpartition(":")[0] if ".py:" in value else value
            found[key] = str(folder / value) if (folder / path).exists() else value
    return values | found


def _with_implied(recipe: Recipe, layers: Sequence[_Layer]) -> Recipe:
    if any("template" in layer.values for layer in layers) and recipe.template:
        recipe = replace(recipe, template=_read_template(recipe.template, layers))
    if recipe.completions and "completions" not in recipe.arms:
        recipe = replace(recipe, arms=(*recipe.arms, "completions"))
    return replace(recipe, domain="documents") if recipe.data else recipe


def _read_template(path: str, layers: Sequence[_Layer]) -> str:
    where = f"the template {path!r} (in {_source('template', layers)})"
    try:
        text = Path(path).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError(f"cannot read {where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 text") from error
    if "{passage}" not in text:
        raise ConfigError(
            f"{where} has no {{passage}} in it; write {{passage}} for the text and {{title}} for its title"
        )
    return text


def _read_override(text: str) -> _Layer:
    """Read `dotted.key=value`. It is a line of TOML already, save for the quotes that a bare word lacks."""
    key, equals, word = text.partition("=")
    key = _SHORT.get(key.strip(), key)
    for line in (f"{key}={word}", f"{key}={json.dumps(word.strip(), ensure_ascii=False)}") if equals else ():
        try:
            values = tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            continue
        if values:
            return _Layer(f"the override {text!r}", values)
    raise ConfigError(f"cannot read the override {text!r}; expected key=value, as in inner.epochs=3")


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Put `above` over `below`, table by table: a table never replaces a whole table."""
    merged = dict(below)
    for key, value in above.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


@cache
def _adapter() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)


def _validate(values: dict[str, Any], layers: Sequence[_Layer]) -> Recipe:
    """Build the record. By way of JSON, where even strict validation takes lists for tuples and tables for records."""
    try:
        return _adapter().validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    loc = problems[0]["loc"]
    if problems[0]["type"] == "unexpected_keyword_argument":
        raise _unknown([str(part) for part in loc], layers)
    key, given = _known_part(loc, values)
    expected = dict.fromkeys(_expected(p["msg"]) for p in problems if _known_part(p["loc"], values)[0] == key)
    raise _wrong(key, given, " or ".join(expected), layers)


def _known_part(loc: Sequence[str | int], values: Any) -> tuple[str, Any]:
    """Cut what pydantic adds to a key (place in a list, member of a union); return the dotted key and its value."""
    keys: list[str] = []
    for part in loc:
        if not isinstance(values, dict) or part not in values:
            break
        keys.append(str(part))
        values = values[part]
    return ".".join(keys), values


def _expected(message: str) -> str:
    wanted = message.removeprefix("Input should be ")
    return _EXPECTED.get(wanted, wanted)


def _unknown(path: Sequence[str], layers: Sequence[_Layer]) -> ConfigError:
    """Word an unknown key: it stands in the wrong table, or it is misspelt."""
    table: dict[str, Any] = resolved(Recipe())
    known = [key for key in _dotted(table) if key.rpartition(".")[2] == path[-1]]
    for part in path[:-1]:
        table = table[part]
    # Compared without the tables' names, which would make any two keys of a table look alike.
    known = known or [".".join([*path[:-1], close]) for close in get_close_matches(path[-1], table, n=1)]
    key = ".".join(path)
    return ConfigError(f"unknown key {key!r} in {_source(key, layers)}; {near_miss(key, known or table)}")


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten tables into dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _wrong(key: str, given: object, expected: str, layers: Sequence[_Layer]) -> ConfigError:
    return ConfigError(f"wrong value for {key!r} in {_source(key, layers)}: given {given!r}, expected {expected}")


def _source(key: str, layers: Sequence[_Layer]) -> str:
    """Name the topmost layer that sets `key`: an override wins over the file."""
    for layer in reversed(layers):
        if _known_part(key.split("."), layer.values)[0] == key:
            return layer.source
    return layers[0].source


_Check = tuple[Callable[[Any], bool], str]


def _at_least(least: int) -> _Check:
    return lambda value: bool(least <= value < math.inf), f"at least {least}"


def _is_worded(rate: float) -> bool:
    """Say whether a learning rate is one that a line of six digits can name."""
    return 0 < rate <= LARGEST_RATE and float(f"{rate:g}") == rate


def _is_targets(value: str | list[str]) -> bool:
    return value in ("all-linear", "default") if isinstance(value, str) else bool(value)


_POSITIVE: _Check = (lambda value: 0 < value < math.inf, "a finite number above 0")
_FRACTION: _Check = (lambda value: 0 <= value <= 1, "a fraction from 0 to 1")
_TRAIN: dict[str, _Check] = {
    "rank": _at_least(1),
    "alpha": _POSITIVE,
    "dropout": (lambda value: 0 <= value < 1, "a fraction from 0 to below 1"),
    "targets": (_is_targets, '"all-linear", "default" or a list of module names'),
    "epochs": _at_least(1),
    "learning_rate": _POSITIVE,
    "warmup": _FRACTION,
    "batch_size": _at_least(1),
    "weight_decay": _at_least(0),
    "clip": _at_least(0),
    "pad_to": _at_least(0),
    "clip_ratio": _at_least(0),
    "kl": _at_least(0),
}
# What types cannot say, by dotted key.
_CHECKS: dict[str, _Check] = {
    "seed": _at_least(0),
    "seeds": _at_least(1),
    "eval_tasks": _at_least(1),
    "eval_repeats": _at_least(1),
    "together": _at_least(1),
    "arms": (lambda arms: len(arms) > 0 and set(arms) <= set(ARMS), f"one or more of {', '.join(ARMS)}"),
    "sample.edits": _at_least(1),
    "sample.temperature": _at_least(0),
    "sample.top_p": (lambda value: 0 < value <= 1, "a fraction above 0, at most 1"),
    "sample.max_tokens": _at_least(1),
    "exam.max_tokens": _at_least(1),
    "judge.max_tokens": _at_least(1),
    "judge.concurrency": _at_least(1),
    "judge.timeout_s": _POSITIVE,
    "judge.retries": _at_least(0),
    "exam.draws": _at_least(1),
    "menu.learning_rates": (
        lambda rates: len(set(rates)) == len(rates) and all(_is_worded(rate) for rate in rates),
        f"different numbers above 0, at most {LARGEST_RATE:g}, of at most six digits",
    ),
    "menu.epochs": (
        lambda epochs: len(set(epochs)) == len(epochs) and all(1 <= each <= MOST_EPOCHS for each in epochs),
        f"different whole numbers from 1 to {MOST_EPOCHS}",
    ),
    "outer.rounds": _at_least(0),
    "outer.patience": _at_least(0),
    "outer.tasks": _at_least(1),
    "outer.repeats": _at_least(1),
    "outer.keep": _at_least(1),
    "outer.race.keep": (lambda value: 0 < value < 1, "a fraction above 0, below 1"),
    "outer.terms.lost": _at_least(0),
    "outer.terms.kl": _at_least(0),
    "outer.terms.forbidden": _at_least(0),
    "outer.terms.measured": (lambda value: 0 < value <= 1, "a fraction above 0, at most 1"),
    **{f"inner.{key}": check for key, check in _TRAIN.items()},
    **{
        f"{train}.divergence": (lambda value: value == "forward", '"forward": no teacher is there to be followed')
        for train in ("inner", "outer.train")
    },
    "inner.kl": (lambda value: value == 0, "0: there is no policy that a learner should stay near"),
    **{f"outer.train.{key}": check for key, check in _TRAIN.items()},
}


def _check(recipe: Recipe, layers: Sequence[_Layer]) -> None:
    values = _dotted(resolved(recipe))
    for key, (holds, expected) in _CHECKS.items():
        if not holds(values[key]):
            raise _wrong(key, values[key], expected, layers)
    if recipe.eval_tasks % recipe.together:  # groups that stay what they are when a run is extended
        raise _wrong("together", recipe.together, f"a divisor of eval_tasks, which is {recipe.eval_tasks}", layers)
    _check_menu(recipe, layers)
    _check_writer(recipe)
    _check_judge(recipe)
    if {"even", "weak"} & set(recipe.arms) and recipe.exam.questions != "self-made":
        expected = '"self-made" for the arms "even" and "weak", which given questions only report on'
        raise _wrong("exam.questions", recipe.exam.questions, expected, layers)
    if recipe.outer.rounds:
        _check_groups(recipe, layers)
        _check_race(recipe, layers)


def _check_menu(recipe: Recipe, layers: Sequence[_Layer]) -> None:
    """A menu offers both or nothing, and one adapter cannot follow the choices of several self-edits."""
    for key, other in (("learning_rates", "epochs"), ("epochs", "learning_rates")):
        if getattr(recipe.menu, other) and not getattr(recipe.menu, key):
            raise _wrong(f"menu.{key}", [], f"some, as menu.{other} has", layers)
    if recipe.menu.is_offered and recipe.together > 1:
        raise _wrong("together", recipe.together, "1, as every self-edit chooses for an update of its own", layers)
    if recipe.menu.is_offered and (joint := {"even", "weak"} & set(recipe.arms)):
        raise ConfigError(
            f"the arm {min(joint)!r} trains on several self-edits at once; leave it out, or leave out menu"
        )


def _check_groups(recipe: Recipe, layers: Sequence[_Layer]) -> None:
    """Algorithms that compare the edits of a passage need several; those that compare policies, what they drew."""
    algorithm, edits = recipe.outer.algorithm, recipe.sample.edits
    least = {"expert_iteration": recipe.outer.keep + 1, "grpo": 2, "rloo": 2}.get(algorithm, 1)
    if edits < least:
        raise _wrong("sample.edits", edits, f"at least {least}, as {algorithm!r} compares the edits of a text", layers)
    if algorithm in ("grpo", "rloo") and recipe.sample.temperature != 1:
        expected = f"1, where the log-probabilities that {algorithm!r} compares are those of what was drawn"
        raise _wrong("sample.temperature", recipe.sample.temperature, expected, layers)


def _check_race(recipe: Recipe, layers: Sequence[_Layer]) -> None:
    """A race measures the best edit of a passage, and not what the others are worth."""
    outer = recipe.outer
    if not outer.race.by:
        return
    if not {"rounds", "random-edits"} & set(recipe.arms):
        raise ConfigError(
            'outer.race is of the self-edits that rounds try, and no arm has rounds; add "rounds" to arms, or leave '
            "out outer.race"
        )
    if outer.algorithm != "rest_em" or outer.select != "best-of-n":
        raise ConfigError(
            "outer.race finds the best self-edit of a text and leaves the others unmeasured, which "
            f"{outer.algorithm!r} with outer.select={outer.select!r} has to weigh too; set "
            'outer.algorithm="rest_em" and outer.select="best-of-n", or leave out outer.race'
        )
    if "shuffled-reward" in recipe.arms:
        raise ConfigError(
            'the control "shuffled-reward" deals out all rewards of a text, and outer.race gives none to those that '
            "drop out; leave out one of them"
        )
    if recipe.sample.edits < 2:
        raise _wrong("sample.edits", recipe.sample.edits, "at least 2, so that some can be left behind", layers)
    if outer.race.by != "learnt" and outer.repeats < 2:
        expected = "at least 2: a race by the first seed spares the seeds after it"
        raise _wrong("outer.repeats", outer.repeats, expected, layers)


def _check_judge(recipe: Recipe) -> None:
    judge = recipe.judge
    if judge.url and not judge.model:
        raise ConfigError(f"judge.url is {judge.url!r} and no model of it is named; add judge.model=NAME")
    if judge.model and not judge.url:
        raise ConfigError(
            f"the judge {judge.model!r} is named and no server that has it; add judge.url=http://127.0.0.1:8000/v1"
        )
    if recipe.exam.asks_judge and not judge.model:
        raise ConfigError(
            f"the grader {recipe.exam.grader!r} asks a model on a server and none is named; add judge.model=NAME "
            "judge.url=http://127.0.0.1:8000/v1"
        )


def _check_writer(recipe: Recipe) -> None:
    writer, outer = recipe.writer, recipe.outer
    if writer.url and not writer.model:
        raise ConfigError(f"writer.url is {writer.url!r} and no model of it is named; add writer.model=NAME")
    if writer.url and writer.adapter:
        raise ConfigError("a writer on a server takes no writer.adapter; name one of its models in writer.model")
    if writer.url and outer.rounds and {"rounds", "shuffled-reward", "random-edits"} & set(recipe.arms):
        raise ConfigError("a writer on a server cannot be reinforced; set outer.rounds=0, or leave out writer.url")
    if writer.model and outer.learner == "writer" and outer.rounds:
        raise ConfigError(
            f"{writer.model!r} writes and {recipe.model!r} learns, so that the learner cannot be the writer; "
            'set outer.learner="base"'
        )
