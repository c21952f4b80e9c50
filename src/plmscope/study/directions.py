"""Class directions: how far the mean activation of a class lies from that of the others, at every site.

With ``m_p`` the mean over the residues of protein ``p``::

    direction(c) = mean_{p in c} m_p - mean_{p not in c} m_p        one vector a site, in the units of its activations

over the training proteins that ablation means are taken from. In a file of safetensors each site is a tensor
``LAYER.MODULE`` of classes by neurons; the names of the classes, in their order, are JSON under ``classes`` in its
metadata. A direction says where the class lies, not that the model uses it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from plmscope.errors import RunError
from plmscope.progress import Track, silent
from plmscope.store.files import write_atomic
from plmscope.study.opened import OpenRun
from plmscope.study.scoring import mean_proteins


def export_directions(opened: OpenRun, path: Path, track: Track = silent) -> str:
    """Write the class directions of a run's model.

    Args:
        opened: The run.
        path: A file; its folder is made.
        track: Progress.

    Returns:
        What was written, in words.

    Raises:
        RunError: the file cannot be written.
    """
    from safetensors.numpy import save

    from plmscope.scoring.activation import summarise_activations

    model = opened.model
    proteins = mean_proteins(model, opened.proteins("train"), opened.clusters, opened.study)
    found = summarise_activations(model, proteins, track=track)
    rows = np.stack([found.difference(c) for c in range(len(found.labels))]).astype(np.float32)
    tensors = {f"{site.layer}.{site.module}": rows[:, model.index.slice(site)].copy() for site in model.index.sites}
    told = {"classes": json.dumps(found.labels), "proteins": str(len(proteins)), "model": opened.study.name}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save(tensors, told))
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); name another file") from None
    return (
        f"{path}: directions of {len(found.labels)} classes at {len(tensors)} sites, from {len(proteins):,} training "
        "proteins"
    )
