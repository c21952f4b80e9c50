"""Names of a package that are imported when they are first used, so that the package itself loads nothing (PEP 562)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def find(package: str, homes: Mapping[str, str], name: str) -> Any:
    """A public name of a package, from the module below it that defines the name.

    Args:
        package: The package's full name.
        homes: Every public name, and the module below ``package`` that has it; ``module:name`` where the module calls
            it otherwise.
        name: What is asked for.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module, _, inner = homes[name].partition(":")
    return getattr(importlib.import_module(f"{package}.{module}"), inner or name)
