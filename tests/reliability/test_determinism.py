"""The same seed gives the same bytes in two fresh processes: of every public function, of training and of pictures."""

import hashlib
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from reliability.calls import CALLS, World, leaves, run
from runs import in_fresh_process
from toyscore import data, plotting
from toyscore.distributions import asymmetric
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.models import EMA, NCSN
from toyscore.noise import levels
from toyscore.train import fit, save_checkpoint


def training(folder):
    torch.manual_seed(0)
    model = EMA(NCSN(1, 8, 4, [1.0, 0.1]), 0.9)
    objective = at_random_sigma(denoising_score_matching, levels([1.0, 0.1]))
    *_, last = fit(model, data.digits(), objective, n_steps=5, batch_size=8, n_shards=2)
    place = save_checkpoint(folder / "run", last.state(), {"levels": [1.0, 0.1]})
    return {f"an image network's {file.name}": file.read_bytes() for file in sorted(place.iterdir())}


def pictures(folder):
    p = asymmetric()
    figure, ax = plotting.canvas()
    plotting.density(ax, p.log_prob)
    plotting.samples(ax, p.sample(100, generator=torch.Generator().manual_seed(0)))
    for ending in ("png", "svg"):
        plotting.save(figure, folder / f"picture.{ending}")
    plotting.save_gif(plotting.animate(figure, lambda n: ax.set_title(str(n)), range(3)), folder / "picture.gif")
    return {file.name: file.read_bytes() for file in sorted(folder.glob("picture.*"))}


def functions():
    """Every public function that returns numbers, as the tests of purity call it."""
    world = World(torch.float32)
    for name, call in CALLS.items():
        found = [leaf for leaf in leaves(run(name, world, call.arguments(world))) if is_number(leaf)]
        if found:
            yield name, found


def is_number(leaf):
    return isinstance(leaf, torch.Tensor | float | int) or (isinstance(leaf, np.ndarray) and leaf.dtype != object)


def digest(value):
    if isinstance(value, torch.Tensor):
        value = value.detach().contiguous().numpy()
    if isinstance(value, np.ndarray):
        value = value.tobytes()
    if isinstance(value, list):
        value = "".join(map(digest, value))
    return hashlib.sha256(value if isinstance(value, bytes) else repr(value).encode()).hexdigest()


@pytest.mark.slow
def test_two_fresh_processes_give_the_same_bytes(tmp_path):
    """Started elsewhere, at another time, with other hashes of strings."""

    def results(number):
        (tmp_path / number).mkdir()
        return in_fresh_process(__file__, cwd=tmp_path / number, PYTHONHASHSEED=number)

    with ThreadPoolExecutor() as both:
        first, second = both.map(results, "12")
    assert {name: (first[name], second[name]) for name in first if first[name] != second[name]} == {}
    assert first.keys() == second.keys()
    assert len(first) > 100
    assert len(set(first.values())) > 0.8 * len(first)  # they are digests of something


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        results = training(Path(name)) | pictures(Path(name)) | dict(functions())
    json.dump({name: digest(value) for name, value in results.items()}, sys.stdout)
