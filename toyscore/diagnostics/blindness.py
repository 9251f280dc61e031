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

from toyscore.diagnostics.grids import quadrature
from toyscore.diagnostics.propagation import reduce, separates
from toyscore.distributions import GaussianMixture


@dataclass(frozen=True)
class Divergences:
    """Of p from q at one noise level: ``kl`` in nats, ``fisher`` in units of 1/x², and what a grid twice as coarse changes in each."""

    kl: float
    fisher: float
    kl_error: float
    fisher_error: float


def divergences(
    p: GaussianMixture, q: GaussianMixture, *, sigma: float = 0.0, nodes_per_std: float | None = None
) -> Divergences:
    r"""Kullback-Leibler and Fisher divergence between two mixtures, both perturbed, by quadrature. Source: lyu2009, Theorem 1.

    .. math:: \mathrm{KL} = E_p \log \frac{p}{q}, \qquad F = \frac12 E_p \|\nabla \log p - \nabla \log q\|^2

    Args:
        p, q: D = 1 or 2, of one D.
        sigma: the noise level, in units of x.
        nodes_per_std: as ``quadrature``; default 40 in one dimension, 8 in two.

    Raises:
        ValueError: another D, or two; as ``quadrature``.
    """
    if p.means.shape[1] != q.means.shape[1]:
        raise ValueError(
            f"p has D = {p.means.shape[1]} and q D = {q.means.shape[1]}: they must live in one space; pass marginals"
        )
    if nodes_per_std is None:
        nodes_per_std = 40.0 if p.means.shape[1] == 1 else 8.0
    (kl, fisher), (kl_rough, fisher_rough) = (_integrate(p, q, sigma, n) for n in (nodes_per_std, nodes_per_std / 2))
    return Divergences(kl, fisher, abs(kl - kl_rough), abs(fisher - fisher_rough))


def _integrate(p: GaussianMixture, q: GaussianMixture, sigma: float, nodes_per_std: float) -> tuple[float, float]:
    x, masses = quadrature(p, sigma, nodes_per_std=nodes_per_std)
    p, q = p.to("cpu", torch.float64), q.to("cpu", torch.float64)
    log_ratio = q.log_prob(x, sigma) - p.log_prob(x, sigma)
    difference = p.score(x, sigma) - q.score(x, sigma)
    return -float(masses @ log_ratio), 0.5 * float(masses @ difference.square().sum(1))


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
    p = reduce(mixture)[0] if separates(mixture) else mixture.to("cpu", torch.float64)
    q = GaussianMixture(p.means, p.covariances, torch.as_tensor(weights, dtype=torch.float64, device="cpu"))
    levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    if levels.ndim != 1:
        raise ValueError(f"sigmas has shape {list(levels.shape)}: it must be [L]; pass a list")
    found = [divergences(p, q, sigma=sigma) for sigma in levels.tolist()]
    kl, fisher = (torch.tensor([getattr(d, name) for d in found], dtype=torch.float64) for name in ("kl", "fisher"))
    return Blindness(levels, kl, fisher, levels**2 * fisher)
