"""What a mixture is given, checked and brought to one form: tensors, probabilities, eigenvalues and eigenvectors.

Full covariances are kept twice: in the mixture's dtype for scores, and in float64 on the CPU, from which every other
mixture is made. So a float32 mixture that is perturbed, scaled, conditioned or converted loses no digits on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


def as_tensor(value: Any, name: str, like: Tensor | None = None) -> Tensor:
    """A constant floating-point tensor.

    Without ``like`` an array keeps its dtype and nested numbers take torch's default. With it numbers and arrays take its
    dtype, and tensors must have it already.
    """
    dtype: torch.dtype | None = torch.get_default_dtype() if like is None else like.dtype
    device = None if like is None else like.device
    if not isinstance(value, Tensor):
        try:
            if _holds_arrays(value):
                value = np.array(value, order="C")
                value = value.astype(value.dtype.newbyteorder("="))
                dtype = None if like is None and value.dtype.kind == "f" else dtype
            return torch.tensor(value, dtype=dtype, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"{name} is {type(value).__name__} that is not nested numbers: pass a torch tensor, e.g. torch.stack([...])"
            ) from error
    if not value.is_floating_point() or (like is not None and value.dtype != dtype):
        raise TypeError(
            f"{name} is {value.dtype}: it must be {'a floating-point tensor' if like is None else dtype}; convert it "
            f"with .to({dtype})"
        )
    return value.detach().to(device or value.device, copy=True)


def _holds_arrays(value: Any) -> bool:
    """Whether it is an array, or nested sequences of arrays or of NumPy's numbers."""
    while isinstance(value, Sequence) and not isinstance(value, str) and len(value):
        value = value[0]
    return hasattr(value, "__array__") and not isinstance(value, Tensor)


def check_weights(weights: Any, means: Tensor) -> Tensor:
    n = len(means)
    if weights is None:
        return torch.full((n,), 1 / n, dtype=means.dtype, device=means.device)
    weights = as_tensor(weights, "weights", means)
    if weights.shape != (n,):
        raise ValueError(
            f"weights has shape {list(weights.shape)}: {n} components need [{n}]; pass one weight per row of means"
        )
    if not bool((weights >= 0).all()):
        worst = int((~(weights >= 0)).nonzero()[0])
        raise ValueError(
            f"weights[{worst}] = {float(weights[worst])}: a weight must not be negative or NaN; pass probabilities"
        )
    total = float(weights.sum())
    if not abs(total - 1) <= 1e-5:
        remedy = (
            "pass weights / weights.sum()" if 0 < total < math.inf else "give at least one a positive, finite weight"
        )
        raise ValueError(f"weights sum to {total:.6g}: they must sum to 1; {remedy}")
    return weights / weights.sum()


def check_noise(noise_std: Any, n: int, like: Tensor) -> Tensor:
    """Standard deviations [n] of measurements, in float64 on the CPU."""
    noise = as_tensor(noise_std, "noise_std", None if isinstance(noise_std, Tensor) else like.cpu().double())
    if noise.ndim and noise.shape != (n,):
        raise ValueError(f"noise_std has shape {list(noise.shape)}: {n} measurements need a number or [{n}]")
    bad = ~(torch.isfinite(noise) & (noise >= 0))
    if bool(bad.any()):
        worst = float(noise[bad].flatten()[0])
        raise ValueError(f"noise_std = {worst}: a standard deviation must be finite and not negative; pass 0 for none")
    return noise.cpu().double().expand(n)


def check_dims(dims: Sequence[int], dim: int) -> list[int]:
    try:
        chosen = [index(d) for d in dims if not isinstance(d, bool)]
        good = len(chosen) == len(dims)
    except TypeError:
        chosen, good = dims, False  # type: ignore[assignment]
    if not good or not chosen or len(set(chosen)) < len(chosen) or not all(0 <= d < dim for d in chosen):
        raise ValueError(f"dims = {chosen}: it must name different coordinates from 0 to {dim - 1}; pass e.g. dims=[0]")
    return chosen


class Wide(NamedTuple):
    """Covariances that are not diagonal, in float64 on the CPU."""

    full: Tensor  # [K, D, D]
    variances: Tensor  # [K, D], the eigenvalues; more accurate than those of ``full`` where some are very small
    bases: Tensor  # [K, D, D], eigenvectors in columns
    eps: float  # the relative accuracy of the numbers in ``full``


class Spread(NamedTuple):
    """The covariances of K components: eigenvalues, and eigenvectors where those are not the axes."""

    variances: Tensor  # [K, D]
    bases: Tensor | None = None  # [K, D, D], eigenvectors in columns
    wide: Wide | None = None  # what the two were rounded from

    @property
    def full(self) -> Tensor:
        """[K, D, D], the matrices."""
        return torch.diag_embed(self.variances) if self.wide is None else self.wide.full.to(self.variances)

    def exact(self) -> Wide:
        """In float64 on the CPU, whatever the form."""
        if self.wide is not None:
            return self.wide
        variances = self.variances.cpu().double()
        bases = torch.eye(variances.shape[1], dtype=torch.float64, device="cpu").expand(len(variances), -1, -1)
        return Wide(torch.diag_embed(variances), variances, bases, torch.finfo(self.variances.dtype).eps)

    def plus(self, variance: float) -> Spread:
        """Every covariance plus ``variance`` times the identity."""
        if variance == 0:
            return self
        if self.wide is None:
            return Spread(self.variances + variance)
        full, variances, bases, _ = self.wide
        cleaned = (bases * variances[:, None]) @ bases.mT  # without what rounding left where an eigenvalue is zero
        full = torch.where((variances == 0).any(1)[:, None, None], cleaned, full)
        full = full + variance * torch.eye(full.shape[-1], dtype=torch.float64, device="cpu")
        return _narrow(Wide(full, variances + variance, bases, torch.finfo(torch.float64).eps), self.variances)

    def times(self, factor: float) -> Spread:
        """Every covariance times ``factor``."""
        if self.wide is None:
            return Spread(factor * self.variances)
        wide = self.wide._replace(full=factor * self.wide.full, variances=factor * self.wide.variances)
        return _narrow(wide, self.variances)

    def among(self, dims: list[int]) -> Spread:
        """The covariances of some of the coordinates."""
        if self.wide is None:
            return Spread(self.variances[:, dims])
        return _from_matrices(self.wide.full[:, dims][:, :, dims], self.wide.eps, self.variances)

    def repeated(self, n: int) -> Spread:
        """For n components where this is that of one, which they share."""
        if len(self.variances) == n:
            return self
        variances = self.variances.expand(n, -1).contiguous()
        if self.wide is None or self.bases is None:
            return Spread(variances)
        full, values, vectors, eps = self.wide
        wide = Wide(full.expand(n, -1, -1), values.expand(n, -1), vectors.expand(n, -1, -1), eps)
        return Spread(variances, self.bases.expand(n, -1, -1).contiguous(), wide)

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Spread:
        """On another device or in another dtype."""
        like = moved(self.variances, device, dtype)
        return Spread(like) if self.wide is None else _narrow(self.wide, like)


def moved(x: Tensor, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    """On another device and in another dtype; MPS has no float64, so it changes on the CPU where one of the two is that."""
    if device is not None and torch.device(device).type == "cpu":
        return x.to(device).to(dtype)
    return x.to(dtype).to(device)


def spread(covariances: Tensor, means: Tensor) -> Spread:
    """The covariances of a mixture, from any of the forms it takes.

    Full matrices are diagonalised on the CPU in float64, so that float32 loses no digits here. Eigenvalues within rounding
    of zero are zero.
    """
    n, dim = means.shape
    if not bool(torch.isfinite(covariances).all()):
        raise ValueError("covariances has values that are NaN or infinite: every value must be finite; repair them")
    if covariances.ndim == 2 and covariances.shape == (dim, dim) and dim == n > 1:
        raise ValueError(
            f"covariances has shape {list(covariances.shape)} and K = D = {dim}: it could be one matrix or the variances of {n} "
            "components; for one matrix C that all share pass C[None], for variances V per axis pass torch.diag_embed(V)"
        )
    if covariances.ndim == 3 and covariances.shape[0] in (1, n) and covariances.shape[1:] == (dim, dim):
        found = _from_matrices(
            covariances.cpu().double(), torch.finfo(covariances.dtype).eps, covariances, checked=True
        )
        found = found.repeated(n)
    elif covariances.ndim == 2 and covariances.shape[0] in (1, n) and covariances.shape[1] == dim:
        found = Spread(covariances.expand(n, dim).clone())
    elif covariances.ndim == 0 or (covariances.ndim == 1 and len(covariances) in (1, n)):
        found = Spread(covariances.reshape(-1, 1).expand(n, dim).clone())
    else:
        raise ValueError(
            f"covariances has shape {list(covariances.shape)}: with K = {n}, D = {dim} it must be a scalar, [{n}], "
            f"[{n}, {dim}] (variances), [{n}, {dim}, {dim}]{'' if n == 1 else f' or [1, {dim}, {dim}]'}; a single matrix is matrix[None]"
        )
    if bool((found.variances < 0).any()):
        raise ValueError(
            f"covariances has the variance {float(found.variances.min()):.6g}: variances must not be negative; pass "
            "squares of standard deviations"
        )
    return found


def condition(means: Tensor, spread: Spread, given: list[int], values: Tensor) -> tuple[Tensor, Spread]:
    """Means [K, o] and covariances of the other coordinates where the ``given`` ones have ``values`` [d].

    Eigenvalues within rounding of the original covariances are zero.
    """
    wide, eps = spread.exact().full, spread.exact().eps
    others = [d for d in range(wide.shape[-1]) if d not in given]
    cross = wide[:, others][:, :, given]
    gain = torch.linalg.solve(wide[:, given][:, :, given], cross.mT).mT  # [K, o, d]
    left = wide[:, others][:, :, others] - gain @ cross.mT
    scale = wide.diagonal(dim1=1, dim2=2)[:, others]
    exact_means, exact_values = (t.cpu().double() for t in (means, values))
    moved = exact_means[:, others] + (gain @ (exact_values - exact_means[:, given])[:, :, None])[:, :, 0]
    return moved.to(means), _narrow(_eigen((left + left.mT) / 2, 2 * eps, scale, checked=False), means)


def observe(
    means: Tensor, spread: Spread, weights: Tensor, operator: Tensor, values: Tensor, noise: Tensor
) -> tuple[Tensor, Spread, Tensor, float]:
    r"""Means, covariances and weights of x given y = A x + noise, for A [M, D], y [M] and standard deviations [M], all
    positive or all zero; and the log density of y.

    Rows are scaled to one noise :math:`\tau`. With :math:`\Sigma = L L^T` and the singular value decomposition
    :math:`A L = U S V^T` the posterior covariance is :math:`F F^T` with :math:`F = L V \tau / \sqrt{\tau^2 + S^2}`: nothing is
    subtracted, so a small noise loses no digits.
    """
    exact, tau, m = spread.exact(), float(noise.max()), len(operator)
    a, y, mu = (t.cpu().double() for t in (operator, values, means))
    units = noise / tau if tau else torch.ones_like(noise)
    a, y = a / units[:, None], y / units
    root = exact.bases * exact.variances.sqrt()[:, None]  # L
    image = a @ root
    left, lengths, right = torch.linalg.svd(image)
    used, lost = weights.cpu() > 0, _nullity(image)
    repeated = int(_nullity(operator[None].cpu().double(), torch.finfo(operator.dtype).eps))
    if not tau and (repeated or bool((lost > 0)[used].any())):
        raise ValueError(
            f"operator has {repeated} rows that depend on others, or measures without noise where a component has no variance: the "
            "measurement is degenerate; drop such rows, or pass noise_std > 0"
        )
    lengths = torch.where(torch.arange(lengths.shape[1], device="cpu") < (m - lost)[:, None], lengths, 0.0)
    seen = torch.nn.functional.pad(lengths, (0, m - lengths.shape[1]))  # [K, M]
    known = torch.nn.functional.pad(lengths, (0, root.shape[-1] - lengths.shape[1]))  # [K, D]
    residual = ((y - mu @ a.mT)[:, None] @ left)[:, 0]  # [K, M], along U
    rounding = max(8, m) * torch.finfo(torch.float64).eps * (y.abs() + mu.abs() @ a.abs().mT).norm(dim=1, keepdim=True)
    residual = torch.where(residual.abs() > rounding, residual, 0.0)
    variances = (tau**2 + seen.square()).clamp(min=torch.finfo(torch.float64).tiny)
    logs = weights.cpu().double().log() - 0.5 * (residual.square() / variances + (2 * math.pi * variances).log()).sum(1)
    shift = torch.zeros_like(known)
    shift[:, : lengths.shape[1]] = (seen / variances * residual)[:, : lengths.shape[1]]
    turned = root @ right.mT  # L V
    moved = mu + (turned @ shift[:, :, None])[:, :, 0]
    left_over = torch.where(known > 0, tau / torch.hypot(torch.full_like(known, tau), known), 1.0)
    evidence = float(torch.logsumexp(logs, 0) - units.log().sum())
    return (
        moved.to(means),
        from_factor(turned * left_over[:, None], means),
        torch.softmax(logs, 0).to(weights),
        evidence,
    )


def measure(means: Tensor, spread: Spread, operator: Tensor, noise: Tensor) -> tuple[Tensor, Spread]:
    """Means and covariances of x and y = A x + noise together, y last."""
    exact = spread.exact()
    a, mu = (t.cpu().double() for t in (operator, means))
    both = torch.cat([torch.eye(a.shape[1], dtype=torch.float64, device="cpu"), a])
    root = both @ (exact.bases * exact.variances.sqrt()[:, None])  # [K, D + M, D]
    added = torch.cat([noise.new_zeros(a.shape[1], len(noise)), torch.diag(noise)])[:, noise > 0]
    factor = torch.cat([root, added.expand(len(root), -1, -1)], 2)
    return (mu @ both.mT).to(means), from_factor(factor, means)


def _narrow(wide: Wide, like: Tensor) -> Spread:
    """In the dtype and on the device of ``like``; without eigenvectors where those are the axes."""
    if bool((wide.full == torch.diag_embed(wide.full.diagonal(dim1=1, dim2=2))).all()):
        axes = wide.bases.abs().argmax(1)
        if bool(((wide.bases != 0).sum(1) == 1).all()):
            return Spread(torch.zeros_like(wide.variances).scatter(1, axes, wide.variances).to(like).contiguous())
    return Spread(wide.variances.to(like).contiguous(), wide.bases.to(like).contiguous(), wide)


def _from_matrices(full: Tensor, eps: float, like: Tensor, *, checked: bool = False) -> Spread:
    """From matrices in float64; diagonal ones need no eigenvectors."""
    diagonal = full.diagonal(dim1=1, dim2=2)
    if bool((full == torch.diag_embed(diagonal)).all()):
        return Spread(diagonal.to(like).contiguous())
    return _narrow(_eigen(full, eps, checked=checked), like)


def from_factor(factor: Tensor, like: Tensor) -> Spread:
    """The covariances ``factor @ factor.mT`` from factors [K, D, R] in float64: eigenvalues keep the digits that squares would lose."""
    left, lengths, _ = torch.linalg.svd(factor)
    dim = factor.shape[1]
    squares = torch.nn.functional.pad(lengths.square(), (0, dim - lengths.shape[1]))
    variances = squares.flip(1)  # ascending, as eigh has them
    variances = torch.where(torch.arange(dim, device="cpu") < _nullity(factor)[:, None], 0.0, variances)
    return _narrow(Wide(factor @ factor.mT, variances, left.flip(2), torch.finfo(torch.float64).eps), like)


def _nullity(factor: Tensor, eps: float = torch.finfo(torch.float64).eps) -> Tensor:
    """How many directions [K] the rows of ``factor`` [K, D, R], exact to ``eps``, do not span, each taken in its own unit."""
    rows = factor.norm(dim=2, keepdim=True)
    lengths = torch.linalg.svdvals(factor / torch.where(rows > 0, rows, 1.0))
    rank = (lengths > max(8, *factor.shape[1:]) * eps).sum(1)
    return factor.shape[1] - rank


def _eigen(full: Tensor, eps: float, scale: Tensor | None = None, *, checked: bool) -> Wide:
    """Diagonalise symmetric matrices whose entries ij are exact to ``eps`` times the root of ``scale`` i times ``scale`` j.

    The scale [K, D] is by default their diagonal, so that a small variance beside a large one is not taken for rounding.
    ``checked=False`` where they are positive semi-definite by construction, whatever rounding says.
    """
    dim = full.shape[-1]
    size = full.abs().amax((1, 2), keepdim=True)
    skew = (full - full.mT).abs().amax((1, 2))
    if bool((skew > 100 * eps * size[:, 0, 0]).any()):
        worst = int((skew / size[:, 0, 0]).nan_to_num().argmax())
        raise ValueError(
            f"covariances[{worst}] differs from its transpose by {float(skew[worst]):.3g}: a covariance is "
            "symmetric; pass (C + C.mT) / 2 if rounding did it"
        )
    full = (full + full.mT) / 2
    values, vectors = torch.linalg.eigh(full)
    scale = (full.diagonal(dim1=1, dim2=2) if scale is None else scale).abs()
    scale = torch.where(scale > 0, scale, size[:, 0].clamp(min=torch.finfo(torch.float64).tiny))
    scaled = torch.linalg.eigvalsh(full / (scale[:, :, None] * scale[:, None, :]).sqrt())
    rounding = max(8, dim) * eps
    if checked and bool((scaled < -rounding).any()):
        worst = int(scaled.min(1).values.argmin())
        raise ValueError(
            f"covariances[{worst}] has the eigenvalue {float(values[worst].min()):.6g}: a covariance is positive "
            "semi-definite; check its signs or add a multiple of I"
        )
    nullity = (scaled <= rounding).sum(1, keepdim=True)
    values = torch.where(torch.arange(dim, device="cpu") < nullity, 0.0, values.clamp(min=0))
    return Wide(full, values, vectors, eps)
