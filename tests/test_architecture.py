"""The layout rules of DESIGN.md as tests: who may import whom, where heavy libraries live, what the documents promise.

Modules are named without the leading `selfedit.`; a name in a rule stands for that module and all below it.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from typer import Option, Typer
from typer.main import get_command

import selfedit

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "selfedit"


@dataclass(frozen=True, slots=True)
class Rule:
    """What `modules` of one layer may import of ours. Whatever it says, nothing imports from a layer above its own."""

    layer: int
    modules: tuple[str, ...]
    may: tuple[str, ...]
    own_folder: bool = False


EVERYTHING = ("",)
SERVICE = ("workspace", "runs", "types", "recipe", "errors", "config", "report.stats", "report.record")
METHOD = ("types", "recipe", "errors", "tasks.base", "engine.base", "loop.algorithms", "loop.rewards")
REWARDING = ("loop.learnt", "loop.rollouts")

# "Who may import whom", top to bottom. What the table leaves unsaid: the command line opens its neighbours (nobody
# else could), the loops run the ones inside them, and what trains the embedded model is a program, so it is on top.
# Split since: `recipe` off the types, `loop.arms` off the outer loop, `experiment` off the workspace (the driver of a
# recipe, what it needs before, what is read off its run folders after), `report.record` off the statistics,
# `report.page` (what every page is made of) off the renderer, `report.published` (the files, by `report.strict` and
# `report.names`), `report.course_page` (a writer's rounds) off the renderer, `report.graded` and `report.replay_page`
# off the replay, `tracking` off the runs that it reads.
TABLE = (
    Rule(5, ("cli",), (*SERVICE, "experiment.run", "writing", "grading", "report", "server")),
    Rule(5, ("server",), SERVICE, own_folder=True),
    Rule(5, ("integrations",), (*SERVICE, "experiment.rewarding", "experiment.plans", "engine.base"), own_folder=True),
    Rule(5, ("report.render",), (*SERVICE, "report.page", "report.agreement_page", "report.course_page")),
    Rule(5, ("report.agreement_page",), ("types", "errors", "report.page", "report.agreement")),
    Rule(
        5, ("report.course_page",), ("types", "errors", "report.page", "report.lines", "report.record", "report.stats")
    ),
    Rule(5, ("report.replay", "report.graded", "report.replay_page", "report.replay_words"), (*SERVICE, "report")),
    Rule(5, ("report.page", "report.grids"), ("types", "errors")),
    Rule(
        5,
        ("recipes.pup",),
        ("types", "errors", "tasks", "engine", "recipes.pup"),
    ),
    Rule(
        5,
        ("recipes.pup_grid",),
        ("types", "errors", "tasks", "engine", "recipes.pup", "recipes.pup_grid"),
    ),
    Rule(
        5,
        ("recipes.pretrain",),
        (
            "types",
            "recipe",
            "errors",
            "tasks",
            "engine.base",
            "loop",
            "runs",
            "report.stats",
            "recipes.pretrain",
            "recipes.pup.fresh",
        ),
    ),
    Rule(
        5,
        ("recipes.racing",),
        ("types", "recipe", "errors", "loop", "experiment", "runs", "report.stats"),
    ),
    Rule(
        5,
        ("recipes.forgetting",),
        (
            "types",
            "recipe",
            "errors",
            "config",
            "tasks",
            "engine.base",
            "loop",
            "experiment",
            "runs",
            "report.stats",
            "report.page",
            "recipes.forgetting",
            "recipes.pretrain.statements",
        ),
    ),
    Rule(
        5,
        ("recipes.settings",),
        (
            "types",
            "recipe",
            "errors",
            "tasks",
            "engine.base",
            "loop",
            "experiment",
            "judges",
            "runs",
            "report.stats",
            "report.render",
            "recipes.settings",
        ),
    ),
    Rule(
        5,
        ("recipes.distil",),
        ("types", "recipe", "errors", "tasks", "engine.base", "loop", "runs", "report.stats"),
        own_folder=True,
    ),
    Rule(
        5,
        ("recipes.thinking",),
        (
            "types",
            "recipe",
            "errors",
            "tasks",
            "engine.base",
            "loop.inner",
            "runs",
            "report.stats",
            "recipes.thinking",
        ),
    ),
    Rule(5, ("recipes.grader",), ("types", "errors", "tasks", "recipes.grader")),
    Rule(4, ("workspace", "experiment", "writing", "grading", "judges"), EVERYTHING),
    Rule(3, ("loop.marking",), ("types", "errors", "tasks.base")),
    Rule(3, ("loop.inner",), (*METHOD, "loop.marking")),
    Rule(3, ("loop.racing",), (*METHOD, *REWARDING, "loop.inner")),
    Rule(3, ("loop.outer",), (*METHOD, *REWARDING, "loop.inner", "loop.racing")),
    Rule(3, ("loop.probes",), (*METHOD, "loop.inner")),
    Rule(3, ("loop.exams",), (*METHOD, "tasks.exams", "loop.inner", "loop.outer")),
    Rule(3, ("loop.weak",), (*METHOD, "loop.inner", "loop.outer")),
    Rule(3, ("loop.arms",), (*METHOD, "loop.exams", "loop.weak", "loop.inner", "loop.outer", "loop.racing")),
    Rule(3, ("memory.consolidate", "memory.migrate"), (*METHOD, "loop", "memory")),
    Rule(2, ("engine", "sources"), ("types", "errors"), own_folder=True),
    Rule(2, ("report.published",), ("types", "errors", "report.names", "report.strict")),
    Rule(
        2,
        ("memory.store", "memory.registry", "memory.retrieve", "memory.route", "memory.guard", "runs"),
        ("types", "recipe", "errors"),
        own_folder=True,
    ),
    Rule(1, ("userfiles",), ("errors",)),
    Rule(1, ("loop.rewards",), ("types", "errors", "userfiles")),
    Rule(2, ("tracking",), ("types", "recipe", "errors", "runs")),
    Rule(2, ("verdicts",), ("types", "errors")),
    Rule(
        1,
        (
            "tasks",
            "loop.algorithms",
            "loop.learnt",
            "loop.rollouts",
            "memory.gates",
            "report.stats",
            "report.record",
            "report.agreement",
            "report.diversity",
            "report.lines",
            "report.names",
            "report.strict",
        ),
        ("types", "errors"),
        own_folder=True,
    ),
    Rule(0, ("types",), ()),
    Rule(0, ("recipe",), ("types",)),
    Rule(0, ("errors",), ("types",)),
    Rule(0, ("config",), ("types", "recipe", "errors")),
)

MODELS = ("engine", "recipes.pup", "recipes.pup_grid")
PAGES = (
    "report.grids",
    "report.page",
    "report.render",
    "report.agreement_page",
    "report.course_page",
    "report.replay_page",
    "recipes.forgetting.page",
)
HOMES = {
    "torch": MODELS,
    "transformers": MODELS,
    "tokenizers": MODELS,
    "safetensors": MODELS,
    "peft": MODELS,
    "accelerate": (*MODELS, "tracking"),
    "openai": ("engine.remote",),
    "ray": MODELS,
    "pydantic": ("config",),
    "typer": ("cli", "report.render"),
    "rich": ("cli", *PAGES),
    "matplotlib": PAGES,
    "scipy": ("report.stats",),
    "bs4": ("sources.formats",),
    "markdownify": ("sources.formats",),
    "pypdf": ("sources.formats",),
    "tree_sitter": ("sources.outlines",),
    "datasets": ("sources.datasets", "integrations"),
    "trl": ("integrations",),
    "bm25s": ("memory.retrieve",),
    "lightgbm": ("recipes.grader",),
}
NETWORK = ("socket", "ssl", "http", "urllib.request", "requests", "httpx", "subprocess")
TOO_HEAVY_FOR_HELP = (
    "torch",
    "transformers",
    "peft",
    "scipy",
    "matplotlib",
    "datasets",
    "pypdf",
    "bs4",
    "bm25s",
    "openai",
    "accelerate",
    "trl",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text(), str(path)) for path in sorted(PACKAGE.rglob("*.py"))}
# The facade and the package heads hold no code, so they have no place in the table.
HEADS = {module_name(path) for path in PACKAGE.rglob("__init__.py")}


def is_in(module: str, places: tuple[str, ...]) -> bool:
    return any(place in ("", module) or module.startswith(f"{place}.") for place in places)


def rule_of(module: str) -> Rule | None:
    return next((rule for rule in TABLE if is_in(module, rule.modules)), None)


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield all that is imported, at any depth, by dotted name; `from a import b` as a.b.

    Names of our modules in strings count too: that is how `import_module` is fed.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if name.startswith("selfedit.") and name.removeprefix("selfedit.") in TREES.keys() - HEADS:
                yield name


def target_of(dotted: str, modules: set[str]) -> str | None:
    """Name the module of ours behind an imported name: "" is the facade, None a library."""
    if dotted.split(".")[0] != "selfedit":
        return None
    parts = dotted.split(".")[1:]
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts)


def layer_violations(trees: Mapping[str, ast.Module]) -> list[str]:
    found = []
    for module, tree in trees.items():
        source = rule_of(module)
        targets = {target_of(name, set(TREES)) for name in imports(tree) if name != "selfedit.__version__"}
        if source is None:
            found.append(f"{module} has no place in the table of DESIGN.md")
            continue
        for name in sorted(target for target in targets if target is not None):
            target = rule_of(name)
            is_neighbour = source.own_folder and name.split(".")[0] == module.split(".")[0]
            is_allowed = bool(name) and (is_neighbour or is_in(name, source.may))
            if not is_allowed or target is None or target.layer > source.layer:
                found.append(f"{module} imports {name or 'the public facade'}")
    return found


def heavy_violations(trees: Mapping[str, ast.Module]) -> list[str]:
    return [
        f"{module} imports {name}"
        for module, tree in trees.items()
        for name in sorted(set(imports(tree)))
        if not is_in(module, HOMES.get(name.split(".")[0], EVERYTHING))
    ]


def test_modules_import_only_what_the_design_allows() -> None:
    assert layer_violations({name: tree for name, tree in TREES.items() if name not in HEADS}) == []


def test_every_heavy_library_has_one_home() -> None:
    assert heavy_violations(TREES) == []


@pytest.mark.parametrize(
    ("module", "code", "found"),
    [
        ("tasks.world", "from selfedit.engine.base import open_backend", "imports engine.base"),
        ("tasks.world", "def f():\n    from selfedit import engine", "imports engine"),
        ("tasks.world", "import_module('selfedit.engine.base')", "imports engine.base"),
        ("tasks.world", "from selfedit import Task", "imports the public facade"),
        ("engine.base", "from selfedit.tasks import base", "imports tasks.base"),
        ("loop.algorithms", "import selfedit.tasks.base", "imports tasks.base"),
        ("loop.algorithms", "from selfedit.loop.inner import propose", "imports loop.inner"),
        ("loop.inner", "from selfedit.tasks.world import Entity", "imports tasks.world"),
        ("report.stats", "import selfedit.engine.base", "imports engine.base"),
        ("types", "from selfedit.errors import BadEdit", "imports errors"),
        ("cli", "from selfedit.loop.outer import improve", "imports loop.outer"),
        ("helpers", "", "has no place in the table of DESIGN.md"),
    ],
)
def test_the_table_refuses(module: str, code: str, found: str) -> None:
    assert layer_violations({module: ast.parse(code)}) == [f"{module} {found}"]


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("tasks.world", "from selfedit.tasks import base; from selfedit.types import Task"),
        ("engine.base", "from selfedit import __version__; import_module('selfedit.engine.base')"),
        ("workspace", "from selfedit.tasks.base import Domain; import selfedit.loop.algorithms"),
        ("recipes.pup.train", "from selfedit.recipes.pup import corpus; from selfedit.tasks import world"),
        ("cli", "from selfedit.report.stats import paired"),
    ],
)
def test_the_table_admits(module: str, code: str) -> None:
    assert layer_violations({module: ast.parse(code)}) == []


@pytest.mark.parametrize(
    ("module", "code"), [("tasks.base", "import torch"), ("cli", "def f():\n    from scipy import stats")]
)
def test_heavy_libraries_are_refused_away_from_home(module: str, code: str) -> None:
    assert heavy_violations({module: ast.parse(code)})


def test_package_heads_hold_at_most_a_docstring() -> None:
    heads = {name: TREES[name].body for name in HEADS - {""}}
    assert [name for name, body in heads.items() if any(not isinstance(node, ast.Expr) for node in body)] == []


def test_the_pure_layer_opens_no_connection_and_no_process() -> None:
    pure = [name for name in TREES if name not in HEADS and (rule := rule_of(name)) and rule.layer == 1]
    assert [(name, used) for name in pure for used in imports(TREES[name]) if is_in(used, NETWORK)] == []


def test_imports_are_absolute() -> None:
    relative = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_nothing_but_the_command_line_prints() -> None:
    printing = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" and name != "cli"
    ]
    assert printing == []


def test_files_are_named_by_noun_and_stay_short() -> None:
    paths = list(PACKAGE.rglob("*.py"))
    assert [path.name for path in paths if path.name == "utils.py"] == []
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in paths}
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = f"import sys, selfedit.cli; print(*[name for name in {TOO_HEAVY_FOR_HELP} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_public_names_are_importable_and_known_to_type_checkers() -> None:
    assert [name for name in dir(selfedit) if not hasattr(selfedit, name)] == []
    block = next(node for node in TREES[""].body if isinstance(node, ast.If))
    declared = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert declared == selfedit._PUBLIC
    with pytest.raises(AttributeError, match="no attribute 'Tsak'"):
        _ = selfedit.Tsak  # type: ignore[attr-defined]


FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:make|selfedit) [^`]+)`(?!`)")


def documents() -> list[Path]:
    recipes = PACKAGE / "recipes"
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *recipes.rglob("*.md")]


def command_lines(text: str) -> Iterator[str]:
    """Yield the lines of shell blocks (of those that show a prompt, only what follows it) and all inline commands."""
    for kind, block in FENCE.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if kind in ("", "sh", "bash", "shell", "console"):
            yield from prompted or lines
    yield from INLINE.findall(FENCE.sub("", text))


def commands(text: str) -> Iterator[list[str]]:
    """Yield every `make …` and `selfedit …` of a Markdown text as words."""
    for line in command_lines(text):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe in a program's output
            continue
        for command in re.split(r"\0(?:&&|;|\|\|?)\0", "\0".join(words)):
            rest = re.sub(r"^(?:[A-Z_]+=[^\0]*\0)+", "", command).split("\0")
            if Path(rest[0]).name in ("make", "selfedit"):
                yield [Path(rest[0]).name, *rest[1:]]


def unknown_targets(words: list[str], targets: set[str]) -> list[str]:
    return [word for word in words if "=" not in word and not word.startswith("-") and word not in targets]


def unknown_verbs(words: list[str], program: Any) -> list[str]:
    """Return the verbs and options of one command line that `program`, a Click command, does not know."""
    unknown, command, rest = [], program, iter(words)
    options = {option: parameter for parameter in command.params for option in parameter.opts}
    for word in rest:
        name, has_value, _ = word.partition("=")
        verbs = getattr(command, "commands", {})
        if word in ("…", "..."):
            break
        if word.startswith("-"):
            unknown += [name] if name not in (*options, "--help") else []
            if name in options and not has_value and not getattr(options[name], "is_flag", False):
                next(rest, None)
        elif word in verbs:
            command = verbs[word]
            options |= {option: each for each in command.params for option in (*each.opts, *each.secondary_opts)}
        elif verbs:
            return [*unknown, word]
    return unknown


def test_documented_commands_exist() -> None:
    from selfedit.cli import app

    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    program = get_command(app)
    wrong = [
        f"{path.relative_to(ROOT)}: {shlex.join([tool, *words])}: no {', '.join(unknown)}"
        for path in documents()
        for tool, *words in commands(path.read_text())
        if (unknown := unknown_targets(words, targets) if tool == "make" else unknown_verbs(words, program))
    ]
    assert wrong == []


def test_commands_are_found_in_blocks_and_inline() -> None:
    text = """Run `make demo` or `selfedit run demo --out x`; `selfedit` is the package, `make` a program.
```sh
cd selfedit && TORCH_INDEX=x make test  # in a minute
selfedit learn notes \\
    --model pup
```
```console
$ .venv/bin/selfedit --version
selfedit 0.1.0
```
```python
selfedit = 1
```
"""
    assert list(commands(text)) == [
        ["make", "test"],
        ["selfedit", "learn", "notes", "--model", "pup"],
        ["selfedit", "--version"],
        ["make", "demo"],
        ["selfedit", "run", "demo", "--out", "x"],
    ]


def test_unknown_targets_verbs_and_options_are_reported() -> None:
    app = Typer()

    @app.command()
    def run(recipe: str, out: Annotated[str, Option("--out", "-o")] = "", is_dry: bool = False) -> None: ...

    @app.command()
    def learn() -> None: ...

    program = get_command(app)
    assert unknown_targets(["test", "tset", "PYTHON=python3", "-n"], {"test"}) == ["tset"]
    assert unknown_verbs(["run", "demo", "--out", "x", "-o", "y", "--no-is-dry", "rounds=2", "--help"], program) == []
    assert unknown_verbs(["run", "demo", "--oot", "x"], program) == ["--oot"]
    assert unknown_verbs(["rnu", "demo"], program) == ["rnu"]
    assert unknown_verbs(["…", "--anything"], program) == []
