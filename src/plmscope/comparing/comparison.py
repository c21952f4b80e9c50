"""The comparison as an object: its tables, a short text of itself, and the folder it is written to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plmscope import __version__
from plmscope.comparing.answers import NOTE, QUESTION, answers_of_runs, facts_of_runs, summary, title
from plmscope.comparing.figures import figures
from plmscope.comparing.found import Found
from plmscope.comparing.members import gather
from plmscope.comparing.sections import sections
from plmscope.comparing.tables import all_tables
from plmscope.comparing.text import markdown
from plmscope.errors import RunError
from plmscope.report.page import page
from plmscope.store.files import write_atomic

REPORT, TEXT = "compared.html", "compared.md"


class Comparison(Found):
    """Several runs side by side, as text and as files; made by :func:`compare_runs`."""

    def __repr__(self) -> str:
        return "\n".join(summary(self))

    def markdown(self) -> str:
        """Everything that the page says, as Markdown."""
        return markdown(answers_of_runs(self), sections(self))

    def html(self) -> str:
        """The page: one file that opens offline and sends nothing."""
        return page(
            name=title(self), version=__version__, kind="runs compared", question=QUESTION, note=NOTE,
            answers=answers_of_runs(self), facts=facts_of_runs(self), first=figures(self), sections=sections(self),
        )  # fmt: skip

    def write(self, folder: str | Path) -> Path:
        """Tables as Parquet and CSV, the page and the Markdown into a folder, each file whole or not at all.

        Returns:
            The path of the page.

        Raises:
            RunError: the folder cannot be made or written, or holds a run.
        """
        folder = Path(folder)
        if (folder / "manifest.json").exists():
            raise RunError(f"{folder}: is a run folder; name another folder with --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be made ({error.strerror}); name another folder with --out") from None
        for name, frame in self.tables.items():
            write_atomic(folder / f"compared_{name}.parquet", frame.to_parquet(index=False, compression="zstd"))
            write_atomic(folder / f"compared_{name}.csv", frame.to_csv(index=False).encode())
        write_atomic(folder / TEXT, self.markdown().encode())
        write_atomic(folder / REPORT, self.html().encode())
        return folder / REPORT


def compare_runs(runs: Sequence[str | Path], exploratory: Sequence[str | Path] = ()) -> Comparison:
    """Put finished runs side by side, and combine those that differ in the seed alone.

    Every run is one observation. Estimates over runs are means with a t interval (95 %, n - 1 degrees of freedom) and
    say their n; one run has no interval. Runs that differ in a setting that moves the outcomes, such as the model, form
    groups of their own.

    Args:
        runs: Run folders, or the folder of a sweep, which stands for its finished runs.
        exploratory: Runs that suggested what the others confirm: they are shown, and kept out of every estimate.

    Raises:
        RunError: a folder is no finished run, or runs cannot stand side by side: other classes, another task, a schema
            that this version cannot read, or one seed twice. The line names them.
    """
    members = gather(runs, exploratory)
    return Comparison(tuple(members), all_tables(members))
