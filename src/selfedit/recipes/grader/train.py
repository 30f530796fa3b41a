"""Train the grader `calibrated` on a judge's verdicts, and measure it on questions that it has not seen.

Boosted trees learn, from the features of `tasks.overlap`, the share of verdicts "correct" on each distinct answer. An
answer that was judged often weighs more, but only by the square root of that: its verdicts hardly differ. Everything
that is learnt, the rarity of words included, comes from the folds trained on.

    python -m selfedit.recipes.grader.train VERDICTS.jsonl.gz --out runs/grader

writes the model (trained on all), measures.json and crossfit.npz: for every line of the file the probability given by
trees that saw no answer to its question. A file of verdicts and a seed determine them.

Axis suffixes: N lines of the file, M distinct answers, F features, K folds, T trees, L leaves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfedit.errors import from_extra
from selfedit.recipes.grader.measure import measures, speed, sure_from
from selfedit.recipes.grader.verdicts import Answers, By, Verdicts, distinct, folds, read_verdicts
from selfedit.tasks.calibrated import Calibrated, pack, unpack
from selfedit.tasks.forest import LEAVES, Forest
from selfedit.tasks.overlap import names, overlap
from selfedit.tasks.words import TOKEN, Array, Lexicon, plain

FOLDS = 5
SEED = 1  # the settings below were chosen while looking at the folds of seed 0, which therefore look a little better
SPEED = 20_000  # answers marked to measure the speed
MET = 2  # questions in whose texts a word must stand for its rarity to be kept
TREES: Mapping[str, Any] = {
    "objective": "binary",
    "num_leaves": LEAVES,
    "learning_rate": 0.05,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
ROUNDS = 400
BAGS: Sequence[Mapping[str, Any]] = ({"extra_trees": False}, {"extra_trees": True})  # their logits are averaged


def learn(answers: Answers, seed: int, sure: float = 1.0) -> Calibrated:
    """Train a grader on these answers. `sure` is stored, for `Calibrated.verdict`.

    How rare a word is, the trees learn from other questions' texts than those of the answer at hand, as it will be with
    a new question: how often a gold word is said in answers to its own gives away how hard that question is.

    Raises `MissingExtra` where LightGBM is not installed.
    """
    rarity, rarest = rarities(answers)
    features_MF = np.zeros((len(answers.keys_M), len(names())), np.float32)
    part_M = folds(answers, FOLDS, seed + 1)
    for part in range(FOLDS):
        lexicon = Lexicon(*rarities(answers.take(part_M != part)))
        features_MF[part_M == part] = overlap(lexicon, *answers.take(part_M == part).texts)
    trees = [tree for bag in BAGS for tree in _boosted(features_MF, answers, {**TREES, **bag, "seed": seed})]
    grader = Calibrated(rarity, rarest, as_forest(trees, 1 / len(BAGS)), sure)
    return unpack(pack(grader))  # as the model file will give it back: measured is what is shipped


def _boosted(features_MF: Array, answers: Answers, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return LightGBM's trees. An answer whose verdicts differ stands in the data once for each, by their shares."""
    with from_extra("grader", "training the grader"):
        import lightgbm
    weight_M = np.sqrt(answers.count_M) / np.sqrt(answers.count_M).mean()
    weights = np.concatenate([weight_M * answers.share_M, weight_M * (1 - answers.share_M)])
    labels = np.repeat([1.0, 0.0], len(weight_M))
    rows = np.tile(np.arange(len(weight_M)), 2)[weights > 0]
    data = lightgbm.Dataset(features_MF[rows], labels[weights > 0], weight=weights[weights > 0])
    trees = lightgbm.train(dict(settings), data, ROUNDS).dump_model()["tree_info"]
    return [tree["tree_structure"] for tree in trees]


def as_forest(trees: Sequence[Mapping[str, Any]], scale: float) -> Forest:
    """Turn trees as LightGBM dumps them into a `Forest` whose leaves are `scale` times theirs."""
    nodes: list[tuple[int, float, int, int]] = []
    leaf_TL = np.zeros((len(trees), LEAVES))

    def place(node: Mapping[str, Any], tree: int, first: int) -> int:
        """Number the leaves under `node` from `first` on, note its tests; return the next number."""
        if "leaf_value" in node:
            leaf_TL[tree, first] = scale * node["leaf_value"]
            return first + 1
        middle = place(node["left_child"], tree, first)
        on_the_left = (1 << middle) - (1 << first)
        nodes.append((node["split_feature"], node["threshold"], tree, (1 << LEAVES) - 1 - on_the_left))
        return place(node["right_child"], tree, middle)

    for t, tree in enumerate(trees):
        place(tree, t, 0)
    feature_D, threshold_D, tree_D, kept_D = (np.array(column) for column in zip(*nodes, strict=True))
    return Forest(feature_D, threshold_D, tree_D, kept_D, leaf_TL)


def rarities(answers: Answers) -> tuple[dict[str, float], float]:
    """Return log((n + 1) / (d + 1/2)) for words in the texts of d of the n questions, and that of a word in none."""
    texts: dict[str, set[str]] = defaultdict(set)
    for _, question, gold, prediction in answers.keys_M:
        texts[question] |= {question, gold, prediction}
    words = ({token for text in column for token in TOKEN.findall(text)} for column in texts.values())
    met = Counter(word for spellings in words for word in {plain(spelling) for spelling in spellings})
    kept = {word: d for word, d in sorted(met.items()) if d >= MET and word.strip()}
    rarity = {word: float(np.log((len(texts) + 1) / (d + 0.5))) for word, d in kept.items()}
    return rarity, float(np.log(2 * len(texts) + 2))


def crossfit(verdicts: Verdicts, seed: int = SEED, by: By = "question") -> Array:
    """Return for every line, [N], the probability by trees that saw no answer to its question (or "title")."""
    answers = distinct(verdicts)
    fold_M = folds(answers, FOLDS, seed, by)
    probability_M = np.zeros(len(fold_M))
    for k in range(FOLDS):
        probability_M[fold_M == k] = _probabilities(learn(answers.take(fold_M != k), seed), answers.take(fold_M == k))
    line_to_answer_N: Array = probability_M[answers.line_to_answer_N]
    return line_to_answer_N


def thresholds(verdicts: Verdicts, seed: int = SEED) -> Array:
    """Return for every line, [N], from which probability on its fold's grader is sure, chosen without that fold.

    The other four folds give it: each is marked by trees trained on the remaining three. Such a grader, trained
    without two folds, serves both of them.
    """
    answers = distinct(verdicts)
    fold_M = folds(answers, FOLDS, seed)
    inner_MK = np.zeros((len(fold_M), FOLDS))  # the mark of an answer by trees that saw neither its fold nor k
    for k in range(FOLDS):
        for j in range(k):
            grader = learn(answers.take((fold_M != k) & (fold_M != j)), seed)
            for one, other in ((j, k), (k, j)):
                inner_MK[fold_M == one, other] = _probabilities(grader, answers.take(fold_M == one))
    sure_K = np.zeros(FOLDS)
    for k in range(FOLDS):
        rest = fold_M != k
        sure_K[k] = sure_from(inner_MK[rest, k], answers.share_M[rest], answers.count_M[rest])
    sure_N: Array = sure_K[fold_M[answers.line_to_answer_N]]
    return sure_N


def _probabilities(grader: Calibrated, answers: Answers) -> Array:
    return grader.probabilities(*answers.texts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the grader 'calibrated' and measure it by cross-fitting.")
    parser.add_argument("verdicts", type=Path, metavar="VERDICTS.jsonl.gz")
    parser.add_argument("--out", type=Path, default=Path("runs/grader"))
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    verdicts = read_verdicts(given.verdicts)
    answers = distinct(verdicts)
    given.out.mkdir(parents=True, exist_ok=True)
    probability_N = crossfit(verdicts, given.seed)
    np.savez_compressed(given.out / "crossfit.npz", probability=probability_N, sha256=np.array(verdicts.sha256))
    grader = learn(answers, given.seed, sure_from(probability_N, verdicts.correct_N, np.ones(len(probability_N))))
    np.savez_compressed(given.out / "calibrated.npz", **pack(grader))
    by_title_N, sure_N = crossfit(verdicts, given.seed, "title"), thresholds(verdicts, given.seed)
    found = measures(verdicts, answers, probability_N, sure_N, by_title_N)
    (given.out / "measures.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    whole = found["all"]
    sys.stdout.write(
        f"agreement {whole['agreement']:.1%}, kappa {whole['kappa']:.3f}: more in {given.out}/measures.json\n"
    )
    sys.stdout.write(f"{speed(grader, answers, SPEED):,.0f} distinct answers a second on this machine\n")


if __name__ == "__main__":
    main()
