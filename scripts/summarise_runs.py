"""Tables of several finished runs as Markdown, for ``docs/results.md``: nothing there is typed by hand.

    python scripts/summarise_runs.py runs/seed0 runs/seed1 runs/seed2

Runs are taken as one study with several seeds. Means are over runs; "beats" counts the runs whose own primary
comparison has p < 0.05 and an interval above 0.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from plmscope.results import Run


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a Markdown table."""
    rows = [
        list(map(str, frame.columns)),
        ["---"] * frame.shape[1],
        *frame.astype(object).where(frame.notna(), "–").astype(str).to_numpy().tolist(),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def quality(runs: list[Run]) -> pd.DataFrame:
    """Test quality of every run beside the classifiers that know no order."""
    rows = []
    for run in runs:
        test, manifest = run.metrics()["splits"]["test"], run.manifest()
        seconds = sum(stage.get("seconds", 0) for stage in manifest["stages"].values())
        memory = max(stage.get("peak_memory_mb", 0) for stage in manifest["stages"].values())
        row = {"run": run.path.name, "seed": manifest["seed"], "test proteins": test["model"]["n"]}
        for name in ("model", "composition", "majority"):
            row[f"{name}: balanced accuracy"] = f"{test[name]['balanced_accuracy']:.3f}"
        row |= {"model: accuracy": f"{test['model']['accuracy']:.3f}", "model: MCC": f"{test['model']['mcc']:.3f}"}
        if "mean_average_precision" in test["model"]:  # multi-label
            for name in ("model", "composition"):
                row[f"{name}: mean average precision"] = f"{test[name]['mean_average_precision']:.3f}"
        rows.append(row | {"minutes": f"{seconds / 60:.0f}", "peak memory (GB)": f"{memory / 1024:.1f}"})
    return pd.DataFrame(rows)


def leakage(runs: list[Run]) -> pd.DataFrame:
    """Nearest training identity of the test proteins."""
    rows = []
    for run in runs:
        frame = run.table("leakage")
        values = frame.loc[frame["split"] == "test", "identity"]
        bands = {"no hit": (values == 0).mean(), "< 30 %": ((values > 0) & (values < 0.3)).mean()}
        bands |= {"30-50 %": ((values >= 0.3) & (values < 0.5)).mean(), ">= 50 %": (values >= 0.5).mean()}
        rows.append({"run": run.path.name} | {name: f"{share:.1%}" for name, share in bands.items()})
    return pd.DataFrame(rows)


def primary(runs: list[Run]) -> pd.DataFrame:
    """The primary outcome, run by run and together, and the same cell against the other controls."""
    rows = []
    cell = {"metric": "balanced_accuracy", "mode": "keep", "ablation": "mean", "scope": "pooled"}
    tables = [run.table("comparison") for run in runs]
    for method in tables[0]["method"].unique():
        for control in tables[0]["against"].unique():
            found = []
            for table in tables:
                part = table[(table["method"] == method) & (table["against"] == control)]
                for key, value in cell.items():
                    part = part[part[key] == value]
                found.append(part.iloc[0])
            each = [f"{r.difference:+.3f} [{r.ci_low:+.3f}, {r.ci_high:+.3f}] p={r.p_value:.2g}" for r in found]
            beats = sum(r.p_value < 0.05 and r.ci_low > 0 for r in found)
            mean = np.mean([r.difference for r in found])
            rows.append(
                {
                    "method": method,
                    "against": control,
                    "mean difference": f"{mean:+.3f}",
                    "beats": f"{beats} of {len(found)}",
                }
                | {run.path.name: text for run, text in zip(runs, each, strict=True)}
            )
    return pd.DataFrame(rows)


def survivors(runs: list[Run]) -> pd.DataFrame:
    """What each share that is kept leaves of the balanced accuracy (pooled, mean ablation), mean over runs."""
    tables = []
    for run in runs:
        frame = run.table("curves")
        intact = frame.loc[frame["ablation"] == "none", "balanced_accuracy"].iloc[0]
        frame = frame[(frame["mode"] == "keep") & (frame["ablation"] == "mean") & (frame["scope"] == "pooled")]
        own = frame[frame["draw"] < 0].rename(columns={"balanced_accuracy": "kept"})[["method", "fraction", "kept"]]
        drawn = frame[frame["method"] == "random_matched"].groupby(["matched_to", "fraction"])["balanced_accuracy"]
        drawn = drawn.agg(["mean", "std"]).reset_index().rename(columns={"matched_to": "method"})
        tables.append(own.merge(drawn, on=["method", "fraction"]).assign(intact=intact))
    rows = []
    for (fraction, method), part in pd.concat(tables).groupby(["fraction", "method"], sort=True):
        rows.append(
            {
                "kept": f"{fraction:.0%}", "method": method, "runs": len(part),
                "intact": f"{part['intact'].mean():.3f}",
                "best by the method": f"{part['kept'].mean():.3f}",
                "matched chance (SD of draws)": f"{part['mean'].mean():.3f} ({part['std'].mean():.3f})",
                "difference": f"{(part['kept'] - part['mean']).mean():+.3f}",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def cells(runs: list[Run]) -> pd.DataFrame:
    """Balanced accuracy in every other cell against matched chance: sign and number of runs that beat it."""
    frame = pd.concat([run.table("comparison").assign(run=run.path.name) for run in runs])
    frame = frame[(frame["metric"] == "balanced_accuracy") & (frame["against"] == "random_matched")]
    rows = []
    for key, part in frame.groupby(["method", "scope", "mode", "ablation"], sort=False):
        good = part["difference"] * part["better"]
        beats = ((part["p_value"] < 0.05) & (good > 0)).sum()
        names = dict(zip(("method", "scope", "mode", "ablation"), key, strict=True))
        rows.append(names | {"mean gain (+ is good)": f"{good.mean():+.3f}", "p < 0.05": f"{beats} of {len(part)}"})
    return pd.DataFrame(rows)


def keys(runs: list[Run]) -> pd.DataFrame:
    """Enrichment of key neurons among the selected, beside the null models."""
    rows = []
    for run in (run for run in runs if run.has("density")):
        frame = run.table("density")
        null = run.table("density_null") if run.has("density_null") else None
        for r in frame[(frame["layer"] == -1) & (frame["module"] == "key")].itertuples():
            row = {"run": run.path.name, "method": r.method, "top": f"{r.fraction:.0%}"}
            row["keys: enrichment [95 %]"] = f"{r.enrichment:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]"
            if null is not None:
                part = null[(null["layer"] == -1) & (null["module"] == "key")]
                part = part[(part["method"] == r.method) & (part["fraction"] == r.fraction)]
                row |= {
                    name.replace("_", " "): f"{value:.2f}"
                    for name, value in zip(part["null"], part["enrichment"], strict=True)
                }
            rows.append(row)
    return pd.DataFrame(rows)


def modules(runs: list[Run], fraction: float) -> pd.DataFrame:
    """Enrichment of every module kind, mean over runs."""
    frame = pd.concat([run.table("density") for run in runs])
    frame = frame[(frame["layer"] == -1) & np.isclose(frame["fraction"], fraction)]
    wide = frame.groupby(["method", "module"], sort=False)["enrichment"].mean().unstack(sort=False).round(2)
    return wide.reset_index()


def completeness(runs: list[Run], first_layers: int = 3) -> pd.DataFrame:
    """Mean size of the completeness gap as a share of the mean size of the change, by module and first layers."""
    rows = []
    for run in (run for run in runs if run.has("completeness")):
        frame = run.table("completeness")
        layers = sorted(frame["layer"].unique())[:first_layers]
        for (method, module), own in frame.groupby(["method", "module"], sort=True):
            parts = {"all layers": own} | {f"layer {layer}": own[own["layer"] == layer] for layer in layers}
            row = {"run": run.path.name, "method": method, "module": module}
            low, high = own["points"].min(), own["points"].max()
            row["points"] = str(low) if low == high else f"{low} to {high}"
            for name, part in parts.items():
                row[name] = f"{part['gap'].abs().mean() / part['expected'].abs().mean():.1%}" if len(part) else "–"
            rows.append(
                row | {"gap above 5 % of the change": f"{(own['gap'].abs() > 0.05 * own['expected'].abs()).mean():.0%}"}
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Read the runs, print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    runs = [Run.open(path) for path in parser.parse_args().runs]
    for title, frame in (
        ("Model quality on test clusters", quality(runs)),
        ("Nearest training identity of the test proteins", leakage(runs)),
        ("Completeness gap: mean size as a share of the mean change, by module and first layers", completeness(runs)),
        ("Area over chance: keep, mean ablation, pooled, balanced accuracy (primary: random_matched)", primary(runs)),
        ("Balanced accuracy by the share that is kept, all others at their mean", survivors(runs)),
        ("All cells against matched chance", cells(runs)),
        ("Are keys dense?", keys(runs)),
        ("Enrichment of each module among the top 5 %", modules(runs, 0.05)),
    ):
        print(f"### {title}\n\n{markdown(frame)}")


if __name__ == "__main__":
    main()
