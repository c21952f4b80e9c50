"""What a protein's length and amino-acid composition alone tell of a class, beside a neuron that a class explains.

An EC class can be a proxy: of a class of 80-residue proteins, any neuron that follows length "knows" it. So for every
class concept two rankings of the held-out proteins are made that no neuron has a part in, both learned on the proteins
of discovery:

* length: the shorter first or the longer first, whichever side orders the proteins of discovery;
* composition: a balanced logistic regression on the 20 amino-acid frequencies and the log of the length.

Their AUROC is on the proteins that confirm a neuron's class (one a cluster, of those whose class is known), as the
neuron's own is. A neuron goes beyond them if its AUROC is above both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from plmscope.data.proteins import Protein
from plmscope.knowledge.concepts import ConceptSet
from plmscope.models.quality import composition
from plmscope.store.schema import SCHEMA


def class_baselines(
    discovery: Sequence[Protein], confirmation: Sequence[Protein], concepts: ConceptSet, seed: int = 0
) -> pd.DataFrame:
    """``class_baselines.parquet``: one row a class concept.

    Args:
        discovery: Proteins that both rankings are learned from.
        confirmation: Proteins that they are judged on.
        concepts: Those of the run.
        seed: Of the logistic regression.

    Returns:
        ``concept``, ``n_with`` and ``n_without`` (proteins of confirmation that have the class, and that have another),
        ``auroc_length``, ``auroc_composition``: NaN where all proteins of a side have the class, or none.
    """
    sides = [(composition(some), _members(some, concepts)) for some in (discovery, confirmation)]
    rows = []
    for number, concept in enumerate(concepts.concepts):
        if concept.kind != "class":
            continue
        (x, y), (held_x, held_y) = (
            (values[members[1, :, number]], members[0, :, number][members[1, :, number]]) for values, members in sides
        )
        length, both = np.nan, np.nan
        if y.any() and not y.all() and held_y.any() and not held_y.all():
            towards = 1 if roc_auc_score(y, x[:, -1]) >= 0.5 else -1
            length = float(roc_auc_score(held_y, towards * held_x[:, -1]))
            model = LogisticRegression(max_iter=2000, class_weight="balanced", random_state=seed)
            fitted = make_pipeline(StandardScaler(), model).fit(x, y)
            both = float(roc_auc_score(held_y, fitted.decision_function(held_x)))
        rows.append((concept.name, int(held_y.sum()), int((~held_y).sum()), length, both))
    return pd.DataFrame(rows, columns=list(SCHEMA["class_baselines"]))


def _members(proteins: Sequence[Protein], concepts: ConceptSet) -> np.ndarray:
    """``(2, P, C)`` booleans: whether a protein has a concept of the protein level, and whether that is known."""
    members = np.zeros((2, len(proteins), len(concepts)), dtype=bool)
    for row, protein in enumerate(proteins):
        annotation = concepts.annotate(protein)
        members[0, row, list(annotation.holds)] = True
        members[1, row] = annotation.known
    return members


def reached(row: pd.Series) -> float:
    """The better of the two rankings; NaN where neither was made."""
    return float(np.fmax(row["auroc_length"], row["auroc_composition"]))


def with_baselines(cards: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """Cards whose sentence tells, where a class explains the neuron, what length and composition alone reach."""
    known = baselines.set_index("concept")
    told = cards.copy()
    for place, card in cards.iterrows():
        if card["explained"] and card["concept"] in known.index:
            row = known.loc[card["concept"]]
            if not np.isnan(reached(row)):
                words = (
                    f" Of {card['concept']}, length alone reaches AUROC {row['auroc_length']:.2f}, "
                    f"composition and length {row['auroc_composition']:.2f}"
                )
                beyond = card["auroc"] > reached(row)
                told.loc[place, "sentence"] = f"{card['sentence']}{words}{'.' if beyond else ': the neuron no more.'}"
    return told
