"""Hold what ``plmscope explain`` says of enzymes against annotated active sites and against single ablation.

Two questions, on proteins that no protein of the run's training set comes near:

1. Are annotated active-site residues among the 5 % most attributed ones of their protein, more often than other
   residues with the same letter in the same protein, and more often outside the band of shuffled copies?
2. Does the attributed contribution of a neuron to one protein agree with what becomes of it when the neuron alone is
   held (Spearman over neurons drawn evenly from all sites)?

::

    python scripts/explained_enzymes.py runs/demo --enzymes enzymes.tsv.gz --sites sites.tsv.gz --proteins 60

``--enzymes`` has the columns ``accession, ec, sequence`` and, if homologs are to count once, ``cluster30``; ``--sites``
has ``key`` (an accession), ``feature_type``, ``start`` and ``end`` (1-based, both included). Intervals are 95 %
percentile bootstraps over proteins, 2,000 resamples. What is left out is counted. What the language model saw before
the run is not looked at.
"""

import argparse
from collections import Counter

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import plmscope as ps
from plmscope.data.leakage import leakage
from plmscope.data.proteins import Protein
from plmscope.explaining.contributions import contributions
from plmscope.explaining.decision import Decision
from plmscope.explaining.held import held_alone
from plmscope.explaining.residues import residue_attribution, shuffled_band
from plmscope.models.hooked import network_of
from plmscope.study.opened import OpenRun

RESAMPLES, DRAWS = 2000, 1000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a scored run")
    parser.add_argument("--enzymes", required=True, help="table of enzymes")
    parser.add_argument("--sites", required=True, help="table of their residue features")
    parser.add_argument("--feature", default="ACT_SITE", help="feature type that is looked for")
    parser.add_argument("--proteins", type=int, default=60, help="proteins of the first question")
    parser.add_argument("--ablated", type=int, default=12, help="proteins of the second question")
    parser.add_argument("--neurons", type=int, default=200, help="neurons held alone in each of them")
    parser.add_argument("--longest", type=int, default=300, help="residues of a protein at most")
    parser.add_argument("--identity", type=float, default=0.5, help="largest identity with a training protein")
    parser.add_argument("--top", type=float, default=0.05, help="share of residues that is the most attributed")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def chosen(run: OpenRun, asked: argparse.Namespace) -> tuple[list[Protein], dict[str, np.ndarray]]:
    """Proteins in random order, and their annotated residues (0-based)."""
    sites = pd.read_csv(asked.sites, sep="\t")
    sites = sites[sites["feature_type"] == asked.feature]
    enzymes = pd.read_csv(asked.enzymes, sep="\t", keep_default_na=False)
    left: Counter[str] = Counter()
    enzymes = enzymes[enzymes["accession"].isin(set(sites["key"]))].sample(frac=1, random_state=asked.seed)
    residues = {
        str(key): np.unique(
            np.concatenate([np.arange(a - 1, b) for a, b in zip(own["start"], own["end"], strict=True)])
        )
        for key, own in sites.groupby("key")
    }
    proteins, seen = [], set()
    for row in enzymes.to_dict("records"):
        classes = {number.split(".")[0] for number in row["ec"].split(";")}
        cluster = row.get("cluster30", row["accession"])
        if len(classes) > 1 or not classes <= set(run.model.labels):
            left["not of one class of the model"] += 1
        elif len(row["sequence"]) > asked.longest:
            left[f"longer than {asked.longest} residues"] += 1
        elif residues[row["accession"]].max() >= len(row["sequence"]):
            left["a site beyond the sequence"] += 1
        elif cluster in seen:
            left["of a cluster that is there"] += 1
        else:
            seen.add(cluster)
            proteins.append(Protein(row["accession"], row["sequence"], classes.pop()))
    near = leakage(run.proteins("train"), proteins).set_index("id")["identity"].fillna(0)
    far = [p for p in proteins if near[p.id] < asked.identity]
    left[f"{asked.identity:.0%} or more identical with a training protein"] = len(proteins) - len(far)
    print(f"{len(far)} proteins can be used; left out: {dict(left)}")
    return far, residues


def interval(values: np.ndarray, weights: np.ndarray | None, seed: int) -> str:
    """Mean with its interval over proteins; ``values`` are sums and ``weights`` counts of each, or 1."""
    weights = np.ones(len(values)) if weights is None else weights
    picks = np.random.default_rng([seed, 1]).integers(0, len(values), (RESAMPLES, len(values)))
    again = values[picks].sum(1) / weights[picks].sum(1)
    low, high = np.quantile(again, (0.025, 0.975))
    return f"{values.sum() / weights.sum():.3f} ({low:.3f} to {high:.3f})"


def of_sites(run: OpenRun, proteins: list[Protein], residues: dict[str, np.ndarray], asked: argparse.Namespace) -> None:
    """The first question."""
    network, rows = network_of(run.model), []
    rng = np.random.default_rng([asked.seed, 2])
    for protein in proteins:
        decision = Decision.of(run.model, network, protein, protein.label)
        found = residue_attribution(decision)
        band = shuffled_band(decision, found, seed=asked.seed)
        size, own = np.abs(found.values), residues[protein.id]
        strong = size >= np.sort(size)[-max(1, round(asked.top * len(size)))]
        above, outside = found.values > band.high, band.outside(found.values)
        letters = np.array(list(protein.sequence))
        # Each annotated residue has all others with its letter to be drawn from; one without has no say in the draws.
        others = [np.setdiff1d(np.flatnonzero(letters == letters[r]), own) for r in own]
        usable = [(r, place) for r, place in zip(own, others, strict=True) if len(place)]
        drawn = [rng.choice(place, DRAWS) for _, place in usable]
        rows.append(
            {
                "right": decision.decided == (protein.label,), "sites": len(own), "length": len(protein),
                "strong": strong[own].sum(), "above": above[own].sum(), "outside": outside[own].sum(),
                "all_strong": strong.sum(), "all_above": above.sum(), "all_outside": outside.sum(),
                "usable": len(usable), "usable_strong": sum(strong[r] for r, _ in usable),
                "usable_outside": sum(outside[r] for r, _ in usable),
                "drawn_strong": np.sum([strong[d] for d in drawn], axis=0) if drawn else np.zeros(DRAWS),
                "drawn_outside": np.sum([outside[d] for d in drawn], axis=0) if drawn else np.zeros(DRAWS),
            }
        )  # fmt: skip
        print(f"  {protein.id}: {strong[own].sum()} of {len(own)} among the strongest", flush=True)
    every = pd.DataFrame(rows)
    for name, table in (("all", every), ("decided rightly", every[every["right"]])):
        if not len(table):
            continue
        print(f"\n{name}: {len(table)} proteins, {table['sites'].sum()} annotated residues, seed {asked.seed}")
        for what in ("strong", "outside", "above"):
            of = interval(table[what].to_numpy(float), table["sites"].to_numpy(float), asked.seed)
            rest = interval(table[f"all_{what}"].to_numpy(float), table["length"].to_numpy(float), asked.seed)
            print(f"  share {what}: annotated {of}, all residues {rest}")
        for what in ("strong", "outside"):
            draws = np.stack(table[f"drawn_{what}"].to_list())  # (P, D)
            n, had = table["usable"].to_numpy(float), table[f"usable_{what}"].to_numpy(float)
            p = (1 + (draws.sum(0) >= had.sum()).sum()) / (1 + DRAWS)
            print(
                f"  against the own letter, {int(n.sum())} residues, {what}: annotated {interval(had, n, asked.seed)}, "
                f"drawn {interval(draws.mean(1), n, asked.seed)}, difference "
                f"{interval(had - draws.mean(1), n, asked.seed)}, p = {p:.3g}"
            )


def of_neurons(run: OpenRun, proteins: list[Protein], asked: argparse.Namespace) -> None:
    """The second question."""
    model, found = run.model, []
    network, index = network_of(model), model.index
    for number, protein in enumerate(proteins):
        decision = Decision.of(model, network, protein, protein.label)
        given = contributions(decision, model.ablation_means)
        rng = np.random.default_rng([asked.seed, 3, number])
        each = max(1, asked.neurons // len(index.sites))
        drawn = [
            index.offsets[s] + rng.choice(index.slice(s).stop - index.offsets[s], each, False) for s in index.sites
        ]
        places, listed = np.concatenate(drawn), given.strongest(15, 5)
        one = {}
        for name, some in (("drawn", places), ("listed", np.array(listed))):
            effects = held_alone(decision, [int(n) for n in some], model.ablation_means)
            one[name] = spearmanr(given.values[some], effects).statistic
            one[f"{name}_sign"] = np.mean(np.sign(given.values[some]) == np.sign(effects))
            one[f"{name}_size"] = np.abs(effects).mean()
        found.append(one)
        print(
            f"  {protein.id}: r = {one['drawn']:.3f} of {len(places)} drawn, {one['listed']:.3f} of those listed",
            flush=True,
        )
    table = pd.DataFrame(found)
    print(f"\nneurons: {len(table)} proteins, {len(places)} neurons drawn from all sites in each, seed {asked.seed}")
    for name in table.columns:
        print(f"  {name}: {interval(table[name].to_numpy(), None, asked.seed)}")


def main() -> None:
    asked = arguments()
    run = ps.open_run(asked.run)
    proteins, residues = chosen(run, asked)
    of_neurons(run, proteins[: asked.ablated], asked)
    of_sites(run, proteins[: asked.proteins], residues, asked)


if __name__ == "__main__":
    main()
