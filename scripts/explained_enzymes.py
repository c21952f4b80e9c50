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
percentile bootstraps over proteins, 2,000 resamples. What is left out is counted.

What a language model saw before the run is not known to the run. Of the embedded one it is known: everything half or
more identical with a protein that the embedded table marks ``held_out`` was left out of its training. With ``--unseen
TABLE`` only such enzymes are taken; those that are the table's own held-out proteins, to which *no* protein of either
training comes that near, go first and are told apart as well.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import plmscope as ps
from plmscope.data.leakage import leakage
from plmscope.data.proteins import Protein
from plmscope.explaining.contributions import contributions
from plmscope.explaining.decision import Decision
from plmscope.explaining.held import held_alone
from plmscope.explaining.residues import Band, residue_attribution, shuffled_band
from plmscope.models.hooked import network_of
from plmscope.study.opened import OpenRun

RESAMPLES, DRAWS = 2000, 1000
#: Identity with a held-out protein from which the embedded model was not trained on a sequence.
LEFT_OUT = 0.5


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
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
    parser.add_argument("--unseen", help="table with columns held_out and sequence: only what resembles those held out")
    parser.add_argument("--top", type=float, default=0.05, help="share of residues that is the most attributed")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def chosen(run: OpenRun, asked: argparse.Namespace) -> tuple[list[Protein], dict[str, np.ndarray], set[str]]:
    """Proteins in random order, their annotated residues (0-based), and the ids of those that are themselves held out.

    With ``--unseen`` the latter go first.
    """
    sites = pd.read_csv(asked.sites, sep="\t")
    sites = sites[sites["feature_type"] == asked.feature]
    enzymes = pd.read_csv(asked.enzymes, sep="\t", keep_default_na=False)
    left: Counter[str] = Counter()
    enzymes = enzymes[enzymes["accession"].isin(set(sites["key"]))].sample(frac=1, random_state=asked.seed)
    held = held_out(asked.unseen) if asked.unseen else []
    themselves = {p.sequence for p in held}
    if held:
        enzymes = enzymes.sort_values("sequence", key=lambda s: ~s.isin(themselves), kind="stable")
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
    if held:
        among = leakage(held, far).set_index("id")["identity"].fillna(0)
        unseen = [p for p in far if among[p.id] >= LEFT_OUT]
        left["unlike the held-out ones, so perhaps seen"] = len(far) - len(unseen)
        far = unseen
    own = {p.id for p in far if p.sequence in themselves}
    print(f"{len(far)} proteins can be used, {len(own)} themselves held out; left out: {dict(left)}")
    return far, residues, own


def held_out(table: str) -> list[Protein]:
    """The proteins that an embedded table keeps from every training."""
    rows = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False)
    return [Protein(f"held {n}", text) for n, text in enumerate(rows.loc[rows["held_out"] == "1", "sequence"])]


def tallied(
    values: np.ndarray, band: Band, own: np.ndarray, letters: np.ndarray, top: float, rng: np.random.Generator
) -> dict[str, Any]:
    """How many annotated residues of one protein are among the strongest and outside the band, and how many others.

    Args:
        values: ``(R,)`` attribution.
        band: Of shuffled copies.
        own: Annotated residues.
        letters: ``(R,)``.
        top: Share that is the strongest, by absolute attribution.
        rng: Draws for each annotated residue others with its letter; one without has no say there.
    """
    size = np.abs(values)
    strong = size >= np.sort(size)[-max(1, round(top * len(size)))]
    above, outside = values > band.high, band.outside(values)
    others = [np.setdiff1d(np.flatnonzero(letters == letters[r]), own) for r in own]
    usable = [(r, place) for r, place in zip(own, others, strict=True) if len(place)]
    drawn = [rng.choice(place, DRAWS) for _, place in usable]
    found: dict[str, Any] = {"sites": len(own), "length": len(values), "usable": len(usable)}
    for name, mask in (("strong", strong), ("outside", outside), ("above", above)):
        found |= {
            name: mask[own].sum(), f"all_{name}": mask.sum(), f"usable_{name}": sum(mask[r] for r, _ in usable),
            f"drawn_{name}": np.sum([mask[d] for d in drawn], axis=0) if drawn else np.zeros(DRAWS),
        }  # fmt: skip
    return found


def interval(values: np.ndarray, weights: np.ndarray | None, seed: int) -> str:
    """Mean with its interval over proteins; ``values`` are sums and ``weights`` counts of each, or 1."""
    weights = np.ones(len(values)) if weights is None else weights
    picks = np.random.default_rng([seed, 1]).integers(0, len(values), (RESAMPLES, len(values)))
    again = values[picks].sum(1) / weights[picks].sum(1)
    low, high = np.quantile(again, (0.025, 0.975))
    return f"{values.sum() / weights.sum():.3f} ({low:.3f} to {high:.3f})"


def of_sites(
    run: OpenRun,
    proteins: list[Protein],
    residues: dict[str, np.ndarray],
    themselves: set[str],
    asked: argparse.Namespace,
) -> None:
    """The first question."""
    network, rows = network_of(run.model), []
    rng = np.random.default_rng([asked.seed, 2])
    for protein in proteins:
        decision = Decision.of(run.model, network, protein, protein.label)
        found = residue_attribution(decision)
        band = shuffled_band(decision, found, seed=asked.seed)
        one = tallied(found.values, band, residues[protein.id], np.array(list(protein.sequence)), asked.top, rng)
        rows.append(one | {"right": decision.decided == (protein.label,), "held": protein.id in themselves})
        said = f"{one['outside']} of {one['sites']} outside the band, {one['strong']} among the strongest"
        print(f"  {protein.id}: {said}", flush=True)
    every = pd.DataFrame(rows)
    groups = {"all": every, "decided rightly": every[every["right"]]}
    groups |= {
        "themselves held out": every[every["held"]],
        "and decided rightly": every[every["held"] & every["right"]],
    }
    for name, table in groups.items():
        if not len(table):
            continue
        print(f"\n{name}: {len(table)} proteins, {table['sites'].sum()} annotated residues, seed {asked.seed}")
        for what in ("strong", "outside", "above"):
            of = interval(table[what].to_numpy(float), table["sites"].to_numpy(float), asked.seed)
            rest = interval(table[f"all_{what}"].to_numpy(float), table["length"].to_numpy(float), asked.seed)
            print(f"  share {what}: annotated {of}, all residues {rest}")
        for what in ("strong", "outside", "above"):
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


def main(argv: Sequence[str] | None = None) -> None:
    asked = arguments(argv)
    run = ps.open_run(asked.run)
    proteins, residues, themselves = chosen(run, asked)
    if asked.ablated:
        of_neurons(run, proteins[: asked.ablated], asked)
    of_sites(run, proteins[: asked.proteins], residues, themselves, asked)


if __name__ == "__main__":
    main()
