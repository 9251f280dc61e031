"""Disks that are full or locked, clocks that go back, folders that are taken, downloads that break off: nothing is lost."""

import contextlib
import hashlib
import http.server
import json
import os
import resource
import shutil
import signal
import threading
import time

import matplotlib as mpl
import numpy as np
import pytest
import torch

from mounts import fill, make_read_only, on_a_disk_of
from runs import (
    FEW,
    WEIGHTS,
    WRITERS,
    at_touch,
    contents,
    digest,
    ended,
    forked,
    in_child,
    said,
    tiny,
    wait,
    writing,
)
from states import same, state_at
from test_data import cifar_archive
from toyscore import data, plotting, pretrained
from toyscore.cli import main
from toyscore.data import named
from toyscore.train import latest_checkpoint, load_checkpoint, save_checkpoint

PAGE = 4096


def limited(n_bytes):
    """No file of this process grows beyond that, which the system tells like a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def test_a_full_disk_loses_nothing(tmp_path):
    """Files limited to a few bytes: the save fails with the system's words, and the one before still loads"""
    state = state_at(1)
    path = save_checkpoint(tmp_path, state)

    def save_in_little_room():
        limited(2000)
        with contextlib.suppress(OSError):
            save_checkpoint(tmp_path, state | {"step": 2})
            return 1
        return 7

    assert ended(in_child(save_in_little_room)) == 7
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert same(load_checkpoint(tmp_path).state, state)


@pytest.mark.slow
def test_a_full_disk_is_named_and_what_was_trained_stays(tmp_path):
    """The log fits, a checkpoint does not; then there is room again, and the run goes on"""
    run = tmp_path / "run"
    assert ended(forked(*tiny(run), errors=tmp_path / "errors", before=lambda: limited(100_000))) == 4
    assert "no space left to write" in (tmp_path / "errors").read_text()
    assert (run / "log.jsonl").read_text().count("\n") >= 6
    assert main(tiny(run, "--training.n_steps=9")) == 0
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text() + '{"step": 9, "lo')  # the line that did not fit
    assert said("plot-loss", "--folder", run)[0] == 0
    assert load_checkpoint(run).state["step"] == 9


@pytest.mark.slow
@pytest.mark.usefixtures("little_to_judge")
@pytest.mark.parametrize("command", WRITERS)
def test_a_command_without_room_leaves_what_was_there(tmp_path, command, measured):
    """Each of its files as it was, none that is cut short; and it says what the matter is"""
    words = writing(command, tmp_path / "to")
    assert main(words) == 0
    before = contents(tmp_path / "to")
    shutil.copytree(tmp_path / "to", tmp_path / "other")
    if command == "export":  # which does not write again what is there
        shutil.rmtree(tmp_path / "to")
        before = {}
    for room in (400, 1000):  # enough for the message
        child = forked(*words, errors=tmp_path / "errors", before=lambda room=room: limited(room))
        assert ended(child) == 4
        assert "no space left to write" in (tmp_path / "errors").read_text()
        if (tmp_path / "to").exists():
            assert contents(tmp_path / "to") == before
    assert main(words) == 0
    assert contents(tmp_path / "to").keys() == contents(tmp_path / "other").keys()
    measured.count("commands without room to write, their files as they were")


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "gif"])
def test_a_figure_without_room_leaves_what_was_there(tmp_path, ending):
    figure, ax = plotting.canvas()
    plotting.samples(ax, torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    picture = plotting.renderer(figure)()
    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"before")

    def work():
        limited(100)
        try:
            with mpl.rc_context(plotting.STYLE):
                if ending == "gif":
                    plotting.save_gif([picture, picture[::-1]], path)
                else:
                    plotting.save(figure, path)
        except OSError:
            return 7

    assert ended(in_child(work)) == 7
    assert contents(tmp_path) == {path.name: b"before"}


@pytest.mark.slow
@pytest.mark.usefixtures("little_to_judge")
def test_on_a_disk_that_fills_up_nothing_is_lost(tmp_path, measured):
    """A small disk, with more and more room page by page, until each command and each save has enough"""
    disk, state = tmp_path / "disk", state_at(1)

    def work():
        save_checkpoint(disk / "saves", state)
        for room in range(0, 40 * PAGE, PAGE):
            fill(disk, room)
            try:
                save_checkpoint(disk / "saves", state | {"step": 2})
                break
            except OSError:
                assert [p.name for p in (disk / "saves").iterdir()] == ["step-00000001"]
                assert same(load_checkpoint(disk / "saves").state, state)
        assert room > 2 * PAGE
        assert load_checkpoint(disk / "saves").state["step"] == 2
        shutil.rmtree(disk / "saves")
        for command in ("sample", "numbers", "animate", "evaluate"):
            fill(disk, 2**20)
            words = writing(command, disk / command)
            assert said(*words)[0] == 0
            for file in (disk / command).iterdir():
                file.write_bytes(b"before")
            before = contents(disk / command)
            for room in range(0, 100 * PAGE, PAGE):
                fill(disk, room)
                code, text = said(*words)
                if code == 0:
                    break
                assert code == 4, text
                assert "no space left to write" in text
                assert contents(disk / command) == before
            assert code == 0
            assert room > 0
            shutil.rmtree(disk / command)

    on_a_disk_of(4 * 2**20, disk, work)
    measured.count("kinds of writing tried page by page on a disk that fills up", 5)


@pytest.mark.slow
@pytest.mark.usefixtures("little_to_judge")
def test_a_disk_that_cannot_be_written_to_is_named(tmp_path, whole, measured):
    """A run on it can be used, its results go elsewhere, and nothing more can be asked of it"""
    disk = tmp_path / "disk"
    (tmp_path / "here").mkdir()

    def work():
        os.chdir(tmp_path / "here")
        shutil.copytree(whole, disk / "run")
        make_read_only(disk)
        before = contents(disk)
        for words in (
            tiny(disk / "new"),
            ["train", "--folder", disk / "run", "--resume", "latest"],
            ["sample", *FEW, "--folder", disk / "run"],
            ["evaluate", *FEW, "--folder", disk / "run"],
            ["export", "--folder", disk / "run", "--to", disk / "export"],
            ["plot-loss", "--folder", disk / "run"],
        ):
            code, text = said(*words)
            assert code == 3, (words, text)
            assert str(disk) in text, text
            assert text.count("\n") == 1
        assert load_checkpoint(disk / "run").state["step"] == 40
        assert said("sample", *FEW, "--folder", disk / "run", "--out", tmp_path / "here" / "x.png")[0] == 0
        assert said("export", "--folder", disk / "run", "--to", tmp_path / "here" / "model")[0] == 0
        assert contents(disk) == before

    on_a_disk_of(8 * 2**20, disk, work)
    measured.count("commands refused by a folder that cannot be written to, which is named", 6)


@pytest.mark.slow
def test_a_clock_that_goes_back_changes_nothing(tmp_path, whole, monkeypatch):
    """The system's clock, and the times of files: the same bits, and no time in the log below zero"""
    clock = iter(range(2_000_000_000, 0, -100))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock) * 10**9)
    run = tmp_path / "run"
    stop = lambda: at_touch(1, run / "checkpoints" / "step-00000014", signal.SIGTERM)  # noqa: E731
    assert ended(forked(*tiny(run), before=stop)) == 143
    assert 14 <= load_checkpoint(run).state["step"] < 40
    for age, place in enumerate(sorted((run / "checkpoints").iterdir(), reverse=True)):
        for path in (*place.iterdir(), place):
            os.utime(path, (1_000_000 + age, 1_000_000 + age))  # the newest is the oldest
    latest = latest_checkpoint(run / "checkpoints")
    assert latest == max((run / "checkpoints").iterdir())
    assert main(tiny(run, "--resume", "latest")) == 0
    assert digest(run) == digest(whole)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0
    assert all(line["examples_per_second"] > 0 for line in lines)


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_and_the_lock_of_a_killed_one_holds_nobody_up(tmp_path, whole):
    run = tmp_path / "run"
    first = forked(*tiny(run))
    wait(lambda: (run / "checkpoints" / "step-00000007").exists())
    os.kill(first, signal.SIGSTOP)  # so that it is there for as long as the others take
    before = contents(run)
    for more in ([], ["--resume", "latest"], ["--training.n_steps=2"]):
        code, text = said(*tiny(run), *more)
        assert code == 9
        assert f"{run} is in use by another run: wait for it, or pass another folder" in text
    assert contents(run) == before
    os.kill(first, signal.SIGKILL)
    ended(first)
    assert (run / ".lock").exists()
    assert said(*tiny(run), "--resume", "latest")[0] == 0
    assert digest(run) == digest(whole)


class Server(http.server.BaseHTTPRequestHandler):
    """Gives what ``plan`` says next: the whole, half of it and then nothing, other bytes, or half and no end."""

    content, plan = b"", []

    def do_GET(self):
        how = self.plan.pop(0)
        sent = self.content
        if how == "other bytes":
            sent = bytes(len(sent))
        self.send_response(200)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent if how in ("whole", "other bytes") else sent[: len(sent) // 2])
        self.wfile.flush()
        if how == "stalled":
            time.sleep(30)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(monkeypatch):
    """A server of CIFAR-10's archive, in small."""
    Server.content, batches = cifar_archive()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
    monkeypatch.setattr(named, "_CIFAR", (address, hashlib.sha256(Server.content).hexdigest()))
    yield Server, batches
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("how", "words"),
    [("half", r"cannot be fetched \(\w+\): check the network"), ("other bytes", r"gave another file than expected")],
)
def test_a_download_that_fails_is_told_and_tried_again(tmp_path, served, how, words, measured):
    server, batches = served
    server.plan = [how, how, "whole"]
    for _ in range(2):
        with pytest.raises(data.DownloadError, match=words):
            data.cifar10(folder=tmp_path)
        assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    found = data.cifar10("held-out", folder=tmp_path)
    assert np.array_equal(found.values.reshape(3, -1), batches["test_batch.bin"][:, 1:])
    measured.count("downloads cut short or of other bytes, told, and whole the next time")


def test_a_download_that_was_killed_is_fetched_anew(tmp_path, served, measured):
    server, batches = served
    server.plan = ["stalled", "whole"]
    child = in_child(lambda: data.cifar10("held-out", folder=tmp_path) and None)
    wait(lambda: any(p.is_file() and p.stat().st_size for p in tmp_path.rglob("*")), 20)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [0 < p.stat().st_size <= len(server.content) // 2 for p in left] == [True], "a part of the file"
    assert left[0].name != "cifar-10-binary.tar.gz"
    found = data.cifar10("held-out", folder=tmp_path)
    assert np.array_equal(found.values.reshape(3, -1), batches["test_batch.bin"][:, 1:])
    measured.count("downloads cut short or of other bytes, told, and whole the next time")


def test_an_export_or_a_run_where_a_file_stands_is_named(tmp_path):
    (tmp_path / "taken").write_text("mine")
    for words in (
        tiny(tmp_path / "taken"),
        ["export", "--folder", WEIGHTS, "--to", tmp_path / "taken"],
        ["sample", *FEW, "--out", tmp_path / "taken" / "x.png"],
        ["evaluate", *FEW, "--out", tmp_path / "taken"],
    ):
        code, text = said(*words)
        assert code == 3, text
        assert "taken" in text
    assert (tmp_path / "taken").read_text() == "mine"
    assert pretrained.digits()
