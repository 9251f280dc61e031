"""A run that is stopped and goes on gives what it would have given in one go, to the bit."""

import json
import os
import random
import signal

import pytest
import torch

from runs import digest, ended, forked, tiny, wait
from states import network, same, steps
from toyscore.models import EMA
from toyscore.train import load_checkpoint, save_checkpoint

# how the numbers of a weight [2, 3, 2, 2] may lie in memory, given them in the usual order
LAYOUTS = {
    "contiguous": lambda w: w,
    "transposed": lambda w: w.transpose(0, 1).contiguous().transpose(0, 1),
    "permuted": lambda w: w.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
    "channels last": lambda w: w.to(memory_format=torch.channels_last),
    "every second": lambda w: w.repeat_interleave(2, 1)[:, ::2],
    "a part of rows": lambda w: torch.cat([w, w], 3)[..., :2],
}


class Woven(torch.nn.Module):
    """Two layers that share one weight, laid out in memory in some way."""

    def __init__(self, layout):
        super().__init__()
        torch.manual_seed(0)
        self.weight = torch.nn.Parameter(LAYOUTS[layout](torch.randn(2, 3, 2, 2)))
        self.register_buffer("scale", LAYOUTS[layout](torch.rand(2, 3, 2, 2)))

    def forward(self, x, sigma):
        weight = (self.weight * self.scale).reshape(2, 12)
        return torch.tanh(x @ weight) @ self.weight.reshape(2, 12).t()


class Random(torch.nn.Module):
    """Draws for itself in all ways, and keeps running means."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.Softplus(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(8, 2),
        )

    def forward(self, x, sigma):
        return self.layers(x + 0.1 * torch.randn_like(x)) * torch.rand(())


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_going_on_in_any_layout_gives_the_same_bits(tmp_path, layout, measured):
    """The step after the checkpoint and the last one, from memory and from disk, where weights lie in any order and with gaps"""
    states = [s.state() for s in steps(EMA(Woven(layout), 0.9), 6)]
    for state in (states[2], load_checkpoint(save_checkpoint(tmp_path, states[2])).state):
        again = [s.state() for s in steps(EMA(Woven(layout), 0.9), 6, state=state)]
        assert all(same(a, b) for a, b in zip(again, states[3:], strict=True))
        measured.count("steps gone on from in another layout, to the same bits")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_no_data(tmp_path, layout):
    """Trained, saved and loaded into a network of another layout: the same numbers, and the same bytes on the disk"""
    plain, laid = ([s.state() for s in steps(EMA(Woven(name), 0.9), 6)] for name in ("contiguous", layout))
    for a, b in zip(plain, laid, strict=True):
        for name, value in a["model"].items():
            assert torch.allclose(b["model"][name], value, rtol=1e-4, atol=1e-6), name
    state = plain[2]
    moved = state | {
        "model": {name: LAYOUTS[layout](v) if v.ndim == 4 else v for name, v in state["model"].items()},
        "optimizer": [
            {name: LAYOUTS[layout](v) if v.ndim == 4 else v for name, v in moments.items()}
            for moments in state["optimizer"]
        ],
    }
    a, b = (save_checkpoint(tmp_path / name, s) for name, s in (("a", state), ("b", moved)))
    assert all(file.read_bytes() == (b / file.name).read_bytes() for file in a.iterdir())
    for given in (moved, load_checkpoint(a).state):
        other = EMA(Woven(layout), 0.9)
        last = list(steps(other, 6, state=given))[-1].state()
        for name, value in plain[-1]["model"].items():
            assert torch.allclose(last["model"][name], value, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("n_shards", [1, 2])
def test_going_on_with_dropout_and_batch_norm_gives_the_same_bits(tmp_path, n_shards, measured):
    """What a network draws for itself is of (seed, t), too, and its running means are kept"""
    states = [s.state() for s in steps(EMA(Random(), 0.9), 6, n_shards=n_shards)]
    assert not torch.equal(states[0]["model"]["model.layers.1.running_mean"], torch.zeros(8))
    for state in states[:-1]:
        found = load_checkpoint(save_checkpoint(tmp_path, state)).state
        model = EMA(Random(), 0.9)
        torch.manual_seed(100 + state["step"])
        before = torch.get_rng_state()
        *_, last = steps(model, 6, state=found, n_shards=n_shards)
        assert same(last.state(), states[-1])
        assert torch.equal(torch.get_rng_state(), before)
        measured.count("steps with dropout and batch norm gone on from, to the same bits")


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
