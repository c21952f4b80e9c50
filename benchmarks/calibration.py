"""How often the rules claim something of a random scorer, and how often the 95 % intervals cover.

    python benchmarks/calibration.py                         # 200 repetitions on a tiny model, a few CPU minutes
    python benchmarks/calibration.py --repetitions 40        # a look

A tiny ESM classifier is trained on made proteins of three classes that differ in composition. Random selections with
fixed numbers in every site are kept in it, pooled and within every module kind, by the code of a study's evaluation;
this pool is evaluated once. Every repetition takes other test proteins, one selection of the pool as the method's and
others as its draws, and judges by the code and the rules of the report (``compare``, ``module_table``,
``beats_chance``, ``kind_beats_chance``, ``concentration_answer``, ``density_answer``): whatever is claimed is false.
Densities come from scorers of their own, since they need no model: noise in every neuron, and noise that grows with a
neuron's activity, whose scale differs between modules.

A repetition shares the pool with others, so that their outcomes are somewhat less independent than the binomial
intervals, printed beside every share, take them for. A rule holds its level where the interval reaches 5 % or less;
an interval covers where it reaches 95 % or more.

Prints a Markdown table.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import transformers
from scipy.stats import binomtest
from transformers import EsmConfig, EsmForSequenceClassification, EsmTokenizer

from plmscope.data.proteins import AMINO_ACIDS, Protein
from plmscope.evaluation.curves import (
    INTACT,
    CurveCell,
    CurvePoint,
    Curves,
    Grid,
    Within,
    compare,
    evaluate_points,
    held_point,
)
from plmscope.evaluation.density import density
from plmscope.evaluation.kinds import carried_row, module_table
from plmscope.evaluation.predict import Predictions
from plmscope.evaluation.selection import MODULE, Selection, select_top
from plmscope.models.architectures import MODULES
from plmscope.models.checkpoints import embedded_folder
from plmscope.models.classifier import Classifier
from plmscope.models.loading import load_model
from plmscope.models.sites import NeuronIndex
from plmscope.report.answers import NULL_WORDS, beats_chance, kind_beats_chance
from plmscope.report.concentration import concentration_answer, density_answer
from plmscope.scoring.activation import summarise_activations
from plmscope.scoring.scores import NeuronScores

SHARES = (0.2, 0.5)
CLASSES = 3
CELLS = (CurveCell("pooled", "", "keep", "mean"), *(CurveCell(MODULE, module, "keep", "mean") for module in MODULES))
METHOD = "integrated_gradients"  # the name under which the random scorer is judged


def made(n: int, seed: int) -> list[Protein]:
    """Proteins of 20 to 40 residues in three classes, each rich in three letters of its own."""
    rng = np.random.default_rng(seed)
    letters, found = np.array(list(AMINO_ACIDS)), []
    for number in range(n):
        label = number % CLASSES
        residues = rng.choice(letters, rng.integers(20, 41))
        own = rng.random(len(residues)) < 0.15
        residues[own] = rng.choice(letters[3 * label : 3 * label + 3], own.sum())
        found.append(Protein(f"p{seed}-{number}", "".join(residues), str(label)))
    return found


def trained(proteins: Sequence[Protein], steps: int, seed: int) -> Classifier:
    """A classifier of two layers and 448 neurons."""
    torch.manual_seed(seed)
    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, position_embedding_type="rotary", token_dropout=True, max_position_embeddings=1026,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5, emb_layer_norm_before=False,
        id2label={i: str(i) for i in range(CLASSES)}, label2id={str(i): i for i in range(CLASSES)},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        EsmForSequenceClassification(config).save_pretrained(folder)
        EsmTokenizer(vocab_file=str(embedded_folder() / "vocab.txt")).save_pretrained(folder)
        classifier = load_model(folder)
    rng, optimizer = np.random.default_rng(seed), torch.optim.AdamW(classifier.model.parameters(), lr=3e-3)
    for parameter in classifier.model.parameters():
        parameter.requires_grad_(True)
    for _ in range(steps):
        some = [proteins[row] for row in rng.choice(len(proteins), 32, replace=False)]
        batch = classifier.batch(some)
        logits = classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        true = torch.from_numpy(classifier.targets([some[row] for row in batch.rows]))
        torch.nn.functional.cross_entropy(logits, true).backward()
        optimizer.step()
        optimizer.zero_grad()
    for parameter in classifier.model.parameters():
        parameter.requires_grad_(False)
    return classifier


@dataclass(frozen=True)
class Pool:
    """What the model says under every random selection.

    Attributes:
        found: Point to predictions on all ``P`` test proteins; draws are numbered from 0.
        true: ``(P,)``.
        size: Draws in every cell.
        index: The model's neurons.
        activity: ``activation_std (N,)``.
    """

    found: dict[CurvePoint, Predictions]
    true: np.ndarray
    size: int
    index: NeuronIndex
    activity: np.ndarray


def pooled(model: Classifier, proteins: Sequence[Protein], train: Sequence[Protein], size: int, seed: int) -> Pool:
    """Evaluate the intact model, every kind held, and every draw of every cell."""
    summary = summarise_activations(model, train)
    noise = np.random.default_rng([seed, 1]).random(len(model.index))
    grid = Grid({METHOD: NeuronScores(METHOD, model.index, noise)}, SHARES, seed, module_fractions=SHARES)
    points = grid.points(("keep",), ("mean",), ("pooled", MODULE), ("random_matched",), size, size, Within(draws=size))
    points = [point for point in points if point.method != METHOD]
    found = evaluate_points(model, proteins, grid, points, {"mean": summary.constants("mean")})
    known = dict(zip(points, found, strict=True))
    activity = next(s.values for s in summary.scores() if s.method == "activation_std")
    return Pool(known, model.targets(proteins), size, model.index, activity)


def curves_of(pool: Pool, rows: np.ndarray, chosen: np.ndarray, resamples: int, seed: int, method: str) -> Curves:
    """A study on some proteins whose method is the first of the chosen draws, and whose draws are the others."""

    def some(point: CurvePoint) -> Predictions:
        one = pool.found[point]
        return Predictions(one.predicted[rows], one.log_prob_true[rows])

    study = {point: some(point) for point in (INTACT, *(held_point("mean", module) for module in MODULES))}
    for cell in CELLS:
        for number, r in enumerate(chosen):
            for share in SHARES:
                source = CurvePoint("random_matched", METHOD, cell.scope, int(r), "keep", "mean", share, cell.module)
                name = (method, "") if number == 0 else ("random_matched", method)
                study[source._replace(method=name[0], matched_to=name[1], draw=number - 1)] = some(source)
    clusters = [str(row) for row in rows]
    return Curves(list(study), list(study.values()), pool.true[rows], clusters, CLASSES, seed, {}, resamples)


class Tally:
    """Counts of what was claimed or covered, of how many."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()

    def add(self, name: str, hit: bool) -> None:
        """One more outcome."""
        self.tried[name] += 1
        self.hits[name] += bool(hit)

    def lines(self, wanted: float) -> list[str]:
        """Rows of a table; ``wanted`` is the level of claims, or the share of intervals that should cover."""
        found = []
        for name, n in self.tried.items():
            k = self.hits[name]
            ends = binomtest(k, n).proportion_ci(method="exact")
            holds = ends.low <= wanted if wanted < 0.5 else ends.high >= wanted
            cells = (name, str(n), str(k), f"{k / n:.1%}", f"{ends.low:.1%} to {ends.high:.1%}")
            found.append("| " + " | ".join((*cells, "yes" if holds else "**no**")) + " |")
        return found


def judge(curves: Curves, nulls: pd.DataFrame, index: NeuronIndex, claims: Tally, covers: Tally) -> pd.DataFrame:
    """Apply the report's rules to one study; returns its rows of ``modules``, a null model for another one."""
    table, kinds = compare(curves), module_table(curves, index)
    for row in table[table["primary"]].to_dict("records"):
        place = "within keys" if row["module"] else "pooled"
        claims.add(f"primary, {place}: p below 0.05 and interval above 0", beats_chance(row))
        claims.add(f"primary, {place}: p alone", row["p_value"] < 0.05)
        covers.add(f"area difference, {place}: holds 0", row["ci_low"] <= 0 <= row["ci_high"])
    claims.add("secondary: any q below 0.05", bool((table["q_value"] < 0.05).any()))
    own = kinds[kinds["metric"] == "balanced_accuracy"].to_dict("records")
    claims.add("module kinds: any beats chance (Holm)", any(map(kind_beats_chance, own)))
    for row in own:
        if row["judged"]:
            covers.add("area difference, any kind: holds 0", row["ci_low"] <= 0 <= row["ci_high"])
            covers.add("concentration, any kind: holds 1", row["concentration_low"] <= 1 <= row["concentration_high"])
            claims.add("concentration, any one kind: interval above 1", row["concentration_low"] > 1)
    if len(nulls):
        verdict = concentration_answer(pd.concat([kinds, nulls]), None, None, 0.05).verdict
        claims.add("keys are the most concentrated kind", verdict == "yes")
    return kinds


def top(index: NeuronIndex, values: np.ndarray, share: float) -> Selection:
    """The best share of some scores."""
    return select_top(NeuronScores(METHOD, index, values), share)


def counted(selection: Selection) -> np.ndarray:
    """Selected neurons of every site."""
    return np.bincount(selection.index.site_of[selection.mask], minlength=len(selection.index.sites))


def densities(pool: Pool, claims: Tally, share: float, groups: int, seed: int) -> None:
    """The density claims of one random scorer, given as sums of noise over groups of proteins, as a study has them."""
    rng = np.random.default_rng([seed, 3])
    scales = {"even noise": np.ones(len(pool.index)), "noise that grows with activity": pool.activity}
    for name, scale in scales.items():
        # Of a model and of its two null models: the same architecture and scale, other noise.
        values = [np.abs(rng.normal(size=(groups, len(pool.index)))) * scale for _ in range(3)]
        tops = [top(pool.index, one.mean(axis=0), share) for one in values]
        weights = rng.multinomial(groups, np.full(groups, 1 / groups), size=100)
        counts = np.array([counted(top(pool.index, w @ values[0], share)) for w in weights])
        found = density(tops[0], counts, pool.activity, seed).assign(method=METHOD, fraction=share)
        null = pd.concat(
            [
                density(one).assign(method=METHOD, fraction=share, null=n)
                for one, n in zip(tops[1:], NULL_WORDS, strict=True)
            ]
        )
        kinds = found[found["layer"] < 0]
        claims.add(f"density, {name}: keys, permutation p below 0.05",
                   bool((kinds.loc[kinds["module"] == "key", "p_permutation"] < 0.05).all()))  # fmt: skip
        claims.add(f"density, {name}: any kind, q below 0.05", bool((kinds["q_value"] < 0.05).any()))
        sites = found[(found["layer"] >= 0) & (found["module"] != "all")]
        claims.add(f"density, {name}: any site, q below 0.05", bool((sites["q_value"] < 0.05).any()))
        claims.add(f"density, {name}: the report says that keys are dense",
                   density_answer(found, null, share).verdict == "yes")  # fmt: skip


def carried(model: Classifier, means: np.ndarray, args: argparse.Namespace, covers: Tally) -> None:
    """Whether the intervals of what a kind carries hold what it carries on proteins without end (40 times as many).

    Every sample has as many proteins of each class as the whole, as a split has: the bootstrap is stratified by class.
    """
    proteins = made(40 * args.proteins, args.seed + 3)
    points = [INTACT, *(held_point("mean", module) for module in MODULES)]
    grid = Grid({METHOD: NeuronScores(METHOD, model.index, np.arange(len(model.index), dtype=float))}, SHARES, 0)
    found = list(evaluate_points(model, proteins, grid, points, {"mean": means}))
    true, rng = model.targets(proteins), np.random.default_rng([args.seed, 4])

    def curves(rows: np.ndarray, resamples: int) -> Curves:
        some = [Predictions(p.predicted[rows], p.log_prob_true[rows]) for p in found]
        return Curves(points, some, true[rows], [str(row) for row in rows], CLASSES, args.seed, {}, resamples)

    whole = curves(np.arange(len(proteins)), 1)
    for _ in range(args.repetitions):
        of_class = [
            rng.choice(np.flatnonzero(true == c), args.proteins // CLASSES, replace=False) for c in range(CLASSES)
        ]
        part = curves(np.concatenate(of_class), args.resamples)
        for cell in CELLS[1:]:
            for name in ("balanced_accuracy", "log_probability"):
                row, truth = carried_row(part, cell, name), carried_row(whole, cell, name)["carried"]
                covers.add(f"carried, any kind, {name}: holds the true value",
                           row["carried_low"] <= truth <= row["carried_high"])  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--pool", type=int, default=120, help="random selections that are evaluated in every cell")
    parser.add_argument("--draws", type=int, default=59, help="of them, draws in a repetition")
    parser.add_argument("--proteins", type=int, default=60, help="test proteins in a repetition, of four times as many")
    parser.add_argument("--resamples", type=int, default=400, help="of the bootstrap")
    parser.add_argument("--steps", type=int, default=200, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    started, rng = time.process_time(), np.random.default_rng([args.seed, 2])
    train, proteins = made(600, args.seed + 1), made(4 * args.proteins, args.seed + 2)
    model = trained(train, args.steps, args.seed)
    pool = pooled(model, proteins, train, args.pool, args.seed)
    claims, covers, earlier = Tally(), Tally(), []
    for number in range(args.repetitions):
        rows = np.sort(rng.choice(len(proteins), args.proteins, replace=False))
        chosen = rng.choice(pool.size, 1 + args.draws, replace=False)
        curves = curves_of(pool, rows, chosen, args.resamples, args.seed + number, METHOD)
        nulls = pd.concat(earlier[-2:]) if len(earlier) > 1 else pd.DataFrame()
        if len(nulls):
            nulls = nulls.assign(model=np.repeat(list(NULL_WORDS), len(earlier[-1])))
        earlier.append(judge(curves, nulls, model.index, claims, covers))
        densities(pool, claims, 0.1, 12, args.seed + number)
    carried(model, summarise_activations(model, train).constants("mean"), args, covers)
    intact = float((pool.found[INTACT].predicted == pool.true).mean())
    print(
        f"{args.repetitions} repetitions, {args.draws} draws of {args.pool}, {args.proteins} test proteins of "
        f"{len(proteins)}, {args.resamples} resamples; {len(model.index)} neurons, accuracy {intact:.2f}; "
        f"{time.process_time() - started:.0f} CPU seconds\n"
    )
    print("| a random scorer's false claim | tried | claimed | share | 95 % interval | at most 5 % |")
    print("| --- |" + " --- |" * 5)
    print("\n".join(claims.lines(0.05)))
    print("\n| 95 % interval | tried | covered | share | 95 % interval of it | at least 95 % |")
    print("| --- |" + " --- |" * 5)
    print("\n".join(covers.lines(0.95)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
