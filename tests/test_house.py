"""The rules of the house: import direction, light start, exported names, READMEs, nothing left over."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "plmscope"

#: The packages and their modules. A module imports only from those before it: the names are the data flow.
HOUSE = (
    ("", ("errors", "progress", "threads", "lazy")),
    ("store", ("files", "resume", "schema", "folder")),
    ("data", (
        "labels", "uniprot", "mmseqs", "records", "formats", "service", "sources", "tables", "rows", "labelling",
        "checks", "second_table", "proteins", "annotations", "peptides", "clusters", "low_complexity", "pieces",
        "relatives", "set_columns", "splits", "leakage", "structures", "structural", "structure_features", "terms",
        "fetch",
    )),
    ("stats", ("metrics", "chance", "curves", "ranks")),
    ("tasks", ("task", "shard", "sent", "staff", "on_ray", "engines", "crew", "worker")),
    ("", ("plugins",)),
    ("models", (
        "workers", "checkpoints", "architectures", "sites", "heads", "lora", "spread", "classifier", "finetune",
        "hooks", "network", "finding", "folded_layer", "folded", "esm", "hooked", "loading", "supplied", "quality",
    )),
    ("scoring", (
        "table", "scores", "methods", "shards", "targets", "driver", "activation", "paths", "integrated_gradients",
        "conductance", "linear", "ablation", "relp",
    )),
    ("probing", ("class_means", "gaussian", "iou", "linear_probe", "curves", "scorers")),
    ("evaluation", (
        "selection", "overlap", "density", "predict", "resampled", "curves", "interventions", "faithfulness",
        "judging", "kinds", "shared_out", "collected", "null_kinds",
    )),
    ("layout", (
        "attributions", "components", "experts", "measure", "context", "degenerate", "pruning", "recall", "claims",
        "shared", "substitutions", "sufficient",
    )),
    ("knowledge", (
        "codes", "patterns", "concepts", "motifs", "class_baselines", "discovery", "concept_neurons", "confirmation",
        "residues", "letters", "masks", "formulas", "stream", "maximised", "saved", "passes", "characterize", "samples",
        "strips", "cards", "views", "units", "sentences",
    )),
    ("report", (
        "blocks", "input", "settled", "answers", "data", "curves", "kinds", "density", "classes", "concentration",
        "closing", "concepts", "described", "structures", "knowledge", "faithfulness", "html", "layout", "modularity",
        "neurons", "recall", "salient", "sharing", "methods", "page",
    )),
    ("study", (
        "order", "rules", "settings", "demo", "inputs", "study_file", "opened", "stages", "sharding", "characterizing",
        "comparing_scorers", "describing", "evaluating", "finetuning", "laying", "laying_recall", "laying_shared",
        "probing", "reporting", "scoring", "counting", "execute", "nulls", "laying_modules", "laying_out",
        "null_kinds", "null_fits", "selecting", "stability", "intervening", "edited", "directions",
    )),
    ("explaining", (
        "activations", "decision", "explanation", "page", "residues", "contributions", "held", "training", "detected",
        "explainer", "folder", "variants",
    )),
    ("comparing", (
        "estimates", "members", "alike", "beyond", "tables", "found", "cells", "answers", "figures", "more_sections",
        "sections", "text", "comparison",
    )),
    ("", ("doctor",)),
    ("exploring", ("changes", "line", "requests", "catalogue", "session", "server")),
    ("sweeping", ("combinations", "sweep")),
    ("", ("terminal", "cli", "__main__")),
)  # fmt: skip
ORDER = tuple(f"{package}.{name}".lstrip(".") for package, names in HOUSE for name in names)

#: Only these import torch or transformers.
TORCH = {
    "models.workers", "models.lora", "models.spread", "models.classifier", "models.finetune", "models.hooks",
    "models.network", "models.folded_layer", "models.folded", "models.esm", "models.hooked", "models.loading",
    "models.supplied", "scoring.targets",
    "scoring.driver", "scoring.activation", "scoring.paths", "scoring.integrated_gradients", "scoring.conductance",
    "scoring.linear", "scoring.ablation", "scoring.relp", "probing.scorers", "evaluation.predict",
    "evaluation.resampled", "evaluation.curves", "evaluation.interventions", "evaluation.faithfulness",
    "evaluation.judging", "evaluation.kinds", "evaluation.shared_out", "evaluation.collected",
    "evaluation.null_kinds", "layout.attributions", "layout.measure", "layout.context", "layout.degenerate",
    "layout.pruning", "layout.recall", "layout.claims", "layout.shared", "layout.substitutions", "layout.sufficient",
    "knowledge.codes", "knowledge.discovery", "knowledge.concept_neurons", "knowledge.confirmation",
    "knowledge.residues", "knowledge.letters", "knowledge.stream", "knowledge.maximised", "knowledge.saved",
    "knowledge.passes", "knowledge.characterize", "knowledge.samples", "knowledge.views", "knowledge.units",
    "knowledge.sentences",
    "study.comparing_scorers", "study.edited", "explaining.activations", "explaining.decision", "explaining.held",
    "explaining.residues", "explaining.contributions", "explaining.training", "explaining.detected",
    "explaining.explainer", "explaining.folder", "explaining.variants", "exploring.changes", "exploring.session",
    "exploring.server",
}  # fmt: skip
HEAVY = {"torch", "transformers", "accelerate", "captum", "peft"}

#: Where the name to import is not the name to install.
DISTRIBUTIONS = {"Bio": "biopython", "huggingface_hub": "huggingface-hub", "sklearn": "scikit-learn"}

#: Every module by its name below ``plmscope``; folders of data have none.
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.stem != "__init__"
}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of imported modules, wherever the import stands; ``from plmscope import x`` is ``plmscope.x``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(["plmscope", *filter(None, [node.module])]) if node.level else node.module or ""
            if module == "plmscope":
                yield from (f"plmscope.{alias.name}" for alias in node.names)
            else:
                yield module


def at_start(tree: ast.AST) -> ast.Module:
    """What runs when the module is imported: without function bodies and ``if TYPE_CHECKING``."""
    kept: list[ast.stmt] = []

    def collect(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import | ast.ImportFrom):
                kept.append(child)
            collect(child)

    collect(tree)
    return ast.Module(body=kept, type_ignores=[])


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def fresh_python(code: str, *arguments: str) -> str:
    """What a new interpreter prints; its error text is in the failure."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the rules can be broken: a parser that finds nothing would pass everything


def test_the_parser_sees_every_kind_of_import():
    tree = ast.parse(
        "import torch.nn as nn\nfrom plmscope import cli, lazy\nfrom plmscope.models.classifier import Batch\n"
        "from . import cli\n"
        "from .errors import RunError\ndef f():\n    import plmscope.study\nif TYPE_CHECKING:\n    import pandas\n"
        "try:\n    import scipy\nexcept ImportError:\n    pass\nclass A:\n    import jinja2\n"
    )
    early = [
        "torch.nn", "plmscope.cli", "plmscope.lazy", "plmscope.models.classifier", "plmscope.cli",
        "plmscope.errors",
    ]  # fmt: skip
    assert sorted(imports(tree)) == sorted([*early, "plmscope.study", "pandas", "scipy", "jinja2"])
    assert sorted(imports(at_start(tree))) == sorted([*early, "scipy", "jinja2"])


# --- imports


def inside(tree: ast.AST) -> set[str]:
    """Modules of the package that are imported, below ``plmscope``; names in them count as their module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.removeprefix("plmscope.") for name in names} & set(MODULES)
    return found


def test_every_module_has_its_place():
    assert sorted(ORDER) == sorted(MODULES)
    packages = [package for package, _ in HOUSE if package]
    assert len(packages) == len(set(packages))
    assert set(packages) == {name.split(".")[0] for name in MODULES if "." in name}


@pytest.mark.parametrize("name", MODULES)
def test_modules_import_from_above_only(name):
    own = inside(parse(MODULES[name]))
    assert own <= set(ORDER[: ORDER.index(name)]), f"{name} imports {sorted(own - set(ORDER[: ORDER.index(name)]))}"


@pytest.mark.parametrize("package", sorted({name.split(".")[0] for name in MODULES if "." in name}))
def test_packages_teach_what_they_are_for_and_load_nothing(package):
    tree = parse(PACKAGE / package / "__init__.py")
    text = ast.get_docstring(tree)
    assert text and 2 <= len(text.splitlines()) <= 25
    assert not inside(at_start(tree)) - {"lazy"}
    own = [path.stem for path in (PACKAGE / package).glob("*.py") if path.stem != "__init__"]
    unnamed = [name for name in own if not re.search(rf"\b{name}(\.py|``)", text)]
    assert not unnamed, f"{package}/__init__.py does not say what these are for: {unnamed}"


@pytest.mark.parametrize("name", [name for name in MODULES if name not in TORCH])
def test_only_some_modules_import_torch(name):
    early = at_start(parse(MODULES[name]))
    assert not {found.split(".")[0] for found in imports(early)} & HEAVY
    assert not inside(early) & TORCH, f"{name} loads torch through {sorted(inside(early) & TORCH)}"


def test_light_modules_do_not_load_torch():
    names = [name for name in MODULES if name not in TORCH and name != "__main__"]
    code = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]:\n    importlib.import_module('plmscope.' + name)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert fresh_python(code, *names).strip() == "[]"


def test_import_and_help_are_light():
    show = "print('loaded:', sorted({'torch', 'transformers'} & set(sys.modules)))"
    assert fresh_python(f"import sys, plmscope\n{show}").strip() == "loaded: []"
    code = (
        "import sys\nfrom plmscope.cli import main_cli\nsys.argv = ['plmscope', '--help']\n"
        f"try:\n    main_cli()\nexcept SystemExit as end:\n    print('status', end.code or 0)\n{show}"
    )
    shown = fresh_python(code)
    assert "Usage" in shown
    assert "loaded: []" in shown


def test_third_party_imports_are_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "dev" for line in lines]
    declared = {re.split(r"[<>=!~\[ ;]", line)[0].lower() for line in [*project["dependencies"], *extras]}
    for path in SOURCES:
        top = (
            {name.split(".")[0] for name in imports(parse(path))}
            - set(sys.stdlib_module_names)
            - {"plmscope", "__future__"}
        )
        missing = {DISTRIBUTIONS.get(name, name).lower() for name in top} - declared
        assert not missing, f"{path.name} imports {sorted(missing)}, not in pyproject.toml"


def test_dependencies_are_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in pins)
    names = {line.split("==")[0] for line in pins}
    assert len(names) == len(pins)
    assert {re.split(r"[<>=!~\[ ;]", line)[0].lower() for line in lines} <= names


def test_the_places_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", text)) | set(re.findall(r"`(\w+/)`", text))
    missing = [name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()]
    assert len(named) > 15 and not missing
    packages = {package for package, _ in HOUSE if package}
    assert packages <= {name.strip("/") for name in named}, "a package that CONTRIBUTING.md does not name"
    rows = re.findall(r"`(\w+)` (?:in|of) `((?:\w+/)+\w+\.py)`", text)
    for name, path in rows:
        file = PACKAGE / path if (PACKAGE / path).is_file() else ROOT / path
        assert re.search(rf"^(?:def |class )?{name}\b", file.read_text(), re.MULTILINE), f"{path} has no {name}"
    assert len(rows) >= 5


def test_docstrings_refer_to_what_is_there():
    """What :func:, :class:, :data: and their kin name exists: imported whole, or in its module or a class there."""
    missing = []
    for name, path in MODULES.items():
        own = [f"plmscope.{name}", *(f"plmscope.{name}.{one}" for one in class_names(parse(path)))]
        for target in re.findall(r":(?:func|class|data|mod|meth|attr):`~?([\w.]+)`", path.read_text()):
            if not (resolves(target) or any(resolves(f"{place}.{target}") for place in own)):
                missing.append(f"{name}: {target}")
    assert not missing


def class_names(tree: ast.Module) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def resolves(target: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            fields = getattr(found, "__dataclass_fields__", {}) | getattr(found, "__annotations__", {})
            if not hasattr(found, part) and part not in fields:
                return False
            found = getattr(found, part, None)
        return True
    return False


# --- names and versions


def test_exported_names_are_sorted_and_there():
    package = import_module("plmscope")
    assert list(package.__all__) == sorted(set(package.__all__))
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert not missing
    assert set(package.__all__) <= set(dir(package))
    assert sorted(name for names in package.STEPS.values() for name in names) == package.__all__


def test_one_version_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert import_module("plmscope").__version__ == version
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_package_is_typed():
    assert (PACKAGE / "py.typed").is_file()


# --- data


def test_embedded_data_have_a_readme():
    folder = PACKAGE / "embedded"
    data = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc") and p.name != "README.md"]
    assert data
    for path in data:
        readmes = [parent / "README.md" for parent in path.parents if parent.is_relative_to(folder)]
        text = "\n".join(readme.read_text(encoding="utf-8") for readme in readmes if readme.is_file())
        assert path.name in text, f"{path.relative_to(ROOT)} is named in no README beside or above it"
    for readme in folder.rglob("README.md"):
        headings = re.findall(r"^## (.+)$", readme.read_text(encoding="utf-8"), re.MULTILINE)
        assert any("Source" in heading for heading in headings), f"{readme.relative_to(ROOT)} names no source"
        assert any("Licence" in heading for heading in headings), f"{readme.relative_to(ROOT)} names no licence"


# --- nothing left over


def listed_files() -> list[Path]:
    """Files of the repository, those not yet committed included; none outside a checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_foreign_paths_and_nothing_unfinished():
    files = listed_files()
    if not files:
        pytest.skip("not a git checkout")
    unwanted = re.compile("/" + r"work/|\b(TO" + r"DO|FIX" + r"ME)\b")
    found = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # weights, compressed tables
        found += [
            f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(text.splitlines(), 1) if unwanted.search(line)
        ]
    assert not found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_library_does_not_print_assert_or_swallow(path):
    for node in ast.walk(parse(path)):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Assert), f"{where}: assert"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{where}: bare except"
        is_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        assert not is_print, f"{where}: print"


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_do(name):
    text, length = ast.get_docstring(parse(MODULES[name])), len(MODULES[name].read_text().splitlines())
    assert length <= 450 or "although it is long" in text, f"{name}: {length} lines; divide it, or say why not"
    assert text and len(text.splitlines()) <= 25
