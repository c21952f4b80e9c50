"""A model with neurons held for good: a plain Hugging Face folder that loads without plmscope.

A neuron that is the output of a linear map is held at c by a row of zeros and the bias c; one that is the input of a
linear map (``intermediate``, after its non-linearity) by a column of zeros and the bias grown by c times that column::

    y_j = w_j x + b_j   ->   y_j = c_j             W x + b   ->   W' x + (b + W[:, j] c_j)

The same network as ablation gives, with one constant a neuron: what zero ablation gives, up to rounding; of mean
ablation, which has constants of their own for the first and the last token, what the mean at residues gives. The
largest difference from plmscope's own ablation is measured on proteins and told.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from plmscope.data.proteins import Protein
from plmscope.errors import ModelError, RunError, SelectionError
from plmscope.evaluation.selection import Selection, select_top
from plmscope.models.classifier import Classifier
from plmscope.models.hooked import network_of
from plmscope.models.hooks import module_of
from plmscope.models.sites import Site
from plmscope.study.opened import OpenRun, best_of_class

#: Test proteins on which the difference is measured.
COMPARED_PROTEINS = 32


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: The Hugging Face folder.
        what: The neurons that work, or that are held, in words.
        held: How many are held.
        total: Of how many.
        difference: Largest absolute difference of a logit from plmscope's ablation, over test proteins.
        proteins: How many were compared.
    """

    folder: Path
    what: str
    held: int
    total: int
    difference: float
    proteins: int

    def __repr__(self) -> str:
        return (
            f"{self.folder}: {self.what}; {self.held:,} of {self.total:,} neurons are held; logits differ from "
            f"ablation by at most {self.difference:.2g} on {self.proteins} test proteins"
        )


def export_model(
    opened: OpenRun, folder: Path, *, keep: str = "", suppress: str = "", ablation: str = "mean"
) -> Exported:
    """Write a run's model with neurons held for good.

    Args:
        opened: The run.
        folder: A new or empty folder.
        keep: ``METHOD:SHARE``, such as ``integrated_gradients:0.05``: all other neurons are held.
        suppress: A class: its best neurons, the share of ``report.knowledge_fraction``, are held.
        ablation: Held at their ``mean`` at residues, or at ``zero``.

    Raises:
        SelectionError: neither or both are asked for, or the share is outside its range.
        RunError: the method or class has no scores, or the folder holds other things.
        ModelError: a site of the model is no linear map of its own.
    """
    chosen = named_neurons(opened, keep, suppress)
    classifier: Classifier = opened.model
    constants = np.zeros((3, len(classifier.index)))
    if ablation == "mean":
        if classifier.ablation_means is None:
            raise RunError(f"{opened.run.path}: no ablation means; run 'plmscope score {opened.run.path}' first")
        constants = classifier.ablation_means
    elif ablation != "zero":
        raise SelectionError(f"ablation {ablation!r} is neither 'mean' nor 'zero'")
    works = chosen.mask if keep else ~chosen.mask
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder}: holds other things; name a new folder")
    edited = with_held(classifier, works, constants[2])
    proteins = opened.proteins("test")[:COMPARED_PROTEINS]
    difference = largest_difference(classifier, edited, proteins, works, constants)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        edited.save(folder)
        done = Exported(
            folder, f"{'keeps' if keep else 'without'} {chosen.name}", int((~works).sum()), len(works), difference,
            len(proteins),
        )  # fmt: skip
        note = {"what": done.what, "held": done.held, "of": done.total, "ablation": ablation, "difference": difference}
        (folder / "plmscope_edit.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror}); name another folder") from None
    return done


def export_neurons(opened: OpenRun, path: Path, *, keep: str = "", suppress: str = "") -> str:
    """Write a set of neurons as TSV, ``layer, module, neuron``; arguments as of :func:`export_model`.

    Returns:
        What was written, in words.

    Raises:
        SelectionError: as :func:`named_neurons`.
        RunError: so too, or the file cannot be written.
    """
    chosen = named_neurons(opened, keep, suppress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        chosen.to_tsv(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror}); name another file") from None
    return f"{path}: {chosen.name}, {int(chosen.mask.sum()):,} neurons"


def named_neurons(opened: OpenRun, keep: str, suppress: str) -> Selection:
    """The neurons that ``--keep`` or ``--suppress`` names.

    Raises:
        SelectionError: neither or both are given, or the share is outside its range.
        RunError: the method or class has no scores.
    """
    if bool(keep) == bool(suppress):
        raise SelectionError("which neurons is said by --keep METHOD:SHARE or by --suppress CLASS; give one of them")
    return _kept(opened, keep) if keep else best_of_class(opened, suppress)


def with_held(classifier: Classifier, works: np.ndarray, constants: np.ndarray) -> Classifier:
    """A copy of a classifier in which neurons are held by its weights; the original is not changed.

    Args:
        classifier: The model.
        works: ``(N,)`` true where a neuron works as usual.
        constants: ``(N,)`` what the others are held at.

    Raises:
        ModelError: the neurons of a site are not those of one linear map, or it has no bias to hold them by.
    """
    edited = replace(classifier, model=copy.deepcopy(classifier.model))
    index = classifier.index
    for side in ("input", "output"):  # a column's share of the bias first: a held row then replaces the whole bias
        for site, width in zip(index.sites, index.widths, strict=True):
            # Behind a non-linearity: what reads the intermediate neurons is the map whose outputs are those of output.
            reader = site.module == "intermediate"
            module, _ = module_of(edited, Site(site.layer, "output") if reader else site)
            part = index.slice(site)
            held = np.flatnonzero(~works[part])
            if reader != (side == "input") or not len(held):
                continue
            if not isinstance(module, torch.nn.Linear) or width != module.weight.shape[int(side == "input")]:
                raise ModelError(f"{classifier.name}: {site} is no linear map of its own; it cannot be held by weights")
            if module.bias is None and constants[part][held].any():
                raise ModelError(
                    f"{classifier.name}: {site} has no bias: its neurons can be held at zero alone; export with "
                    "--ablation zero"
                )
            with torch.no_grad():
                _hold(module, torch.from_numpy(held), torch.from_numpy(constants[part][held]), side)
    return edited


def _hold(module: torch.nn.Linear, units: torch.Tensor, values: torch.Tensor, side: str) -> None:
    """Hold units of a linear map, on its input or output side, in its weights."""
    units, values = units.to(module.weight.device), values.to(module.weight)
    if side == "input":
        if module.bias is not None:
            module.bias.add_(module.weight[:, units] @ values)
        module.weight[:, units] = 0
        return
    module.weight[units] = 0
    if module.bias is not None:
        module.bias[units] = values


@torch.inference_mode()
def largest_difference(
    classifier: Classifier,
    edited: Classifier,
    proteins: Sequence[Protein],
    works: np.ndarray,
    constants: np.ndarray,
) -> float:
    """Largest absolute difference of a logit between an edited model and ablation, over some proteins.

    Args:
        classifier: The model as it was.
        edited: With neurons held.
        proteins: Some.
        works: ``(N,)`` true where a neuron works.
        constants: ``(3, N)`` of the ablation.
    """
    index, largest = classifier.index, 0.0
    batches = classifier.batches(proteins)
    slices = {site: index.slice(site) for site in index.sites}
    known: dict[int, torch.Tensor] = {}
    for rows, logits in network_of(classifier).held_logits(batches, slices)(works, constants):
        known |= dict(zip(rows, logits.double().cpu(), strict=True))
    for batch in batches:
        found = edited.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits.double().cpu()
        for row, logit in zip(batch.rows, found, strict=True):
            largest = max(largest, float((logit - known[row]).abs().max()))
    return largest


def _kept(opened: OpenRun, text: str) -> Selection:
    """The neurons of ``METHOD:SHARE``."""
    method, _, share = text.rpartition(":")
    try:
        fraction = float(share)
    except ValueError:
        fraction = float("nan")
    if not method or not 0 < fraction < 1:
        raise SelectionError(f"{text!r} is not written like integrated_gradients:0.05, with a share between 0 and 1")
    chosen = select_top(opened.ranking(method), fraction)
    return Selection(chosen.index, chosen.mask, f"the best {100 * fraction:.3g} % of neurons by {method}")
