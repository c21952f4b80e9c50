"""What was found about one decision: three tables, a summary that prints itself, and a strip for a notebook."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.leakage import IDENTITIES
from plmscope.data.structures import Matched
from plmscope.knowledge.cards import without_place
from plmscope.report.blocks import json_ready

#: Columns of every table, in order.
SCHEMA: dict[str, tuple[str, ...]] = {
    "explained_proteins": (
        "id", "length", "explained", "decided", "probability", "probabilities", "log_odds", "start_log_odds",
        "attribution", "gap", "points", "null_copies", "null_gap", "null_points", "null_error",
        "residues_outside", "outside_p", "nearest_train", "identity",
        "nearest_label", "distance", "accuracy", "accuracy_low", "accuracy_high", "n_test", "in_training",
        "longest_train", "neurons_gap", "held_n",
        "held_effect", "held_draws", "held_p", "held_decided", "chosen", "chosen_n", "chosen_effect", "chosen_draws",
        "chosen_p", "chosen_decided", "kn_score",
    ),
    "explained_residues": (
        "id", "position", "residue", "attribution", "null_low", "null_high", "outside", "through", "n_firing",
        "concepts", "motifs", "features", "secondary", "accessibility", "contacts", "site_distance",
    ),
    "explained_neurons": (
        "id", "rank", "layer", "module", "neuron", "contribution", "effect", "position", "residue", "activation",
        "percentile", "places", "chosen", "sentence", "concept", "motif",
    ),
}  # fmt: skip
#: Residues and neurons that a summary names.
NAMED = 5
#: What ``in_training`` says of a protein that the model has seen, itself or as good as itself.
SAME, ALIKE = "same sequence", f"{IDENTITIES[-1]:.0%} identical or more"
#: Percentile of an activation up to which it is called low, and high from as far below 1.
LOW = 0.25
#: What p value more residues outside the band than expected are called more than chance at.
SIGNIFICANT = 0.05


@dataclass(frozen=True, repr=False)
class Explanation:
    """Why the model says this about one protein; made by :func:`~plmscope.explaining.explainer.explain`.

    Attributes:
        summary: The row of ``explained_proteins``; see docs/explain-a-protein.md for every number.
        residues: ``explained_residues``, one row a residue.
        neurons: ``explained_neurons``, the strongest first.
        tracks: ``(K, R)`` contribution of each of the ``neurons`` at every residue; zero where it acts at the first
            token alone.
        structure: Its structure, if one was given.
    """

    summary: Mapping[str, Any]
    residues: pd.DataFrame
    neurons: pd.DataFrame
    tracks: np.ndarray = field(compare=False)
    structure: Matched | None = field(default=None, compare=False)

    @property
    def id(self) -> str:
        """The protein."""
        return str(self.summary["id"])

    @property
    def strongest_residues(self) -> pd.DataFrame:
        """Residues outside the band of shuffled copies, those that speak most for the class first."""
        outside = self.residues[self.residues["outside"].astype(bool)]
        return outside.sort_values("attribution", ascending=False, kind="stable")

    def __repr__(self) -> str:
        return "\n".join(sentences(self))

    def _repr_html_(self) -> str:
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in sentences(self))
        return f'<div style="font-size:.95em;line-height:1.5">{lines}{strip_html(self.residues)}</div>'

    def to_json(self) -> str:
        """Everything as one JSON object on one line; what is not known is null."""
        return json.dumps(
            {
                **{key: json_value(value) for key, value in self.summary.items()},
                "residues": records(self.residues.drop(columns="id")),
                "neurons": records(self.neurons.drop(columns="id")),
                **({} if self.structure is None else {"structure": self.structure.told()}),
            },
            ensure_ascii=False,
        )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain values."""
    return [{str(key): json_value(value) for key, value in row.items()} for row in frame.to_dict("records")]


def json_value(value: Any) -> Any:
    """A value that JSON knows; JSON inside text becomes what it says."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:  # a motif may begin with a bracket
            return value
    return json_ready(value)


def sentences(one: Explanation) -> list[str]:
    """The summary in words, a line each."""
    s = one.summary
    lines = [
        f"{s['id']}, {s['length']:,} residues: the model says {s['decided'] or 'no class'}; explained is class "
        f"{s['explained']}, probability {s['probability']:.3f}, log-odds {s['log_odds']:+.2f}"
    ]
    if s["distance"]:
        lines += [f"  {line}" for line in (trust(s), *remarks(s))]
    total = s["log_odds"] - s["start_log_odds"]
    lines.append(
        f"  residues: {s['attribution']:+.2f} nats of {total:+.2f} from the mean residue (gap {s['gap']:+.3f}); "
        + (
            f"{s['residues_outside']:,} of {s['length']:,} outside the band of {s['null_copies']} shuffled copies, "
            f"{s['length'] * 0.1:.0f} expected by chance: {verdict(s)}; {_named_residues(one)}"
            if s["null_copies"]
            else "no band was asked for"
        )
    )
    if one.structure is not None:
        lines.append(f"  {one.structure.told()}")
    lines += [f"  {neuron_text(row)}" for row in records(one.neurons.head(NAMED))]
    if s["held_n"]:
        lines.append(
            f"  the {s['held_n']} supporting neurons held together: {-s['held_effect']:+.2f} nats, matched draws "
            f"{-s['held_draws']:+.2f}, which is no test, since they were picked by this protein; the model then says "
            f"{s['held_decided']}"
        )
    if s["chosen_n"]:
        lines.append(
            f"  {s['chosen']} ({s['chosen_n']:,} neurons) held: {-s['chosen_effect']:+.2f} nats, matched draws "
            f"{-s['chosen_draws']:+.2f}, p = {s['chosen_p']:.2g}"
        )
    return lines


def trust(s: Mapping[str, Any]) -> str:
    """How near the next training protein is, and what the model did at this distance."""
    near = "no relative among the training proteins"
    if s["nearest_train"]:
        near = (
            f"nearest training protein {s['nearest_train']} (class {s['nearest_label']}), identity {s['identity']:.0%}"
        )
    if s["in_training"]:
        return near
    if math.isfinite(s["accuracy"]):
        return (
            f"{near}; of {s['n_test']} test proteins at this distance ({s['distance']}) {s['accuracy']:.0%} were right "
            f"(95 % interval {s['accuracy_low']:.0%} to {s['accuracy_high']:.0%})"
        )
    return (
        f"{near}; {s['n_test']} test proteins of the run at this distance ({s['distance']}), too few to tell accuracy"
    )


def remarks(s: Mapping[str, Any]) -> list[str]:
    """What a reader has to know before believing the answer: the model has seen the protein, or none so long."""
    seen = {
        SAME: "this sequence is a training protein",
        ALIKE: f"a training protein is {IDENTITIES[-1]:.0%} identical to it or more",
    }.get(s["in_training"])
    lines = []
    if seen:
        lines.append(
            f"{seen}: the model has seen it with its class, so a right answer is no feat and says nothing about new "
            "proteins"
        )
    if 0 < s["longest_train"] < s["length"]:
        lines.append(
            f"it has {s['length']:,} residues, the longest training protein {s['longest_train']:,}: the model was "
            "trained on none so long"
        )
    return lines


def verdict(s: Mapping[str, Any]) -> str:
    """Whether more residues lie outside the band than chance puts there, in words."""
    p = s["outside_p"]
    if s["residues_outside"] <= s["length"] * 0.1:
        return "no more than chance"
    return f"{'more' if p <= SIGNIFICANT else 'no more'} than chance (p = {p:.2g})"


def neuron_text(row: Mapping[str, Any]) -> str:
    """One neuron in words."""
    share = row["percentile"]
    unusual = "" if share is None else f" (percentile {100 * share:.1f} of training residues)"
    card = f": {without_place(row)}" if row["sentence"] else ""
    return (
        f"{row['module']}, layer {row['layer']}, neuron {row['neuron']}: {row['contribution']:+.3f} nats, "
        f"{acting(row)}{unusual}; {-row['effect']:+.3f} when it alone is held{card}"
    )


def acting(row: Mapping[str, Any]) -> str:
    """Where a neuron acts most, and whether by being high or low there.

    One that fires on glycine may well count for a class by being low elsewhere.
    """
    where = "at the last token" if row["position"] else "at the first token"
    if row["residue"]:
        where = f"at {row['residue']}{row['position']}"
    share = row["percentile"]
    if share is not None and share <= LOW:
        return f"mostly by being low {where}"
    if share is not None and share >= 1 - LOW:
        return f"mostly by being high {where}"
    return f"mostly {where}"


def _named_residues(one: Explanation) -> str:
    """The residues that speak most for the class."""
    best = one.strongest_residues
    best = best[best["attribution"] > 0].head(NAMED)
    if not len(best):
        return "none of them speaks for the class"
    named = ", ".join(
        f"{r}{p} {a:+.2f}" for r, p, a in zip(best["residue"], best["position"], best["attribution"], strict=True)
    )
    return f"most {named}"


def strip_html(residues: pd.DataFrame, width: int = 60) -> str:
    """The sequence as a coloured strip: orange for the class, blue against it, bold outside the band."""
    largest = float(residues["attribution"].abs().max()) or 1.0
    rows = []
    for start in range(0, len(residues), width):
        cells = []
        for row in residues.iloc[start : start + width].itertuples():
            share = float(row.attribution) / largest  # type: ignore[arg-type]
            colour = f"rgba({'213,94,0' if share > 0 else '0,114,178'},{abs(share):.2f})"
            weight = "700" if row.outside else "400"
            title = html.escape(f"{row.residue}{row.position}: {row.attribution:+.3f} nats", quote=True)
            style = f"background:{colour};font-weight:{weight}"
            cells.append(f'<span style="{style}" title="{title}">{html.escape(str(row.residue))}</span>')
        number = f'<span style="opacity:.75">{start + 1:>5} </span>'
        rows.append(f"<div>{number}{''.join(cells)}</div>")
    return f'<div style="font-family:monospace;white-space:pre;overflow-x:auto;margin:.4em 0">{"".join(rows)}</div>'
