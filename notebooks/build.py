"""Build the notebooks from their sources: ``python notebooks/build.py [--check] [NN ...]``.

``NN_name.py`` (jupytext, percent format) is what is written and reviewed; ``NN_name.ipynb`` is made from it: cells numbered,
run from top to bottom, and stored with their outputs less all that changes from run to run. Two builds on one machine give the same
bytes. Added is a cell that fetches the rest of toyscore on Colab and does nothing elsewhere. ``--check`` builds, compares by
:func:`differences`, and writes nothing.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
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

ADDRESS = ""  # of the repository, for git clone; while there is none, a reader on Colab is asked for it
QUESTION = "The address where you found toyscore, for git clone: "

PNG = "iVBORw0KGgo"  # how one begins
NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?%?")
APART = 5.0  # of 255, the mean over pixels: a cloud of chains that part makes 2, another picture 20


class Printed(str):
    """What a notebook printed, equal to what another processor, which rounds otherwise, may print.

    That is the same words; whole numbers are counts and must be the same; of any other number, and of a per cent, the last digit
    may be one off. White space does not count, since a longer number moves what follows it.
    """

    def __eq__(self, other: object) -> bool:
        texts = [" ".join(str(text).split()) for text in (self, other)]
        words, numbers = ([find(text) for text in texts] for find in (NUMBER.split, NUMBER.findall))
        return words[0] == words[1] and all(map(rounded_alike, *numbers))

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # two that equal a third need not be equal


class Picture(str):
    """A stored PNG, equal to one of the same size whose pixels are nearly the same in the mean."""

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) or self.apart(str(other)) <= APART

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def apart(self, other: str) -> float:
        """How far the pixels are apart, 0 to 255; infinite for another size."""
        import numpy as np
        from PIL import Image

        one, two = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), float) for text in (self, other)
        )
        return float(np.abs(one - two).mean()) if one.shape == two.shape else float("inf")


def rounded_alike(one: str, other: str) -> bool:
    """Whether two printed numbers are one but for one in the last digit, of that with fewer digits."""
    if one == other:
        return True
    if any(re.fullmatch(r"[-−]?\d+", number) for number in (one, other)):
        return False
    numbers = [Decimal(number.rstrip("%").replace("−", "-")) for number in (one, other)]
    return abs(numbers[0] - numbers[1]) <= max(Decimal(1).scaleb(int(n.as_tuple().exponent)) for n in numbers)


def comparable(part: Any) -> Any:
    """A part of a notebook's outputs, to be compared by these rules."""
    if isinstance(part, dict):
        return {key: comparable(value) for key, value in part.items() if key != LIVE}
    if isinstance(part, list):
        return (
            Printed("".join(part))
            if all(isinstance(line, str) for line in part)
            else list(map(comparable, part))
        )
    if isinstance(part, str):
        return (Picture if part.startswith(PNG) else Printed)(part)
    return part


def differences(built: str, stored: str) -> list[str]:
    """The cells, by id, in which two notebooks differ by more than rounding; "its sources" where these differ."""
    parts = [json.loads(text) for text in (built, stored)]
    outputs = [[cell.pop("outputs", []) for cell in part["cells"]] for part in parts]
    if parts[0] != parts[1]:
        return ["its sources"]
    pairs = zip(parts[0]["cells"], *outputs, strict=True)
    return [cell["id"] for cell, one, other in pairs if comparable(one) != comparable(other)]


def colab(address: str = ADDRESS) -> str:
    """The cell that completes a notebook which is alone on Colab."""
    found = repr(address) if address else f'input("{QUESTION}")'
    return f"""import os
import sys

if "google.colab" in sys.modules and not os.path.exists("checks"):
    address = {found}
    !git clone -q --depth 1 {{address}} toyscore
    !pip install -q "./toyscore[metrics,images]"
    %cd -q toyscore/notebooks"""


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
    form = {"tags": ["colab"], "jupyter": {"source_hidden": True}}
    notebook.cells.insert(1, nbformat.v4.new_code_cell(colab(), id="colab", metadata=form))
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
        "timeout": 600,  # seconds for a cell, on a slow and busy machine
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
                other = differences(text, target.read_text()) if target.exists() else ["not built yet"]
                stale += [target.name] if other else []
                said = f"is not what its source gives ({', '.join(other)}): run make notebooks"
                print(f"{target.name}: {said if other else 'agrees'}")
            else:
                target.write_text(text)
                print(f"{target.name}: {len(text) / 1000:.0f} kB")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
