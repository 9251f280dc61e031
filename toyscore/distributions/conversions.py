"""Gaussian mixtures of scikit-learn and of ``torch.distributions``: their parameters read, and written."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td

from toyscore.distributions import parameters
from toyscore.distributions.parameters import Spread


def from_sklearn(fitted: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Means [K, D], covariances in a form that ``GaussianMixture`` takes, and weights [K]."""
    missing = [name for name in ("weights_", "means_", "covariances_", "covariance_type") if not hasattr(fitted, name)]
    if missing == ["weights_", "means_", "covariances_"]:
        raise ValueError(f"fitted is {type(fitted).__name__} before its fit: call its .fit(X) first")
    if missing:
        raise TypeError(
            f"fitted is {type(fitted).__name__}, without {', '.join(missing)}: it must be a fitted sklearn.mixture.GaussianMixture or "
            "BayesianGaussianMixture; pass one"
        )
    means, weights, given = (
        torch.tensor(np.asarray(v), device="cpu") for v in (fitted.means_, fitted.weights_, fitted.covariances_)
    )
    kind = fitted.covariance_type
    covariances = {"tied": given[None], "diag": torch.diag_embed(given) if given.ndim == 2 else given}.get(kind, given)
    return means, covariances.to(means), weights.to(means)


def from_torch(mixture: Any) -> tuple[Tensor, Spread, Tensor]:
    """Means [K, D], covariances and weights [K]."""
    if not isinstance(mixture, td.MixtureSameFamily):
        raise TypeError(
            f"mixture is {type(mixture).__name__}: it must be a torch.distributions.MixtureSameFamily; pass "
            "MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariances))"
        )
    if mixture.batch_shape:
        raise ValueError(
            f"mixture has the batch shape {list(mixture.batch_shape)}: it is many mixtures; pass one, with batch shape []"
        )
    parts: Any = mixture.component_distribution
    while isinstance(parts, td.Independent):
        parts = parts.base_dist
    n = mixture.mixture_distribution.param_shape[-1]
    if isinstance(parts, td.Normal):
        means = parts.loc.detach().reshape(n, -1).clone()
        spread = Spread(parts.scale.detach().reshape(n, -1).square())
    elif isinstance(parts, td.MultivariateNormal | td.LowRankMultivariateNormal):
        if parts.loc.ndim != 2:
            raise ValueError(
                f"the components of mixture have means of shape {list(parts.loc.shape)}: they must be [K, D]; flatten their events"
            )
        means = parts.loc.detach().clone()
        spread = parameters.from_factor(_factor(parts), means)
    else:
        raise TypeError(
            f"the components of mixture are {type(parts).__name__}: they must be Normal, Independent(Normal), MultivariateNormal or "
            "LowRankMultivariateNormal; other families have no closed score under noise"
        )
    return means, spread, mixture.mixture_distribution.probs.detach().to(means)


def _factor(parts: td.MultivariateNormal | td.LowRankMultivariateNormal) -> Tensor:
    """[K, D, R] in float64 on the CPU, whose squares are the covariances."""
    if isinstance(parts, td.MultivariateNormal):
        return parts.scale_tril.detach().cpu().double()
    own = torch.diag_embed(parts.cov_diag.detach().sqrt())
    return torch.cat([parts.cov_factor.detach(), own], -1).cpu().double()


def to_torch(means: Tensor, spread: Spread, weights: Tensor) -> td.MixtureSameFamily:
    """The same mixture as ``torch.distributions`` have it."""
    if bool((spread.variances <= 0).any()):
        worst = int(spread.variances.min(1).values.argmin())
        raise ValueError(
            f"covariances[{worst}] is degenerate: torch.distributions need positive variances; convert mixture.perturb(sigma)"
        )
    parts: td.Distribution
    if spread.wide is None:
        parts = td.Independent(td.Normal(means, spread.variances.sqrt()), 1)
    else:
        roots = spread.wide.bases * spread.wide.variances.sqrt()[:, None]
        upper = torch.linalg.qr(roots.mT).R  # roots @ roots.mT = R^T R
        lower = (upper * upper.diagonal(dim1=1, dim2=2).sign()[:, :, None]).mT
        parts = td.MultivariateNormal(means, scale_tril=lower.to(means))
    return td.MixtureSameFamily(td.Categorical(logits=weights.log()), parts)
