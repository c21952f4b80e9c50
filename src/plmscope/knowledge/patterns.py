"""Sequence patterns in the syntax of PROSITE.

::

    G-x(4)-G-K-[ST]     any four between; S or T last        N-{P}-[ST]   anything but P
    C-x(2,4)-C          two to four between                  K-D-E-L>     at the end only;  <M at the start only

>>> [match for match in parse_pattern("G-x-S-x-G").find("AAGHSMGLSGG")]
[(2, 7), (6, 11)]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from plmscope.errors import InputError

_ELEMENT = re.compile(r"(x|[A-Z]|\[[A-Z]+>?\]|\{[A-Z]+\})(?:\((\d+)(?:,(\d+))?\))?")


@dataclass(frozen=True)
class Pattern:
    """A sequence pattern.

    Attributes:
        text: As it was written.
        regex: The same as a regular expression, inside a look-ahead so that matches may overlap.
    """

    text: str
    regex: re.Pattern[str]

    def find(self, sequence: str) -> Iterator[tuple[int, int]]:
        """Matches as half-open 0-based ranges, one (the longest) at every place where one starts."""
        for match in self.regex.finditer(sequence):
            yield match.span(1)


def parse_pattern(text: str) -> Pattern:
    """Read a pattern in PROSITE syntax.

    Elements are joined by ``-``: a letter, ``x`` (any), ``[ABC]`` (one of), ``{ABC}`` (none of), each with an optional
    ``(n)`` or ``(n,m)``; ``<`` before the first and ``>`` after the last bind the pattern to an end; ``>`` as the last
    thing in brackets means "or the end". A final ``.`` is allowed.

    Raises:
        InputError: an element cannot be read (it is named), or a count is impossible.

    References:
        PROSITE user manual, section on pattern syntax. Departs from it: ``*`` and repeated profiles are not read.
    """
    body = text.strip().removesuffix(".")
    start, end = body.startswith("<"), body.endswith(">")
    body = body[1 if start else 0 : -1 if end else None]
    parts = []
    for number, element in enumerate(body.split("-"), 1):
        found = _ELEMENT.fullmatch(element)
        if not found:
            raise InputError(
                f"pattern {text!r}: element {number}, {element!r}, is none of A, x, [AB], {{AB}} with (n) or (n,m)"
            )
        what, low, high = found.groups()
        if high is not None and int(high) < int(low):
            raise InputError(f"pattern {text!r}: element {number}, {element!r}, counts down; write (n,m) with n <= m")
        if what.endswith(">]"):
            if low is not None:
                raise InputError(f"pattern {text!r}: element {number}, {element!r}, repeats an end; drop the count")
            expression = rf"(?:[{what[1:-2]}]|\Z)" if len(what) > 3 else r"\Z"
        elif what.startswith("{"):
            expression = f"[^{what[1:-1]}]"
        else:
            expression = "." if what == "x" else what
        count = "" if low is None else f"{{{low}}}" if high is None else f"{{{low},{high}}}"
        parts.append(expression + count)
    expression = "".join(parts) + (r"\Z" if end else "")
    if re.fullmatch(expression, ""):
        raise InputError(f"pattern {text!r} can match no residue at all; let it ask for one at least")
    return Pattern(text, re.compile((r"\A" if start else "") + f"(?=({expression}))", re.DOTALL))
