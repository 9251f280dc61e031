"""Writing that is killed, stopped, refused or without room: every file is the old one or the new one, never half of one."""

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import time
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch

from runs import FEW, WEIGHTS, Touch, contents, digest, ended, in_child, limited, said, toy
from states import same, state_at
from toyscore import plotting, pretrained
from toyscore.cli import main
from toyscore.cli.errors import StoppedError
from toyscore.cli.evaluation import evaluate
from toyscore.cli.folder import RunFolder, locked
from toyscore.cli.options import Evaluate
from toyscore.cli.sampling import write_picture
from toyscore.cli.signals import Stop, stopped
from toyscore.config import Config
from toyscore.data.files import stored
from toyscore.train import list_checkpoints, load_checkpoint, save_checkpoint

STATE = state_at(1)


def write_figure(path, n):
    figure, ax = plotting.canvas()
    plotting.samples(ax, torch.full((3, 2), float(n)))
    plotting.save(figure, path)


def begin_run(folder, n):
    run = RunFolder(folder)
    if n == 1:
        run.log.write_text("".join(json.dumps({"step": step, "seconds": 1.0}) + "\n" for step in range(9)))
    run.begin(Config(seed=n), 8 - n)


def export(folder, n):
    pretrained.export(folder.parents[1] / "run", folder, precision="float32" if n == 1 else "float16")


# kind -> write(folder, n), which puts version n there; and the versions before it
KINDS = {
    "first checkpoint": (lambda folder, n: save_checkpoint(folder, STATE, {"n": n}), []),
    "third checkpoint": (lambda folder, n: save_checkpoint(folder, STATE | {"step": n}), [1, 2]),
    "same step": (lambda folder, n: save_checkpoint(folder, STATE, {"n": n}), [1]),
    "cache": (lambda folder, n: stored("x", lambda: {"values": np.arange(2000), "labels": np.arange(7)}, folder), []),
    "numbers": (lambda folder, n: write_picture(torch.full((9, 2), n), folder / "x.npy"), [1]),
    "mosaic": (lambda folder, n: write_picture(torch.full((6, 1, 8, 8), 0.1 * n), folder / "x.png"), [1]),
    "figure": (lambda folder, n: write_figure(folder / "x.svg", n), [1]),
    "animation": (lambda folder, n: plotting.save_gif([np.full((8, 8, 3), n, np.uint8)] * 2, folder / "x.gif"), [1]),
    "run": (begin_run, [1]),
    "export": (export, [1]),
    "evaluation": (lambda folder, n: evaluate(Evaluate(samples=6, seed=n, out=str(folder)), {}), [1]),
}


def read(folder):
    """What is there for use: every file that is not hidden, and of checkpoints the newest."""
    found = {name: text for name, text in contents(folder, hidden=False).items() if text and name[:5] != "step-"}
    return found | ({"newest": contents(load_checkpoint(folder).path)} if list_checkpoints(folder) else {})


def check_whole(left, old, new):
    for name in left.keys() | old.keys() | new.keys():
        assert left.get(name) in (old.get(name), new.get(name)), name
    if "evaluation.json" in left:  # numbers report whether the table next to them is of the same evaluation
        pair = ("evaluation.json", "evaluation.md")
        table = hashlib.sha256(left["evaluation.md"]).hexdigest()
        belong = any(all(left[name] == version[name] for name in pair) for version in (old, new))
        assert (json.loads(left["evaluation.json"])["facts"]["table"] == table) == belong


@pytest.fixture
def kind(request, tmp_path, whole, little_to_judge):
    """A kind of writing; ``copy(name)`` is the folder as it was before, ``old`` and ``new`` what is read there before and after."""
    write, before = KINDS[request.param]
    folder = tmp_path / "before" / "to"
    folder.mkdir(parents=True)
    (tmp_path / "run").symlink_to(whole)

    def copy(name):
        return shutil.copytree(folder, tmp_path / str(name) / "to")  # a model card knows its name

    with mpl.rc_context(plotting.STYLE):
        for n in before:
            write(folder, n)
        done = copy("after")
        write(done, 3)
        assert read(folder) != read(done)
        yield SimpleNamespace(write=write, copy=copy, folder=folder, old=read(folder), new=read(done))


def fails(write, folder, at):
    def full(event, args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Touch(folder, full, at) as touch, contextlib.suppress(OSError):
        write()
    return touch.reached


def is_stopped(write, folder, at):
    number, found = (signal.SIGINT, signal.SIGTERM)[at % 2], None
    with Touch(folder, lambda *_: signal.raise_signal(number), at) as touch:
        try:
            with Stop(then=stopped).listening():
                write()
        except StoppedError as error:
            found = error.signum
    assert found == (number if touch.reached else None)
    return touch.reached


def is_killed(write, folder, at):
    def work():
        with Touch(folder, lambda *_: os.kill(os.getpid(), signal.SIGKILL), at):
            write()

    code = ended(in_child(work))
    assert code in (0, -signal.SIGKILL)
    return code != 0


SLOW = {"evaluation"} | {(kind, is_killed) for kind in KINDS if kind != "same step"}
CUT = [
    pytest.param(kind, fault, marks=[pytest.mark.slow] * bool({kind, (kind, fault)} & SLOW))
    for kind in KINDS
    for fault in (fails, is_stopped, is_killed)
]


@pytest.mark.parametrize(("kind", "fault"), CUT, indirect=["kind"])
def test_writing_that_is_cut_short_leaves_old_or_new(kind, fault):
    """At each touch of a file, one after the other, until the writing ends by itself; and the next writing works."""
    for at in range(1, 200):
        folder = kind.copy(at)
        reached = fault(lambda folder=folder: kind.write(folder, 3), folder, at)
        left = read(folder)
        check_whole(left, kind.old, kind.new)
        if fault is not is_killed:
            assert {p.name for p in folder.rglob(".*")} <= {".lock"}
        if not reached:
            break
        if fault is is_killed or at % 3 == 1:
            kind.write(folder, 3)
            assert read(folder) == kind.new
    assert left == kind.new
    assert 4 < at < 199


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_a_full_disk_loses_nothing(kind):
    """Files limited to more and more bytes, until there is room."""
    for room in (0, *(4**n for n in range(2, 14))):
        folder, done = kind.copy(room), False
        with limited(room), contextlib.suppress(OSError):
            kind.write(folder, 3)
            done = True
        if done:
            break
        assert read(folder) == kind.old
        assert {p.name for p in folder.rglob(".*")} <= {".lock"}
    assert room > 0
    assert read(folder) == kind.new


COMMANDS = {
    "sample": ["sample", *FEW, "--out={}/x.npy"],
    "animate": ["animate", *FEW, "--frames=2", "--out={}/x.gif"],
    "export": ["export", f"--folder={WEIGHTS}", "--to={}"],
    "evaluate": ["evaluate", *FEW, "--out={}"],
}


@pytest.mark.usefixtures("little_to_judge")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_cut_short_reports_it_in_a_line(command, tmp_path):
    words = [word.format(tmp_path / "to") for word in COMMANDS[command]]
    (tmp_path / "to").mkdir()
    with limited(400):
        code, text = said(*words)
    assert (code, text.count("\n")) == (4, 1)
    assert "no space left to write" in text
    for number in (signal.SIGINT, signal.SIGTERM):
        with Touch(tmp_path / "to", lambda *_, number=number: signal.raise_signal(number), 1):
            assert said(*words) == (128 + number, "toyscore: stopped\n")
    assert set(contents(tmp_path / "to", hidden=False)) == set()


@pytest.mark.parametrize("kind", ["first checkpoint", "third checkpoint"], indirect=True)
def test_a_checkpoint_is_on_the_disk_before_it_takes_its_place(kind):
    """Each file and the folder of their names are flushed before the renaming, and the folder of checkpoints after it."""
    events = []

    def note(event, args):
        if event in ("os.fsync", "os.rename") or (event == "open" and args[2] & os.O_WRONLY):
            events.append(event)

    with Touch(kind.folder, note):
        kind.write(kind.folder, 3)
    assert events == ["open", "os.fsync"] * 3 + ["os.fsync", "os.rename", "os.fsync"]


@pytest.mark.slow
def test_killed_at_any_time_a_whole_checkpoint_is_left(tmp_path):
    """200 kills at random times while saving again and again, each run going on where the one before was killed."""

    def save_forever():
        step = load_checkpoint(tmp_path).state["step"]
        while True:
            step += 1
            save_checkpoint(tmp_path, STATE | {"step": step})
            os.write(told, b".")

    save_checkpoint(tmp_path, STATE)
    moments, before = random.Random(0), 1
    for _ in range(200):
        heard, told = os.pipe()
        child = in_child(save_forever)
        os.close(told)
        assert os.read(heard, 1)  # it has saved one, and is at the next
        time.sleep(0.005 * moments.random())
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        os.close(heard)
        found = load_checkpoint(tmp_path).state
        assert found["step"] > before
        assert same(found | {"step": 1}, STATE)
        before = found["step"]


# --- runs ---


def test_training_on_a_full_disk_is_named_and_goes_on_later(tmp_path):
    """The log fits, a checkpoint does not; then there is room again, and the run goes on."""
    run = tmp_path / "run"
    with limited(100_000):
        code, text = said(*toy(run, "--training.n_steps=9", "--network.width=64"))
    assert code == 4
    assert "no space left to write" in text
    assert (run / "log.jsonl").read_text().count("\n") >= 6
    assert main(toy(run, "--training.n_steps=9", "--network.width=64")) == 0
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text() + '{"step": 9, "lo')  # the line that did not fit
    assert said("plot-loss", "--folder", run)[0] == 0
    assert load_checkpoint(run).state["step"] == 9


@pytest.mark.usefixtures("little_to_judge")
def test_a_read_only_folder_is_named(tmp_path, whole, monkeypatch):
    """A run in it can be used, its results go elsewhere, and nothing more can be asked of it."""
    disk = tmp_path / "disk"
    shutil.copytree(whole, disk / "run")
    monkeypatch.chdir(tmp_path)
    before, access = contents(disk), os.access

    def refuse(event, args):
        if event != "os.fsync" and (event != "open" or args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            raise OSError(errno.EROFS, "Read-only file system", str(args[0]))

    refused = lambda path, mode: mode & os.W_OK and str(disk) in str(path)  # noqa: E731
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) and not refused(path, mode))
    with Touch(disk, refuse):
        uses = ["train --resume latest", f"export --to {disk}/export", "plot-loss"]
        uses = [*map(str.split, uses), ["sample", *FEW], ["evaluate", *FEW]]
        for words in (toy(disk / "new"), *([*words, "--folder", disk / "run"] for words in uses)):
            code, text = said(*words)
            assert code == 3, (words, text)
            assert str(disk) in text
            assert text.count("\n") == 1
        assert load_checkpoint(disk / "run").state["step"] == 40
        assert said("sample", *FEW, "--folder", disk / "run", "--out", "x.png")[0] == 0
        assert said("export", "--folder", disk / "run", "--to", "model")[0] == 0
    assert contents(disk) == before


def test_a_second_run_is_refused_and_the_lock_of_a_killed_one_is_void(tmp_path, whole):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = contents(run)
    with locked(run):
        for more in ([], ["--resume", "latest"], ["--training.n_steps=2"]):
            code, text = said(*toy(run), *more)
            assert code == 9
            assert f"{run} is in use by another run: wait for it, or pass another folder" in text
    assert contents(run) == before

    def hold():
        with locked(run):
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(in_child(hold)) == -signal.SIGKILL
    assert (run / ".lock").exists()
    with locked(run):
        pass


def test_a_clock_that_goes_back_changes_nothing(tmp_path, whole, monkeypatch):
    """The system's clock, and the times of files: bit-identical, and no time in the log below zero."""
    clock = iter(range(2_000_000_000, 0, -100))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock) * 10**9)
    run = tmp_path / "run"
    stop = lambda event, _: event == "os.rename" and signal.raise_signal(signal.SIGTERM)  # noqa: E731
    with Touch(run / "checkpoints" / "step-00000014", stop):
        assert said(*toy(run))[0] == 143
    assert 14 <= load_checkpoint(run).state["step"] < 40
    for age, place in enumerate(sorted((run / "checkpoints").iterdir(), reverse=True)):
        for path in (*place.iterdir(), place):
            os.utime(path, (1_000_000 + age, 1_000_000 + age))  # the newest is the oldest
    assert main(toy(run, "--resume", "latest")) == 0
    assert digest(run) == digest(whole)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    seconds = [0.0, *(line["seconds"] for line in lines)]
    assert seconds == sorted(seconds)
    assert all(line["examples_per_second"] > 0 for line in lines)
