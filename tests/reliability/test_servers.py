"""Whatever the project serves, it serves to this machine alone and to who has the token."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from runs import ROOT, SOURCES, wait

LAB = re.search(r"^\t\S*jupyter lab (.*) course/\S+\.ipynb$", (ROOT / "Makefile").read_text(), re.MULTILINE)

# Ways to open a server of notebooks to others: no token, no password, any origin, any address.
OPEN = re.compile(
    r"""(token|password)\s*=\s*((''|"")(?!\.)|$|\s*$)  |  allow_origin(_pat)?\b  |  disable_check_xsrf\b  |  allow_remote_access\b
    |  allow_unauthenticated_access\b  |  0\.0\.0\.0  |  --ip[= ]['"]?(\*|::)  |  http\.server\s""",
    re.VERBOSE | re.MULTILINE,
)
# who asks for the hall gets it
HALL = ('"0.0.0.0" if options.hall else "127.0.0.1"', "'0.0.0.0' if hall else '127.0.0.1'")


def test_no_file_opens_a_server_to_others():
    """Of those that are run, or set a server up: no way to switch the token off or to listen elsewhere, but for the hall"""
    files = [*SOURCES, ROOT / "Makefile", *ROOT.glob("*.yml"), *ROOT.glob("*.toml"), *ROOT.glob("notebooks/*.ipynb")]
    files += [p for folder in (".binder", ".ci") for p in (ROOT / folder).rglob("*") if p.is_file()]
    for path in files:
        text = path.read_text(errors="replace")
        for allowed in HALL if path.name == "classroom.py" else ():
            assert allowed in text
            text = text.replace(allowed, "")
        opened = [match[0] for match in OPEN.finditer(text)]
        assert opened == [], f"{path}: {opened}"
    ours = [p for p in ROOT.glob("*/**/*") if p.parts[len(ROOT.parts)] not in (".venv", "build", ".git")]
    settings = [p for p in [*ROOT.glob("*"), *ours] if p.match("jupyter_*_config.*") or p.name == "voila.json"]
    assert settings == []
    for words in ("--token=''", "--ServerApp.password=", "c.allow_origin = '*'", "--ip=0.0.0.0", "--ip='*'"):
        assert OPEN.search(words), words
    root = "$(if $(filter 0,$(shell id -u)),--allow-root)"
    settings = "--LabApp.app_settings_dir=$(CURDIR)/notebooks/lab"
    assert LAB[1].replace(root, "").split() == ["--ip=127.0.0.1", settings]


def listens(address, port):
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0


def answer(ask):
    try:
        return urllib.request.urlopen(ask, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_make_lab_starts_closed(tmp_path):
    """With the words of the Makefile: it listens on this machine alone, and nothing is told or made without the token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    words = [sys.executable, "-m", "jupyter", "lab", "--ip=127.0.0.1", *(["--allow-root"] * (os.getuid() == 0))]
    words += ["--no-browser", f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={tmp_path}"]
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | folders)
    try:
        wait(lambda: listens("127.0.0.1", port) or server.poll() is not None)  # a moment after it has written its facts
        facts = json.loads(next(tmp_path.glob("RUNTIME/jpserver-*.json")).read_text())
        assert len(facts["token"]) >= 32
        assert not listens("127.0.0.2", port)  # another address of this machine, where a server for all would answer
        for method, way, right in (("GET", "contents", 200), ("POST", "contents", 201), ("GET", "terminals", 200)):
            for token, code in (("", 403), ("wrong", 403), (facts["token"], right)):
                headers = {"Authorization": f"token {token}", "Cookie": "_xsrf=ab", "X-XSRFToken": "ab"}
                ask = urllib.request.Request(f"http://127.0.0.1:{port}/api/{way}", None, headers, method=method)
                assert answer(ask) == code, (method, way)
        assert len(list(tmp_path.glob("untitled*"))) == 1, "made by who has the token, and by nobody else"
    finally:
        server.terminate()
        server.wait(20)
