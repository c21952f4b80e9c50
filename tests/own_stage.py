"""What a new stage looks like: this file, and a row in ``plmscope.study.order.ROWS``."""

from __future__ import annotations

import pandas as pd

from plmscope.study.stages import Context, Stage, tables


def run(context: Context) -> dict[str, int]:
    """How many of the best neurons by each method no concept explains."""
    cards = context.run.table("neuron_cards")
    unexplained = cards[~cards["explained"].astype(bool)].groupby("method").size()
    rows = [(method, int(unexplained.get(method, 0))) for method in context.study.card_methods]
    context.run.write_table("unexplained", pd.DataFrame(rows, columns=["method", "neurons"]))
    return {"unexplained": int(unexplained.sum())}


STAGE = Stage(
    name="unexplained",
    run=run,
    settings=("card_methods",),
    reads=("neuron_cards",),
    writes=tables("unexplained"),
)
