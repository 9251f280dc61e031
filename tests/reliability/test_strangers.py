"""What a stranger sends is read, and never run: files, words and pictures made to do harm, each of which does none."""

import ast
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import os
import pickle
import re
import shutil
import struct
import sys
import tarfile
import time
import zlib
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from runs import ROOT, SOURCES, WEIGHTS, ended, in_child, said
from states import seal, with_config
from toyscore import data, plotting, pretrained
from toyscore.config import Config, ConfigError
from toyscore.data import files, named
from toyscore.train import CheckpointError, load_checkpoint
from toyscore.widgets import Choice, Seed, Slider, Toggle, panel

# --- what the code may not call ---

MODULES = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "shelve", "marshal"),
    *("code", "codeop", "runpy", "imp", "pty", "xmlrpc"),
}
CALLS = {
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "builtins.compile"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "torch.serialization.load"),
    *("torch.storage._load_from_bytes", "torch.ops.load_library", "torch.classes.load_library", "ctypes.CDLL"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all"),
    *("yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.CLoader", "yaml.CUnsafeLoader", "yaml.CFullLoader"),
    *("os.system", "os.popen", "os.startfile", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "pandas.eval", "pandas.read_pickle", "types.CodeType", "types.FunctionType"),
    *("importlib.import_module", "importlib.__import__", "importlib.util.spec_from_file_location"),
    *("importlib.machinery.SourceFileLoader", "shutil.unpack_archive", "zipfile.ZipFile.extract"),
}
ROOTS = {name.partition(".")[0] for name in CALLS}
RUNS = re.compile(r"os\.(exec|spawn|posix_spawn)\w*")
METHODS = {"extract", "extractall", "read_pickle", "set_allow_pickle", "create_subprocess_shell"}  # of whatever
OPTIONS = {"shell": False, "allow_pickle": False, "weights_only": True, "trust_remote_code": False}
# (file, what is called): why it may
EXCEPTIONS = {
    ("toyscore/__init__.py", "importlib.import_module"): "one of the names in __all__",
    ("figures/run.py", "importlib.util.spec_from_file_location"): "the files figures/*.py",
    ("figures/run.py", "importlib.import_module"): "--loss names the reader's own module",
    ("notebooks/classroom.py", "os.execv"): "the server, by its whole path",
    ("toyscore/build.py", "compile"): "an argument, true or false",
}


def banned(source):
    """(line, what) of everything in a source that runs what data say, or could: called, or handed on to be called."""
    tree = ast.parse(source)
    known = {}  # a name of the source -> what it is called where it comes from

    def named(node):
        if isinstance(node, ast.Attribute):
            return f"{named(node.value)}.{node.attr}"
        return known.get(node.id, node.id) if isinstance(node, ast.Name) else "?"

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole, first = alias.name, alias.name.split(".")[0]
                known[alias.asname or first] = whole if alias.asname else first
                if first in MODULES:
                    yield node.lineno, whole
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            if node.module.split(".")[0] in MODULES:
                yield node.lineno, node.module
    for node in ast.walk(tree):  # modules and functions by other names: t = torch
        if isinstance(node, ast.Assign) and named(node.value).partition(".")[0] in ROOTS:
            known |= {t.id: named(node.value) for t in node.targets if isinstance(t, ast.Name)}
    for node in ast.walk(tree):
        loaded = ""
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            loaded = named(node)
        elif isinstance(node, ast.Call):
            called = named(node.func)
            words = {word.arg: word.value for word in node.keywords}
            if called == "getattr" and isinstance(node.args[1], ast.Constant):
                loaded = f"{named(node.args[0])}.{node.args[1].value}"
            if called.startswith("subprocess.") and None in words:
                yield node.lineno, f"{called}(**)"
            if called == "numpy.load" and "allow_pickle" not in words:
                yield node.lineno, called
            for option, safe in OPTIONS.items():
                if option in words and not (isinstance(words[option], ast.Constant) and words[option].value is safe):
                    yield node.lineno, f"{option}={ast.unparse(words[option])}"
        if loaded in CALLS or RUNS.fullmatch(loaded) or ("." in loaded and loaded.rpartition(".")[2] in METHODS):
            yield node.lineno, loaded
    handed = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and named(node) == "numpy.load" and id(node) not in handed:
            yield node.lineno, "numpy.load"


def test_nothing_runs_what_data_say(measured):
    found = {}
    for path in SOURCES:
        for line, what in banned(path.read_text()):
            found.setdefault((str(path.relative_to(ROOT)), what), []).append(line)
    assert found.keys() - EXCEPTIONS.keys() == set(), {k: v for k, v in found.items() if k not in EXCEPTIONS}
    assert EXCEPTIONS.keys() - found.keys() == set(), "an exception that nothing needs"
    assert len(SOURCES) > 100


HARMFUL = """import pickle
from cloudpickle import loads
import torch as t; t.load('x')
from torch import load; load('x')
import numpy as np; np.load('x')
import numpy as np; np.load('x', allow_pickle=True)
import numpy; numpy.save('x', 1, allow_pickle=yes)
import yaml; yaml.load('x', Loader=yaml.Loader)
from yaml import unsafe_load as read; read('x')
import os; os.system('x')
from os import popen; popen('x')
import subprocess; subprocess.run('x', shell=True)
from subprocess import Popen; Popen('x', shell=SHELL)
eval('x')
exec('x')
compile('x', 'y', 'exec')
__import__(name)
import importlib; importlib.import_module(name)
archive.extractall()
f(trust_remote_code=True)
f(weights_only=False)
load = eval; load('1')
list(map(eval, words))
@eval\\ndef f(): pass
import torch; read = torch.load; read('x')
import functools, torch; functools.partial(torch.load, 'x')
import torch as t; u = t; u.load('x')
import torch; getattr(torch, 'load')('x')
import numpy as np; list(map(np.load, files))
import numpy as np; read = np.load
import torch; torch.storage._load_from_bytes(b'')
import yaml; yaml.load_all
import yaml; yaml.compose('x', Loader=yaml.UnsafeLoader)
import subprocess; subprocess.run(x, **{'shell': True})
from subprocess import run; run(x, **options)
import os; os.execvp('x', ['x'])
import os; os.spawnlp(0, 'x')
from os import posix_spawn; posix_spawn('x', ['x'], {})
import tarfile; tarfile.open('x').extract('../m')
import zipfile; zipfile.ZipFile('x').extract('../m')
import pandas as pd; pd.eval('x')
import ctypes; ctypes.CDLL('x')
import builtins; builtins.eval('x')""".splitlines()


@pytest.mark.parametrize("source", HARMFUL)
def test_the_search_finds_what_it_looks_for(source):
    assert list(banned(source.replace(r"\n", "\n")))


HARMLESS = """network.eval()
import re; re.compile('x')
import torch; torch.compile(network)
from torch import nn; nn.Module.eval(network)
import numpy as np; np.load('x', mmap_mode='r', allow_pickle=False)
import yaml; yaml.safe_load('x')
import json; json.load(file)
import subprocess; subprocess.run(['x'], check=True)
archive.extractfile('x')
model.load_state_dict(state)""".splitlines()


@pytest.mark.parametrize("source", HARMLESS)
def test_the_search_lets_be_what_does_no_harm(source):
    assert list(banned(source)) == []


# --- what is sent ---

STATUS, REFERENCED = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak():
    """Kilobytes that this process has held at most since it was last asked; 0 where the system does not tell."""
    try:
        found = int(STATUS.read_text().partition("VmHWM:")[2].split()[0])
        REFERENCED.write_text("5")  # from now on
    except OSError:
        return 0
    return found


@pytest.fixture(autouse=True)
def harmless(tmp_path, monkeypatch):
    """Whatever a test reads: nothing is run, it takes no time to speak of, and no gigabyte."""
    monkeypatch.chdir(tmp_path)  # where words that are run would leave their mark
    peak()
    began, before = time.process_time(), peak()
    yield
    assert not (tmp_path / "marker").exists(), "it was run"
    assert time.process_time() - began < 10, "seconds"
    assert peak() - before < 2**20, "kilobytes"


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_the_bomb_is_one(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.fixture
def sent(tmp_path):
    """A copy of a good checkpoint, to be changed; and of its step."""
    run = shutil.copytree(WEIGHTS, tmp_path / "sent")
    return run, run / "step-00001000"


def torch_saved(marker):
    buffer = io.BytesIO()
    torch.save({"model.weight": Bomb(marker)}, buffer)
    return buffer.getvalue()


def safetensors(header, content=b"\0" * 64):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def tensor(shape, begin, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


TENSORS = {
    "a pickle": lambda marker: pickle.dumps(Bomb(marker)),
    "a file of torch.save": torch_saved,
    "a header without end": lambda _: struct.pack("<Q", 2**63) + b"{}",
    "a header of a gigabyte": lambda _: struct.pack("<Q", 2**30) + b"{}",
    "a header of minus one": lambda _: b"\xff" * 8 + b"{}",
    "a deep header": lambda _: safetensors(b'{"a":' * 100_000),
    "a header in pieces": lambda _: safetensors(b'{"a": {"dtype"'),
    "offsets below zero": lambda _: safetensors({"model.a": tensor([4], -16, 0)}),
    "offsets beyond the end": lambda _: safetensors({"model.a": tensor([4], 2**40, 2**40 + 16)}),
    "offsets that overlap": lambda _: safetensors({"model.a": tensor([16], 0, 64), "model.b": tensor([4], 8, 24)}),
    "offsets the wrong way": lambda _: safetensors({"model.a": tensor([4], 16, 0)}),
    "a shape beyond memory": lambda _: safetensors({"model.a": tensor([2**62, 2**62], 0, 64)}),
    "a shape below zero": lambda _: safetensors({"model.a": tensor([-16], 0, 64)}),
    "another shape than its bytes": lambda _: safetensors({"model.a": tensor([2**40], 0, 64)}),
    "a type that runs": lambda _: safetensors({"model.a": tensor([16], 0, 64) | {"dtype": "os.system"}}),
    "nothing": lambda _: b"",
}


def check_refused(run, code=8):
    """By the library and the command line, in a few words."""
    with pytest.raises(CheckpointError) as error:
        pretrained.load(run)
    assert len(str(error.value)) < 1500
    for command in (["sample", "--folder", run, "--samples", "1"], ["export", "--folder", run, "--to", run / "to"]):
        found, text = said(*command)
        assert found == code, text
        assert text.count("\n") == 1
        assert "Traceback" not in text


@pytest.mark.parametrize("case", TENSORS)
def test_hostile_tensors(sent, tmp_path, case, measured):
    """Sealed with their sums, as a stranger would"""
    run, place = sent
    (place / "tensors.safetensors").write_bytes(TENSORS[case](tmp_path / "marker"))
    seal(place)
    with pytest.raises(CheckpointError, match="is as it was written, but it is no checkpoint"):
        load_checkpoint(run)
    check_refused(run)
    measured.count("hostile files, none of which was run")


def as_json(change):
    return lambda about, marker: json.dumps(change(about, marker)).encode()


ABOUT = {
    "a pickle": lambda about, marker: pickle.dumps(Bomb(marker)),
    "depth without end": lambda about, marker: b'{"format": 1, "about": ' + b'{"a":' * 200_000,
    "lists without end": lambda about, marker: b"[" * 200_000,
    "a number of a million digits": lambda about, marker: b'{"format": 1, "step": ' + b"9" * 1_000_000 + b"}",
    "no number": as_json(lambda about, marker: about | {"step": float("nan")}),
    "a class": as_json(lambda about, marker: about | {"__class__": "os.system", "step": {"__reduce__": ["os.system"]}}),
    "a network by name": as_json(lambda about, marker: with_config(about, "network", kind="os.system")),
    "a network by code": as_json(
        lambda about, marker: with_config(about, "network", kind=f"__import__('os').system('touch {marker}')")
    ),
    "a toy by dunder": as_json(lambda about, marker: with_config(about, "data", name="__class__")),
    "a network beyond memory": as_json(lambda about, marker: with_config(about, "network", width=100_000)),
    "a deep network": as_json(lambda about, marker: with_config(about, "network", kind="mlp", depth=10**9)),
    "levels beyond memory": as_json(lambda about, marker: with_config(about, "noise", n_levels=10**12)),
    "a key to the class": as_json(lambda about, marker: with_config(about, "network", __class__="os.system")),
    "an average of none": as_json(lambda about, marker: with_config(about, "training", ema="${touch}")),
}


@pytest.mark.parametrize("case", ABOUT)
def test_hostile_facts(sent, tmp_path, case, measured):
    run, place = sent
    file = place / "checkpoint.json"
    file.write_bytes(ABOUT[case](json.loads(file.read_text()), tmp_path / "marker"))
    seal(place)
    check_refused(run)
    measured.count("hostile files, none of which was run")


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "$(touch marker)", "-c", "tensors.safetensors\0x"])
def test_hostile_sums(sent, tmp_path, name, measured):
    """Names in the sums are not opened"""
    run, place = sent
    (tmp_path / "secret").write_text("mine")
    digest = hashlib.sha256(b"mine").hexdigest()
    lines = (place / "SHA256SUMS").read_text().splitlines()
    (place / "SHA256SUMS").write_text("\n".join([f"{digest}  {name}", lines[1]]) + "\n")

    def read():
        opened = set()
        sys.addaudithook(lambda event, args: event == "open" and opened.add(os.path.abspath(os.fsdecode(args[0]))))
        with contextlib.suppress(CheckpointError):
            load_checkpoint(run)
        assert str(place / "SHA256SUMS") in opened
        assert not {os.path.abspath(name), os.path.abspath(place / name)} & opened

    assert ended(in_child(read)) == 0
    check_refused(run)
    measured.count("hostile files, none of which was run")


def test_what_lies_beside_a_checkpoint_is_left_alone(sent, tmp_path, measured):
    run, place = sent
    for name in ("model.pt", "__init__.py", "sitecustomize.py", "tensors.safetensors.py", "optimizer.pkl"):
        text = pickle.dumps(Bomb(tmp_path / "marker"))
        if name.endswith(".py"):
            text = f"import os; os.system('touch {tmp_path / 'marker'}')".encode()
        (place / name).write_bytes(text)
        (run / name).write_bytes(text)
    assert pretrained.load(run).about["step"] == 1000
    measured.count("hostile files, none of which was run")


REFERENCES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
YAML = {
    "a call": "data: !!python/object/apply:os.system ['touch MARKER']",
    "a call at the top": "!!python/object/apply:os.system ['touch MARKER']",
    "a new object": "data: !!python/object/new:os.system ['touch MARKER']",
    "a module": "data: !!python/module:os",
    "a name": "data: {toy: !!python/name:os.system }",
    "a tuple": "training: {lr: !!python/tuple [1, 2]}",
    "laughs by the billion": REFERENCES + "data: *a11",
    "a reference to itself": "data: &d {toy: *d}",
    "keys that are merged": "a: &a {toy: moons}\ndata: {<<: *a}",
    "depth without end": "data: " + "{a: " * 20_000,
    "lists without end": "[" * 100_000,
    "a class to be made": "network: {class_path: subprocess.Popen, init_args: {args: [touch, MARKER]}}",
    "a class for a value": "data: {toy: {class_path: os.system, init_args: {command: touch MARKER}}}",
    "a class for the whole": "class_path: os.system\ninit_args: {command: touch MARKER}",
    "a network by name": 'network: {kind: "os.system"}',
    "a network by code": "network: {kind: \"__import__('os').system('touch MARKER')\"}",
    "a shell for a device": 'device: "cpu; touch MARKER"',
    "a shell for a number": 'seed: "$(touch MARKER)"',
    "a toy by code": "data: {name: toy, toy: \"__import__('os').system('touch MARKER')\"}\nnetwork: {kind: mlp}",
    "a toy by dunder": "data: {name: toy, toy: __class__}\nnetwork: {kind: mlp}",
    "a folder in a shell": 'data: {name: folder, path: "$(touch MARKER)"}',
    "a folder and more": 'data: {name: folder, path: "; touch MARKER"}',
    "a folder in a pipe": 'data: {name: folder, path: "| touch MARKER"}',
    "another file": "config: /etc/passwd",
    "a file for a group": "data: /etc/passwd",
    "a key with dots": "data.__class__.__init__: 1",
    "null bytes": "data: {toy: \0}",
    "a number of a million digits": "seed: " + "9" * 1_000_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("resumed", [False, True], ids=["given", "stored in a run"])
@pytest.mark.parametrize("case", YAML)
def test_hostile_configurations(tmp_path, case, resumed, measured):
    file = tmp_path / "run" / "config.yaml"
    file.parent.mkdir()
    file.write_text(YAML[case].replace("MARKER", str(tmp_path / "marker")))
    more = ["--resume", "latest"] if resumed else ["--config", file]
    code, text = said("train", "--folder", tmp_path / "run", *more)
    assert code in (2, 3, *([8] if resumed else [])), text
    assert text.count("\n") == 1
    assert len(text) < 2000
    assert "Traceback" not in text
    assert "root:" not in text, "what a file says that was none of its business"
    measured.count("hostile configurations, none of which was run")


def test_a_stored_configuration_is_read_strictly():
    values = Config().asdict()
    assert Config.fromdict(values) == Config()
    with pytest.raises(ConfigError, match=r"noise.sigma_mx is not a key; did you mean noise.sigma_max\?"):
        Config.fromdict(values | {"noise": values["noise"] | {"sigma_mx": 1.0}})
    with pytest.raises(ConfigError, match=r"seed is missing"):
        Config.fromdict({k: v for k, v in values.items() if k != "seed"})
    for group, key, value, words in (
        ("network", "kind", "os.system", "one of continuous, ncsn, compact, mlp"),
        ("network", "width", "32", "a whole number"),
        ("network", "width", True, "a whole number"),
        ("training", "lr", [1], "a number"),
        ("training", "ema", 10**400, "a number or null"),
        ("data", "path", 3, "text or null"),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"{group}.{key} = ") + f".*: it must be {words}"):
            Config.fromdict(values | {group: values[group] | {key: value}})
    with pytest.raises(ConfigError, match=r"data = \[1\]: it must be a group of keys"):
        Config.fromdict(values | {"data": [1]})
    with pytest.raises(ConfigError, match=r"seed = 1.5: it must be a whole number"):
        Config.fromdict(values | {"seed": 1.5})
    assert Config.fromdict(values | {"training": values["training"] | {"lr": 1}}).training.lr == 1


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
    "a bomb of pixels": lambda: png(60_000, 60_000),
    "a side without end": lambda: png(2**31 - 1, 1),
    "no pixel": lambda: png(0, 0),
    "a bomb of text": lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
    "a bomb of colours": lambda: png(8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8)))),
    "cut short": lambda: whole_png()[:60],
    "text": lambda: b"import os; os.system('touch marker')",
    "a page": lambda: b"<svg onload='alert(1)'></svg>",
    "a script of PostScript": lambda: (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch marker) (w) file closefile\nshowpage\n"
    ),
    "nothing": lambda: b"",
    "an archive": lambda: gzip.compress(bytes(10**6)),
}


def check_pictures(folder, tmp_path, monkeypatch, words):
    """One error, from the library and from the command line, whose words a terminal can show."""
    with pytest.raises(ValueError, match=words):
        data.image_folder(folder, 8, cache=tmp_path / "cache")
    monkeypatch.setattr(files, "_folder", lambda folder: folder or tmp_path / "cache")
    code, text = said(
        "train", "--data.name", "folder", "--data.path", folder, "--data.size", "8", "--folder", tmp_path / "r"
    )
    assert code == 2, text
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "ending"), list(zip(PICTURES, itertools.cycle([".png", ".jpg", ".tif"]), strict=False))
)
def test_hostile_pictures(tmp_path, monkeypatch, case, ending, measured):
    """Whatever their names end in: what they are is seen from what they hold; and no Ghostscript is asked to run them"""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'marker'}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # to be looked for
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / f"b{ending}").write_bytes(PICTURES[case]())
    check_pictures(
        tmp_path / "pictures",
        tmp_path,
        monkeypatch,
        rf"b\{ending} cannot be read as a picture: .*; remove or repair it",
    )
    measured.count("hostile pictures and names of files, each told")


@pytest.mark.parametrize(
    "name",
    [
        "two\nlines.png",
        "\x1b[31mred\x1b]0;title\x07.png",
        "back\b\b\b\r.png",
        "\u202eturned\u2066.png",
        "\udcff.png",
        "$(touch marker).png",
    ],
    ids=["two lines", "colours and a title", "moved", "turned round", "no UTF-8", "a shell"],
)
def test_hostile_names_of_files(tmp_path, monkeypatch, name, measured):
    (tmp_path / "pictures").mkdir()
    path = Path(os.fsdecode(os.fsencode(str(tmp_path / "pictures" / name))))
    path.write_bytes(b"no picture")
    check_pictures(tmp_path / "pictures", tmp_path, monkeypatch, "cannot be read as a picture")
    path.write_bytes(whole_png())
    assert len(data.image_folder(tmp_path / "pictures", 8, cache=tmp_path / "cache")) == 1
    measured.count("hostile pictures and names of files, each told")


def test_links_and_pipes_among_pictures(tmp_path, monkeypatch, measured):
    """A link to what is no picture is named, a loop of folders has an end, a pipe is not waited for"""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(whole_png())
    (folder / "again").symlink_to(folder)
    assert len(data.image_folder(folder, 8, cache=tmp_path / "cache")) == 1
    for make, words in (
        (lambda p: p.symlink_to("/etc/passwd"), r"b\.png cannot be read as a picture"),
        (os.mkfifo, r"b\.png is no file: remove it"),
        (lambda p: p.symlink_to("/dev/zero"), r"b\.png is no file: remove it"),
        (os.mkdir, r"b\.png is no file: remove it"),
    ):
        make(folder / "b.png")
        check_pictures(folder, tmp_path, monkeypatch, words)
        (folder / "b.png").rmdir() if (folder / "b.png").is_dir() else (folder / "b.png").unlink()
        measured.count("hostile pictures and names of files, each told")


def test_a_hostile_archive_writes_nowhere(tmp_path, monkeypatch, measured):
    """Members that climb out of their folder, and links, in an archive that has the right sum"""
    rows = np.zeros((2, 3073), np.uint8).tobytes()
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)

    def archive(*links):
        blob = io.BytesIO()
        with tarfile.open(fileobj=blob, mode="w:gz") as out:
            for name in ("../../marker", str(tmp_path / "marker"), "cifar-10-batches-bin/../../../marker"):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(rows), 0o4755
                out.addfile(member, io.BytesIO(rows))
            for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                if name in links:
                    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                    out.addfile(member)
                else:
                    member.size = len(rows)
                    out.addfile(member, io.BytesIO(rows))
        (inside / "cifar-10-binary.tar.gz").write_bytes(blob.getvalue())
        monkeypatch.setattr(
            named, "_CIFAR", ("http://127.0.0.1:9/cifar-10-binary.tar.gz", hashlib.sha256(blob.getvalue()).hexdigest())
        )

    archive("test_batch.bin")
    with pytest.raises(KeyError, match="etc/passwd"):  # as no member of the archive
        data.cifar10("held-out", folder=inside)
    archive()
    assert len(data.cifar10("held-out", folder=inside)) == 2
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} <= {
        "cifar-10-binary.tar.gz",
        "cifar10-held-out.txt",
        "cifar10-held-out-values.npy",
        "cifar10-held-out-labels.npy",
    }
    measured.count("hostile files, none of which was run")


# --- states of panels ---

WORDS = [
    "__import__('os').system('touch MARKER')",
    "{view.__class__.__init__.__globals__}",
    "{0.__class__}",
    "%s%s%s%n",
    "${jndi:ldap://127.0.0.1/a}",
    "$(touch MARKER)",
    "`touch MARKER`",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "'\"><b onmouseover=alert(1)>x</b>",
    "javascript:alert(1)",
    "\x1b[31mred",
    "two\nlines",
    "nan",
    "inf",
    "-0x10",
    "1_000",
    "9" * 3000,
    "True; touch MARKER",
]
TAG = re.compile("<(?!span role=|/span>|a style=|/a>)", re.IGNORECASE)


@pytest.fixture(scope="module")
def view():
    figure, ax = plotting.canvas()
    ax.set_title("nothing")
    return panel(
        figure,
        lambda x, law, on, seed: None,
        name="view",
        x=Slider(0.0, 4.0, 1.0, step=0.5),
        law=Choice(("a", "b"), "a"),
        on=Toggle(),
        seed=Seed(3),
    )


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
    with pytest.raises(ValueError, match=r"state|bad query field|the link has nothing") as error:
        view.restore(state)
    assert len(str(error.value)) < 10_000
    with pytest.raises(ValueError, match=r"state|bad query field|the link has nothing"):
        view._state.value = state  # as a reader would paste it
    assert view.state == before
    assert not TAG.search(shown(view)), shown(view)[:500]


@pytest.mark.slow
@pytest.mark.parametrize("words", WORDS, ids=range(len(WORDS)))
def test_hostile_states(view, tmp_path, words, measured):
    """As the value of each control, as a name, alone, and in a link: refused, nothing changes, and what is shown holds no tag"""
    from urllib.parse import quote

    words = words.replace("MARKER", str(tmp_path / "marker"))
    states = [f"{key}={quote(words)}" for key in view.controls]
    states += [f"{quote(words)}=1", words.replace("&", "").replace("=", ""), f"http://x/?{quote(words)}=1&x=2"]
    states += [f"http://x/?panel={quote(words)}&x=2", f"__class__={quote(words)}", f"_draw={quote(words)}"]
    for state in states:
        check_state(view, state)
        measured.count("hostile states of a panel, each refused")


@pytest.mark.parametrize(
    "state", ["x=" + "1" * 5_000_000, "x=1&" * 1_000_000, "a" * 5_000_000, "seed=" + "9" * 1_000_000]
)
def test_states_of_megabytes(view, state, measured):
    with pytest.raises(ValueError, match=r"state has [\d,]+ characters: no panel's is longer than 4,000"):
        view.restore(state)
    measured.count("hostile states of a panel, each refused")


def test_hostile_addresses(view, tmp_path, monkeypatch, measured):
    """Of a classroom's page: what no panel takes is said, as words and not as HTML"""
    from urllib.parse import quote

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
            measured.count("hostile states of a panel, each refused")


def test_words_of_a_picture_are_shown_as_words(measured):
    """A description that holds HTML, as of data with such a name"""
    figure, ax = plotting.canvas()
    ax.set_title("<script>alert(1)</script>")
    ax.set_gid("<img src=x onerror=alert(1)>")
    view = panel(figure, lambda x: None, x=Slider(0.0, 1.0, 0.5))
    assert "<script>" in view.alt
    assert not TAG.search(shown(view))
    view.say("<b>bold</b>")
    assert not TAG.search(shown(view))
    view._offer("svg")
    assert not TAG.search(shown(view))
