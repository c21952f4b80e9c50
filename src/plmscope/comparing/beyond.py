"""What runs say of their neurons beyond the outcomes: what the chosen ones know, and how knowledge is laid out.

One row is one number of a run, beside the same number for what it is held against: for the chosen neurons, others of
the same sites (the expectation of a random draw with the same number in every site); for sets, matched draws; for
groups, dealt labels. A comparison averages the difference over runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from plmscope.comparing.members import Member
from plmscope.knowledge.cards import IS_LETTER, Bars, explained
from plmscope.models.architectures import MODULES

KEYS = ["layer", "module", "neuron"]
#: What a neuron's best explanation speaks of, by the kind of its concept.
SUBJECTS = {
    "amino acid": "letter", "group": "letter", "pattern": "motif or site", "feature": "motif or site",
    "class": "family", "term": "family",
    **dict.fromkeys(("property", "position", "length"), "property, place or length"),
}  # fmt: skip
#: ``compared_knowledge`` and ``compared_layout``, behind the columns that say which run.
COLUMNS = ("what", "method", "module", "n", "value", "against", "difference", "p_value")
SURE = 0.05


def knowledge(member: Member) -> pd.DataFrame:
    """What the neurons with a card know, beside others of the same sites; and what formulas and sentences add."""
    return _frame([*_known(member), *_said(member)])


def layout(member: Member) -> pd.DataFrame:
    """The parts of the stage ``layout`` that a run has."""
    return _frame([*_sufficient(member), *_degenerate(member), *_recall(member), *_shared(member), *_modular(member)])


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows with the difference from what they are held against."""
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    return frame.assign(difference=frame["value"].astype(float) - frame["against"].astype(float))


def _row(
    what: str, value: float, against: float = np.nan, *, method: str = "", module: str = "all", n: int = 0,
    p_value: float = np.nan,
) -> dict[str, Any]:  # fmt: skip
    return {
        "what": what, "method": method, "module": module, "n": n, "value": float(value), "against": float(against),
        "p_value": float(p_value),
    }  # fmt: skip


def _known(member: Member) -> Iterator[dict[str, Any]]:
    """Shares of the chosen neurons that are their letter, know more, or are explained by a subject."""
    cards = member.table("neuron_cards")
    if not len(cards):
        return
    everyone = _everyone(member)
    for method, own in cards.groupby("method", sort=False):
        own = own.drop_duplicates(KEYS).merge(everyone, on=KEYS, how="left", suffixes=("_card", ""))
        sites = ["layer", "module"]
        chosen = own[[*KEYS]].assign(chosen=True)
        others = everyone.merge(chosen, on=KEYS, how="left")
        others = others[others["chosen"].isna()]
        for module in (*MODULES, "all"):
            part = own if module == "all" else own[own["module"] == module]
            if not len(part):
                continue
            weights = part.groupby(sites).size()
            for what in (name for name in everyone.columns if name not in KEYS):
                # A random draw with the same number in every site has this on the mean.
                beside = others.groupby(sites)[what].mean().reindex(weights.index)
                full = beside.notna()
                against = np.average(beside[full], weights=weights[full]) if full.any() else np.nan
                yield _row(what, part[what].mean(), against, method=str(method), module=module, n=len(part))
            knows = part["knows"]
            for what, which in (
                ("knows more than letters", knows == "more"), ("letters alone", knows == "letter"),
                ("unexplained", knows == ""),
            ):  # fmt: skip
                yield _row(what, which.mean(), method=str(method), module=module, n=len(part))


def _everyone(member: Member) -> pd.DataFrame:
    """One row a neuron: whether it is its letter, and what the best concept that explains it speaks of."""
    found = member.table("associations")
    found = found[found["rank"] == 1]
    bars = Bars(float(member.settings["characterize.min_gain"]), float(member.settings["characterize.min_auroc"]))
    kinds = member.table("concepts").set_index("concept")["kind"]
    found = found.assign(good=explained(found, bars), subject=found["concept"].map(kinds).map(SUBJECTS))
    # Of both signs the explained one, then the better.
    found = found.sort_values(["good", "auroc"], ascending=False, kind="stable").drop_duplicates(KEYS)
    frame = found[KEYS].assign(**{"explained by a concept": found["good"].astype(float)})
    for subject in dict.fromkeys(SUBJECTS.values()):
        frame[f"explained by: {subject}"] = (found["good"] & (found["subject"] == subject)).astype(float)
    letters = member.table("letters")
    if len(letters):
        is_letter = (letters["r2_letter"] >= IS_LETTER).astype(float)
        frame = frame.merge(letters[KEYS].assign(**{"is its letter": is_letter}), on=KEYS, how="left")
    return frame


def _said(member: Member) -> Iterator[dict[str, Any]]:
    """What formulas gain over single concepts, and what sentences predict, on held-out clusters."""
    formulas, sentences = member.table("formulas"), member.table("descriptions")
    if len(formulas):
        yield _row("gain of formulas (IoU)", formulas["gain"].mean(), formulas["null_gain"].mean(), n=len(formulas))
        better = (formulas["q_value"] < SURE).mean()
        yield _row("formulas better than a concept", better, n=len(formulas))
    own = sentences[sentences["source"] == "template"] if len(sentences) else sentences
    if len(own):
        for against, name in (("letter_auroc", "the letter alone"), ("others_auroc", "others' sentences")):
            value = own["simulation_auroc"].mean()
            yield _row(f"AUROC of sentences, beside {name}", value, own[against].mean(), n=len(own))
        yield _row("sentences that beat both", own["counts"].astype(bool).mean(), n=len(own))


def _sufficient(member: Member) -> Iterator[dict[str, Any]]:
    """Share of the neurons that suffices, beside that of matched draws."""
    for row in member.table("sufficient").to_dict("records"):
        if row["metric"] == "balanced_accuracy" and bool(row["judged"]):
            yield _row(
                "share that suffices", row["k"] / row["n_neurons"], row["k_random"] / row["n_neurons"],
                method=row["method"], module=row["module"] or "all", n=int(row["n_neurons"]), p_value=row["p_value"],
            )  # fmt: skip


def _degenerate(member: Member) -> Iterator[dict[str, Any]]:
    """Share of pairs of sets that are degenerate, beside draws of the tested pairs that the rule calls so.

    Only pairs that have draws have a synergy beside theirs: the greatest of each class, above draws on the mean.
    """
    table = member.table("degenerate")
    for method, own in table.groupby("method", sort=False) if len(table) else ():
        tested = own[own["n_draws"] > 0]
        against = tested["draws_degenerate"].sum() / max(1, tested["n_draws"].sum())
        yield _row(
            "degenerate pairs", own["degenerate"].astype(bool).mean(), against, method=f"sets by {method}", n=len(own)
        )
        if len(tested):
            yield _row(
                "synergy of tested pairs", tested["synergy"].mean(), tested["against"].mean(),
                method=f"sets by {method}", n=len(tested),
            )  # fmt: skip


def _recall(member: Member) -> Iterator[dict[str, Any]]:
    """Whether KN scores tell right from wrong, and what doubling the true class's neurons mends and pulls."""
    table = member.table("recall_summary")
    for row in table[table["label"] == ""].to_dict("records") if len(table) else ():
        yield _row(
            "KN scores, right against wrong (AUROC)", row["auroc"], row["auroc_against"],
            n=int(row["n_right"] + row["n_wrong"]), p_value=row["p_value"],
        )  # fmt: skip
        errors, others = max(1, row["n_enhanced"]), max(1, row["n_others"])
        yield _row(
            "errors mended", row["gained"] / errors, row["gained_against"] / errors, n=int(row["n_enhanced"]),
            p_value=row["p_gained"],
        )  # fmt: skip
        yield _row("errors mended, beside another class's", row["gained"] / errors, row["gained_other"] / errors,
                   n=int(row["n_enhanced"]))  # fmt: skip
        yield _row("others pulled to the class", row["pulled"] / others, row["pulled_against"] / others,
                   n=int(row["n_others"]))  # fmt: skip


def _shared(member: Member) -> Iterator[dict[str, Any]]:
    """Neurons that groups of a class share, and what the neurons of one group do in another."""
    table, transfer = member.table("sharing"), member.table("transfer")
    if len(table) and (total := table["neurons"].sum()):
        for what in ("independent", "specific"):
            name = "in the set of every group" if what == "independent" else "in the set of one group"
            yield _row(name, table[what].sum() / total, table[f"{what}_against"].sum() / total, n=int(total))
    if len(transfer):
        other = transfer[(transfer["chosen_on"] != transfer["measured_on"]) & transfer["ratio"].notna()]
        if len(other):
            yield _row("transfer between groups (median)", other["ratio"].median(), n=len(other))


def _modular(member: Member) -> Iterator[dict[str, Any]]:
    """How far classes can be cut out, and what experts share with classes."""
    table, measures = member.table("separability"), member.table("modularity")
    if len(table):
        good = (table["q_value"] < SURE) & (table["p_dealt"] < SURE)
        yield _row("separability", table["separability"].mean(), table["against"].mean(), n=len(table))
        yield _row("separability, beside dealt classes", table["separability"].mean(), table["dealt"].mean(),
                   n=len(table))  # fmt: skip
        yield _row("classes that can be cut out", good.mean(), n=len(table))
    if len(measures):
        for (model, measure), part in measures.groupby(["model", "measure"], sort=False):
            of = "" if model == "run" else f" ({model})"
            p = part["p_value"].iloc[0] if len(part) == 1 else np.nan
            yield _row(f"experts: {measure}{of}", part["value"].mean(), part["against"].mean(), n=len(part), p_value=p)
