"""Where knowledge sits, in words: is it concentrated in keys, and are keys dense, here and in the null models?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from plmscope.report.answers import NULL_WORDS, kind_rows
from plmscope.report.blocks import (
    Answer,
    Verdict,
    count,
    fixed,
    interval,
    is_number,
    listed,
    p_words,
    percent,
    words,
)
from plmscope.scoring.table import PREFERRED, preference
from plmscope.stats.chance import compare_with_draws
from plmscope.store.schema import SCHEMA


def concentration_answer(
    modules: pd.DataFrame | None,
    density: pd.DataFrame | None,
    null: pd.DataFrame | None,
    fraction: float,
    evaluated: str = "test proteins",
) -> Answer:
    """Where knowledge is concentrated, and whether most of all in keys; by :func:`density_answer` without ``modules``.

    A kind's concentration is the share of it that matched draws need to give back nine tenths of what it carries, over
    the share that the method needs. By a method, keys are *most* concentrated if they carry something, and the
    interval of their concentration lies above 1, above those of all other kinds that carry something, and above that of
    the keys of each null model that carry something there. They are *not* if they carry nothing, or if another
    kind or a null model has a larger one. All methods have to agree for a yes or a no.
    """
    rows = kind_rows(modules)
    counted = density_answer(density, null, fraction)
    if not len(rows):
        return counted
    question = "Where is knowledge concentrated: in keys?"
    verdicts: dict[str, str] = {}
    said_of: dict[str, str] = {}
    for method, own in rows.groupby("method", sort=False):
        records = {str(row["module"]): row for row in own.to_dict("records")}
        nulls = {name: _key_of(modules, name, str(method)) for name in NULL_WORDS}
        verdicts[words(method)] = _concentrated(records, nulls)
        said_of[str(method)] = _concentration_words(str(method), records, nulls)
    carried = {str(r["module"]): r for r in rows.drop_duplicates("module").to_dict("records")}
    ranked = sorted((r for r in carried.values() if r["judged"]), key=lambda r: -float(r["carried"]))
    idle = [words(name) for name, r in carried.items() if not r["judged"]]
    text = "No kind of module carries anything that could be told from noise."
    if ranked:
        text = f"Of a balanced accuracy of {fixed(ranked[0]['intact'])} on {evaluated}, holding all of a kind at its "
        text += "means loses: "
        text += listed([f"{words(r['module'])} {fixed(r['carried'])}" for r in ranked])
        text += f"; {listed(idle)} nothing that could be told from noise." if idle else "."
    kinds_of_verdict = set(verdicts.values())
    verdict: Verdict
    if kinds_of_verdict == {"most"}:
        verdict, claim = "yes", "Keys are the most concentrated kind, by every method and beyond the null models."
    elif kinds_of_verdict == {"not"}:
        verdict, claim = "no", "Keys are not the most concentrated kind."
    else:
        verdict = "unclear"
        most = [method for method, said in verdicts.items() if said == "most"]
        first = [method for method, said in verdicts.items() if said in ("first", "no null")]
        if most:
            claim = f"Keys are the most concentrated kind by {listed(most)}, not clearly by every method."
        else:
            claim = f"Keys come first by {listed(first)}"
            lacking = kinds_of_verdict <= {"no null", "not"}
            claim += ", but no null model was evaluated by kinds." if lacking else ", but intervals overlap."
    shown = min(said_of, key=preference)
    rest = [part for method, part in said_of.items() if method != shown]
    rest += [f"Counted instead: {counted.text}"] if counted.verdict != "not run" else []
    return Answer(verdict, question, f"{claim} {text}", tuple(rest), said_of[shown])


def _key_of(modules: pd.DataFrame | None, model: str, method: str) -> dict[Any, Any] | None:
    """The row of keys in a null model, or None where it was not evaluated by kinds."""
    rows = kind_rows(modules, model)
    rows = rows[(rows["module"] == "key") & (rows["method"] == method)]
    return rows.iloc[0].to_dict() if len(rows) else None


def _concentrated(records: Mapping[str, Mapping[Any, Any]], nulls: Mapping[str, Mapping[Any, Any] | None]) -> str:
    """``most``, ``first`` (of all, but an interval overlaps), ``not`` or ``no null``, for keys by one method."""
    key = records.get("key")
    if key is None or not key["judged"] or not is_number(key["concentration"]):
        return "not"
    others = [row for name, row in records.items() if name != "key" and row["judged"]]
    known = [row for row in nulls.values() if row is not None]
    rivals = [row for row in [*others, *known] if row["judged"] and is_number(row["concentration"])]
    if key["concentration"] <= max([1.0, *(float(row["concentration"]) for row in rivals)]):
        return "not"
    if len(known) < len(nulls):
        return "no null"
    tops = [
        row["concentration_high"] if is_number(row["concentration_high"]) else row["concentration"] for row in rivals
    ]
    low = key["concentration_low"]
    return "most" if is_number(low) and low > max([1.0, *map(float, tops)]) else "first"


def _concentration_words(
    method: str, records: Mapping[str, Mapping[Any, Any]], nulls: Mapping[str, Mapping[Any, Any] | None]
) -> str:
    """One sentence on keys by one method, with its numbers and its null models."""
    key = records.get("key")
    if key is None or not key["judged"]:
        return f"By {words(method)}: keys carry nothing that could be told from noise."
    sentence = (
        f"By {words(method)}: {percent(key['sufficient_share'])} of the keys "
        f"({_range(key['sufficient_low'], key['sufficient_high'])}) give back nine tenths of the "
        f"{fixed(key['carried'])} that all of them carry ({interval(key['carried_low'], key['carried_high'])}), read "
        "where the curve, made to rise throughout, reaches that; matched random keys take "
        f"{percent(key['sufficient_share_against'])}: concentration "
        f"{_concentration(key)}"
    )
    rest = [row for name, row in records.items() if name != "key" and row["judged"] and is_number(row["concentration"])]
    if rest:
        best = max(rest, key=lambda row: float(row["concentration"]))
        sentence += f"; next comes {words(best['module'])} with {_concentration(best)}"
    said = []
    for name, row in nulls.items():
        if row is not None:
            text = f"it is {_concentration(row)}" if row["judged"] else "keys carry nothing"
            said.append(f"{text} in the {NULL_WORDS[name]} model")
    return f"{sentence}; {listed(said) if said else 'no null model was evaluated by kinds'}."


def _concentration(row: Mapping[Any, Any]) -> str:
    """A concentration with its interval."""
    if not is_number(row["concentration"]):
        return "not known"
    return f"{fixed(row['concentration'], 1)} ({_range(row['concentration_low'], row['concentration_high'], 1)})"


def _range(low: Any, high: Any, digits: int | None = None) -> str:
    """An interval in brackets: of shares as percentages where no digits are given."""
    if not (is_number(low) and is_number(high)):
        return "no interval"
    one, other = (percent(x) if digits is None else fixed(x, digits) for x in (low, high))
    return f"{one} to {other}"


def density_answer(density: pd.DataFrame | None, null: pd.DataFrame | None, fraction: float) -> Answer:
    """Whether key neurons are over-represented among the best-scored ones, beyond both null models.

    Per judging method, *beyond* means that the interval of the enrichment lies above 1 and above the largest
    enrichment of each null model, and that the permutation of modules among equally active neurons of a layer, where it
    was made, has a p below 0.05; *not* means that the enrichment itself does not exceed 1 or a null. All judging
    methods must agree for a yes or a no. Raw activation has no say: its scale differs between modules.

    Args:
        density: The density table, or None.
        null: The same numbers for the null models, of every fit, or None. More than one fit of a model: the largest
            is the limit, and the counted p value is told.
        fraction: The selected share wanted; the nearest one that was computed is used and named.

    >>> density_answer(None, None, 0.02).verdict
    'not run'
    """
    question = "Are keys dense here?"
    keys = key_rows(density)
    judges = [method for method in PREFERRED if method in set(keys["method"])]
    if not judges:
        text = f"The density of keys was not computed for any of {listed([words(judge) for judge in PREFERRED])}."
        return Answer("not run", question, text)
    judged = keys[keys["method"].isin(judges)]
    nearest = float(min(judged["fraction"].unique(), key=lambda value: (abs(value - fraction), value)))
    nulls = key_rows(null)
    verdicts: dict[str, str] = {}
    sentences: list[str] = []
    for method in judges:
        rows = judged[(judged["method"] == method) & np.isclose(judged["fraction"], nearest)]
        if not len(rows):
            continue
        row = rows.iloc[0].to_dict()
        same = nulls[(nulls["method"] == method) & np.isclose(nulls["fraction"].astype(float), nearest)]
        theirs = {name: same.loc[same["null"] == name, "enrichment"] for name in NULL_WORDS}
        limits = {name: float(values.max()) for name, values in theirs.items()}
        verdicts[words(method)] = _dense(row, limits)
        shown = [
            _null_words(name, theirs[name], float(row["enrichment"]))
            for name, limit in limits.items()
            if is_number(limit)
        ]
        sentences.append(
            f"{fixed(row['enrichment'], 2)} by {words(method)} "
            f"({interval(row['ci_low'], row['ci_high'], 2)}; {listed(shown) if shown else 'null models not run'}"
            f"{_permuted_words(row)})"
        )
    numbers = f"among the best {percent(nearest)} of neurons, the share of keys relative to an even spread is "
    numbers += listed(sentences)
    kinds_of_verdict = set(verdicts.values())
    if "no null" in kinds_of_verdict:
        verdict: Verdict = "unclear"
        text = f"This cannot be judged without both null models: {numbers}."
    elif kinds_of_verdict == {"beyond"}:
        verdict, text = "yes", f"Keys are denser than in both null models: {numbers}."
    elif kinds_of_verdict == {"not"}:
        verdict, text = "no", f"Keys are no denser than an even spread or a null model: {numbers}."
    elif "beyond" in kinds_of_verdict:
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


def key_rows(density: pd.DataFrame | None) -> pd.DataFrame:
    """The rows of keys over all layers."""
    if density is None:
        return pd.DataFrame(columns=["null", *SCHEMA["density"]])
    return density[(density["module"] == "key") & (density["layer"] == -1)]


def _permuted_words(row: Mapping[Any, Any]) -> str:
    """What equally active neurons of the same layers have."""
    if not (is_number(row.get("p_permutation")) and is_number(row.get("enrichment_permuted"))):
        return ""
    return (
        f"; with modules permuted among equally active neurons of a layer {fixed(row['enrichment_permuted'], 2)}, "
        f"{p_words(row['p_permutation'])}"
    )


def _null_words(name: str, theirs: pd.Series[float], ours: float) -> str:
    """What the fits of a null model have."""
    if len(theirs) == 1:
        return f"{fixed(theirs.iloc[0], 2)} in the {NULL_WORDS[name]} model"
    p = compare_with_draws(ours, theirs, +1).p_value
    return (
        f"{fixed(theirs.min(), 2)} to {fixed(theirs.max(), 2)} in {count(len(theirs))} fits of the {NULL_WORDS[name]} "
        f"model, {p_words(p)}"
    )


def _dense(row: Mapping[Any, Any], limits: Mapping[str, float]) -> str:
    """``beyond``, ``not``, ``unclear`` or ``no null`` for one method."""
    known = [limit for limit in limits.values() if is_number(limit)]
    if row["enrichment"] <= max([1.0, *known]):
        return "not"
    if len(known) < len(limits):
        return "no null"
    if float(row.get("p_permutation", "nan")) >= 0.05:  # not where it was not made
        return "unclear"
    return "beyond" if is_number(row["ci_low"]) and row["ci_low"] > max([1.0, *known]) else "unclear"
