"""What cards show in three dimensions: a protein in which a neuron is strong, coloured along its whole chain.

A card takes the first of its own strongest proteins that has a structure. All cards together show at most :data:`MOST`
structures, so that a report stays a file that one can send: neurons are asked in the order of their ranks, and one
whose proteins have structures that did not fit is left without and counted. Activations are those of the whole
protein, with the sign of the card, as shares of the largest of that neuron in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from plmscope.data.proteins import Protein
from plmscope.data.structures import match_structure
from plmscope.knowledge.stream import by_protein, stream_of
from plmscope.models.classifier import Classifier
from plmscope.models.sites import Neuron, Site
from plmscope.progress import Track, silent

#: Structures of all cards together.
MOST = 20
#: Atoms that a drawn chain needs.
DRAWN = ("N", "CA", "C", "O")


@dataclass(frozen=True)
class Views:
    """Two tables, and what did not fit.

    Attributes:
        views: ``card_views``: one row a card that has one.
        structures: ``card_structures``: one row a structure that is shown.
        without: Cards whose proteins have structures that are not shown.
        left_out: Structures that a card would have shown first.
    """

    views: pd.DataFrame
    structures: pd.DataFrame
    without: int
    left_out: int


def card_views(
    classifier: Classifier,
    cards: pd.DataFrame,
    proteins: Sequence[Protein],
    files: Mapping[str, Path],
    *,
    most: int = MOST,
    token_budget: int = 2048,
    track: Track = silent,
) -> Views:
    """Choose structures for cards and read what their neurons do along them.

    Args:
        classifier: The model.
        cards: ``neuron_cards``.
        proteins: Those that the cards' strongest are among.
        files: Structure files by the id of their protein.
        most: Structures of all cards together.
        token_budget: Padded tokens a batch.
        track: Progress.
    """
    known = {protein.id: protein for protein in proteins if (protein.parent or protein.id) in files}
    wanted = cards.sort_values("rank", kind="stable").drop_duplicates(["layer", "module", "neuron"])
    shown: dict[str, list[tuple[Neuron, int]]] = {}
    missed: set[str] = set()
    without = 0
    for row in wanted.to_dict("records"):
        own = [one["id"] for one in json.loads(row["top_proteins"]) if one["id"] in known]
        fits = [name for name in own if name in shown or len(shown) < most]
        if fits:
            neuron = Neuron(Site(int(row["layer"]), row["module"]), int(row["neuron"]))
            shown.setdefault(fits[0], []).append((neuron, int(row["sign"])))
        elif own:
            missed.add(own[0])
            without += 1
    chosen = [known[name] for name in shown]
    sites = sorted({neuron.site for own in shown.values() for neuron, _ in own})
    widths = [classifier.index.slice(site).stop - classifier.index.slice(site).start for site in sites]
    first = dict(zip(sites, np.cumsum([0, *widths]).tolist(), strict=False))
    views = []
    for chunk in stream_of(classifier, sites, token_budget, track)(chosen, "structures of cards") if chosen else ():
        for number, values in zip(chunk.rows, by_protein(chunk), strict=True):
            for neuron, sign in shown[chosen[number].id]:
                along = sign * values[:, first[neuron.site] + neuron.index].double().cpu().numpy()
                share = along / max(float(np.abs(along).max()), 1e-12)
                place = (neuron.site.layer, neuron.site.module, neuron.index, sign)
                views.append((*place, chosen[number].id, np.round(share, 3).tolist()))
    rows = []
    for protein in chosen:
        one = match_structure(files[protein.parent or protein.id], protein)
        rows.append((protein.id, protein.sequence, one.told(), drawn_alone(one.text)))
    return Views(
        pd.DataFrame(views, columns=["layer", "module", "neuron", "sign", "id", "activation"]),
        pd.DataFrame(rows, columns=["id", "sequence", "told", "pdb"]),
        without,
        len(missed),
    )


def drawn_alone(text: str) -> str:
    """PDB lines without the side chains of chain A, which a ribbon does not show."""
    lines = text.splitlines()
    kept = [line for line in lines if line[:4] != "ATOM" or line[21] != "A" or line[12:16].strip() in DRAWN]
    return "\n".join(kept) + "\n"
