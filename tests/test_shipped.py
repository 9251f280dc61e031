"""``toyscore figure`` and ``toyscore course``."""

import pytest

from runs import told
from toyscore.cli import main


def test_a_figure_is_drawn_where_one_says(tmp_path):
    text = told("figure", "ncsn-fig3", "--quick=true", f"--out={tmp_path / 'here'}")
    assert (tmp_path / "here" / "ncsn-fig3.png").read_bytes().startswith(b"\x89PNG")
    assert "Langevin dynamics" in text
    assert text.rstrip().endswith(str(tmp_path / "here" / "ncsn-fig3.png"))


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["figure", "ncsn-fg3"], "figure ncsn-fg3: there is no such figure; did you mean ncsn-fig3?"),
        (["figure", "xyzzy"], "figure xyzzy: there is no such figure; choose from bug-museum, control"),
        (["figure"], "the following arguments are required: name"),
        (["course"], "the following arguments are required: folder"),
    ],
)
def test_what_cannot_be_drawn_or_copied_is_named(capsys, words, answer):
    assert main(words) == 2
    assert answer in capsys.readouterr().err


def test_the_course_is_copied_once(tmp_path):
    course = tmp_path / "course"
    assert f"files written into {course}; open them with: jupyter lab {course}" in told("course", str(course))
    assert (course / "01_what_is_a_score.ipynb").exists()
    assert told("course", str(course)).startswith(f"every file is up to date in {course}")
