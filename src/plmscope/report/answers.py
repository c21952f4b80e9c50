"""The sentences that state a verdict, and the rules for what may be claimed.

:func:`quality_answer`, :func:`kept_answer`, :func:`concentration_answer` (:func:`density_answer` where nothing was
kept by module kind), :func:`knowledge_answer` and :func:`intervention_answer` open the report; :func:`closing_lines`
says the same on a terminal. :func:`beats_chance` is the rule for the word *knowledge neurons*,
:func:`kind_beats_chance` that for a module kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.knowledge.cards import IS_LETTER
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
    short,
    signed,
    words,
)
from plmscope.scoring.table import PREFERRED, row_of
from plmscope.scoring.table import methods as known_methods
from plmscope.store.schema import SCHEMA

NULLS = {"label_shuffled": "label-shuffled", "random_weights": "randomly initialised"}
CLASSIFIERS = {"model": "model", "majority": "majority class", "composition": "composition"}
#: The metric that module kinds are judged by.
KIND_METRIC = "balanced_accuracy"


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


def primary_rows(comparison: pd.DataFrame | None, module: str = "") -> pd.DataFrame:
    """The rows of the primary outcome, one per method: of the pooled ranking, or within a module kind."""
    if comparison is None:
        return pd.DataFrame(columns=list(SCHEMA["comparison"]))
    own = comparison["primary"].astype(bool) & (comparison["module"] == module)
    return comparison[own].drop_duplicates("method")


def kind_rows(modules: pd.DataFrame | None, model: str = "run") -> pd.DataFrame:
    """The rows of ``modules`` that kinds are judged by (keep, mean ablation, balanced accuracy), of one model."""
    if modules is None:
        return pd.DataFrame(columns=list(SCHEMA["modules"]))
    keep = (modules["model"] == model) & (modules["mode"] == "keep") & (modules["ablation"] == "mean")
    return modules[keep & (modules["metric"] == KIND_METRIC)]


def family(method: str) -> str:
    """``activation-based``, ``gradient-based``, or ``other``.

    >>> family("conductance"), family("single_ablation")
    ('gradient-based', 'other')
    """
    return row_of(method).family if method in known_methods() else "other"  # of a package that is not here


def kind_beats_chance(row: Mapping[Any, Any]) -> bool:
    """Whether a method beats matched draws within a kind that was judged: Holm's p over its kinds, and the interval."""
    p, low = row["p_holm"], row["ci_low"]
    return bool(row["judged"] and is_number(p) and is_number(low) and p < 0.05 and low > 0)


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


def kept_answer(comparison: pd.DataFrame | None, modules: pd.DataFrame | None = None) -> Answer:
    """Whether keeping the chosen neurons preserves more balanced accuracy than matched random neurons.

    Two outcomes are fixed in advance, the pooled ranking and, where there is a scope of module kinds, keys; the verdict
    counts these alone. The other kinds are told beside them, corrected over the kinds of a method.
    """
    question = "Do activation-based and gradient-based selections beat chance?"
    rows, keys = primary_rows(comparison), primary_rows(comparison, "key")
    if not len(rows):
        text = "The comparison with chance was not run"
        if comparison is not None:
            text = (
                "The outcome fixed in advance (keep, mean, pooled, against matched neurons) is not among the settings"
            )
        text += ", so no neuron is called a knowledge neuron in this report."
        return Answer("not run", question, text)
    records = rows.to_dict("records")
    winners = [str(row["method"]) for row in records if beats_chance(row)]
    outcome = (
        "the area under the balanced-accuracy curve when only the chosen neurons are kept (others set to their mean)"
    )
    if winners:
        text = (
            f"All neurons ranked together, {len(winners)} of {len(records)} methods "
            f"beat{'s' if len(winners) == 1 else ''} random neurons drawn from the same sites: {_by_family(winners)}. "
        )
    else:
        text = (
            f"All neurons ranked together, none of the {len(records)} methods beats random neurons drawn from the same "
            "sites, so this report speaks of selected neurons throughout. "
        )
    text += f"The outcome, fixed in advance, is {outcome}."
    key_records = keys.to_dict("records")
    key_winners = [str(row["method"]) for row in key_records if beats_chance(row)]
    more = ""
    if key_records:
        more = f"Within keys, the second outcome fixed in advance, {len(key_winners)} of {len(key_records)} methods "
        more += f"beat{'s' if len(key_winners) == 1 else ''} random keys of the same layers"
        more += f": {_by_family(key_winners)}." if key_winners else "."
    won, tried = len(winners) + len(key_winners), len(records) + len(key_records)
    verdict: Verdict = "yes" if won == tried else "partly" if won else "no"
    details = (*(kept_sentence(row) for row in records), *kind_sentences(modules))
    return Answer(verdict, question, text, details, more)


def _by_family(methods: Sequence[str]) -> str:
    """Methods under what they go by: ``gradient-based (conductance)``."""
    names = sorted({family(method) for method in methods}, key=lambda name: (name == "other", name))
    return listed([f"{name} ({listed([words(m) for m in methods if family(m) == name])})" for name in names])


def kind_sentences(modules: pd.DataFrame | None) -> tuple[str, ...]:
    """For every method, within which kinds it beats matched draws; none without the table."""
    said = []
    for method, rows in kind_rows(modules).groupby("method", sort=False):
        judged = [row for row in rows.to_dict("records") if row["judged"]]
        won = [
            f"{words(r['module'])} ({signed(r['difference'])}, {p_words(r['p_holm'])})"
            for r in judged
            if kind_beats_chance(r)
        ]
        sentence = f"Within one kind at a time by {words(method)}: better than matched draws in {listed(won)}"
        sentence += f" of the {len(judged)} kinds that carry something, p corrected over them" if judged else ""
        if judged and len(judged) / (judged[0]["n_draws"] + 1) >= 0.05:
            sentence += f" ({count(judged[0]['n_draws'])} draws are too few for one below 0.05)"
        said.append(f"{sentence}.")
    return tuple(said)


def concentration_answer(
    modules: pd.DataFrame | None, density: pd.DataFrame | None, null: pd.DataFrame | None, fraction: float
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
    parts: dict[str, str] = {}
    for method, own in rows.groupby("method", sort=False):
        records = {str(row["module"]): row for row in own.to_dict("records")}
        nulls = {name: _key_of(modules, name, str(method)) for name in NULLS}
        verdicts[words(method)] = _concentrated(records, nulls)
        parts[str(method)] = _concentration_words(str(method), records, nulls)
    carried = {str(r["module"]): r for r in rows.drop_duplicates("module").to_dict("records")}
    ranked = sorted((r for r in carried.values() if r["judged"]), key=lambda r: -float(r["carried"]))
    idle = [words(name) for name, r in carried.items() if not r["judged"]]
    text = "No kind of module carries anything that could be told from noise."
    if ranked:
        text = f"Of a balanced accuracy of {fixed(ranked[0]['intact'])}, holding all of a kind at its means loses: "
        text += listed([f"{words(r['module'])} {fixed(r['carried'])}" for r in ranked])
        text += f"; {listed(idle)} nothing that could be told from noise." if idle else "."
    found = set(verdicts.values())
    verdict: Verdict
    if found == {"most"}:
        verdict, claim = "yes", "Keys are the most concentrated kind, by every method and beyond the null models."
    elif found == {"not"}:
        verdict, claim = "no", "Keys are not the most concentrated kind."
    else:
        verdict = "unclear"
        most = [method for method, said in verdicts.items() if said == "most"]
        first = [method for method, said in verdicts.items() if said in ("first", "no null")]
        if most:
            claim = f"Keys are the most concentrated kind by {listed(most)}, not clearly by every method."
        else:
            claim = f"Keys come first by {listed(first)}"
            lacking = found <= {"no null", "not"}
            claim += ", but no null model was evaluated by kinds." if lacking else ", but intervals overlap."
    shown = next((method for method in PREFERRED if method in parts), next(iter(parts)))
    rest = [part for method, part in parts.items() if method != shown]
    rest += [f"Counted instead: {counted.text}"] if counted.verdict != "not run" else []
    return Answer(verdict, question, f"{claim} {text}", tuple(rest), parts[shown])


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
        f"{fixed(key['carried'])} that all of them carry ({interval(key['carried_low'], key['carried_high'])}), "
        f"where matched random keys take {percent(key['sufficient_share_against'])}: concentration "
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
            said.append(f"{text} in the {NULLS[name]} model")
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


def closing_lines(
    metrics: Mapping[str, Any],
    comparison: pd.DataFrame | None,
    modules: pd.DataFrame | None,
    density: pd.DataFrame | None,
) -> list[tuple[str, str]]:
    """The answers as rows of a small table: quality, pooled, by kind, keys.

    Args:
        metrics: The entry ``splits`` of ``metrics.json``, or empty.
        comparison: The table, or None.
        modules: The table, or None; where it is missing, the density of keys stands in its place.
        density: The table, or None.
    """
    lines = []
    if metrics:
        test = metrics["test"]
        values = (f"{name} {test[name]['balanced_accuracy']:.3f}" for name in ("model", "composition", "majority"))
        lines.append(("test balanced accuracy", ", ".join(values)))
    for module, where in (("", "pooled"), ("key", "within keys")):
        for row in primary_rows(comparison, module).to_dict("records"):
            answer = f"{'yes' if beats_chance(row) else 'no'}: {signed(row['difference'])} "
            answer += f"[{signed(row['ci_low'])}, {signed(row['ci_high'])}], p = {short(row['p_value'])}, "
            answer += f"beats {count(row['draws_beaten'])} of {count(row['n_draws'])} draws"
            lines.append((f"beats chance, {where}: {words(row['method'])}", answer))
    for method, rows in kind_rows(modules).groupby("method", sort=False):
        records = rows.to_dict("records")
        judged = [row for row in records if row["judged"]]
        won = [words(row["module"]) for row in judged if kind_beats_chance(row)]
        lines.append(
            (f"kinds in which it does: {words(method)}", f"{listed(won)} (of {len(judged)} that carry something)")
        )
        parts = [f"{words(row['module'])} {fixed(row['concentration'], 1)}" for row in judged]
        lines.append((f"concentration: {words(method)}", listed(parts)))
        key = next((row for row in judged if row["module"] == "key"), None)
        answer = "carry nothing that could be told from noise"
        if key is not None:
            answer = (
                f"{percent(key['sufficient_share'])} give back nine tenths of the {fixed(key['carried'])} they carry; "
            )
            answer += f"matched draws take {percent(key['sufficient_share_against'])}"
        lines.append((f"keys: {words(method)}", answer))
    if density is not None and modules is None:
        keys = _key_rows(density)
        for row in keys[keys["fraction"] == keys["fraction"].max()].to_dict("records"):
            lines.append(
                (f"keys among the top {percent(row['fraction'])} by {words(row['method'])}",
                 f"{fixed(row['enrichment'], 2)} x their share")
            )  # fmt: skip
    return [(question, answer.replace("−", "-")) for question, answer in lines]  # a plain sign for any terminal


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
    judges = [method for method in PREFERRED if method in set(keys["method"])]
    if not judges:
        text = f"The density of keys was not computed for any of {listed([words(judge) for judge in PREFERRED])}."
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
    alone = (known & (unique["concept"] == "") & (unique["motif"] != "")).sum()
    most = [f"{name} ({count(n)})" for name, n in named.value_counts().head(3).items()]
    often = f", most often {listed(most)}" if most else ""
    text = (
        f"{letter_headline(unique)}Nothing that was tried explains {count((~known).sum())} of the "
        f"{count(len(unique))} selected neurons ({percent((~known).mean())}). A concept explains "
        f"{count(len(named))}{often}; a sequence motif alone {count(alone)}. All numbers come from clusters that chose neither concept nor threshold."
    )
    verdict: Verdict = "yes" if known.all() else "partly" if known.any() else "no"
    return Answer(verdict, question, text)


def letter_headline(unique: pd.DataFrame) -> str:
    """How many neurons are their letter, and how many know more; nothing for runs that did not ask.

    Args:
        unique: Cards, one a neuron.

    >>> letter_headline(pd.DataFrame({"r2_letter": [0.95, 0.2, 0.5], "knows": ["letter", "more", ""]}))
    'Of the 3 chosen neurons, 1 is its letter, 1 knows more than its letter. '
    """
    if not unique["r2_letter"].notna().any():
        return ""
    are, knows = int((unique["r2_letter"] >= IS_LETTER).sum()), unique["knows"].value_counts()
    by_letters, more, unsettled = knows.get("letter", 0) - are, knows.get("more", 0), knows.get("unsettled", 0)
    parts = [f"{count(are)} {'is its' if are == 1 else 'are their'} letter"]
    if by_letters > 0:
        parts.append(f"{count(by_letters)} more {'is' if by_letters == 1 else 'are'} explained by letters alone")
    parts.append(f"{count(more)} {'knows more than its' if more == 1 else 'know more than their'} letter")
    if unsettled > 0:
        parts.append(f"of {count(unsettled)} explained ones it cannot be told")
    return f"Of the {count(len(unique))} chosen neurons, {', '.join(parts)}. "


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
