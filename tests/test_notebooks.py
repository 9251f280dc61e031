"""Notebooks come from their sources, are stored with outputs, and judge the reader fairly."""

import base64
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parent.parent / "notebooks"
sys.path.insert(0, str(FOLDER))
import build as builder  # noqa: E402
import checks  # noqa: E402

SOURCES = builder.sources([])


def stored(path):
    return json.loads(path.with_suffix(".ipynb").read_text())


@pytest.fixture(params=SOURCES, ids=lambda p: p.stem, scope="module")
def source(request):
    return request.param


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("variance 0.249", "variance 0.248", True),
        ("variance 0.249", "variance 0.247", False),
        ("loss 1.2e+05", "loss 1.1e+05", True),
        ("loss 9.9e+04", "loss 1.0e+05", True),
        ("loss 1.2e+05", "loss 1.2e+06", False),
        ("accepted 32%", "accepted 33%", True),
        ("accepted 32%", "accepted 34%", False),
        ("after 32 steps", "after 33 steps", False),
        ("-0.00 and 1", "0.00 and 1", True),
        ("-0.10", "0.10", False),
        ("−1.5", "−1.6", True),
        ("at 9.99; 1", "at  10.0;\n1", True),
        ("x = [1. 2.]", "x = [1. 3.]", False),
        ("loss inf", "loss nan", False),
        ("1.0", "1.0 2.0", False),
        ("Correct: 0.5", "Not yet: 0.5", False),
        ("x_1 = 0.5", "x_2 = 0.5", False),
    ],
)
def test_printed_texts_are_alike_but_for_one_in_the_last_digit(one, other, alike):
    for pair in ((one, other), (other, one)):
        assert (builder.Printed(pair[0]) == builder.Printed(pair[1])) is alike
        assert (builder.Printed(pair[0]) != builder.Printed(pair[1])) is not alike


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_what_differs_is_named_by_its_cell():
    """What was printed, said of a picture, or shown, each planted alone; a source by itself; and what rounding does is let be."""
    pixels = np.full((20, 30, 3), 200.0)
    shown = {"output_type": "display_data", "data": {"image/png": png(pixels), "text/plain": ["at 0.5"]}}
    shown["metadata"] = {"image/png": {"alt": "The mean is 0.5."}}
    printed = {"output_type": "stream", "name": "stdout", "text": ["3 of 4\n", "0.125\n"]}
    cells = [{"id": "a", "source": ["x"], "outputs": [printed]}, {"id": "b", "source": ["y"], "outputs": [shown]}]
    kept = json.dumps({"cells": cells, "metadata": {}})
    changed = pixels.copy()
    changed[3, 4] -= 3
    moved = png(changed)
    changed[:10] = 0
    for one, other, where in [
        ("0.125", "0.126", []),
        (png(pixels), moved, []),
        ("0.125", "0.128", ["a"]),
        ("3 of 4", "4 of 4", ["a"]),
        ("at 0.5", "at 0.7", ["b"]),
        ("is 0.5", "is 0.7", ["b"]),
        (png(pixels), png(changed), ["b"]),
        (png(pixels), png(pixels[1:]), ["b"]),
        ('["y"]', '["z"]', ["its sources"]),
    ]:
        assert one in kept
        assert builder.differences(kept.replace(one, other), kept) == where, (one[:10], other[:10])
    assert builder.differences(kept, kept) == []


SMALL = """# %% [markdown]
# # 07 · Small

# %%
print(2 / 3)

# %%
print(6 * 7)

# %%
from toyscore import plotting, widgets

figure, ax = plotting.canvas()
(line,) = ax.plot([0, 1], [0, 1])


def draw(n):
    line.set_ydata([0, n])
    ax.set_title(f"n = {n}")


view = widgets.panel(figure, draw, n=widgets.Slider(0, 9, 5))
view

# %%
view

# %%
x = 1

# %%
y = 1
"""


@pytest.mark.slow
def test_a_build_gives_the_same_bytes_and_nbval_finds_what_differs(tmp_path):
    """nbval runs it once, as `make test-notebooks` does. Planted in what is stored: a number rounded otherwise, which is let be; another
    number, another picture, another word about a picture, and an error, each in a cell; a name on which a panel draws is taken."""
    for path in (FOLDER / "build.py", FOLDER / "conftest.py", FOLDER.parent / "pyproject.toml"):
        shutil.copy(path, tmp_path)
    source, path = tmp_path / "07_small.py", tmp_path / "07_small.ipynb"
    source.write_text(SMALL)
    text = builder.build(source)
    assert builder.build(source) == text
    notebook = json.loads(text)
    _, _, rounded, number, shown, described, taken, wrong = notebook["cells"]
    assert (rounded["outputs"][0]["text"], number["outputs"][0]["text"]) == (["0.6666666666666666\n"], ["42\n"])
    rounded["outputs"][0]["text"], number["outputs"][0]["text"] = ["0.6666666666666667\n"], ["43\n"]
    pixels = Image.open(io.BytesIO(base64.b64decode(shown["outputs"][0]["data"]["image/png"])))
    shown["outputs"][0]["data"]["image/png"] = png(np.full((pixels.height, pixels.width, len(pixels.mode)), 128))
    words = described["outputs"][0]["metadata"]["image/png"]
    assert "n = 5" in words["alt"]
    words["alt"] = words["alt"].replace("n = 5", "n = 6")
    taken["source"], wrong["source"] = ["line = None"], ["1 / 0"]
    path.write_text(json.dumps(notebook))
    (options,) = re.findall(r"^NBVAL := .*(--nbval .*)$", (FOLDER.parent / "Makefile").read_text(), re.MULTILINE)
    command = [sys.executable, "-m", "pytest", *options.split(), str(path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert re.findall(r"FAILED 07_small.ipynb::(Cell \d|Panels)", run.stdout) == [
        "Cell 2",
        "Cell 3",
        "Cell 4",
        "Cell 6",
        "Panels",
    ]
    assert "5 failed, 3 passed" in run.stdout


def test_every_cell_was_run_in_order_by_the_public_kernel(source):
    """As a reader sees it who has no kernel."""
    notebook = stored(source)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
    assert sum(bool(cell["outputs"]) for cell in code) >= 3
    assert notebook["metadata"] == builder.METADATA
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert builder.LIVE not in json.dumps(notebook)


def test_every_picture_is_stored_and_followed_by_its_numbers(source):
    cells = stored(source)["cells"]
    shown = [
        n for n, cell in enumerate(cells) if any("image/png" in o.get("data", {}) for o in cell.get("outputs", []))
    ]
    assert shown
    for n in shown:
        described = [o["metadata"]["image/png"]["alt"] for o in cells[n]["outputs"] if "image/png" in o.get("data", {})]
        assert all(re.search(r"\d", alt) for alt in described)
        printed = "".join("".join(o.get("text", "")) for o in cells[n + 1].get("outputs", []))
        assert re.search(r"\d", printed), f"cell {n} shows a picture; the next prints no number"


def test_a_notebook_is_short_and_says_how_long_it_takes(source):
    cells = stored(source)["cells"]
    shown = [cell for cell in cells if cell["cell_type"] == "code" and "colab" not in cell["metadata"].get("tags", ())]
    code = "\n".join("".join(cell["source"]) for cell in shown)
    assert len([line for line in code.splitlines() if line.strip()]) <= 120
    assert not re.search(r"^\s*class ", code, re.MULTILINE)
    assert re.search(r"Running time: under \d+ seconds", "".join(cells[0]["source"]))


def test_code_fits_into_a_cell_on_a_laptop(source):
    """No wider than notebooks/ruff.toml says, which gives the reason; the formatter leaves long strings and comments alone."""
    width = tomllib.loads((FOLDER / "ruff.toml").read_text())["line-length"]
    code = [cell for cell in stored(source)["cells"] if cell["cell_type"] == "code"]
    lines = [line for cell in code for line in "".join(cell["source"]).splitlines()]
    assert not [line for line in lines if len(line) > width]


def test_the_stored_notebook_is_its_source_with_outputs(source):
    """To the byte."""
    made, path = builder.read(source), source.with_suffix(".ipynb")
    for cell, kept in zip(made.cells, nbformat.read(path, 4).cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = kept.outputs, kept.execution_count
    assert path.read_text() == nbformat.writes(made) + "\n"


COLAB = """
import builtins, json, os, sys
from IPython.core.interactiveshell import InteractiveShell

sys.modules["google.colab"] = sys
builtins.input = lambda question: sys.argv[2]
assert InteractiveShell().run_cell(sys.argv[1]).success
print(os.getcwd())
"""


@pytest.mark.posix("sh")
@pytest.mark.parametrize("known", [False, True], ids=["asked", "known"])
def test_a_notebook_alone_on_colab_fetches_the_rest(known, tmp_path):
    """From the address that its reader gives, or that build.py has; from nowhere else. What installs is put in pip's place."""
    origin = tmp_path / "origin"
    (origin / "notebooks" / "checks").mkdir(parents=True)
    (origin / "notebooks" / "checks" / "__init__.py").touch()
    git = ["git", "-C", str(origin), "-c", "user.name=x", "-c", "user.email=x"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").write_text('#!/bin/sh\necho "$@" > installed\n')
    (tmp_path / "bin" / "pip").chmod(0o755)
    cell = builder.colab(origin.as_uri()) if known else builder.colab("")
    command = [sys.executable, "-c", COLAB, cell, "/nowhere" if known else origin.as_uri()]
    places = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "IPYTHONDIR": str(tmp_path)}
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | places)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == str(tmp_path / "toyscore" / "notebooks")
    assert (tmp_path / "installed").read_text() == "install -q ./toyscore[metrics,images]\n"


@pytest.mark.parametrize("source", SOURCES[1:], ids=lambda p: p.stem)
def test_the_exercise_is_open_and_its_solution_collapsed(source):
    """The reader's version fails with a hint, the solution passes; both were run by the build."""
    cells = stored(source)["cells"]
    said = {}
    for cell in cells:
        for tag in {"exercise", "solution"} & set(cell["metadata"].get("tags", ())):
            said[tag] = "".join("".join(o["text"]) for o in cell["outputs"])
            assert cell["metadata"].get("jupyter", {}).get("source_hidden", False) == (tag == "solution")
    assert said["exercise"].startswith("Not yet: ")
    assert "Hint: " in said["exercise"]
    assert said["solution"].startswith("Correct: ")


@pytest.mark.parametrize("readme", [FOLDER / "README.md", FOLDER.parent / "README.md"], ids=["map", "front"])
def test_the_map_has_every_notebook_its_title_and_its_time(readme, source):
    title = source.read_text().splitlines()[1].removeprefix("# # ").replace(" · ", " ")
    (row,) = [line for line in readme.read_text().splitlines() if f"{source.stem}.ipynb)" in line]
    assert f"[{title}](" in row
    if readme.parent == FOLDER:
        seconds = re.search(r"Running time: under (\d+) seconds", source.read_text())[1]
        assert row.endswith(f"| {seconds} s |")


def test_the_command_line_names_what_there_is(capsys):
    with pytest.raises(SystemExit) as stop:
        builder.main(["99"])
    assert stop.value.code == 2
    assert f"no notebook 99: choose from {', '.join(path.stem[:2] for path in SOURCES)}" in capsys.readouterr().err


def test_a_changed_source_is_stale(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builder, "FOLDER", tmp_path)
    monkeypatch.setattr(builder, "build", lambda path: nbformat.writes(builder.read(path)))  # without running it
    source = tmp_path / "07_small.py"
    source.write_text("# %%\nprint(6 * 7)\n")
    assert builder.main(["--check"]) == 1
    assert "07_small.ipynb: is not what its source gives (not built yet)" in capsys.readouterr().out
    assert builder.main([]) == builder.main(["--check", "07"]) == 0
    assert "07_small.ipynb: agrees" in capsys.readouterr().out
    source.write_text("# %%\nprint(6 * 8)\n")
    assert builder.main(["--check", "07"]) == 1
    assert "07_small.ipynb: is not what its source gives (its sources): run make notebooks" in capsys.readouterr().out


def test_setup_names_what_is_missing_and_how_to_mend_it(monkeypatch, capsys, tmp_path):
    checks.setup()
    said = capsys.readouterr().out
    assert said.count("ok     ") >= 4
    assert "MISSING a notebook kernel\n        -> open this notebook in JupyterLab (make lab)" in said  # pytest is none
    assert "1 of 6 to mend" in said

    def gone(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", gone)
    monkeypatch.setattr(sys.modules["checks.setup"], "PYTHON", (4, 0))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "toyscore.distributions", None)
    checks.setup()
    said = capsys.readouterr().out
    assert "MISSING Python 4.0 or newer\n        -> this kernel runs Python 3." in said
    assert "toyscore is not installed for" in said
    assert 'pip install -e ".[notebooks]"' in said
    assert "sliders would show as text: pip install jupyterlab_widgets" in said
    assert "mend the lines above first" in said
    assert "5 of 6 to mend, from the top; then restart the kernel." in said


def test_setup_names_packages_that_are_missing_or_too_old(monkeypatch, capsys):
    needs = ["numpy>=99", "no-such-package", 'other; extra == "test"', "torch"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: needs)
    checks.setup()
    said = capsys.readouterr().out
    assert (
        f"numpy is {np.__version__}, not >=99; no-such-package is missing: in toyscore's folder run pip install" in said
    )
    assert "other" not in said
