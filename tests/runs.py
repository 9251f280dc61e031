"""Runs of the command line, in this process and in others."""

import contextlib
import hashlib
import io
import os
import time
from pathlib import Path

from toyscore.cli import main

ROOT = Path(__file__).parent.parent
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


def in_child(work):
    """Begin ``work`` in a process of its own, which has everything imported already; it exits with what that returns."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
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


def wait(condition, seconds=120):
    """Until it holds; a test that waits in vain fails instead of waiting for ever"""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.002)


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
