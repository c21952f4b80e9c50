"""Which scorer to trust: each one against the causal yardstick, on the model that will be analysed.

    make benchmark                            # or: python benchmarks/faithfulness.py --run runs/my-study

``single_ablation`` holds every neuron at zero, one at a time, and says what the true class loses: exhaustive, so that
it needs a small model (or ``--sample``). Every other scorer sees the same proteins. The table has, per scorer:

- **rank r**: Spearman correlation of its scores with those of single-neuron ablation, over all neurons, and within
  sites (mean over sites: what is left when knowing the right modules does not count). A score without a sign is
  compared with the size of the ablation's effect;
- **top 5 %**: share of its best 5 % that is among those of single-neuron ablation; chance is 5 %;
- **keep**, **ablate**: balanced accuracy of the network that keeps its best neurons (higher is better), or loses them
  (lower is better), on proteins that were not scored: area over shares from 1 % to 90 % divided by their range, zero
  ablation, beside random neurons;
- **split-half r**: Spearman correlation of the scores from one half of the clusters with those from the other, mean of
  random halves;
- **CPU s**: per protein; scorers that come from one function have its time together.

Without ``--run`` the embedded model is fine-tuned for a moment on short embedded enzymes.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.evaluation.curves import Grid, evaluate_points
from plmscope.scoring.methods import SCORERS
from plmscope.scoring.scores import NeuronScores, resampling_groups
from plmscope.scoring.table import row_of
from plmscope.stats.curves import metric_area
from plmscope.stats.metrics import metric
from plmscope.store.folder import Run
from plmscope.study import Stages
from plmscope.study.opened import OpenRun, open_run
from plmscope.study.settings import DataSection, FinetuneSection, SplitSection, Study

#: Up to 90 %: a small model that keeps half of its neurons may be at chance, and there is nothing to tell apart there.
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9)
#: Scores that say how much, not in which direction.
UNSIGNED = ("activation", "activation_std", "activation_contrast")
TRUTH = "single_ablation"


def quick_study(epochs: int) -> Study:
    """The embedded model, fine-tuned on short embedded enzymes."""
    return Study(
        name="faithfulness",
        data=DataSection(max_length=300, too_long="skip"),
        split=SplitSection(identity=0.5, held_out="held_out"),
        finetune=FinetuneSection(epochs=epochs),
    )


def fine_tuned(folder: Path, study: Study) -> OpenRun:
    """The run of a study, as far as the fine-tuned model."""
    Stages(study, Run.create(folder)).execute(["finetune"])
    return open_run(folder)


def score_all(
    opened: OpenRun, proteins: list[Protein], sample: int, token_budget: int
) -> tuple[dict[str, NeuronScores], dict[str, float]]:
    """Scores by every method, and CPU seconds of the function that gives it."""
    model = opened.model
    groups = resampling_groups([opened.clusters[p.id] for p in proteins], [p.label for p in proteins])
    scores: dict[str, NeuronScores] = {}
    seconds: dict[str, float] = {}
    truth = SCORERS[TRUTH]
    fitted = {row_of(method).function for method in SCORERS if row_of(method).fit}  # they need many proteins
    for scorer in dict.fromkeys(
        SCORERS[method] for method in SCORERS if row_of(method).function not in fitted
    ):  # one that gives several scores is run once
        settings = {"sample": sample} if scorer is truth else {}
        started = time.process_time()
        found = {
            one.method: one for one in scorer(model, proteins, token_budget=token_budget, groups=groups, **settings)
        }
        spent = time.process_time() - started
        scores |= found
        seconds |= dict.fromkeys(found, spent)
        say(f"{', '.join(found)}: {spent:.1f} CPU s")
    return scores, seconds


def agreement(one: NeuronScores, truth: NeuronScores) -> tuple[float, float, float]:
    """Spearman's r over all neurons and its mean over sites, and the share of the best 5 % in common."""
    known = np.isfinite(truth.values)  # all of them, or a sample
    effect = np.abs(truth.values) if one.method in UNSIGNED or one.method.endswith("_abs") else truth.values
    within = []
    for site in range(len(one.index.sites)):
        own = known & (one.index.site_of == site)
        if np.ptp(one.values[own]) > 0 and np.ptp(effect[own]) > 0:
            within.append(spearmanr(one.values[own], effect[own]).statistic)
    best = max(1, round(0.05 * known.sum()))
    places = np.flatnonzero(known)
    ours, theirs = (set(places[np.argsort(-v[known], kind="stable")[:best]]) for v in (one.values, effect))
    overall = spearmanr(one.values[known], effect[known]).statistic
    return float(overall), float(np.mean(within)), len(ours & theirs) / best


def stability(one: NeuronScores, halves: int, seed: int) -> float:
    """Mean Spearman's r between the scores of random halves of the clusters, the same in every class."""
    if one.resample is None or one.sums is None:
        return float("nan")
    classes = np.array([label for label, _ in one.sums.keys])
    rng, found = np.random.default_rng(seed), []
    for _ in range(halves):
        first = np.zeros(len(classes))
        for label in set(classes):
            own = rng.permutation(np.flatnonzero(classes == label))
            first[own[: len(own) // 2]] = 1
        values = [one.resample(weights) for weights in (first, 1 - first)]
        known = np.isfinite(values[0])
        found.append(spearmanr(values[0][known], values[1][known]).statistic)
    return float(np.mean(found))


def areas(
    opened: OpenRun, proteins: list[Protein], scores: dict[str, NeuronScores], draws: int, seed: int
) -> tuple[float, dict[tuple[str, str], float]]:
    """Balanced accuracy of the intact model, and the area under it by method (or ``random``) and mode."""
    model, true = opened.model, opened.model.targets(proteins)
    grid = Grid(scores, FRACTIONS, seed)
    points = grid.points(("keep", "ablate"), ("zero",), ("pooled",), ("random",), draws, draws)
    zero = {"zero": np.zeros((3, len(model.index)))}
    found = {
        point: metric("balanced_accuracy", true, p.predicted, p.log_prob_true, len(model.labels))
        for point, p in zip(points, evaluate_points(model, proteins, grid, points, zero), strict=True)
    }
    curves: dict[tuple[str, str, int], list[float]] = {}
    for point, value in found.items():
        if point.method != "intact":
            curves.setdefault((point.method, point.mode, point.draw), []).append(value)
    by_method: dict[tuple[str, str], list[float]] = {}
    for (method, mode, _), values in curves.items():
        area = float(metric_area("balanced_accuracy", FRACTIONS, values, len(model.labels)))
        by_method.setdefault((method, mode), []).append(area / (FRACTIONS[-1] - FRACTIONS[0]))
    return found[points[0]], {key: float(np.mean(values)) for key, values in by_method.items()}


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Score, compare, print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished or fine-tuned run folder; default: fine-tune quickly")
    parser.add_argument("--per-class", type=int, default=4, help="scored proteins of a class, of distinct clusters")
    parser.add_argument("--max-length", type=int, default=200, help="longest protein that is scored")
    parser.add_argument("--epochs", type=int, default=3, help="of the quick fine-tuning")
    parser.add_argument("--test", type=int, default=60, help="proteins that selections are judged on")
    parser.add_argument("--draws", type=int, default=5, help="random selections of every size")
    parser.add_argument("--sample", type=int, default=0, help="neurons that are ablated one by one; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        opened = open_run(args.run) if args.run else fine_tuned(Path(folder) / "run", quick_study(args.epochs))
        short = [p for p in opened.proteins("train") if len(p) <= args.max_length]
        proteins = one_per_cluster(short, opened.clusters, args.per_class, args.seed)
        classes = len(opened.model.labels)
        test = one_per_cluster(opened.proteins("test"), opened.clusters, -(-args.test // classes), args.seed)
        model = opened.model
    say(f"{model!r}\n{len(proteins)} scored proteins, {len(test)} others")
    scores, seconds = score_all(opened, proteins, args.sample, 2048)
    judged = {m: s for m, s in scores.items() if not (m.startswith(TRUTH) and args.sample)}
    intact, area = areas(opened, test, judged, args.draws, args.seed)
    known = int(np.isfinite(scores[TRUTH].values).sum())
    name = args.run or f"The embedded model after {args.epochs} epochs"
    print(
        f"{name}, {len(model.index):,} neurons, "
        f"{known:,} of them ablated one by one; {len(proteins)} scored proteins of up to {args.max_length} residues; "
        f"areas on {len(test)} others, where the intact model has a balanced accuracy of {intact:.3f}, chance is "
        f"{1 / classes:.3f}; {args.draws} random draws.\n\n"
        "| scorer | rank r | within sites | top 5 % | keep | ablate | split-half r | CPU s a protein |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for method, one in scores.items():
        overall, within, best = agreement(one, scores[TRUTH])
        both = [f"{area[method, mode]:.3f}" if (method, mode) in area else "" for mode in ("keep", "ablate")]
        half = stability(one, 10, args.seed)
        cost = seconds[method] / len(proteins)
        print(
            f"| `{method}` | {overall:.2f} | {within:.2f} | {best:.0%} | {' | '.join(both)} | {half:.2f} | {cost:.3g} |"
        )
    both = [f"{area['random', mode]:.3f}" for mode in ("keep", "ablate")]
    print(f"| random neurons | 0 | 0 | 5% | {' | '.join(both)} | 0 | |")


if __name__ == "__main__":
    main()
