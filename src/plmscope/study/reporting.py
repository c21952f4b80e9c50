"""Write everything to read, in one file, from the tables of the run folder."""

from __future__ import annotations

from plmscope.study.stages import EVERYTHING, Context, Stage


def run(context: Context) -> None:
    """Write the report."""
    from plmscope.report.page import write_report

    write_report(context.run)


STAGE = Stage(
    name="report",
    run=run,
    settings=("report", "name"),
    reads=(EVERYTHING,),
    writes=("report.html",),
    view=True,
)
