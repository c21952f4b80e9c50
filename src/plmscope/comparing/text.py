"""The page of a comparison as Markdown: the same answers and tables, for a terminal or a page of documentation."""

from __future__ import annotations

from collections.abc import Sequence

from plmscope.report.blocks import Answer, Section, Table, TableCell, Text


def markdown(answers: Sequence[Answer], sections: Sequence[Section]) -> str:
    """Answers, then every section with its tables; minus signs are plain ones."""
    lines = []
    for answer in answers:
        lines += [f"**{answer.question}** {answer.verdict.capitalize()}. {answer.text}", ""]
        lines += [f"- {detail}" for detail in answer.details] + ([""] if answer.details else [])
    for section in sections:
        lines += [f"### {section.title}", ""]
        for block in section.blocks:
            if isinstance(block, Table):
                lines += [block.caption, "", *_table(block), ""]
            elif isinstance(block, Text):
                lines += [block.text, ""]
    return "\n".join(lines).replace("−", "-").rstrip() + "\n"


def _table(table: Table) -> list[str]:
    """A table's lines; what is small on the page stands in brackets."""
    names = [label for label, _ in table.columns]
    rule = ["--:" if numeric else "---" for _, numeric in table.columns]
    return [_line(names), _line(rule), *(_line([_text(cell) for cell in row.cells]) for row in table.rows)]


def _line(cells: Sequence[str]) -> str:
    escaped = (" ".join(text.split()).replace("|", "\\|") for text in cells)
    return "| " + " | ".join(escaped) + " |"


def _text(cell: TableCell) -> str:
    return f"{cell.text} ({cell.small})" if cell.small else cell.text
