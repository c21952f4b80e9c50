"""Activations of some neurons at every residue of some proteins, as a table.

::

    ps.activations(run.model, proteins, kept.neurons()[:5])        one row a residue, one column a neuron

Special tokens are left out: a column has as many values as the protein has residues.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import InputError
from plmscope.evaluation.selection import Selection
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import record
from plmscope.models.sites import Neuron


def activations(
    model: Classifier, proteins: Sequence[Protein] | Protein | str, neurons: Sequence[Neuron] | Selection
) -> pd.DataFrame:
    """Activations at residues.

    Args:
        model: The classifier.
        proteins: Proteins, one of them, or a sequence.
        neurons: Neurons, or a selection.

    Returns:
        One row a residue: ``id, position`` (1-based), ``residue``, then one column a neuron, called
        ``layer.module.neuron``.

    Raises:
        InputError: there is no protein, or a residue has no token.
        SelectionError: the model has no such neuron.
    """
    asked = [as_protein(proteins)] if isinstance(proteins, str | Protein) else list(proteins)
    if not asked:
        raise InputError("no proteins; give at least one")
    chosen = neurons.neurons() if isinstance(neurons, Selection) else list(neurons)
    positions = np.array([model.index.position(neuron) for neuron in chosen], dtype=np.int64)
    names = [f"{n.site.layer}.{n.site.module}.{n.index}" for n in chosen]
    frames = []
    for protein in asked:
        frame = pd.DataFrame(at_residues(model, protein, positions), columns=names)
        frame.insert(0, "residue", list(protein.sequence))
        frame.insert(0, "position", np.arange(1, len(protein) + 1))
        frame.insert(0, "id", protein.id)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def as_protein(protein: Protein | str) -> Protein:
    """A sequence as a protein called ``protein``; blanks and line breaks are dropped, small letters raised.

    >>> as_protein("mk tay").sequence
    'MKTAY'
    """
    return protein if isinstance(protein, Protein) else Protein("protein", "".join(protein.split()).upper())


@torch.inference_mode()
def at_residues(model: Classifier, protein: Protein, positions: np.ndarray) -> np.ndarray:
    """Activations ``(R, K)`` float32 of the neurons at some positions of a flat array."""
    return of_batch(model, [protein], positions)[0]


@torch.inference_mode()
def of_batch(model: Classifier, proteins: Sequence[Protein], positions: np.ndarray) -> list[np.ndarray]:
    """The same for proteins that go through the model together, one array each."""
    index = model.index
    of_site = index.site_of[positions]
    sites = [index.sites[s] for s in np.unique(of_site)]
    batch = model.batch(proteins)
    out = [np.zeros((len(protein), len(positions)), np.float32) for protein in proteins]
    with record(model, sites) as seen:
        model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        for site in sites:
            where = np.flatnonzero(of_site == index.sites.index(site))
            units = torch.from_numpy(positions[where] - index.offsets[site]).to(seen[site].device)
            values = seen[site][:, :, units].float().cpu().numpy()  # (B, T, k)
            for row, protein in enumerate(proteins):
                out[row][:, where] = values[row, 1 : len(protein) + 1]
    return out
