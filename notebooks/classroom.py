"""The live parts of the notebooks as pages for a class, served by Voila: ``make classroom``, or ``python notebooks/classroom.py``.

A page holds a notebook's title and its cells tagged ``setup`` (run, not shown), ``predict`` (what to vote on first) and ``live`` (the
panel); no code, large type. Every visitor has a kernel of their own. A page opens where its address says,
``...ipynb?weight=0.3&sigma=2``: that is the panel's state line, so that a class sees one picture.

The server listens on this machine alone and asks for a token, made anew each time. ``--hall`` (``make classroom HALL=1``) opens it to
the network, for a lecture hall; the token is still asked for.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import build

FOLDER = Path(__file__).parent
PAGES = FOLDER.parent / "build" / "classroom"
PORT = 8866
SHOWN = ("setup", "predict", "live")
PRELUDE = "from classroom import begin, open_at\n\nbegin()"
STYLE = """<style>
body, .jp-RenderedHTMLCommon { font-size: 21px; }
.jp-RenderedHTMLCommon h1 { font-size: 38px; }
.jp-Cell { max-width: 1400px; margin: auto; }
.widget-label, .widget-readout, .widget-button, .widget-text input, .widget-dropdown select, .widget-html,
.widget-toggle-button, .widget-label-basic, .widget-label-basic span {
  font-size: 19px !important; line-height: 30px !important; height: auto !important; }
.widget-hslider, .widget-inline-hbox, .widget-dropdown, .widget-checkbox { width: 46em !important; max-width: 100% !important; }
</style>"""
SHARPER = 1.3  # pixels to one of a notebook's, per side


def begin() -> None:
    """In a page: large type, and pictures to match."""
    from IPython.display import HTML, display

    from toyscore import plotting

    plotting.STYLE["figure.dpi"] *= SHARPER
    display(HTML(STYLE))  # type: ignore[no-untyped-call]


def open_at(view: Any) -> None:
    """In a page: move a panel to what the page's address asks for."""
    wanted = {
        key: value for key, value in parse_qsl(os.environ.get("QUERY_STRING", "")) if key in view.controls
    }
    try:
        view.restore(urlencode(wanted))
    except ValueError as error:
        print(error)


def edition(path: Path) -> Any:
    """A notebook's page, or None if nothing in it is live."""
    import nbformat

    cells = nbformat.read(path.with_suffix(".ipynb"), 4).cells
    title = next(line for line in cells[0].source.splitlines() if line.startswith("# "))
    page = [nbformat.v4.new_markdown_cell(title), nbformat.v4.new_code_cell(PRELUDE)]
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if not set(tags) & set(SHOWN):
            continue
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        page.append(cell)
        if "live" in tags:
            view = cell.source.splitlines()[-1]
            page.append(nbformat.v4.new_code_cell(f"open_at({view})"))
    if not any("live" in cell.metadata.get("tags", []) for cell in page):
        return None
    for number, cell in enumerate(page):
        cell.id = f"cell-{number:02d}"
    notebook = nbformat.v4.new_notebook(cells=page, metadata=build.METADATA)
    nbformat.validate(notebook)
    return notebook


def write(folder: Path = PAGES) -> list[Path]:
    """Write every page; their paths."""
    import nbformat

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ipynb"):
        old.unlink()
    written = []
    for path in build.sources([]):
        page = edition(path)
        if page is not None:
            written.append(folder / f"{path.stem}.ipynb")
            nbformat.write(page, written[-1])
    return written


def command(folder: Path, port: int, token: str, hall: bool) -> list[str]:
    """What serves the pages."""
    return [
        sys.executable,
        "-m",
        "voila",
        str(folder),
        "--no-browser",
        f"--Voila.ip={'0.0.0.0' if hall else '127.0.0.1'}",
        f"--port={port}",
        f"--token={token}",
        "--strip_sources=True",
        "--theme=light",
        "--MappingKernelManager.cull_idle_timeout=1200",
        "--MappingKernelManager.cull_interval=60",
    ]


def main(arguments: list[str] | None = None) -> int:
    """The command line; serves until it is interrupted."""
    parser = argparse.ArgumentParser(description="Serve the live parts of the notebooks to a class.")
    parser.add_argument(
        "--hall", action="store_true", help="listen on the network, not on this machine alone"
    )
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default {PORT}")
    parser.add_argument("--pages", action="store_true", help="write the pages into build/classroom and stop")
    options = parser.parse_args(arguments)
    if not 1024 <= options.port < 65536:
        parser.error(f"--port {options.port}: it must be from 1024 to 65535; leave it out for {PORT}")
    pages = write()
    if options.pages:
        print(*pages, sep="\n")
        return 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0" if options.hall else "127.0.0.1", options.port))
        except OSError as error:
            parser.error(
                f"--port {options.port}: {error.strerror}; stop what listens there, or pass another port"
            )
    token = secrets.token_urlsafe(12)
    host = socket.gethostname() if options.hall else "127.0.0.1"
    print("Ready in a few seconds; stop with Ctrl-C. Addresses, the token in each:", flush=True)
    for page in pages:
        print(f"  http://{host}:{options.port}/voila/render/{page.name}?token={token}", flush=True)
    if options.hall:
        print(
            f"Whoever has a link runs a kernel on this machine: up to {os.cpu_count()} at once are smooth.",
            flush=True,
        )
    os.chdir(FOLDER.parent)
    os.environ.update(
        OMP_NUM_THREADS="1",
        PYTHONPATH=os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
    )
    os.execv(sys.executable, command(PAGES, options.port, token, options.hall))


if __name__ == "__main__":
    sys.exit(main())
