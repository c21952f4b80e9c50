"""What the page of a comparison says, a section a table: the models, the outcomes, the kinds, the neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from plmscope.comparing.cells import (
    CHANCE,
    PRIMARY_CELL,
    alike_rows,
    estimated,
    grouped,
    headings,
    in_group,
    methods_of,
    only,
    where,
)
from plmscope.comparing.found import Found
from plmscope.comparing.more_sections import (
    cells_section,
    completeness_of_runs,
    curves_of_runs,
    detected_section,
    interventions_of_runs,
    knowledge_of_runs,
    layout_of_runs,
    method_section,
)
from plmscope.models.architectures import MODULES
from plmscope.report.blocks import (
    Section,
    Table,
    TableCell,
    TableRow,
    Text,
    cell,
    count,
    fixed,
    is_number,
    p_words,
    percent,
    short,
    signed,
    words,
)


def sections(found: Found) -> tuple[Section, ...]:
    """All sections that have something to show."""
    made = [make(found) for make in SECTIONS]
    return tuple(section for section in made if section.blocks)


def _runs(found: Found) -> Section:
    """The models, how well they know the classes, and which settings differ."""
    columns = (
        ("run", False), *grouped(found), ("seed", True), ("test proteins", True), ("balanced accuracy", True),
        ("composition", True), ("majority", True), ("accuracy", True), ("MCC", True), ("minutes", True),
        ("peak memory (GB)", True),
    )  # fmt: skip
    names, rows = headings(found), []
    multi = found.tables["runs"]["mean_average_precision"].notna().any()
    for row in found.tables["runs"].to_dict("records"):
        cells = [cell(names[row["run"]]), *in_group(found, row["group"]), cell(count(row["seed"]), row["seed"])]
        tested = f"{count(row['evaluated_proteins'])} evaluated"
        cells += [cell(count(row["test_proteins"]), row["test_proteins"], tested)]
        cells += [
            cell(fixed(row[k]), row[k]) for k in ("balanced_accuracy", "composition", "majority", "accuracy", "mcc")
        ]
        if multi:
            cells[-2] = cell(fixed(row["mean_average_precision"]), row["mean_average_precision"])
        cells += [cell(fixed(row["minutes"], 0), row["minutes"]), cell(fixed(row["peak_memory_gb"], 1))]
        rows.append(TableRow(tuple(cells)))
    if multi:
        columns = tuple((("mean average precision", True) if name == "accuracy" else (name, n)) for name, n in columns)
    blocks: list[Table | Text] = [
        Table("runs", "Every run: quality on its test proteins beside the classifiers that know no order.", columns,
              tuple(rows)),
        *_quality(found), *_settings(found), *_nearest(found),
    ]  # fmt: skip
    return Section("models", "Runs and models", tuple(blocks))


def _quality(found: Found) -> Iterator[Table]:
    """The quality of each group's models together, and their size where models differ."""
    runs, combined = found.tables["runs"], found.tables["combined"]
    rows = []
    for group in found.groups:
        own = where(combined, group=group, model="")
        if not len(own):
            continue
        one = runs[runs["group"] == group].iloc[0]
        picked = {k: only(where(own, quantity=k)) for k in ("balanced_accuracy", "accuracy", "mcc", "margin")}
        size = cell(short(one["parameters"] / 1e6) if is_number(one["parameters"]) else "–", one["parameters"])
        cells = [cell(str(one["model"])), *in_group(found, group), size, cell(count(one["layers"]), one["layers"])]
        cells += [estimated(row, plus=name == "margin") for name, row in picked.items()]
        rows.append(TableRow(tuple(cells)))
    columns = (
        ("model", False), *grouped(found), ("million parameters", True), ("layers", True), ("balanced accuracy", True),
        ("accuracy", True), ("MCC", True), ("over the better baseline", True),
    )  # fmt: skip
    if rows:
        yield Table(
            "quality", "The models together: mean over runs with its 95 % t interval; under it n and the range.",
            columns, tuple(rows),
        )  # fmt: skip


def _settings(found: Found) -> Iterator[Table | Text]:
    frame = found.tables["settings"]
    shown = [key for key in frame["setting"].unique() if key != "seed"]
    if not shown:
        yield Text("The settings differ in the seed alone." if len(found.members) > 1 else "There is one run.")
        return
    names = headings(found)
    rows = []
    for key in shown:
        own = where(frame, setting=key)
        values = dict(zip(own["run"], own["value"], strict=True))
        divides = bool(own["divides"].iloc[0])
        cells = [cell(key), cell("yes" if divides else "no"), *(cell(str(values[name])) for name in names)]
        rows.append(TableRow(tuple(cells), strong=divides))
    caption = (
        "Settings and versions that differ. Runs that differ in one that moves the outcomes are groups apart: they are "
        "never averaged."
    )
    columns = (("setting", False), ("divides", False), *((name, False) for name in names.values()))
    yield Table("settings", caption, columns, tuple(rows))


def _nearest(found: Found) -> Iterator[Table]:
    frame, names = found.tables["runs"], headings(found)
    bands = {
        "nearest_none": "none found", "nearest_below_30": "below 30 %", "nearest_30_to_50": "30 to 50 %",
        "nearest_from_50": "50 % or more",
    }  # fmt: skip
    frame = frame.dropna(subset=list(bands))
    rows = [
        TableRow((cell(names[row["run"]]), *(cell(percent(row[band]), row[band]) for band in bands)))
        for row in frame.to_dict("records")
    ]
    if rows:
        yield Table(
            "nearest", "Test proteins by the identity of their nearest training protein.",
            (("run", False), *((name, True) for name in bands.values())), tuple(rows), folded="Nearness to training",
        )  # fmt: skip


def _outcomes(found: Found) -> Section:
    """The areas over matched chance: together, and run by run."""
    outcomes = where(found.tables["outcomes"], against=CHANCE, **PRIMARY_CELL)
    outcomes = outcomes[outcomes["scope"].isin(["pooled", "module"])]
    combined, names = (
        where(found.tables["combined"], quantity="difference", against=CHANCE, **PRIMARY_CELL),
        headings(found),
    )
    rows = []
    for group in found.groups:
        own = outcomes[outcomes["group"] == group]
        for method in methods_of(own):
            for kind in ("", *MODULES):
                part = where(own, method=method, module=kind, scope="module" if kind else "pooled")
                if not len(part):
                    continue
                together = where(combined, group=group, method=method, module=kind)
                together = together[together["scope"] == ("module" if kind else "pooled")]
                each = {row["run"]: row for row in part.to_dict("records")}
                cells = [
                    cell(words(kind) if kind else "all neurons together"),
                    *in_group(found, group),
                    cell(words(method)),
                ]
                cells += [estimated(only(together), plus=True)]
                cells += [_difference(each.get(name)) for name in names]
                rows.append(TableRow(tuple(cells), strong=bool(part["primary"].any())))
    if not rows:
        return Section("outcomes", "Over matched chance", ())
    caption = (
        "Area under the keep curve (mean ablation, balanced accuracy) minus that of random neurons from the same "
        "sites. First the mean over runs with its 95 % t interval, n, range, and how many runs beat chance by their "
        "own test; then every run with its interval over test proteins and draws. Rows fixed in advance are bold."
    )
    columns = (
        ("where", False), *grouped(found), ("method", False), ("mean over runs", True),
        *((name, True) for name in names.values()),
    )  # fmt: skip
    return Section("outcomes", "Over matched chance", (Table("differences", caption, columns, tuple(rows)),))


def _difference(row: Mapping[Any, Any] | None) -> TableCell:
    if row is None:
        return cell("–")
    p = row["p_value"] if row["primary"] or not is_number(row["p_holm"]) else row["p_holm"]
    small = f"{signed(row['ci_low'])} to {signed(row['ci_high'])}"
    tested = row["p_kind"] != "too_few_draws"
    small += f", p = {short(p)}" if tested and is_number(p) else f", {count(row['n_draws'])} draws: no test"
    return cell(signed(row["difference"]), row["difference"], small)


def _kinds(found: Found) -> Section:
    """What every kind carries, and how concentrated that is, together and run by run."""
    kinds = where(found.tables["kinds"], **PRIMARY_CELL)
    combined = where(found.tables["combined"], metric="balanced_accuracy", ablation="mean")
    names, rows = headings(found), []
    models = [str(model) for model in kinds["model"].unique()]
    for group in found.groups:
        for model in models:
            own = where(kinds, group=group, model=model)
            together = where(combined, group=group, model=model)
            for method in methods_of(own):
                for kind in MODULES:
                    part = where(own, method=method, module=kind)
                    if not len(part):
                        continue
                    mine = where(together, module=kind)
                    picked = {
                        name: only(where(mine, quantity=name, method="" if name == "carried" else method))
                        for name in ("carried", "sufficient_share", "sufficient_share_against", "concentration")
                    }
                    each = {row["run"]: row for row in part.to_dict("records")}
                    cells = [cell(words(kind)), *in_group(found, group), cell(words(method))]
                    cells += [cell("the study's" if model == "run" else words(model))] if len(models) > 1 else []
                    cells += [
                        estimated(picked["carried"]), estimated(picked["sufficient_share"], share=True),
                        estimated(picked["sufficient_share_against"], share=True),
                        estimated(picked["concentration"], 2), *(_concentration(each.get(name)) for name in names),
                    ]  # fmt: skip
                    rows.append(TableRow(tuple(cells), strong=kind == "key" and model == "run"))
    if not rows:
        return Section("kinds-section", "By kind of module", ())
    caption = (
        "What each kind carries (balanced accuracy lost when all of it is held at its means), the share of its best "
        "neurons that gives back nine tenths of that, the share that matched random neurons need, and the "
        "concentration, the second over the first (geometric mean: 1 is no better than chance); means over runs with "
        "95 % t intervals. Then the concentration in every run with its own interval. A run in which a kind carries "
        "nothing that could be told from noise has no share there, so that n is smaller."
    )
    columns = (
        ("kind", False), *grouped(found), ("method", False), *((("model", False),) if len(models) > 1 else ()),
        ("carries", True), ("sufficient share", True), ("of random neurons", True), ("concentration", True),
        *((name, True) for name in names.values()),
    )  # fmt: skip
    return Section("kinds-section", "By kind of module", (Table("by-kind", caption, columns, tuple(rows)),))


def _concentration(row: Mapping[Any, Any] | None) -> TableCell:
    if row is None or not row["judged"]:
        return cell("–", small="not judged" if row is not None else "")
    bounds = f"{fixed(row['concentration_low'], 1)} to {fixed(row['concentration_high'], 1)}"
    return cell(fixed(row["concentration"], 1), row["concentration"], bounds)


def _density(found: Found) -> Section:
    """Enrichment and density of every kind among the best neurons."""
    frame, combined, names = found.tables["density"], found.tables["combined"], headings(found)
    rows = []
    fractions = sorted(frame["fraction"].unique())
    for group in found.groups:
        own = where(frame, group=group)
        for method in methods_of(own):
            for fraction in fractions:
                for kind in MODULES:
                    part = where(own, method=method, fraction=fraction, module=kind)
                    if not len(part):
                        continue
                    cellwise = where(combined, group=group, method=method, fraction=fraction, module=kind)
                    each = {row["run"]: row for row in part.to_dict("records")}
                    cells = [
                        cell(words(kind)),
                        *in_group(found, group),
                        cell(words(method)),
                        cell(percent(fraction), fraction),
                    ]
                    cells += [
                        estimated(only(where(cellwise, quantity="enrichment")), 2),
                        estimated(only(where(cellwise, quantity="density"))),
                        *(_enrichment(each.get(name)) for name in names),
                    ]
                    rows.append(TableRow(tuple(cells), strong=kind == "key"))
    if not rows:
        return Section("density", "Density", ())
    caption = (
        "Enrichment: a kind's share of the best neurons over its share of all (1: an even spread), and density: its "
        "selected part; means over runs with 95 % t intervals. Then every run: enrichment, the interval over scoring "
        "proteins, that of its null models where it has them, and that of modules permuted among equally active "
        "neurons of a layer."
    )
    columns = (
        ("kind", False), *grouped(found), ("method", False), ("top", True), ("enrichment", True), ("density", True),
        *((name, True) for name in names.values()),
    )  # fmt: skip
    table = Table("densities", caption, columns, tuple(rows), search=True)
    return Section("density", "Density", (table,))


def _enrichment(row: Mapping[Any, Any] | None) -> TableCell:
    if row is None:
        return cell("–")
    small = f"{fixed(row['ci_low'], 2)} to {fixed(row['ci_high'], 2)}" if is_number(row["ci_low"]) else ""
    for name, said in (("label_shuffled", "shuffled labels"), ("random_weights", "random weights")):
        small += f"; {said} {fixed(row[name], 2)}" if is_number(row[name]) else ""
    if is_number(row["p_permutation"]):
        small += f"; permuted {fixed(row['enrichment_permuted'], 2)}, {p_words(row['p_permutation'])}"
    return cell(fixed(row["enrichment"], 2), row["enrichment"], small)


def _neurons(found: Found) -> Section:
    """Whether runs choose the same neurons."""
    frame, pairs = alike_rows(found), found.tables["neurons"]
    if not len(pairs):
        bases = {member.base for member in found.members}
        other = (
            "The runs started from different checkpoints, whose neurons do not correspond: which neurons they share "
            "cannot be said."
        )
        return Section("same", "The same neurons?", (Text(other, "note"),) if len(bases) > 1 else ())
    rows = []
    for row in frame.to_dict("records"):
        kind = words(row["module"]) if row["module"] else "all neurons together"
        cells = [cell(kind), *in_group(found, row["group"]), cell(words(row["method"]))]
        cells += [cell(percent(row["fraction"]), row["fraction"])]
        spread = f"{row['pairs']} pair{'s' if row['pairs'] > 1 else ''}"
        spread += f", {fixed(row['smallest'], 2)} to {fixed(row['largest'], 2)}" if row["pairs"] > 1 else ""
        cells += [
            cell(fixed(row["jaccard"], 2), row["jaccard"], spread), cell(fixed(row["expected"], 2), row["expected"]),
            cell(f"{row['shared']:.0f} of {row['n']:.0f}", row["shared"]),
        ]  # fmt: skip
        rows.append(TableRow(tuple(cells)))
    columns = (
        ("where", False), *grouped(found), ("method", False), ("top", True), ("Jaccard index", True),
        ("by matched chance", True), ("shared", True),
    )  # fmt: skip
    caption = (
        "Neurons that two runs of one checkpoint both choose: shared over chosen by either, mean over pairs of runs. "
        "Chance keeps the number that each run chose in every site. Pairs are not independent, so a range stands "
        "where an interval would mislead."
    )
    blocks: list[Table] = [Table("alike", caption, columns, tuple(rows), search=True)] if rows else []
    across = pairs[(pairs["group"] != pairs["other_group"]) & (pairs["scope"] == "pooled")]
    if len(across):
        told = [
            TableRow(
                (
                    cell(f"{row['run']} and {row['other']}"), cell(words(row["method"])),
                    cell(percent(row["fraction"]), row["fraction"]), cell(fixed(row["jaccard"], 2), row["jaccard"]),
                    cell(fixed(row["jaccard_expected"], 2), row["jaccard_expected"]),
                )
            )
            for row in across.to_dict("records")
        ]  # fmt: skip
        blocks.append(
            Table(
                "alike-across", "Runs of different groups that started from one checkpoint, all neurons together.",
                (("runs", False), ("method", False), ("top", True), ("Jaccard index", True),
                 ("by matched chance", True)),
                tuple(told), search=True, folded="Between groups",
            )
        )  # fmt: skip
    return Section("same", "The same neurons?", tuple(blocks))


SECTIONS: tuple[Callable[[Found], Section], ...] = (
    _runs, _outcomes, _kinds, _density, _neurons, curves_of_runs, cells_section, detected_section,
    knowledge_of_runs, interventions_of_runs, layout_of_runs, completeness_of_runs, method_section,
)  # fmt: skip
