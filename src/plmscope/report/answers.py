"""The sentences that state a verdict, and the rules for what may be claimed.

:func:`quality_answer`, :func:`kept_answer`, :func:`~plmscope.report.concentration.concentration_answer`
(:func:`~plmscope.report.concentration.density_answer` where nothing was kept by module kind),
:func:`knowledge_answer` and :func:`intervention_answer` open the report;
:func:`~plmscope.report.closing.closing_lines` says the same on a terminal. :func:`beats_chance` is the rule for the
word *knowledge neurons*, :func:`kind_beats_chance` that for a module kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    signed,
    words,
)
from plmscope.scoring.table import methods as known_methods
from plmscope.scoring.table import row_of
from plmscope.store.schema import SCHEMA

NULL_WORDS = {"label_shuffled": "label-shuffled", "random_weights": "randomly initialised"}
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


def null_rows(null: pd.DataFrame | None, fits: pd.DataFrame | None) -> pd.DataFrame | None:
    """The densities of the null models: of all their fits, where there are several."""
    return null if fits is None else fits


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
        sentence += f" of the {len(judged)} kinds that carry something" if judged else ""
        tested = [row for row in judged if is_number(row["p_holm"])]
        if len(tested) > 1:
            sentence += f", p corrected over the {len(tested)} that were tested"
        if len(tested) < len(judged):
            sentence += f"; the other {len(judged) - len(tested)} had too few draws for a test"
        draws = min((int(row["n_draws"]) for row in tested), default=0)
        if tested and len(tested) / (draws + 1) >= 0.05:
            sentence += f" ({count(draws)} draws are too few for a corrected p below 0.05)"
        said.append(f"{sentence}.")
    return tuple(said)


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
        f"{count(len(named))}{often}; a sequence motif alone {count(alone)}. "
        "All numbers come from clusters that chose neither concept nor threshold."
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
    said = [f"{count(are)} {'is its' if are == 1 else 'are their'} letter"]
    if by_letters > 0:
        said.append(f"{count(by_letters)} more {'is' if by_letters == 1 else 'are'} explained by letters alone")
    said.append(f"{count(more)} {'knows more than its' if more == 1 else 'know more than their'} letter")
    if unsettled > 0:
        said.append(f"of {count(unsettled)} explained ones it cannot be told")
    return f"Of the {count(len(unique))} chosen neurons, {', '.join(said)}. "


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
