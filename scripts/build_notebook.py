"""Make the notebooks of ``docs/notebooks`` from their sources in ``scripts/notebooks``, executed on a finished demo.

    python scripts/build_notebook.py FOLDER              # FOLDER has runs/demo, or gets it in minutes
    python scripts/build_notebook.py FOLDER own-scorer   # one of them

A source is a page of Markdown whose Python blocks become cells. Needs no notebook server: a cell's last expression is
shown as a notebook would show it.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCES, NOTEBOOKS = ROOT / "scripts" / "notebooks", ROOT / "docs" / "notebooks"


def cells(text: str) -> list[dict[str, Any]]:
    """The cells of a source, not executed yet."""
    found: list[dict[str, Any]] = []
    for number, part in enumerate(re.split(r"^```python\n(.*?)^```\n", text, flags=re.MULTILINE | re.DOTALL)):
        if not (body := part.strip("\n")):
            continue
        cell = {"cell_type": "markdown", "id": f"cell-{len(found)}", "metadata": {}, "source": lines(body)}
        if number % 2:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        found.append(cell)
    return found


def execute(code: str, namespace: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one cell; its outputs in notebook format."""
    tree, outputs = ast.parse(code), []
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), namespace)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), namespace) if last else None
    if printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": lines(printed.getvalue())})
    if value is not None:
        data = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = lines(value._repr_html_())
        outputs.append({"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": data})
    return outputs


def lines(text: str) -> list[str]:
    """Text as notebooks store it."""
    return text.splitlines(keepends=True)


def executed(text: str) -> dict[str, Any]:
    """A source as a notebook, run in the working directory."""
    book = {
        "cells": cells(text),
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    namespace: dict[str, Any] = {"__name__": "notebook"}
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, 1):
        outputs = execute("".join(cell["source"]), namespace)
        cell |= {"execution_count": number, "outputs": outputs}
        for output in outputs:
            if "execution_count" in output:
                output["execution_count"] = number
    return book


def build(folder: Path, names: list[str]) -> None:
    """Execute the notebooks in ``folder`` and write them."""
    from plmscope.cli import main

    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    if not Path("runs/demo/report.html").is_file() and main(["demo"]) != 0:
        raise SystemExit("the demo failed")
    NOTEBOOKS.mkdir(exist_ok=True)
    for source in sorted(SOURCES.glob("*.md")):
        if not names or source.stem in names:
            book = executed(source.read_text(encoding="utf-8"))
            text = json.dumps(book, indent=1, ensure_ascii=False) + "\n"
            (NOTEBOOKS / f"{source.stem}.ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    build(Path(sys.argv[1]).resolve(), sys.argv[2:])
