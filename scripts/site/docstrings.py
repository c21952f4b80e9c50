"""Docstrings as the site shows them: Sphinx's roles become links, doctests and literal blocks become code.

An extension of griffe, which reads the sources without importing them. Comments ``#:`` above a constant are its
docstring.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(func|class|meth|mod|data|attr|exc):`(~?)([\w.]+)`")
#: These have to be on the site; a constant or an attribute may be private.
NEEDED = ("func", "class", "mod", "exc")


class Docstrings(griffe.Extension):
    """Rewrites every docstring once."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Of a module, class, function or attribute."""
        if obj.is_attribute and obj.docstring is None and (text := comment_above(obj)):
            obj.docstring = griffe.Docstring(text, parent=obj, lineno=obj.lineno)
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value, lambda name: link(obj, name))


def comment_above(obj: Any) -> str:
    """The lines ``#: ...`` above an attribute of a module or class."""
    lines, found = obj.lines_collection[obj.filepath], []
    at = obj.lineno - 2
    while at >= 0 and lines[at].strip().startswith("#:"):
        found.insert(0, lines[at].strip()[2:].strip())
        at -= 1
    return "\n".join(found)


def link(obj: Any, name: str) -> str:
    """The whole name of what a role means, seen from an object: itself, or in its class or module."""
    if name.startswith("plmscope"):
        return name
    scope = obj if obj.is_class or obj.is_module else obj.parent
    while scope is not None and scope.is_class and name not in scope.members:
        scope = scope.parent
    first, _, rest = name.partition(".")
    member = scope.members.get(first) if scope is not None else None
    if member is None:
        return name  # of another library, or imported where it is used
    return f"{member.target_path if member.is_alias else member.path}{'.' if rest else ''}{rest}"


def as_markdown(text: str, whole: Any) -> str:
    """Roles, doctests and literal blocks in Markdown.

    Args:
        text: A docstring.
        whole: Gives the whole name of what a role means.
    """

    def role(found: re.Match[str]) -> str:
        kind, short, name = found.groups()
        if not whole(name).startswith("plmscope."):
            return f"`{name}`"
        optional = "" if kind in NEEDED else " optional"
        shown = name.rsplit(".", 1)[-1] if short else name
        return f'<autoref identifier="{whole(name)}"{optional}><code>{shown}</code></autoref>'

    lines: list[str] = []
    fence: str | None = None  # what the lines of an open block begin with
    for line in ROLE.sub(role, text).splitlines():
        if fence is None and line.lstrip().startswith(">>> "):
            fence = indent(line)
            lines += ["", f"{fence}```pycon"]
        elif fence is not None and not line.strip():
            lines.append(f"{fence}```")
            fence = None
        elif fence is None and line.rstrip().endswith("::"):
            line = line.rstrip()[:-1] if line.strip() != "::" else ""
        lines.append(line)
    return "\n".join([*lines, f"{fence}```"] if fence is not None else lines)


def indent(line: str) -> str:
    """The blanks that a line begins with."""
    return line[: len(line) - len(line.lstrip())]
