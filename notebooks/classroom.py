"""The live parts of the notebooks as pages for a class, served by Voila: ``make classroom``, or ``python notebooks/classroom.py``.

A page holds a notebook's title and its cells tagged ``setup`` (run, not shown), ``predict`` (what to vote on first), ``live`` (the
panel) and ``answer`` (folded away until after the vote); no code, large type. A live cell may say where its panel stands before the
vote, ``# %% tags=["live"] before="step=0"``. Every visitor has a kernel of their own. A page opens where its address says,
``...ipynb?weight=0.3&sigma=2``: that is the panel's state line, so that a class sees one picture, and *reset* comes back to it. After
``&panel=NAME`` the values are for the panel of that name alone.

The server listens on this machine alone and asks for a token, made anew each time. ``--hall`` (``make classroom HALL=1``) opens it to
the network, for a lecture hall; the token is still asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import build

FOLDER = Path(__file__).parent
PAGES = FOLDER.parent / "build" / "classroom"
PORT = 8866
SHOWN = ("setup", "predict", "live", "answer")
LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # of the token: none that is mistaken for another when read out
WAIT = "A page takes 10 to 40 seconds to open, and longer where several are opened at once: open it before class."
# Voila's template asks the internet for two style sheets, of which the pages need none.
SETTINGS = {
    "headers": {"Content-Security-Policy": "frame-ancestors 'self'; style-src 'self' 'unsafe-inline'"}
}
PRELUDE = "from classroom import begin, open_at, report\n\nbegin()"
SPACE = '<div style="height: 60vh"></div>\n\n'  # one vote on the screen at a time
ANSWER = "<details><summary>After the vote</summary>\n\n{}\n\n</details>"
STYLE = """<style>
body, .jp-RenderedHTMLCommon { font-size: 21px; }
.jp-RenderedHTMLCommon h1 { font-size: 28px; line-height: 1.3; margin: 0 !important; }
.jp-RenderedHTMLCommon h2 { font-size: 24px; line-height: 1.3; margin: 0 !important; }
.jp-RenderedHTMLCommon p { margin: 4px 0; line-height: 1.35; }
.jp-RenderedHTMLCommon mjx-container[display="true"] { overflow-x: auto; overflow-y: hidden; }
.jp-RenderedHTMLCommon summary { cursor: pointer; width: max-content; text-decoration: underline; }
.jp-Cell { max-width: 1860px; margin: auto; }
.jp-Cell, .jp-RenderedMarkdown { padding-top: 0 !important; padding-bottom: 0 !important; overflow: visible !important; }
.widget-label, .widget-button, .widget-text input, .widget-dropdown select, .widget-html, .widget-toggle-button,
.widget-label-basic, .widget-label-basic span { font-size: 19px !important; line-height: 30px !important; height: auto !important; }
.widget-label { width: auto !important; min-width: 6.5em; text-align: left !important; }
.widget-text input, .widget-dropdown select { min-width: 5em; }
.widget-checkbox input { width: 20px; height: 20px; }
.widget-image { width: 100% !important; height: auto !important; max-height: max(300px, calc(100vh - 285px));
  object-fit: contain; object-position: left top; }
.toyscore-panel > .widget-inline-hbox, .toyscore-slider { width: 720px !important; max-width: 100% !important; }
.toyscore-slider { flex-wrap: wrap; overflow: hidden; }
.toyscore-slider > .widget-text { flex: 1 0 240px; margin-right: 4px; }
.toyscore-slider > .widget-slider { flex: 2 0 220px; padding: 0 12px; }
.noUi-handle { background: #1976d2 !important; }
.noUi-connects { background: #767676 !important; }
:focus-visible { outline: 3px solid #d55e00 !important; outline-offset: 2px; }
.noUi-handle:focus-visible { box-shadow: 0 0 0 4px #d55e00 !important; }
@media (min-width: 1200px) { /* the controls beside the picture */
  .toyscore-panel { display: grid !important; grid-template: repeat(11, min-content) 1fr / 300px minmax(0, 1fr); column-gap: 16px; }
  .toyscore-panel > .widget-image { grid-area: 1 / 2 / span 12; align-self: start; }
  .toyscore-panel > :not(.widget-image) { grid-column: 1; width: 100% !important; margin-left: 0; margin-right: 0; }
  .toyscore-panel > .widget-text:last-child { flex-wrap: wrap; }
  .toyscore-panel > .widget-text:last-child input { min-width: 100%; }
}
@media (max-width: 700px) { /* a telephone: each square of a picture as wide as the screen, to be moved sideways */
  body, .jp-RenderedHTMLCommon { font-size: 17px; }
  .jp-RenderedHTMLCommon h1 { font-size: 24px; }
  .toyscore-panel { overflow-x: auto !important; }
  .toyscore-panel > .widget-inline-hbox, .toyscore-slider { max-width: calc(100% - 4px) !important; }
  .widget-image { width: auto !important; height: min(100vw - 40px, 450px) !important; max-width: none !important; max-height: none; }
}
</style>"""
SHARPER = 1.3  # pixels to one of a notebook's, per side
OPENED: list[Any] = []  # the panels of this page


def begin() -> None:
    """In a page: large type, and pictures to match."""
    from IPython.display import HTML, display

    from toyscore import plotting

    plotting.STYLE["figure.dpi"] *= SHARPER
    display(HTML(STYLE))  # type: ignore[no-untyped-call]


def asked() -> list[tuple[str, str]]:
    """In a page: the names and values of its address."""
    query = parse_qsl(os.environ.get("QUERY_STRING", ""), keep_blank_values=True)
    return [(key, text) for key, text in query if key != "token" and not key.startswith("voila")]


def refused(view: Any, key: str, text: str) -> str:
    """Why a panel does not take a value of the address; empty where it does."""
    try:
        view.controls[key].parse(text)
    except ValueError as error:
        return str(error)
    return ""


def open_at(view: Any, before: str = "") -> None:
    """In a page: put a panel where it stands before the vote, then where the address asks; *reset* comes back here."""
    from toyscore.widgets.states import addressed

    mine = [(key, text) for key, text in addressed(asked(), view.name) if key in view.controls]
    view.restore(before)
    view.restore(urlencode([pair for pair in mine if not refused(view, *pair)]))
    view.begin_here()
    OPENED.append(view)


def report() -> None:
    """In a page, at its end: say under the first panel what of the address no panel took."""
    from toyscore.widgets.states import addressed

    names = [view.name for view in OPENED]
    said = [
        f"panel={text}: no panel has this name; choose from {', '.join(names)}"
        for key, text in asked()
        if key == "panel" and text not in names
    ]
    meant = {view: addressed(asked(), view.name) for view in OPENED}
    for key, text in dict.fromkeys(pair for pairs in meant.values() for pair in pairs):
        views = [view for view, pairs in meant.items() if (key, text) in pairs]
        reasons = [refused(view, key, text) for view in views if key in view.controls] or [
            unknown(key, views)
        ]
        if all(reasons):
            said.append(f"{key}={text}: {reasons[0]}")
    if said:
        OPENED[0].say(f"In the address, {'; '.join(said)}", problem=True)


def unknown(key: str, views: list[Any]) -> str:
    """That no panel has a control of this name."""
    controls = list(dict.fromkeys(name for view in views for name in view.controls))
    near = get_close_matches(key, controls, 1)
    remedy = f"did you mean {near[0]}?" if near else f"choose from {', '.join(controls)}"
    return f"no control has this name; {remedy}"


def edition(path: Path) -> Any:
    """A notebook's page, or None if nothing in it is live."""
    import nbformat

    cells = nbformat.read(path.with_suffix(".ipynb"), 4).cells
    title = next(line for line in cells[0].source.splitlines() if line.startswith("# "))
    page = [nbformat.v4.new_markdown_cell(title), nbformat.v4.new_code_cell(PRELUDE)]
    votes = 0
    for cell in cells:
        tags = set(cell.metadata.get("tags", [])) & set(SHOWN)
        if "predict" in tags:
            votes += 1
            page.append(nbformat.v4.new_markdown_cell(f"{SPACE if votes > 1 else ''}## Vote {votes}"))
        page += on_page(cell, tags)
    if not any("live" in cell.metadata.get("tags", []) for cell in page):
        return None
    page.append(nbformat.v4.new_code_cell("report()"))
    for number, cell in enumerate(page):
        cell.id = f"cell-{number:02d}"
    notebook = nbformat.v4.new_notebook(cells=page, metadata={**build.METADATA, "title": title[2:]})
    nbformat.validate(notebook)
    return notebook


def on_page(cell: Any, tags: set[str]) -> list[Any]:
    """What a page has for a notebook's cell."""
    import nbformat

    if not tags:
        return []
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    if "setup" in tags and cell.cell_type == "code":
        cell.source = f"%%capture\n{cell.source}"  # what it prints may be the answer
    if "answer" in tags:
        cell.source = ANSWER.format(cell.source)
    if "live" not in tags:
        return [cell]
    view, before = cell.source.splitlines()[-1], cell.metadata.get("before")
    call = f"open_at({view}, {json.dumps(before)})" if before else f"open_at({view})"
    return [cell, nbformat.v4.new_code_cell(call)]


def index(pages: dict[str, Any]) -> Any:
    """A page of links to the pages, by their file names."""
    import nbformat

    lines = ["# For a class", "", WAIT, "", "| page | votes |", "| --- | --- |"]
    for name, page in pages.items():
        votes = sum("predict" in cell.metadata.get("tags", []) for cell in page.cells)
        lines.append(f"| [{page.metadata['title']}]({name}) | {votes} |")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("\n".join(lines), id="cell-00")],
        metadata={**build.METADATA, "title": "For a class"},
    )
    nbformat.validate(notebook)
    return notebook


def write(folder: Path = PAGES) -> list[Path]:
    """Write the index and every page; their paths."""
    import nbformat

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ipynb"):
        old.unlink()
    pages = {f"{path.stem}.ipynb": page for path in build.sources([]) if (page := edition(path)) is not None}
    for name, page in {"index.ipynb": index(pages), **pages}.items():
        nbformat.write(page, folder / name)
    return [folder / name for name in ("index.ipynb", *pages)]


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
        f"--Voila.tornado_settings={SETTINGS}",
        "--MappingKernelManager.cull_idle_timeout=180",  # of a closed page; one that is open keeps its kernel
        "--MappingKernelManager.cull_interval=30",
    ]


def own_address() -> str:
    """This machine's address in its network, or its name where it has none; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])


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
    token = "".join(secrets.choice(LETTERS) for _ in range(10))
    host = own_address() if options.hall else "127.0.0.1"
    print("Ready in a few seconds; stop with Ctrl-C. Addresses, the token in each:", flush=True)
    for page in pages:
        print(f"  http://{host}:{options.port}/voila/render/{page.name}?token={token}", flush=True)
    print(WAIT, flush=True)
    if options.hall:
        print(
            f"Whoever has a link runs a kernel on this machine, of half a gigabyte: up to {os.cpu_count()} at once are smooth, "
            f"and N that open a page together wait N / {os.cpu_count()} times as long. {socket.gethostname()} may do for {host}.",
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
