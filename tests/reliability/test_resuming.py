"""A run that is stopped and goes on is bit-identical to one that is not."""

import json
import os
import random
import signal

import pytest
import torch

from runs import digest, ended, forked, said, toy, wait
from states import network, same, steps
from toyscore.models import EMA
from toyscore.train import load_checkpoint, save_checkpoint

# how the numbers of a weight [2, 3, 2, 2] may lie in memory, given them in the usual order
LAYOUTS = {
    "contiguous": lambda w: w,
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
        body = [torch.nn.BatchNorm1d(8), torch.nn.Softplus(), torch.nn.Dropout(0.5)]
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 8), *body, torch.nn.Linear(8, 2))

    def forward(self, x, sigma):
        return self.layers(x + 0.1 * torch.randn_like(x)) * torch.rand(())


@pytest.mark.parametrize("n_shards", [1, 2])
@pytest.mark.parametrize(("make", "n_steps"), [(network, 12), (lambda: EMA(Random(), 0.9), 6)], ids=["MLP", "random"])
def test_going_on_from_any_step_gives_the_same_bits(tmp_path, make, n_steps, n_shards):
    """Saved after each step, loaded into another network, trained on: weights, averages, moments, running means, random draws."""
    states = [s.state() for s in steps(make(), n_steps, n_shards=n_shards)]
    assert any(name.startswith("average.") for name in states[0]["model"])
    for state in states[:-1]:
        found = load_checkpoint(save_checkpoint(tmp_path / str(state["step"]), state)).state
        model = make()
        torch.manual_seed(100 + state["step"])  # no global generator plays a part
        before = torch.get_rng_state()
        *_, last = steps(model, n_steps, state=found, n_shards=n_shards)
        assert same(last.state(), states[-1])
        assert torch.equal(torch.get_rng_state(), before)
    assert not same(states[-2] | {"step": n_steps}, states[-1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_in_memory_changes_nothing(tmp_path, layout):
    """Going on in the same layout is bit-identical; in another it gives the same numbers, and the same bytes on the disk."""
    plain, laid = ([s.state() for s in steps(EMA(Woven(name), 0.9), 6)] for name in ("contiguous", layout))

    def check_close(a, b):
        for name, value in a["model"].items():
            assert torch.allclose(b["model"][name], value, rtol=1e-4, atol=1e-6), name

    for state in (laid[2], load_checkpoint(save_checkpoint(tmp_path, laid[2])).state):
        again = [s.state() for s in steps(EMA(Woven(layout), 0.9), 6, state=state)]
        assert all(same(a, b) for a, b in zip(again, laid[3:], strict=True))
    for a, b in zip(plain, laid, strict=True):
        check_close(a, b)

    def moved(tensors):
        return {name: LAYOUTS[layout](v) if v.ndim == 4 else v for name, v in tensors.items()}

    state = plain[2] | {"model": moved(plain[2]["model"]), "optimizer": [moved(m) for m in plain[2]["optimizer"]]}
    a, b = (save_checkpoint(tmp_path / name, s) for name, s in (("a", plain[2]), ("b", state)))
    assert all(file.read_bytes() == (b / file.name).read_bytes() for file in a.iterdir())
    for given in (state, load_checkpoint(a).state):
        *_, last = steps(EMA(Woven(layout), 0.9), 6, state=given)
        check_close(plain[-1], last.state())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_and_resumed_gives_the_same_digest(tmp_path, whole, seed):
    """kill -9 at a random moment, then --resume latest: bit-identical to 40 steps without a break."""
    run = tmp_path / "run"
    child = forked(*toy(run))
    log, at = run / "log.jsonl", random.Random(seed).randint(8, 39)
    wait(lambda: log.exists() and log.read_text().count("\n") >= at)
    os.kill(child, signal.SIGKILL)
    assert ended(child) == -signal.SIGKILL
    assert said("train", "--folder", run, "--resume", "latest")[0] == 0  # with the configuration of the run
    assert digest(run) == digest(whole)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 41))
