"""A run folder as Python objects: its model, its proteins, its scores."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.errors import InputError, RunError
from plmscope.evaluation.selection import Selection, select_top
from plmscope.models.sites import NeuronIndex
from plmscope.progress import Track, silent
from plmscope.scoring.methods import every_score
from plmscope.scoring.scores import NeuronScores, check_methods, from_table, signed_form
from plmscope.scoring.table import FORMS, PREFERRED, preference, row_of
from plmscope.store.folder import Run, read_parquet
from plmscope.study.settings import ScoreSection, Study
from plmscope.study.study_file import read_study


class OpenRun:
    """A run folder as Python objects: its model, its proteins, its scores; made by :func:`open_run`."""

    def __init__(self, run: Run, study: Study | None = None) -> None:
        self.run = run
        self.study = read_study(run.path / "study.toml") if study is None else study

    def __repr__(self) -> str:
        return repr(self.run).replace("Run(", "OpenRun(", 1)

    @cached_property
    def _proteins(self) -> pd.DataFrame:
        return self.run.table("proteins")

    @cached_property
    def clusters(self) -> dict[str, str]:
        """Cluster of every protein id."""
        return dict(zip(self._proteins["id"], self._proteins["cluster"], strict=True))

    def proteins(self, part: str, per_class: int | None = None) -> list[Protein]:
        """Proteins of ``train``, ``validation`` or ``test``, or those that the study itself took of them.

        Args:
            part: ``train``, ``validation`` or ``test``; ``scoring``, the training proteins that neurons were scored on;
                ``evaluation``, the test proteins that selections were judged on.
            per_class: Of ``scoring`` and ``evaluation``, at most so many of a class, each from another cluster, instead
                of the study's number.

        Raises:
            InputError: there is no such part.
        """
        parts = {"train": "train", "validation": "validation", "test": "test", "scoring": "train", "evaluation": "test"}
        if part not in parts:
            *most, last = parts
            raise InputError(f"no part {part!r}; there are {', '.join(most)} and {last}")
        frame = self._proteins[self._proteins["split"] == parts[part]]
        proteins = [
            Protein(str(r.id), str(r.sequence), str(r.label), {}, getattr(r, "parent", ""), getattr(r, "start", 0))
            for r in frame.itertuples()
        ]
        if part == "scoring" and per_class is None:
            per_class = self.study.score.proteins_per_class
        elif part == "evaluation" and per_class is None and self.study.evaluate.max_proteins:
            per_class = -(-self.study.evaluate.max_proteins // len(self.model.labels))
        if part == parts[part] or per_class is None:
            return proteins
        return one_per_cluster(proteins, self.clusters, per_class, self.study.seed, task=self.study.data.task_or_single)

    @cached_property
    def model(self) -> Any:
        """The fine-tuned classifier, with its ablation means if they are known."""
        from plmscope.models.loading import load_model

        classifier = load_model(self.run.path / "model", device=self.study.device, dtype=self.study.dtype)
        if (self.run.path / "ablation_means.parquet").is_file():
            frame = read_parquet(self.run, "ablation_means")
            classifier.ablation_means = frame[["first", "last", "residue"]].to_numpy(dtype=np.float64, copy=True).T
        return classifier

    @cached_property
    def untrained(self) -> Any:
        """A classifier of the same architecture with random weights, which has learned nothing."""
        from plmscope.models.loading import load_model

        model, study = self.model, self.study
        return load_model(
            self.run.path / "model", labels=model.labels, task=model.task, device=study.device, dtype=study.dtype,
            seed=study.seed, random_weights=True, pooling=model.pooling,
        )  # fmt: skip

    def scores(self, method: str) -> NeuronScores:
        """Scores of every neuron by one method of the run, with the ids of the proteins they came from."""
        index: NeuronIndex = self.model.index
        scores = from_table(self.run.table("neurons"), index, method)
        return replace(scores, proteins=tuple(self.run.manifest().get("scoring_ids", ())))

    def ranking(self, method: str) -> NeuronScores:
        """What selections by a method are ranked by, under the method's name; ``settings`` say which score it is."""
        column = self.study.score.ranked_by(method)
        return replace(self.scores(column), method=method, settings={"ranked_by": column})


def advice(run: Run, stages: str) -> str:
    """The command that does what comes first, for a shell."""
    study, folder = shlex.quote(str(run.path / "study.toml")), shlex.quote(str(run.path))
    return f"run 'plmscope {stages} {study} --out {folder}'"


def open_run(path: str | Path) -> OpenRun:
    """Open a run folder.

    Raises:
        RunError: it is missing or not a run folder, or its model is not trained to the end: tables of an earlier model
            may then stand beside proteins of this one.
    """
    run = Run.open(path)
    if run.manifest()["stages"].get("finetune", {}).get("status", "done") != "done":
        raise RunError(f"{run.path}: fine-tuning is not finished; {advice(run, 'run')}")
    return OpenRun(run)


def score_all(
    model: Any,
    proteins: Sequence[Protein],
    settings: ScoreSection,
    constants: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    track: Track = silent,
    seed: int = 0,
    fit: bool = True,
) -> list[NeuronScores]:
    """Every score of the settings (``columns``), in their order; a function that gives several is run once.

    Args:
        model: The classifier.
        proteins: Labelled proteins.
        settings: Methods and how.
        constants: ``(3, N)`` ablation means, where the path starts if ``settings.baseline`` is ``mean``.
        groups: Those of the proteins for bootstraps, from :func:`~plmscope.scoring.scores.resampling_groups`.
        track: Progress.
        seed: Of the scorers that draw something.
        fit: False spares probes their fit, where the sums alone are used.
    """
    check_methods(settings.columns)
    scores: dict[str, NeuronScores] = {}
    squared = {name for name, ending in map(signed_form, settings.columns) if ending == FORMS["rms"]}
    for method in settings.columns:
        if method not in scores:
            row = row_of(method)
            how: dict[str, Any] = {name: getattr(settings, setting) for name, setting in row.takes.items()}
            if "baseline" in how:
                how["baseline"] = constants if how["baseline"] == "mean" else None
            if row.signed:
                how["rms"] = signed_form(method)[0] in squared
            if row.seed:
                how["seed"] = seed
            if row.fit:
                how["fit"] = fit
            how |= {"token_budget": settings.token_budget, "groups": groups, "track": track}
            scores |= every_score(method, model, proteins, **how)
    return [scores[method] for method in settings.columns]


def class_scores(opened: OpenRun, method: str) -> dict[str, NeuronScores]:
    """Scores of every neuron for each class by one method of a run.

    Raises:
        RunError: the method has no class scores in this run.
    """
    frame = opened.run.table("class_scores")
    frame = frame[frame["method"] == method]
    if not len(frame):
        raise RunError(f"{opened.run.path}: no class scores by {method!r}; name another among intervene.methods")
    own = {}
    for label in (label for label in opened.model.labels if (frame["label"] == label).any()):
        part = frame[frame["label"] == label].rename(columns={"score": method})
        own[label] = from_table(part, opened.model.index, method)
    return own


def class_methods(opened: OpenRun) -> tuple[str, ...]:
    """The methods of the settings, or the preferred one among those with class scores."""
    if opened.study.intervene.methods:
        return opened.study.intervene.methods
    known = list(dict.fromkeys(opened.run.table("class_scores")["method"]))
    if not known:
        raise RunError(f"{opened.run.path}: class_scores.parquet has no rows; score by {PREFERRED[0]} too")
    return (min(map(str, known), key=preference),)


def best_of_class(opened: OpenRun, label: str) -> Selection:
    """The best neurons of a class, the report's share of all.

    Raises:
        RunError: the class has no scores in this run.
    """
    method, fraction = class_methods(opened)[0], opened.study.report.knowledge_fraction
    scores = class_scores(opened, method)
    if label not in scores:
        raise RunError(f"class {label!r} has no scores in {opened.run.path}; there are {', '.join(scores)}")
    chosen = select_top(scores[label], fraction)
    name = f"the best {100 * fraction:.3g} % of neurons for class {label} by {method.replace('_', ' ')}"
    return Selection(chosen.index, chosen.mask, name)
