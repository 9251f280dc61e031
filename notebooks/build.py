"""Build the notebooks from their sources: ``python notebooks/build.py [--check] [NN ...]``.

``NN_name.py`` (jupytext, percent format) is what is written and reviewed; ``NN_name.ipynb`` is made from it: cells numbered,
run from top to bottom, and stored with their outputs less all that changes from run to run. Two builds give the same bytes.
``--check`` builds and compares, and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LIVE = "application/vnd.jupyter.widget-view+json"  # meaningless without the kernel it came from
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "name": "python",
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "pygments_lexer": "ipython3",
    },
}


def sources(chosen: list[str]) -> list[Path]:
    """The notebooks' sources, those whose number is chosen."""
    return sorted(p for p in FOLDER.glob("[0-9][0-9]_*.py") if not chosen or p.stem[:2] in chosen)


def read(path: Path) -> Any:
    """A source as a notebook that has not run."""
    import jupytext

    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = METADATA
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
    return notebook


def build(path: Path) -> str:
    """The text of the notebook made from a source."""
    import nbformat
    from nbclient import NotebookClient

    notebook = read(path)
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="Agg")
    resources = {"metadata": {"path": str(path.parent)}}
    options: dict[str, Any] = {
        "kernel_name": "python3",
        "timeout": 120,
        "record_timing": False,
        "coalesce_streams": True,
    }
    NotebookClient(notebook, resources=resources, **options).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(LIVE, None)
            output.get("metadata", {}).pop(LIVE, None)
    notebook.metadata = METADATA
    return str(nbformat.writes(notebook)) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the notebooks from their sources.")
    parser.add_argument("numbers", nargs="*", metavar="NN", help="these notebooks alone, e.g. 01")
    parser.add_argument(
        "--check", action="store_true", help="build and compare with what is stored; write nothing"
    )
    options = parser.parse_args(arguments)
    chosen = sources(options.numbers)
    missing = sorted(set(options.numbers) - {p.stem[:2] for p in chosen})
    if missing or not chosen:
        parser.error(
            f"no notebook {', '.join(missing)}: choose from {', '.join(p.stem[:2] for p in sources([]))}"
        )
    stale = []
    with ThreadPoolExecutor(min(len(chosen), os.cpu_count() or 1)) as pool:
        for path, text in zip(chosen, pool.map(build, chosen), strict=True):
            target = path.with_suffix(".ipynb")
            if options.check:
                same = target.exists() and target.read_text() == text
                stale += [] if same else [target.name]
                print(
                    f"{target.name}: {'agrees' if same else 'is not what its source gives: run make notebooks'}"
                )
            else:
                target.write_text(text)
                print(f"{target.name}: {len(text) / 1000:.0f} kB")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
