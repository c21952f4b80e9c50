"""The tables of a comparison: what every run says, one row a run and cell, and what they say together.

Every table but ``settings``, ``neurons`` and ``combined`` starts with ``run``, ``group`` and ``role``. ``combined``
holds an estimate over the confirmation runs of a group for every ``quantity``; the columns that name its cell are
empty where they do not apply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.comparing.alike import COLUMNS as SHARED
from plmscope.comparing.alike import shared_table
from plmscope.comparing.beyond import COLUMNS as BEYOND
from plmscope.comparing.beyond import knowledge, layout
from plmscope.comparing.estimates import COLUMNS as ESTIMATED
from plmscope.comparing.estimates import combine
from plmscope.comparing.members import CONFIRMATION, Member, settings_table
from plmscope.knowledge.cards import Bars, explained
from plmscope.models.architectures import MODULES

WHO = ("run", "group", "role")
CELL = ("method", "against", "scope", "module", "mode", "ablation", "metric")
KIND = ("model", "method", "mode", "ablation", "metric", "module")
NAMES = (
    "model", "method", "against", "scope", "module", "mode", "ablation", "metric", "fraction", "label", "factor",
    "effect", "what",
)  # fmt: skip
#: Columns of every table of a comparison, in order; its file is ``compared_NAME.parquet``.
COMPARED: dict[str, tuple[str, ...]] = {
    "runs": (
        *WHO, "seed", "model", "parameters", "layers", "neurons", "test_proteins", "evaluated_proteins",
        "balanced_accuracy", "accuracy", "mcc", "mean_average_precision", "composition", "majority", "margin",
        "nearest_none", "nearest_below_30", "nearest_30_to_50", "nearest_from_50", "pairs_confirmed",
        "pairs_confirmed_shifted", "minutes", "peak_memory_gb", "folder",
    ),
    "settings": ("setting", "run", "value", "divides"),
    "outcomes": (
        *WHO, *CELL, "auc", "auc_against", "difference", "better", "ci_low", "ci_high", "p_value", "p_holm", "p_kind",
        "n_draws", "draws_beaten", "primary", "beats",
    ),
    "kinds": (
        *WHO, *KIND, "n_neurons", "intact", "held", "carried", "carried_low", "carried_high", "judged",
        "sufficient_share", "sufficient_low", "sufficient_high", "sufficient_share_against", "concentration",
        "concentration_low", "concentration_high",
    ),
    "density": (
        *WHO, "method", "fraction", "module", "n_total", "n_selected", "density", "enrichment", "ci_low", "ci_high",
        "enrichment_permuted", "p_permutation", "label_shuffled", "random_weights",
    ),
    "curves": (
        *WHO, "method", "scope", "module", "mode", "ablation", "fraction", "intact", "kept", "drawn", "drawn_sd",
        "n_draws",
    ),
    "neurons": SHARED,
    "detected": (*WHO, "module", "neurons", "explained", "explained_share", "confirmed_weaker_share"),
    "knowledge": (*WHO, *BEYOND),
    "layout": (*WHO, *BEYOND),
    "interventions": (
        *WHO, "method", "label", "mode", "factor", "effect", "n_proteins", "probability_change", "against",
        "difference", "ci_low", "ci_high", "p_value", "q_value", "n_draws", "decisions_right", "decisions_lost",
        "decisions_lost_against",
    ),
    "completeness": (*WHO, "method", "module", "points_fewest", "points_most", "gap", "above_5_percent"),
    "combined": ("group", "quantity", *NAMES, *ESTIMATED, "beat"),
}  # fmt: skip
#: Metrics whose areas are compared over runs.
JUDGED_METRICS = ("balanced_accuracy", "log_probability")


def all_tables(members: Sequence[Member]) -> dict[str, pd.DataFrame]:
    """Every table of a comparison by its name, columns as in :data:`COMPARED`."""
    made = {
        "runs": _each(members, "runs", _run_row),
        "settings": settings_table(members),
        "outcomes": _each(members, "outcomes", _outcomes),
        "kinds": _each(members, "kinds", lambda member: member.table("modules")),
        "density": _each(members, "density", _density),
        "curves": _each(members, "curves", _curves),
        "neurons": shared_table(members),
        "detected": _each(members, "detected", _detected),
        "knowledge": _each(members, "knowledge", knowledge),
        "layout": _each(members, "layout", layout),
        "interventions": _each(members, "interventions", _interventions),
        "completeness": _each(members, "completeness", _completeness),
    }
    made["combined"] = _combined(made)
    return {name: frame[list(COMPARED[name])].reset_index(drop=True) for name, frame in made.items()}


def _each(members: Sequence[Member], name: str, make: Callable[[Member], pd.DataFrame]) -> pd.DataFrame:
    """A table over runs, each run's rows under its name."""
    columns = list(COMPARED[name])
    frames = []
    for member in members:
        frame = make(member).assign(run=member.name, group=member.group, role=member.role)
        frames.append(frame.reindex(columns=columns))
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=columns)


def _run_row(member: Member) -> pd.DataFrame:
    """Quality on the test proteins beside the classifiers that know no order, nearness to training, and the cost."""
    manifest, test = member.manifest, member.metrics["splits"]["test"]
    own, model, stages = test["model"], manifest.get("model", {}), manifest["stages"].values()
    base = {name: test[name]["balanced_accuracy"] for name in ("composition", "majority")}
    characterized = manifest.get("characterize", {})
    row: dict[str, Any] = {
        "seed": member.seed, "model": model.get("id", member.settings["model.checkpoint"]),
        "parameters": model.get("parameters", np.nan), "layers": model.get("layers", np.nan),
        "neurons": len(member.run.table("neurons")), "test_proteins": own.get("n"),
        "evaluated_proteins": manifest.get("evaluated_proteins", own.get("n")),
        **{name: own.get(name, np.nan) for name in ("balanced_accuracy", "accuracy", "mcc", "mean_average_precision")},
        **base, "margin": own["balanced_accuracy"] - max(base.values()),
        **{name: characterized.get(name, np.nan) for name in ("pairs_confirmed", "pairs_confirmed_shifted")},
        "minutes": sum(stage.get("seconds", 0.0) for stage in stages) / 60,
        "peak_memory_gb": max((stage.get("peak_memory_mb", 0) for stage in stages), default=0) / 1024,
        "folder": str(member.run.path),
    }  # fmt: skip
    nearest = member.table("leakage").query("split == 'test'")["identity"].dropna().to_numpy(dtype=np.float64)
    if len(nearest):
        shares = [(nearest <= 0).mean(), ((nearest > 0) & (nearest < 0.3)).mean()]
        shares += [((nearest >= 0.3) & (nearest < 0.5)).mean(), (nearest >= 0.5).mean()]
        row |= dict(
            zip(("nearest_none", "nearest_below_30", "nearest_30_to_50", "nearest_from_50"), shares, strict=True)
        )
    return pd.DataFrame([row])


def _outcomes(member: Member) -> pd.DataFrame:
    """The areas against every control; ``beats`` is the rule that a run's own report goes by."""
    frame = member.run.table("comparison")
    frame = frame[frame["metric"].isin(JUDGED_METRICS)]
    held = member.table("modules")
    held = held[held["model"] == "run"].assign(scope="module", against="random_matched")
    keys = list(CELL)
    frame = frame.merge(held[[*keys, "p_holm"]].drop_duplicates(keys), on=keys, how="left")
    fixed = frame["primary"].astype(bool) | (frame["scope"] != "module")
    p = frame["p_value"].where(fixed, frame["p_holm"].fillna(frame["p_value"]))
    apart = frame["ci_low"].where(frame["better"] > 0, -frame["ci_high"]) > 0
    return frame.assign(primary=frame["primary"].astype(bool), beats=(p < 0.05) & apart)


def _density(member: Member) -> pd.DataFrame:
    """Every kind's share of the best neurons over all layers, beside the null models."""
    frame = member.table("density")
    frame = frame[(frame["layer"] == -1) & frame["module"].isin(MODULES)]
    null = member.table("density_null")
    null = null[null["layer"] == -1]
    for name in ("label_shuffled", "random_weights"):
        own = null.loc[null["null"] == name, ["method", "fraction", "module", "enrichment"]]
        frame = frame.merge(
            own.rename(columns={"enrichment": name}).astype({name: np.float64}),
            on=["method", "fraction", "module"], how="left",
        )  # fmt: skip
    return frame


def _curves(member: Member) -> pd.DataFrame:
    """Balanced accuracy by the share kept or ablated, and what matched draws leave."""
    frame = member.run.table("curves")
    intact = frame.loc[frame["ablation"] == "none", "balanced_accuracy"]
    frame = frame[frame["ablation"] != "none"]
    cell = ["method", "scope", "module", "mode", "ablation", "fraction"]
    own = frame[(frame["draw"] < 0) & (frame["method"] != "held")]
    own = own[[*cell, "balanced_accuracy"]].rename(columns={"balanced_accuracy": "kept"})
    drawn = frame[frame["method"] == "random_matched"].drop(columns="method").rename(columns={"matched_to": "method"})
    drawn = drawn.groupby(cell, sort=False)["balanced_accuracy"].agg(["mean", "std", "size"]).reset_index()
    drawn = drawn.rename(columns={"mean": "drawn", "std": "drawn_sd", "size": "n_draws"})
    return own.merge(drawn, on=cell, how="left").assign(intact=intact.iloc[0] if len(intact) else np.nan)


def _detected(member: Member) -> pd.DataFrame:
    """How many neurons of every kind a concept explains on held-out clusters."""
    table = member.table("associations")
    table = table[table["rank"] == 1]
    if not len(table):
        return pd.DataFrame()
    bars = Bars(float(member.settings["characterize.min_gain"]), float(member.settings["characterize.min_auroc"]))
    table = table.assign(explained=explained(table, bars))
    neuron = ["layer", "module", "neuron"]
    best = table.groupby(neuron)[["explained", "confirmed"]].any().reset_index()
    rows = []
    for module in (*MODULES, "all"):
        part = best if module == "all" else best[best["module"] == module]
        if len(part):
            good = part["explained"].astype(bool)
            rows.append(
                {
                    "module": module, "neurons": len(part), "explained": int(good.sum()),
                    "explained_share": good.mean(),
                    "confirmed_weaker_share": (part["confirmed"].astype(bool) & ~good).mean(),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _interventions(member: Member) -> pd.DataFrame:
    """What the neurons of a class do to it (``own``) and to all others on the mean (``others``)."""
    frame = member.table("intervention_effects")
    own, rest = frame["effect_on"] == frame["label"], frame["effect_on"] == ""
    frame = frame[own | rest]
    return frame.assign(effect=np.where(frame["effect_on"] == "", "others", "own"))


def _completeness(member: Member) -> pd.DataFrame:
    """Mean size of the completeness gap as a share of the mean size of the change, by method and kind."""
    rows = []
    for (method, module), part in member.table("completeness").groupby(["method", "module"], sort=False):
        gap, change = part["gap"].abs(), part["expected"].abs()
        rows.append(
            {
                "method": method, "module": module, "points_fewest": part["points"].min(),
                "points_most": part["points"].max(), "gap": gap.mean() / change.mean() if change.mean() else np.nan,
                "above_5_percent": (gap > 0.05 * change).mean(),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _combined(made: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Every estimate over the confirmation runs of a group."""
    names = ("runs", "outcomes", "kinds", "density", "detected", "knowledge", "layout", "interventions")
    some = {name: made[name] for name in names}
    some = {name: frame[frame["role"] == CONFIRMATION] for name, frame in some.items()}
    # What holding a kind costs does not depend on a method: once a run.
    held = some["kinds"].drop_duplicates(["run", "model", "ablation", "metric", "module"]).assign(method="")
    kept = some["kinds"][some["kinds"]["mode"] == "keep"]
    quality = ("balanced_accuracy", "accuracy", "mcc", "composition", "majority", "margin")
    frames = [combine(some["runs"], ["group"], name, name) for name in quality]
    frames += [_with_beats(some["outcomes"])]
    frames += [combine(held, ["group", "model", "ablation", "metric", "module"], "carried", "carried")]
    frames += [
        combine(kept, ["group", *KIND], value, value, ratio)
        for value, ratio in (
            ("sufficient_share", False), ("sufficient_share_against", False), ("concentration", True),
        )
    ]  # fmt: skip
    frames += [
        combine(some["density"], ["group", "method", "fraction", "module"], value, value)
        for value in ("density", "enrichment")
    ]
    frames += [combine(some["detected"], ["group", "module"], "explained_share", "explained_share")]
    frames += [
        combine(some[name], ["group", "what", "method", "module"], value, f"{name}{ending}")
        for name in ("knowledge", "layout")
        for value, ending in (("value", ""), ("difference", "_beyond"))
    ]
    frames += [
        combine(
            some["interventions"], ["group", "method", "label", "mode", "factor", "effect"], "difference",
            "probability_change",
        )
    ]  # fmt: skip
    filled = [frame for frame in frames if len(frame)]
    together = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
    together = together.reindex(columns=list(COMPARED["combined"]))
    texts = [name for name in NAMES if name not in ("fraction", "factor")]
    return together.assign(**{name: together[name].astype(object).fillna("") for name in texts})


def _with_beats(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The differences in area, with the number of runs whose own test says that they beat chance."""
    keys = ["group", *CELL]
    frame = combine(outcomes, keys, "difference", "difference")
    beat = outcomes.groupby(keys, sort=False)["beats"].sum().rename("beat").reset_index()
    return frame.merge(beat, on=keys, how="left")
