"""Compare every neuron with every concept; motifs and cards of the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from plmscope.data.annotations import FeatureSet, read_features
from plmscope.data.clusters import one_of_each_cluster, unrelated
from plmscope.data.proteins import Protein, ProteinSet
from plmscope.data.structure_features import files_of, with_structures
from plmscope.data.terms import terms_of
from plmscope.errors import InputError, StudyError
from plmscope.evaluation.selection import size_of
from plmscope.knowledge.cards import IS_LETTER, Bars, explained, neuron_cards
from plmscope.knowledge.concepts import ConceptSet, build_concepts
from plmscope.knowledge.patterns import parse_pattern
from plmscope.progress import Track, silent
from plmscope.store.resume import Parts
from plmscope.study.opened import OpenRun
from plmscope.study.settings import Study
from plmscope.study.stages import Context, Stage, tables
from plmscope.tasks.crew import ALONE, Crew

#: Only where the study names a folder of structures.
VIEWS = ("card_views", "card_structures")
TABLES = (
    "concepts", "associations", "class_baselines", "motifs", "letters", "neuron_cards", "attributed_residues",
    "concept_neurons",
)  # fmt: skip


def read_inputs(
    study: Study, proteins: Sequence[Protein], track: Track = silent, *, light: bool = False
) -> FeatureSet | None:
    """The features that a study names, checked against its proteins; its patterns are checked too.

    Args:
        study: The settings.
        proteins: Of the study.
        track: Progress of reading structures.
        light: Do not read structures yet, only see that there are some of these proteins.

    Raises:
        StudyError: a pattern cannot be read.
        InputError: the features cannot be read or belong to other sequences.
    """
    for pattern in study.characterize.patterns:
        try:
            parse_pattern(pattern)
        except InputError as error:
            raise StudyError(f"characterize.patterns: {error}") from None
    found = read_features(study.characterize.features, proteins) if study.characterize.features else None
    if not study.characterize.structures:
        return found
    if light:
        files_of(study.characterize.structures, proteins)
        return found
    return with_structures(study.characterize.structures, proteins, found, track)


@dataclass(frozen=True)
class Sides:
    """What neurons are compared with, on which proteins.

    Attributes:
        features: Those of the study, if it names some.
        discovery: One protein of each train cluster.
        confirmation: One of each validation and test cluster.
        related: Held-out proteins that are left out because they are of a train protein's cluster.
        concepts: What may be known.
    """

    features: FeatureSet | None
    discovery: list[Protein]
    confirmation: list[Protein]
    related: int
    concepts: ConceptSet


def known_sides(opened: OpenRun, found: ProteinSet, say: Callable[[str], None], track: Track = silent) -> Sides:
    """The sides of a run and its concepts; see :func:`characterize_run`."""
    study, settings = opened.study, opened.study.characterize
    features = read_inputs(study, found.proteins, track)
    if features is not None:
        say(repr(features))
    annotated = {} if features is None else Counter(features.table["id"].tolist())
    limit = settings.max_proteins
    shares = (max(1, limit - limit // 3), max(1, limit // 3)) if limit else (0, 0)
    train, held = opened.proteins("train"), [*opened.proteins("validation"), *opened.proteins("test")]
    sides = [train, unrelated(held, train, opened.clusters)]
    related = len(held) - len(sides[1])
    if related:
        say(f"{related:,} of {len(held):,} held-out proteins are of a train protein's cluster, left out")
    discovery, confirmation = (
        one_of_each_cluster(side, opened.clusters, annotated, share, study.seed)
        for side, share in zip(sides, shares, strict=True)
    )
    ec = {p.id: p.columns["ec"] for p in found.proteins if p.columns.get("ec", "").strip()}
    concepts = build_concepts(
        discovery, kinds=settings.concepts, features=features, ec=ec, min_proteins=settings.min_proteins,
        patterns={pattern: pattern for pattern in settings.patterns}, task=study.data.task_or_single,
        terms={p.id: terms for p in found.proteins if (terms := terms_of(p.columns))},
    )  # fmt: skip
    if concepts.left_out:
        say(f"{concepts.left_out:,} more terms of proteins are frequent enough; the most frequent are compared")
    say(f"{concepts!r}; {len(discovery):,} proteins to discover, {len(confirmation):,} to confirm")
    return Sides(features, discovery, confirmation, related, concepts)


def characterize_run(
    opened: OpenRun,
    found: ProteinSet,
    parts: Parts,
    track: Track,
    say: Callable[[str], None],
    crew: Crew = ALONE,
) -> dict[str, Any]:
    """Write :data:`TABLES` of a run; returns what the manifest keeps.

    Args:
        opened: The run, scored.
        found: The proteins that it was made from, for what their file says beside label and sequence.
        parts: Where the passes keep what they have counted; removed at the end.
        track: Progress.
        say: Told one line at a time.
        crew: Who goes through the proteins.
    """
    from plmscope.knowledge.characterize import characterize
    from plmscope.knowledge.class_baselines import class_baselines, with_baselines
    from plmscope.knowledge.discovery import CharacterizeSettings
    from plmscope.knowledge.residues import attributed_residues
    from plmscope.knowledge.views import card_views

    study, settings = opened.study, opened.study.characterize
    if parts.folder.is_dir():
        say("characterize: continuing from what was counted before")
    sides = known_sides(opened, found, say, track)
    features, discovery, confirmation, concepts = sides.features, sides.discovery, sides.confirmation, sides.concepts
    index = opened.model.index
    chosen = []
    for method in study.card_methods:
        values = opened.ranking(method).values
        size = size_of(study.report.knowledge_fraction, len(index))
        best = np.argsort(-values, kind="stable")[: min(size, settings.max_neurons)]
        if size > settings.max_neurons:
            say(f"characterize: cards for the best {settings.max_neurons:,} of {size:,} neurons by {method}")
        chosen.append(pd.DataFrame({"method": method, "rank": np.arange(1, len(best) + 1), "position": best}))
    selections = pd.concat(chosen, ignore_index=True)
    selected = np.zeros(len(index), dtype=bool)
    selected[selections["position"]] = True
    result = characterize(
        opened.model, discovery, confirmation, concepts, selected,
        CharacterizeSettings(
            settings.fractions, settings.fdr, settings.min_proteins, windows=settings.windows, seed=study.seed
        ),
        token_budget=settings.token_budget, track=track, parts=parts, crew=crew,
    )  # fmt: skip
    if result.motifs is None:  # some neuron is always selected
        raise InputError("no neuron is selected; report.knowledge_fraction is too small")
    bars = Bars(settings.min_gain, settings.min_auroc)
    class_name = "EC" if study.data.label.startswith("ec:") else "class"
    cards = neuron_cards(
        selections, index, result.associations, result.motifs, concepts, discovery, bars, class_name, result.letters
    )
    baselines = class_baselines(discovery, confirmation, concepts, study.seed)
    cards = with_baselines(cards, baselines)
    of_method = {
        f"top {method}": np.isin(np.arange(len(index)), rows["position"])
        for method, rows in selections.groupby("method", sort=False)
    }
    attributed = attributed_residues(
        opened.model, confirmation, concepts, of_method, target=study.score.target, seed=study.seed,
        token_budget=settings.token_budget, track=track, parts=parts, crew=crew,
    )  # fmt: skip
    opened.run.write_table("attributed_residues", attributed)
    opened.run.write_table("concepts", concepts.table([*discovery, *confirmation]))
    opened.run.write_table("associations", index.placed(result.associations))
    opened.run.write_table("class_baselines", baselines)
    opened.run.write_table("motifs", index.placed(result.motifs.table))
    opened.run.write_table("letters", index.placed(result.letters))
    opened.run.write_table("neuron_cards", cards)
    opened.run.write_table("concept_neurons", index.placed(result.best))
    views = None
    if settings.structures:
        files = files_of(settings.structures, found.proteins)
        views = card_views(opened.model, cards, discovery, files, token_budget=settings.token_budget, track=track)
        opened.run.write_table("card_views", views.views)
        opened.run.write_table("card_structures", views.structures)
        left = f"; {views.left_out:,} more were left out, for {views.without:,} cards" if views.without else ""
        say(f"characterize: {len(views.views):,} cards have a structure, of {len(views.structures):,}{left}")
    parts.remove()
    best_rows = result.associations[result.associations["rank"] == 1]
    with_concept = best_rows.loc[explained(best_rows, bars), "position"].nunique()
    one_each = cards.drop_duplicates(["layer", "module", "neuron"])
    say(
        f"a concept explains {with_concept:,} of {len(index):,} neurons; nothing explains "
        f"{(~one_each['explained']).mean():.0%} of the {len(one_each):,} selected ones; with shifted annotations "
        f"{result.control:,} of {result.tested:,} pairs are confirmed"
    )
    knows = one_each["knows"].value_counts()
    are_letters = int((one_each["r2_letter"] >= IS_LETTER).sum())
    share = (result.letters["r2_letter"] >= IS_LETTER).mean()
    say(
        f"of the {len(one_each):,} selected neurons {are_letters:,} are their letter, {knows.get('more', 0):,} know "
        f"more than their letter; of all neurons {share:.0%} are their letter"
    )
    return {
        "discovery_proteins": len(discovery), "confirmation_proteins": len(confirmation),
        "confirmation_related": sides.related, "concepts": len(concepts),
        "pairs": len(result.associations), "pairs_tested": result.tested,
        "pairs_confirmed": int(result.associations["confirmed"].sum()), "pairs_confirmed_shifted": result.control,
        "neurons": len(index), "neurons_with_concept": int(with_concept), "selected": len(one_each),
        "selected_unexplained": int((~one_each["explained"]).sum()), "selected_are_letters": are_letters,
        "selected_know": {name: int(knows.get(name, 0)) for name in ("letter", "more", "unsettled")},
        "features_excluded": {} if features is None else dict(features.excluded),
        "features_clipped": 0 if features is None else features.clipped,
        "cards_without_structure": 0 if views is None else views.without,
        "structures_left_out": 0 if views is None else views.left_out,
    }  # fmt: skip


def run(context: Context) -> dict[str, Any]:
    """Discover on training clusters, confirm on others."""
    parts = Parts(context.parts, context.fingerprint(context.stage))
    told = characterize_run(context.opened, context.inputs.data, parts, context.track, context.say, context.crew)
    inputs = context.inputs.known | {"features": context.inputs.features_digest}
    return {"characterize": {"enabled": True, **told}, "inputs": inputs}


STAGE = Stage(
    name="characterize",
    run=run,
    settings=(
        "seed", "device", "dtype", "data", "score.ranking", "score.target", "characterize", "card_methods",
        "report.knowledge_fraction",
    ),
    reads=("model", "proteins", "neurons", "ablation_means"),
    writes=tables(*TABLES),
    asked={file: lambda study: bool(study.characterize.structures) for file in tables(*VIEWS)},
    digests=("data", "features"),
    switches=("characterize.enabled",),
    off={"characterize": {"enabled": False}},
    check=lambda context: read_inputs(context.study, context.inputs.data.proteins, light=True),
)  # fmt: skip
