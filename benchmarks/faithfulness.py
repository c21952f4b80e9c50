"""Which scorer to trust: each one against the causal yardstick, on the model that will be analysed.

    make benchmark                            # or: python benchmarks/faithfulness.py --run runs/my-study

``single_ablation`` holds every neuron at zero, one at a time, and says what the true class loses: exhaustive, so that
it needs a small model (or ``--sample``). Every other scorer sees the same proteins.

The columns are those of :mod:`plmscope.evaluation.faithfulness`; areas are over shares from 1 % to 90 %. Of a run,
``plmscope faithfulness RUN`` makes the same table with the run's own settings.

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

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.evaluation.curves import Grid, evaluate_points
from plmscope.evaluation.faithfulness import TRUTH, agreement, area_points, areas, scorers, split_half
from plmscope.scoring.methods import SCORERS
from plmscope.scoring.scores import NeuronScores, resampling_groups
from plmscope.store.folder import Run
from plmscope.study import Stages
from plmscope.study.opened import OpenRun, open_run
from plmscope.study.settings import DataSection, FinetuneSection, SplitSection, Study

#: Up to 90 %: a small model that keeps half of its neurons may be at chance, and there is nothing to tell apart there.
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9)


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
    for names in scorers():  # one that gives several scores is run once
        settings = {"sample": sample} if names[0] == TRUTH else {}
        started = time.process_time()
        found = {
            one.method: one
            for one in SCORERS[names[0]](model, proteins, token_budget=token_budget, groups=groups, **settings)
        }
        spent = time.process_time() - started
        scores |= found
        seconds |= dict.fromkeys(found, spent)
        say(f"{', '.join(found)}: {spent:.1f} CPU s")
    return scores, seconds


def judged_on(
    opened: OpenRun, proteins: list[Protein], scores: dict[str, NeuronScores], draws: int, seed: int
) -> tuple[float, dict[tuple[str, str], float]]:
    """Balanced accuracy of the intact model, and the area under it by method (or ``random``) and mode."""
    model = opened.model
    grid = Grid(scores, FRACTIONS, seed)
    points = area_points(grid, draws)
    zero = {"zero": np.zeros((3, len(model.index)))}
    found = list(evaluate_points(model, proteins, grid, points, zero))
    return areas(points, found, FRACTIONS, model.targets(proteins), len(model.labels))


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
    intact, area = judged_on(opened, test, judged, args.draws, args.seed)
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
        half = split_half(one, seed=args.seed)
        cost = seconds[method] / len(proteins)
        print(
            f"| `{method}` | {overall:.2f} | {within:.2f} | {best:.0%} | {' | '.join(both)} | {half:.2f} | {cost:.3g} |"
        )
    both = [f"{area['random', mode]:.3f}" for mode in ("keep", "ablate")]
    print(f"| random neurons | 0 | 0 | 5% | {' | '.join(both)} | 0 | |")


if __name__ == "__main__":
    main()
