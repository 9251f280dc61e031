r"""Score matching on data that fill no volume: why its loss runs away, and what a little noise does.

Let data lie on a manifold of dimension d in :math:`\mathbb R^D`. A score that pushes back to it with stiffness a along the D - d
normal directions, :math:`s = -a\, n` at the normal displacement n, costs nothing on the data, where n = 0, and earns its divergence:

.. math:: \frac12 E\|s\|^2 + E\,\mathrm{tr} \frac{\partial s}{\partial x} = \frac{a^2}{2} (D - d)\, \tau^2 - a\, (D - d),

with :math:`\tau = 0`: the loss has no minimum, and training follows it down for ever. Noise of deviation :math:`\tau` gives n the variance
:math:`\tau^2`, and a minimum, :math:`-(D - d) / 2\tau^2` at :math:`a = 1/\tau^2`: finite, large and negative. The score's mean square
there is :math:`(D - d)/\tau^2`, so that it tells the dimension (:func:`intrinsic_dimension`).

References: song2019.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore.operators import Score, Sigma


def normal_loss(stiffness: float, codimension: float, noise_std: float = 0.0) -> float:
    r"""The part of the score matching loss that normal directions earn, :math:`(D - d)(a^2 \tau^2 / 2 - a)`. Source: song2019, Sec. 3.1.

    Args:
        stiffness: a, in units of 1/x².
        codimension: D - d.
        noise_std: tau, in units of x; zero is clean data.

    Raises:
        ValueError: a negative codimension or noise; nothing finite.
    """
    _check(codimension, "codimension")
    _check(noise_std, "noise_std")
    if not math.isfinite(stiffness):
        raise ValueError(f"stiffness = {stiffness}: it must be finite; pass e.g. 1 / noise_std**2")
    return codimension * (stiffness**2 * noise_std**2 / 2 - stiffness)


def least_normal_loss(codimension: float, noise_std: float) -> float:
    r"""The least of ``normal_loss`` over stiffness, :math:`-(D - d) / 2 \tau^2`; minus infinity without noise. Source: song2019, Sec. 3.1.

    Raises:
        ValueError: as ``normal_loss``.
    """
    _check(codimension, "codimension")
    _check(noise_std, "noise_std")
    if noise_std == 0:
        return -math.inf if codimension else 0.0
    return normal_loss(1 / noise_std**2, codimension, noise_std)


class Dimension(NamedTuple):
    """An estimate, and its standard error."""

    value: float
    error: float


@torch.no_grad()
def intrinsic_dimension(score: Score, x: Tensor, sigma: Sigma, *, generator: Generator | None = None) -> Dimension:
    r"""The dimension that data show at the width sigma: of the noise added to them, the part that the score cannot tell. Source:
    song2019, Sec. 3.1.

    .. math:: E\left[\|z\|^2 - \|\sigma s(x + \sigma z, \sigma)\|^2\right] = D - \sigma^2 E\|s\|^2

    Where sigma is small beside the manifold's radius of curvature and large beside the spacing of the data, this is d. The first form
    varies least: along normal directions its two terms cancel.

    A line in ten dimensions has dimension one:

    >>> import torch
    >>> from toyscore.diagnostics import intrinsic_dimension
    >>> from toyscore.distributions import tilted_line
    >>> line, g = tilted_line(10), torch.Generator().manual_seed(0)
    >>> x = line.sample(1000, generator=g)
    >>> round(intrinsic_dimension(line.score, x, 0.1, generator=g).value)
    1

    Args:
        score: called as ``score(x, sigma)``; the exact one of ``empirical(points)``, say.
        x: [B, *event], *clean* data.
        sigma: float | 0-d | [B], positive, in units of x.
        generator: of the noise.

    Raises:
        TypeError, ValueError: bad x or sigma, a single row; a score of another shape than x.
    """
    ops.check_batch(x)
    ops.check_finite(x)
    ops.check_sigma(sigma, x, positive=True)
    if len(x) < 2:
        raise ValueError("x has one row: an error needs two; pass more data")
    z, std = ops.normal_like(x, generator), ops.expand(sigma, x)
    told = std * ops.evaluate(score, x + std * z, sigma)
    noise, shown = (ops.flatten(part).cpu().double() for part in (z, told))
    values = (noise.square() - shown.square()).sum(1)
    return Dimension(float(values.mean()), float(values.std()) / math.sqrt(len(x)))


def _check(value: float, name: str) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(
            f"{name} = {value}: it must be finite and not negative; a codimension is D - d, a noise a standard deviation"
        )
