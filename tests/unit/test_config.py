from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.config import ARMS, list_recipes, load_recipe, resolved
from selfedit.errors import ConfigError
from selfedit.recipe import CAME_LATER, Recipe, recipe_hash
from selfedit.types import MenuSettings, OuterSettings, TrainSettings


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
    assert refusal("paper", "exam.zzz=1").endswith("known: draws, grader, max_tokens, questions")


def test_an_unknown_recipe_is_refused_with_its_near_miss() -> None:
    assert refusal("papr").startswith("unknown recipe 'papr'; did you mean 'paper'?")


def test_a_missing_recipe_file_is_refused_by_its_path(tmp_path: Path) -> None:
    assert str(tmp_path / "none.toml") in refusal(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("arm", ["even", "weak"])
def test_a_corpus_is_learnt_by_exams_of_the_models_own(arm: str) -> None:
    message = refusal("demo", f"arms=['{arm}']")
    assert message.startswith("wrong value for 'exam.questions'") and 'expected "self-made" for the arms' in message
    assert load_recipe("demo", [f"arms=['{arm}']", "exam.questions=self-made"]).arms == (arm,)


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
        ("exam.draws=0", "0", "at least 1"),
        ("exam.questions=mine", "'mine'", "'given' or 'self-made'"),
        ("inner.learning_rate=0", "0.0", "above 0"),
        ("inner.learning_rate=nan", "nan", "above 0"),
        ("inner.learning_rate=inf", "inf", "finite"),
        ("inner.schedule=square", "'square'", "'constant', 'linear' or 'cosine'"),
        ("inner.warmup=1.5", "1.5", "from 0 to 1"),
        ("inner.batch_size=0", "0", "at least 1"),
        ("inner.clip=-1", "-1", "at least 0"),
        ("inner.kl=0.1", "0.1", "0: there is no policy that a learner should stay near"),
        ("outer.train.kl=-1", "-1", "at least 0"),
        ("outer.train.clip_ratio=-0.2", "-0.2", "at least 0"),
        ("outer.keep=0", "0", "at least 1"),
        ("inner=3", "3", "a table"),
        ("outer.train.rank=0", "0", "at least 1"),
        ("outer.select=best", "'best'", "'improves', 'best-of-n' or 'all-positive'"),
        ("outer.rounds=-1", "-1", "at least 0"),
        ("outer.patience=-1", "-1", "at least 0"),
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


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["outer.algorithm=grpo", "sample.edits=1"],
            "'sample.edits'.*given 1, expected at least 2, as 'grpo' compares",
        ),
        (["outer.algorithm=rloo", "sample.edits=1"], "'sample.edits'.*given 1, expected at least 2, as 'rloo'"),
        (["outer.algorithm=expert_iteration", "outer.keep=5"], "'sample.edits'.*given 5, expected at least 6"),
        (["outer.algorithm=grpo", "sample.temperature=0.7"], "'sample.temperature'.*given 0.7, expected 1, where"),
    ],
)
def test_what_an_algorithm_cannot_work_with_is_refused_if_there_is_a_round(overrides: list[str], expected: str) -> None:
    assert re.search(expected, refusal("paper", *overrides))
    assert load_recipe("paper", [*overrides, "outer.rounds=0"]).outer.rounds == 0


_RACE = ("outer.race.by=one-seed", "outer.select=best-of-n", "outer.repeats=3")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["outer.algorithm=grpo"],
            "leaves the others unmeasured, which 'grpo' .* has to weigh too; set outer.algorithm",
        ),
        (["outer.select=improves"], "'rest_em' with outer.select='improves' has to weigh"),
        (["arms=['rounds','shuffled-reward']"], 'the control "shuffled-reward" deals out all rewards of a text'),
        (["sample.edits=1"], "'sample.edits'.*given 1, expected at least 2, so that some can be left behind"),
        (["outer.repeats=1"], "'outer.repeats'.*given 1, expected at least 2: a race by the first seed"),
        (["outer.race.keep=1"], "'outer.race.keep'.*given 1.0, expected a fraction above 0, below 1"),
        (["outer.race.keep=0"], "'outer.race.keep'.*given 0.0, expected a fraction above 0, below 1"),
        (["arms=['base','passage']"], 'no arm has rounds; add "rounds" to arms'),
        (["outer.race.by=luck"], "'outer.race.by'.*given 'luck', expected '', 'one-seed', 'logprob' or 'learnt'"),
    ],
)
def test_a_race_that_would_change_the_method_or_spare_nothing_is_refused(overrides: list[str], expected: str) -> None:
    assert re.search(expected, refusal("paper", *_RACE, *overrides))


def test_a_race_by_what_is_learnt_spares_inner_loops_of_one_seed_too() -> None:
    assert load_recipe("paper", [*_RACE, "outer.race.by=learnt", "outer.repeats=1"]).outer.race.keep == 0.5


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


def test_a_run_from_before_keys_came_can_be_gone_on_with() -> None:
    assert recipe_hash(Recipe()) == "6d18066b3d57"  # as it was without any of them


_WITHIN = {"terms": {"lost": 9.0}, "race": {"by": "learnt"}, "menu": {"epochs": (3,)}}


@pytest.mark.parametrize("key", sorted(CAME_LATER))
def test_a_key_that_came_later_is_part_of_the_hash_once_it_says_something_new(key: str) -> None:
    plain = resolved(Recipe())
    *tables, name = key.split(".")
    table = reduce(lambda at, part: at[part], tables, plain)
    assert table[name] == json.loads(json.dumps(CAME_LATER[key]))
    other = {bool: True, str: "other", int: 9, float: 0.5, dict: _WITHIN.get(name)}[type(table[name])]
    records: Any = Recipe()
    changed = reduce(lambda inner, part: {part: inner}, reversed(tables), {name: other})
    assert recipe_hash(_replaced(records, changed)) != recipe_hash(Recipe())


def _replaced(record: Any, changes: dict[str, Any]) -> Any:
    """Change a record of records as a nested table says."""
    new = {
        key: _replaced(getattr(record, key), value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    return replace(record, **new)


def test_a_hash_is_twelve_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{12}", recipe_hash(Recipe()))


def test_a_resolved_recipe_is_plain_and_complete() -> None:
    plain = resolved(load_recipe("paper"))
    assert plain["arms"] == ["base", "passage", "rounds"]
    assert plain["outer"]["train"]["rank"] == 64
    assert plain["inner"]["weight_decay"] == 0.0


# ── menus ──


def test_a_menu_is_read_from_a_file_and_from_the_command_line(tmp_path: Path) -> None:
    menu = MenuSettings((1e-3, 0.1), (1, 100))
    assert load_recipe(written(tmp_path, "menu = { learning_rates = [1e-3, 0.1], epochs = [1, 100] }")).menu == menu
    assert load_recipe("clean", ["menu.learning_rates=[1e-3,0.1]", "menu.epochs=[1,100]"]).menu == menu
    assert not load_recipe("clean").menu.is_offered


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("menu.learning_rates=[0.2]", "menu.epochs=[3]"), "expected different numbers above 0, at most 0.1, of at"),
        (("menu.learning_rates=[0]", "menu.epochs=[3]"), "'menu.learning_rates'"),
        (("menu.learning_rates=[1e-3,1e-3]", "menu.epochs=[3]"), "'menu.learning_rates'"),
        (("menu.learning_rates=[0.012345678]", "menu.epochs=[3]"), "of at most six digits"),
        (("menu.learning_rates=[1e-3]", "menu.epochs=[0]"), "expected different whole numbers from 1 to 100"),
        (("menu.learning_rates=[1e-3]", "menu.epochs=[101]"), "'menu.epochs'"),
        (("menu.learning_rates=[1e-3]", "menu.epochs=[3,3]"), "'menu.epochs'"),
        (("menu.learning_rates=[1e-3]", "menu.epochs=[2.5]"), "'menu.epochs'"),
        (("menu.learning_rates=[1e-3]",), "'menu.epochs'"),
        (("menu.epochs=[3]",), "'menu.learning_rates'"),
        (("menu.epochs=[3]", "menu.learning_rates=[1e-3]", "together=2"), "expected 1, as every self-edit chooses"),
        (
            ("menu.epochs=[3]", "menu.learning_rates=[1e-3]", "arms=['weak']"),
            "the arm 'weak' trains on several self-edits at once",
        ),
    ],
)
def test_a_menu_that_nobody_can_choose_from_is_refused(overrides: tuple[str, ...], says: str) -> None:
    assert says in refusal("clean", *overrides)


# ── judges ──

JUDGE = ("judge.model=m", "judge.url=http://127.0.0.1:9/v1")


def test_a_judge_is_read_with_all_that_it_needs(tmp_path: Path) -> None:
    text = """exam.grader = "calibrated+judge"
[judge]
model = "m"
url = "http://127.0.0.1:9/v1"
key_env = "KEY"
extra = { top_k = -1, chat_template_kwargs = { enable_thinking = false } }
concurrency = 2
timeout_s = 30
retries = 1
"""
    judge = load_recipe(written(tmp_path, text)).judge
    assert judge.extra == {"top_k": -1, "chat_template_kwargs": {"enable_thinking": False}}
    assert (judge.model, judge.key_env, judge.concurrency, judge.timeout_s, judge.retries) == ("m", "KEY", 2, 30.0, 1)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("exam.grader=judge",), "the grader 'judge' asks a model on a server and none is named; add judge.model=NAME"),
        (("exam.grader=calibrated+judge",), "the grader 'calibrated+judge' asks a model"),
        (("exam.grader=judge", "judge.model=m"), "no server that has it; add judge.url="),
        (("exam.grader=judge", "judge.url=http://127.0.0.1:9/v1"), "no model of it is named; add judge.model=NAME"),
        (JUDGE, "the judge 'm' is named and the grader 'contains' asks none; set exam.grader="),
        (("exam.grader=judge", *JUDGE, "judge.concurrency=0"), "'judge.concurrency'"),
        (("exam.grader=judge", *JUDGE, "judge.timeout_s=0"), "'judge.timeout_s'"),
        (("exam.grader=judge", *JUDGE, "judge.retries=-1"), "'judge.retries'"),
        (("exam.grader=judge", *JUDGE, "judge.max_tokens=0"), "'judge.max_tokens'"),
        (("exam.grader=judge", *JUDGE, "judge.modle=m"), "did you mean 'judge.model'"),
    ],
)
def test_a_judge_that_nobody_can_ask_or_nobody_does_is_one_sentence(overrides: tuple[str, ...], says: str) -> None:
    assert says in refusal("clean", *overrides)


def test_graders_with_and_without_a_judge_can_stand_in_one_table() -> None:
    assert load_recipe("clean", ["vary.exam.grader=['contains','judge']", *JUDGE]).judge.model == "m"


def test_who_judges_is_part_of_a_result_and_how_the_judge_is_reached_is_not() -> None:
    def hashed(*overrides: str) -> str:
        return recipe_hash(load_recipe("clean", ["exam.grader=judge", *JUDGE, *overrides]))

    reached = "judge.url=http://x/v1", "judge.key_env=K", "judge.concurrency=1", "judge.retries=0", "judge.timeout_s=9"
    assert {hashed(override) for override in (*reached, "judge.max_tokens=9")} == {hashed()}
    assert len({hashed(), hashed("judge.model=n"), hashed("judge.extra={top_k=1}")}) == 3


def test_a_recipe_that_asks_no_judge_hashes_as_before_there_were_judges() -> None:
    clean = load_recipe("clean")
    assert recipe_hash(replace(clean, judge=replace(clean.judge, model="m"))) == recipe_hash(clean)
