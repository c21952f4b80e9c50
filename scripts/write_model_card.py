"""Write the model card and the picture of the training from what ``train_embedded_model.py`` left in a model folder.

    python scripts/write_model_card.py build/embedded-model/model

Reads ``training.json``; writes ``README.md`` and ``training.png`` (needs matplotlib).
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BANDS = ("<30", "30-50", "50-70", ">=70", "all")
CARD = """# The embedded model of plmscope

An ESM-2-architecture protein language model ({layers} layers, {width} wide, {heads} heads, {parameters:.2f} M parameters,
the shape of ESM-2 8M, its vocabulary, rotary positions, token dropout; half-precision safetensors, `EsmForMaskedLM`), trained by
the plmscope project so that the demo has something real to look into.

**It is not Meta's ESM-2**, shares no weights with it and is no substitute for it: it has seen {residues:.0f} million
residues where ESM-2 has seen billions. For real work use `--model facebook/esm2_t6_8M_UR50D` or larger.

## Source and training
- Recipe: `scripts/prepare_embedded_training.py`, then `scripts/train_embedded_model.py`: masked residues and EC numbers at levels 1, 3
  and 4 together; Muon for the matrices of the encoder, AdamW for the rest; whole proteins up to {longest} residues. Every weight
  started from transformers' ordinary initialisation: no module was given a head start.
- The rate rose to {rate:g} in {warmup} steps and fell linearly to 0; {tokens:,} tokens a batch, {steps:,} steps; {mask:.0%} of the residues were
  to be guessed; the EC loss weighed {ec_weight:g}. Proteins with an EC number that embedded *training* proteins have were drawn more often.
- Data and their source: {enzyme_rows:,} EC-labelled enzymes and {extra_rows:,} other sequences, originally UniProtKB / UniRef (CC BY 4.0,
  UniProt Consortium) gathered from public repositories, and the genus files of the Debian package `prokka`; {training:,} sequences with
  {training_residues:.1f} M residues were trained on, {labelled:,} of them with an EC number, {ecs:,} numbers in all.
- Left out: {left_out:,} sequences with at least {identity:.0%} identity over half of either sequence to one of the {enzymes} enzymes or {families} family
  members that the embedded tables mark `held_out` (MMseqs2, searched in both directions), and {validation:,} validation proteins from
  {clusters} clusters at 30 % identity, with the other members of those held out.
- {hardware}, {minutes:.1f} minutes, {residues:.1f} M residues ({passes:.1f} times the training set), seed {seed}; {teraflops:.0f} TFLOP/s in matrix products.

## Quality on the validation proteins, by identity to the nearest training protein
| identity (%) | proteins | perplexity | of frequencies | of the residue before | of both neighbours | masked residues right | EC class right | balanced | four-digit EC right |
|---|---|---|---|---|---|---|---|---|---|
{rows}

Perplexity is of masked residues (15 %); beside it that of three models of the same training data: residue frequencies, the residue before (a bigram model),
and both neighbours taken as independent. EC classes are those of the first-token EC head, which is not shipped; balanced accuracy by chance: 0.14 (7 classes).

**How to read this.** It has learned enzyme families, not the language of proteins: its perplexity is hardly below that of residue
frequencies, and of 20 residues it guesses mostly L and A ({best}). Contacts were not measured: without structures there
is nothing to measure them on. Accuracy falls with the identity to the nearest training protein. It is not overfitted
either: 400 of its training proteins have a perplexity of 17.0, as many validation proteins 17.1 (a look at the finished model, every
chosen residue masked), so that it is residues seen that are missing, not proteins.

## Training log
![training](training.png)

| residues (M) | rate | masked-residue loss | EC loss | validation perplexity | balanced accuracy | below 30 % | 30 to 50 % |
|---|---|---|---|---|---|---|---|
{log}

Validation figures of the log are on the first {quick} validation proteins; those of the table above on all. Losses are of training batches,
where a tenth of the residues to be guessed is shown as it is.

## Licence
The weights: MIT, as the project. The sequences they were trained on: UniProt, CC BY 4.0, and those of `prokka` (GPL-3+ package of NCBI and BioCyc annotations).
"""


def shown(value: float | None) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    """Read the record, draw, fill the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    training = json.loads((folder / "training.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    record, settings, log = training["record"], training["settings"], training["log"]
    final = training["final"]
    rows = [
        f"| {band} | {q['n']} | {q['perplexity']:.2f} | {q['frequency_perplexity']:.2f} | {q['bigram_perplexity']:.2f} | "
        f"{q['neighbours_perplexity']:.2f} | {shown(q['masked_accuracy'])} | {shown(q['accuracy'])} | "
        f"{shown(q['balanced_accuracy'])} | {shown(q['ec4_accuracy'])} |"
        for band, q in ((band, final[band]) for band in BANDS if band in final)
    ]
    lines = [
        f"| {r['residues'] / 1e6:.0f} | {r['rate']:.1e} | {r['masked_residue_loss']:.3f} | {r['ec_loss']:.3f} | "
        f"{r['validation_perplexity']:.2f} | {shown(r['validation_balanced_accuracy'])} | "
        f"{shown(r.get('validation_balanced_accuracy_below30'))} | {shown(r.get('validation_balanced_accuracy_30to50'))} |"
        for r in log
    ]
    right = sorted(final["masked_accuracy_by_residue"].items(), key=lambda item: -item[1])
    card = CARD.format(
        layers=config["num_hidden_layers"], width=config["hidden_size"], heads=config["num_attention_heads"],
        parameters=training["parameters"] / 1e6, residues=training["residues"] / 1e6, longest=1022,
        rate=float(settings["rate"]), warmup=settings["warmup"], tokens=settings["tokens"], steps=training["steps"],
        mask=settings["mask"], ec_weight=settings["ec_weight"], enzyme_rows=record["rows of the enzyme table"],
        extra_rows=record["rows of extra files"], training=record["training sequences"],
        training_residues=record["training residues"] / 1e6, labelled=record["of them with an EC number"],
        ecs=record["EC numbers learned"], left_out=record["left out for resembling held-out proteins"],
        identity=record["identity threshold"], enzymes=record["held-out proteins of enzymes.tsv.gz"],
        families=record["held-out proteins of families.tsv.gz"], validation=record["validation proteins"],
        clusters=record["validation clusters"], hardware=training["hardware"], minutes=training["minutes"],
        passes=training["residues"] / record["training residues"], seed=settings["seed"],
        teraflops=training["operations_per_second"] / 1e12, rows="\n".join(rows), log="\n".join(lines),
        quick=settings["quick"], best=", ".join(f"{letter} {share:.0%} right" for letter, share in right[:4]),
    )  # fmt: skip
    (folder / "README.md").write_text(card)
    residues = [row["residues"] / 1e6 for row in log]
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), constrained_layout=True)
    for axis, key, title in zip(
        axes,
        ("ec_loss", "validation_perplexity", "validation_balanced_accuracy"),
        ("EC loss (training)", "perplexity (validation)", "balanced EC-class accuracy"),
        strict=True,
    ):
        axis.plot(residues, [row[key] for row in log], marker="o", color="#0072B2")
        axis.set(title=title, xlabel="million residues")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "training.png", dpi=110, metadata={"Software": None})
    print(f"wrote {folder / 'README.md'} and {folder / 'training.png'}")


if __name__ == "__main__":
    main()
