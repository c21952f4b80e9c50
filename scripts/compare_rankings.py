"""Compare the rankings that neurons could be kept by, on validation proteins alone.

    python scripts/compare_rankings.py runs/demo                      # every candidate, 60 validation proteins
    python scripts/compare_rankings.py runs/demo --proteins 0         # all of them
    python scripts/compare_rankings.py runs/demo --score conductance  # one scorer (and what earlier calls left)

Candidates are the scores without a sign (activation, its spread and contrast) and every form
(signed, absolute, rms, class_means) of integrated gradients and gradient x activation, each from zero and from the
ablation mean, and of conductance. They are scored on the run's scoring proteins, in two halves of disjoint clusters,
and judged on validation proteins: no test protein is read. Three criteria, fixed before test proteins are looked at:

* what is kept: area under the curve of the shares kept (mean ablation), pooled and within every module kind, as the
  share of what lies between all held and intact (1: nothing is lost; 0: as if all were held);
* stability: rank correlation of the two halves, and the shared part of their best 5 %;
* cost: CPU seconds a protein.

Scores and predictions are kept in ``compare_rankings`` of the run folder: a call that is killed continues, and one that
asks for more adds to it. Prints Markdown; ``rankings.csv`` there has one row a candidate and scope.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from plmscope.data.clusters import halves, one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.errors import PlmscopeError, RunError
from plmscope.evaluation.curves import CurvePoint, Grid
from plmscope.evaluation.predict import predict
from plmscope.evaluation.selection import MODULE, of_module, select_top
from plmscope.models.architectures import MODULES
from plmscope.scoring.methods import SCORERS
from plmscope.scoring.scores import NeuronScores, with_class_means
from plmscope.scoring.shards import PartialScores
from plmscope.scoring.table import FORMS, signed_methods
from plmscope.stats.curves import curve_area
from plmscope.stats.metrics import metric
from plmscope.study.opened import OpenRun, open_run

#: Name, scorer, and whether it is given the ablation means as its baseline.
SCORES: tuple[tuple[str, str, bool], ...] = (
    ("activation", "activation", False),
    ("gradient_activation, zero", "gradient_activation", False),
    ("gradient_activation, mean", "gradient_activation", True),
    ("integrated_gradients, zero", "integrated_gradients", False),
    ("integrated_gradients, mean", "integrated_gradients", True),
    ("conductance", "conductance", False),
)
METRICS = ("balanced_accuracy", "log_probability")
COLUMNS = (
    "ranking", "form", "scope", "metric", "kept", "area", "held", "intact", "spearman_halves", "overlap_halves",
    "cpu_seconds_per_protein", "scored_proteins", "validation_proteins",
)  # fmt: skip


def scored(
    opened: OpenRun, folder: Path, name: str, scorer: str, mean: bool, points: int
) -> tuple[list[list[NeuronScores]], float]:
    """Scores from both halves of the scoring proteins and from all of them, and the CPU seconds a protein.

    What was scored before is read from ``folder``.
    """
    model, found, seconds = opened.model, [], 0.0
    sides = halves(opened.proteins("scoring"), opened.clusters)
    for number, proteins in enumerate(sides):
        path = folder / f"{name.replace(', ', '-')}-{number}.npz"
        clock = path.with_suffix(".json")
        partial = PartialScores.load(path, model.index) if clock.is_file() else None
        if partial is None:
            how: dict[str, Any] = {"token_budget": opened.study.score.token_budget}
            if scorer in signed_methods():
                how |= {"rms": True, "target": opened.study.score.target}
            if mean:
                how["baseline"] = np.asarray(model.ablation_means)
            if scorer in ("integrated_gradients", "conductance"):
                how |= {"points": points, "tolerance": opened.study.score.tolerance}
            started = time.process_time()
            made = SCORERS[scorer](model, proteins, **how)
            spent = time.process_time() - started
            partial = PartialScores.of(with_class_means(made))
            partial.save(path)
            clock.write_text(json.dumps({"seconds": spent}))
            tell(f"{len(proteins)} proteins scored by {name}: {spent:.0f} CPU s")
        seconds += json.loads(clock.read_text())["seconds"]
        found.append(partial)
    methods = [method for one in found[0].scored.values() for method in one.settings]
    every = [*sides[0], *sides[1]]
    whole = [found[0].finish(methods, sides[0]), found[1].finish(methods, sides[1])]
    return [*whole, (found[0] + found[1]).finish(methods, every)], seconds / len(every)


def kept(
    opened: OpenRun, file: Path, scores: NeuronScores, proteins: Sequence[Protein], fractions: Sequence[float],
    module_fractions: Sequence[float],
) -> dict[str, dict[str, list[float]]]:  # fmt: skip
    """Scope (``pooled`` or a module kind) to metric to its curve; read from ``file`` if that is there."""
    grid = Grid({"m": scores}, tuple(fractions), 0, module_fractions=tuple(module_fractions))
    points = [CurvePoint("m", "", "pooled", -1, "keep", "mean", f) for f in fractions]
    for module in MODULES:
        points += [CurvePoint("m", "", MODULE, -1, "keep", "mean", f, module) for f in module_fractions]
    found = ends(opened, file.with_name("ends.json"), proteins)
    if not file.is_file():
        file.write_text(json.dumps(measured(opened, map(grid.kept, points), proteins)))
    rows = json.loads(file.read_text())
    curves: dict[str, dict[str, list[float]]] = {}
    for scope in ("pooled", *MODULES):
        own = [row for point, row in zip(points, rows, strict=True) if (point.module or "pooled") == scope]
        curves[scope] = {n: [found[scope][n], *(row[n] for row in own), found["intact"][n]] for n in METRICS}
    return curves


def ends(opened: OpenRun, file: Path, proteins: Sequence[Protein]) -> dict[str, dict[str, float]]:
    """The metrics of the intact model, with a module kind held, and with everything held."""
    names = ["intact", *MODULES, "pooled"]
    if not file.is_file():
        index = opened.model.index
        kinds = [~of_module(index, module) for module in MODULES]
        everybody, nobody = np.ones(len(index), dtype=bool), np.zeros(len(index), dtype=bool)
        file.write_text(json.dumps(measured(opened, [everybody, *kinds, nobody], proteins)))
    return dict(zip(names, json.loads(file.read_text()), strict=True))


def measured(opened: OpenRun, kept: Iterable[np.ndarray], proteins: Sequence[Protein]) -> list[dict[str, float]]:
    """Both metrics of every ``(N,)`` of kept neurons; the others are held at their means."""
    model = opened.model
    true, means = model.targets(proteins), np.asarray(model.ablation_means)
    stream = predict(model, proteins, ((keep, means) for keep in kept), opened.study.evaluate.token_budget)
    return [
        {name: metric(name, true, p.predicted, p.log_prob_true, len(model.labels)) for name in METRICS} for p in stream
    ]


def compared(args: argparse.Namespace) -> pd.DataFrame:
    """One row a candidate, scope and metric."""
    opened = open_run(args.run)
    model, index = opened.model, opened.model.index
    if model.ablation_means is None:
        raise RunError(f"{args.run}: no ablation means; run 'plmscope score {args.run}'")
    per_class = -(-args.proteins // len(model.labels)) if args.proteins else len(opened.clusters)
    proteins = one_per_cluster(
        opened.proteins("validation"), opened.clusters, per_class, opened.study.seed, task=model.task
    )
    stage = opened.run.manifest()["stages"].get("score", {}).get("fingerprint", "")
    needs = [stage, args.points, [p.id for p in opened.proteins("scoring")]]
    folder = opened.run.path / "compare_rankings" / digest(needs)
    judged = folder / digest([[p.id for p in proteins], args.fractions, args.module_fractions])
    judged.mkdir(parents=True, exist_ok=True)
    tell(f"{len(opened.proteins('scoring'))} scoring proteins, {len(proteins)} validation proteins, {judged}")
    rows = []
    for name, scorer, mean in SCORES:
        if args.score and scorer not in args.score and not any(folder.glob(f"{name.replace(', ', '-')}-1.json")):
            continue
        (one, two, whole), seconds = scored(opened, folder, name, scorer, mean, args.points)
        for first, second, scores in zip(one, two, whole, strict=True):
            ending = scores.method.removeprefix(scorer) if scorer in signed_methods() else ""
            forms = {"": "signed" if scorer in signed_methods() else "own"} | {
                value: key for key, value in FORMS.items()
            }
            ranking = name if scorer in signed_methods() else scores.method
            file = judged / f"{name.replace(', ', '-')}-{scores.method}.json"
            before = file.is_file()
            curves = kept(opened, file, scores, proteins, args.fractions, args.module_fractions)
            if not before:
                tell(f"kept by {ranking}, {forms[ending]}")
            shared = select_top(first, 0.05) & select_top(second, 0.05)
            common = {
                "ranking": ranking, "form": forms[ending],
                "spearman_halves": float(spearmanr(first.values, second.values).statistic),
                "overlap_halves": len(shared) / len(select_top(first, 0.05)), "cpu_seconds_per_protein": seconds,
                "scored_proteins": len(scores.proteins), "validation_proteins": len(proteins),
            }  # fmt: skip
            for scope, by_metric in curves.items():
                axis = [0.0, *(args.fractions if scope == "pooled" else args.module_fractions), 1.0]
                for metric_name, values in by_metric.items():
                    area, room = float(curve_area(axis, values)), values[-1] - values[0]
                    # Of what lies between all held and intact; nothing can be said of a kind that carries nothing.
                    share = (area - values[0]) / room if room > args.room * abs(values[-1]) else np.nan
                    row = {"scope": scope, "metric": metric_name, "kept": share, "area": area}
                    rows.append(common | row | {"held": values[0], "intact": values[-1]})
    frame = pd.DataFrame(rows)[list(COLUMNS)]
    frame.to_csv(opened.run.path / "compare_rankings" / "rankings.csv", index=False)
    tell(f"{index!r}; {opened.run.path / 'compare_rankings' / 'rankings.csv'}")
    return frame


def digest(content: object) -> str:
    """A short name for what something was made from."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def tell(line: str) -> None:
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)


def markdown(frame: pd.DataFrame) -> Iterator[str]:
    """A table a metric, the best pooled first, and the mean over what was judged."""
    scopes = ["pooled", *MODULES]
    for name, part in frame.groupby("metric", sort=False):
        keys = ["ranking", "form"]
        wide = part.pivot_table(index=keys, columns="scope", values="kept", sort=False, dropna=False)
        wide = wide.reindex(columns=scopes)
        rest = part.drop_duplicates(keys).set_index(keys)
        wide = wide.assign(mean=wide[scopes].mean(axis=1)).join(
            rest[["spearman_halves", "overlap_halves", "cpu_seconds_per_protein"]]
        )
        n = int(part["validation_proteins"].iloc[0])
        yield f"\n{name}: share kept of what lies between all held and intact ({n} validation proteins)\n"
        heads = [*keys, *scopes, "mean", "halves: rank correlation", "halves: best 5 % shared", "CPU s a protein"]
        yield "| " + " | ".join(heads) + " |"
        yield "| --- " * len(heads) + "|"
        for key, row in wide.sort_values("mean", ascending=False, kind="stable").iterrows():
            cells = ["" if np.isnan(value) else f"{value:.3f}" for value in row]
            yield "| " + " | ".join([*map(str, key), *cells]) + " |"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder that is scored")
    parser.add_argument("--score", nargs="+", choices=sorted({scorer for _, scorer, _ in SCORES}), help="some scorers")
    parser.add_argument("--proteins", type=int, default=60, help="validation proteins, of distinct clusters; 0: all")
    parser.add_argument("--points", type=int, default=6, help="of paths; 0: as many as the study's tolerance asks for")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.2, 0.35, 0.5, 0.65, 0.8], help="kept, pooled")
    parser.add_argument("--module-fractions", type=float, nargs="+", default=[0.1, 0.2, 0.5], help="kept of a kind")
    parser.add_argument(
        "--room", type=float, default=0.05, help="a kind is judged if holding it costs this share of the intact metric"
    )
    try:
        print("\n".join(markdown(compared(parser.parse_args(argv)))))
    except PlmscopeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
