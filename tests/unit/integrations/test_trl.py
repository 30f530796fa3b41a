"""TRL's own trainer on the embedded model, with self-edits of a few tokens: who hands what to whom."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from selfedit import config
from selfedit.config import load_recipe
from selfedit.engine.local import LocalBackend
from selfedit.errors import InputError, MissingExtra
from selfedit.experiment.plans import domain_of
from selfedit.experiment.rewarding import plan_practice
from selfedit.integrations import trl as ours
from selfedit.integrations.trl import TASK_ID, inner_loop_reward, prompts
from selfedit.loop.inner import Unit, run_trials
from selfedit.recipe import Recipe
from selfedit.runs import read_trials
from selfedit.tasks.graders import load_grader
from selfedit.types import Adapter, Failure, TrainJob, Trial, mean_measured

pytestmark = [  # TRL's own
    pytest.mark.filterwarnings(r"ignore:.*is deprecated and will be removed in v6:FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
]

TINY = [
    "outer.rounds=1",
    "outer.tasks=2",
    "eval_tasks=2",
    "inner.epochs=2",
    "inner.rank=4",
    "sample.max_tokens=24",
    "exam.max_tokens=8",
    "exam.grader=f1",  # tells rewards apart that are hardly above 0
]
PUP = str(files("selfedit") / "pup")
GROUP, GROUPS, STEPS = 4, 2, 2


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("demo", TINY)


def trainer(folder: Path, recipe: Recipe, reward: Any, data: Any, **more: Any) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    settings = {
        "max_steps": STEPS,
        "per_device_train_batch_size": GROUP * GROUPS,
        "num_generations": GROUP,
        "max_completion_length": recipe.sample.max_tokens,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    args = GRPOConfig(str(folder), **settings | more)
    return GRPOTrainer(PUP, reward_funcs=reward, args=args, train_dataset=data)


class Run:
    """Two steps of TRL's, with the batches that the engine was given and the trials that came of them."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.sizes: list[int] = []
        self.asked: list[list[str]] = []
        with pytest.MonkeyPatch.context() as patch:
            train = LocalBackend.train

            def spied(engine: LocalBackend, jobs: Sequence[TrainJob]) -> list[Adapter | Failure]:
                self.sizes.append(len(jobs))
                return train(engine, jobs)

            patch.setattr(LocalBackend, "train", spied)
            reward = inner_loop_reward(recipe, "cpu", folder / "ledger")

            def inner_loop(**batch: Any) -> list[float | None]:
                self.asked.append(batch[TASK_ID])
                return reward(**batch)

            self.trainer = trainer(folder, recipe, inner_loop, prompts(recipe))
            self.trainer.train()
        self.log = [line for line in self.trainer.state.log_history if "reward" in line]
        self.trials = list(read_trials(folder / "ledger").values())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Run:
    return Run(tmp_path_factory.mktemp("trl"), recipe)


def test_the_engine_is_given_whole_groups_of_several_prompts_at_once(run: Run) -> None:
    assert [len(ids) for ids in run.asked] == [GROUP * GROUPS] * STEPS
    assert all(ids[start : start + GROUP] == [ids[start]] * GROUP for ids in run.asked for start in (0, GROUP))
    assert all(len(set(ids)) == GROUPS for ids in run.asked)
    assert run.sizes == [GROUP * GROUPS] * STEPS


def test_trl_gets_the_rewards_that_the_inner_loop_gives_for_the_same_samples(run: Run, recipe: Recipe) -> None:
    plan = plan_practice(recipe)
    tasks = {task.id: task for task in plan.train}
    units = [Unit(t.key, tasks[t.task_id], t.edit, t.repeat, t.seed, (t.sample,)) for t in run.trials if t.sample]
    engine, grade = LocalBackend("pup", "cpu"), load_grader(recipe.exam.grader)
    again: list[Trial] = []
    for start in range(0, len(units), GROUP * GROUPS):
        batch = units[start : start + GROUP * GROUPS]
        again += run_trials(batch, domain_of(plan.recipe), None, engine, grade, recipe.exam)
    assert [trial.reward for trial in again] == [trial.reward for trial in run.trials]
    assert len({trial.adapter for trial in again} - {None}) > 1
    steps = [again[start : start + GROUP * GROUPS] for start in range(0, len(again), GROUP * GROUPS)]
    expected = [mean_measured([trial.reward for trial in step]) for step in steps]
    assert [line["rewards/inner_loop/mean"] for line in run.log] == pytest.approx(expected)


def test_trl_logs_how_much_failed(run: Run) -> None:
    unusable = [line["failure/unusable"] for line in run.log]
    assert sum(unusable) * GROUP * GROUPS == sum(trial.failure is not None for trial in run.trials)
    assert [line["failure/unmeasured"] for line in run.log] == [0.0] * STEPS


def test_the_writer_is_asked_as_the_packages_own_writer_is(run: Run, recipe: Recipe) -> None:
    plan = plan_practice(recipe)
    task = plan.train[0]
    asked = prompts(recipe)[0]
    assert asked == {"prompt": [{"role": "user", "content": domain_of(recipe).prompt(task)}], TASK_ID: task.id}
    tokenized, _, _ = run.trainer._tokenize_prompts([asked["prompt"]])
    assert tokenized[0] == LocalBackend("pup", "cpu")._prompt_tokens(domain_of(recipe).prompt(task))


def test_prompts_of_the_unseen_tasks_are_rewarded_too(recipe: Recipe) -> None:
    unseen = prompts(recipe, "eval")
    assert unseen[TASK_ID] == [task.id for task in plan_practice(recipe).unseen]
    assert not set(unseen[TASK_ID]) & set(prompts(recipe)[TASK_ID])
    reward = inner_loop_reward(recipe, "cpu")
    told: dict[str, float] = {}
    (worth,) = reward(completions=["A fact."], task_id=unseen[TASK_ID][:1], log_metric=told.__setitem__)
    assert worth is not None and told == {"failure/unusable": 0.0, "failure/unmeasured": 0.0}


def test_prompts_are_bare_text_for_a_model_without_a_chat_template(recipe: Recipe) -> None:
    bare = replace(recipe, writer=replace(recipe.writer, is_chat=False))
    assert [[{"role": "user", "content": text}] for text in prompts(bare)["prompt"]] == list(prompts(recipe)["prompt"])


def test_an_edit_is_read_from_text_and_from_a_turn_alike(recipe: Recipe) -> None:
    reward, ids = inner_loop_reward(recipe, "cpu"), prompts(recipe)[TASK_ID][:1] * 4
    turns = [[{"role": "assistant", "content": content}] for content in ("A fact.", "…", None)]
    told: dict[str, float] = {}
    found = reward(completions=["A fact.", *turns], task_id=ids, log_metric=told.__setitem__)
    assert found[0] == found[1] and found[2:] == [0.0, 0.0]
    assert told["failure/unusable"] == 0.5


def test_rewarding_leaves_torchs_random_numbers_alone(recipe: Recipe) -> None:
    reward, ids = inner_loop_reward(recipe, "cpu"), prompts(recipe)[TASK_ID][:1]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with torch.no_grad():  # as TRL evaluates
        reward(completions=["A fact."], task_id=ids, log_metric=lambda name, value: None)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_could_not_be_measured_moves_no_weight(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failure = Failure("train", "OutOfMemoryError", "out of memory")
    monkeypatch.setattr(LocalBackend, "train", lambda self, jobs: [failure] * len(jobs))
    held = trainer(tmp_path, recipe, inner_loop_reward(recipe, "cpu"), prompts(recipe), max_steps=1)
    before = {name: weight.detach().clone() for name, weight in held.model.named_parameters()}
    held.train()
    assert all(torch.equal(weight, before[name]) for name, weight in held.model.named_parameters())
    assert held.state.log_history[0]["failure/unmeasured"] == 1.0
    assert "8 of 8 self-edits could not be measured, such as this one (train): out of memory" in caplog.text


def test_rewards_that_differ_do_move_weights(run: Run) -> None:
    assert all(line["grad_norm"] > 0 for line in run.log if line["reward_std"] > 0)
    assert any(line["reward_std"] > 0 for line in run.log)


def test_a_data_set_without_task_ids_stops_training_with_a_sentence(tmp_path: Path, recipe: Recipe) -> None:
    data = prompts(recipe).remove_columns(TASK_ID)
    held = trainer(tmp_path, recipe, inner_loop_reward(recipe, "cpu"), data, max_steps=1)
    with pytest.raises(InputError, match=r"no column 'task_id' .* make it with prompts\(recipe\)"):
        held.train()


def test_prompts_of_another_seed_stop_training_with_a_sentence(tmp_path: Path, recipe: Recipe) -> None:
    other = prompts(replace(recipe, seed=5))
    held = trainer(tmp_path, recipe, inner_loop_reward(recipe, "cpu"), other, max_steps=1)
    with pytest.raises(InputError, match="among the 4 of this recipe; make prompts and rewards from the same recipe"):
        held.train()


def test_without_trl_the_pip_line_is_given(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    for make in (prompts, inner_loop_reward):
        with pytest.raises(MissingExtra, match=r"pip install 'selfedit\[trl\]'"):
            make(recipe)


def test_each_process_has_its_own_gpu_and_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "find_device", lambda device: "cuda")
    assert (ours._own("auto"), ours._own_part(Path("run"))) == ("auto", Path("run"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert [ours._own(device) for device in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
    assert (ours._own_part(Path("run")), ours._own_part(None)) == (Path("run/rank-3"), None)


def test_the_program_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (program,) = (code for code in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "GRPOTrainer" in code)
    load = config.load_recipe
    monkeypatch.setattr(config, "load_recipe", lambda name, given=(): load(name, [*given, *TINY]))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["trainer"].state.log_history[-1]["step"] > 0
    assert (tmp_path / "runs" / "trl" / "model.safetensors").is_file()
