r"""What every other module does to tensors, written once.

A **score function** is any callable ``score(x, sigma)`` that returns :math:`\nabla_x \log q_\sigma(x)`, where
:math:`q_\sigma = p * N(0, \sigma^2 I)` is a density convolved with Gaussian noise of standard deviation ``sigma``:

- ``x`` is ``[B, *event]``: ``[B, 2]`` for a toy, ``[B, C, H, W]`` for an image;
- ``sigma`` is a float, a 0-d tensor or a ``[B]`` tensor; ``0`` is the clean density;
- the result is shaped like ``x``.

Everything downstream is written for that one type and for any event, so this is the only module that looks inside an
event shape: it spreads ``sigma`` over events, sums over events, draws noise and differentiates scores.

Three invariants, relied on everywhere:

1. Rows are independent: row b of a result depends on row b of the inputs alone, to rounding.
2. Noise is drawn in the logical order of ``x.shape`` on the generator's device and then moved, so the memory layout of
   ``x`` never changes a result (``randn_like`` of a transposed view does).
3. Derivatives are exact. A model may carry tangents by hand in a method ``jvp(x, sigma, tangents)`` that takes
   ``[n, B, *event]`` and returns ``(score, [n, B, *event])``; every other score goes through autograd, with the same
   values and the same parameter gradients. A score that does not depend on ``x`` has a zero Jacobian.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import Protocol, TypeAlias

import torch
from torch import Generator, Tensor

from toyscore._precision import exact

Sigma: TypeAlias = float | Tensor
PIECE = 1 << 23  # numbers that work by pieces holds at once: 32 MiB in float32


class Score(Protocol):
    """``score(x, sigma)``: ``x`` [B, *event], ``sigma`` float | 0-d | [B] -> [B, *event]. Called positionally."""

    def __call__(self, x: Tensor, sigma: Sigma, /) -> Tensor: ...


class Distribution(Protocol):
    """Anything that can be sampled: a mixture, a sampled toy, a set of images, a wrapped tensor."""

    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor: ...


class DivergenceError(ValueError):
    """A chain or a training run left every sensible range; the message names where, the bound and the remedy."""


def check_batch(x: Tensor, name: str = "x") -> None:
    """Refuse what is not a floating-point batch ``[B, *event]`` with B >= 1.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: no event axis, or nothing in the batch.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind, way = (
            (x.dtype, f"{name}.float()") if isinstance(x, Tensor) else (type(x).__name__, f"torch.as_tensor({name})")
        )
        raise TypeError(f"{name} is {kind}: it must be a floating-point tensor; convert it with {way}")
    if x.ndim < 2:
        raise ValueError(
            f"{name} has shape {list(x.shape)}: it must be [B, *event]; add the missing axis: {name}[None] for one "
            f"point{f', {name}[:, None] for {len(x)} numbers' if x.ndim else ''}"
        )
    if x.numel() == 0:
        raise ValueError(f"{name} has shape {list(x.shape)}: the batch is empty; pass at least one point")


def check_finite(x: Tensor, name: str = "x") -> None:
    """Refuse NaN and infinity, naming the first bad row."""
    bad = ~torch.isfinite(x)
    if bad.any():
        row = int(bad.flatten(1).any(1).nonzero()[0])
        raise ValueError(
            f"{name} has {int(bad.sum())} values that are NaN or infinite, the first in row {row}: every value must "
            "be finite; drop or repair them"
        )


def check_event(x: Tensor, dim: int, like: Tensor, owner: str) -> Tensor:
    """``x`` [B, *event] as [B, D], refused unless it has ``dim`` numbers in an event and ``like``'s dtype and device.

    Raises:
        TypeError: as ``check_batch``; another dtype.
        ValueError: as ``check_batch``; another event or device.
    """
    good = isinstance(x, Tensor) and x.dtype == like.dtype and x.shape[1:] == (dim,)
    if good and x.shape[0] and x.device == like.device:  # at every step of a chain
        return x
    check_batch(x)
    if x.device != like.device:
        raise ValueError(
            f"x is on {x.device}, {owner} on {like.device}: they must be on one device; move x with "
            f'.to("{like.device}")'
        )
    if x.dtype != like.dtype:
        raise TypeError(f"x is {x.dtype}, {owner} {like.dtype}: they must agree; convert x with x.to({like.dtype})")
    flat = flatten(x)
    if flat.shape[1] != dim:
        raise ValueError(
            f"x has shape {list(x.shape)}, {flat.shape[1]} numbers in an event: {owner} has D = {dim}; pass [B, {dim}] "
            "or a reshaped view"
        )
    return flat


def check_score(score: object) -> None:
    """Refuse what cannot be called as ``score(x, sigma)``."""
    if not callable(score):
        raise TypeError(
            f"score is {type(score).__name__}: it must be callable as score(x, sigma); pass its method, e.g. mixture.score"
        )


def check_count(value: int, name: str, minimum: int = 1) -> None:
    """Refuse what is not an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} = {value!r}: it must be an integer; pass e.g. {name}={max(minimum, 2)}")
    if value < minimum:
        raise ValueError(f"{name} = {value}: it must be at least {minimum}; pass e.g. {name}={max(minimum, 2)}")


def check_positive(value: float, name: str) -> None:
    """Refuse what is not a finite number above zero."""
    if type(value) is float and 0 < value < math.inf:  # the common case, at every step of a chain
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {type(value).__name__}: it must be a number; pass e.g. {name}=0.1")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} = {value}: it must be finite and positive; pass e.g. {name}=0.1")


def check_sigma(sigma: Sigma, x: Tensor, *, positive: bool = False, name: str = "sigma") -> tuple[float, float]:
    """Refuse a ``sigma`` that is not a float, 0-d or ``[B]`` of finite standard deviations.

    Args:
        sigma: float | 0-d | [B], in units of ``x``.
        x: [B, *event].
        positive: also refuse zero.
        name: what messages call it.

    Returns:
        The least and the largest sigma.

    Raises:
        TypeError: neither a number nor a tensor.
        ValueError: wrong shape, NaN, infinite, negative, or zero where ``positive``.
    """
    if isinstance(sigma, Tensor):
        if sigma.ndim and sigma.shape != x.shape[:1]:
            raise ValueError(
                f"{name} has shape {list(sigma.shape)}: with x of shape {list(x.shape)} it must be a float, 0-d or "
                f"[{len(x)}]; pass one {name} per row"
            )
        low, high = (float(v) for v in torch.aminmax(sigma.detach()))
    else:
        if isinstance(sigma, bool) or not isinstance(sigma, Real):
            raise TypeError(f"{name} is {type(sigma).__name__}: it must be a float or a tensor; pass e.g. {name}=0.5")
        low = high = float(sigma)
    if not (low >= 0 and math.isfinite(high)):
        value = low if not low >= 0 else high
        remedy = f"pass {name} > 0" if positive else "pass 0 for no noise"
        raise ValueError(
            f"{name} = {value}: a standard deviation must be finite and {'positive' if positive else 'not negative'}; "
            f"{remedy if math.isfinite(value) else 'look at where it comes from'}"
        )
    if positive and low == 0:
        raise ValueError(f"{name} = 0: here the noise must have a positive standard deviation; pass {name} > 0")
    return low, high


def looks(value: Sigma) -> bool:
    """Whether looking at a value is free: a number, or a tensor on the CPU, and nothing is being compiled."""
    return not torch.compiler.is_compiling() and not (isinstance(value, Tensor) and value.device.type != "cpu")


def expand(sigma: Sigma, x: Tensor) -> Sigma:
    """``sigma`` ready to multiply ``x``: a float stays one, a tensor is cast to x and spread over the event axes."""
    if not isinstance(sigma, Tensor):
        return float(sigma)
    sigma = sigma.to(x)
    return sigma if sigma.ndim == 0 else per_example(sigma, x)


def flatten(x: Tensor) -> Tensor:
    """``[B, *event]`` -> ``[B, D]``, a view where the layout allows."""
    return x if x.ndim == 2 else x.reshape(len(x), -1)


def unflatten(flat: Tensor, x: Tensor) -> Tensor:
    """``[B, D]`` -> shaped like ``x``, a view."""
    return flat if x.ndim == 2 else flat.view(x.shape)


def sum_event(x: Tensor) -> Tensor:
    """Sum over the event: ``[B, *event]`` -> ``[B]``, in float32 or wider."""
    return flatten(x).sum(1, dtype=torch.promote_types(x.dtype, torch.float32))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of events: two ``[B, *event]`` -> ``[B]``."""
    return sum_event(a * b)


def per_example(x: Tensor, like: Tensor) -> Tensor:
    """``[B]`` -> ``[B, 1, ...]``, ready to multiply ``like`` row by row."""
    return x.reshape(-1, *[1] * (like.ndim - 1))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances [N, M] between rows [N, D] and [M, D], by differences: accurate at any distance."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def pieces(n: int, width: int) -> Iterator[slice]:
    """n rows by pieces: as many at a time as can have ``width`` numbers each within ``PIECE``, at least one."""
    rows = max(1, PIECE // width)
    return (slice(start, start + rows) for start in range(0, n, rows))


def nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to, and index of, the nearest of the rows b [M, D] to each row of a [N, D]: two [N]."""
    found = [squared_distances(a[rows], b).min(1) for rows in pieces(len(a), max(b.shape))]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def source(generator: Generator | None, like: Tensor) -> torch.device:
    """Where noise for ``like`` is drawn: on the generator's device, or on its own by the default generator."""
    if generator is None:
        return like.device
    if not isinstance(generator, Generator):
        raise TypeError(
            f"generator is {type(generator).__name__}: it must be a torch.Generator or None; "
            "pass torch.Generator().manual_seed(0)"
        )
    return generator.device


def normal_like(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Standard normal noise shaped, typed and placed like ``x``: all Gaussian noise of the package comes from here.

    Drawn in the logical order of ``x.shape`` on the generator's device, then moved.
    """
    device = source(generator, x)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device)
    return noise if device == x.device else noise.to(x.device)


def uniform(shape: tuple[int, ...], like: Tensor, generator: Generator | None = None) -> Tensor:
    """Uniform noise on [0, 1), typed and placed like ``like``; drawn as ``normal_like`` draws."""
    device = source(generator, like)
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=device).to(like.device)


def rademacher_like(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Independent signs, +1 or -1 with probability one half each, like ``x``."""
    ones = torch.ones((), dtype=x.dtype, device=x.device)
    return torch.where(normal_like(x, generator) >= 0, ones, -ones)


def sphere_like(x: Tensor, generator: Generator | None = None) -> Tensor:
    """Directions uniform on the sphere of radius sqrt(D), for x ``[n, B, *event]``; their second moment is the identity."""
    z = normal_like(x, generator)
    norms = z.flatten(2).norm(dim=2)
    return z * (x[0, 0].numel() ** 0.5 / norms.view(*norms.shape, *[1] * (z.ndim - 2)))


def evaluate(score: Score, x: Tensor, sigma: Sigma) -> Tensor:
    """Call a score and cast what it returns to x's dtype (float32 at least), so that autocast ends here.

    Raises:
        ValueError: the score returned another shape than x's.
    """
    return _like(score(x, sigma), x)


def _like(s: Tensor, x: Tensor) -> Tensor:
    if not isinstance(s, Tensor):
        raise TypeError(
            f"the score returned {type(s).__name__}: it must return a tensor like x; return the prediction alone"
        )
    if s.shape != x.shape:
        raise ValueError(
            f"the score returned shape {list(s.shape)} for x of shape {list(x.shape)}: a score is shaped like x; "
            "check its last layer"
        )
    if s.dtype == x.dtype and s.element_size() >= 4:
        return s
    return s.to(torch.promote_types(x.dtype, torch.float32))


def quadratic_form(score: Score, x: Tensor, sigma: Sigma, v: Tensor) -> tuple[Tensor, Tensor]:
    """The score and its Jacobian's quadratic form along each of n directions.

    Args:
        score: the score function; its ``jvp`` method is used where it has one.
        x: [B, *event].
        sigma: float | 0-d | [B].
        v: [n, B, *event].

    Returns:
        ``s`` [B, *event] and ``v^T (ds/dx) v`` [n, B], differentiable where grad mode is on.
    """
    if hasattr(score, "jvp"):
        s, tangents = score.jvp(x, sigma, v)
        return _like(s, x), sum_event((v * tangents).flatten(0, 1)).view(v.shape[:2])
    recording = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        x = _leaf(x)
        s = evaluate(score, x, sigma)
        forms = torch.stack([dot(direction, _vjp(s, x, direction, recording)) for direction in v])
    return (s, forms) if recording else (s.detach(), forms)


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Values [B] of a function of each row of x [B, *event], and their gradients, like x; differentiable where grad mode is on.

    Raises:
        ValueError: the function returned another shape than [B].
    """
    recording = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        x = _leaf(x)
        values = function(x)
        if not isinstance(values, Tensor) or values.shape != x.shape[:1]:
            found = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"the function returned {found} for {len(x)} rows: it must be [{len(x)}]; do not reduce it"
            )
        grads = _vjp(values, x, torch.ones_like(values), recording)
    return (values, grads) if recording else (values.detach(), grads)


def vector_jacobian(score: Score, x: Tensor, sigma: Sigma, v: Tensor) -> tuple[Tensor, Tensor]:
    """The score [B, *event] and ``v^T (ds/dx)`` [n, B, *event] for each of ``v`` [n, B, *event]; gradients as ``gradient``."""
    recording = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        x = _leaf(x)
        s = evaluate(score, x, sigma)
        products = torch.stack([_vjp(s, x, direction, recording) for direction in v])
    return (s, products) if recording else (s.detach(), products)


def _leaf(x: Tensor) -> Tensor:
    """x as what can be differentiated by."""
    return x if x.requires_grad else (x.clone() if x.is_inference() else x.detach()).requires_grad_()


@exact  # a backward pass under autocast would round gradients of what ran without it
def _vjp(s: Tensor, x: Tensor, v: Tensor, create_graph: bool) -> Tensor:
    """``v^T ds/dx``, zero where s does not depend on x."""
    if not s.requires_grad:
        return torch.zeros_like(x)
    (grad,) = torch.autograd.grad(s, x, v, retain_graph=True, create_graph=create_graph, allow_unused=True)
    return torch.zeros_like(x) if grad is None else grad


def jacobian_trace(score: Score, x: Tensor, sigma: Sigma) -> tuple[Tensor, Tensor]:
    """The score [B, *event] and the exact trace of its Jacobian [B]: D directions, one per coordinate."""
    dim = x[0].numel()
    basis = torch.eye(dim, dtype=x.dtype, device=x.device).view(dim, 1, *x.shape[1:])
    s, diagonal = quadratic_form(score, x, sigma, basis.expand(dim, *x.shape))
    return s, diagonal.sum(0)
