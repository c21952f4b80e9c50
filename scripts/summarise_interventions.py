"""Tables of what suppressing and enhancing each class's neurons does, as Markdown for ``docs/results.md``.

    python scripts/summarise_interventions.py runs/enzymes

Rows of a matrix are the class whose best neurons were changed, columns the class that is measured; a cell is the change
of the mean probability of that class's test proteins minus the mean change under matched draws, with a star where its
q value is below 0.05.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from plmscope.results import Run
from scripts.summarise_runs import markdown


def how(factor: float) -> str:
    """A factor in words."""
    return "held at the mean" if np.isnan(factor) else f"x {factor:g}"


def matrix(effects: pd.DataFrame) -> pd.DataFrame:
    """Class by class: change of probability over that of matched draws."""
    frame = effects[effects["effect_on"] != ""]
    mark = np.where(frame["q_value"] < 0.05, "*", "")
    cells = frame["difference"].map("{:+.3f}".format) + mark
    wide = frame.assign(cell=cells).pivot(index="label", columns="effect_on", values="cell")
    return wide.rename_axis("neurons of", axis=0).rename_axis(None, axis=1).reset_index()


def own_and_others(effects: pd.DataFrame) -> pd.DataFrame:
    """What each class's neurons do to itself and to the others, decisions included."""
    rows = []
    for label, part in effects.groupby("label", sort=False):
        own, rest = (part[part["effect_on"] == name].iloc[0] for name in (label, ""))
        rows.append(
            {
                "neurons of": label, "proteins": own["n_proteins"], "right before": own["decisions_right"],
                "own probability": f"{own['probability_change']:+.3f}", "matched draws": f"{own['against']:+.3f}",
                "difference [95 %]": f"{own['difference']:+.3f} [{own['ci_low']:+.3f}, {own['ci_high']:+.3f}]",
                "p": f"{own['p_value']:.2g}", "q": f"{own['q_value']:.2g}",
                "right decisions lost (draws)": f"{own['decisions_lost']} ({own['decisions_lost_against']:.1f})",
                "other classes: difference": f"{rest['difference']:+.3f}",
                "their decisions lost (draws)": f"{rest['decisions_lost']} ({rest['decisions_lost_against']:.1f})",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def doses(effects: pd.DataFrame) -> pd.DataFrame:
    """Mean change of the own class's probability by factor, over classes."""
    own = effects[effects["label"] == effects["effect_on"]]
    rest = effects[effects["effect_on"] == ""]
    table = own.groupby("factor", dropna=False)[["probability_change", "against", "decisions_lost"]].mean()
    table["others"] = rest.groupby("factor", dropna=False)["probability_change"].mean()
    table = table.reset_index().rename(
        columns={
            "probability_change": "own probability", "against": "matched draws", "others": "other classes",
            "decisions_lost": "right decisions lost a class",
        }
    )  # fmt: skip
    return table.assign(factor=table["factor"].map(how)).round(3)


def stability(run: Run) -> pd.DataFrame:
    """Whether others choose the same neurons."""
    frame = run.table("stability")
    names = ["method", "label", "compared_with", "n", "shared", "jaccard", "jaccard_expected", "p_value", "spearman"]
    frame = frame[names].assign(label=frame["label"].replace("", "all"), p_value=frame["p_value"].map("{:.2g}".format))
    return frame.rename(columns={"label": "class"}).round(3)


def overlap(run: Run) -> pd.DataFrame:
    """Jaccard index of every two classes' neurons, and what chance gives."""
    frame = run.table("class_overlap")
    cells = frame["jaccard"].map("{:.2f}".format) + " (" + frame["jaccard_expected"].map("{:.2f}".format) + ")"
    cells = cells + np.where(frame["q_value"] < 0.05, "*", "")
    wide = frame.assign(cell=cells).pivot(index="label", columns="other", values="cell")
    return wide.rename_axis("class", axis=0).rename_axis(None, axis=1).reset_index()


def main() -> None:
    """Read the run, print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    effects = run.table("intervention_effects")
    for method in effects["method"].unique():
        of_method = effects[effects["method"] == method]
        for factor in of_method["factor"].unique():
            part = of_method[of_method["factor"].isna() if np.isnan(factor) else of_method["factor"] == factor]
            if part["n_draws"].min() == 0:
                continue
            print(f"### Neurons by {method}, {how(factor)}\n\n{markdown(own_and_others(part))}")
            print(f"Change of probability over that of matched draws, class by class:\n\n{markdown(matrix(part))}")
        print(f"### Doses, mean over classes ({method})\n\n{markdown(doses(of_method))}")
    print(f"### Neurons that two classes share: Jaccard (matched expectation)\n\n{markdown(overlap(run))}")
    print(f"### Do others choose the same neurons?\n\n{markdown(stability(run))}")


if __name__ == "__main__":
    main()
