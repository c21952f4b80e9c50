"""A motif as a picture: letters stacked by their information."""

from __future__ import annotations

import html

import numpy as np

from plmscope.knowledge.motifs import COLOURS, LETTERS, information


def logo_stacks(matrix: np.ndarray, q: np.ndarray | None = None) -> list[list[tuple[str, float, float]]]:
    """The letters of a sequence logo: per column ``(letter, bottom, height)`` in bits, the largest on top.

    Args:
        matrix: ``(W, 20)`` probabilities.
        q: ``(20,)`` background; even if left out.

    References:
        Schneider and Stephens 1990; heights are probability times the column's bits over the background.
    """
    q = np.full(20, 0.05) if q is None else q
    stacks = []
    for column, bits in zip(matrix, information(matrix, q), strict=True):
        bottom, stack = 0.0, []
        for i in np.argsort(column, kind="stable"):
            height = float(column[i] * max(bits, 0))
            if height >= 0.02:
                stack.append((LETTERS[i], bottom, height))
            bottom += height
        stacks.append(stack)
    return stacks


def logo_svg(matrix: np.ndarray, q: np.ndarray | None = None, column: int = 16, height: int = 60) -> str:
    """A sequence logo as an SVG element without scripts or outside references.

    Args:
        matrix: ``(W, 20)`` probabilities.
        q: ``(20,)`` background; even if left out.
        column: Width of a column in pixels.
        height: Of 4.4 bits in pixels.
    """
    stacks = logo_stacks(matrix, q)
    scale = height / 4.4
    parts = []
    for i, stack in enumerate(stacks):
        for letter, bottom, size in stack:
            # Capitals of a sans-serif face are about 0.72 em high; stretched to their column and height.
            x, y = (i + 0.5) * column, height - bottom * scale
            stretch = size * scale / (0.72 * column)
            parts.append(
                f'<text transform="translate({x:.1f},{y:.2f}) scale(1,{stretch:.3f})" fill="{COLOURS[letter]}">'
                f"{html.escape(letter)}</text>"
            )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {column * len(stacks)} {height}" '
        f'width="{column * len(stacks)}" height="{height}" role="img" font-family="Helvetica,Arial,sans-serif" '
        f'font-weight="700" font-size="{column}" text-anchor="middle">{"".join(parts)}</svg>'
    )
