"""Sample a study of several thousand enzymes from a large EC-labelled table, fair to the embedded model.

    python scripts/sample_enzymes.py --enzymes enzymes.tsv.gz --trained training.npz --out study.tsv

``--enzymes`` has the columns ``accession, ec, organism, source, sequence, cluster30`` (the embedded model's card names
its public sources); ``--trained`` is what ``prepare_embedded_training.py`` wrote: the sequences that the model has seen
and those that it was validated on. Rows that are neither get ``held_out`` = 1: a split with ``held_out = "held_out"``
draws its validation and test clusters from them alone. Only rows whose EC number a second, independent list confirms
are taken, at most ``--per-cluster`` of a 30 % cluster, so that no family dominates. ``--several 2`` takes those with
several classes at EC level 2 first, for a multi-label study; there the second list need confirm one number alone.
Every step is counted on the screen.
"""

import argparse
import csv
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
from prepare_embedded_training import VOCAB, read_table


def main() -> None:
    """Filter, sample, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--enzymes", type=Path, required=True)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--proteins", type=int, default=13000)
    parser.add_argument("--held-out-share", type=float, default=0.5, help="at most; as many as there are")
    parser.add_argument("--per-cluster", type=int, default=20)
    parser.add_argument("--max-length", type=int, default=400)
    parser.add_argument("--several", type=int, default=0, help="take all with several classes at this EC level")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    trained = sequences_of(args.trained)
    rows = read_table(args.enzymes)
    print(f"{len(rows):,} rows")
    rows = [row for row in rows if row["source"].endswith("ecpred=agree") or _several(row, args.several)]
    print(f"{len(rows):,} with a confirmed EC number, or with several classes of which one is")
    rows = [row for row in rows if 30 <= len(row["sequence"]) <= args.max_length]
    print(f"{len(rows):,} of 30 to {args.max_length} residues")
    order = np.random.default_rng(args.seed).permutation(len(rows))
    taken: Counter[str] = Counter()
    new, seen = [], []
    order = sorted(order, key=lambda i: not _several(rows[i], args.several))
    for row in (rows[i] for i in order):
        if taken[row["cluster30"]] < args.per_cluster:
            taken[row["cluster30"]] += 1
            (seen if row["sequence"] in trained else new).append(row)
    print(f"{len(new) + len(seen):,} with at most {args.per_cluster} of a cluster, {len(new):,} new to the model")
    new = new[: int(args.proteins * args.held_out_share)]
    chosen = [(row, "1") for row in new] + [(row, "0") for row in seen[: args.proteins - len(new)]]
    print(f"{len(chosen):,} chosen, {len(new):,} new to the model")
    print("top classes:", dict(sorted(Counter(row["ec"].split(".")[0] for row, _ in chosen).items())))
    with args.out.open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow(["id", "ec", "organism", "cluster30", "held_out", "sequence"])
        for row, held_out in chosen:
            values = (row["accession"], row["ec"], row["organism"], row["cluster30"], held_out, row["sequence"])
            writer.writerow(values)


def sequences_of(path: Path) -> set[str]:
    """All sequences of a training file."""
    letters = np.zeros(256, np.uint8)
    letters[: len(VOCAB)] = [ord(name) if len(name) == 1 else ord("X") for name in VOCAB]
    found: set[str] = set()
    with np.load(path, allow_pickle=False) as file:
        for part in ("train", "validation"):
            tokens = np.frombuffer(lzma.decompress(file[f"{part}_tokens"].tobytes()), np.uint8)
            text, end = letters[tokens].tobytes().decode(), np.cumsum(file[f"{part}_lengths"])
            found |= {text[stop - length : stop] for stop, length in zip(end, file[f"{part}_lengths"], strict=True)}
    return found


def _several(row: dict[str, str], level: int) -> bool:
    """Whether a row has several classes at an EC level, at least one of them confirmed; never at level 0."""
    classes = {tuple(number.split(".")[:level]) for number in row["ec"].split(";")}
    return len(classes) > 1 and row["source"].endswith(("ecpred=agree", "ecpred=overlap"))


if __name__ == "__main__":
    main()
