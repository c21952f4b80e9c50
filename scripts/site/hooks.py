"""What MkDocs calls while it builds the site: generated pages, notebooks, and links that lead out of docs/."""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import reference  # noqa: E402

#: Files of the repository that are pages of the site.
PROJECT = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "src/plmscope/embedded/README.md": "project/embedded.md",
    "src/plmscope/embedded/model/README.md": "project/embedded-model.md",
}
IMAGES = {"src/plmscope/embedded/model/training.png": "project/training.png"}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and the notebooks."""
    if missing := reference.undocumented():
        raise PluginError(f"public names without a docstring: {', '.join(missing)}")
    made = reference.pages()
    for source, place in PROJECT.items():
        made[place] = (ROOT / source).read_text(encoding="utf-8").replace("](model/README.md)", "](embedded-model.md)")
    for path in sorted((ROOT / "docs").rglob("*.ipynb")):
        made[str(path.relative_to(ROOT / "docs").with_suffix(".md"))] = notebook_page(path)
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    for source, place in IMAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files of the repository become links to their pages, links to notebooks links to theirs."""
    up = "../" * page.file.src_uri.count("/")

    def moved(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if target.endswith(".ipynb"):
            return f"]({target.removesuffix('.ipynb')}.md{anchor})"
        if target.startswith("../") and (place := PROJECT.get(target.removeprefix("../"))):
            return f"]({up}{place}{anchor})"
        return found[0]

    if page.file.src_uri.startswith("project/"):
        markdown = re.sub(r"\]\((?:\.\./)*docs/", f"]({up}", markdown)
    return re.sub(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", moved, markdown)


def notebook_page(path: Path) -> str:
    """An executed notebook as a page: text, code, and what it showed."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [shown(output) for output in cell["outputs"]]
    return "\n\n".join(parts) + f"\n\n[This page as a notebook]({path.name}){{ download }}\n"


def shown(output: dict[str, Any]) -> str:
    """One output: a table or picture as it is, anything else as text."""
    data = output.get("data", {})
    if "text/html" in data:
        body = re.sub(r"\n\s*", " ", re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL))
        body = body.replace("<th></th>", "<td></td>")  # an empty head says nothing to a screen reader
    else:
        text = "".join(output.get("text", data.get("text/plain", "")))
        # Blank lines would end the block of HTML.
        body = f"<pre>{html.escape(text)}</pre>".replace("\n", "&#10;")
    return f'<div class="notebook-output">{body}</div>'
