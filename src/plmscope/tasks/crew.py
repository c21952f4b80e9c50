"""Who does the long parts of a stage: this process by itself, several processes, or a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes:
        engine: ``local``: this process by itself; ``processes`` or ``ray``.
        workers: How many.
        address: Of a Ray cluster.
        model: Folder of the saved classifier, which workers load.
        device: Theirs.
        dtype: Theirs.
    """

    engine: str = "local"
    workers: int = 1
    address: str = ""
    model: Path | None = None
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def alone(self) -> bool:
        """Whether this process does everything."""
        return self.engine == "local" or self.model is None


#: This process by itself.
ALONE = Crew()
