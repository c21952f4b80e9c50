"""Write the model card and the picture of the training from what ``train_embedded_model.py`` left in a model folder.

    python scripts/write_model_card.py build/embedded-model/model

Reads ``training.json`` and ``training_log.tsv``; writes ``README.md`` and ``training.png`` (needs matplotlib).
"""

import argparse
import csv
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BANDS = ("<30", "30-50", "50-70", ">=70", "all")

#: Balanced accuracy that the card extrapolates to.
TARGET = 0.6
CARD = """# The embedded model of plmscope

An ESM-2-architecture protein language model ({layers} layers, {width} wide, {heads} heads, {parameters:.2f} M parameters,
the ESM-2 vocabulary, rotary positions, token dropout; half-precision safetensors, `EsmForMaskedLM`), trained by the
plmscope project so that the demo has something real to look into.

**It is not Meta's ESM-2**, shares no weights with it and is no substitute for it: it has seen {total:.1f} million
residues where ESM-2 has seen billions. For real work use `--model facebook/esm2_t6_8M_UR50D` or larger.

## Source and training
- Recipe: `scripts/train_embedded_model.py` (masked residues and EC numbers at levels 1, 3 and 4 together; Muon and
  AdamW; crops of {crop} residues, {long_crop} in the last fifth). The heads of the first two layers start as detectors
  of what stands 1, 2, 3 and 6 residues away, by constant query and key biases (function `look_at_neighbours`): in these
  layers raw `activation` of query and key neurons therefore counts constants that the start put there.
- Proteins with an EC number that embedded *training* proteins have are drawn {focus:g} times as often; the masked-residue
  loss weighs {mlm_weight:g}. The rate falls linearly from {rate:g} to 0.
- Data and their source: {table_rows:,} EC-labelled enzymes, originally UniProtKB / UniRef (CC BY 4.0, UniProt Consortium), gathered from
  public repositories, clustered at 30 % identity; {training:,} were trained on, with {ecs:,} EC numbers of at least
  {min_per_ec} sequences each.
- Left out: {left_out:,} sequences with at least {identity:.0%} identity over half of either sequence to one of the
  {held_out} proteins that the embedded enzyme table marks `held_out` (MMseqs2, searched in both directions), and
  {validation:,} validation proteins: {clusters} whole clusters and single members of others.
- {hardware} of a machine that did other work too, {hours:.1f} hours, {residues:.1f} M residues, seed {seed}.{before}

## Quality on the validation proteins, by identity to the nearest training protein
| identity (%) | proteins | perplexity | of residue frequencies | EC-class accuracy | balanced | majority class | four-digit EC |
|---|---|---|---|---|---|---|---|
{rows}

EC-class accuracy is that of the first-token EC head, which is not shipped. Balanced accuracy by chance: 0.14 (7 classes).

**How to read this.** It has learned enzyme families, not the language of proteins: its perplexity is hardly below that of
residue frequencies. Accuracy rises with the identity to the nearest training protein.

**What more training would give.** Over the last two thirds of this curve, validation balanced accuracy rises by
{slope:.3f} for every doubling of the residues seen (least squares on the logarithm). If that went on, {target:.2f} would
be reached at about {needed:,.0f} M residues: minutes on a GPU with the same command, `--device cuda --residues {needed:.0f}e6`,
hours on CPU cores. An extrapolation, not a measurement.

## Training log
![training](training.png)

| residues (M) | masked-residue loss | EC class loss | four-digit EC loss | validation perplexity | validation balanced accuracy |
|---|---|---|---|---|---|
{log}

Validation figures of the log are on the first {quick} validation proteins; those of the table above on all.

## Licence
The weights: MIT, as the project. The sequences they were trained on: UniProt, CC BY 4.0.
"""


def shown(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def main() -> None:
    """Read the record, draw, fill the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--note", default="", help="a sentence on what went otherwise than the command says")
    args = parser.parse_args()
    folder = args.folder
    training = json.loads((folder / "training.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    with (folder / "training_log.tsv").open() as handle:
        log = list(csv.DictReader(handle, delimiter="\t"))
    record, settings = training["record"], training["settings"]
    rows = [
        f"| {band} | {q['n']} | {q['perplexity']:.2f} | {q['frequency_perplexity']:.2f} | {shown(q['accuracy'])} | "
        f"{shown(q['balanced_accuracy'])} | {shown(q['majority_accuracy'])} | {shown(q['ec4_accuracy'])} |"
        for band, q in sorted(training["final"].items(), key=lambda item: BANDS.index(item[0]))
    ]
    before = training.get("before")
    total = training["residues"] + (before["residues"] if before else 0)
    story = ""
    if before:
        story = (
            f"\n- It began with the encoder of an earlier training of {before['residues'] / 1e6:.1f} M residues "
            f"({before['hours']:.1f} hours, rate {before['settings']['rate']}, its last fifth falling); its log is the\n"
            "  first part of the one below. One command repeats the recipe with fresh weights, not every bit of these."
        )
    story += f" {args.note}" if args.note else ""
    every = max(1, len(log) // 16)
    kept = [row for number, row in enumerate(log) if number % every == 0 or number == len(log) - 1]
    keys = ("train_mlm", "train_first1", "train_first4", "validation_perplexity", "validation_balanced_accuracy")
    lines = [
        f"| {float(r['residues']) / 1e6:.1f} | " + " | ".join(f"{float(r[k]):.3f}" for k in keys) + " |" for r in kept
    ]
    late = [row for row in log if float(row["residues"]) > total / 3]
    x = np.log2([float(row["residues"]) / 1e6 for row in late])
    slope, start = np.polyfit(x, [float(row["validation_balanced_accuracy"]) for row in late], 1)
    needed = 2 ** ((TARGET - start) / slope)
    card = CARD.format(
        layers=config["num_hidden_layers"], width=config["hidden_size"], heads=config["num_attention_heads"],
        parameters=training["parameters"] / 1e6, residues=training["residues"] / 1e6, crop=settings["crop"],
        total=total / 1e6, before=story, slope=slope, target=TARGET, needed=needed, rate=float(settings["rate"]),
        long_crop=settings["long_crop"], focus=float(settings["focus"]),
        mlm_weight=float(settings["mlm_weight"]), table_rows=record["table rows"], training=record["training enzymes"],
        ecs=record["EC numbers learned"], min_per_ec=settings["min_per_ec"], left_out=record["left out for resembling them"],
        identity=record["identity threshold"], held_out=record["held-out embedded proteins"],
        validation=record["validation enzymes"], clusters=record["validation clusters"], hardware=training["hardware"],
        hours=training["hours"], seed=settings["seed"], quick=settings["quick"], rows="\n".join(rows), log="\n".join(lines),
    )  # fmt: skip
    (folder / "README.md").write_text(card)
    residues = [float(row["residues"]) / 1e6 for row in log]
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), constrained_layout=True)
    for axis, key, title in zip(
        axes,
        ("train_first4", "validation_perplexity", "validation_balanced_accuracy"),
        ("four-digit EC loss (training)", "perplexity (validation)", "balanced EC-class accuracy"),
        strict=True,
    ):
        axis.plot(residues, [float(row[key]) for row in log], color="#0072B2")
        axis.set(title=title, xlabel="million residues")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "training.png", dpi=110, metadata={"Software": None})
    print(f"wrote {folder / 'README.md'} and {folder / 'training.png'}")


if __name__ == "__main__":
    main()
