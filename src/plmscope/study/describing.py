"""Formulas over concepts for the best neurons, and sentences that are scored by what they predict."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plmscope.data.proteins import ProteinSet
from plmscope.errors import InputError, StudyError
from plmscope.knowledge.formulas import search_formulas
from plmscope.progress import Track
from plmscope.stats.chance import benjamini_hochberg
from plmscope.store.folder import Run
from plmscope.store.resume import Parts, Work, collect
from plmscope.study.characterizing import known_sides, read_inputs
from plmscope.study.opened import OpenRun
from plmscope.study.stages import Context, Stage, tables

if TYPE_CHECKING:
    from plmscope.knowledge.units import Units

TABLES = ("formulas", "descriptions")
#: Only where the study asks for it.
MADE = "maximised"
KEYS = ["layer", "module", "neuron"]


def described_neurons(cards: pd.DataFrame, most: int) -> pd.DataFrame:
    """``layer, module, neuron`` of the neurons with a card, best rank by any method first, at most so many."""
    best = cards.sort_values("rank", kind="stable").drop_duplicates(KEYS)
    chosen: pd.DataFrame = best[KEYS].head(most).reset_index(drop=True)
    return chosen


def describe_run(
    opened: OpenRun, found: ProteinSet, folder: Path, stamp: str, track: Track, say: Callable[[str], None]
) -> dict[str, Any]:
    """Write :data:`TABLES` of a run that is characterized; returns what the manifest keeps.

    Args:
        opened: The run.
        found: The proteins that it was made from, for what their file says beside label and sequence.
        folder: Where is kept what was read, searched and answered so far.
        stamp: Tells the settings and the model.
        track: Progress.
        say: Told one line at a time.

    Raises:
        InputError: the program of ``describe.llm`` fails, or its answer cannot be read.
    """
    from plmscope.knowledge import sentences as s
    from plmscope.knowledge.masks import at_most
    from plmscope.knowledge.units import read_units

    study, settings, run, index = opened.study, opened.study.describe, opened.run, opened.model.index
    if folder.is_dir():
        say("describe: continuing from what was read and searched before")
    kept = Parts(folder, stamp)
    sides = known_sides(opened, found, say)
    parts = [at_most(side, settings.max_residues, study.seed) for side in (sides.discovery, sides.confirmation)]
    for part, side, name in zip(parts, (sides.discovery, sides.confirmation), ("discover", "confirm"), strict=True):
        if len(part) < len(side):
            say(f"describe: {len(part):,} of {len(side):,} proteins to {name}, by describe.max_residues")
    cards = run.table("neuron_cards")
    chosen = described_neurons(cards, settings.max_neurons)
    total = len(cards.drop_duplicates(KEYS))
    if len(chosen) < total:
        say(f"describe: the best {len(chosen):,} of {total:,} neurons with a card")
    everyone = index.table().reset_index(drop=True)
    everyone["position"] = np.arange(len(everyone))
    neurons = np.sort(chosen.merge(everyone, on=KEYS)["position"].to_numpy())
    units = read_units(
        opened.model, neurons, parts[0], parts[1], sides.concepts, share=settings.share, seed=study.seed,
        token_budget=study.characterize.token_budget, track=track, parts=kept,
    )  # fmt: skip

    def keep(like: Mapping[str, np.ndarray], total: int, work: Work) -> Mapping[str, np.ndarray]:
        return collect(folder / "formulas", stamp, like, total, work, lambda line: say(f"describe: formulas: {line}"))

    def steps(numbers: Iterable[int]) -> Iterable[int]:
        return track(list(numbers), "searching formulas", 2 * len(neurons))

    least = study.characterize.min_proteins
    table, formulas = search_formulas(
        units.discovery, units.confirmation, units.atoms.names, min_proteins=least, min_residues=settings.min_residues,
        beam=settings.beam, length=settings.length, null=settings.null, track=steps, keep=keep,
    )  # fmt: skip
    vocabulary = s.Vocabulary(units, sides.concepts, least)
    motifs = _motifs(run, everyone, neurons)
    rng = np.random.default_rng([study.seed, 43])
    written: list[s.Sentence] = []
    of_unit: dict[int, s.Sentence] = {}
    for unit in track(list(range(2 * len(neurons))), "writing sentences", 2 * len(neurons)):
        own = list(vocabulary.common)
        if unit in formulas and len(formulas[unit]) > 1:
            own.append(vocabulary.formula(formulas[unit]))
        if unit in motifs:
            text, anchor = motifs[unit]
            own.append(vocabulary.pattern(text, f"motif {text}", anchor))
        sentence = s.describe(units, unit, own, rng)
        if sentence is not None:
            written.append(sentence)
            of_unit[unit] = sentence
    sites = everyone.iloc[neurons]
    places: list[dict[str, Any]] = [
        {"layer": int(layer), "module": str(module), "neuron": int(neuron), "sign": sign}
        for sign in (1, -1) for layer, module, neuron in sites[KEYS].to_numpy(dtype=object).tolist()
    ]  # fmt: skip
    if settings.llm:
        numbers = {tuple(place.values()): unit for unit, place in enumerate(places)}

        def unit_of(row: Mapping[str, object]) -> int:
            return numbers[tuple(row[key] for key in (*KEYS, "sign"))]

        told = [s.evidence(units, unit, places[unit], of_unit.get(unit)) for unit in range(len(places))]
        theirs = s.answers(_asked(settings.llm, told, kept), unit_of, vocabulary)
        say(f"describe: the program wrote {len(theirs):,} sentences for {len(told):,} neurons and signs")
        written += theirs
    site_numbers = pd.factorize(sites["layer"].astype(str) + sites["module"])[0]
    scored = s.score_sentences(units, written, site_numbers, study.seed, study.characterize.fdr)
    for name, frame in (("formulas", table), ("descriptions", scored)):
        where = pd.DataFrame([places[unit] for unit in frame["unit"]], columns=[*KEYS, "sign"], index=frame.index)
        run.write_table(name, pd.concat([where, frame.drop(columns="unit")], axis=1))
    made = _maximised(opened, units, chosen, everyone, track, say) if settings.maximise else None
    if made is not None:
        run.write_table(MADE, made)
        of = made.groupby("of")["agreement"].mean()
        say(
            f"describe: windows made by gradient for {(made['of'] == 'neuron').sum() // 3:,} neurons; their starts "
            f"share {of.get('neuron', np.nan):.1f} bits, of random directions "
            f"{of.get('direction', np.nan):.1f}, with random weights {of.get('random_weights', np.nan):.1f}"
        )
    gains = table[table["length"] > 1]
    better = gains["q_value"] < study.characterize.fdr
    null_better = benjamini_hochberg(table["null_p_value"].to_numpy(dtype=np.float64)) < study.characterize.fdr
    ours = scored[scored["source"] == "template"]
    say(
        f"describe: formulas for {len(table):,} of {len(places):,} neurons and signs, {int(better.sum()):,} of them "
        f"better than their best concept on held-out clusters; mean gain {table['gain'].mean():.3f}; on shifted "
        f"residues {int(null_better.sum()):,}, {table['null_gain'].mean():.3f}"
    )
    area, others, letter = (ours[f"{name}_auroc"].mean() for name in ("simulation", "others", "letter"))
    say(
        f"describe: {len(ours):,} sentences, AUROC {area:.2f} (those of others {others:.2f}, letters {letter:.2f}); "
        f"{int(ours['counts'].sum()):,} beat both"
    )
    return {
        "neurons": len(neurons), "discovery_proteins": len(parts[0]), "confirmation_proteins": len(parts[1]),
        "formulas": len(table), "formulas_better": int(better.sum()),
        "formulas_better_shifted": int(null_better.sum()), "sentences": len(ours),
        "sentences_that_count": int(ours["counts"].sum()), "sentences_of_the_program": len(scored) - len(ours),
    }  # fmt: skip


def _maximised(
    opened: OpenRun,
    units: Units,
    chosen: pd.DataFrame,
    everyone: pd.DataFrame,
    track: Track,
    say: Callable[[str], None],
) -> pd.DataFrame:
    """Windows made by gradient, of the best neurons and the sign of their card."""
    from plmscope.knowledge.maximised import maximised_table

    study, cards = opened.study, opened.run.table("neuron_cards")
    signs = cards.sort_values("rank", kind="stable").drop_duplicates(KEYS)[[*KEYS, "sign"]]
    best = chosen.head(study.describe.maximise).merge(signs, on=KEYS).merge(everyone, on=KEYS)
    wanted = []
    for position, sign in best[["position", "sign"]].to_numpy(dtype=np.int64).tolist():
        unit = int(np.searchsorted(units.neurons, position)) + (0 if sign > 0 else len(units.neurons))
        peaks = zip(*(part[unit].tolist() for part in units.peaks), strict=True)
        wanted.append((position, sign, list(peaks)))
    found = maximised_table(
        opened.model, wanted, units.discovery.proteins, untrained=opened.untrained,
        token_budget=study.characterize.token_budget, seed=study.seed, track=track,
    )  # fmt: skip
    without = len(wanted) - found[["position", "sign"]].drop_duplicates().shape[0]
    if without:
        say(
            f"describe: no window for {without:,} of {len(wanted):,} neurons: proteins shorter than 32 residues, or "
            "seen at the first token alone"
        )
    where = everyone.set_index("position").loc[found["position"], KEYS].reset_index(drop=True)
    joined: pd.DataFrame = pd.concat([where, found.drop(columns="position")], axis=1)
    return joined


def _motifs(run: Run, everyone: pd.DataFrame, neurons: np.ndarray) -> dict[int, tuple[str, int]]:
    """Pattern and anchor of the motif of each unit: what its consensus names; its small letters are hints alone."""
    found: dict[int, tuple[str, int]] = {}
    table = run.table("motifs").merge(everyone, on=KEYS)
    columns = ["position", "sign", "anchor", "consensus"]
    for position, sign, anchor, consensus in table[table["consensus"] != ""][columns].to_numpy(dtype=object).tolist():
        pattern = "-".join("x" if column.islower() else column for column in str(consensus).split("-"))
        if position in neurons and pattern.strip("x-"):
            unit = int(np.searchsorted(neurons, position)) + (0 if sign > 0 else len(neurons))
            found[unit] = (pattern, int(anchor))
    return found


def _asked(command: str, told: Sequence[Mapping[str, object]], kept: Parts) -> list[str]:
    """The lines that a program answers to lines of JSON; an answer is kept, since it may have cost its while.

    Raises:
        InputError: it cannot be run, or ends with an error.
    """
    if (before := kept.read("answer")) is not None:
        return [str(line) for line in before["lines"]]
    lines = "".join(f"{json.dumps(one)}\n" for one in told)
    try:
        done = subprocess.run(shlex.split(command), input=lines, capture_output=True, text=True, check=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"describe.llm = {command!r}: cannot be run ({error}); give a program and its options"
        ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1][:200]
        raise InputError(f"describe.llm = {command!r}: ended with {done.returncode} ({last}); mend it or leave it out")
    answered = done.stdout.splitlines()
    kept.write("answer", {"lines": np.array(answered, dtype=np.str_)})
    return answered


def check(context: Context) -> None:
    """Refuse before any stage runs what the study says of features, patterns and the program."""
    read_inputs(context.study, context.inputs.data.proteins)
    try:
        shlex.split(context.study.describe.llm)
    except ValueError as error:
        raise StudyError(f"describe.llm = {context.study.describe.llm!r}: {error}; close its quotes") from None


def run(context: Context) -> dict[str, Any]:
    """Search formulas, write sentences, and score both."""
    found = describe_run(context.opened, context.inputs.data, context.parts, context.stamp, context.track, context.say)
    return {"describe": {"enabled": True, **found}}


STAGE = Stage(
    name="describe",
    run=run,
    settings=("seed", "device", "dtype", "data", "characterize", "describe"),
    reads=("model", "proteins", "ablation_means", "neuron_cards", "motifs"),
    writes=tables(*TABLES),
    asked={f"{MADE}.parquet": lambda study: study.describe.maximise > 0},
    digests=("data", "features"),
    switches=("describe.enabled", "characterize.enabled"),
    off={"describe": {"enabled": False}},
    check=check,
)  # fmt: skip
