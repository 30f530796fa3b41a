from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.config import ARMS, list_recipes, load_recipe, resolved
from selfedit.errors import ConfigError
from selfedit.types import OuterSettings, Recipe, TrainSettings, recipe_hash


def refusal(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, overrides)
    return str(caught.value)


def written(folder: Path, text: str, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# ── the recipes of the package ──


def test_paper_replicates_the_published_inner_loop() -> None:
    paper = load_recipe("paper")
    assert (paper.format, paper.exam.max_tokens, paper.eval_tasks) == ("implications", 64, 200)
    assert paper.inner == TrainSettings(
        rank=32, alpha=64, targets="default", epochs=10, learning_rate=1e-3, schedule="linear", clip=1.0, pad_to=2048
    )
    assert (paper.sample.edits, paper.sample.temperature, paper.sample.top_p, paper.sample.max_tokens) == (
        5,
        1,
        0.95,
        8192,
    )


def test_paper_replicates_the_published_outer_loop() -> None:
    train = TrainSettings(
        rank=64, alpha=128, targets="all-linear", epochs=2, learning_rate=3e-4, batch_size=10, loss_on="completion"
    )
    assert load_recipe("paper").outer == OuterSettings(
        rounds=2, tasks=50, repeats=3, learner="writer", select="best-of-n", train=train
    )


def test_clean_differs_from_paper_in_the_corrections_alone() -> None:
    paper = load_recipe("paper")
    corrected = replace(
        paper,
        name="clean",
        format="rewrite",
        inner=replace(paper.inner, targets="all-linear", pad_to=0),
        outer=replace(paper.outer, select="improves"),
    )
    assert load_recipe("clean") == corrected


def test_every_recipe_of_the_package_loads_under_its_own_name_and_says_what_it_is() -> None:
    listed = dict(list_recipes())
    assert {"paper", "clean"} <= set(listed)
    for name, title in listed.items():
        assert load_recipe(name).name == name
        assert title and not title.startswith("#")


# ── layers ──


def test_an_empty_file_is_the_default_recipe_called_after_the_file(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "")) == Recipe(name="mine")


def test_a_file_called_recipe_is_named_by_its_folder(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "", "recipe.toml")).name == tmp_path.name


def test_a_name_in_the_file_wins_over_the_place(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, 'name = "given"')).name == "given"


def test_one_key_of_a_nested_table_leaves_its_neighbours_at_their_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "[outer.train]\nepochs = 5"))
    assert recipe.outer.train == replace(OuterSettings().train, epochs=5)


def test_overrides_win_over_the_file_and_the_last_one_wins(tmp_path: Path) -> None:
    path = written(tmp_path, "[inner]\nlearning_rate = 1e-4\nepochs = 3")
    recipe = load_recipe(path, ["inner.learning_rate=2e-3", "inner.learning_rate=3e-3"])
    assert recipe.inner == replace(TrainSettings(), learning_rate=3e-3, epochs=3)


@pytest.mark.parametrize(
    "model", ["Qwen/Qwen2.5-7B", "./models/a b", "pup", "C:\\models\\x", '"quoted"', "déjà", "a=b"]
)
def test_bare_words_are_strings(model: str) -> None:
    assert load_recipe("clean", [f"model={model}"]).model == model.strip('"')


def test_lists_and_inline_tables_are_toml() -> None:
    recipe = load_recipe("clean", ['inner.targets=["q_proj", "v_proj"]', "sample={edits=2, top_p=0.5}"])
    assert recipe.inner.targets == ("q_proj", "v_proj")
    assert (recipe.sample.edits, recipe.sample.top_p, recipe.sample.max_tokens) == (2, 0.5, 8192)


@settings(deadline=None)
@given(st.integers(1, 10**6), st.floats(1e-9, 1e9), st.sampled_from(["constant", "linear", "cosine"]))
def test_every_value_survives_the_command_line(epochs: int, learning_rate: float, schedule: str) -> None:
    overrides = [f"inner.epochs={epochs}", f"inner.learning_rate={learning_rate}", f"inner.schedule={schedule}"]
    inner = load_recipe("clean", overrides).inner
    assert (inner.epochs, inner.learning_rate, inner.schedule) == (epochs, learning_rate, schedule)


def test_n_is_short_for_the_number_of_unseen_tasks() -> None:
    assert load_recipe("clean", ["n=20"]) == load_recipe("clean", ["eval_tasks=20"])
    assert "wrong value for 'eval_tasks' in the override 'n=0'" in refusal("clean", "n=0")


def test_data_implies_the_domain_and_completions_their_arm() -> None:
    recipe = load_recipe("clean", ["data=notes.json", "completions=made.json"])
    assert (recipe.data, recipe.domain) == ("notes.json", "documents")
    assert recipe.arms == ("base", "passage", "rounds", "completions")
    named = load_recipe("clean", ["completions=made.json", "arms=['completions','base']"])
    assert named.arms == ("completions", "base")


def test_a_template_is_read_into_the_recipe_so_that_its_text_counts_and_not_its_path(tmp_path: Path) -> None:
    for name, text in {"a.txt": "{passage}!", "b.txt": "{passage}!", "c.txt": "{passage}?"}.items():
        written(tmp_path, text, name)
    a, b, c = (load_recipe("clean", [f"template={tmp_path / name}"]) for name in ("a.txt", "b.txt", "c.txt"))
    assert a.template == "{passage}!"
    assert recipe_hash(a) == recipe_hash(b) != recipe_hash(c)
    assert recipe_hash(a) != recipe_hash(load_recipe("clean"))


def test_a_template_is_read_to_the_letter_but_for_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("\ufeff{title}\r\n{passage}\r\n ".encode())
    assert load_recipe("clean", [f"template={tmp_path / 't.txt'}"]).template == "{title}\n{passage}\n "


def test_paths_in_a_recipe_file_are_looked_for_beside_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    written(folder, "{passage}", "t.txt")
    written(folder, "[]", "made.json")
    path = written(folder, 'template = "t.txt"\ndata = "org/set"\ncompletions = "made.json"')
    recipe = load_recipe(path)
    assert recipe.template == "{passage}"
    assert (recipe.data, recipe.completions) == ("org/set", str(folder / "made.json"))
    monkeypatch.chdir(tmp_path)
    assert "cannot read the template 't.txt'" in refusal(path, "template=t.txt")


# ── refusals ──


def test_a_template_that_cannot_be_used_is_refused_by_its_name(tmp_path: Path) -> None:
    missing, bare, binary = (str(tmp_path / name) for name in ("missing.txt", "bare.txt", "binary.txt"))
    Path(bare).write_text("Rewrite {title}: {pasage}")
    Path(binary).write_bytes(b"{passage} \xff")
    assert f"cannot read the template {missing!r}" in refusal("clean", f"template={missing}")
    assert f"the template {bare!r}" in refusal("clean", f"template={bare}")
    assert "has no {passage} in it" in refusal("clean", f"template={bare}")
    assert "is not UTF-8 text" in refusal("clean", f"template={binary}")


def test_a_misspelt_key_is_refused_with_its_near_miss_and_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[inner]\nlearning_rat = 1e-3")
    assert refusal(path) == f"unknown key 'inner.learning_rat' in {path}; did you mean 'inner.learning_rate'?"


def test_a_misspelt_override_is_named_as_such() -> None:
    message = refusal("paper", "outer.tran.epochs=3")
    assert message == "unknown key 'outer.tran' in the override 'outer.tran.epochs=3'; did you mean 'outer.train'?"


def test_a_key_in_the_wrong_table_is_pointed_to_the_right_one() -> None:
    assert "did you mean 'inner.learning_rate'?" in refusal("paper", "learning_rate=1e-3")


def test_a_key_like_no_other_is_answered_with_the_keys_of_its_table() -> None:
    assert refusal("paper", "exam.zzz=1").endswith("known: grader, max_tokens")


def test_an_unknown_recipe_is_refused_with_its_near_miss() -> None:
    assert refusal("papr").startswith("unknown recipe 'papr'; did you mean 'paper'?")


def test_a_missing_recipe_file_is_refused_by_its_path(tmp_path: Path) -> None:
    assert str(tmp_path / "none.toml") in refusal(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("override", "given_value", "expected"),
    [
        ("inner.rank=many", "'many'", "a whole number"),
        ("inner.rank=8.0", "8.0", "a whole number"),
        ("inner.rank=true", "True", "a whole number"),
        ("inner.rank=0", "0", "at least 1"),
        ("inner.alpha=0", "0.0", "above 0"),
        ("inner.dropout=1", "1.0", "below 1"),
        ("inner.targets=3", "3", "a string or a list"),
        ("inner.targets=q_proj", "'q_proj'", "a list of module names"),
        ("inner.targets=[]", "[]", "a list of module names"),
        ("inner.epochs=0", "0", "at least 1"),
        ("inner.learning_rate=0", "0.0", "above 0"),
        ("inner.learning_rate=nan", "nan", "above 0"),
        ("inner.learning_rate=inf", "inf", "finite"),
        ("inner.schedule=square", "'square'", "'constant', 'linear' or 'cosine'"),
        ("inner.warmup=1.5", "1.5", "from 0 to 1"),
        ("inner.batch_size=0", "0", "at least 1"),
        ("inner.clip=-1", "-1", "at least 0"),
        ("inner=3", "3", "a table"),
        ("outer.train.rank=0", "0", "at least 1"),
        ("outer.select=best", "'best'", "'improves', 'best-of-n' or 'all-positive'"),
        ("outer.rounds=-1", "-1", "at least 0"),
        ("sample.edits=0", "0", "at least 1"),
        ("sample.top_p=0", "0.0", "above 0, at most 1"),
        ("sample.top_p=1.5", "1.5", "above 0, at most 1"),
        ("sample.temperature=-0.5", "-0.5", "at least 0"),
        ("split_lines=1", "1", "true or false"),
        ("model=7", "7", "a string"),
        ("arms=base", "'base'", "a list such as"),
        ('arms=["bas"]', "['bas']", "one or more of base"),
        ("arms=[]", "[]", "one or more of base"),
        ("seed=-1", "-1", "at least 0"),
        ("together=0", "0", "at least 1"),
        ("together=-1", "-1", "at least 1"),
        ("together=3", "3", "a divisor of eval_tasks, which is 200"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_what_was_given_and_what_is_expected(
    override: str, given_value: str, expected: str
) -> None:
    message = refusal("paper", override)
    key = override.partition("=")[0]
    assert message.startswith(f"wrong value for {key!r} in the override {override!r}: given {given_value}")
    assert expected in message.partition("expected")[2]


def test_a_wrong_value_in_the_file_is_not_blamed_on_an_override(tmp_path: Path) -> None:
    path = written(tmp_path, "seed = -1")
    assert refusal(path, "inner.rank=4").startswith(f"wrong value for 'seed' in {path}:")


def test_broken_toml_is_refused_with_file_and_line(tmp_path: Path) -> None:
    path = written(tmp_path, "seed = 1\n[inner\nrank = 4\n")
    message = refusal(path)
    assert path in message
    assert "line 2" in message


def test_toml_that_ends_too_early_is_refused_with_its_last_line(tmp_path: Path) -> None:
    assert "line 2" in refusal(written(tmp_path, 'seed = 1\nmodel = "pup'))


def test_a_recipe_that_is_not_text_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"seed = 1\n# caf\xe9\n")
    assert "not UTF-8 text: see line 2" in refusal(str(path))


@pytest.mark.parametrize("override", ["inner.rank", "=3", "a b=3", "[inner]=3", "# seed=3", ""])
def test_an_override_of_another_form_is_refused(override: str) -> None:
    assert refusal("paper", override).startswith(f"cannot read the override {override!r}; expected key=value")


# ── hash ──


@settings(deadline=None)
@given(arms=st.lists(st.sampled_from(ARMS), min_size=1), extent=st.integers(1, 10**6))
def test_extending_a_run_keeps_its_hash(arms: list[str], extent: int) -> None:
    recipe = Recipe()
    extended = replace(
        recipe,
        name="other",
        model="elsewhere",
        arms=tuple(arms),
        eval_tasks=extent,
        eval_repeats=extent,
        seeds=extent,
        outer=replace(recipe.outer, rounds=extent),
    )
    assert recipe_hash(extended) == recipe_hash(recipe)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "domain=arc",
        "format=long",
        "split_lines=false",
        "inner.rank=8",
        'inner.targets=["q"]',
        "exam.grader=f1",
        "sample.temperature=0.5",
        "outer.repeats=7",
        "outer.select=best-of-n",
        "outer.train.epochs=3",
        "data=other.json",
        "completions=other.json",
        "together=2",
    ],
)
def test_what_changes_a_result_changes_the_hash(override: str) -> None:
    assert recipe_hash(load_recipe("clean", [override])) != recipe_hash(load_recipe("clean"))


def test_a_whole_number_hashes_alike_as_integer_and_float() -> None:
    in_python = replace(Recipe(), inner=TrainSettings(alpha=64, clip=1))
    assert recipe_hash(in_python) == recipe_hash(Recipe())


def test_a_hash_is_twelve_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{12}", recipe_hash(Recipe()))


def test_a_resolved_recipe_is_plain_and_complete() -> None:
    plain = resolved(load_recipe("paper"))
    assert plain["arms"] == ["base", "passage", "rounds"]
    assert plain["outer"]["train"]["rank"] == 64
    assert plain["inner"]["weight_decay"] == 0.0
