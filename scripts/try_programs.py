"""Run what docs/tables-elsewhere.md shows, with the programs that are installed here, and say which were not.

    python scripts/try_programs.py FOLDER      # FOLDER has runs/demo

Needs pandas, and what else of polars and duckdb is to be tried: pip install polars duckdb.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "tables-elsewhere.md"


def try_all(folder: Path) -> int:
    """Run every Python block; the number of those that could not run for want of a library."""
    os.chdir(folder)
    absent = 0
    for code in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        library = re.search(r"^import (\w+)", code, re.MULTILINE)[1]  # type: ignore[index]
        try:
            __import__(library)
        except ImportError:
            absent += 1
            print(f"{library}: is not installed, not tried")
            continue
        exec(compile(code, f"{PAGE.name}: {library}", "exec"), {})
        print(f"{library} {version(library)}: works")
    return absent


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    raise SystemExit(1 if try_all(Path(sys.argv[1])) else 0)
