"""A run that is stopped and goes on gives what it would have given in one go, to the bit."""

import json
import os
import random
import signal

import pytest
import torch

from runs import digest, ended, forked, tiny, wait
from states import network, same, steps
from toyscore.train import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("n_shards", [1, 2])
def test_going_on_from_any_step_gives_the_same_bits(tmp_path, n_shards, measured):
    """Saved after each of 12 steps, loaded into another network, trained on: weights, averages and moments"""
    n_steps = 12
    states = [s.state() for s in steps(network(), n_steps, n_shards=n_shards)]
    assert any(name.startswith("average.") for name in states[0]["model"])
    for state in states[:-1]:
        found = load_checkpoint(save_checkpoint(tmp_path / str(state["step"]), state)).state
        torch.manual_seed(state["step"])  # no global generator plays a part
        for step in steps(network(seed=9), n_steps, state=found, n_shards=n_shards):
            last = step
        assert same(last.state(), states[-1])
        measured.count("steps gone on from, averages and two shards included, to the same bits")
    assert not same(states[-2] | {"step": n_steps}, states[-1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_and_resumed_gives_the_same_digest(tmp_path, whole, seed, measured):
    """kill -9 at a random moment, then --resume latest: to the bit what 40 steps in one go give"""
    run = tmp_path / "run"
    child = forked(*tiny(run))
    log, at = run / "log.jsonl", random.Random(seed).randint(8, 39)
    wait(lambda: log.exists() and log.read_text().count("\n") >= at)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    child = forked("train", "--folder", str(run), "--resume", "latest")  # with the configuration of the run
    assert ended(child) == 0
    assert digest(run) == digest(whole)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 41))
    measured.count("runs killed at a random step and resumed, to the same bits")
