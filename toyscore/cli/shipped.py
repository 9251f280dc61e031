"""``toyscore figure`` and ``toyscore course``: the scripts and notebooks that a clone or a wheel holds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from toyscore._shipped import shipped
from toyscore.cli.options import Course, Figure
from toyscore.config import ConfigError, suggestion


def figure(options: Figure) -> str:
    """Draw a figure; its caption, and where it is."""
    gallery = _gallery()
    known = gallery.ids()
    if options.name not in known:
        remedy = suggestion(options.name, known, otherwise="choose from")
        raise ConfigError(f"figure {options.name}: there is no such figure; {remedy}")
    folder = Path(options.out or ".")
    folder.mkdir(parents=True, exist_ok=True)
    entry = gallery.make(options.name, options.quick, str(folder))
    return f"{entry['caption']}\n\nwritten: {next(folder.glob(f'{options.name}.*'))}"


def course(options: Course) -> str:
    """Copy the notebooks; what was written, and how to open it."""
    from toyscore.course import copy

    written = copy(options.folder)
    new = f"{len(written)} files written into" if written else "every file is up to date in"
    return f"{new} {options.folder}; open them with: jupyter lab {options.folder}"


def _gallery() -> ModuleType:
    """figures/run.py, of the clone or of the wheel."""
    path = shipped("figures", "_figures", "run.py") / "run.py"
    spec = importlib.util.spec_from_file_location("toyscore_figures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
