"""Structures on cards: packed lines for the viewer, what each neuron does along them, and how many were left out."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import numpy as np

from plmscope.report.blocks import Text, count
from plmscope.report.input import Results

KEYS = ("layer", "module", "neuron", "sign")


def structures_told(results: Results) -> Text | None:
    """How many cards have a structure, and what was left out; nothing where the study names none."""
    views, structures = results.get("card_views"), results.get("card_structures")
    if views is None or structures is None:
        return None
    text = (
        f"{count(len(views))} cards open in three dimensions, on {count(len(structures))} structures: a protein where "
        "the neuron is among its strongest, coloured along the whole chain."
    )
    without = int(results.look("characterize", "cards_without_structure") or 0)
    if without:
        left = int(results.look("characterize", "structures_left_out") or 0)
        text += (
            f" To keep this file small {count(left)} more structures were left out, and {count(without)} cards that "
            "have one of these alone are without."
        )
    return Text(text)


def card_structures(results: Results) -> list[dict[str, Any]]:
    """What the page draws: name, sequence, how the file fits, and its lines, packed by gzip."""
    table = results.get("card_structures")
    return [
        {
            "id": str(row["id"]), "sequence": str(row["sequence"]), "told": str(row["told"]),
            "packed": base64.b64encode(gzip.compress(str(row["pdb"]).encode(), 9, mtime=0)).decode("ascii"),
        }
        for row in ([] if table is None else table.to_dict("records"))
    ]  # fmt: skip


def views_of(results: Results) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By neuron and sign: the number of its structure, and its activation in hundredths of the largest there."""
    views, structures = results.get("card_views"), results.get("card_structures")
    if views is None or structures is None:
        return {}
    number = {str(name): k for k, name in enumerate(structures["id"])}
    return {
        tuple(row[key] for key in KEYS): {
            "structure": number[str(row["id"])],
            "heights": np.round(100 * np.asarray(row["activation"], dtype=np.float64)).astype(int).tolist(),
        }
        for row in views.to_dict("records")
    }
