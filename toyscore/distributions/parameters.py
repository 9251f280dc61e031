"""What a mixture is given, checked and brought to one form: tensors, probabilities, eigenvalues and eigenvectors."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, NamedTuple

import torch
from torch import Tensor


def as_tensor(value: Any, name: str, like: Tensor | None = None) -> Tensor:
    """A constant floating-point tensor; numbers take ``like``'s dtype, tensors must have it already."""
    dtype, device = (torch.get_default_dtype(), None) if like is None else (like.dtype, like.device)
    if not isinstance(value, Tensor):
        try:
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
        raise ValueError(f"weights sum to {total:.6g}: they must sum to 1; pass weights / weights.sum()")
    return weights / weights.sum()


def check_dims(dims: Sequence[int], dim: int) -> list[int]:
    try:
        chosen = [index(d) for d in dims if not isinstance(d, bool)]
        good = len(chosen) == len(dims)
    except TypeError:
        chosen, good = dims, False  # type: ignore[assignment]
    if not good or not chosen or len(set(chosen)) < len(chosen) or not all(0 <= d < dim for d in chosen):
        raise ValueError(f"dims = {chosen}: it must name different coordinates from 0 to {dim - 1}; pass e.g. dims=[0]")
    return chosen


class Spread(NamedTuple):
    """The covariances of K components: eigenvalues, and eigenvectors where those are not the axes."""

    variances: Tensor  # [K, D]
    bases: Tensor | None = None  # [K, D, D], eigenvectors in columns
    full: Tensor | None = None  # [K, D, D], the matrices as given

    def plus(self, variance: float) -> Spread:
        """Every covariance plus ``variance`` times the identity."""
        if self.full is None:
            return Spread(self.variances + variance)
        identity = torch.eye(self.full.shape[-1], dtype=self.full.dtype, device=self.full.device)
        return Spread(self.variances + variance, self.bases, self.full + variance * identity)

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None) -> Spread:
        """Elsewhere, diagonalised again where the dtype changes, since rounded eigenvectors are not orthogonal."""
        if self.full is None or self.bases is None:
            return Spread(self.variances.to(device, dtype))
        full = self.full.to(device, dtype)
        if full.dtype != self.full.dtype:
            return _eigen(full, len(full), max(torch.finfo(full.dtype).eps, torch.finfo(self.full.dtype).eps))
        return Spread(self.variances.to(device), self.bases.to(device), full)


def spread(covariances: Tensor, means: Tensor) -> Spread:
    """The covariances of a mixture, from any of the forms it takes.

    Full matrices are diagonalised on the CPU in float64, so that float32 loses no digits here, and come back in the
    mixture's dtype. Eigenvalues within rounding of zero are zero.
    """
    n, dim = means.shape
    if not bool(torch.isfinite(covariances).all()):
        raise ValueError("covariances has values that are NaN or infinite: every value must be finite; repair them")
    if covariances.ndim == 3 and covariances.shape[0] in (1, n) and covariances.shape[1:] == (dim, dim):
        off_diagonal = covariances - torch.diag_embed(covariances.diagonal(dim1=1, dim2=2))
        if bool((off_diagonal != 0).any()):
            return _eigen(covariances, n, torch.finfo(covariances.dtype).eps)
        covariances = covariances.diagonal(dim1=1, dim2=2)
    elif covariances.ndim == 2 and covariances.shape[0] in (1, n) and covariances.shape[1] == dim:
        pass
    elif covariances.ndim == 0 or (covariances.ndim == 1 and len(covariances) in (1, n)):
        covariances = covariances.reshape(-1, 1)
    else:
        raise ValueError(
            f"covariances has shape {list(covariances.shape)}: with K = {n}, D = {dim} it must be a scalar, [{n}], "
            f"[{n}, {dim}] (variances), [{n}, {dim}, {dim}]{'' if n == 1 else f' or [1, {dim}, {dim}]'}; a single matrix is matrix[None]"
        )
    if bool((covariances < 0).any()):
        raise ValueError(
            f"covariances has the variance {float(covariances.min()):.6g}: variances must not be negative; pass "
            "squares of standard deviations"
        )
    return Spread(covariances.expand(n, dim).clone())


def schur(covariances: Tensor, others: list[int], given: list[int]) -> tuple[Tensor, Spread]:
    """The gain [K, o, d] of conditioning on coordinates ``given``, and the covariances left to ``others``.

    In float64 on the CPU; eigenvalues within rounding of the original covariances are zero.
    """
    wide = covariances.to("cpu", torch.float64)
    cross = wide[:, others][:, :, given]
    gain = torch.linalg.solve(wide[:, given][:, :, given], cross.mT).mT
    left = wide[:, others][:, :, others] - gain @ cross.mT
    scale = wide.diagonal(dim1=1, dim2=2)[:, others]
    left = ((left + left.mT) / 2).to(covariances)
    return gain.to(covariances), _eigen(left, len(left), 2 * torch.finfo(covariances.dtype).eps, scale, checked=False)


def _eigen(covariances: Tensor, n: int, eps: float, scale: Tensor | None = None, *, checked: bool = True) -> Spread:
    """Diagonalise symmetric matrices whose entries ij are exact to ``eps`` times the root of ``scale`` i times ``scale`` j.

    The scale [K, D] is by default their diagonal, so that a small variance beside a large one is not taken for rounding.
    ``checked=False`` where they are positive semi-definite by construction, whatever rounding says.
    """
    dim = covariances.shape[-1]
    wide = covariances.to("cpu", torch.float64)
    size = wide.abs().amax((1, 2), keepdim=True)
    skew = (wide - wide.mT).abs().amax((1, 2))
    if bool((skew > 100 * eps * size[:, 0, 0]).any()):
        worst = int((skew / size[:, 0, 0]).nan_to_num().argmax())
        raise ValueError(
            f"covariances[{worst}] differs from its transpose by {float(skew[worst]):.3g}: a covariance is "
            "symmetric; pass (C + C.mT) / 2 if rounding did it"
        )
    wide = (wide + wide.mT) / 2
    values, vectors = torch.linalg.eigh(wide)
    scale = (wide.diagonal(dim1=1, dim2=2) if scale is None else scale).abs()
    scale = torch.where(scale > 0, scale, size[:, 0].clamp(min=torch.finfo(torch.float64).tiny))
    scaled = torch.linalg.eigvalsh(wide / (scale[:, :, None] * scale[:, None, :]).sqrt())
    rounding = max(8, dim) * eps
    if checked and bool((scaled < -rounding).any()):
        worst = int(scaled.min(1).values.argmin())
        raise ValueError(
            f"covariances[{worst}] has the eigenvalue {float(values[worst].min()):.6g}: a covariance is positive "
            "semi-definite; check its signs or add a multiple of I"
        )
    nullity = (scaled <= rounding).sum(1, keepdim=True)
    values = torch.where(torch.arange(dim) < nullity, 0.0, values.clamp(min=0))
    return Spread(*(t.to(covariances).expand(n, *t.shape[1:]).clone() for t in (values, vectors, wide)))
