"""The sentences that state a verdict, and the rules for what may be claimed.

:func:`quality_answer`, :func:`kept_answer`, :func:`density_answer`, :func:`knowledge_answer` and
:func:`intervention_answer` open the report; :func:`beats_chance` is the rule
for the word *knowledge neurons*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from plmscope.report_blocks import (
    Answer,
    Verdict,
    count,
    fixed,
    interval,
    is_number,
    listed,
    p_words,
    percent,
    signed,
    words,
)
from plmscope.results import SCHEMA

JUDGES = ("integrated_gradients", "conductance", "activation_contrast")
NULLS = {"label_shuffled": "label-shuffled", "random_weights": "randomly initialised"}
CLASSIFIERS = {"model": "model", "majority": "majority class", "composition": "composition"}


def quality_answer(splits: Mapping[str, Any]) -> Answer:
    """Whether the model beats both baselines in balanced accuracy on the test proteins.

    A tie does not beat. These are point estimates on one test set.

    Args:
        splits: The entry ``splits`` of ``metrics.json``.

    >>> scores = {"model": 0.4, "majority": 0.2, "composition": 0.5}
    >>> answer = quality_answer({"test": {name: {"n": 9, "balanced_accuracy": x} for name, x in scores.items()}})
    >>> answer.verdict, answer.text[:52]
    ('no', 'The model does not beat the composition baseline: on')
    """
    question = "Does the model know the classes?"
    test = splits.get("test", {})
    scores: dict[str, Any] = {name: (test.get(name) or {}).get("balanced_accuracy") for name in CLASSIFIERS}
    own = scores.pop("model")
    if not is_number(own):
        return Answer("not run", question, "There are no test metrics in this run, so its quality is not known.")
    known = {name: float(score) for name, score in scores.items() if is_number(score)}
    n = count(test["model"].get("n"))
    base = {
        "majority": "class frequencies alone give {}",
        "composition": "amino-acid composition and length alone give {}",
    }
    against = listed([base[name].format(fixed(score)) for name, score in known.items()])
    facts = f"on the {n} test proteins its balanced accuracy is {fixed(own)}"
    facts += f", while {against}" if known else ""
    unbeaten = [CLASSIFIERS[name] for name, score in known.items() if not own > score]
    if unbeaten:
        text = (
            f"The model does not beat the {listed(unbeaten)} baseline{'s' if len(unbeaten) > 1 else ''}: {facts}. "
            "Whatever follows describes a model that has not been shown to know the classes."
        )
        return Answer("no", question, text)
    absent = [CLASSIFIERS[name] for name in scores if name not in known]
    if absent:
        text = f"It cannot be said, because the {listed(absent)} baseline was not run: {facts}."
        return Answer("unclear", question, text)
    margin = own - max(known.values())
    text = f"The model beats both baselines: {facts}. The margin over the better baseline is {fixed(margin)}."
    return Answer("yes", question, text)


def primary_rows(comparison: pd.DataFrame | None) -> pd.DataFrame:
    """The rows of the primary outcome, one per method."""
    if comparison is None:
        return pd.DataFrame(columns=list(SCHEMA["comparison"]))
    return comparison[comparison["primary"].astype(bool)].drop_duplicates("method")


def beats_chance(row: Mapping[Any, Any]) -> bool:
    """The rule for the word *knowledge neurons*: one-sided p < 0.05 and the whole interval above 0.

    >>> beats_chance({"p_value": 0.01, "ci_low": 0.02}), beats_chance({"p_value": 0.01, "ci_low": -0.02})
    (True, False)
    """
    p, low = row["p_value"], row["ci_low"]
    return bool(is_number(p) and is_number(low) and p < 0.05 and low > 0)


def neuron_word(comparison: pd.DataFrame | None, method: str) -> str:
    """``knowledge neurons`` if the method's primary comparison beats chance, else ``selected neurons``."""
    rows = primary_rows(comparison)
    rows = rows[rows["method"] == method]
    return "knowledge neurons" if len(rows) and beats_chance(rows.iloc[0].to_dict()) else "selected neurons"


def kept_sentence(row: Mapping[Any, Any]) -> str:
    """One method's primary outcome: what keeping its neurons gains over matched chance, and the word that follows."""
    method = words(row["method"])
    sentence = (
        f"By {method}: area difference {signed(row['difference'])} "
        f"({interval(row['ci_low'], row['ci_high'])}, {p_words(row['p_value'])}"
        f"{', extrapolated from the draws by a t test' if row['p_kind'] == 'prediction_t' else ''}, "
        f"better than {count(row['draws_beaten'])} of {count(row['n_draws'])} draws)"
    )
    if beats_chance(row):
        return f"{sentence}; its best neurons are called knowledge neurons."
    if not is_number(row["p_value"]) or not is_number(row["ci_low"]):
        why = "p or the interval is missing"
    else:
        reasons = [text for text, hit in (("p is not below 0.05", row["p_value"] >= 0.05),
                                          ("the interval reaches 0 or below", row["ci_low"] <= 0)) if hit]  # fmt: skip
        why = listed(reasons)
    return f"{sentence}; they stay selected neurons, because {why}."


def kept_answer(comparison: pd.DataFrame | None) -> Answer:
    """Whether keeping the chosen neurons preserves more balanced accuracy than matched random neurons."""
    question = "Do the chosen neurons beat matched chance?"
    rows = primary_rows(comparison)
    if not len(rows):
        text = "The comparison with chance was not run"
        if comparison is not None:
            text = (
                "The outcome fixed in advance (keep, mean, pooled, against matched neurons) is not among the settings"
            )
        text += ", so no neuron is called a knowledge neuron in this report."
        return Answer("not run", question, text)
    records = rows.to_dict("records")
    winners = [words(row["method"]) for row in records if beats_chance(row)]
    outcome = (
        "the area under the balanced-accuracy curve when only the chosen neurons are kept (others set to their mean)"
    )
    if winners:
        text = (
            f"{len(winners)} of {len(records)} methods beat{'s' if len(winners) == 1 else ''} random neurons drawn "
            f"from the same sites: {listed(winners)}. The outcome, fixed in advance, is {outcome}."
        )
    else:
        text = (
            f"None of the {len(records)} methods beats random neurons drawn from the same sites, so this report speaks "
            f"of selected neurons throughout. The outcome, fixed in advance, is {outcome}."
        )
    verdict: Verdict = "yes" if len(winners) == len(records) else "partly" if winners else "no"
    return Answer(verdict, question, text, tuple(kept_sentence(row) for row in records))


def density_answer(density: pd.DataFrame | None, null: pd.DataFrame | None, fraction: float) -> Answer:
    """Whether key neurons are over-represented among the best-scored ones, beyond both null models.

    Per judging method, *beyond* means that the interval of the enrichment lies above 1 and above the largest
    enrichment of each null model; *not* means that the enrichment itself does not exceed 1 or a null. All judging
    methods must agree for a yes or a no. Raw activation has no say: its scale differs between modules.

    Args:
        density: The density table, or None.
        null: The same numbers for the null models, or None.
        fraction: The selected share wanted; the nearest one that was computed is used and named.

    >>> density_answer(None, None, 0.02).verdict
    'not run'
    """
    question = "Are keys dense here?"
    keys = _key_rows(density)
    judges = [method for method in JUDGES if method in set(keys["method"])]
    if not judges:
        text = f"The density of keys was not computed for any of {listed([words(judge) for judge in JUDGES])}."
        return Answer("not run", question, text)
    judged = keys[keys["method"].isin(judges)]
    nearest = float(min(judged["fraction"].unique(), key=lambda value: (abs(value - fraction), value)))
    nulls = _key_rows(null)
    verdicts: dict[str, str] = {}
    parts: list[str] = []
    for method in judges:
        rows = judged[(judged["method"] == method) & np.isclose(judged["fraction"], nearest)]
        if not len(rows):
            continue
        row = rows.iloc[0].to_dict()
        same = nulls[(nulls["method"] == method) & np.isclose(nulls["fraction"].astype(float), nearest)]
        limits = {name: float(same.loc[same["null"] == name, "enrichment"].max()) for name in NULLS}
        verdicts[words(method)] = _dense(row, limits)
        shown = [f"{fixed(limit, 2)} in the {NULLS[name]} model" for name, limit in limits.items() if is_number(limit)]
        parts.append(
            f"{fixed(row['enrichment'], 2)} by {words(method)} "
            f"({interval(row['ci_low'], row['ci_high'], 2)}; {listed(shown) if shown else 'null models not run'})"
        )
    numbers = f"among the best {percent(nearest)} of neurons, the share of keys relative to an even spread is "
    numbers += listed(parts)
    found = set(verdicts.values())
    if "no null" in found:
        verdict: Verdict = "unclear"
        text = f"This cannot be judged without both null models: {numbers}."
    elif found == {"beyond"}:
        verdict, text = "yes", f"Keys are denser than in both null models: {numbers}."
    elif found == {"not"}:
        verdict, text = "no", f"Keys are no denser than an even spread or a null model: {numbers}."
    elif "beyond" in found:
        beyond, rest = (listed([m for m, v in verdicts.items() if (v == "beyond") is dense]) for dense in (True, False))
        verdict = "unclear"
        text = f"The methods disagree: keys are clearly denser than in both null models by {beyond}, not by {rest}: "
        text += f"{numbers}."
    else:
        verdict, text = "unclear", f"There is no clear excess of keys over the null models: {numbers}."
    raw = keys[(keys["method"] == "activation") & np.isclose(keys["fraction"].astype(float), nearest)]
    details: tuple[str, ...] = ()
    if len(raw):
        share = fixed(raw.iloc[0]["enrichment"], 2)
        details = (
            f"Raw activation gives a relative share of {share}, but modules differ in the scale of their activations, "
            "so this number is a scale artefact and is not evidence.",
        )
    return Answer(verdict, question, text, details)


def _key_rows(density: pd.DataFrame | None) -> pd.DataFrame:
    if density is None:
        return pd.DataFrame(columns=["null", *SCHEMA["density"]])
    return density[(density["module"] == "key") & (density["layer"] == -1)]


def _dense(row: Mapping[Any, Any], limits: Mapping[str, float]) -> str:
    """``beyond``, ``not``, ``unclear`` or ``no null`` for one method."""
    known = [limit for limit in limits.values() if is_number(limit)]
    if row["enrichment"] <= max([1.0, *known]):
        return "not"
    if len(known) < len(limits):
        return "no null"
    return "beyond" if is_number(row["ci_low"]) and row["ci_low"] > max([1.0, *known]) else "unclear"


def intervention_rows(effects: pd.DataFrame) -> pd.DataFrame:
    """What holding each class's neurons at their mean does to that class, one row a class; of the first method."""
    method = effects["method"].iloc[0]
    own = (effects["label"] == effects["effect_on"]) & effects["factor"].isna() & (effects["method"] == method)
    rows: pd.DataFrame = effects[own]
    return rows


def knowledge_answer(cards: pd.DataFrame | None) -> Answer:
    """How many of the chosen neurons are explained, by what most often.

    >>> knowledge_answer(None).verdict
    'not run'
    """
    question = "Can it be said what each of them knows?"
    if cards is None or not len(cards):
        return Answer("not run", question, "What neurons detect was not examined ('plmscope characterize').")
    unique = cards.drop_duplicates(["layer", "module", "neuron"])
    known = unique["explained"].astype(bool)
    named = unique.loc[known & (unique["concept"] != ""), "concept"]
    most = [f"{name} ({count(n)})" for name, n in named.value_counts().head(3).items()]
    often = f", most often {listed(most)}" if most else ""
    text = (
        f"Nothing that was tried explains {count((~known).sum())} of the {count(len(unique))} selected neurons "
        f"({percent((~known).mean())}). A concept explains {count(len(named))}{often}; a sequence motif alone "
        f"{count(known.sum() - len(named))}. All numbers come from clusters that chose neither concept nor threshold."
    )
    verdict: Verdict = "yes" if known.all() else "partly" if known.any() else "no"
    return Answer(verdict, question, text)


def intervention_answer(effects: pd.DataFrame | None) -> Answer:
    """Whether a class depends on its neurons more than on matched random ones, in probability and in decisions.

    A class counts if the whole interval of the difference lies below 0 and q < 0.05.

    >>> intervention_answer(None).verdict
    'not run'
    """
    question = "Does a class depend on its own neurons?"
    rows = None if effects is None else intervention_rows(effects)
    if rows is None or not len(rows):
        return Answer("not run", question, "No class's neurons were suppressed ('plmscope intervene').")
    hit = (rows["ci_high"] < 0) & (rows["q_value"] < 0.05)
    lost, drawn, right, n = (
        rows[name].sum() for name in ("decisions_lost", "decisions_lost_against", "decisions_right", "n_proteins")
    )
    text = (
        f"Holding the best {percent(rows['fraction'].iloc[0])} of neurons for a class at their mean lowers the "
        f"probability of {count(hit.sum())} of {count(len(rows))} classes by more than as many random neurons from the "
        f"same sites do. In decisions: of {count(n)} proteins {count(right)} have their right class before; "
        f"{count(lost)} of these lose it, {fixed(drawn, 1)} under matched random neurons."
    )
    verdict: Verdict = "yes" if hit.all() else "partly" if hit.any() else "no"
    return Answer(verdict, question, text)
