"""Do annotated residues attract attribution? Gradient times activation, residue by residue.

With ``a`` and ``g = dF/da`` of the neurons of a set at the token of residue ``r``::

    A(r) = | sum over the neurons of  g * a |

``input`` is the same at the output of the embeddings. In every protein, the AUROC of A for telling annotated residues
from the others; its mean over clusters is compared with that of the annotation shifted within the protein (Wilcoxon
signed ranks over clusters, one-sided). Catalytic residues are seldom alanines, so a second AUROC compares every
annotated residue with the others of *its own* amino acid in the protein: what is left is about the place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata, wilcoxon

from plmscope.data.proteins import Protein
from plmscope.knowledge.concepts import ConceptSet
from plmscope.knowledge.confirmation import MIN_SHIFT, offsets
from plmscope.models.classifier import Batch, Classifier
from plmscope.models.hooked import network_of
from plmscope.models.network import Network
from plmscope.models.sites import Site
from plmscope.models.supplied import Supplies, supplies
from plmscope.models.workers import splitting
from plmscope.progress import Track, silent
from plmscope.scoring.paths import EMBEDDING, activations_and_gradients
from plmscope.scoring.targets import Target, request
from plmscope.stats.chance import benjamini_hochberg
from plmscope.store.resume import Parts
from plmscope.tasks.crew import ALONE, Crew
from plmscope.tasks.task import Task

INPUT = "input"
PART = "attribution"
COLUMNS = (
    "concept", "of", "n_clusters", "auroc", "null_auroc", "p_value", "q_value", "auroc_same_letter",
    "p_same_letter", "q_same_letter",
)  # fmt: skip


def attributed_residues(
    classifier: Classifier,
    proteins: Sequence[Protein],
    concepts: ConceptSet,
    selections: Mapping[str, np.ndarray],
    *,
    target: str = "log_odds",
    seed: int = 0,
    min_proteins: int = 6,
    token_budget: int = 2048,
    track: Track = silent,
    parts: Parts | None = None,
    crew: Crew = ALONE,
) -> pd.DataFrame:
    """Whether patterns and features attract more attribution than the same annotation elsewhere in the protein.

    Args:
        classifier: The model.
        proteins: Labelled, one a cluster.
        concepts: Those of the kinds ``feature`` and ``pattern`` are asked.
        selections: Name to ``(N,)`` neurons; ``input`` is added.
        target: Of the true class.
        seed: Of the shifts.
        min_proteins: Clusters below which a concept is left out.
        token_budget: Padded tokens a batch.
        track: Progress.
        parts: Where it keeps what it has, now and then, and continues after a kill.
        crew: Who does the work.

    Returns:
        One row a concept and set of neurons, :data:`COLUMNS`.
    """
    asked = request(classifier, proteins, target)
    # A protein with several classes is explained for the first of them: it is one cluster, not several.
    first = list({name: row for row, name in reversed(list(enumerate(asked.ids)))}.values())[::-1]
    proteins, classes = [asked.proteins[row] for row in first], asked.classes[first]
    values_of: dict[tuple[int, str], list[tuple[float, ...]]] = {}
    done = np.zeros(len(proteins), bool)

    def state() -> dict[str, np.ndarray]:
        kept = {f"{number}/{name}": np.array(each) for (number, name), each in values_of.items()}
        return kept | {"done": done}

    before = None if parts is None else parts.read(PART)
    if before is not None:
        done = before.pop("done")
        for key, rows_before in before.items():
            concept, _, name = key.partition("/")
            values_of[int(concept), name] = [tuple(row) for row in rows_before.tolist()]
    left = np.flatnonzero(~done).tolist()
    plan = classifier.batches([proteins[row] for row in left], token_budget).plan
    how: dict[str, Any] = {
        "concepts": concepts, "selections": dict(selections), "target": target, "seed": seed,
        "token_budget": token_budget,
    }  # fmt: skip
    runs = [[left[place] for batch in run for place in batch] for run in _runs(crew, plan)]
    given = [([proteins[row] for row in run], classes[run]) for run in runs]
    if crew.alone:
        found = (_judged(classifier, *one, **how) for one in given)
    else:
        tasks = [
            Task(str(number), f"{__name__}:judged", {"proteins": one, "classes": own})
            for number, (one, own) in enumerate(given)
        ]
        found = (result for _, result in crew.results(tasks, supplies(crew, how=how), in_turn=True))
    for run, areas in zip(runs, track(found, "attributing to residues", len(runs)), strict=True):
        for pair, values in areas:
            values_of.setdefault(pair, []).append(values)
        done[run] = True
        if parts is not None:
            parts.keep(PART, state)
    if parts is not None:
        parts.write(PART, state())
    rows = []
    for (number, name), each in values_of.items():
        if len(each) >= min_proteins:
            real, null, same, half = np.array(each).T
            judged = ~np.isnan(same)
            rows.append(
                {
                    "concept": concepts.concepts[number].name, "of": name, "n_clusters": len(each),
                    "auroc": real.mean(), "null_auroc": null.mean(), "p_value": _p(real - null),
                    "auroc_same_letter": same[judged].mean() if judged.any() else np.nan,
                    "p_same_letter": _p((same - half)[judged]),
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows, columns=[name for name in COLUMNS if not name.startswith("q_")])
    for kind in ("value", "same_letter"):
        frame[f"q_{kind}"] = benjamini_hochberg(frame[f"p_{kind}"].to_numpy(dtype=np.float64))
    return frame[list(COLUMNS)]


def _runs(crew: Crew, plan: list[list[int]]) -> list[list[list[int]]]:
    """Batches that are done together: one here, a few by a worker."""
    return [[batch] for batch in plan] if crew.alone else crew.runs_of(plan)


#: Of a concept's number and a set of neurons: AUROC of the annotation, of the shifted one, within letters, and a half.
Areas = list[tuple[tuple[int, str], tuple[float, ...]]]


def judged(supplies: Supplies, proteins: list[Protein], classes: np.ndarray) -> Areas:
    """The task of some proteins, on a worker."""
    return _judged(supplies.classifier, proteins, classes, **supplies["how"])


def _judged(
    classifier: Classifier,
    proteins: list[Protein],
    classes: np.ndarray,
    concepts: ConceptSet,
    selections: Mapping[str, np.ndarray],
    target: str,
    seed: int,
    token_budget: int,
) -> Areas:
    """How well attribution tells the annotated residues of some proteins."""
    asked, network = request(classifier, proteins, target), network_of(classifier)
    masks = {name: torch.from_numpy(mask).to(classifier.device).float() for name, mask in selections.items()}
    told = [i for i, c in enumerate(concepts.concepts) if c.kind in ("feature", "pattern")]
    areas: Areas = []

    def work(batch: Batch, _: int) -> tuple[Batch, dict[str, np.ndarray]]:
        return batch, _of_tokens(classifier, network, batch, classes[batch.rows], asked.target, masks)

    split = splitting(work, 0)
    for batch, values in (one for whole in classifier.batches(proteins, token_budget) for one in split(whole)):
        for place, row in enumerate(batch.rows):
            protein = proteins[row]
            if len(protein) <= 2 * MIN_SHIFT + 1:
                continue
            annotation = concepts.annotate(protein)
            shift, _ = offsets(protein, seed)
            codes = np.frombuffer(protein.sequence.encode(), np.uint8)
            for number in told:
                where = annotation.positions.get(number)
                if where is None or not 0 < len(where) < len(protein):
                    continue
                for name in (INPUT, *selections):
                    own = values[name][place, 1 : len(protein) + 1]
                    real, null = _auroc(own, where), _auroc(own, (where + shift) % len(protein))
                    areas.append(((number, name), (real, null, _auroc_within_letters(own, where, codes), 0.5)))
    return areas


def _of_tokens(
    classifier: Classifier,
    network: Network,
    batch: Batch,
    classes: np.ndarray,
    target: Target,
    masks: Mapping[str, torch.Tensor],
) -> dict[str, np.ndarray]:
    """A of every token and set of neurons, ``(B, T)``."""
    hidden, context = network.embed(batch)
    totals = {name: torch.zeros(hidden.shape[:2], device=hidden.device) for name in (INPUT, *masks)}

    def visit(site: Site, a: torch.Tensor, g: torch.Tensor) -> None:
        product = a.float() * g.float()
        if site == EMBEDDING:
            totals[INPUT] += product.sum(-1)
            return
        for name, mask in masks.items():
            own = product @ mask[classifier.index.slice(site)]
            totals[name][:, : own.shape[1]] += own  # the last layer has what the head reads, perhaps one token

    activations_and_gradients(network, hidden, context, torch.tensor(classes, device=hidden.device), target, visit)
    return {name: total.abs().cpu().numpy() for name, total in totals.items()}


def _auroc(values: np.ndarray, positives: np.ndarray) -> float:
    """Area under the ROC curve; NaN where one side is empty."""
    n, m = len(positives), len(values) - len(positives)
    if not n or not m:
        return float("nan")
    return float((rankdata(values)[positives].sum() - n * (n + 1) / 2) / (n * m))


def _auroc_within_letters(values: np.ndarray, positives: np.ndarray, letters: np.ndarray) -> float:
    """Mean of the AUROCs within every letter, weighted by its positives; NaN where no letter has both sides.

    Pooled over letters, a letter that is rarer among the others than among the positives would tell by itself.
    """
    areas, weights = [], []
    for letter in np.unique(letters[positives]):
        own = np.flatnonzero(letters == letter)
        n = np.isin(own, positives).sum()
        if n < len(own):
            areas.append(_auroc(values[own], np.flatnonzero(np.isin(own, positives))))
            weights.append(n)
    return float(np.average(areas, weights=weights)) if weights else float("nan")


def _p(differences: np.ndarray) -> float:
    """One-sided Wilcoxon signed-rank test, exact for few; NaN for fewer than six differences that are not zero."""
    if (differences != 0).sum() < 6:
        return float("nan")
    return float(wilcoxon(differences, alternative="greater").pvalue)
