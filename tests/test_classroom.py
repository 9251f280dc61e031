"""The classroom edition: what its pages hold, and who may see them."""

import builtins
import functools
import html
import json
import os
import re
import secrets
import socket
import subprocess
import symtable
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
sys.path.insert(0, str(FOLDER))
import build as builder  # noqa: E402
import classroom  # noqa: E402


def live():
    """The notebooks with something live in them."""
    return [path for path in builder.sources([]) if '"live"' in path.read_text()]


@pytest.mark.parametrize("path", live(), ids=lambda p: p.stem)
def test_a_page_holds_the_live_parts_alone(path):
    page = classroom.edition(path)
    title, prelude, *cells, last = page.cells
    assert title.source == path.read_text().splitlines()[1].removeprefix("# ")
    assert prelude.source == classroom.PRELUDE
    assert page.metadata["title"] == title.source.removeprefix("# ")
    assert last.source == "report()"
    made = [cell.source for cell in cells if not set(cell.metadata.get("tags", ())) & set(classroom.SHOWN)]
    votes = [source.removeprefix(classroom.SPACE) for source in made if not source.startswith("open_at(")]
    assert votes == [f"## Vote {n + 1}" for n in range(len(votes))]
    assert votes
    for n, cell in enumerate(cells):
        if "live" in cell.metadata.get("tags", ()):
            assert "predict" in cells[n - 1].metadata.get("tags", ()), "a vote comes before the panel"
            assert "Predict first" in cells[n - 1].source
            assert "## Vote" in cells[n - 2].source
            assert cells[n - 2].source.startswith(classroom.SPACE) == ("Vote 1" not in cells[n - 2].source)
            before = f', "{cell.metadata.before}"' if "before" in cell.metadata else ""
            assert cells[n + 1].source == f"open_at({cell.source.splitlines()[-1]}{before})"
    assert not any(cell.get("outputs") for cell in cells)


PROBE = """
def _probe(views):  # a function, for the names that a notebook has are its own
    import os
    from urllib.parse import parse_qsl, urlencode

    assert len({view.name for view in views}) == len(views), "an address names one of them"
    for view in views:
        start, (name, control) = view.state, next(iter(view.controls.items()))
        others = getattr(control, "options", None) or [control.at(n) for n in range(control.n_values)]
        other = next(value for value in others if str(value) != dict(parse_qsl(start))[name])
        os.environ["QUERY_STRING"] = "token=secret&unknown=1&" + urlencode({name: other})
        open_at(view)
        opened = view.state
        assert dict(parse_qsl(opened))[name] == str(other), (opened, other)
        view.restore(start)
        view.reset()
        assert view.state == opened
    print("moved", len(views))

_probe(PANELS)
"""


def run(page, *more):
    """A page's cells, and more code, run in a kernel."""
    import nbformat
    from nbclient import NotebookClient

    page.cells += [nbformat.v4.new_code_cell(source) for source in more]
    NotebookClient(page, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    return page


def stored_words(path):
    """What the panels of a stored notebook say of their pictures, those that a page shows."""
    cells = json.loads(path.with_suffix(".ipynb").read_text())["cells"]
    outputs = [o for cell in cells if "live" in cell["metadata"].get("tags", ()) for o in cell["outputs"]]
    return [o["metadata"]["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})]


def names(code):
    """The names that a cell binds, and those that it reads, in its functions, too, without binding them."""

    def read(table):
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from read(child)

    table = symtable.symtable(code, "cell", "exec")
    bound = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    return bound, set(read(table)) - bound - set(dir(builtins))


@pytest.mark.parametrize("path", live(), ids=lambda p: p.stem)
def test_a_page_reads_no_name_that_the_rest_of_the_notebook_binds(path):
    """So it runs by itself, with the notebook's numbers."""
    on_page, cells = (
        set(),
        [cell for cell in builder.read(path).cells if cell.cell_type == "code" and cell.id != "colab"],
    )
    for cell in cells:
        bound, wanted = names(cell.source)
        if set(cell.metadata.get("tags", ())) & set(classroom.SHOWN):
            assert wanted <= on_page, cell.id
            on_page |= bound
        else:
            on_page -= bound
    assert on_page


@pytest.mark.slow
@pytest.mark.parametrize("path", builder.sources(["05", "11"]), ids=["two panels", "with a place before the vote"])
def test_a_page_runs_by_itself_and_opens_where_its_address_says(path, monkeypatch):
    """Without the rest of the notebook, and yet with its numbers, which the answers quote; the address moves a control, reset comes back
    to it, and a setup shows nothing."""
    import nbformat

    page = classroom.edition(path)
    places = [n for n, cell in enumerate(page.cells) if "live" in cell.metadata.get("tags", ())]
    views = [page.cells[n].source.splitlines()[-1] for n in places]
    for n, view in reversed([*zip(places, views, strict=True)]):
        page.cells.insert(n + 1, nbformat.v4.new_code_cell(f"print({view}.words)", metadata={"tags": ["words"]}))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run(page, PROBE.replace("PANELS", f"[{', '.join(views)}]"))
    assert page.cells[-1].outputs[0].text == f"moved {len(views)}\n"
    words = [cell.outputs[0].text for cell in page.cells if "words" in cell.metadata.get("tags", ())]
    assert words == list(map(builder.Printed, stored_words(path)))
    assert not [cell.outputs for cell in page.cells if "setup" in cell.metadata.get("tags", ()) and cell.outputs]


SMALL = """# %% [markdown]
# # 99 · Small

# %% tags=["setup"]
from toyscore import plotting
from toyscore.widgets import Slider, panel

figure, ax = plotting.canvas()
print("the answer is 2")

# %% [markdown] tags=["predict"]
# **Predict first.** One, or two?

# %% tags=["live"] before="n=0"
view = panel(figure, lambda n, k: None, name="small", n=Slider(0, 9, 5), k=Slider(0, 9, 5))
view

# %% [markdown] tags=["answer"]
# Two, as $1 + 1$ is, in {braces}.

# %% [markdown]
# What the notebook goes on with.
"""


@pytest.mark.slow
def test_a_page_opens_before_the_vote_and_folds_the_answer(tmp_path, monkeypatch):
    import jupytext
    import nbformat

    path = tmp_path / "99_small.py"
    path.write_text(SMALL)
    nbformat.write(jupytext.read(path), path.with_suffix(".ipynb"))
    page = classroom.edition(path)
    sources = [cell.source for cell in page.cells]
    assert sources[2].startswith("%%capture\n")
    assert sources[6] == 'open_at(view, "n=0")'
    assert sources[7] == "<details><summary>After the vote</summary>\n\nTwo, as $1 + 1$ is, in {braces}.\n\n</details>"
    assert "goes on" not in "".join(sources)
    monkeypatch.setenv("QUERY_STRING", "token=x&k=2")
    run(page, "before = view.state; view.set(n=7, k=7); view.reset(); print(before, view.state)")
    assert page.cells[2].outputs == []
    assert page.cells[-1].outputs[0].text == "n=0&k=2 n=0&k=2\n"


def two_panels(monkeypatch):
    from toyscore import plotting
    from toyscore.widgets import Choice, Slider, panel

    monkeypatch.setattr(classroom, "OPENED", [])
    first = panel(
        plotting.canvas()[0],
        lambda a, step: None,
        name="first",
        a=Slider(0.0, 4.0, 1.0, step=0.5),
        step=Slider(0, 9, 0),
    )
    second = panel(
        plotting.canvas()[0], lambda a, law: None, name="second", a=Choice(("1.0", "3.0"), "1.0"), law=Choice("xy", "x")
    )
    return first, second


@pytest.mark.parametrize(
    ("query", "states", "said"),
    [
        ("", ("a=1.0&step=0", "a=1.0&law=x"), ""),
        ("a=3.0&step=4&law=y", ("a=3.0&step=4", "a=3.0&law=y"), ""),
        ("a=2.0", ("a=2.0&step=0", "a=1.0&law=x"), ""),  # the second has no 2.0, but the first took it
        ("panel=second&a=3.0", ("a=1.0&step=0", "a=3.0&law=x"), ""),
        ("step=4&panel=first&a=3.0&panel=second&law=y", ("a=3.0&step=4", "a=1.0&law=y"), ""),
        (
            "a=2.2&stpe=3&step=5&zz=",
            ("a=1.0&step=5", "a=1.0&law=x"),
            "In the address, a=2.2: 2.2 is between two steps of 0.5; the nearest is 2.0; stpe=3: no control has this name; "
            "did you mean step?; zz=: no control has this name; choose from a, step, law",
        ),
        (
            "panel=third&a=3.0",
            ("a=1.0&step=0", "a=1.0&law=x"),
            "In the address, panel=third: no panel has this name; choose from first, second",
        ),
        (
            "panel=second&a=2.0",
            ("a=1.0&step=0", "a=1.0&law=x"),
            "In the address, a=2.0: '2.0' is no option; choose from 1.0, 3.0",
        ),
    ],
)
def test_the_address_sets_the_state_and_what_no_panel_takes_is_said(query, states, said, monkeypatch):
    import ipywidgets

    views = two_panels(monkeypatch)
    monkeypatch.setenv("QUERY_STRING", f"token=x&{query}")
    for view in views:
        classroom.open_at(view)
    classroom.report()
    assert tuple(view.state for view in views) == states
    shown = [
        "".join(w.value for w in v.box.children if isinstance(w, ipywidgets.HTML) and "status" in w.value)
        for v in views
    ]
    assert re.sub("<[^>]*>", "", html.unescape(shown[0])) == said
    assert shown[1] == ""
    assert ("#b00020" in shown[0]) == bool(said), "in red"


def test_a_page_begins_with_large_type(monkeypatch, capsys):
    from toyscore import plotting

    monkeypatch.setattr(plotting, "STYLE", dict(plotting.STYLE))
    before = plotting.STYLE["figure.dpi"]
    classroom.begin()
    assert plotting.STYLE["figure.dpi"] == pytest.approx(classroom.SHARPER * before)
    assert int(re.search(r"body.*font-size: (\d+)px", classroom.STYLE)[1]) >= 20


@pytest.mark.parametrize(("hall", "address"), [(False, "127.0.0.1"), (True, "0.0.0.0")])
def test_the_server_keeps_to_this_machine_unless_told(hall, address, tmp_path):
    words = classroom.command(tmp_path, 8866, "token", hall)
    assert f"--Voila.ip={address}" in words
    assert "--token=token" in words
    assert "--strip_sources=True" in words
    assert "--MappingKernelManager.cull_idle_timeout=180" in words, "half a gigabyte for each page that was closed"


def test_the_addresses_can_be_typed(monkeypatch, capsys, tmp_path):
    """An address, where a campus network does not know names, and a token to be read out; with how long a page takes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    monkeypatch.setattr(classroom, "PAGES", tmp_path)
    monkeypatch.setattr(classroom, "write", lambda: [tmp_path / "index.ipynb"])
    monkeypatch.setattr(classroom, "own_address", lambda: "10.0.0.7")
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(tmp_path)
    classroom.main(["--hall", "--port", str(port)])
    said = capsys.readouterr().out
    token = re.search(rf"http://10.0.0.7:{port}/voila/render/index.ipynb\?token=(.*)", said)[1]
    assert re.fullmatch("[a-hjkmnp-z2-9]{10}", token)
    assert f"--token={token}" in started[0]
    assert "10 to 40 seconds" in said
    assert "half a gigabyte" in said


def test_the_own_address_is_one():
    assert re.fullmatch(r"[\w.:-]+", classroom.own_address())


def test_a_port_in_use_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(classroom, "PAGES", tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as exit:
            classroom.main(["--port", str(port)])
    assert exit.value.code == 2
    assert (
        f"--port {port}: Address already in use; stop what listens there, or pass another port"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit):
        classroom.main(["--port", "80"])
    assert "--port 80: it must be from 1024 to 65535; leave it out for 8866" in capsys.readouterr().err


def test_pages_are_written_without_serving(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(classroom, "write", functools.partial(classroom.write, tmp_path))
    assert classroom.main(["--pages"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.stem for path in written] == ["index", *(path.stem for path in live())]
    assert all(json.loads(path.read_text())["nbformat"] == 4 for path in written)
    links = "".join(json.loads(written[0].read_text())["cells"][0]["source"])
    for path in live():
        title = path.read_text().splitlines()[1].removeprefix("# # ")
        votes = path.read_text().count('tags=["predict"]')
        assert f"| [{title}]({path.stem}.ipynb) | {votes} |" in links


@pytest.mark.slow
def test_nobody_enters_without_the_token(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    page = f"http://127.0.0.1:{port}/voila/render/{classroom.write(tmp_path)[1].name}"
    environment = os.environ | {
        "PYTHONPATH": str(FOLDER),
        "JUPYTER_CONFIG_DIR": str(tmp_path),
        "JUPYTER_DATA_DIR": str(tmp_path),
    }
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(
            classroom.command(tmp_path, port, token, False), stdout=log, stderr=log, env=environment
        )
    try:
        for _ in range(120):
            try:
                answer = urllib.request.urlopen(f"{page}", timeout=10)
                break
            except urllib.error.URLError:
                assert server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.5)
        assert "/login" in answer.url, "without a token the login page answers"
        body = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
        assert "style-src 'self' 'unsafe-inline'" in policy, "no style sheet from the internet"
        assert "frame-ancestors 'self'" in policy
        assert "Predict first" not in body
    finally:
        server.terminate()
        server.wait(20)
