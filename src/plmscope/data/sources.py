"""What a path of proteins means: one file, standard input, embedded data, or a folder whose files are read as one.

Of a folder every file is read, in the order of the names, and every protein gets a column ``file`` with the name of
its file without its ending. That is the class where there is one file a class (``label = "file"``), and the set where
train, validation and test are files (``[split] method = "column"``, ``column = "file"``).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from plmscope.data.formats import STDIN, called, located
from plmscope.errors import InputError, shown

#: The column that says which file of a folder a protein is from.
FILE = "file"
_ENDING = re.compile(
    r"(\.(fasta|fas|fa|faa|fsa|seq|pep|a3m|sto|stockholm|dat|gff3?|tsv|tab|csv|txt|parquet|jsonl?|ndjson))?"
    r"(\.(gz|bz2|xz|zst))?$",
    re.IGNORECASE,
)


class Source(NamedTuple):
    """One file: where it is, what errors call it, its name, that without its ending, and whether it is of a folder."""

    path: Path
    source: str
    name: str
    stem: str
    of_folder: bool


@dataclass(frozen=True)
class Sources:
    """All files of a path.

    Attributes:
        source: What errors call the path.
        files: In the order of their names.
    """

    source: str
    files: tuple[Source, ...]

    def __iter__(self) -> Iterator[Source]:
        return iter(self.files)

    @property
    def sha256(self) -> str:
        """Of the bytes of the file; of a folder that of its names and the digests of its files."""
        digests = []
        for file in self.files:
            with file.path.open("rb") as handle:
                digests.append(hashlib.file_digest(handle, "sha256").hexdigest())
        if not self.files[0].of_folder:
            return digests[0]
        text = "".join(f"{file.name}\n{digest}\n" for file, digest in zip(self.files, digests, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def sources_of(source: str, stdin: Path | None = None) -> Iterator[Sources]:
    """The files of a path, known to be there and not empty; ``stdin``: where standard input was saved, if it was.

    Raises:
        InputError: one cannot be read, or the folder has none, or a folder inside.
    """
    if stdin is not None:
        yield Sources(called(source), (Source(stdin, called(source), STDIN, STDIN, False),))
        return
    folder = _folder(source)
    if folder is None:
        with located(source) as path:
            yield Sources(called(source), (Source(path, called(source), path.name, path.name, False),))
        return
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not inside:
        raise InputError(f"{source}: is an empty folder; name a FASTA or table file, or a folder of such files")
    if other := next((path for path in inside if path.is_dir()), None):
        raise InputError(
            f"{source}: is a folder that has the folder {shown(other.name)}; name a FASTA or table file, or a folder "
            "that has such files alone"
        )
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(located(str(path))) for path in inside]
        files = tuple(Source(path, str(path), path.name, _ENDING.sub("", path.name), True) for path in paths)
        twice = next((file for k, file in enumerate(files) if file.stem in {one.stem for one in files[:k]}), None)
        if twice is not None:
            raise InputError(f"{source}: has two files called {shown(twice.stem)} but for their endings; rename one")
        yield Sources(source, files)


def _folder(source: str) -> Path | None:
    """The folder of that name, if there is one."""
    try:
        return Path(source) if source != STDIN and Path(source).is_dir() else None
    except (OSError, ValueError):  # too long for a name, or a NUL in it
        return None
