"""The nouns of the method: one frozen record for every box of the pipe.

    Task ─propose▶ Sample ─parse▶ SelfEdit ─train▶ Adapter ─answer, grade▶ Score ─▶ Trial
    groups of Trials ─algorithm▶ Datum ─train▶ the next writer

Data goes one way. Nothing here imports torch, pydantic or another module of the package, so that the
engine and the benchmarks run where only torch, transformers and peft are installed.

Axis suffixes used everywhere: P tasks, G edits of a task, R repeats (seeds) of an edit, Q questions,
K adapters, B rows, T tokens, V vocabulary, N flattened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any, ClassVar, Literal

Stage = Literal["propose", "parse", "encode", "train", "answer", "grade"]
Schedule = Literal["constant", "linear", "cosine"]
Selection = Literal["improves", "best-of-n", "all-positive"]
Role = Literal["exam", "hidden", "given"]


@dataclass(frozen=True, slots=True)
class Question:
    """One exam question with its gold answer.

    `kind` names the sort of question for reports that list sorts apart (the world's "two-step"); "" is none. Only the
    marks of the `role` "exam" are a reward; where a model writes its own exam, "hidden" is the half of it that nothing
    is chosen by, "given" a question that came with the text. Those are marked and reported.
    """

    question: str
    answer: str
    kind: str = ""
    role: Role = "exam"


@dataclass(frozen=True, slots=True)
class Task:
    """A text to absorb (C) and the exam on it (τ), arXiv 2506.10943 §3. Without `questions` no gain is measurable."""

    id: str
    title: str
    context: str
    questions: tuple[Question, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with one item, and where. A value that travels in place of a result, never an exception."""

    stage: Stage
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Exactly what the writer emitted: these token ids are reinforced, never a second tokenisation of `text`.

    `tokens` [T] ends with the end-of-sequence id where `stop` is "eos"; `logprobs` [T] are natural logs under
    the sampling distribution before temperature and top-p. A server that gives text alone leaves all three empty; such
    a sample can be learnt from, but not reinforced.
    """

    prompt: str
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    stop: Literal["eos", "length"]


@dataclass(frozen=True, slots=True)
class Example:
    """One text to train on. With a `prompt`, the loss may be confined to `text` (`TrainSettings.loss_on`)."""

    text: str
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How one update runs. The defaults are the corrected ("clean") inner loop; recipes override them.

    `method` "lora" trains a LoRA, "full" all weights of the model: for small ones, since each job is then trained by
    itself and each update is as large as the model. `rank`, `alpha`, `dropout` and `targets` are a LoRA's alone.
    `targets` is "all-linear", "default" (PEFT's default for the architecture: q and v for Qwen2 and Llama) or a
    list of module names. `learning_rate` is the peak, `warmup` a fraction of all steps in [0, 1], `clip` the largest
    gradient norm (0 turns clipping off). `loss_on` "completion" gives prompt tokens weight 0. `pad_to` tokens > 0
    pads every sequence with end-of-sequence labels that count in the loss, up to the smaller of `pad_to` and the
    model's context: what SEAL's code does with 2048. 0 leaves padding out of the loss and keeps one such label.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    method: Literal["lora", "full"] = "lora"
    rank: int = 32
    alpha: float = 64.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all-linear"
    epochs: int = 10
    learning_rate: float = 1e-3
    schedule: Schedule = "linear"
    warmup: float = 0.0
    batch_size: int = 1
    weight_decay: float = 0.0
    clip: float = 1.0
    loss_on: Literal["all", "completion"] = "all"
    pad_to: int = 0


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """How self-edits are drawn: `edits` each, `temperature`, nucleus `top_p` in (0, 1], at most `max_tokens`."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    edits: int = 5
    temperature: float = 1.0
    top_p: float = 0.95
    max_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class ExamSettings:
    """How an adapted model is examined: greedy answers of at most `max_tokens` tokens, marked by `grader`."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    grader: str = "exact"
    max_tokens: int = 64


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """Who writes the self-edits, where it is not the model that learns from them.

    `model` is another checkpoint, opened beside the learner, or with `url` a model on that server, which speaks
    OpenAI's API: its key is in the environment variable `key_env` ("" sends none), prompts are a user's turns unless
    `is_chat` is false, and `extra` goes into every request. `adapter` is the PEFT folder with which the writer begins,
    "{seed}" in it being the seed of the run: one that an earlier run has reinforced, on this model or another.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: str = ""
    url: str = ""
    key_env: str = ""
    is_chat: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class OuterSettings:
    """The outer loop: `rounds` of `tasks` passages, `repeats` inner loops (seeds) an edit, `train` on what was kept.

    `reward` names what an edit is rewarded for (`loop.rewards`), `algorithm` how the writer is reinforced.
    `learner` "writer" trains each inner adapter on top of the current writer (the paper), "base" on the bare model.
    `kinds` are those that the passages of the rounds are of, such as "person" in the embedded model's world; none: all.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    rounds: int = 2
    tasks: int = 50
    kinds: tuple[str, ...] = ()
    repeats: int = 1
    learner: Literal["writer", "base"] = "writer"
    reward: str = "accuracy"
    algorithm: str = "rest_em"
    select: Selection = "improves"
    train: TrainSettings = TrainSettings(
        rank=64, alpha=128.0, epochs=2, learning_rate=3e-4, batch_size=10, loss_on="completion"
    )


@dataclass(frozen=True, slots=True)
class SelfEdit:
    """A parsed self-edit: the texts to train on, and the settings where the format lets the model choose them."""

    task_id: str
    sample: Sample | None
    examples: tuple[Example, ...]
    train: TrainSettings


@dataclass(frozen=True, slots=True)
class Datum:
    """One training sequence. `tokens`, `weights` [T]; weight 0 ignores a label, 1 imitates, an advantage reinforces it.

    `weights[t]` belongs to the prediction *of* `tokens[t]`, so `weights[0]` never counts. `logprobs` [T] are those of
    the policy that drew the tokens, where an algorithm needs them.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """An immutable handle on a LoRA: `id` is derived from its content, `base` names the model and its revision,
    `under` is the adapter it was trained on top of (None: the bare base). A full update has rank 0 and nothing under
    it, since all weights are its own."""

    id: str
    base: str
    under: Adapter | None
    rank: int


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One adapter to train. `seed` fixes its initial weights and data order, whatever runs beside it.

    `under`: a fresh adapter on top of this one, which stays frozen. `start`: continue this one. At most one of them.
    """

    data: tuple[Datum, ...]
    settings: TrainSettings
    seed: int
    under: Adapter | None = None
    start: Adapter | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A grader's mark in [0, 1]. `value` None means that it could not be measured; it is never averaged as 0."""

    value: float | None
    answer: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One inner loop, that is one (task, edit, seed): what was written, what it did, what it cost.

    `sample` is None where nothing was written, or where several self-edits were trained on at once. `reward` is the
    mean mark after the update and `baseline` the one before it, over the questions of the role "exam", in [0, 1]; None
    where nothing could be measured. An edit of the model's that cannot be used is a real 0 with `failure.stage`
    "parse". `cost` holds seconds by phase, `measures` what else the outer loop's reward needed, by name.
    """

    key: str
    task_id: str
    edit: int
    repeat: int
    seed: int
    sample: Sample | None
    adapter: str | None
    before_Q: tuple[Score, ...]
    after_Q: tuple[Score, ...]
    reward: float | None
    failure: Failure | None
    cost: Mapping[str, float] = field(default_factory=dict)
    baseline: float | None = None
    measures: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rollout:
    """An edit with its repeats aggregated, for an algorithm: its `reward` and the `baseline` it must exceed to have
    helped, as `loop.rewards` defines them; None where unmeasured."""

    sample: Sample
    reward: float | None
    baseline: float | None


def mean_score(scores: Sequence[Score]) -> float | None:
    """Average the measured marks; None where there is none."""
    values = [s.value for s in scores if s.value is not None]
    return fmean(values) if values else None


def mean_rewarded(questions: Sequence[Question], scores_Q: Sequence[Score]) -> float | None:
    """Average the measured marks of the questions that count as a reward; None where there is none."""
    return mean_score([s for q, s in zip(questions, scores_Q, strict=True) if q.role == "exam"]) if scores_Q else None


def mean_measured(values: Sequence[float | None]) -> float | None:
    """Average what was measured; None where nothing was."""
    measured = [v for v in values if v is not None]
    return fmean(measured) if measured else None


@dataclass(frozen=True, slots=True)
class Recipe:
    """An experiment: every knob has its one home here. Read from a recipe file by `config.load_recipe`.

    `model` is "pup", a local path or a hub id; `domain` and `format` name what is learned and how the writer is asked;
    `template` is a prompt of the user's own in place of the format's, with {title} and {passage} in it: in a recipe
    file the path of its text, in this record the text. `split_lines` makes every line of a self-edit a training
    sequence of its own.

    `data` is a file, folder or hub id to take the tasks from (`data_split` of it, where a hub id has several), in place
    of a domain's own; `completions` a file of self-edits made elsewhere; with `skip_bad`, what cannot be used of either
    is left out and named.

    `eval_tasks` unseen tasks are examined with `eval_repeats` seeds for each arm: "base" (no update), "passage" (the
    bare text), "completions" (self-edits from the file), "rounds" (the writer's self-edits before and after every
    round; 0 rounds: before), "retrieval" and "in-context" (no update, with the passage found, or the right one, in
    view), and the controls "shuffled-reward" and "random-edits". `together` unseen tasks share one adapter, trained on
    `sample.edits` self-edits of each; 1 is an adapter and a self-edit a task. `inner` is the update that a self-edit
    causes, `outer.train` the one that makes the next writer. All of it runs for `seeds` seeds from `seed` on.

    `vary` runs all of this once for each of several values of one key, which the arms of one table are then named by:
    {"format": ["rewrite", "self-qa"]}, or with names of one's own {"model": {"small": "…", "large": "…"}}.

    `report_to` names trackers that get the run's metrics, too: "tensorboard", "wandb", "mlflow", "trackio".
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str = ""
    model: str = "pup"
    domain: str = "world"
    format: str = "rewrite"
    template: str = ""
    split_lines: bool = True
    data: str = ""
    data_split: str = ""
    completions: str = ""
    skip_bad: bool = False
    seed: int = 0
    seeds: int = 1
    sample: SampleSettings = SampleSettings()
    inner: TrainSettings = TrainSettings()
    exam: ExamSettings = ExamSettings()
    outer: OuterSettings = OuterSettings()
    writer: WriterSettings = WriterSettings()
    eval_tasks: int = 100
    eval_repeats: int = 1
    together: int = 1
    arms: tuple[str, ...] = ("base", "passage", "rounds")
    vary: Mapping[str, Any] = field(default_factory=dict)
    report_to: tuple[str, ...] = ()


# What decides how much is run, or names things, and so has no part in one trial's result. `data` and `completions` have
# one, since a task's id does not say what the task was: whoever reads them puts "name@digest" in place of the path
# before the recipe is hashed, so that a file may move but not change; so with the writer's checkpoint and adapter. What
# `skip_bad` left out shows in that digest.
NOT_IN_HASH = frozenset(
    {
        "name",
        "model",
        "seeds",
        "arms",
        "vary",
        "eval_tasks",
        "eval_repeats",
        "outer.rounds",
        "writer.url",
        "writer.key_env",
        "skip_bad",
        "report_to",
    }
)


def recipe_hash(recipe: Recipe) -> str:
    """Digest what determines a trial's result, given its task, edit, seed and base: 12 hexadecimal digits.

    Rounds, arms and the extent of the examination are left out, so that a finished run can be extended; so is the
    model's name, since the base's own digest names the weights. 64 and 64.0 are the same value.
    """
    canonical = json.dumps(_determining(asdict(recipe)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _determining(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        keys = {name: f"{key}.{name}" if key else name for name in value}
        return {name: _determining(value[name], path) for name, path in keys.items() if path not in NOT_IN_HASH}
    return int(value) if isinstance(value, float) and value.is_integer() else value
