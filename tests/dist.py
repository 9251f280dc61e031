"""Build what a release uploads, twice to the same bytes, and use it as its first user would: ``make dist``.

The wheel is installed in an empty environment outside the clone, first without extras; then the README's lines and the commands run there.
``--python PATH`` takes another interpreter for that environment; options that follow, as ``--torch-backend cpu``, go to ``uv pip install``.
Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
MOST = 5e6  # bytes of weights in the wheel


def run(*command: str | Path, code: int = 0, **options: object) -> str:
    """Show a command, run it, and return what it prints; it must end with ``code``."""
    print("$", shlex.join(map(str, command)), flush=True)
    done = subprocess.run([str(c) for c in command], text=True, stdout=-1, stderr=subprocess.STDOUT, **options)
    if done.returncode != code:
        sys.exit(f"{done.stdout}\nexit code {done.returncode}, not {code}")
    return done.stdout


def build() -> Path:
    """Both archives into ``dist/``, byte-identical with those of a second build; the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / "first", Path(folder) / "second"]
        for out in outs:
            run(sys.executable, "-m", "build", "--outdir", out, ROOT)
        first, second = ({p.name: p.read_bytes() for p in sorted(out.iterdir())} for out in outs)
        assert first.keys() == second.keys()
        assert first == second, f"{[name for name in first if first[name] != second[name]]} differ from build to build"
        DIST.mkdir(exist_ok=True)
        for name, content in first.items():
            (DIST / name).write_bytes(content)
            print(f"{name}: {len(content):,} bytes, the same twice")
    archives = [DIST / name for name in first]
    print(run(sys.executable, "-m", "twine", "check", "--strict", *archives).strip())
    return next(path for path in archives if path.suffix == ".whl")


def look(wheel: Path) -> None:
    """List what is in it, largest first, and weigh the networks."""
    files = sorted(zipfile.ZipFile(wheel).infolist(), key=lambda f: -f.file_size)
    for file in files:
        print(f"{file.file_size:>10,}  {file.filename}")
    weights = sum(file.file_size for file in files if "/weights/" in file.filename)
    print(f"{len(files)} files, {wheel.stat().st_size:,} bytes packed; weights {weights:,} bytes")
    assert weights < MOST, f"weights of {weights:,} bytes: at most {MOST:,.0f}"
    names = {file.filename for file in files}
    assert not [name for name in names if name.startswith(("tests", "docs"))]


def ten_lines() -> str:
    """The example of the README."""
    return re.search(r"## Ten lines\n\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]


def smoke(wheel: Path, python: str, wheels: list[str]) -> None:
    """Install the wheel elsewhere and use it; what is missing is installed by the line that the message gives."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS")}
        here = {"cwd": folder, "env": env | {"XDG_CACHE_HOME": str(folder / "cache")}}
        uv = [sys.executable, "-m", "uv"]
        run(*uv, "venv", "--quiet", "--python", python, folder / "venv")
        ours, toyscore = folder / "venv/bin/python", folder / "venv/bin/toyscore"
        pip = [*uv, "pip", "install", "--quiet", "--python", ours, *wheels, "-c", ROOT / "constraints.txt"]
        run(*pip, wheel, **here)
        print(run(ours, "--version").strip())
        print(run(ours, "-c", ten_lines(), **here))
        refused = run(toyscore, "sample", code=10, **here)
        print(refused)
        line = re.search(r'install it with pip install "(toyscore\[cli\] @ .*?)"', refused)[1]
        run(*pip, line, **here)
        for command in (
            ["doctor"],
            ["sample", "--samples", "16", "--out", "samples.png"],
            ["figure", "ncsn-fig3"],
            ["course", "course"],
        ):
            print(run(toyscore, *command, **here))
        written = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if "venv" not in p.parts}
        for file in ("samples.png", "ncsn-fig3.png", "course/01_what_is_a_score.ipynb"):
            assert file in written, f"{file} is not among {sorted(written)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="the interpreter to try the wheel on")
    parser.add_argument("--no-smoke", action="store_true", help="build and check, install nothing")
    options, wheels = parser.parse_known_args()
    wheel = build()
    look(wheel)
    if not options.no_smoke:
        smoke(wheel, options.python, wheels)


if __name__ == "__main__":
    main()
