"""The whole path on truth we know: a learned, annealed sampler beside the exact one."""

import pytest
import torch

from helpers import seeded
from toyscore.distributions import asymmetric, two_modes
from toyscore.losses import at_random_sigma, denoising_score_matching
from toyscore.metrics import mode_weights
from toyscore.models import MLP
from toyscore.noise import geometric, log_uniform
from toyscore.samplers import annealed_langevin, final
from toyscore.train import fit


@pytest.mark.slow  # test_one_network samples what was learned always
@pytest.mark.parametrize("mixture", [two_modes, asymmetric])
def test_a_learned_annealed_sampler_gives_what_the_exact_score_gives(mixture):
    """song2019, Algorithm 1: beside the exact score's samples, weights within 0.05 (standard error 0.01), deviations within
    the modes within 15 % (standard error in the smallest 3.5 %), correlations within 0.1; what is not sampling is learning"""
    p, sigmas = mixture(), geometric(10.0, 0.2, 10)
    torch.manual_seed(0)
    model = MLP(sigmas=sigmas)
    for _ in fit(model, p, at_random_sigma(denoising_score_matching, log_uniform(0.2, 10.0)), n_steps=4000):
        pass
    start = 10 * torch.randn(4000, 2, generator=seeded())
    weights, covariances = {}, {}
    for name, score in (("exact", p.score), ("learned", model)):
        chain = annealed_langevin(score, start, sigmas, step_size=0.2 * 0.2**2, n_steps_each=60, generator=seeded(1))
        x = final(chain)
        weights[name] = mode_weights(x, p)
        mode = p.responsibilities(x).argmax(1)
        covariances[name] = torch.stack([x[mode == k].mT.cov() for k in range(len(p.means))])
    assert torch.allclose(weights["learned"], weights["exact"], atol=0.05)
    assert torch.allclose(weights["exact"], p.weights, atol=0.06)  # annealing remembers, though not to the digit
    stds = {name: c.diagonal(dim1=1, dim2=2).sqrt() for name, c in covariances.items()}
    assert torch.allclose(stds["learned"], stds["exact"], rtol=0.15)
    correlations = {name: c[:, 0, 1] / stds[name].prod(1) for name, c in covariances.items()}
    assert torch.allclose(correlations["learned"], correlations["exact"], atol=0.1)
    true_stds = p.perturb(0.2).covariances.diagonal(dim1=1, dim2=2).sqrt()
    assert torch.allclose(stds["exact"], true_stds, rtol=0.12)
