"""Mixtures that no symmetry can help, exact references for them, and statistics with stated errors."""

import math

import mpmath
import torch

from toyscore.distributions import GaussianMixture, asymmetric, two_modes

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rotation(dim, seed=0):
    return torch.linalg.qr(torch.randn(dim, dim, generator=seeded(seed), dtype=F64))[0]


def cases():
    """name -> mixture in float64: every form of covariance, D = 1, 2, 3, K = 1, 2, 3."""
    means3 = torch.tensor([[1.0, -2.0, 0.5], [-3.0, 0.0, 2.0]], dtype=F64)
    q = rotation(3)
    full = torch.stack([q @ torch.diag(torch.tensor(v, dtype=F64)) @ q.mT for v in ([2.0, 0.3, 0.7], [0.1, 1.0, 4.0])])
    return {
        "two_modes": two_modes().to(dtype=F64),
        "asymmetric": asymmetric().to(dtype=F64),
        "one dimension": GaussianMixture(
            torch.tensor([[-1.0], [2.0], [3.0]], dtype=F64), [0.5, 1.0, 0.2], [0.2, 0.5, 0.3]
        ),
        "three dimensions": GaussianMixture(means3, full, [0.7, 0.3]),
        "shared isotropic": GaussianMixture(means3, 0.3, [0.6, 0.4]),
        "diagonal": GaussianMixture(means3, [[1.0, 0.2, 3.0], [0.5, 0.5, 2.0]], [0.4, 0.6]),
        "shared full": GaussianMixture(means3, full[:1], [0.9, 0.1]),
        "shared, far apart": GaussianMixture(40 * means3, full[:1], [0.9, 0.1]),
        "single": GaussianMixture(torch.tensor([[0.5, -1.0]], dtype=F64), [[[2.0, 0.6], [0.6, 0.5]]]),
    }


def exact(mixture, x, sigma=0.0, digits=60):
    """log density and score at one point [D], by mpmath, from the stored parameters."""
    with mpmath.workdps(digits):
        dim = len(x)
        point = mpmath.matrix([mpmath.mpf(float(v)) for v in x])
        logs, scores = [], []
        for weight, mean, covariance in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
            c = mpmath.matrix([[mpmath.mpf(float(v)) for v in row] for row in covariance])
            c += mpmath.mpf(sigma) ** 2 * mpmath.eye(dim)
            difference = point - mpmath.matrix([mpmath.mpf(float(v)) for v in mean])
            solved = mpmath.lu_solve(c, difference)
            quadratic = (difference.T * solved)[0]
            logs.append(
                mpmath.log(float(weight))
                - (quadratic + mpmath.log(mpmath.det(c)) + dim * mpmath.log(2 * mpmath.pi)) / 2
            )
            scores.append(-solved)
        top = max(logs)
        total = sum(mpmath.exp(v - top) for v in logs)
        score = sum((mpmath.exp(v - top) / total * s for v, s in zip(logs, scores, strict=True)), mpmath.zeros(dim, 1))
        return top + mpmath.log(total), score


def relative_error(score, reference):
    """Norm of the difference over the norm of the reference, computed by mpmath."""
    with mpmath.workdps(60):
        difference = [mpmath.mpf(float(a)) - b for a, b in zip(score, reference, strict=True)]
        return float(mpmath.sqrt(sum(d**2 for d in difference)) / mpmath.sqrt(sum(b**2 for b in reference)))


def plane(n=321, box=16.0):
    """A grid of [n * n, 2] points in float64 and the area of a cell."""
    axis = torch.linspace(-box, box, n, dtype=F64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def assert_mean(values, expected, sigmas=5.0):
    """The sample mean of independent ``values`` [n] is ``expected`` within ``sigmas`` standard errors."""
    values = torch.as_tensor(values, dtype=F64).detach()
    error = float(values.std()) / math.sqrt(len(values))
    difference = float(values.mean()) - float(torch.as_tensor(expected).detach())
    assert abs(difference) <= sigmas * error, (
        f"mean {float(values.mean()):.6g} is {difference / error:+.1f} standard errors from {float(expected):.6g} (n = {len(values)})"
    )
