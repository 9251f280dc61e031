"""Runs of the command line, in this process and in others."""

import atexit
import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest

from toyscore.cli import main

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for pattern in ("toyscore/**/*.py", "figures/*.py", "notebooks/**/*.py", "docs/*.py", "benchmarks/*.py")
    for path in ROOT.glob(pattern)
)
WEIGHTS = ROOT / "toyscore" / "weights" / "digits"
TINY = [
    "--network.width=2",
    "--training.batch_size=4",
    "--training.n_steps=40",
    "--training.checkpoint_every=7",
    "--training.log_every=1",
    "--training.ema=0.9",
    "--sampling.n_levels=2",
    "--sampling.n_steps_each=2",
    "--device=cpu",
    "--threads=1",
]
FEW = ["--sampling.n_levels=2", "--sampling.n_steps_each=1", "--samples=6", "--device=cpu", "--threads=1"]


def contents(folder, hidden=True):
    """path -> bytes of each file below a folder, None of what is no file; with or without those of hidden names."""
    paths = {p.relative_to(folder): p for p in sorted(folder.rglob("*"))}
    shown = {name: p for name, p in paths.items() if hidden or not any(part[0] == "." for part in name.parts)}
    return {str(name): p.read_bytes() if p.is_file() else None for name, p in shown.items()}


def tiny(run, *more, config="digits"):
    return ["train", "--config", str(ROOT / "configs" / f"{config}.yaml"), *TINY, "--folder", str(run), *more]


def toy(run, *more):
    """A run in the plane, which takes a tenth of the time."""
    return tiny(run, *more, config="toy")


def said(*arguments):
    """The exit code and what was written to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
        code = main([str(a) for a in arguments])
    return code, errors.getvalue()


def told(*arguments):
    """What a command that succeeds prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([str(a) for a in arguments]) == 0
    return printed.getvalue()


def digest(run):
    """Of the tensors of the last checkpoint, weights, averages and moments."""
    return hashlib.sha256(
        max((run / "checkpoints").glob("step-*")).joinpath("tensors.safetensors").read_bytes()
    ).hexdigest()


@functools.cache
def finished():
    """A tiny run of 40 steps that nothing interrupted, trained once in a session: copy it before it is changed."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    assert main(tiny(folder / "run")) == 0
    return folder / "run"


def in_child(work):
    """Begin ``work`` in a process of its own, which has everything imported already; it exits with what that returns.

    It takes signals as a command in a terminal does: tests that run in the background are told to ignore Ctrl-C.
    """
    if not hasattr(os, "fork"):
        pytest.skip("Windows cannot fork")
    child = os.fork()
    if child == 0:
        code = 99
        try:
            for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
                signal.signal(number, handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            code = int(work() or 0)
        finally:
            os._exit(code)
    return child


def forked(*arguments, errors=os.devnull, before=lambda: None):
    """The command in a process of its own; what it writes to stderr goes to a file, and ``before`` is called there first."""

    def work():
        before()
        for number in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        with open(errors, "w", buffering=1) as told, contextlib.redirect_stderr(told):
            return main([str(a) for a in arguments])

    return in_child(work)


def two_processes(*arguments):
    """What the command prints in two processes, forked, that find each other as those of torchrun do."""
    import accelerate  # noqa: F401 - before the fork, so that the two need not

    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        free.close()

        def one_of(rank):
            os.environ.update(place | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            sys.stdout = open(f"{folder}/{rank}", "w", buffering=1)  # noqa: SIM115

        children = [forked(*arguments, errors=f"{folder}/errors{r}", before=partial(one_of, r)) for r in range(2)]
        told = [ended(child) for child in children], "".join(Path(f"{folder}/errors{r}").read_text() for r in range(2))
        assert told[0] == [0, 0], told
        return "".join(Path(f"{folder}/{rank}").read_text() for rank in range(2))


def torchrun(*arguments):
    """What the command prints in two processes of torchrun."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "toyscore"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *map(str, arguments)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_fresh_process(script, *arguments, cwd=None, **environment):
    """What a script prints as JSON in a process that has nothing imported yet."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": path} | environment
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


STATUS = Path("/proc/self/status")


def peak():
    """Kilobytes that this process has held at most; 0 where the system does not report it."""
    return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) if STATUS.exists() else 0


def wait(condition, seconds=120):
    """Until it holds; a test that waits in vain fails instead of waiting for ever"""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.002)


def ended(child, seconds=180):
    """Its exit status, minus the signal that ended it; one that never ends is a failure, and does not hold up the others."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"process {child} had not ended after {seconds} s")
        time.sleep(0.001)


TOUCHES = {
    *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod"),
    *(
        "os.utime",
        "os.fsync",
        "shutil.rmtree",
        "shutil.move",
        "shutil.copyfile",
        "tempfile.mkdtemp",
        "tempfile.mkstemp",
    ),
}


class Touch:
    """Within the block, ``act(event, args)`` is called at the ``at``-th touch of files below a folder, or at each if that is None: before
    every opening, making, renaming and removing, as Python's audit hooks report them, and before every flush to the disk.
    """

    armed, _hooked = None, False

    def __init__(self, folder, act, at=None):
        self.folder, self.act, self.at, self.count = str(folder), act, at, 0

    @property
    def reached(self):
        return self.count >= (self.at or 1)

    def __enter__(self):
        if not Touch._hooked:
            sys.addaudithook(lambda event, args: Touch.armed and Touch.armed._seen(event, args))  # there for good
            Touch._hooked = True
        self._fsync, Touch.armed = os.fsync, self
        os.fsync = lambda handle: (sys.audit("os.fsync", self.folder), self._fsync(handle))
        return self

    def __exit__(self, *_):
        os.fsync, Touch.armed = self._fsync, None

    def _seen(self, event, args):
        if event in TOUCHES and self.folder in str(args):
            self.count += 1
            if self.at in (None, self.count):
                self.act(event, args)


@contextlib.contextmanager
def limited(n_bytes):
    """No file grows beyond that, which the system reports as it does a full disk (Python ignores the signal)."""
    resource = pytest.importorskip("resource", reason="Windows has no limits of processes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
