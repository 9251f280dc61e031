"""Copies of the course: complete, renewed where nobody wrote in them, and never overwritten where somebody did."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from toyscore import _shipped, course

NOTEBOOK = "03_denoising_score_matching.ipynb"
SPARE, SECOND = (NOTEBOOK.replace(".ipynb", f" ({word}).ipynb") for word in ("new", "new 2"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A small clone, whose notebooks a test may change."""
    folder = tmp_path / "clone" / "notebooks"
    (folder / "checks").mkdir(parents=True)
    for name in ("README.md", NOTEBOOK, "build.py", "07_mine.py", "checks/judge.py"):
        (folder / name).write_text(f"{name}, first")
    monkeypatch.setattr(_shipped, "PACKAGE", tmp_path / "clone" / "toyscore")
    return folder


def copied(folder):
    return [path.relative_to(folder).as_posix() for path in course.copy(folder)]


def test_the_course_is_copied_with_all_that_it_needs(tmp_path):
    """The checks that its notebooks import are found there, with no original on the path."""
    course.copy(tmp_path / "mine")
    notebooks = list((tmp_path / "mine").glob("*.ipynb"))
    assert len(notebooks) == 17
    lines = {line for path in notebooks for line in re.findall(r"from checks import \w+", path.read_text())}
    assert len(lines) > 10
    command = [sys.executable, "-c", "\n".join(["import checks", *lines, "print(checks.__file__)"])]
    run = subprocess.run(
        command, cwd=tmp_path / "mine", env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True
    )
    assert run.stdout.strip() == str(tmp_path / "mine" / "checks" / "__init__.py"), run.stderr


def test_it_comes_from_the_clone_or_else_from_the_package(home, tmp_path):
    assert _shipped.shipped("notebooks", "_course", "checks") == home
    shutil.move(home, _shipped.PACKAGE / "_course")
    assert copied(tmp_path / "mine") == [NOTEBOOK, "README.md", "checks/judge.py"]
    shutil.rmtree(_shipped.PACKAGE)
    with pytest.raises(FileNotFoundError, match="install toyscore from a clone"):
        course.copy(tmp_path / "mine")


def test_a_copy_is_renewed_unless_its_reader_wrote_in_it(home, tmp_path):
    mine, original = tmp_path / "mine", home / NOTEBOOK
    copied(mine)
    assert copied(mine) == [], "nothing is new"
    original.write_text("second")
    assert copied(mine) == [NOTEBOOK]
    assert (mine / NOTEBOOK).read_text() == "second"

    (mine / NOTEBOOK).write_text("my answer")
    assert copied(mine) == [], "nothing is new"
    for newer in ("third", "fourth"):
        original.write_text(newer)
        assert copied(mine) == [SPARE]
        assert (mine / SPARE).read_text() == newer
    (mine / SPARE).write_text("my other answer")
    original.write_text("fifth")
    assert copied(mine) == [SECOND]
    assert [(mine / name).read_text() for name in (NOTEBOOK, SPARE, SECOND)] == [
        "my answer",
        "my other answer",
        "fifth",
    ]

    (mine / SPARE).unlink()
    assert copied(mine) == [], "who has read what is new may delete it"
    (mine / NOTEBOOK).unlink()
    assert copied(mine) == [NOTEBOOK]
    assert (mine / NOTEBOOK).read_text() == "fifth"


def test_a_copy_that_was_interrupted_goes_on(home, tmp_path, monkeypatch):
    """Whatever was copied, the record was not written: what equals its original is the copy, anything else the reader's."""
    mine = tmp_path / "mine"
    copied(mine)
    (mine / course.RECORD).unlink()
    (mine / "README.md").write_text("my notes")
    assert copied(mine) == ["README (new).md"]
    assert copied(mine) == []
    (home / NOTEBOOK).write_text("second")
    assert copied(mine) == [NOTEBOOK]


def test_a_file_in_place_of_the_folder_is_left_alone(home, tmp_path):
    (tmp_path / "mine").write_text("a thesis")
    with pytest.raises(OSError, match="mine"):
        course.copy(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "a thesis"


def test_paths_are_those_that_were_written(home, tmp_path):
    assert course.copy(str(tmp_path / "mine"))[0] == Path(tmp_path / "mine" / NOTEBOOK)
