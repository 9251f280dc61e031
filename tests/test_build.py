"""Every key of a configuration reaches what it is about."""

import pytest
import torch

from toyscore import build
from toyscore.cli import training
from toyscore.config import Config, Data, Network, Noise, Sampling, Training

FACTS = {"event": [1, 8, 8], "mean": 0.2, "variance": 0.03}


def test_the_recipe_reaches_fit(tmp_path, monkeypatch):
    seen = {}

    def stop(model, data, loss, **options):
        seen.update(options, start=torch.random.initial_seed())
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", stop)
    config = Config(network=Network(width=2), training=Training(7, 6, 3, 0.5, 0.25, "bfloat16"), seed=5, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "run")
    assert seen == {
        "n_steps": 7,
        "batch_size": 6,
        "n_shards": 3,
        "lr": 0.5,
        "clip": 0.25,
        "seed": 5,
        "autocast": torch.bfloat16,
        "group": None,
        "state": None,
        "start": 5,
    }


def test_the_laws_and_the_data_reach_the_loss_and_the_network():
    network = build.build_network(Config(network=Network(width=2), training=Training(ema=None)), FACTS)
    assert (float(network.data_mean), float(network.data_variance)) == pytest.approx((0.2, 0.03))
    seen = []

    def score(x, sigma):
        seen.append(sigma)
        return torch.zeros_like(x)

    noise = Noise(1e6, 1e-6, 2, "log_normal", 2.0, 0.1)
    build.build_loss(noise)(score, torch.zeros(4000, 1), generator=torch.Generator().manual_seed(0))
    assert float(seen[0].log().mean()) == pytest.approx(2.0, abs=5 * 0.1 / 4000**0.5)
    assert not build.build_data(Data(dequantise=False)).dequantise


def test_the_plan_reaches_the_sampler(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        build, "annealed_langevin", lambda s, x, sigmas, **o: iter(seen.update(o, x=x, sigmas=sigmas) or [])
    )
    config = Config(sampling=Sampling(3.0, 0.1, 4, 7, 0.2, "normal", True, True))

    def draw(seed):
        return next(build.sampling_chain(torch.nn.Linear(1, 1), config, FACTS | {"mean": 50.0}, 4000, seed))

    x = draw(1)
    assert (seen["step_size"], seen["n_steps_each"], seen["denoise"], seen["clamp"], len(seen["sigmas"])) == (
        0.2,
        7,
        True,
        (0.0, 1.0),
        4,
    )
    assert (float(x.mean()), float(x.std())) == pytest.approx((50.0, 3.0), abs=0.05)
    assert not torch.equal(x, draw(2))
