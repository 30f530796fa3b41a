"""Functions and classes of the user's own, named "path.py:name" where a recipe may name one of the package's.

    reward = load_own("rewards.py:brevity")

The file is run as a module, so that it may import what it likes. Nothing of it is looked at but the one name.
"""

from __future__ import annotations

import hashlib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from selfedit.errors import ConfigError, near_miss


def is_own(name: str) -> bool:
    """Say whether a name is that of a function in a file: "path.py:name", or a file that lacks the second half."""
    return name.endswith(".py") or ".py:" in name


def load_own(name: str) -> Any:
    """Return what "path.py:name" names, which can be called.

    Raises `ConfigError` for a file that is not there or breaks when it is run, and for a name that is not in it.
    """
    path, attribute = split_own(name)
    module = _run(path)
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = near_miss(attribute, known) if known else "there is none"
        raise ConfigError(f"{path} has no function {attribute!r}; {hint}")
    return found


def split_own(name: str) -> tuple[Path, str]:
    """Split "path.py:name". Raises `ConfigError` where a half is missing, or the file."""
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py") or not attribute:
        raise ConfigError(f"{name!r} names a file and no function in it; write path.py:name")
    if not Path(path).is_file():
        raise ConfigError(
            f"there is no file {path!r}, which {name!r} names; give its path from here, or beside the recipe"
        )
    return Path(path), attribute


def _run(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12]
    spec = spec_from_file_location(f"selfedit_own_{digest}", path)
    assert spec and spec.loader, "a path that ends in .py has a loader"
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a stranger's file may raise
        raise ConfigError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
