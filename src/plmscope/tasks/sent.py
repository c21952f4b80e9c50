"""A folder that workers read: in its place where they share the disk, or its files sent to them."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Sent:
    """A folder.

    Attributes:
        name: Where it is, or a digest of its files where these are sent.
        files: Path within it to content; none where it stays in its place.
    """

    name: str
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, folder: Path, travels: bool, *patterns: str) -> Sent:
        """A folder of this machine.

        Args:
            folder: Which.
            travels: Whether its files are sent.
            patterns: Of the files that are, such as ``*.json``; left out: all that lie in it directly.
        """
        if not travels:
            return cls(str(folder.absolute()))
        found = sorted({path for pattern in patterns or ("*",) for path in folder.glob(pattern) if path.is_file()})
        files = {str(path.relative_to(folder)): path.read_bytes() for path in found}
        whole = hashlib.sha256()
        for file, content in files.items():
            whole.update(file.encode() + hashlib.sha256(content).digest())
        return cls(whole.hexdigest(), files)

    @contextlib.contextmanager
    def there(self) -> Iterator[Path]:
        """The folder on this machine; a temporary one if its files were sent."""
        if not self.files:
            yield Path(self.name)
            return
        with tempfile.TemporaryDirectory(prefix="plmscope-") as folder:
            write_files(Path(folder), self.files)
            yield Path(folder)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder."""
    for file, content in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
