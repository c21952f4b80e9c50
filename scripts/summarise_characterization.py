"""Tables of what neurons detect, of one or several characterized runs, as Markdown for ``docs/results.md``.

    python scripts/summarise_characterization.py runs/enzymes

Explained means: confirmed, and F1 gain or AUROC on held-out clusters at least what the study says. "Matched others"
are all neurons of the same site and decile of ``activation_std`` (of the same site alone, if that was not scored) that
are not selected, weighted so that they have the selected neurons' numbers in every such group.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from plmscope.cards import Bars, explained
from plmscope.results import Run
from plmscope.settings import read_study
from plmscope.sites import MODULES
from scripts.summarise_runs import markdown

KEYS = ["layer", "module", "neuron"]


def best_of_neurons(run: Run) -> pd.DataFrame:
    """One row a neuron: the better of both signs, whether it is explained, by what."""
    settings = read_study(run.path / "study.toml").characterize
    table = run.table("associations")
    table = table[table["rank"] == 1]
    table = table.assign(explained=explained(table, Bars(settings.min_gain, settings.min_auroc)))
    kinds = run.table("concepts").set_index("concept")["kind"]
    table["kind"] = table["concept"].map(kinds)
    table = table.sort_values(["explained", "f1_gain"], ascending=False, kind="stable")
    return table.drop_duplicates(KEYS)


def by_module(run: Run) -> pd.DataFrame:
    """How many neurons of every module kind are explained, by what, at which F1 and AUROC."""
    best, rows = best_of_neurons(run), []
    for module in (*MODULES, "all"):
        part = best if module == "all" else best[best["module"] == module]
        good = part[part["explained"]]
        row = {
            "module": module,
            "neurons": f"{len(part):,}",
            "explained": f"{len(good):,} ({len(good) / len(part):.1%})",
        }
        row["confirmed, weaker"] = f"{(part['confirmed'] & ~part['explained']).mean():.1%}"
        for name in ("f1", "f1_gain", "auroc"):
            low, middle, high = good[name].quantile([0.25, 0.5, 0.75])
            row[f"{name}: median [quartiles]"] = f"{middle:.2f} [{low:.2f}, {high:.2f}]" if len(good) else "-"
        rows.append(
            row | {kind: f"{(good['kind'] == kind).sum():,}" for kind in sorted(best["kind"].dropna().unique())}
        )
    return pd.DataFrame(rows)


def bars(run: Run) -> pd.DataFrame:
    """How the share of explained neurons depends on what is asked for."""
    best = run.table("associations").query("rank == 1 and confirmed")
    total = len(run.table("neurons"))
    rows = []
    for gain in (0.2, 0.3, 0.5, 0.7, np.inf):
        row: dict[str, str] = {"F1 gain at least": "-" if np.isinf(gain) else f"{gain:g}"}
        for area in (0.7, 0.8, 0.9, np.inf):
            good = best[explained(best, Bars(gain, area))]
            name = "F1 alone" if np.isinf(area) else f"or AUROC at least {area:g}"
            row[name] = f"{len(good.drop_duplicates(KEYS)) / total:.1%}"
        rows.append(row)
    return pd.DataFrame(rows)


def top_concepts(run: Run, n: int = 20) -> pd.DataFrame:
    """The concepts that explain most neurons."""
    good = best_of_neurons(run).query("explained")
    found = good.groupby(["kind", "concept"]).agg(
        neurons=("f1", "size"), f1=("f1", "median"), auroc=("auroc", "median"), null_auroc=("null_auroc", "median")
    )
    return found.sort_values("neurons", ascending=False).head(n).round(2).reset_index()


def selected_against_others(run: Run) -> pd.DataFrame:
    """Selected neurons beside matched others."""
    best, cards = best_of_neurons(run), run.table("neuron_cards")
    neurons = run.table("neurons")
    strata = neurons[KEYS].copy()
    strata["stratum"] = neurons["layer"].astype(str) + neurons["module"]
    if "activation_std" in neurons:
        rank = neurons.groupby(["layer", "module"])["activation_std"].rank(pct=True)
        strata["stratum"] += (10 * rank).clip(upper=9.99).astype(int).astype(str)
    best = best.merge(strata, on=KEYS)
    rows = []
    for method, chosen in cards.groupby("method", sort=False):
        mark = best.merge(chosen[KEYS].assign(selected=True), on=KEYS, how="left")["selected"].notna().to_numpy()
        inside, outside = best[mark], best[~mark]
        counts = inside["stratum"].value_counts()
        pool = outside[outside["stratum"].isin(counts.index)]
        weight = pool["stratum"].map(counts / pool["stratum"].value_counts()).to_numpy()
        row = {"method": method, "selected": len(inside), "matched others": len(pool)}
        for name, column in (("explained", "explained"), ("F1 gain", "f1_gain"), ("AUROC", "auroc")):
            own, other = inside[column].mean(), np.average(pool[column], weights=weight) if len(pool) else np.nan
            row[f"{name}: selected / others"] = f"{own:.3f} / {other:.3f}"
        own_cards = chosen
        row["with motif"] = f"{(own_cards['motif'] != '').mean():.1%}"
        row["unexplained (concept and motif)"] = f"{(~own_cards['explained']).mean():.1%}"
        rows.append(row)
    return pd.DataFrame(rows)


def controls(runs: list[Run]) -> pd.DataFrame:
    """What was compared, and what the same test says of shifted annotations."""
    rows = []
    for run in runs:
        found = run.manifest()["characterize"]
        rows.append(
            {
                "run": run.path.name, "proteins: discovery / confirmation":
                f"{found['discovery_proteins']:,} / {found['confirmation_proteins']:,}",
                "concepts": found["concepts"], "neurons": f"{found['neurons']:,}",
                "pairs tested": f"{found['pairs_tested']:,}", "confirmed": f"{found['pairs_confirmed']:,}",
                "confirmed with shifted annotations": f"{found['pairs_confirmed_shifted']:,}",
                "seconds": run.manifest()["stages"]["characterize"].get("seconds", ""),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def sites(run: Run) -> pd.DataFrame:
    """Whether annotated residues attract attribution."""
    table = run.table("attributed_residues")
    kinds = run.table("concepts").set_index("concept")["kind"]
    table = table[table["concept"].map(kinds) == "feature"] if (kinds == "feature").any() else table
    return pd.DataFrame(
        {
            "annotation": table["concept"], "attribution of": table["of"], "clusters": table["n_clusters"],
            "AUROC (shifted)": [f"{a:.3f} ({b:.3f})" for a, b in zip(table["auroc"], table["null_auroc"], strict=True)],
            "q": table["q_value"].map("{:.2g}".format),
            "AUROC among the same amino acids": table["auroc_same_letter"].map("{:.3f}".format),
            "q (same amino acids)": table["q_same_letter"].map("{:.2g}".format),
        }
    )  # fmt: skip


def motifs(run: Run, n: int = 15) -> pd.DataFrame:
    """Motifs that recur among the selected neurons."""
    table = run.table("motifs").query("consensus != '' and n_fired >= 10 and auroc_held_out >= 0.8")
    rows = []
    for _, part in sorted(table.groupby("group"), key=lambda item: -len(item[1]))[:n]:
        first = part.sort_values("auroc_held_out", ascending=False).iloc[0]
        rows.append(
            {
                "motif": first["consensus"], "neurons": len(part.drop_duplicates(KEYS)),
                "modules": ", ".join(f"{m} {c}" for m, c in part["module"].value_counts().items()),
                "bits": f"{part['information_bits'].median():.1f}", "AUROC": f"{part['auroc_held_out'].median():.2f}",
                "enrichment": f"{part['enrichment'].median():.0f}",
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=["motif", "neurons", "modules", "bits", "AUROC", "enrichment"])


def main() -> None:
    """Read the runs, print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    runs = [Run.open(path) for path in parser.parse_args().runs]
    print(f"### What was compared, and the control\n\n{markdown(controls(runs))}")
    for run in runs:
        name = f" ({run.path.name})" if len(runs) > 1 else ""
        for title, frame in (
            ("Neurons explained by a concept, by module", by_module(run)),
            ("The same with other bars: share of all neurons", bars(run)),
            ("Concepts that explain most neurons", top_concepts(run)),
            ("Selected neurons against matched others", selected_against_others(run)),
            ("Motifs that recur among the selected neurons", motifs(run)),
            ("Do annotated residues attract attribution?", sites(run)),
        ):
            print(f"### {title}{name}\n\n{markdown(frame)}")


if __name__ == "__main__":
    main()
