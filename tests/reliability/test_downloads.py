"""Downloads that break off or bring other bytes are reported, leave nothing behind, and are whole the next time."""

import hashlib
import http.server
import os
import signal
import threading
import time

import numpy as np
import pytest

from runs import ended, in_child, wait
from test_data import cifar_archive
from toyscore import data
from toyscore.data import named


class Server(http.server.BaseHTTPRequestHandler):
    """Gives what ``plan`` lists next: the whole, half of it and then nothing, other bytes, or half and no end."""

    content, plan = b"", []

    def do_GET(self):
        how = self.plan.pop(0)
        sent = bytes(len(self.content)) if how == "other bytes" else self.content
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
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"
    monkeypatch.setattr(named, "_CIFAR", (address, hashlib.sha256(Server.content).hexdigest()))
    yield batches
    server.shutdown()
    server.server_close()


def files(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


def check_whole(folder, batches):
    found = data.cifar10("held-out", folder=folder)
    assert np.array_equal(found.values.reshape(3, -1), batches["test_batch.bin"][:, 1:])


@pytest.mark.parametrize(
    ("how", "words"),
    [("half", r"cannot be fetched \(\w+\): check the network"), ("other bytes", r"gave another file than expected")],
)
def test_a_download_that_fails_is_reported_and_tried_again(tmp_path, served, how, words):
    Server.plan = [how, how, "whole"]
    for _ in range(2):
        with pytest.raises(data.DownloadError, match=words):
            data.cifar10(folder=tmp_path)
        assert files(tmp_path) == []
    check_whole(tmp_path, served)


def test_a_download_that_was_killed_is_fetched_anew(tmp_path, served):
    Server.plan = ["stalled", "whole"]
    child = in_child(lambda: data.cifar10("held-out", folder=tmp_path) and None)
    wait(lambda: any(p.stat().st_size for p in files(tmp_path)), 20)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    (left,) = files(tmp_path)
    assert 0 < left.stat().st_size <= len(Server.content) // 2
    assert left.name != "cifar-10-binary.tar.gz"
    check_whole(tmp_path, served)
