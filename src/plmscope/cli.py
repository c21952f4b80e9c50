"""The command line: arguments to function calls, progress, one-line errors. No logic.

Nothing heavy is imported before a command runs, so that ``plmscope --help`` answers at once.

One file although it is long: every command is a function whose arguments are its documentation, and they share them.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from plmscope import __version__
from plmscope.errors import PlmscopeError, StudyError, unwritten_advice
from plmscope.study.order import StageRow, commands
from plmscope.tasks.crew import ALONE, Crew
from plmscope.terminal import complain, emit, plain, report_as_json, say, tell, track

if TYPE_CHECKING:
    from plmscope.comparing.comparison import Comparison
    from plmscope.store.folder import Run
    from plmscope.study import Stages
    from plmscope.study.settings import Study

INTERRUPTED = 130
LORA_RANK = 8
app = typer.Typer(
    name="plmscope",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find, verify and explain knowledge neurons in protein language models.",
    epilog="Start with 'plmscope demo'; then 'plmscope init my.toml', edit it, 'plmscope run my.toml'.",
)

StudyFile = Annotated[
    Path, typer.Argument(metavar="STUDY", help="Study file; 'plmscope init' writes one.", show_default=False)
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder of an earlier command.", show_default=False)]
Proteins = Annotated[
    Path, typer.Argument(metavar="PROTEINS", help="Any file of sequences that a study reads.", show_default=False)
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run folder; default runs/NAME of the study.", show_default=False)
]
Seed = Annotated[int | None, typer.Option("--seed", help="Overrides the study's seed.", show_default=False)]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, cuda:all, auto.", show_default=False)]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="Of scoring and evaluation: float32, bfloat16 or float16.", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Folder, run folder, Hugging Face hub id or plmscope:embedded.", show_default=False),
]
Engine = Annotated[
    str, typer.Option("--engine", help="Who does the long parts: local (this process), processes, or ray.")
]
Workers = Annotated[int, typer.Option("--workers", help="How many, with processes or ray.")]
Address = Annotated[
    str, typer.Option("--address", help="Of a Ray cluster, or auto; default: start one.", show_default=False)
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do the I-th of N shares of the work; several processes or machines can do one each in this folder.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and the closing table only.")]


def _known_form(value: str) -> str:
    """Refuse a form of progress that there is none of."""
    if value not in ("text", "json"):
        raise typer.BadParameter(f"{value!r} is not known; use text or json")
    return value


Progress = Annotated[
    str,
    typer.Option(
        "--progress", metavar="FORM", callback=_known_form, help="text, or json: one object a line on standard error."
    ),
]


#: What comes first, second ... in the help of the stages' commands.
_ORDINALS = (
    "First",
    "Second",
    "Third",
    "Fourth",
    "Fifth",
    "Sixth",
    "Seventh",
    "Eighth",
    "Ninth",
    "Tenth",
    "Eleventh",
    "Twelfth",
)


def _help(name: str) -> str:
    """The help of a stage's command."""
    rows = commands()
    place = [row.name for row in rows].index(name)
    ordinal = "Last" if place == len(rows) - 1 else _ORDINALS[place] if place < len(_ORDINALS) else f"{place + 1}th"
    return f"{ordinal} stage: {rows[place].about}."


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        Console().print(f"plmscope {__version__}", highlight=False)
        raise typer.Exit


@app.command()
def demo(
    task: Annotated[
        str, typer.Option("--task", help="enzymes: by EC class; families: protein families known by their motifs.")
    ] = "enzymes",
    full: Annotated[
        bool, typer.Option("--full", help="Everything: longer proteins, more draws, null models, interventions.")
    ] = False,
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    model: Model = None,
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """Run the experiment on the embedded model and proteins: minutes on two CPU cores, an hour or more with --full."""
    from plmscope.study.demo import demo_study

    _run(demo_study(task, full), out, seed, device, dtype, model, quiet)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="File to write.")] = Path("study.toml"),
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A first look in minutes: few proteins, shares and draws, one layer trained."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a study file with every key, its default and its meaning; edit it and 'run' it."""
    from plmscope.store.files import write_atomic
    from plmscope.study.demo import quick_study
    from plmscope.study.settings import Study
    from plmscope.study.study_file import write_study

    if path.exists() and not force:
        raise StudyError(f"{path}: is there already; choose another name or use --force")
    if not path.parent.is_dir():
        raise StudyError(f"{path.parent}: no such folder; make it or name another file")
    write_atomic(path, write_study(quick_study() if quick else Study()).encode())
    tell(f"wrote {path}; edit it, then: plmscope run {path}")


@app.command()
def fetch(
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write, .tsv or .tsv.gz.")] = Path("enzymes.tsv.gz"),
    query: Annotated[
        str | None, typer.Option("--query", help="UniProt query; default: reviewed enzymes.", show_default=False)
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", envvar="PLMSCOPE_UNIPROT", help="Address of the service.", show_default=False),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away an unfinished download.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the files if they are there.")] = False,
    tries: Annotated[int, typer.Option("--tries", help="How often a page is asked for.", min=1)] = 8,
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """Fetch proteins and residue features from UniProt; continues a download that was cut."""
    from plmscope.data.fetch import ENDPOINT, QUERY
    from plmscope.data.fetch import fetch as fetch_proteins

    fetched = fetch_proteins(
        out, query=query or QUERY, endpoint=endpoint or ENDPOINT, restart=restart, force=force, tries=tries,
        track=track(quiet), say=say(quiet),
    )  # fmt: skip
    p = fetched.provenance
    tell(
        f"wrote {fetched.proteins} ({p['proteins']:,} proteins) and {fetched.features} ({p['features']:,} residue "
        f"features) of UniProt {p['release']}"
    )


@app.command()
def run(
    study: StudyFile,
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    model: Model = None,
    engine: Engine = "local",
    workers: Workers = 1,
    address: Address = "",
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """Run a study from sequences to report. The same command continues a run that was stopped.

    Stages that are finished and whose inputs did not change are not run again.
    """
    from plmscope.study.study_file import read_study

    _run(read_study(study), out, seed, device, dtype, model, quiet, crew=_crew(engine, workers, address))


@app.command(help=_help("finetune"))
def finetune(
    study: StudyFile,
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    model: Model = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train LoRA adapters, of rank 8 if the study names none.")
    ] = False,
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """The stage ``finetune``, which has options of its own."""
    from plmscope.study.study_file import read_study

    settings = read_study(study)
    if lora and not settings.finetune.lora_rank:
        settings = settings.model_copy(
            update={"finetune": settings.finetune.model_copy(update={"lora_rank": LORA_RANK})}
        )
    _run(settings, out, seed, device, dtype, model, quiet, ["finetune"])


@app.command(help=_help("score"))
def score(
    folder: RunFolder,
    shard: ShardOption = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge the shards instead of scoring.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the shards are written and read; default RUN/score.parts."),
    ] = None,
    engine: Engine = "local",
    workers: Workers = 1,
    address: Address = "",
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """The stage ``score``, which has options of its own."""
    if shard and merge:
        raise StudyError("--shard and --merge exclude each other; merge when all shards are there")
    crew = _crew(engine, workers, address)
    if (shard or merge) and engine != "local":
        raise StudyError("--shard and --merge exclude --engine; a shard is the share of one process")
    if out and not (shard or merge):
        raise StudyError("--out needs --shard or --merge; without them the scores go into the run folder")
    if shard:
        _share(folder, "score", shard, quiet, crew, out)
    else:
        _stage(folder, "score", quiet, (out or folder / "score.parts") if merge else None, crew=crew)


@app.command(help=_help("describe"))
def describe(
    folder: RunFolder,
    llm: Annotated[
        str | None,
        typer.Option(
            "--llm",
            metavar="COMMAND",
            help="A program of yours that writes sentences too: JSON lines in and out. Kept in the run's study.toml.",
            show_default=False,
        ),
    ] = None,
    maximise: Annotated[
        int | None,
        typer.Option(
            "--maximise",
            metavar="N",
            help="Make the preferred windows of the N best neurons by gradient. Kept in the run's study.toml.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """The stage ``describe``, which has options of its own."""
    asked = {name: value for name, value in (("llm", llm), ("maximise", maximise)) if value is not None}
    _stage(folder, "describe", quiet, options=asked)


@app.command(help=_help("probe"))
def probe(folder: RunFolder, quiet: Quiet = False) -> None:
    """The stage ``probe``, which a study leaves out unless it is asked for."""
    _stage(folder, "probe", quiet)


@app.command(help=_help("intervene"))
def intervene(
    folder: RunFolder,
    selection: Annotated[
        Path | None,
        typer.Option(
            "--selection", help="Judge these neurons instead (TSV: layer, module, neuron).", show_default=False
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="With --selection: the class they are for.", show_default=False)
    ] = None,
    factor: Annotated[
        float | None,
        typer.Option(
            "--factor", help="With --selection: 0 suppresses, 2 doubles; default the mean.", show_default=False
        ),
    ] = None,
    other: Annotated[
        Path | None, typer.Option("--other", help="Another run, say of another seed, to compare.", show_default=False)
    ] = None,
    shard: ShardOption = None,
    engine: Engine = "local",
    workers: Workers = 1,
    address: Address = "",
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """The stage ``intervene``, which has options of its own."""
    from plmscope.study.intervening import judge_selection
    from plmscope.study.opened import open_run
    from plmscope.study.stability import add_other_run

    if selection is None and (label is not None or factor is not None):
        raise StudyError("--label and --factor need --selection; without it every class's own neurons are judged")
    if selection is not None and other is not None:
        raise StudyError("--selection and --other exclude each other; give one command for each")
    crew = _crew(engine, workers, address)
    if selection is not None and engine != "local":
        raise StudyError("--selection is judged by this process; leave out --engine")
    if shard and (selection is not None or other is not None):
        raise StudyError("--shard divides the stage itself; leave out --selection and --other")
    if shard:
        _share(folder, "intervene", shard, quiet, crew)
        return
    opened = open_run(folder)
    if selection is not None:
        intervention = judge_selection(opened, selection, label, factor)
        Console(highlight=False, markup=False, emoji=False).print(repr(intervention), soft_wrap=True)
        return
    theirs = None if other is None else open_run(other)

    def compare() -> None:
        if theirs is not None:
            add_other_run(opened, theirs)

    _stage(folder, "intervene", quiet, then=compare, crew=crew)


def _stage_command(row: StageRow) -> None:
    """Add the command of a stage that has no options of its own."""

    def divided(
        folder: RunFolder,
        shard: ShardOption = None,
        engine: Engine = "local",
        workers: Workers = 1,
        address: Address = "",
        quiet: Quiet = False,
        progress: Progress = "text",
    ) -> None:
        crew = _crew(engine, workers, address)
        if shard:
            _share(folder, row.name, shard, quiet, crew)
        else:
            _stage(folder, row.name, quiet, crew=crew)

    def command(
        folder: RunFolder,
        engine: Engine = "local",
        workers: Workers = 1,
        address: Address = "",
        quiet: Quiet = False,
        progress: Progress = "text",
    ) -> None:
        _stage(folder, row.name, quiet, crew=_crew(engine, workers, address))

    made = divided if row.shards else command
    made.__name__ = row.name
    app.command(row.name, help=_help(row.name))(made)


def _complete() -> None:
    """Add the stages that have no command yet; all of them in their order."""
    place = {row.name: number for number, row in enumerate(commands())}
    known = {str(one.callback and one.callback.__name__): one for one in app.registered_commands}
    for row in commands():
        if row.name not in known:
            _stage_command(row)
    every = {str(one.callback and one.callback.__name__): one for one in app.registered_commands}
    before = list(every)[: list(every).index(next(iter(place)))]
    order = [*before, *place, *(name for name in every if name not in place and name not in before)]
    app.registered_commands[:] = [every[name] for name in order]


@app.command()
def explain(
    folder: RunFolder,
    proteins: Proteins,
    label: Annotated[
        str | None, typer.Option("--label", help="Class to explain; default what the model says.", show_default=False)
    ] = None,
    neurons: Annotated[
        Path | None,
        typer.Option(
            "--neurons", help="TSV of neurons to hold together; default those of the class.", show_default=False
        ),
    ] = None,
    features: Annotated[
        Path | None, typer.Option("--features", help="Residue features to show beside it.", show_default=False)
    ] = None,
    structure: Annotated[
        Path | None,
        typer.Option("--structure", help="PDB or mmCIF file of the protein, to see it in 3-D.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; default RUN/explained/NAME.", show_default=False)
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Also write explained.jsonl, an object a protein and line; in a pipe it is printed."
        ),
    ] = False,
    engine: Engine = "local",
    workers: Workers = 1,
    address: Address = "",
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """Explain what the model says of your proteins: residues, neurons, how far to trust it; labels are not needed.

    The same command continues one that was stopped.
    """
    from plmscope.explaining.folder import LINES, PAGE, explain_file
    from plmscope.study.opened import open_run

    explained = explain_file(
        open_run(folder), proteins, out, label=label, neurons=neurons, features=features, structure=structure,
        as_json=as_json, track=track(quiet), say=say(quiet), crew=_crew(engine, workers, address),
    )  # fmt: skip
    shown = Console(highlight=False, markup=False, emoji=False)
    if as_json and not sys.stdout.isatty():
        sys.stdout.write((explained.folder / LINES).read_text(encoding="utf-8"))
    elif explained.first is not None and explained.proteins == 1:
        shown.print("\n".join(plain(line) for line in repr(explained.first).splitlines()), soft_wrap=True)
    left_out = f", {explained.excluded:,} left out (see explained.json)" if explained.excluded else ""
    tell(
        f"explained {explained.proteins:,} protein{'s' if explained.proteins != 1 else ''}{left_out}: "
        f"{explained.folder / PAGE}{f' and {explained.folder / LINES}' if as_json else ''}"
    )


@app.command()
def variants(
    folder: RunFolder,
    proteins: Proteins,
    positions: Annotated[
        str, typer.Option("--positions", help="Where: 10-40, or 5,9,12-20; default everywhere.", show_default=False)
    ] = "",
    mutations: Annotated[
        Path | None,
        typer.Option(
            "--mutations",
            help="File of mutations such as A12V of one protein, or a table with columns mutation and score.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="Class to follow; default what the model says.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; default RUN/variants/NAME.", show_default=False)
    ] = None,
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """Substitute residues of your proteins: what becomes of the class, and which neurons fall silent or wake."""
    from plmscope.errors import InputError
    from plmscope.explaining.variants import PAGE, variants_of_file
    from plmscope.study.opened import open_run

    if positions and mutations is not None:
        raise InputError("--positions and --mutations exclude each other; give one of them")
    where = variants_of_file(
        open_run(folder), proteins, out, label=label, positions=positions, mutations=mutations, track=track(quiet),
        say=tell,
    )  # fmt: skip
    tell(f"wrote {where / 'variants.csv'} and its heat map: {where / PAGE}")


@app.command()
def explore(
    folder: RunFolder,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; others can reach it only if you name another.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 8765,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", help="A name that browsers call this machine by. May be repeated.", show_default=False
        ),
    ] = None,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    quiet: Quiet = False,
) -> None:
    """Explore a run on a local page: search neurons, explain a sequence, mutate it, switch neurons off.

    Ctrl-C stops it.
    """
    from plmscope.errors import RunError
    from plmscope.study.opened import open_run

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise RunError(f"explore needs {missing[0]}; install it: pip install 'plmscope[explore]'")
    from plmscope.exploring.server import listening, names_of, serve
    from plmscope.exploring.session import Session

    names_of(host, port, allow_host or ())
    listening(host, port).close()  # an address that cannot be used is told before the run is loaded
    session = Session(open_run(folder), track=track(quiet))
    serve(session, host=host, port=port, allowed=allow_host or (), browser=browser, say=tell)


@app.command()
def sweep(
    study: StudyFile,
    seeds: Annotated[
        str,
        typer.Option("--seeds", help="Such as 0-4 or 0,2,5-7; default the study's own seed.", show_default=False),
    ] = "",
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model, as for 'run'. May be repeated.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUES",
            help="Values of a setting: score.baseline=mean,zero. May be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the runs; default runs/NAME-sweep.", show_default=False),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="local: one run at a time; processes; ray: a cluster that shares the disk.")
    ] = "local",
    workers: Annotated[int, typer.Option("--workers", help="Runs at a time.")] = 1,
    address: Annotated[
        str, typer.Option("--address", help="Of a Ray cluster, or auto; default: start one.", show_default=False)
    ] = "",
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """Run a study with several seeds, models or settings, and compare the runs. The same command continues it.

    Every combination is an ordinary run folder. One that fails does not stop the others.
    """
    from plmscope.errors import RunError
    from plmscope.study.study_file import read_study
    from plmscope.sweeping.combinations import combinations
    from plmscope.sweeping.sweep import failures
    from plmscope.sweeping.sweep import sweep as run_all

    given = read_study(study)
    runs = combinations(given, seeds, models or (), settings or (), str(study))
    swept = run_all(
        runs, out or Path("runs") / f"{given.name}-sweep", engine=engine, workers=workers, address=address,
        track=track(quiet), say=say(quiet),
    )  # fmt: skip
    if swept.comparison is not None:
        _compared(swept.comparison, None, markdown=False, quiet=quiet)
        tell(f"wrote {swept.page}")
    if swept.failed:
        raise RunError(failures(swept))


@app.command()
def compare(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Finished run folders, or the folder of a sweep.", show_default=False),
    ],
    exploratory: Annotated[
        list[Path] | None,
        typer.Option(
            "--exploratory",
            metavar="RUN",
            help="A run that suggested what the others confirm: shown, in no estimate. May be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for tables, page and Markdown; default: only print.", show_default=False
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print every table as Markdown.")] = False,
    quiet: Quiet = False,
    progress: Progress = "text",
) -> None:
    """Put finished runs side by side, and combine those that differ in the seed alone: every run is one observation."""
    from plmscope.comparing.comparison import compare_runs

    _compared(compare_runs(folders, exploratory or ()), out, markdown, quiet)


@app.command()
def export(
    folder: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; default RUN/csv.", show_default=False)
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", help="Write a model with neurons held for good here instead of tables.", show_default=False
        ),
    ] = None,
    neurons: Annotated[
        Path | None,
        typer.Option("--neurons", help="Write the neurons of --keep or --suppress here, as TSV.", show_default=False),
    ] = None,
    directions: Annotated[
        Path | None,
        typer.Option(
            "--directions", help="Write how class means differ at every site here, as safetensors.", show_default=False
        ),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            "--keep", help="The best neurons, METHOD:SHARE; of a model all others are held.", show_default=False
        ),
    ] = "",
    suppress: Annotated[
        str, typer.Option("--suppress", help="A class's neurons; of a model they are held.", show_default=False)
    ] = "",
    ablation: Annotated[str, typer.Option("--ablation", help="With --model: held at mean or zero.")] = "mean",
) -> None:
    """Write the tables of a run as CSV, for other programs; all but ablation_means and score_bootstraps.

    With --model, write its model with neurons held for good, a Hugging Face folder, instead; with --neurons a set
    of neurons, with --directions class directions.
    """
    from plmscope.errors import SelectionError
    from plmscope.store.folder import Run

    if model or neurons or directions:
        from plmscope.study.directions import export_directions
        from plmscope.study.edited import export_model, export_neurons
        from plmscope.study.opened import open_run

        opened = open_run(folder)
        if model:
            tell(repr(export_model(opened, model, keep=keep, suppress=suppress, ablation=ablation)))
        if neurons:
            tell(export_neurons(opened, neurons, keep=keep, suppress=suppress))
        if directions:
            tell(export_directions(opened, directions))
        return
    if keep or suppress:
        raise SelectionError("--keep and --suppress name neurons; add --model FOLDER or --neurons FILE")

    written = Run.open(folder).export(out or folder / "csv")
    tell(f"wrote {len(written)} tables to {out or folder / 'csv'}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Say what is installed, on which machine, and what is missing; for bug reports. It changes and sends nothing."""
    import json

    from plmscope.doctor import examine

    found = examine()
    if as_json:
        sys.stdout.write(json.dumps(found.json(), indent=1) + "\n")
    else:
        shown = Console(highlight=False, markup=False, emoji=False)
        shown.print("\n".join(plain(line) for line in repr(found).splitlines()), soft_wrap=True)


_complete()


def _run(
    study: Study,
    out: Path | None,
    seed: int | None,
    device: str | None,
    dtype: str | None,
    model: str | None,
    quiet: bool,
    stages: list[str] | None = None,
    crew: Crew = ALONE,
) -> None:
    """Apply the overrides, run the stages, print the closing table."""
    from plmscope.store.folder import Run
    from plmscope.study import Stages
    from plmscope.study.study_file import parse_study

    settings = study.model_dump()
    overrides = {"seed": seed, "device": device, "dtype": dtype}
    settings |= {name: value for name, value in overrides.items() if value is not None}
    if model is not None:
        settings["model"]["checkpoint"] = model
    study = parse_study(settings, "command line")
    folder = Run.create(out or Path("runs") / study.name)
    Stages(study, folder, track(quiet), say(quiet), crew=crew).execute(stages)
    _summary(folder)


def _crew(engine: str, workers: int, address: str) -> Crew:
    """Who does the long parts; an engine that is not there is refused before anything starts."""
    from plmscope.tasks.engines import check_engine

    check_engine(engine, workers, address)
    if engine == "local" and workers > 1:
        raise StudyError("--workers needs --engine processes or ray; local uses the cores that there are by itself")
    return Crew(engine, workers, address)


def _stage(
    folder: Path,
    stage: str,
    quiet: bool,
    shards: Path | None = None,
    then: Callable[[], None] = lambda: None,
    options: Mapping[str, object] | None = None,
    crew: Crew = ALONE,
) -> None:
    """One stage of an existing run, with the settings it was made with; a report that is there is written anew.

    ``options`` of its section become the run's own, and so does that it is asked for, where its command does that.
    """
    from plmscope.report.page import write_report
    from plmscope.store.folder import Run

    opened = Run.open(folder)
    asks = any(row.asks for row in commands() if row.name == stage)
    own = {**(options or {}), **({"enabled": True} if asks else {})}
    stages = _stages(opened, quiet, shards, {stage: own} if own else None)
    stages.crew = crew
    stages.execute([stage])
    with opened.locked():
        then()
        if stage != "report" and (folder / "report.html").is_file():
            write_report(opened)
    _summary(opened)


def _share(folder: Path, stage: str, shard: str, quiet: bool, crew: Crew, out: Path | None = None) -> None:
    """One shard of a stage of an existing run; the last one finishes the stage."""
    from plmscope.store.folder import Run
    from plmscope.tasks.shard import Shard

    if crew.engine != "local":
        raise StudyError("--shard excludes --engine; a shard is the share of one process")
    opened = Run.open(folder)
    _stages(opened, quiet).share(stage, Shard.parse(shard), out)
    _summary(opened)


def _stages(
    opened: Run, quiet: bool, shards: Path | None = None, changes: Mapping[str, Mapping[str, object]] | None = None
) -> Stages:
    """The stages of an existing run; ``changes`` of its settings, section by section, become the run's own."""
    from plmscope.study import Stages
    from plmscope.study.study_file import parse_study, read_study

    study = read_study(opened.path / "study.toml")
    if changes:
        settings = study.model_dump()
        study = parse_study({**settings, **{k: settings[k] | dict(v) for k, v in changes.items()}}, "command line")
    return Stages(study, opened, track(quiet), say(quiet), shards)


def _compared(found: Comparison, out: Path | None, markdown: bool, quiet: bool) -> None:
    """Print a comparison, and write it where a folder is named."""
    page = None if out is None else found.write(out)
    if markdown:
        sys.stdout.write(found.markdown())
    elif not quiet:
        shown = Console(highlight=False, markup=False, emoji=False)
        shown.print("\n".join(plain(line) for line in repr(found).splitlines()), soft_wrap=True)
    if page is not None:
        tell(f"wrote {page}")


def _summary(folder: Run) -> None:
    """The closing table: what the run found so far, and where the report is."""
    from plmscope.report.closing import closing_lines

    out = Console(highlight=False, markup=False, emoji=False)
    table = Table(title=None, show_edge=False, pad_edge=False)
    for name in ("question", "answer"):
        table.add_column(name)
    tables = {name: folder.table(name) if folder.has(name) else None for name in ("comparison", "modules", "density")}
    metrics = folder.metrics()["splits"] if (folder.path / "metrics.json").is_file() else {}
    for question, answer in closing_lines(metrics, **tables):
        table.add_row(plain(question), plain(answer))
    out.print(table)
    if (folder.path / "report.html").is_file():
        out.print(f"report: {folder.path / 'report.html'}", soft_wrap=True)  # a table would cut a long path


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 for an error a user can mend, 130 if interrupted."""
    words = sys.argv[1:] if arguments is None else arguments
    # Known before the arguments are read, since they may be wrong.
    report_as_json("--progress=json" in words or ("--progress", "json") in pairwise(words))
    status = 1
    try:
        status = _main(arguments)
    finally:
        emit("end", status=status)
    return status


def _main(arguments: list[str] | None) -> int:
    """The same, without the event of the end."""
    warnings.filterwarnings("ignore")
    try:
        status = app(arguments, standalone_mode=False) or 0  # typer returns 130 for Ctrl-C, or raises
    except typer.Exit as stop:
        status = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        status = INTERRUPTED
    except PlmscopeError as error:
        return _complain(str(error))
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("click", "typer") and hasattr(error, "format_message"):
            text = error.format_message().rstrip(". ")
            first = next(iter(sys.argv[1:] if arguments is None else arguments), "")
            known = {command.callback.__name__ for command in app.registered_commands if command.callback}
            command = f"plmscope {first}" if first in known else "plmscope"
            return _complain(f"{text}{' See' if text.endswith('?') else '; see'} {command} --help")
        if unwritten := _unwritten(error):
            return _complain(unwritten)
        raise
    if status == INTERRUPTED:
        tell("plmscope: interrupted; the same command continues from here")
    return int(status)


def _unwritten(error: BaseException) -> str:
    """One line if a library could not write, for want of space or permission; empty for any other error."""
    kinds = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)
    if isinstance(error, OSError) and error.errno in kinds:
        return f"{error.filename or 'disk'}: {error.strerror}; {unwritten_advice(error.errno)}"
    text = str(error)  # safetensors and PyTorch tell the system's error in their own
    code_named = next((kind for kind in kinds if f"os error {kind})" in text), None)
    if code_named or any(
        words in text for words in ("PytorchStreamWriter failed", "unexpected pos ", "iostream error")
    ):
        code = code_named or errno.ENOSPC
        return f"model weights cannot be written ({os.strerror(code)}); {unwritten_advice(code)}"
    return _unwritten(error.__context__) if error.__context__ else ""


def _complain(text: str) -> int:
    """Print an error as one line; returns the exit status."""
    complain(text)
    return 2


def main_cli() -> None:
    """Entry point of the ``plmscope`` command."""
    sys.exit(main())
