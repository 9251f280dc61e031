"""Distributions whose score is known in closed form, and toys to learn from.

Three kinds, all with ``sample(n, *, generator=None)``:

- :class:`GaussianMixture`: density, score, Jacobian, marginals and conditionals, exact at every noise level, because a
  Gaussian mixture convolved with Gaussian noise is a Gaussian mixture;
- :func:`empirical`: a data set as equal-weight deltas, whose convolution with noise has an exact score as well;
- sampled toys (moons, rings, spirals, ...): samples only, for learning where no truth is at hand; among them curves in R^D.

``TOYS`` maps a name to a zero-argument constructor; all of them live in the box ``[-8, 8]^2`` of the paper's figures.
"""

from toyscore.distributions.manifolds import tilted_circle, tilted_line
from toyscore.distributions.mixture import GaussianMixture
from toyscore.distributions.points import Empirical, empirical
from toyscore.distributions.toys import BOX, TOYS, SampledToy, asymmetric, eight_gaussians, grid, two_modes

__all__ = [
    "BOX",
    "TOYS",
    "Empirical",
    "GaussianMixture",
    "SampledToy",
    "asymmetric",
    "eight_gaussians",
    "empirical",
    "grid",
    "tilted_circle",
    "tilted_line",
    "two_modes",
]
