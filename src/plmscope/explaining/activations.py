"""Activations of some neurons at every residue of some proteins, as a table.

::

    ps.activations(run.model, proteins, kept.neurons()[:5])        one row a residue, one column a neuron

Special tokens are left out: a column has as many values as the protein has residues. In a terminal it prints as a
table; a notebook shows the sequences, every neuron a line whose colours say where it is active.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import InputError
from plmscope.evaluation.selection import Selection
from plmscope.models.classifier import Classifier
from plmscope.models.hooks import record
from plmscope.models.sites import Neuron

#: Proteins, neurons and residues of each that a notebook shows; the table has all.
SHOWN_PROTEINS, SHOWN_NEURONS, SHOWN_RESIDUES = 5, 20, 400
_PLACE = ["id", "position", "residue"]


class Activations(pd.DataFrame):
    """Activations at residues: ``id, position, residue``, then one column a neuron, ``layer.module.neuron``.

    A table of pandas; what is taken from it is an ordinary one.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        """Sequences as strips, a line a neuron: orange above zero, blue below, by the neuron's largest activation."""
        names = [str(name) for name in self.columns if name not in _PLACE]
        largest = {name: float(np.nanmax(np.abs(self[name]))) or 1.0 for name in names[:SHOWN_NEURONS]}
        ids = list(dict.fromkeys(self["id"]))
        parts = [_strips(self[self["id"] == name], largest) for name in ids[:SHOWN_PROTEINS]]
        left = []
        if len(ids) > SHOWN_PROTEINS:
            left.append(f"{len(ids) - SHOWN_PROTEINS:,} more proteins")
        if len(names) > SHOWN_NEURONS:
            left.append(f"{len(names) - SHOWN_NEURONS:,} more neurons")
        rest = f"<div>{' and '.join(left)} in the table</div>" if left else ""
        return "".join(parts) + rest


def _strips(own: pd.DataFrame, largest: Mapping[str, float]) -> str:
    """One protein: its letters, and below them a coloured line for each neuron."""
    width = max((len(name) for name in largest), default=0)
    letters, cut = "".join(own["residue"].astype(str)), own.iloc[:SHOWN_RESIDUES]
    lines = [f"<div>{' ' * (width + 1)}{html.escape(letters[:SHOWN_RESIDUES])}</div>"]
    for name, most in largest.items():
        cells = []
        for residue, position, value in zip(cut["residue"], cut["position"], cut[name], strict=True):
            colour = f"rgba({'213,94,0' if value > 0 else '0,114,178'},{min(1.0, abs(value) / most):.2f})"
            title = html.escape(f"{residue}{position}: {value:+.3g}", quote=True)
            cells.append(f'<span style="background:{colour}" title="{title}"> </span>')
        lines.append(f"<div>{html.escape(name.rjust(width))} {''.join(cells)}</div>")
    more = f", the first {SHOWN_RESIDUES:,} of {len(own):,} residues" if len(own) > SHOWN_RESIDUES else ""
    title = html.escape(str(own["id"].iloc[0])) if len(own) else ""
    style = "font-family:monospace;white-space:pre;overflow-x:auto;margin:.2em 0 .8em"
    return f'<div><b>{title}</b>{more}<div style="{style}">{"".join(lines)}</div></div>'


def activations(
    model: Classifier, proteins: Sequence[Protein] | Protein | str, neurons: Sequence[Neuron] | Selection
) -> Activations:
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
    return Activations(pd.concat(frames, ignore_index=True))


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
