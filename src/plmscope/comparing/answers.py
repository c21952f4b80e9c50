"""The answers that open the page of a comparison, and its closing lines on a terminal.

A verdict over runs is a *yes* only where the 95 % t interval of the mean over runs lies on the good side; below two
runs nothing is claimed. With several groups all of them have to agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.comparing.cells import CHANCE, PRIMARY_CELL, alike_rows, methods_of, only, where
from plmscope.comparing.estimates import Estimate, estimate
from plmscope.comparing.found import Found
from plmscope.comparing.members import CONFIRMATION, EXPLORATORY
from plmscope.report.blocks import Answer, Verdict, count, fixed, is_number, listed, percent, signed, words

QUESTION = (
    "Do the findings of one run hold in others: do the neurons that activations and gradients choose beat chance, are "
    "keys the most concentrated kind, and do runs choose the same neurons?"
)
NOTE = (
    "A run is one observation. Runs share their proteins and the language model they start from: the intervals speak "
    "of other seeds, not of other proteins."
)
#: Claims of one group: a verdict, the sentence, and more sentences.
Claim = tuple[Verdict, str, tuple[str, ...]]


def title(found: Found) -> str:
    """``5 runs compared``, with the study's name where it is one."""
    runs = found.members
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''} compared"


def facts_of_runs(found: Found) -> tuple[tuple[str, str], ...]:
    """The facts in the strip beside the answers: what was compared, and how many runs there are."""
    runs = found.tables["runs"]
    confirming = sum(member.role == CONFIRMATION for member in found.members)
    told = [("Runs in the estimates", str(confirming))]
    if confirming < len(found.members):
        told.append(("Exploratory, kept apart", ", ".join(m.name for m in found.members if m.role == EXPLORATORY)))
    told.append(("Seeds", ", ".join(str(seed) for seed in sorted(set(runs["seed"])))))
    told.append(("Model", ", ".join(str(model) for model in dict.fromkeys(runs["model"]))))
    told.append(("Groups", str(len(found.groups))))
    return tuple(told)


def answers_of_runs(found: Found) -> tuple[Answer, ...]:
    """The four questions that runs can settle together."""
    return (
        _answer(found, "Do the models know the classes?", _quality),
        _answer(found, "Do selections beat chance over runs?", _beats),
        _answer(found, "Where is knowledge concentrated: in keys?", _keys),
        _answer(found, "Do runs choose the same neurons?", _alike),
    )


def summary(found: Found) -> list[str]:
    """The answers as a few lines of plain text, for a terminal."""
    said = [f"{title(found)}: {', '.join(member.name for member in found.members)}"]
    apart = [member.name for member in found.members if member.role == EXPLORATORY]
    said += [f"exploratory, in no estimate: {', '.join(apart)}"] if apart else []
    for answer in answers_of_runs(found):
        said.append(f"{answer.question} {answer.verdict}. {answer.text}")
        said += [f"  {detail}" for detail in answer.details]
    return [line.replace("−", "-") for line in said]


def _answer(found: Found, question: str, claim: Callable[[Found, str], Claim]) -> Answer:
    """One group's claim, or all of them under one verdict."""
    claims = {group: claim(found, group) for group in found.groups}
    if len(claims) == 1:
        verdict, text, details = next(iter(claims.values()))
        return Answer(verdict, question, text, details)
    verdicts = {verdict for verdict, _, _ in claims.values()}
    together: Verdict = verdicts.pop() if len(verdicts) == 1 else "unclear" if "unclear" in verdicts else "partly"
    text = f"Of {len(claims)} groups: " + ", ".join(f"{group}: {verdict}" for group, (verdict, _, _) in claims.items())
    return Answer(together, question, f"{text}.", tuple(f"{g}: {' '.join([t, *d])}" for g, (_, t, d) in claims.items()))


def with_interval(row: Any, plus: bool = False, digits: int = 3) -> str:
    """``+0.148 (95 % t interval 0.1 to 0.2, n = 5)``."""
    e = row if isinstance(row, dict) else vars(row)
    text = signed(e["mean"], digits) if plus else fixed(e["mean"], digits)
    bounds = f"{fixed(e['low'], digits)} to {fixed(e['high'], digits)}, " if is_number(e["low"]) else ""
    return f"{text} ({bounds}n = {int(e['n'])})"


def _quality(found: Found, group: str) -> Claim:
    runs = where(found.tables["runs"], group=group, role=CONFIRMATION)
    if not len(runs):
        return "not run", "No run of this group is a confirmation.", ()
    wins = int((runs["margin"] > 0).sum())
    combined = where(found.tables["combined"], group=group)
    accuracy = only(where(combined, quantity="balanced_accuracy", model=""))
    margin = only(where(combined, quantity="margin", model=""))
    text = (
        f"In {wins} of {len(runs)} runs the model beats both baselines; mean balanced accuracy "
        f"{with_interval(accuracy)}, over the better baseline {with_interval(margin, plus=True)}."
    )
    if wins < len(runs):
        return ("no" if not wins else "partly"), text, ()
    known = margin is not None and is_number(margin["low"]) and margin["low"] > 0
    if not known:
        n = len(runs)
        few = f"{'One run is' if n == 1 else 'Two runs are'} too few for an interval over runs that lies above 0."
        text += f" {few if n < 3 else 'The interval over runs does not lie above 0.'}"
    return ("yes" if known else "unclear"), text, ()


def _beats(found: Found, group: str) -> Claim:
    rows = where(found.tables["combined"], quantity="difference", group=group, against=CHANCE, **PRIMARY_CELL)
    fixed_rows = rows[((rows["scope"] == "pooled") & (rows["module"] == "")) | (rows["module"] == "key")]
    if not len(fixed_rows):
        return "not run", "No run compared the outcome fixed in advance with matched chance.", ()
    records = fixed_rows.to_dict("records")
    won = [row for row in records if is_number(row["low"]) and row["low"] > 0]
    details = []
    for row in records:
        place = "within keys" if row["module"] else "all neurons together"
        details.append(
            f"{words(row['method']).capitalize()}, {place}: {with_interval(row, plus=True)}, "
            f"beats chance in {int(row['beat'])} of {int(row['n'])} runs."
        )
    rest = rows[(rows["scope"] == "module") & (rows["module"] != "key")]
    sure = [
        f"{words(row['module'])} by {words(row['method'])} {with_interval(row, plus=True)}"
        for row in rest.to_dict("records")
        if is_number(row["low"]) and row["low"] > 0
    ]
    if len(rest):
        details.append(f"Other kinds whose interval lies above 0, uncorrected: {listed(sure)}.")
    text = (
        f"Of the {len(records)} outcomes fixed in advance, the mean over runs lies above matched chance, interval and "
        f"all, in {len(won)}."
    )
    if max(int(row["n"]) for row in records) < 2:
        return "unclear", f"One run is no sample: there is no interval over runs. {text}", tuple(details)
    verdict: Verdict = "yes" if len(won) == len(records) else "partly" if won else "no"
    return verdict, text, tuple(details)


def key_lead(found: Found, group: str, method: str) -> Estimate:
    """The ratio of two concentrations in every run, keys over the best other kind, with its interval over runs."""
    kinds = where(found.tables["kinds"], group=group, role=CONFIRMATION, model="run", method=method, **PRIMARY_CELL)
    kinds = kinds[kinds["judged"].astype(bool)]
    ratios = []
    for _, part in kinds.groupby("run", sort=False):
        rest = part.loc[part["module"] != "key", "concentration"].dropna()
        own = part.loc[part["module"] == "key", "concentration"].dropna()
        if len(own) and len(rest):
            ratios.append(float(own.iloc[0]) / float(rest.max()))
    return estimate(np.asarray(ratios), ratio=True)


def _keys(found: Found, group: str) -> Claim:
    kinds = where(found.tables["kinds"], group=group, role=CONFIRMATION, model="run", **PRIMARY_CELL)
    methods = methods_of(kinds)
    if not methods:
        return "not run", "No run kept neurons by kind of module.", ()
    combined = where(found.tables["combined"], quantity="concentration", group=group, model="run", **PRIMARY_CELL)
    verdicts, details = [], []
    for method in methods:
        lead, own = key_lead(found, group, method), where(combined, method=method)
        key = only(where(own, module="key"))
        others = [
            f"{words(row['module'])} {fixed(row['mean'], 1)}" for row in own.to_dict("records")
            if row["module"] != "key" and row["n"]
        ]  # fmt: skip
        sure = key is not None and is_number(key["low"]) and is_number(lead.low)
        if key is None or not key["n"] or not lead.n:
            verdicts.append("no")
            details.append(f"By {words(method)}: keys carry nothing that could be told from noise.")
            continue
        first = sure and key["low"] > 1 and lead.low > 1
        behind = key["mean"] <= 1 or lead.mean <= 1
        verdicts.append("yes" if first else "no" if behind else "unclear")
        times = with_interval(lead, digits=2) if is_number(lead.low) else fixed(lead.mean, 2)
        details.append(
            f"By {words(method)}: keys {with_interval(key, digits=2)}, which is {times} times "
            f"that of the next kind of the same run; others {listed(others)}."
        )
    names = [words(m) for m, v in zip(methods, verdicts, strict=True) if v == "yes"]
    verdict: Verdict = "yes" if len(names) == len(methods) else "partly" if names else "unclear"
    if set(verdicts) == {"no"}:
        verdict = "no"
    text = (
        f"Keys are the most concentrated kind over runs by {listed(names)}."
        if names
        else "By no method does the interval over runs put keys before every other kind."
    )
    return verdict, f"{text} Concentration is a ratio: 1 is no better than matched chance.", tuple(details)


def _alike(found: Found, group: str) -> Claim:
    rows = where(where(alike_rows(found), group=group), scope="pooled")
    if not len(rows):
        return "not run", "There are no two confirmation runs whose neurons correspond.", ()
    share = _nearest(rows["fraction"], float(found.members[0].settings["report.knowledge_fraction"]))
    rows = rows[rows["fraction"] == share]
    details = []
    for row in rows.to_dict("records"):
        details.append(
            f"By {words(row['method'])}: Jaccard index {fixed(row['jaccard'], 2)} (pairs {fixed(row['smallest'], 2)} "
            f"to {fixed(row['largest'], 2)}), by matched chance {fixed(row['expected'], 2)}."
        )
    verdict: Verdict = "yes" if (rows["smallest"] > rows["expected"]).all() else "unclear"
    pairs = int(rows["pairs"].max())
    told = [f"{percent(row['shared'] / row['n'])} by {words(row['method'])}" for row in rows.to_dict("records")]
    text = (
        f"Of their best {percent(share)}, {count(pairs)} pair{'s' if pairs != 1 else ''} of runs share {listed(told)}."
    )
    return verdict, text, tuple(details)


def _nearest(fractions: pd.Series | Sequence[float], wanted: float) -> float:
    """The share that was selected and is nearest to the one wanted."""
    return min((float(f) for f in fractions), key=lambda f: abs(f - wanted))
