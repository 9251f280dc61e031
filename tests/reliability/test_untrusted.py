"""Untrusted input is read and never run: files, words and pictures made to do harm, each of which does none; and nothing listens."""

import ast
import contextlib
import hashlib
import io
import os
import re
import struct
import tarfile
import zlib
from pathlib import Path
from urllib.parse import quote

import ipywidgets
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from runs import ROOT, SOURCES, said
from toyscore import data, plotting
from toyscore.data import files, named
from toyscore.widgets import Choice, Seed, Slider, Toggle, panel

pytestmark = pytest.mark.usefixtures("harmless")

# --- what the code may not call ---

MODULES = re.compile(
    r"""(c|_|cloud|json)?[pP]ickle|code|codeop|dill|imp|joblib|marshal|pty|runpy|shelve
    |  socketserver|wsgiref|flask|uvicorn|tornado|aiohttp|bottle|fastapi|gradio|streamlit|dash|xmlrpc""",
    re.VERBOSE,
)
CALLS = re.compile(
    r"""(builtins\.)?(eval|exec|compile|__import__)  |  numpy\.load  |  os\.(system|popen|startfile|(exec|spawn|posix_spawn)\w*)
    |  torch\.(load|(jit|hub|serialization)\.load|package\.PackageImporter|storage\._load_from_bytes|\w+\.load_library)
    |  yaml\.((unsafe_|full_)?load(_all)?|C?(Unsafe|Full)?Loader)  |  ctypes\.CDLL  |  pandas\.eval
    |  types\.(Code|Function)Type  |  importlib\.(import_module|__import__)  |  subprocess\.get(status)?output
    |  importlib\.(util\.spec_from_file_location|machinery\.SourceFileLoader)  |  shutil\.unpack_archive
    |  .+\.(extract|extractall|read_pickle|set_allow_pickle|create_subprocess_shell)  |  http\.server\..+
    |  (.+\.)?(bind|listen|create_server|start_server|start_unix_server|serve_forever|run_server|launch_instance|reuse_port)""",
    re.VERBOSE,
)
OPTIONS = {"shell": False, "allow_pickle": False, "weights_only": True, "trust_remote_code": False}
# (file, what is called): why it may
EXCEPTIONS = {
    ("toyscore/__init__.py", "importlib.import_module"): "one of the names in __all__",
    ("toyscore/cli/shipped.py", "importlib.util.spec_from_file_location"): "figures/run.py",
    ("figures/run.py", "importlib.util.spec_from_file_location"): "the files figures/*.py",
    ("figures/run.py", "importlib.import_module"): "--loss names the reader's own module",
    ("notebooks/classroom.py", "os.execv"): "the server, by its whole path",
    ("toyscore/build.py", "compile"): "an argument, true or false",
    ("toyscore/train/loop.py", "inspect.signature().bind"): "arguments",
    ("toyscore/widgets/panel.py", "inspect.signature().bind"): "arguments",
    ("notebooks/classroom.py", "probe.bind"): "whether a port is free",
}


class Search(ast.NodeVisitor):
    """``found``: everything in a source that runs what data hold, or opens a port, or could: imported, called, or handed on."""

    def __init__(self, source):
        self.known, tree = {}, ast.parse(source)  # a name of the source -> what it is called where it comes from
        for _ in range(2):  # first for the names, wherever they are imported
            self.found = []
            self.visit(tree)

    def named(self, node):
        if isinstance(node, ast.Attribute):
            return f"{self.named(node.value)}.{node.attr}"
        if isinstance(node, ast.Call):
            return f"{self.named(node.func)}()"
        return self.known.get(node.id, node.id) if isinstance(node, ast.Name) else "?"

    def visit_Import(self, node, prefix=""):
        for alias in node.names:
            name = prefix + alias.name
            first = name.partition(".")[0]
            self.known[alias.asname or alias.name.partition(".")[0]] = name if prefix or alias.asname else first
            if MODULES.fullmatch(first):
                self.found.append(name)

    def visit_ImportFrom(self, node):
        self.visit_Import(node, f"{node.module}." if node.module else "")

    def visit_Call(self, node):
        words = {word.arg: word.value for word in node.keywords}
        for name in OPTIONS.keys() & words:
            if not (isinstance(words[name], ast.Constant) and words[name].value is OPTIONS[name]):
                self.found.append(f"{name}={ast.unparse(words[name])}")
        if self.named(node.func) == "numpy.load" and "allow_pickle" in words:
            node.func = ast.Name("numpy", ast.Load())
        self.generic_visit(node)

    def visit_Attribute(self, node):
        if isinstance(node.ctx, ast.Load) and CALLS.fullmatch(name := self.named(node)):
            self.found.append(name)
        self.generic_visit(node)

    visit_Name = visit_Attribute  # noqa: N815


def test_nothing_runs_what_data_hold_or_listens():
    found = {(str(path.relative_to(ROOT)), what) for path in SOURCES for what in Search(path.read_text()).found}
    assert found == EXCEPTIONS.keys()
    assert len(SOURCES) > 100


HARMFUL = """from cloudpickle import loads
from torch import load; load('x')
import torch; read = torch.load
import torch; torch.storage._load_from_bytes(b'')
import numpy as np; np.load('x', allow_pickle=True)
import numpy as np; list(map(np.load, files))
from numpy import load; load('x')
import yaml; yaml.load('x', Loader=yaml.Loader)
import yaml; yaml.compose('x', Loader=yaml.UnsafeLoader)
from os import popen; popen('x')
from os import posix_spawn; posix_spawn('x', ['x'], {})
import subprocess; subprocess.run('x', shell=True)
from subprocess import Popen; Popen('x', shell=SHELL)
eval('x')
__import__(name)
list(map(eval, words))
import importlib; importlib.import_module(name)
archive.extractall()
f(trust_remote_code=True)
import ctypes; ctypes.CDLL('x')
from flask import Flask
import http.server; http.server.ThreadingHTTPServer(('', 1), None)
import socket; socket.socket().bind(('', 1))
import asyncio; asyncio.start_server(f)""".splitlines()
HARMLESS = """network.eval()
import re; re.compile('x')
import torch; torch.compile(network)
import numpy as np; np.load('x', mmap_mode='r', allow_pickle=False)
import yaml; yaml.safe_load('x')
import subprocess; subprocess.run(['x'], check=True)
model.load_state_dict(state)""".splitlines()


def test_the_search_finds_harm_and_nothing_else():
    assert [source for source in HARMFUL if not Search(source).found] == []
    assert [source for source in HARMLESS if Search(source).found] == []


# --- configurations ---

REFERENCES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
YAML = [
    "data: !!python/object/apply:os.system ['touch MARKER']",
    "data: !!python/object/new:os.system ['touch MARKER']",
    REFERENCES + "data: *a11",
    "data: &d {toy: *d}",
    "data: " + "{a: " * 20_000,
    "data: {toy: {class_path: os.system, init_args: {command: touch MARKER}}}",
    "network: {kind: \"__import__('os').system('touch MARKER')\"}",
    'device: "cpu; touch MARKER"',
    "data: {name: toy, toy: __class__}\nnetwork: {kind: mlp}",
    'data: {name: folder, path: "$(touch MARKER)"}',
    "config: /etc/passwd",
    "data.__class__.__init__: 1",
    "data: {toy: \0}",
    "seed: " + "9" * 1_000_000,
]


@pytest.mark.slow
@pytest.mark.parametrize("text", YAML, ids=lambda text: repr(text[:50]))
def test_hostile_configurations(tmp_path, text):
    """Given to train, and stored in a run that is resumed."""
    file = tmp_path / "run" / "config.yaml"
    file.parent.mkdir()
    file.write_text(text.replace("MARKER", str(tmp_path / "marker")))
    for more in (["--config", file], ["--resume", "latest"]):
        code, text = said("train", "--folder", file.parent, *more)
        assert code in (2, 3, *[8] * ("--resume" in more)), text
        assert text.count("\n") == 1
        assert len(text) < 2000
        assert "Traceback" not in text
        assert "root:" not in text, "what a file holds that was none of its business"


# --- pictures ---


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *more):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + rows + chunk(b"IEND", b"")


def whole_png():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {
    "bomb of pixels.png": lambda: png(60_000, 60_000),
    "no pixel.tif": lambda: png(0, 0),
    "bomb of text.png": lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
    "cut short.png": lambda: whole_png()[:60],
    "text.jpg": lambda: b"import os; os.system('touch marker')",
    "PostScript.tif": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch marker) (w) file",
    "nothing.jpg": lambda: b"",
    "\x1b[31mred\x1b]0;title\x07.png": lambda: b"no picture",
    "\u202eturned\u2066.png": lambda: b"no picture",
    "\udcff.png": lambda: b"no picture",
    "$(touch marker).png": lambda: b"no picture",
}


def check_pictures(folder, tmp_path, monkeypatch, words):
    """One error, from the library and from the command line, whose words a terminal can show."""
    with pytest.raises(ValueError, match=words):
        data.image_folder(folder, 8, cache=tmp_path / "cache")
    monkeypatch.setattr(files, "cache_folder", lambda folder: folder or tmp_path / "cache")
    code, text = said("train", "--data.path", folder, "--data.size=8", "--folder", tmp_path / "r")
    assert code == 2, text
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES, ids=repr)
def test_hostile_pictures(tmp_path, monkeypatch, name):
    """Whatever their names: what they are is seen from what they hold; and no Ghostscript is asked to run them."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'marker'}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # to be looked for
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(whole_png())
    path = Path(os.fsdecode(os.fsencode(str(folder / name))))
    path.write_bytes(PICTURES[name]())
    check_pictures(folder, tmp_path, monkeypatch, "cannot be read as a picture: (.|\n)*; remove or repair it")
    path.write_bytes(whole_png())
    assert len(data.image_folder(folder, 8, cache=tmp_path / "cache")) == 2


@pytest.mark.posix("pipes among files")
def test_links_and_pipes_among_pictures(tmp_path, monkeypatch):
    """A link to what is no picture is named, a loop of folders has an end, a pipe is not waited for."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(whole_png())
    (folder / "again").symlink_to(folder)
    assert len(data.image_folder(folder, 8, cache=tmp_path / "cache")) == 1
    for make, words in (
        (lambda p: p.symlink_to("/etc/passwd"), r"b\.png cannot be read as a picture"),
        (os.mkfifo, r"b\.png is no file: remove it"),
        (lambda p: p.symlink_to("/dev/zero"), r"b\.png is no file: remove it"),
    ):
        make(folder / "b.png")
        check_pictures(folder, tmp_path, monkeypatch, words)
        (folder / "b.png").unlink()


def test_a_hostile_archive_writes_nowhere(tmp_path, monkeypatch):
    """Members that climb out of their folder, and links, in an archive that has the right sum."""
    rows, folder = bytes(2 * 3073), tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    batches = [f"cifar-10-batches-bin/{name}.bin" for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6)))]
    climbing = ["../../marker", str(tmp_path / "marker"), "cifar-10-batches-bin/../../../marker"]
    for links in (batches[:1], []):
        blob = io.BytesIO()
        with tarfile.open(fileobj=blob, mode="w:gz") as out:
            for name in climbing + batches:
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(rows), 0o4755
                if name in links:
                    member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
                out.addfile(member, io.BytesIO(rows))
        (folder / "cifar-10-binary.tar.gz").write_bytes(blob.getvalue())
        address = "http://127.0.0.1:9/cifar-10-binary.tar.gz"
        monkeypatch.setattr(named, "_CIFAR", (address, hashlib.sha256(blob.getvalue()).hexdigest()))
        with pytest.raises(KeyError, match="etc/passwd") if links else contextlib.nullcontext():  # as no member
            assert len(data.cifar10("held-out", folder=folder)) == 2
    kept = {f"cifar10-held-out{end}" for end in (".txt", "-values.npy", "-labels.npy")}
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"cifar-10-binary.tar.gz"} | kept


# --- states of panels ---

WORDS = [
    *("__import__('os').system('touch MARKER')", "{view.__class__.__init__.__globals__}", "%s%n", "$(touch MARKER)"),
    *("javascript:alert(1)", "<script>alert(1)</script>", "'\"><b onmouseover=alert(1)>x</b>", "\x1b[31mred"),
    *("two\nlines", "nan", "inf", "1_000", "9" * 3000),
]
TAG = re.compile("<(?!span role=|/span>|a style=|/a>)", re.IGNORECASE)


@pytest.fixture(scope="module")
def view():
    figure, ax = plotting.canvas()
    ax.set_title("nothing")
    controls = {"x": Slider(0.0, 4.0, 1.0, step=0.5), "law": Choice(("a", "b"), "a"), "on": Toggle(), "seed": Seed(3)}
    return panel(figure, lambda x, law, on, seed: None, name="view", **controls)


def shown(view):
    """What a browser is given as HTML."""
    found, waiting = [], [view.box]
    while waiting:
        widget = waiting.pop()
        waiting += getattr(widget, "children", ())
        if isinstance(widget, ipywidgets.HTML):
            found.append(widget.value)
    return "".join(found)


def check_state(view, state):
    before = view.state
    view._state.value = ""
    for restore in (view.restore, lambda state: setattr(view._state, "value", state)):  # as a reader would paste it
        with pytest.raises(ValueError, match=r"state|bad query field|the link has nothing") as error:
            restore(state)
        assert len(str(error.value)) < 10_000
    assert view.state == before
    assert not TAG.search(shown(view)), shown(view)[:500]


@pytest.mark.slow
@pytest.mark.parametrize("words", WORDS, ids=range(len(WORDS)))
def test_hostile_states(view, tmp_path, words):
    """As the value of each control, as a name, alone, and in a link: refused, nothing changes, and what is shown holds no tag."""
    text = quote(words.replace("MARKER", str(tmp_path / "marker")))
    states = [f"{key}={text}" for key in view.controls]
    states += [f"{text}=1", words.replace("&", "").replace("=", ""), f"http://x/?{text}=1&x=2"]
    states += [f"http://x/?panel={text}&x=2", f"__class__={text}", f"_draw={text}"]
    for state in states:
        check_state(view, state)


@pytest.mark.parametrize("state", ["x=" + "1" * 5_000_000, "x=1&" * 1_000_000], ids=range(2))
def test_states_of_megabytes(view, state):
    with pytest.raises(ValueError, match=r"state has [\d,]+ characters: no panel's is longer than 4,000"):
        view.restore(state)


def test_hostile_addresses(view, tmp_path, monkeypatch):
    """Of a classroom's page: what no panel takes is said, as words and not as HTML."""
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    import classroom

    before = view.state
    for words in WORDS:
        monkeypatch.setattr(classroom, "OPENED", [])
        text = quote(words.replace("MARKER", str(tmp_path / "marker")))
        for query in (f"x={text}", f"{text}=1", f"panel={text}&x=2", f"panel=view&law={text}"):
            monkeypatch.setenv("QUERY_STRING", f"token=x&{query}")
            classroom.open_at(view)
            classroom.report()
            assert view.state == before
            assert "In the address" in shown(view)
            assert not TAG.search(shown(view)), shown(view)[:500]


def test_words_of_a_picture_are_shown_as_words():
    """A description that holds HTML, as of data with such a name."""
    figure, ax = plotting.canvas()
    ax.set_title("<script>alert(1)</script>")
    ax.set_gid("<img src=x onerror=alert(1)>")
    view = panel(figure, lambda x: None, x=Slider(0.0, 1.0, 0.5))
    assert "<script>" in view.alt
    assert not TAG.search(shown(view))
    view.say("<b>bold</b>")
    view._offer("svg")
    assert not TAG.search(shown(view))
