"""Execute the code cells of ``docs/notebook.ipynb`` and store what they show, after a change of the API or of the text.

    python scripts/build_notebook.py FOLDER      # FOLDER gets the small study's run folder, and keeps it

Needs no notebook server: a cell's last expression is shown as a notebook would show it. The study of the first code
cell is run if FOLDER has no finished one; that takes a few minutes on two CPU cores.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from plmscope.cli import main

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


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
        outputs.append({"output_type": "execute_result", "execution_count": 0, "metadata": {}, "data": data})
    return outputs


def lines(text: str) -> list[str]:
    """Text as notebooks store it."""
    return text.splitlines(keepends=True)


def build(folder: Path) -> None:
    """Execute all code cells in ``folder`` and write the notebook."""
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    os.chdir(folder)
    namespace: dict[str, Any] = {"__name__": "notebook"}
    number = 0
    for cell in book["cells"]:
        if cell["cell_type"] != "code":
            continue
        number += 1
        cell["outputs"] = execute("".join(cell["source"]), namespace)
        cell["execution_count"] = number
        for output in cell["outputs"]:
            if "execution_count" in output:
                output["execution_count"] = number
        if number == 1 and main(["run", "small.toml"]) != 0:
            raise SystemExit("the study failed")
    NOTEBOOK.write_text(json.dumps(book, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    build(Path(sys.argv[1]).resolve())
