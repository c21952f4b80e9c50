"""The part ``modularity`` of the layout: selective pruning, experts, and what of it the null models have too.

Of a null model NMI, ``half`` and ``overlap`` are measured, each as in the run: from attributions of every protein (and
from the same baseline), not from its ``class_scores``, since the null of ``overlap`` deals classes among proteins. The
rows ``overlap`` stand for a column ``model`` of ``class_overlap``, which is of the run alone. Two numbers of the run
have no such row, a departure: separability and damage, which are shares of an accuracy that is lost, and a model of
shuffled labels decides no better than chance. One of random weights is fine-tuned on the true labels and may learn some
of them, so that the question could be asked of it; it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.clusters import one_per_cluster
from plmscope.data.proteins import Protein
from plmscope.study.laying import ATTRIBUTED, Laying
from plmscope.study.nulls import labelled, means

TABLES = ("pruning", "separability", "experts", "expert_classes", "modularity")
#: Training proteins of a class whose activations are measured at every step of pruning; name of the run's own model.
MEASURED, RUN = 8, "run"


def modularity(laying: Laying) -> str:
    """Classes that can be cut out, experts that hold them, and how much of this any network has."""
    separable = _pruning(laying)
    frames = _experts(laying)
    run = laying.context.run
    for name, frame in frames.items():
        run.write_table(name, frame)
    found = frames["modularity"].query("measure == 'nmi'")
    nmi = ", ".join(f"{row.value:.3f} ({row.model}; dealt {row.against:.3f})" for row in found.itertuples())
    return (
        f"classes that can be cut out better than by matched draws and by dealt classes: {separable}; NMI of experts "
        f"and classes {nmi or 'not known'}"
    )


def _pruning(laying: Laying) -> str:
    """Write the curves of selective pruning; how many classes of how many are separable."""
    from plmscope.layout.attributions import moments
    from plmscope.layout.pruning import corrected, pruning_tables

    model, budget = laying.model, laying.context.study.evaluate.token_budget
    train = laying.opened.proteins("scoring", MEASURED)
    proteins = [p for label in model.labels for p in laying.few(label)]

    def activity(names: Sequence[str], gone: np.ndarray) -> np.ndarray:
        return moments(model, train, names, budget, gone)

    settings, classes = laying.settings, model.targets(train)
    frames = [
        pruning_tables(
            laying.measure, model.index, activity, classes, proteins, laying.clusters(proteins),
            model.targets(proteins), model.labels, settings.draws, laying.seed, settings.pruning_steps, statistic,
            settings.pruning_modules,
        )
        for statistic in settings.pruning_statistics
    ]  # fmt: skip
    curves, summary = (pd.concat(parts, ignore_index=True) for parts in zip(*frames, strict=True))
    summary = corrected(summary)
    laying.context.run.write_table("pruning", curves)
    laying.context.run.write_table("separability", summary)
    good = (summary["q_value"] < 0.05) & (summary["p_dealt"] < 0.05)
    return f"{int(good.sum())} of {len(summary)}"


def _experts(laying: Laying) -> dict[str, pd.DataFrame]:
    """Experts of the model, the damage of holding them, and the measures of it and of the null models."""
    from plmscope.layout import experts as e
    from plmscope.models.esm import EsmNetwork
    from plmscope.models.hooked import network_of

    model, labels, n = laying.model, list(laying.model.labels), laying.settings.neurons
    classes = model.targets(laying.train)
    rows = [e.overlap_row(laying.attributed, classes, len(labels), n, RUN, seed=laying.seed)]
    experts, counts = pd.DataFrame(columns=list(e.EXPERTS)), pd.DataFrame(columns=list(e.CLASSES))
    network = network_of(model)
    if isinstance(network, EsmNetwork):
        of = e.experts_of(model.index, network, laying.seed)
        scores = e.of_classes(laying.attributed, classes, len(labels))
        rows.append(e.measures(model.index, of, scores, labels, n, RUN, seed=laying.seed))
        experts = e.expert_table(model.index, of)
        counts = e.class_counts(model.index, of, scores, labels, n)
        counts, specific = _damage(laying, of, counts)
        rows.append(specific)
    else:
        laying.context.say("layout: modularity: no experts, this architecture's weights are not at hand")
    for null in laying.context.study.density.nulls:
        rows += _null(laying, null)
    return {"experts": experts, "expert_classes": counts, "modularity": pd.concat(rows, ignore_index=True)}


def _damage(laying: Laying, of: np.ndarray, counts: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The counts with the damage of the experts that hold most of a class, and how specific that damage is."""
    from scipy.special import expit

    from plmscope.evaluation.interventions import nothing
    from plmscope.layout import experts as e
    from plmscope.layout.measure import held
    from plmscope.models.sites import Site
    from plmscope.stats.chance import compare_with_draws

    model, index, draws = laying.model, laying.model.index, laying.settings.draws
    labels = list(model.labels)
    proteins = [p for label in labels for p in laying.few(label)]
    wanted = e.largest(counts, laying.settings.experts)
    places = {
        one: np.flatnonzero((of == one[1]) & (index.site_of == index.sites.index(Site(one[0], "intermediate"))))
        for one in wanted
    }
    layers = sorted({layer for layer, _ in wanted})
    random = []
    for layer in layers:
        own = np.arange(len(index))[index.slice(Site(layer, "intermediate"))]
        size = min(e.SIZE, len(own))
        random += [np.random.default_rng([laying.seed, 54, layer, r]).permutation(own)[:size] for r in range(draws)]
    changes = [nothing(index), *(held(index, group) for group in (*places.values(), *random))]
    found = expit(laying.measure("experts", proteins, changes))
    true = model.targets(proteins)
    rows = np.arange(len(true))
    right = found[0].argmax(1) == true
    lost = 1 - found[:, rows, true] / found[0, rows, true]
    each = np.full((len(changes), len(labels)), np.nan)
    for c in range(len(labels)):
        if (own_c := right & (true == c)).any():
            each[:, c] = lost[:, own_c].mean(1)
    damage = dict(zip(wanted, each[1:], strict=False))
    drawn = each[1 + len(wanted) :].reshape(len(layers), draws, len(labels))
    against = dict(zip(layers, drawn, strict=True))
    value = e.specificity(list(damage.values()))
    by_draw = [e.specificity([against[layer][r] for layer, _ in wanted]) for r in range(draws)]
    known = np.isfinite(value) and bool(np.isfinite(by_draw).all())
    row = (
        RUN, "damage_specificity", "", value, float(np.mean(by_draw)),
        compare_with_draws(value, by_draw, 1).p_value if known else np.nan, draws,
    )  # fmt: skip
    table = pd.DataFrame([dict(zip(e.MEASURES, row, strict=True))])
    return e.with_damage(counts, damage, against, labels), table


def _null(laying: Laying, null: str) -> list[pd.DataFrame]:
    """The measures of one null model, by the labels that it was trained on."""
    from plmscope.layout import experts as e
    from plmscope.layout.attributions import masked_means, per_protein
    from plmscope.models.esm import EsmNetwork
    from plmscope.models.hooked import network_of
    from plmscope.models.loading import load_model

    context, study = laying.context, laying.context.study
    context.run.own(f"nulls/{null}/neurons")  # refused in one line where the model is not finished
    model: Any = load_model(context.run.path / "nulls" / null / "model", device=study.device, dtype=study.dtype)
    everyone: list[Protein] = labelled(context, null)[0]
    train = one_per_cluster(everyone, laying.opened.clusters, ATTRIBUTED, laying.seed)
    budget = study.evaluate.token_budget
    if laying.settings.baseline == "masked":
        constants = masked_means(model, train, laying.seed, budget)
    else:
        constants = means(context, context.run.path / "nulls" / null, model, everyone)
    attributed = per_protein(model, train, constants, budget)
    labels, n, classes = list(model.labels), laying.settings.neurons, model.targets(train)
    rows = [e.overlap_row(attributed, classes, len(labels), n, null, seed=laying.seed)]
    network = network_of(model)
    if isinstance(network, EsmNetwork):
        of = e.experts_of(model.index, network, laying.seed)
        scores = e.of_classes(attributed, classes, len(labels))
        rows.append(e.measures(model.index, of, scores, labels, n, null, seed=laying.seed))
    return rows
