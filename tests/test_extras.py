"""The install line of a message installs from where this copy came from."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import toyscore
from toyscore import _extras

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_a_clone_is_installed_from_its_folder():
    assert _extras.install_line("metrics") == f'pip install -e "{ROOT}[metrics]"'
    assert _extras.install_line() == f'pip install -e "{ROOT}"'


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, 'pip install "toyscore[cli]"'),  # from an index, by its name
        ({"url": "file:///a/toyscore.whl", "archive_info": {}}, 'pip install "toyscore[cli] @ file:///a/toyscore.whl"'),
        (
            {"url": "https://example.org/t.git", "vcs_info": {"vcs": "git", "commit_id": "0" * 40}},
            'pip install "toyscore[cli] @ git+https://example.org/t.git"',
        ),
    ],
)
def test_what_is_installed_elsewhere_is_installed_from_there(tmp_path, monkeypatch, origin, line):
    package, info = tmp_path / "toyscore", tmp_path / "toyscore-0.1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: toyscore\nVersion: 0.1.0\n")
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(_extras, "__file__", str(package / "_extras.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: importlib.metadata.PathDistribution(info))
    assert _extras.install_line("cli") == line


def test_every_extra_that_a_message_names_exists():
    sources = [path.read_text() for path in Path(toyscore.__file__).parent.rglob("*.py")]
    named = {extra for text in sources for extra in re.findall(r'missing\([^,]+, [^,]+, "(\w+)"', text)}
    named |= {extra for text in sources for extra in re.findall(r'install_line\("(\w+)"\)', text)}
    assert named == {"cli", "diffusers", "images", "metrics", "notebooks", "train"}
    assert named <= EXTRAS.keys()


def test_the_command_line_names_its_extra_and_the_doctor_needs_none(tmp_path):
    """Without the parser: a copy of the package that finds no jsonargparse"""
    shutil.copytree(Path(toyscore.__file__).parent, tmp_path / "toyscore", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys; sys.modules['jsonargparse'] = None; from toyscore.cli import main; "
        "print(main(['sample']), main(['doctor']), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    told, codes = done.stderr.splitlines()
    assert told.startswith("toyscore: the command line needs jsonargparse: install it with pip install ")
    assert "toyscore[cli]" in told
    assert codes == "10 0"
    assert "the score of a Gaussian" in done.stdout
