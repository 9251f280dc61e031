r"""Control: the score of what is given, from a score and a likelihood.

By Bayes' rule :math:`\nabla \log q_\sigma(x | y) = \nabla \log q_\sigma(x) + \nabla_x \log p(y | x, \sigma)`, where p(y | x, sigma) is
how likely y is when a *noisy* x is all that is known (song2021, Sec. 5). So a score that is :func:`guided` is a score like any other, and
every sampler, loss and likelihood takes it; nothing is trained anew. What differs is where the likelihood comes from:

- **classes**: a classifier that is told the noise level (:func:`of_class`), or exactly, from a mixture (:func:`mixture_classes`);
- **linear measurements** :math:`y = A x_0 + \tau n` (inpainting, colorization, deblurring): :math:`x_0 | x` has mean
  :math:`\hat x_0 = x + \sigma^2 \mathrm{score}` and covariance :math:`C = \sigma^2 (I + \sigma^2\, \partial \mathrm{score} / \partial x)`,
  exactly. If it were Gaussian, y would be :math:`N(A \hat x_0, A C A^T + \tau^2 I)`: :func:`of_measurement`. On Gaussian data that
  is exact; on others it is not, until sigma is so small that one mode is left. :func:`of_mixture` is exact on mixtures.

A likelihood of a clean x put in place of that of a noisy one is a common mistake: at high noise it pulls everywhere, and too hard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore._precision import exact
from toyscore.distributions import GaussianMixture
from toyscore.distributions.parameters import check_noise
from toyscore.operators import Score, Sigma

LogLikelihood: TypeAlias = Callable[[Tensor, Sigma], Tensor]


def guided(score: Score, log_likelihood: LogLikelihood, *, strength: float = 1.0) -> Score:
    """The score given y: ``score(x, sigma)`` plus the gradient of log p(y | x, sigma). Source: song2021, Eq. (14).

    Given its second mode, the score of the mixture is that of N((-5, -5), I), -5 - x:

    >>> import torch
    >>> from toyscore.distributions import two_modes
    >>> from toyscore.samplers import guided, mixture_classes, of_class
    >>> p = two_modes()
    >>> score = guided(p.score, of_class(mixture_classes(p), label=1))
    >>> [round(value, 3) for value in score(torch.zeros(1, 2), 0.0)[0].tolist()]
    [-5.0, -5.0]

    Args:
        score: any score function.
        log_likelihood: ``(x, sigma)`` -> [B], differentiable in x, of noisy x; up to a constant.
        strength: of the gradient; 1 is Bayes' rule, above it the likelihood counts more often than once. Source: dhariwal2021, Sec. 4.3.

    Raises:
        TypeError, ValueError: score or likelihood cannot be called; strength not finite; values that are not one per row.
    """
    ops.check_score(score)
    if not callable(log_likelihood):
        raise TypeError(
            f"log_likelihood is {type(log_likelihood).__name__}: it must be callable as log_likelihood(x, sigma); pass e.g. of_class(...)"
        )
    if isinstance(strength, bool) or not isinstance(strength, Real) or not math.isfinite(strength):
        raise ValueError(f"strength = {strength!r}: it must be a finite number; pass 1.0 for Bayes' rule")

    def at(x: Tensor, sigma: Sigma, *args: Any, **kwargs: Any) -> Tensor:
        _, pull = ops.gradient(lambda point: log_likelihood(point, sigma), x)
        return ops.evaluate(lambda x, sigma: score(x, sigma, *args, **kwargs), x, sigma) + strength * pull  # Eq. (14)

    return at


def of_class(classifier: Callable[[Tensor, Sigma], Tensor], label: int | Tensor) -> LogLikelihood:
    """log p(label | x, sigma) of a classifier that knows the noise level. Source: song2021, Sec. 5.

    Args:
        classifier: ``(x, sigma)`` -> logits [B, K], e.g. ``models.NoiseClassifier``; they need not be normalised.
        label: one class for every row, or [B] whole numbers.

    Raises:
        TypeError, ValueError: at the call, a label that is no class (of labels on an accelerator, whose values are not looked at, its
            rows are NaN instead) or is not one per row.
    """

    def value(x: Tensor, sigma: Sigma) -> Tensor:
        logits = classifier(x, sigma)
        try:
            labels = torch.as_tensor(label)
        except (TypeError, ValueError, RuntimeError) as error:  # of PyTorch about None
            raise TypeError(f"label is {label!r}: classes are whole numbers; pass e.g. label=0") from error
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise TypeError(f"label is {labels.dtype}: classes are whole numbers; pass e.g. label=0")
        if labels.ndim and labels.shape != x.shape[:1]:
            raise ValueError(
                f"label has shape {list(labels.shape)}: with {len(x)} rows it must be a number or [{len(x)}]"
            )
        n_classes, free = logits.shape[1], ops.looks(labels)  # before they move to where looking is not
        if free and not (int(labels.min()) >= 0 and int(labels.max()) < n_classes):
            raise ValueError(f"label = {labels.tolist()}: classes are 0 to {n_classes - 1}; pass one of them")
        labels = labels.to(x.device).long().expand(len(x))
        logs = logits.log_softmax(1).gather(1, labels.clamp(0, n_classes - 1)[:, None])[:, 0]
        return logs if free else torch.where((labels >= 0) & (labels < n_classes), logs, torch.nan)

    return value


def mixture_classes(mixture: GaussianMixture) -> Callable[[Tensor, Sigma], Tensor]:
    """The exact classifier of a mixture's components: logits [B, K] for noisy x, whose softmax are the responsibilities."""
    return mixture.log_responsibilities


def of_mixture(
    mixture: GaussianMixture, operator: Tensor, y: Tensor, *, noise_std: float | Tensor = 0.0
) -> LogLikelihood:
    """log p(y | x, sigma) of a measurement y = A x_0 + tau n where the data are a mixture, exactly.

    By Bayes' rule from ``mixture.observe``, whose own score is that of ``guided(mixture.score, ...)``, and sooner had.

    Args:
        operator: A, [M, D]. y: [M]. noise_std: tau, one for all or [M], in units of y. Errors as ``GaussianMixture.observe``.
    """
    if isinstance(y, Tensor):
        ops.check_finite(y.reshape(1, -1), "y")
    posterior, evidence = mixture._observe(operator, y, noise_std)
    return lambda x, sigma: posterior.log_prob(x, sigma) - mixture.log_prob(x, sigma) + evidence


@torch.inference_mode(False)  # what is kept must serve gradients
def of_measurement(
    score: Score, operator: Tensor, y: Tensor, *, noise_std: float | Tensor = 0.0, data_variance: float | None = None
) -> LogLikelihood:
    r"""log p(y | x, sigma) of a measurement y = A x_0 + tau n, taking x_0 given x for Gaussian. Source: song2023, Sec. 3.2.

    If x_0 is from N(0, 1) and x_0 + 2 n = 5 was measured, then x_0 is from N(1, 0.8), and the score at sigma is
    (1 - x) / (0.8 + sigma²):

    >>> import torch
    >>> from toyscore.distributions import GaussianMixture
    >>> from toyscore.samplers import guided, of_measurement
    >>> p, x = GaussianMixture([[0.0]]), torch.tensor([[0.0]])
    >>> operator, y = torch.tensor([[1.0]]), torch.tensor([5.0])
    >>> likelihood = of_measurement(p.score, operator, y, noise_std=2.0)
    >>> round(guided(p.score, likelihood)(x, 2.0).item(), 3)
    0.208

    Args:
        score: the score that is to be guided; its posterior mean is differentiated.
        operator: A, [M, D], acting on flattened events; rows of the identity for inpainting (``rows_of``), the mean of the channels for
            colorization (``grey``).
        y: [M], or [B, M].
        noise_std: tau, one for all or [M], in units of y.
        data_variance: v takes the posterior covariance for r² I with r² = sigma² v / (sigma² + v), which is that of N(., v I): cheap, for
            networks and images. Take the variance along the widest direction: with a smaller one the pull is too hard there, and
            steps overshoot. None takes the covariance as it is, by M products with the score's Jacobian: for toys.

    Returns:
        ``(x, sigma)`` -> [B]. The covariance counts as constant when it is differentiated.

    Raises:
        TypeError, ValueError: operator or y of another shape; noise or variance negative; at the call, an event of another size, or
            a covariance that is not positive, which the score of a density never has.
    """
    ops.check_score(score)
    a = operator
    if not isinstance(a, Tensor) or a.ndim != 2 or len(a) == 0 or not a.is_floating_point():
        found = f"{a.dtype} of shape {list(a.shape)}" if isinstance(a, Tensor) else type(a).__name__
        raise TypeError(f"operator is {found}: it must be a floating-point tensor [M, D]; pass e.g. rows_of(mask)")
    if not isinstance(y, Tensor) or y.dtype != a.dtype:
        found = str(y.dtype) if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y is {found}: it must be a tensor of {a.dtype}, as the operator is; convert it")
    if y.shape[-1:] != a.shape[:1] or y.ndim > 2:
        raise ValueError(f"y has shape {list(y.shape)}: with this operator it must be [{len(a)}] or [B, {len(a)}]")
    if y.device != a.device:
        raise ValueError(
            f"y is on {y.device}, the operator on {a.device}: they must agree; move y with y.to({str(a.device)!r})"
        )
    ops.check_finite(y[None] if y.ndim == 1 else y, "y")
    ops.check_finite(a, "operator")
    a, y = a.detach().clone(), y.detach().clone()
    stds, shift = check_noise(noise_std, len(a), a), 0.0
    if data_variance is not None:
        ops.check_positive(data_variance, "data_variance")
    if bool((stds != stds[0]).any()):  # in units of each measurement's noise it is one for all
        if not bool((stds > 0).all()):
            raise ValueError(
                f"noise_std = {stds.tolist()}: zero beside others has no common unit; pass a small one for zero"
            )
        a, y, shift = a / stds.to(a)[:, None], y / stds.to(a), -float(stds.log().sum())
        stds = torch.ones_like(stds)
    tau = float(stds[0])
    wide = a.cpu().double()
    apart = int((wide != 0).sum(0).max()) <= 1  # rows that share no column, as those of pixels and of grey
    if apart:  # A A^T is diagonal as it is
        lengths = wide.square().sum(1)
    else:
        directions, roots, _ = torch.linalg.svd(wide, full_matrices=len(a) > a.shape[1])
        lengths = torch.nn.functional.pad(roots.square(), (0, len(a) - len(roots)))  # eigenvalues of A A^T
    if tau == 0 and float(lengths.min()) <= len(a) * torch.finfo(a.dtype).eps * float(lengths.max()):
        raise ValueError(
            "operator has rows that depend on each other, and noise_std = 0: drop some, or pass noise_std > 0"
        )
    lengths, turned, target = lengths.to(a), a, y
    if not apart:  # into the basis in which A A^T is diagonal
        turned, target = _product(directions.to(a).mT, a), _product(y, directions.to(a))

    def value(x: Tensor, sigma: Sigma) -> Tensor:
        if x[0].numel() != a.shape[1]:
            raise ValueError(
                f"x has shape {list(x.shape)}, {x[0].numel()} numbers in an event: the operator takes {a.shape[1]}; pass an operator "
                f"[M, {x[0].numel()}]"
            )
        std = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
        variance = (std * std).expand(len(x))
        if data_variance is None:
            rows = turned.to(x)[:, None].expand(-1, len(x), -1).reshape(-1, *x.shape)
            with torch.no_grad():  # the covariance counts as constant
                _, products = ops.vector_jacobian(score, x.detach(), sigma, rows)
            curved = _product(products.flatten(2), turned.to(x).mT).movedim(0, 1) * variance[:, None, None] ** 2
            plain = variance[:, None] * lengths.to(x) + tau**2
            spread = 0.5 * (curved + curved.mT) + torch.diag_embed(plain)
        else:
            posterior = variance * data_variance / (variance + data_variance)
            spread = posterior[:, None] * lengths.to(x) + tau**2
        if target.ndim == 2 and len(target) != len(x):
            raise ValueError(f"y has {len(target)} rows, x {len(x)}: pass one measurement per row, or one for all")
        clean = ops.flatten(x) + variance[:, None] * ops.flatten(ops.evaluate(score, x, sigma))
        return _gaussian(target.to(x) - _product(clean, turned.to(x).mT), spread) + shift

    return value


@exact
def _product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


@exact
def _gaussian(residual: Tensor, covariance: Tensor) -> Tensor:
    """log N(residual; 0, covariance): [B, M] and variances [B, M] or covariances [B, M, M] -> [B]."""
    if covariance.ndim == 2:
        return -0.5 * (residual.square() / covariance + (2 * math.pi * covariance).log()).sum(1)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        row = int(failed.nonzero()[0])
        raise ValueError(
            f"the covariance of the measurement at row {row} is not positive: either no density has such a score there, or sigma and "
            "noise_std are too small, or sigma too large, for the digits; pass data_variance or noise_std, or use float64"
        )
    white = torch.linalg.solve_triangular(factor, residual[:, :, None], upper=False)[:, :, 0]
    logs = factor.diagonal(dim1=1, dim2=2).log().sum(1)
    return -0.5 * white.square().sum(1) - logs - 0.5 * residual.shape[1] * math.log(2 * math.pi)


def rows_of(mask: Tensor) -> Tensor:
    """The operator that keeps the numbers of an event where ``mask`` [*event] is true: [M, D], rows of the identity.

    Raises:
        TypeError, ValueError: not booleans, or none of them true.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(
            f"mask is {getattr(mask, 'dtype', type(mask).__name__)}: it must be a tensor of torch.bool; convert it"
        )
    if not bool(mask.any()):
        raise ValueError("mask is false everywhere: there is nothing to measure; set what is known to true")
    kept = mask.flatten().cpu().nonzero()[:, 0]
    rows = torch.zeros(len(kept), mask.numel())
    rows[torch.arange(len(kept)), kept] = 1.0
    return rows


def grey(event: tuple[int, int, int]) -> Tensor:
    """The operator that takes an image [C, H, W] to the mean of its channels: [H W, C H W]."""
    channels, height, width = event
    return torch.eye(height * width).repeat(1, channels) / channels
