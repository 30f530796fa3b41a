from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selfedit.errors import BadEdit, ConfigError
from selfedit.tasks.edits import FORMATS, load_format, parse_edit, split_completion
from selfedit.tasks.settings import write_settings
from selfedit.types import MenuSettings, Sample, SelfEdit, Task, TrainSettings

TASK = Task("t", "Belmora", "It was founded in 1872. It lies on the Zape River.")
TRAIN = TrainSettings(learning_rate=1e-3, epochs=10, rank=7)
LAST = "Belmora\nIt was founded in 1872. It lies on the Zape River."

# Lines as models write them, and the marks that the rules look for.
lines = st.text(max_size=20) | st.sampled_from(
    ["---", "-----", "1. one", "2. two", "Question 1: Who?", "Question 12: When?", "Question: Why?", "Answer: Ada", ""]
)
completions = st.lists(lines, max_size=6).map("\n".join)


def parse(form: str, text: str, by_line: bool = True) -> SelfEdit:
    return parse_edit(load_format(form), TASK, Sample("p", (), (), (), text, "eos"), TRAIN, by_line)


def texts(form: str, text: str, by_line: bool = True) -> list[str]:
    return [each.text for each in parse(form, text, by_line).examples]


def letters(text: str) -> str:
    """The text without white space and without the dashes that part it."""
    return "".join(text.replace("-", "").split())


# ── prompts ──


@pytest.mark.parametrize("name", FORMATS)
def test_a_prompt_holds_title_and_passage_once_and_ends_with_what_the_writer_completes(name: str) -> None:
    form = load_format(name)
    prompt = form.prompt(TASK.title, TASK.context)
    assert prompt.count(TASK.title) == prompt.count(TASK.context) == 1
    assert f"\n{TASK.title}\n{TASK.context}\n" in prompt
    assert prompt.endswith(f"\n\n{form.heading}:\n{form.opening}")
    assert prompt.startswith(form.instruction)


def test_no_two_formats_ask_alike() -> None:
    assert len({form.prompt("t", "p") for form in FORMATS.values()}) == len(FORMATS)


def test_an_unknown_format_is_answered_with_the_near_miss() -> None:
    with pytest.raises(ConfigError, match="unknown format 'implication'; did you mean 'implications'"):
        load_format("implication")


def test_a_template_is_the_whole_prompt_and_changes_nothing_in_how_the_answer_is_read() -> None:
    form = load_format("self-qa", "On {title}: {passage}\n{title}, {else}, {{}}\nQuestion 1: ")
    assert form.prompt("Otrar", "It fell.") == "On Otrar: It fell.\nOtrar, {else}, {{}}\nQuestion 1: "
    assert form.opening == load_format("self-qa").opening
    assert load_format("study-plan", "{passage}").has_plan


def test_what_a_passage_says_is_no_place_of_the_template() -> None:
    assert load_format("rewrite", "{title}|{passage}").prompt("{passage}", "{title} \\1") == "{passage}|{title} \\1"


# ── splitting ──


def test_every_line_is_a_sequence_of_its_own_under_the_title() -> None:
    text = "It is old.\n\n  It lies by water. \n---\nIt is a town."
    assert texts("implications", text) == [
        "Belmora\nIt is old.",
        "Belmora\nIt lies by water.",
        "Belmora\nIt is a town.",
        LAST,
    ]


def test_whole_completions_are_parted_by_dashes_alone() -> None:
    text = "Question 1: Who?\nAnswer: Ada\n---\n\n---\nMore.\nStill more."
    assert texts("implications", text, by_line=False) == [
        "Belmora\nQuestion 1: Who?\nAnswer: Ada",
        "Belmora\nMore.\nStill more.",
        LAST,
    ]


def test_a_line_that_only_introduces_a_numbered_list_is_dropped() -> None:
    assert texts("implications", "Here they are:\n1. Old.\n2. Wet.") == ["Belmora\n1. Old.", "Belmora\n2. Wet.", LAST]
    assert texts("implications", "Here they are:") == ["Belmora\nHere they are:", LAST]


def test_a_question_stays_with_its_answer_and_the_first_gets_the_number_that_the_prompt_gave() -> None:
    text = " Who?\nAnswer: Ada --- B.\nQuestion 2: When?\nAnswer: 1872"
    assert texts("self-qa", text) == [
        "Belmora\nQuestion 1: Who?\nAnswer: Ada --- B.",
        "Belmora\nQuestion 2: When?\nAnswer: 1872",
        LAST,
    ]


def test_a_lone_question_stays_with_its_answer() -> None:
    assert texts("self-qa", " Who?\nAnswer: Ada") == ["Belmora\nQuestion 1: Who?\nAnswer: Ada", LAST]


def test_questions_without_numbers_are_lines_as_in_the_published_code() -> None:
    assert texts("self-qa", "Who?\nAnswer: Ada\nWhen?\nAnswer: 1872")[:2] == ["Belmora\nWho?", "Belmora\nAnswer: Ada"]


def test_a_writer_that_repeats_the_opening_does_not_get_it_twice() -> None:
    assert texts("self-qa", "Question 1: Who?\nAnswer: Ada") == ["Belmora\nQuestion 1: Who?\nAnswer: Ada", LAST]


def test_an_empty_completion_is_an_empty_piece_only_when_taken_whole() -> None:
    assert split_completion("", "T", "P", by_line=False) == ["T\n", "T\nP"]
    assert split_completion("", "T", "P", by_line=True) == ["T\nP"]


@given(completions.filter(lambda text: "1." not in text), st.booleans())
@example("\nQuestion 1: Who?\nAnswer: Ada", True)
def test_splitting_loses_no_text_and_ends_with_the_bare_passage(completion: str, by_line: bool) -> None:
    *pieces, last = split_completion(completion, "Title", "The passage.", by_line)
    assert last == "Title\nThe passage."
    assert all(piece.startswith("Title\n") for piece in pieces)
    kept = letters("".join(piece.removeprefix("Title\n") for piece in pieces))
    assert kept in (letters(completion), f"Question1:{letters(completion)}")


@given(completions, st.sampled_from(sorted(FORMATS)), st.booleans())
def test_whatever_is_written_is_parsed_or_is_a_bad_edit(completion: str, form: str, by_line: bool) -> None:
    try:
        found = texts(form, completion, by_line)
    except BadEdit:
        return
    assert len(found) >= 2
    assert found[-1] == LAST
    assert any(character.isalnum() for text in found[:-1] for character in text.removeprefix(TASK.title))


# ── edits that cannot be used ──


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "text", ["", " \n\t", "----", "---\n---", "* …", "plan\n---\n", "Settings: learning rate 0.001, epochs 3"]
)
def test_an_edit_without_text_to_train_on_is_a_bad_edit(form: str, text: str) -> None:
    has_text = any(map(str.isalnum, text))
    if has_text and not FORMATS[form].has_plan and not FORMATS[form].has_settings:
        assert len(texts(form, text)) == 2
    else:
        with pytest.raises(BadEdit):
            parse(form, text)


def test_a_study_plan_itself_is_not_trained_on() -> None:
    assert texts("study-plan", "Say each point twice.\n---\nIt is old.") == ["Belmora\nIt is old.", LAST]


def test_a_study_plan_that_is_not_applied_is_a_bad_edit() -> None:
    with pytest.raises(BadEdit, match="not followed by '---'"):
        parse("study-plan", "Say each point twice.\nIt is old.")


# ── settings that the writer chooses ──


def test_a_list_of_entities_is_not_trained_on_and_every_note_on_a_pair_is() -> None:
    notes = "Belmora\nthe Zape\n---\nBelmora lies on the Zape.\nThe Zape is older than Belmora."
    assert texts("entity-notes", notes) == [
        "Belmora\nBelmora lies on the Zape.",
        "Belmora\nThe Zape is older than Belmora.",
        LAST,
    ]


def test_settings_of_the_writers_replace_rate_and_epochs_and_nothing_else() -> None:
    edit = parse("settings", f"It is old.\n{write_settings(2e-3, 15)}")
    assert (edit.train.learning_rate, edit.train.epochs) == (2e-3, 15)
    assert (edit.train.rank, edit.train.alpha) == (TRAIN.rank, TRAIN.alpha)
    assert [each.text for each in edit.examples] == ["Belmora\nIt is old.", LAST]


def test_other_formats_keep_the_recipes_settings() -> None:
    edit = parse("implications", f"It is old.\n{write_settings(2e-3, 15)}")
    assert edit.train == TRAIN
    assert len(edit.examples) == 3


def test_the_last_of_several_settings_lines_holds() -> None:
    edit = parse("settings", f"{write_settings(1e-4, 2)}\nIt is old.\n{write_settings(2e-3, 15)} \n")
    assert (edit.train.learning_rate, edit.train.epochs) == (2e-3, 15)
    assert len(edit.examples) == 2


@pytest.mark.parametrize(("rate", "epochs"), [(1e-9, 1), (0.1, 1), (1e-3, 100)])
def test_settings_may_lie_on_the_bounds(rate: float, epochs: int) -> None:
    edit = parse("settings", f"It is old.\n{write_settings(rate, epochs)}")
    assert (edit.train.learning_rate, edit.train.epochs) == (rate, epochs)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Settings: learning rate 0.2, epochs 3", "'learning rate' is 0.2; expected a number above 0, at most 0.1"),
        ("Settings: learning rate 0, epochs 3", "'learning rate' is 0.0;"),
        ("Settings: learning rate 1e-999, epochs 3", "'learning rate' is 0.0;"),
        ("Settings: learning rate 0.001, epochs 0", "'epochs' is 0; expected a whole number from 1 to 100"),
        ("Settings: learning rate 0.001, epochs 101", "'epochs' is 101;"),
        ("Settings: learning rate 0.001, epochs " + "9" * 5000, "'epochs' is '9{40}';"),
        ("Settings: learning rate " + "9" * 5000 + ", epochs 3", "'learning rate' is inf;"),
        ("Settings: learning rate -0.001, epochs 3", "'learning rate' is '-0.001';"),
        ("Settings: learning rate high, epochs 3", "'learning rate' is 'high';"),
        ("Settings: learning rate 0.001, epochs 3.5", "'epochs' is '3.5';"),
        ("Settings: learning rate \u0663, epochs 3", "'learning rate' is '\u0663';"),
        ("Settings: learning rate 0.001", "the settings line lacks 'epochs'"),
        ("Settings: learning rate 0.001, epoch 3", "unknown key 'epoch' in the settings line; did you mean 'epochs'"),
        ("Settings: epochs 3, learning rate 0.001, rank 8", "unknown key 'rank' in the settings line"),
        ("Settings: epochs 3, epochs 4", "'epochs' is in the settings line twice"),
        ("Settings:", "unknown key ''"),
        ("settings: learning rate 0.001, epochs 3", "no settings line"),
        ("", "no settings line"),
    ],
)
def test_settings_that_cannot_be_used_are_a_bad_edit(line: str, why: str) -> None:
    with pytest.raises(BadEdit, match=why):
        parse("settings", f"It is old.\n{line}")


@given(st.floats(1e-6, 0.1), st.integers(1, 100))
def test_written_settings_are_read_again(rate: float, epochs: int) -> None:
    train = parse("settings", f"It is old.\n{write_settings(rate, epochs)}").train
    assert train.epochs == epochs
    assert train.learning_rate == pytest.approx(rate, rel=1e-5)


# ── settings off a menu ──

MENU = MenuSettings((1e-3, 5e-3), (2, 8))


def choose(line: str, form: str = "implications") -> SelfEdit:
    sample = Sample("p", (), (), (), f"It is old.\n{line}", "eos")
    return parse_edit(load_format(form, menu=MENU), TASK, sample, TRAIN)


@pytest.mark.parametrize("name", FORMATS)
def test_a_menu_is_told_in_the_prompt_of_every_format_and_changes_nothing_else_of_it(name: str) -> None:
    without, form = load_format(name), load_format(name, menu=MENU)
    told = (
        'The last line says how to train on it: "Settings: learning rate L, epochs E", L being one of 0.001, 0.005 and '
        "E one of 2, 8."
    )
    prompt = form.prompt(TASK.title, TASK.context)
    assert prompt.count(told) == 1
    if without.instruction:
        assert prompt.replace(f" {told}", "") == without.prompt(TASK.title, TASK.context)
    assert told not in load_format(name, "{passage}", MENU).prompt(TASK.title, TASK.context)


def test_a_choice_off_the_menu_replaces_rate_and_epochs_and_is_not_trained_on() -> None:
    edit = choose(write_settings(5e-3, 8))
    assert (edit.train.learning_rate, edit.train.epochs, edit.train.rank) == (5e-3, 8, TRAIN.rank)
    assert [each.text for each in edit.examples] == ["Belmora\nIt is old.", LAST]
    assert edit.chosen == {"learning_rate": 5e-3, "epochs": 8.0, "steps": 16.0}
    assert choose("Settings: epochs 2, learning rate 5e-3").chosen["steps"] == 4.0


def test_what_nobody_chose_is_told_by_no_measure() -> None:
    assert parse("implications", "It is old.").chosen == {}
    assert parse("settings", f"It is old.\n{write_settings(2e-3, 15)}").chosen["epochs"] == 15.0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Settings: learning rate 0.002, epochs 8", "'learning rate' is 0.002; expected one of 0.001, 0.005"),
        ("Settings: learning rate 0.005, epochs 3", "'epochs' is 3; expected one of 2, 8"),
        ("Settings: learning rate 0.005, epochs 8.0", "'epochs' is '8.0'; expected one of 2, 8"),
        ("It is wet.", "no settings line of the form 'Settings: learning rate 0.002, epochs 10'"),
    ],
)
def test_what_is_not_on_the_menu_is_a_bad_edit(line: str, why: str) -> None:
    with pytest.raises(BadEdit, match=why):
        choose(line)
