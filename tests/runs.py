"""Runs of the command line, in this process and in others."""

import atexit
import contextlib
import functools
import hashlib
import io
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
# name -> a command that writes into {}, and the names that stand there then
WRITERS = {
    "sample": (["sample", *FEW, "--out={}/x.png"], {"x.png"}),
    "numbers": (["sample", *FEW, "--out={}/x.npy"], {"x.npy"}),
    "animate": (["animate", *FEW, "--frames=2", "--out={}/x.gif"], {"x.gif"}),
    "export": (["export", f"--folder={WEIGHTS}", "--to={}"], {"step-00001000", "README.md"}),
    "evaluate": (
        ["evaluate", *FEW, "--out={}"],
        {".lock", "evaluation.json", "evaluation.md", "samples.png", "nearest.png"},
    ),
}


def writing(name, place):
    """The words of one of the ``WRITERS``."""
    return [word.format(place) for word in WRITERS[name][0]]


def contents(folder, hidden=True):
    """path -> bytes of each file below a folder, None of what is no file; with or without those of hidden names."""
    paths = {p.relative_to(folder): p for p in sorted(folder.rglob("*"))}
    shown = {name: p for name, p in paths.items() if hidden or not any(part[0] == "." for part in name.parts)}
    return {str(name): p.read_bytes() if p.is_file() else None for name, p in shown.items()}


def tiny(run, *more):
    return ["train", "--config", str(ROOT / "configs" / "digits.yaml"), *TINY, "--folder", str(run), *more]


def said(*arguments):
    """The exit code and what was written to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
        code = main([str(a) for a in arguments])
    return code, errors.getvalue()


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
    *("os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile", "tempfile.mkdtemp", "tempfile.mkstemp"),
}


def at_touch(number, folder, *signals):
    """From now on, this process gets the first of ``signals`` at the ``number``-th touch of files below a folder, others at the next."""
    seen = 0

    def watch(event, args):
        nonlocal seen
        if event in TOUCHES and str(folder) in str(args):
            seen += 1
            if 0 <= seen - number < len(signals):
                os.kill(os.getpid(), signals[seen - number])

    sys.addaudithook(watch)


def at_each_moment(cut, *, more_than, most=400, codes=(-signal.SIGKILL,)):
    """Call ``cut(1)``, ``cut(2)``, ..., which cuts work short at that moment, checks what is left and gives the exit code, until the work
    ends by itself: that must come, and not before the moment ``more_than``.
    """
    for at in range(1, most):
        code = cut(at)
        if code == 0:
            assert at > more_than, f"the work has {at - 1} moments only"
            return
        assert code in codes, f"ended with {code} at moment {at}"
    pytest.fail(f"the work did not end by itself in {most} moments")
