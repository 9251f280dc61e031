"""Build the notebooks from their sources: ``python notebooks/build.py [--check] [NN ...]``.

``NN_name.py`` (jupytext, percent format) is what is written and reviewed; ``NN_name.ipynb`` is made from it: cells numbered,
run from top to bottom, and stored with their outputs less all that changes from run to run. Two builds give the same bytes. Added are
badges that open it on Colab and on Binder at this release, and a cell that fetches the release on Colab and does nothing elsewhere.
``--check`` builds and compares, and writes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import toyscore

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

REPOSITORY = "https://github.com/toyscore/toyscore"
RELEASE = f"v{toyscore.__version__}"  # the tag
BADGES = {
    "Colab": f"https://colab.research.google.com/github/{REPOSITORY.partition('.com/')[2]}/blob/{RELEASE}/notebooks/{{name}}.ipynb",
    "Binder": f"https://mybinder.org/v2/gh/{REPOSITORY.partition('.com/')[2]}/{RELEASE}?labpath=notebooks%2F{{name}}.ipynb",
}
COLAB = f"""import os
import sys

if "google.colab" in sys.modules and not os.path.exists("checks"):  # this release
    !git clone -q --depth 1 --branch {RELEASE} {REPOSITORY}
    !pip install -q "./toyscore[metrics,images]"
    %cd -q toyscore/notebooks"""


def badges(name: str) -> str:
    """What opens a notebook elsewhere."""
    shown = (
        f"[![open in {place}](../docs/static/{place.lower()}.svg)]({address.format(name=name)})"
        for place, address in BADGES.items()
    )
    return " ".join(shown)


def sources(chosen: list[str]) -> list[Path]:
    """The notebooks' sources, those whose number is chosen."""
    return sorted(p for p in FOLDER.glob("[0-9][0-9]_*.py") if not chosen or p.stem[:2] in chosen)


def read(path: Path) -> Any:
    """A source as a notebook that has not run."""
    import jupytext
    import nbformat

    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = METADATA
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
    head = notebook.cells[0]
    if head.cell_type == "markdown":
        title, _, rest = head.source.partition("\n")
        head.source = f"{title}\n\n{badges(path.stem)}\n{rest}"
    form = {"tags": ["colab"], "jupyter": {"source_hidden": True}}
    notebook.cells.insert(1, nbformat.v4.new_code_cell(COLAB, id="colab", metadata=form))
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
