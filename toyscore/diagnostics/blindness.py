r"""What the Fisher divergence does not see: the weights of modes far apart.

Two mixtures that differ only in their weights have nearly the same score wherever one component rules, so that their Fisher divergence
:math:`F = \frac12 E_p \|\nabla \log p - \nabla \log q\|^2` is what little they differ between the modes, where there is no mass: at
a distance 2a it falls like :math:`a\, e^{-a^2/2}`, while the Kullback-Leibler divergence stays at that of the weights. Score matching
can therefore not learn the weights from clean data, and Langevin dynamics cannot give them back.

Noise lifts the blindness, because the two divergences are one: under heat flow

.. math:: \frac{d}{d\sigma^2} \mathrm{KL}(p_\sigma \| q_\sigma) = -F(\sigma), \qquad
          \mathrm{KL}(p_\sigma \| q_\sigma) = \int_\sigma^\infty 2\, \sigma'^2 F(\sigma')\, d \log \sigma'.

So twice the divergence, weighted by sigma² as in song2019 and taken over all log sigma, is the whole of the KL: geometric levels with
that weight miss nothing, if they reach the sigma at which the modes meet.

References: song2019, lyu2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore.diagnostics.grids import check_flat, check_mixture, check_proper, integrals
from toyscore.diagnostics.propagation import reduce, separates
from toyscore.distributions import GaussianMixture

_EPS = 4 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Divergences:
    """Of p from q at one noise level: ``kl`` in nats, ``fisher`` in units of 1/x², and bounds of the error of each."""

    kl: float
    fisher: float
    kl_error: float
    fisher_error: float


def divergences(
    p: GaussianMixture, q: GaussianMixture, *, sigma: float = 0.0, nodes_per_std: float = 2.5
) -> Divergences:
    r"""Kullback-Leibler and Fisher divergence between two mixtures, both perturbed, by adaptive quadrature. Source: lyu2009, Theorem 1.

    .. math:: \mathrm{KL} = E_p \log \frac{p}{q}, \qquad F = \frac12 E_p \|\nabla \log p - \nabla \log q\|^2

    The nodes follow the components of both: where q has a narrow one, its score is steep, however little of p is there.

    The scores of N(0, 1) and N(3, 1) differ by 3 everywhere; both divergences are 3²/2:

    >>> from toyscore.diagnostics import divergences
    >>> from toyscore.distributions import GaussianMixture
    >>> found = divergences(GaussianMixture([[0.0]]), GaussianMixture([[3.0]]))
    >>> round(found.kl, 3), round(found.fisher, 3)
    (4.5, 4.5)

    Args:
        p, q: D = 1 or 2, of one D.
        sigma: the noise level, in units of x.
        nodes_per_std: nodes to the least standard deviation that is near, before refinement; 2.5 at least.

    Raises:
        ValueError: another D, or two; a degenerate density; components too narrow beside others to be resolved.
    """
    check_mixture(p, "p")
    check_mixture(q, "q")
    if p.means.shape[1] != q.means.shape[1]:
        raise ValueError(
            f"p has D = {p.means.shape[1]} and q D = {q.means.shape[1]}: they must live in one space; pass marginals"
        )
    check_flat(p)
    ops.check_positive(nodes_per_std, "nodes_per_std")
    origin = p.to("cpu", torch.float64).means[int(p.weights.argmax())]
    p, q = (_moved(r.to("cpu", torch.float64), origin, sigma) for r in (p, q))

    def integrands(x: Tensor) -> Tensor:
        logs, scores = [r.log_prob(x, sigma) for r in (p, q)], [r.score(x, sigma) for r in (p, q)]
        apart = (scores[0] - scores[1]).square().sum(1).sqrt()
        digits = [
            _EPS * (1 + log.abs()) for log in logs
        ]  # of a log density, and so of the weights in a score of several components
        blurs = [
            score.square().sum(1).sqrt() * (rounding if len(r.means) > 1 else _EPS)
            for r, score, rounding in zip((p, q), scores, digits, strict=True)
        ]
        blur = blurs[0] + blurs[1]
        parts = [logs[0] - logs[1], 0.5 * apart.square(), digits[0] + digits[1], blur * (apart + 0.5 * blur)]
        return torch.stack(parts) * logs[0].exp()

    values, errors = integrals(integrands, p, q, sigma, nodes_per_std)
    return Divergences(*values.tolist(), *errors.tolist())


def _moved(p: GaussianMixture, origin: Tensor, sigma: float) -> GaussianMixture:
    check_proper(p, sigma)
    return GaussianMixture(p.means - origin, p.covariances, p.weights)


@dataclass(frozen=True)
class Blindness:
    """Per noise level [L], divergences of a mixture from itself with other weights: ``kl``, ``fisher``, and ``weighted``, sigma² times
    it."""

    sigmas: Tensor
    kl: Tensor
    fisher: Tensor
    weighted: Tensor


def weight_blindness(
    mixture: GaussianMixture, weights: Tensor | Sequence[float], sigmas: Tensor | Sequence[float]
) -> Blindness:
    """How much each divergence sees of a change of weights alone, at each noise level. Source: song2019, Sec. 3.2; lyu2009, Theorem 1.

    Args:
        mixture: of any D if its components share a covariance (see ``reduce``), else D = 1 or 2.
        weights: [K], the other weights.
        sigmas: [L], in any order, zero allowed.

    Raises:
        ValueError: weights that a mixture cannot have; as ``divergences``.
    """
    check_mixture(mixture)
    p = reduce(mixture)[0] if separates(mixture) else mixture.to("cpu", torch.float64)
    q = GaussianMixture(p.means, p.covariances, torch.as_tensor(weights, dtype=torch.float64, device="cpu"))
    levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    if levels.ndim != 1:
        raise ValueError(f"sigmas has shape {list(levels.shape)}: it must be [L]; pass a list")
    found = [divergences(p, q, sigma=sigma) for sigma in levels.tolist()]
    kl, fisher = (
        torch.tensor([getattr(d, name) for d in found], dtype=torch.float64, device="cpu") for name in ("kl", "fisher")
    )
    return Blindness(levels, kl, fisher, levels**2 * fisher)
