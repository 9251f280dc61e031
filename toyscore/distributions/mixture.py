r"""Gaussian mixtures: the ground truth of everything else.

With weights :math:`\pi_k`, means :math:`\mu_k` and covariances :math:`\Sigma_k`, noise of standard deviation
:math:`\sigma` turns the mixture into another one, exactly:

.. math:: q_\sigma(x) = \sum_k \pi_k N(x; \mu_k, \Sigma_k + \sigma^2 I).

With the responsibilities :math:`r_k(x) \propto \pi_k N(x; \mu_k, \Sigma_k + \sigma^2 I)`, which sum to one,

.. math:: \nabla \log q_\sigma(x) = \sum_k r_k(x)\, s_k(x), \qquad s_k(x) = -(\Sigma_k + \sigma^2 I)^{-1} (x - \mu_k),

so the score is the responsibility-weighted mean of the components' scores. It is *not* their sum, and it does depend on
the weights, wherever two components share a region. Its Jacobian is the spread of the s_k minus the mean precision.

How it is computed, and how accurately, is told in ``components``: by differences near the means and by products far away,
components first in memory, with every covariance diagonalised once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from toyscore import operators as ops
from toyscore._precision import exact
from toyscore.distributions import conversions, parameters
from toyscore.distributions.components import Components, check_square
from toyscore.distributions.parameters import Spread
from toyscore.operators import Sigma


class GaussianMixture:
    r"""The mixture :math:`p(x) = \sum_k \pi_k N(x; \mu_k, \Sigma_k)`, exact at every noise level.

    The score of N(0, 1) is -x; with noise of standard deviation sigma it is -x / (1 + sigma²):

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> p, x = GaussianMixture([[0.0]]), torch.tensor([[1.0]])
    >>> round(p.score(x).item(), 3), round(p.score(x, sigma=2.0).item(), 3)
    (-1.0, -0.2)

    Args:
        means: [K, D], a floating-point tensor, an array or nested numbers. Its dtype and device are the mixture's; a NumPy
            array of floats keeps its dtype, nested numbers take torch's default.
        covariances: a scalar or [K] (isotropic variances), [K, D] (variances per axis), [K, D, D] (full); a leading 1
            is shared by all components. Where K = D a [D, D] is refused: pass C[None] or torch.diag_embed(variances).
            Variances, not standard deviations; in units of x squared. Zero variance is allowed, and an error where the
            clean density is asked for.
        weights: [K], non-negative, summing to one; equal by default.

    Raises:
        TypeError: a dtype other than that of ``means``.
        ValueError: wrong shapes; NaN; weights that are negative or do not sum to one; a covariance that is not
            symmetric or not positive semi-definite.

    The mixture is a constant: no gradient flows into its parameters.
    """

    @torch.inference_mode(False)  # what is kept must serve later gradients
    def __init__(self, means: Any, covariances: Any = 1.0, weights: Any = None) -> None:
        means = parameters.as_tensor(means, "means")
        if means.ndim != 2 or means.numel() == 0:
            raise ValueError(
                f"means has shape {list(means.shape)}: it must be [K, D] with K, D >= 1; pass one row per component"
            )
        ops.check_finite(means, "means")
        spread = parameters.spread(parameters.as_tensor(covariances, "covariances", means), means)
        self._parts = Components(means, spread, parameters.check_weights(weights, means))

    @classmethod
    def _build(cls, means: Tensor, spread: Spread, weights: Tensor) -> GaussianMixture:
        mixture = cls.__new__(cls)
        mixture._parts = Components(means, spread, weights)
        return mixture

    @classmethod
    def from_sklearn(cls, fitted: Any) -> GaussianMixture:
        """The mixture that scikit-learn fitted, in the dtype of its arrays.

        Args:
            fitted: a fitted ``sklearn.mixture.GaussianMixture`` or ``BayesianGaussianMixture``, of any ``covariance_type``. Of
                a Bayesian one the point estimates are taken, from which its ``sample`` draws; its ``score_samples`` is a
                variational bound with other terms.

        Raises:
            TypeError: something else.
            ValueError: not fitted.
        """
        return cls(*conversions.from_sklearn(fitted))

    @classmethod
    @torch.inference_mode(False)
    def from_torch(cls, mixture: torch.distributions.MixtureSameFamily) -> GaussianMixture:
        """The mixture of a ``MixtureSameFamily`` over ``Normal``, ``Independent``, ``MultivariateNormal`` or
        ``LowRankMultivariateNormal``, in its dtype and on its device. Events are flattened; a plain ``Normal`` gives D = 1.

        Raises:
            TypeError: something else, or components of another family.
            ValueError: a batch of mixtures.
        """
        return cls._build(*conversions.from_torch(mixture))

    def to_torch(self) -> torch.distributions.MixtureSameFamily:
        """The same mixture as a ``torch.distributions.MixtureSameFamily`` of event shape [D].

        >>> import torch
        >>> from toyscore.distributions import GaussianMixture, two_modes
        >>> p, x = two_modes(), torch.tensor([[1.0, 2.0]])
        >>> torch.allclose(p.to_torch().log_prob(x), p.log_prob(x))
        True
        >>> GaussianMixture.from_torch(p.to_torch())
        GaussianMixture(K=2, D=2, float32, cpu)

        Raises:
            ValueError: a degenerate covariance, which has no density.
        """
        return conversions.to_torch(self.means, self._parts.spread, self.weights)

    @property
    def means(self) -> Tensor:
        """[K, D]."""
        return self._parts.means

    @property
    def weights(self) -> Tensor:
        """[K], summing to one."""
        return self._parts.weights

    @property
    def covariances(self) -> Tensor:
        """[K, D, D], always full."""
        return self._parts.spread.full

    @property
    def mean(self) -> Tensor:
        """[D], of the whole mixture."""
        return _weighted(self.weights, self.means)

    @property
    def covariance(self) -> Tensor:
        """[D, D], of the whole mixture: mean of the covariances plus covariance of the means."""
        return _covariance(self.weights, self.means - self.mean, self.covariances)

    def __repr__(self) -> str:
        n, dim = self.means.shape
        return f"GaussianMixture(K={n}, D={dim}, {str(self.means.dtype).removeprefix('torch.')}, {self.means.device})"

    @torch.inference_mode(False)
    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GaussianMixture:
        """The same mixture on another device or in another dtype, its weights summing to one to the new rounding."""
        means, weights = parameters.moved(self.means, device, dtype), parameters.moved(self.weights, device, dtype)
        return GaussianMixture._build(means, self._parts.spread.to(device, dtype), weights / weights.sum())

    def log_prob(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        r"""Log density of the perturbed mixture, :math:`\log q_\sigma(x)`, in nats.

        Args:
            x: [B, *event] with D numbers in an event, of the mixture's dtype.
            sigma: float | 0-d | [B], the noise's standard deviation in units of x.

        Returns:
            [B].

        Raises:
            TypeError: x of another dtype.
            ValueError: wrong event, empty batch, sigma negative or NaN, or zero where a covariance is degenerate.
        """
        return self._parts.apply(self._parts.log_prob, x, sigma)

    def score(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        r"""Score of the perturbed mixture, :math:`\nabla_x \log q_\sigma(x) = \sum_k r_k(x) s_k(x)`. Source: song2019, Sec. 2.

        Args, errors: as ``log_prob``.

        Returns:
            [B, *event], in units of 1/x. In memory the D axis comes first, whatever the layout of x.
        """
        return ops.unflatten(self._parts.apply(self._parts.score, x, sigma), x)

    def responsibilities(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        """Posterior probability of each component given x; args and errors as ``log_prob``. Returns [B, K].

        Equally far from two modes of one width, only their weights count:

        >>> import torch
        >>> from toyscore.distributions import two_modes
        >>> r = two_modes().responsibilities(torch.zeros(1, 2))
        >>> [round(value, 3) for value in r[0].tolist()]
        [0.8, 0.2]
        """
        return self._parts.apply(self._parts.responsibilities, x, sigma)

    def log_responsibilities(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        """Their logarithms, also where they underflow; args and errors as ``log_prob``. Returns [B, K]."""
        return self._parts.apply(self._parts.log_responsibilities, x, sigma)

    def jacobian(self, x: Tensor, sigma: Sigma = 0.0) -> Tensor:
        r"""Jacobian of the score, :math:`\sum_k r_k (s_k - s)(s_k - s)^T - \sum_k r_k (\Sigma_k + \sigma^2 I)^{-1}`.

        Args, errors: as ``log_prob``.

        Returns:
            [B, D, D], symmetric, in units of 1/x squared.
        """
        return self._parts.apply(self._parts.jacobian, x, sigma, size=self.means.shape[1])

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Independent draws from the clean mixture: [n, D]."""
        return self.sample_labelled(n, generator=generator)[0]

    def sample_labelled(self, n: int, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """What ``sample`` gives with the same generator, and the component of each draw, [n] int64."""
        ops.check_count(n, "n")
        device = ops.source(generator, self.weights)
        index = torch.multinomial(self.weights.to(device), n, replacement=True, generator=generator).to(
            self.means.device
        )
        means = self.means[index]
        noise = ops.normal_like(means, generator) * self._parts.variances[index].sqrt()
        if self._parts.bases is not None:
            noise = _turned(self._parts.bases[index], noise)
        return means + noise, index

    @torch.inference_mode(False)
    def perturb(self, sigma: float) -> GaussianMixture:
        r"""The exact convolution with N(0, sigma^2 I): covariances :math:`\Sigma_k + \sigma^2 I`, for a single sigma.

        >>> from toyscore.distributions import GaussianMixture
        >>> p = GaussianMixture([[0.0]], covariances=1.0)
        >>> p.perturb(2.0).covariances.tolist()  # 1 + 2**2
        [[[5.0]]]
        """
        _, largest = ops.check_sigma(sigma, self.means)
        check_square(largest, self.means)
        if isinstance(sigma, Tensor) and sigma.ndim:
            raise ValueError(f"sigma has shape {list(sigma.shape)}: perturb takes one noise level; pass a float")
        return GaussianMixture._build(self.means, self._parts.spread.plus(float(sigma) ** 2), self.weights)

    @torch.inference_mode(False)
    def scaled(self, factor: float) -> GaussianMixture:
        r"""The exact law of ``factor`` times x: means :math:`c \mu_k`, covariances :math:`c^2 \Sigma_k`.

        Raises:
            TypeError, ValueError: a factor that is not a finite, positive number.
        """
        ops.check_positive(factor, "factor")
        check_square(float(factor), self.means, "factor")
        means, spread = float(factor) * self.means, self._parts.spread.times(float(factor) ** 2)
        lost = (spread.variances == 0) & (self._parts.spread.variances > 0)
        if bool(lost.any()) or not bool(torch.isfinite(spread.variances).all() & torch.isfinite(means).all()):
            raise ValueError(
                f"factor = {factor}: means or variances leave the range of {means.dtype}; pass one nearer to 1"
            )
        return GaussianMixture._build(means, spread, self.weights)

    @torch.inference_mode(False)
    def marginal(self, dims: Sequence[int]) -> GaussianMixture:
        """The exact law of the coordinates ``dims``, in that order.

        Raises:
            ValueError: no coordinate, one out of range, or one named twice.
        """
        kept = parameters.check_dims(dims, self.means.shape[1])
        return GaussianMixture._build(self.means[:, kept], self._parts.spread.among(kept), self.weights)

    @torch.inference_mode(False)
    def condition(self, dims: Sequence[int], values: Any) -> GaussianMixture:
        r"""The exact law of the other coordinates, in their order, given that coordinates ``dims`` equal ``values``.

        Per component, with o the others: mean :math:`\mu_o + \Sigma_{od} \Sigma_{dd}^{-1} (v - \mu_d)`, covariance
        :math:`\Sigma_{oo} - \Sigma_{od} \Sigma_{dd}^{-1} \Sigma_{do}`; the weight is multiplied by its density at v.

        With variances 1 and correlation 0.5, the mean is 0.5 · 2 and the variance 1 - 0.5²:

        >>> from toyscore.distributions import GaussianMixture
        >>> p = GaussianMixture([[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]])
        >>> q = p.condition([0], [2.0])
        >>> round(q.mean.item(), 3), round(q.covariance.item(), 3)
        (1.0, 0.75)

        Raises:
            ValueError: dims as in ``marginal``, or naming every coordinate; values not [len(dims)] or not finite; a
                degenerate covariance among ``dims``.
        """
        dim = self.means.shape[1]
        given = parameters.check_dims(dims, dim)
        if len(given) == dim:
            raise ValueError(
                f"dims = {list(dims)} names every coordinate: condition leaves at least one free; use log_prob for "
                "the density at a point"
            )
        values = parameters.as_tensor(values, "values", self.means)
        if values.shape != (len(given),):
            raise ValueError(
                f"values has shape {list(values.shape)}: dims = {list(dims)} needs [{len(given)}]; pass one value "
                "per coordinate"
            )
        ops.check_finite(values[None], "values")
        weights = self.marginal(given).responsibilities(values[None])[0]
        return GaussianMixture._build(*parameters.condition(self.means, self._parts.spread, given, values), weights)

    def observe(self, operator: Any, values: Any, noise_std: Any = 0.0) -> GaussianMixture:
        r"""The exact law of x given a measurement :math:`y = A x + \tau n`, n standard normal: a mixture in all D coordinates.

        Per component the posterior of linear regression, its weight multiplied by the density of y. Without noise it has no
        extent along A, so it has a density only once it is perturbed.

        If x is from N(0, 1) and x + 2 n = 5 was measured, the noise having variance 4, then x is from N(5/5, 4/5):

        >>> from toyscore.distributions import GaussianMixture
        >>> p = GaussianMixture([[0.0]])
        >>> q = p.observe([[1.0]], [5.0], noise_std=2.0)
        >>> round(q.mean.item(), 3), round(q.covariance.item(), 3)
        (1.0, 0.8)

        Args:
            operator: A, [M, D], of rank M where there is no noise.
            values: y, [M].
            noise_std: tau, one for all or [M], in units of y.

        Raises:
            TypeError: operator or values of another dtype than the mixture's.
            ValueError: operator, values or noise of another shape or not finite; a negative noise; a measurement with no noise whose
                covariance is degenerate.
        """
        return self._observe(operator, values, noise_std)[0]

    @torch.inference_mode(False)
    def _observe(self, operator: Any, values: Any, noise_std: Any) -> tuple[GaussianMixture, float]:
        """What ``observe`` gives, and the log density of y."""
        a = self._operator(operator)
        y = parameters.as_tensor(values, "values", self.means)
        if y.shape != a.shape[:1]:
            raise ValueError(
                f"values has shape {list(y.shape)}: this operator measures [{len(a)}]; pass one value per row"
            )
        ops.check_finite(y[None], "values")
        noise = parameters.check_noise(noise_std, len(a), self.means)
        means, spread, weights, evidence = self.means, self._parts.spread, self.weights, 0.0
        for rows in (noise == 0, noise > 0):  # what is known exactly first
            if bool(rows.any()):
                means, spread, weights, log = parameters.observe(means, spread, weights, a[rows], y[rows], noise[rows])
                evidence += log
        return GaussianMixture._build(means, spread, weights), evidence

    @torch.inference_mode(False)
    def measure(self, operator: Any, noise_std: Any = 0.0) -> GaussianMixture:
        """The joint law of x and y = A x + tau n: D + M coordinates, y last. Args, errors: as ``observe``."""
        a = self._operator(operator)
        noise = parameters.check_noise(noise_std, len(a), self.means)
        return GaussianMixture._build(*parameters.measure(self.means, self._parts.spread, a, noise), self.weights)

    def _operator(self, operator: Any) -> Tensor:
        a = parameters.as_tensor(operator, "operator", self.means)
        if a.ndim != 2 or a.shape[1] != self.means.shape[1] or len(a) == 0:
            raise ValueError(
                f"operator has shape {list(a.shape)}: it must be [M, {self.means.shape[1]}] with M >= 1; pass one row of "
                f"{self.means.shape[1]} numbers per measurement"
            )
        ops.check_finite(a, "operator")
        return a


@exact
def _weighted(weights: Tensor, rows: Tensor) -> Tensor:
    return weights @ rows


@exact
def _covariance(weights: Tensor, offsets: Tensor, covariances: Tensor) -> Tensor:
    return torch.einsum("k,kij->ij", weights, covariances) + (weights[:, None] * offsets).mT @ offsets


@exact
def _turned(bases: Tensor, noise: Tensor) -> Tensor:
    """[n, D] along the axes, from numbers along eigenvectors [n, D, D]."""
    return torch.einsum("nij,nj->ni", bases, noise)
