"""From blocks to a page: the templates, and our own scripts and styles, which go in unescaped."""

from __future__ import annotations

import base64
from importlib import resources

import jinja2
from markupsafe import Markup

SHARED = "plmscope.report"


def environment(*packages: str) -> jinja2.Environment:
    """Templates of packages, the first one's first; whatever comes from data is escaped.

    Args:
        packages: With a folder ``templates``; those of the report are there in any case.
    """
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package) for package in (*packages, SHARED)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return templates


def molecules() -> tuple[str, Markup]:
    """The viewer of structures as a page carries it, packed, and its licence."""
    folder = resources.files(SHARED) / "templates" / "molecules"
    packed = base64.b64encode((folder / "3Dmol-min.js.gz").read_bytes()).decode("ascii")
    return packed, own_text("molecules/LICENSE")


def own_text(*names: str, package: str = SHARED) -> Markup:
    """Files of a package's templates, one after the other, unescaped: they are ours, not data."""
    folder = resources.files(package) / "templates"
    return Markup("".join((folder / name).read_text(encoding="utf-8") for name in names))
