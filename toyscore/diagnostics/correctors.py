r"""What a corrector samples whose step depends on where it is.

Langevin dynamics keeps p if its step size is one number. The corrector of song2021 (Algorithm 4) takes
:math:`\epsilon = 4 r^2 \|z\|^2 / \|s(x)\|^2` row by row, ``matched_norms``: it differs from place to place, and it knows z. For small r the
chain is a diffusion whose drift and noise are means over z, with :math:`E\|z\|^2 = D` and :math:`E\|z\|^2 z z^T = (D + 2) I`,

.. math:: b = \frac{2 r^2 D}{\|s\|^2}\, s, \qquad a = \frac{4 r^2 (D + 2)}{\|s\|^2}\, I,

and what it keeps is the density :math:`\pi` without a flux, :math:`b\, \pi = \frac12 \nabla (a\, \pi)`: with :math:`u = \pi / \|s\|^2` that
is :math:`\nabla \log u = \frac{D}{D + 2}\, s`, so

.. math:: \pi \propto \|s\|^2\, p^{D / (D + 2)}.

The first factor empties the middle of every mode, where steps are long; the power widens all of it, since a long step is one with much
noise. No small r helps. Many dimensions do: the power tends to one, and the norm of a score of many dimensions hardly varies. A Gaussian
ends with its variance times :math:`(1 + 2 / D)^2`. A step from the batch's means, ``batch_norms``, or from the process's noise,
``noise_std``, has none of this.

References: song2021.
"""

from __future__ import annotations

import math

import torch

from toyscore import operators as ops
from toyscore.diagnostics.grids import MEMORY, Cloud, density_axes, nodes
from toyscore.distributions import GaussianMixture


@torch.no_grad()
def matched_norms_law(
    mixture: GaussianMixture, sigma: float, *, n_empty: int = 0, nodes_per_std: float | None = None
) -> Cloud:
    r"""What small corrector steps with ``matched_norms`` sample at one noise level, on a grid. Source: song2021, Algorithm 4.

    Args:
        mixture: D = 1 or 2.
        sigma: the noise level of the chain, in units of x.
        n_empty: further coordinates in which the data are zero, and q_sigma only noise, as they are across a manifold. They enter D, and
            the squared norm by its mean :math:`n\, (D + 2) / (D \sigma^2)`; the cloud is the marginal of the mixture's own coordinates.
        nodes_per_std: as ``quadrature``.

    Returns:
        The law: ``masses @ f(points)`` is the mean of f.

    Raises:
        ValueError: D above two; a degenerate density; empty coordinates without noise; a grid above ``MEMORY`` bytes.
    """
    ops.check_count(n_empty, "n_empty", 0)
    p = mixture.to("cpu", torch.float64)
    dim = p.means.shape[1] + n_empty
    power = dim / (dim + 2)
    if n_empty and not sigma > 0:
        raise ValueError(
            f"sigma = {sigma}: {n_empty} coordinates without data have a density only with noise; pass sigma > 0"
        )
    wide = GaussianMixture(
        p.means, p.covariances / power, p.weights
    )  # what the power makes of each mode, so that the grid holds it
    axes = density_axes(wide, sigma / math.sqrt(power), nodes_per_std)
    needed = 64 * math.prod(map(len, axes))
    if needed > MEMORY:
        raise ValueError(f"the grid takes {needed:,} bytes: at most {MEMORY:,} may; lower nodes_per_std")
    points = nodes(axes)
    squared = p.score(points, sigma).square().sum(1)
    if n_empty:
        squared = squared + n_empty / (power * sigma**2)
    masses = squared * (power * p.log_prob(points, sigma)).exp()
    return Cloud(points, masses / masses.sum())
