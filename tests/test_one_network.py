"""One network and one loss: sampled as NCSN, DDPM, VE SDE, VP SDE and ODE, of a toy and of digits."""

from collections import deque

import pytest
import torch

from helpers import seeded
from toyscore import data, pretrained
from toyscore.build import sampling_chain
from toyscore.distributions import asymmetric
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.metrics import energy_distance, fit_classifier, mode_weights
from toyscore.models import MLP
from toyscore.noise import ddpm_levels, geometric, linear_betas
from toyscore.samplers import (
    ancestral,
    annealed_langevin,
    final,
    noise_std,
    posterior_mean,
    predictor_corrector,
    probability_flow,
    reverse_sde,
)
from toyscore.sde import VE, VP, geometric_times, level_times, noise_level, uniform_in_time
from toyscore.train import fit

VE_100 = VE(0.01, 100.0)


def ways(score, x, *, n_steps, langevin):
    """name -> a call for clean samples, all from x [B, *event] at sigma = 100 about the data's mean, as little noisy as the data allow
    at the end"""
    ddpm = level_times(VP(), ddpm_levels(linear_betas()))
    ddpm = [*ddpm[noise_level(VP(), ddpm) <= 100.0][:: 1000 // n_steps].tolist(), 0.0]
    ve, vp = (
        geometric_times(sde, n_steps, t_min=float(sde.time(0.02)), t_max=float(sde.time(100.0))).tolist()
        for sde in (VE_100, VP())
    )
    on_vp = VP().marginal(vp[0])[0] * x

    def clean(sde, chain, t):
        return posterior_mean(sde, score, final(chain), t)

    def corrected():
        return predictor_corrector(VE_100, score, x, ve, snr=0.1, width=noise_std, generator=seeded(1))

    return {
        "NCSN": lambda: final(langevin),
        "DDPM": lambda: final(ancestral(VP(), score, VP().marginal(ddpm[0])[0] * x, ddpm, generator=seeded(1))),
        "VE SDE": lambda: clean(VE_100, corrected(), ve[-1]),
        "VP SDE": lambda: clean(VP(), reverse_sde(VP(), score, on_vp, vp, generator=seeded(1)), vp[-1]),
        "ODE": lambda: clean(VP(), probability_flow(VP(), score, on_vp, vp), vp[-1]),
    }


@pytest.mark.parametrize("times", [pytest.param("VE", marks=pytest.mark.slow), "VP"])
@torch.no_grad()
def test_a_toys_network(times):
    """Trained by the one loss, with sigma uniform in the time of VE or of VP: five samplers, the same mixture, weights to 0.1"""
    p = asymmetric()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLP(2, 64, sigmas=[0.01, 160.0], data_variance=float(p.covariance.diagonal().mean()))
    draw = uniform_in_time({"VE": VE(0.01, 160.0), "VP": VP()}[times], t_min=1e-4)
    with torch.enable_grad():
        deque(fit(network, p, at_random_sigma(denoising_score_matching, draw), n_steps=2500, batch_size=256), maxlen=0)
    x = 100 * torch.randn(1500, 2, generator=seeded())
    sigmas = geometric(20.0, 0.1, 20)
    chain = annealed_langevin(
        network, x / 5, sigmas, step_size=0.3 * 0.01, n_steps_each=20, denoise=True, generator=seeded(2)
    )
    exact = p.sample(1500, generator=seeded(3))
    for name, drawn in ways(network, x, n_steps=200, langevin=chain).items():
        samples = drawn()
        assert float((mode_weights(samples, p) - p.weights).abs().max()) < 0.1, name
        assert energy_distance(samples, exact) < 0.15, name


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in ("NCSN", "DDPM", "VE SDE", "VP SDE")] + ["ODE"]
)
@torch.no_grad()
def test_the_digits_network(name):
    """32 digits of each sampler, with the weights that come with the package: a classifier is over 0.8 sure of them, where it is 0.94 of
    held-out digits and 0.74 of draws from a Gaussian of the same mean and covariance"""
    trained = pretrained.digits()
    classifier = fit_classifier(data.digits("train"))
    x = trained.data["mean"] + 100 * torch.randn(32, 1, 8, 8, generator=seeded())
    chain = sampling_chain(trained.network, trained.config, trained.data, 32, 0)
    n_steps = 20 if name == "ODE" else 60  # of Heun's method, of order 2
    samples = ways(trained.network, x, n_steps=n_steps, langevin=chain)[name]()
    found = classifier.confidence(samples)
    assert found.mean > 0.8
    assert int((found.shares > 0).sum()) >= 4
    assert float(samples.min()) > -0.3
    assert float(samples.max()) < 1.3
