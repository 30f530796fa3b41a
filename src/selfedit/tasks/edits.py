"""Self-edit formats: how the writer is asked for one, and how its text becomes training sequences.

The prompts are ours, in the paper's form (arXiv 2506.10943, appendix B): one instruction, the passage under its title,
a heading to complete. The splitting of a completion into sequences follows the published code to the letter, because
rewards depend on it; it has two modes, by line (the single-passage rows of the paper) and whole (all other rows).

    prompt = FORMATS["implications"].prompt(task.title, task.context)
    edit = parse_edit(FORMATS["implications"], task, sample, TrainSettings())
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from selfedit.errors import BadEdit, ConfigError, near_miss
from selfedit.tasks.settings import ask_for_settings, take_settings
from selfedit.types import Example, MenuSettings, Sample, SelfEdit, Task, TrainSettings


@dataclass(frozen=True, slots=True)
class Format:
    """One way of asking for a self-edit.

    `opening` is what the prompt writes for the model after the heading; a completion does not repeat it. `template` is
    a prompt of the user's own in place of all that, with {title} and {passage} in it; what comes back is read alike.
    `has_plan`: the text before the first `---` prepares the rest (how to study, what is spoken of) and is not trained
    on. `has_settings`: the last line holds the update's own settings, off the `menu` where one is offered. The prompt
    tells it; a template has to do so itself.
    """

    name: str
    instruction: str
    heading: str
    opening: str = ""
    source: str = "Passage"
    has_plan: bool = False
    has_settings: bool = False
    template: str = ""
    menu: MenuSettings = field(default_factory=MenuSettings)

    def prompt(self, title: str, text: str) -> str:
        """Word the request for `text`."""
        if self.template:
            filled = {"{title}": title, "{passage}": text}
            return re.sub(r"\{title\}|\{passage\}", lambda found: filled[found[0]], self.template)
        instruction = " ".join(filter(None, (self.instruction, ask_for_settings(self.menu))))
        ask = f"{instruction}\n\n" if instruction else ""
        return f"{ask}{self.source}:\n{title}\n{text}\n\n{self.heading}:\n{self.opening}"


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            "implications",
            "List what follows from the passage, directly or indirectly, one point a line.",
            "Implications",
        ),
        Format(
            "implications-cot",
            "Think about the passage step by step, then list what follows from it, directly or indirectly.",
            "Thoughts and implications",
        ),
        Format("long", "Make a long list of what follows from the passage, directly or indirectly.", "Implications"),
        Format(
            "very-long", "Make a very long list of all that follows from the passage, in many ways.", "Implications"
        ),
        Format("rewrite", "Rewrite the passage in a few different ways, one way a line.", "Rewritten"),
        Format("self-qa", "Rewrite the passage as questions and answers.", "Questions", opening="Question 1: "),
        Format("none", "", "Notes"),
        # As in Active Reading (arXiv 2508.09494): strategies for this very text, then what each of them makes of it.
        Format("study-plan", "Name strategies for studying the passage, then apply them.", "Strategies", has_plan=True),
        # As in EntiGraph (arXiv 2409.07431): the entities of a text, then how each pair of them hangs together.
        Format(
            "entity-notes",
            "Name the people, places and things in the passage, one a line. Then write --- on a line of its own, and "
            "after it, one a line, a note on each pair of them: how they are related according to the passage.",
            "Entities",
            has_plan=True,
        ),
        Format(
            "settings",
            "List what follows from the passage, one point a line, and end with settings for training on it.",
            "Implications",
            has_settings=True,
        ),
        Format(
            "conversation", "List what the conversation taught, one point a line.", "Lessons", source="Conversation"
        ),
    )
}


def load_format(name: str, template: str = "", menu: MenuSettings | None = None) -> Format:
    """Return the format called `name`, asked for with `template` if there is one, its last line being a choice off the
    `menu` if one is offered. Raises `ConfigError` for an unknown format."""
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}; {near_miss(name, FORMATS)}")
    form, menu = FORMATS[name], menu or MenuSettings()
    return replace(form, template=template, menu=menu, has_settings=form.has_settings or menu.is_offered)


_QUESTION = re.compile(r"Question \d+:")


def split_completion(completion: str, title: str, passage: str, by_line: bool) -> list[str]:
    """Cut a completion into training sequences, each under the title, the bare passage last (paper, appendix B; code).

    Equal to the published code, as far as the published completions show it:

    - whole: `---` alone parts, blank parts are dropped, and a completion without any text is one empty part;
    - by line, with both `Question N:` and `Answer:` in it: a line that opens with `Question N:` begins a part, `---` is
      text; the first part, unless it opens with `Question`, is stripped and becomes question 1;
    - by line otherwise: every line between the `---` is a part; a first one before `1.`, which introduces a list, is
      dropped.
    """
    pieces = _lines(completion) if by_line else _parts(completion) or [""]
    return [f"{title}\n{piece}" for piece in [*pieces, passage]]


def _parts(completion: str) -> list[str]:
    return [part.strip() for part in completion.split("---") if part.strip()]


def _lines(completion: str) -> list[str]:
    if _QUESTION.search(completion) and "Answer:" in completion:
        first, *rest = re.split(r"\n(?=Question \d+:)", completion.strip())
        return [first if first.startswith("Question") else f"Question 1: {first.strip()}", *rest]
    lines = [line.strip() for part in _parts(completion) for line in part.split("\n") if line.strip()]
    return lines[1:] if len(lines) > 1 and lines[1].startswith("1.") else lines


def parse_edit(form: Format, task: Task, sample: Sample, train: TrainSettings, by_line: bool = True) -> SelfEdit:
    """Read a self-edit in format `form`. Raises `BadEdit` if no text, plan or settings line is in it.

    What the prompt opened is put back before a lone question, which the published code parts from its answer.
    """
    text = sample.text
    if form.has_settings:
        text, train = take_settings(text, train, form.menu)
    if form.has_plan:
        _, mark, text = text.partition("---")
        if not mark:
            raise BadEdit(f"what stands under {form.heading!r} is not followed by '---' and what comes of it")
    if not any(character.isalnum() for character in text):
        raise BadEdit("the self-edit holds no text")
    if text.count("Answer:") == 1 and not _QUESTION.search(text):
        text = form.opening + text.lstrip()
    sequences = split_completion(text, task.title, task.context, by_line)
    return SelfEdit(task.id, sample, tuple(Example(s) for s in sequences), train, has_chosen=form.has_settings)
