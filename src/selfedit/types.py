"""The nouns of the method: one frozen record for every box of the pipe.

    Task ─propose▶ Sample ─parse▶ SelfEdit ─train▶ Adapter ─answer, grade▶ Score ─▶ Trial
    groups of Trials ─algorithm▶ Datum ─train▶ the next writer

Data goes one way. Nothing here imports torch, pydantic or another module of the package, so that the
engine and the benchmarks run where only torch, transformers and peft are installed.

Axis suffixes used everywhere: P tasks, G edits of a task, R repeats (seeds) of an edit, Q questions,
K adapters, B rows, T tokens, V vocabulary, N flattened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import fmean
from typing import Any, ClassVar, Literal

Stage = Literal["propose", "parse", "encode", "train", "answer", "grade", "probe", "reward"]
Schedule = Literal["constant", "linear", "cosine"]
Selection = Literal["improves", "best-of-n", "all-positive"]
Divergence = Literal["forward", "reverse"]
Role = Literal["exam", "hidden", "given", "forbidden"]

LARGEST_RATE = 0.1  # that a self-edit may choose for its own update
MOST_EPOCHS = 100
CHOSEN = ("learning_rate", "epochs", "steps")  # measures of a trial whose self-edit chose them


@dataclass(frozen=True, slots=True)
class Question:
    """One exam question with its gold answer.

    `kind` names the sort of question for reports that list sorts apart (the world's "two-step"); "" is none. Only the
    marks of the `role` "exam" are a reward; where a model writes its own exam, "hidden" is the half of it that nothing
    is chosen by, "given" a question that came with the text. Those are marked and reported, as are those on what is
    "forbidden", which must not be learnt.
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

    `divergence` says how far a student is from its teacher, for data with `soft` targets: "forward" is KL(teacher ‖
    student), "reverse" KL(student ‖ teacher). The other two are for reinforcement. `clip_ratio` is how far the
    probability of a token may move from what it was when the token was drawn before its advantage no longer counts, as
    a fraction (0: any distance), in data that bring their old log-probabilities; `kl` weighs the divergence from the
    first writer.
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
    clip_ratio: float = 0.2
    kl: float = 0.0
    divergence: Divergence = "forward"


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """How self-edits are drawn: `edits` each, `temperature`, nucleus `top_p` in (0, 1], at most `max_tokens`."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    edits: int = 5
    temperature: float = 1.0
    top_p: float = 0.95
    max_tokens: int = 8192


@dataclass(frozen=True, slots=True)
class MenuSettings:
    """What a self-edit on a passage may choose for its own update: one of the `learning_rates`, one number of `epochs`.

    Both are empty where the writer is not asked; a format that asks by itself then takes any rate up to `LARGEST_RATE`
    and up to `MOST_EPOCHS`.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    learning_rates: tuple[float, ...] = ()
    epochs: tuple[int, ...] = ()

    @property
    def is_offered(self) -> bool:
        """Say whether there is anything to choose from."""
        return bool(self.learning_rates and self.epochs)


@dataclass(frozen=True, slots=True)
class ExamSettings:
    """How an adapted model is examined: greedy answers of at most `max_tokens` tokens, marked by `grader`.

    `questions` "given" rewards the writer for the questions that come with a text. With "self-made", the untrained
    model writes the exam of each text first, in `draws` draws; given questions are then marked and reported only.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    grader: str = "exact"
    max_tokens: int = 64
    questions: Literal["given", "self-made"] = "given"
    draws: int = 6

    @property
    def asks_judge(self) -> bool:
        """Say whether the grader asks a model: "judge", or "calibrated+judge"."""
        return "judge" in self.grader.split("+")


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Who marks answers, where the grader asks a judge: `model` on the server at `url`, which speaks OpenAI's API.

    Its key is in the environment variable `key_env` ("" sends none). `extra` goes into every request, over what stands
    there ({"temperature": 1} for a model that takes no other). A reply has at most `max_tokens` tokens, thinking
    included; at most `concurrency` requests run at once, each for `timeout_s` seconds and again up to `retries` times.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    model: str = ""
    url: str = ""
    key_env: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 1024
    concurrency: int = 16
    timeout_s: float = 60.0
    retries: int = 4


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
class RewardSettings:
    """What the terms of a reward weigh (`loop.rewards` has the formulas): `lost` the share of what was known before and
    is no longer, `kl` a nat per token of drift from the model before, `forbidden` what must not be learnt.

    `probes` is a file of tasks whose questions the model can answer without learning them; the embedded model has its
    own. `measured` is the share of self-edits, in (0, 1], that are tried where a learnt reward predicts the others.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    lost: float = 1.0
    kl: float = 0.1
    forbidden: float = 1.0
    probes: str = ""
    measured: float = 0.4


@dataclass(frozen=True, slots=True)
class RaceSettings:
    """Whether the self-edits of a text race for the inner loops (`loop.racing`), and `by` what: "one-seed", "logprob"
    or "learnt"; "" tries them all with every seed. The share `keep` of them goes on from a heat to the next, at least
    one."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    by: Literal["", "one-seed", "logprob", "learnt"] = ""
    keep: float = 0.5


@dataclass(frozen=True, slots=True)
class OuterSettings:
    """The outer loop: `rounds` of `tasks` passages, `repeats` inner loops (seeds) an edit, `train` on what was kept.

    `reward` names what an edit is rewarded for (`loop.rewards`), or is "path.py:function"; `terms` are for rewards that
    have several. With `race`, the later seeds are for the better edits of a passage alone.
    `algorithm` says how the writer is reinforced (`loop.algorithms`): "rest_em" imitates the edits that `select` names,
    "expert_iteration" the `keep` best of each group, "grpo" and "rloo" weigh every edit by its advantage over the
    others of its group.
    `learner` "writer" trains each inner adapter on top of the current writer (the paper), "base" on the bare model.
    `kinds` are those that the passages of the rounds are of, such as "person" in the embedded model's world; none: all.

    With `patience` the loop ends once the mean reward has not risen for so many rounds (`loop.outer.has_stalled`); 0
    never does. With `merge` each writer is merged into all weights of its base, as the paper's code does, where else it
    is an adapter on top of the last: the same function but for rounding, in a folder as large as the model.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    rounds: int = 2
    patience: int = 0
    merge: bool = False
    tasks: int = 50
    kinds: tuple[str, ...] = ()
    repeats: int = 1
    race: RaceSettings = RaceSettings()
    learner: Literal["writer", "base"] = "writer"
    reward: str = "accuracy"
    terms: RewardSettings = RewardSettings()
    algorithm: str = "rest_em"
    select: Selection = "improves"
    keep: int = 1
    train: TrainSettings = TrainSettings(
        rank=64, alpha=128.0, epochs=2, learning_rate=3e-4, batch_size=10, loss_on="completion"
    )


@dataclass(frozen=True, slots=True)
class SelfEdit:
    """A parsed self-edit: the texts to train on, and the settings where the format lets the model choose them.

    `n_copied` lines were left out, since they copied a question of the exam that the model wrote itself. `has_chosen`:
    learning rate and epochs are the model's own choice.
    """

    task_id: str
    sample: Sample | None
    examples: tuple[Example, ...]
    train: TrainSettings
    n_copied: int = 0
    has_chosen: bool = False

    @property
    def steps(self) -> int:
        """The optimizer steps of its update."""
        return self.train.epochs * ceil(len(self.examples) / self.train.batch_size)

    @property
    def chosen(self) -> dict[str, float | None]:
        """The model's choice and the steps that it comes to, by the names in `CHOSEN`; nothing where it had none."""
        values = (self.train.learning_rate, float(self.train.epochs), float(self.steps))
        return dict(zip(CHOSEN, values, strict=True)) if self.has_chosen else {}


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """What a teacher expects at each of T positions: its k likeliest tokens and their natural log-probabilities.

    `tokens[t]` and `logprobs[t]` are of the prediction *of* position t, each of one length, which is the k of that
    position; empty where nothing is told. The mass that they leave is the teacher's on "any other token", as one event.
    """

    tokens: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Datum:
    """One training sequence. `tokens`, `weights` [T]; weight 0 ignores a label, 1 imitates, an advantage reinforces it.

    `weights[t]` belongs to the prediction *of* `tokens[t]`, so `weights[0]` never counts. `logprobs` [T] are those of
    the policy that drew the tokens: with them the weights are advantages of a clipped ratio to that policy, without
    them of the plain logarithm (`engine.losses`). `reference` [T] are those of a policy to stay near, where
    `TrainSettings.kl` asks for it. With `soft` targets the student is drawn to a teacher's distribution by
    `TrainSettings.divergence`, and to the token itself where they are empty. None of them is looked at where the weight
    is 0.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    logprobs: tuple[float, ...] | None = None
    reference: tuple[float, ...] | None = None
    soft: SoftTargets | None = None


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
    """A grader's mark in [0, 1]. `value` None means that it could not be measured; it is never averaged as 0.

    `is_lost`: what was to give the mark failed, and may not fail another time.
    """

    value: float | None
    answer: str
    why: str = ""
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """One inner loop, that is one (task, edit, seed): what was written, what it did, what it cost.

    `sample` is None where nothing was written, or where several self-edits were trained on at once. `reward` is the
    mean mark after the update and `baseline` the one before it, over the questions of the role "exam", in [0, 1]; None
    where nothing could be measured. An edit of the model's that cannot be used is a real 0 with `failure.stage`
    "parse". `cost` holds seconds by phase, `measures` what else the outer loop's reward needed, by name, and what the
    self-edit chose for its update.
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
class Exam:
    """An exam that a model wrote itself on one text, before anything was learnt from it.

    Of the `n_written` questions `n_repeated` said another again, `n_wrong` were answered wrongly with the text in view,
    `n_known` rightly without it, `n_unmarked` could not be marked; `questions` are the rest, in their roles. Without
    any, the text has no exam. `failure`: it could not be written or tried, which another time may work.
    """

    task_id: str
    questions: tuple[Question, ...] = ()
    n_written: int = 0
    n_repeated: int = 0
    n_wrong: int = 0
    n_known: int = 0
    n_unmarked: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """An edit with its repeats aggregated, for an algorithm: its `reward` and the `baseline` it must exceed to have
    helped, as `loop.rewards` defines them; None where unmeasured."""

    sample: Sample
    reward: float | None
    baseline: float | None


def lost_a_mark(trial: Trial) -> bool:
    """Say whether a mark of either exam is missing that another time may give."""
    return any(score.is_lost for score in (*trial.before_Q, *trial.after_Q))


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
