"""The sections of a comparison that stand behind the outcomes: what is kept, every setting, what neurons detect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plmscope.comparing.cells import (
    estimated,
    grouped,
    headings,
    in_group,
    only,
    where,
)
from plmscope.comparing.found import Found
from plmscope.comparing.members import CONFIRMATION, ONE_GROUP
from plmscope.models.architectures import MODULES
from plmscope.report.blocks import (
    Section,
    Table,
    TableCell,
    TableRow,
    Text,
    cell,
    control_words,
    count,
    fixed,
    is_number,
    percent,
    short,
    signed,
    words,
)


def curves_of_runs(found: Found) -> Section:
    """Balanced accuracy when only the best neurons are kept, for every share that was kept."""
    frame = where(found.tables["curves"], mode="keep", ablation="mean", role=CONFIRMATION)
    frame = frame[frame["scope"].isin(["pooled", "module"])]
    rows = []
    keys = ["group", "module", "method", "fraction"]
    for key, part in frame.groupby(keys, sort=False):
        group, kind, method, fraction = key
        difference = (part["kept"] - part["drawn"]).mean()
        cells = [
            cell(words(kind) if kind else "all neurons together"),
            *in_group(found, str(group)),
            cell(words(method)),
        ]
        cells += [cell(percent(fraction), fraction), cell(count(len(part)), len(part))]
        cells += [cell(fixed(part[name].mean()), part[name].mean()) for name in ("intact", "kept", "drawn")]
        cells[-1] = cell(cells[-1].text, cells[-1].sort, f"SD of draws {fixed(part['drawn_sd'].mean())}")
        rows.append(TableRow((*cells, cell(signed(difference), difference))))
    if not rows:
        return Section("kept", "What is kept", ())
    columns = (
        ("kept of", False), *grouped(found), ("method", False), ("share", True), ("runs", True), ("intact", True),
        ("best by the method", True), ("matched chance", True), ("difference", True),
    )  # fmt: skip
    caption = "Balanced accuracy by the share that is kept, all others at their mean; means over runs."
    return Section("kept", "What is kept", (Table("shares", caption, columns, tuple(rows), search=True),))


def cells_section(found: Found) -> Section:
    """Every other setting of the evaluation, against every control."""
    frame = where(found.tables["combined"], quantity="difference")
    rows = []
    for row in frame.to_dict("records"):
        where_ = words(row["module"]) if row["module"] else words(row["scope"])
        cells = [
            cell(words(row["method"])), *in_group(found, row["group"]), cell(where_), cell(row["mode"]),
            cell(row["ablation"]), cell(words(row["metric"])), cell(control_words(row["against"])),
            estimated(row, plus=True),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells)))
    if not rows:
        return Section("cells", "All settings of the evaluation", ())
    columns = (
        ("method", False), *grouped(found), ("where", False), ("mode", False), ("ablation", False), ("metric", False),
        ("against", False), ("mean over runs", True),
    )  # fmt: skip
    caption = (
        "Difference in area from each control in every setting, as means over runs. Where neurons are ablated, a "
        "negative one is the better selection. Nothing here is corrected for its number of rows."
    )
    table = Table("all-cells", caption, columns, tuple(rows), search=True, folded=f"{len(rows)} rows")
    return Section("cells", "All settings of the evaluation", (table,))


def detected_section(found: Found) -> Section:
    """The section that says how many neurons a concept or a motif explains in each run."""
    frame, combined, names = found.tables["detected"], found.tables["combined"], headings(found)
    rows = []
    for group in found.groups:
        for kind in (*MODULES, "all"):
            part = where(frame, group=group, module=kind)
            if len(part):
                each = {row["run"]: row for row in part.to_dict("records")}
                together = only(where(combined, quantity="explained_share", group=group, module=kind))
                cells = [cell(words(kind)), *in_group(found, group), estimated(together, share=True)]
                cells += [_explained(each.get(name)) for name in names]
                rows.append(TableRow(tuple(cells), strong=kind == "all"))
    if not rows:
        return Section("detected", "What neurons detect", ())
    columns = (
        ("kind", False), *grouped(found), ("explained, mean over runs", True),
        *((name, True) for name in names.values()),
    )  # fmt: skip
    caption = "Neurons that a concept explains on held-out clusters, of all neurons of a kind."
    blocks: list[Table | Text] = [Table("explained", caption, columns, tuple(rows))]
    pairs = found.tables["runs"].dropna(subset=["pairs_confirmed"])
    blocks += [
        Text(
            f"{row['run']}: {count(row['pairs_confirmed'])} pairs of a neuron and a concept are confirmed, with "
            f"shifted annotations {count(row['pairs_confirmed_shifted'])}."
        )
        for row in pairs.to_dict("records")
    ]
    return Section("detected", "What neurons detect", tuple(blocks))


def _explained(row: Mapping[Any, Any] | None) -> TableCell:
    if row is None:
        return cell("–", small="not characterized")
    share = row["explained_share"]
    return cell(percent(share), share, f"{count(row['explained'])} of {count(row['neurons'])}")


KNOWN = (
    "What the neurons with a card know, as shares of them: beside other neurons of the same sites, which is what a "
    "random draw with the same number in every site has on the mean. Then formulas over concepts beside the same "
    "search where residues were moved around every protein, and scored sentences, on held-out clusters."
)
LAID_OUT = (
    "How knowledge is laid out: each number beside the same for what it is held against (matched draws; dealt labels "
    "for groups; neurons dealt anew for experts)."
)


def knowledge_of_runs(found: Found) -> Section:
    """The section on what the chosen neurons know."""
    return _beyond(found, "knowledge", "What chosen neurons know", KNOWN)


def layout_of_runs(found: Found) -> Section:
    """The section on how knowledge is laid out."""
    return _beyond(found, "layout", "How knowledge is laid out", LAID_OUT)


def _beyond(found: Found, name: str, title: str, caption: str) -> Section:
    """Numbers of one kind: the mean over runs, what they are held against, and the difference."""
    frame, combined = where(found.tables[name], role=CONFIRMATION), found.tables["combined"]
    together: list[TableRow] = []
    by_kind: list[TableRow] = []
    for key, part in frame.groupby(["group", "what", "method", "module"], sort=False):
        group, what, method, module = (str(one) for one in key)
        cells = [cell(what), *in_group(found, group), cell(words(method) or "–"), cell(words(module))]
        among = {"group": group, "what": what, "method": method, "module": module}
        value, beyond = (only(where(combined, quantity=f"{name}{ending}", **among)) for ending in ("", "_beyond"))
        against = part["against"].mean()
        cells += [estimated(value), cell(fixed(against), against)]
        cells.append(estimated(beyond, plus=True) if is_number(against) else cell("–"))
        (together if module == "all" else by_kind).append(TableRow(tuple(cells)))
    columns = (
        ("what", False), *grouped(found), ("chosen by", False), ("among", False), ("mean over runs", True),
        ("by chance", True), ("difference", True),
    )  # fmt: skip
    folded = f"the same by module kind, {len(by_kind)} rows"
    tables = (
        Table(f"{name}-beyond", caption, columns, tuple(together)),
        Table(f"{name}-kinds", "By module kind", columns, tuple(by_kind), search=True, folded=folded),
    )
    return Section(name, title, tuple(table for table in tables if table.rows))


def interventions_of_runs(found: Found) -> Section:
    """The section on interventions: what becomes of every class when the neurons of one are changed."""
    frame, combined, names = found.tables["interventions"], found.tables["combined"], headings(found)
    frame = frame[frame["n_draws"] > 0]
    rows = []
    keys = ["group", "method", "factor", "label"]
    for key, part in frame.groupby(keys, sort=False, dropna=False):
        group, method, factor, label = key
        how = "held at the mean" if not is_number(factor) else f"times {factor:g}"
        cells = [cell(str(label)), *in_group(found, str(group)), cell(words(method)), cell(how)]
        for effect in ("own", "others"):
            some = where(
                combined, quantity="probability_change", group=group, method=method, label=label, effect=effect
            )
            some = some[some["factor"].isna() if not is_number(factor) else some["factor"] == factor]
            cells.append(estimated(only(some), plus=True))
        own = {row["run"]: row for row in where(part, effect="own").to_dict("records")}
        cells += [_changed(own.get(name)) for name in names]
        rows.append(TableRow(tuple(cells)))
    if not rows:
        return Section("interventions", "Changing a class's neurons", ())
    columns = (
        ("neurons of class", False), *grouped(found), ("method", False), ("how", False), ("own probability", True),
        ("other classes", True), *((name, True) for name in names.values()),
    )  # fmt: skip
    caption = (
        "Change of the mean probability minus that under matched draws: means over runs with 95 % t intervals, then "
        "the own class in every run, with the right decisions that it loses."
    )
    table = Table("changed", caption, columns, tuple(rows), search=True)
    return Section("interventions", "Changing a class's neurons", (table,))


def _changed(row: Mapping[Any, Any] | None) -> TableCell:
    if row is None:
        return cell("–")
    small = f"q = {short(row['q_value'])}, {count(row['decisions_lost'])} of {count(row['decisions_right'])} lost"
    return cell(signed(row["difference"]), row["difference"], small)


def completeness_of_runs(found: Found) -> Section:
    """How far path methods are from complete."""
    names = headings(found)
    rows = [
        TableRow(
            (
                cell(names[row["run"]]), cell(words(row["method"])), cell(words(row["module"])),
                cell(
                    f"{count(row['points_fewest'])}"
                    + (f" to {count(row['points_most'])}" if row["points_most"] > row["points_fewest"] else "")
                ),
                cell(percent(row["gap"]), row["gap"]), cell(percent(row["above_5_percent"]), row["above_5_percent"]),
            )
        )
        for row in found.tables["completeness"].to_dict("records")
    ]  # fmt: skip
    if not rows:
        return Section("completeness", "Completeness", ())
    columns = (
        ("run", False), ("method", False), ("kind", False), ("points", True), ("mean gap", True),
        ("gaps above 5 %", True),
    )  # fmt: skip
    caption = "Completeness gap of path integrals: mean size as a share of the mean size of the change."
    table = Table("gaps", caption, columns, tuple(rows), folded=f"{len(rows)} rows")
    return Section("completeness", "Completeness", (table,))


def method_section(found: Found) -> Section:
    """How the estimates are made, and what they do not say."""
    one = len(found.groups) == 1 or found.groups == (ONE_GROUP,)
    return Section(
        "how", "How runs are combined",
        (
            Text(
                "A run is one observation. A mean over n runs has the interval mean ± t(0.975, n − 1) · SD / √n; one "
                "run has none, and neither have runs that agree to the last digit. Concentrations are averaged as "
                "logarithms; of shares an interval may reach beyond 0 "
                "or 100 %. Runs of one study share its proteins and the language model they start from; a seed "
                "draws split, training and random selections anew. So the intervals speak of other seeds on these "
                "proteins, not of other proteins. Runs named exploratory are in no estimate. Rows are not corrected "
                "for their number."
            ),
            Text(
                "Runs that differ in nothing but the seed are one group."
                if one
                else "Runs are averaged within their group alone, that is with runs that differ in the seed; between "
                "groups, look at the intervals of both."
            ),
        ),
    )  # fmt: skip
