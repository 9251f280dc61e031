"""The classroom edition: what its pages hold, and who may see them."""

import json
import os
import re
import secrets
import socket
import subprocess
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
    title, prelude, *cells = page.cells
    assert title.source == path.read_text().splitlines()[1].removeprefix("# ")
    assert prelude.source == classroom.PRELUDE
    tags = [set(cell.metadata.get("tags", ())) for cell in cells if not cell.source.startswith("open_at(")]
    assert all(found & {"setup", "predict", "live"} for found in tags)
    for n, cell in enumerate(cells):
        if "live" in cell.metadata.get("tags", ()):
            assert "predict" in cells[n - 1].metadata.get("tags", ()), "a vote comes before the panel"
            assert "Predict first" in cells[n - 1].source
            assert cells[n + 1].source == f"open_at({cell.source.splitlines()[-1]})"
    assert not any(cell.get("outputs") for cell in cells)


PROBE = """
import os
from urllib.parse import parse_qsl, urlencode
for view in PANELS:
    state, (name, control) = view.state, next(iter(view.controls.items()))
    others = getattr(control, "options", None) or [control.at(n) for n in range(control.n_values)]
    other = next(value for value in others if str(value) != dict(parse_qsl(state))[name])
    os.environ["QUERY_STRING"] = "token=secret&unknown=1&" + urlencode({name: other})
    open_at(view)
    assert dict(parse_qsl(view.state))[name] == str(other), (view.state, other)
    view.reset()
    assert view.state == state
print("moved", len(PANELS))
"""


@pytest.mark.parametrize("path", live(), ids=lambda p: p.stem)
def test_a_page_runs_by_itself_and_opens_where_its_address_says(path, monkeypatch):
    """Without the rest of the notebook; the address moves a control, what is no control is ignored, reset brings all back."""
    import nbformat
    from nbclient import NotebookClient

    page = classroom.edition(path)
    views = [cell.source.splitlines()[-1] for cell in page.cells if "live" in cell.metadata.get("tags", ())]
    page.cells.append(nbformat.v4.new_code_cell(PROBE.replace("PANELS", f"[{', '.join(views)}]")))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    NotebookClient(page, kernel_name="python3", timeout=60, resources={"metadata": {"path": str(FOLDER)}}).execute()
    assert page.cells[-1].outputs[0].text == f"moved {len(views)}\n"


def test_the_address_sets_the_state(monkeypatch, capsys):
    from toyscore import plotting
    from toyscore.widgets import Slider, panel

    figure, _ = plotting.canvas()
    view = panel(figure, lambda sigma: None, sigma=Slider(0.0, 4.0, 1.0))
    monkeypatch.setenv("QUERY_STRING", "token=x&sigma=2")
    classroom.open_at(view)
    assert view.values == {"sigma": 2.0}
    monkeypatch.setenv("QUERY_STRING", "sigma=9")
    classroom.open_at(view)
    assert "state has sigma=9: 9 is out of range" in capsys.readouterr().out
    assert view.values == {"sigma": 2.0}


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


def test_pages_are_written_without_serving(tmp_path):
    run = subprocess.run(
        [sys.executable, str(FOLDER / "classroom.py"), "--pages"], capture_output=True, text=True, check=True
    )
    written = [Path(line) for line in run.stdout.split()]
    assert [path.stem for path in written] == [path.stem for path in live()]
    assert all(json.loads(path.read_text())["nbformat"] == 4 for path in written)


def test_nobody_enters_without_the_token(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    page = f"http://127.0.0.1:{port}/voila/render/{classroom.write(tmp_path)[0].name}"
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
        assert "Predict first" not in body
    finally:
        server.terminate()
        server.wait(20)
