r"""The probability flow, solved as accurately as one asks.

Divided by alpha the flow of every process is :math:`dy/d\sigma = -\sigma\, \mathrm{score}(y, \sigma)`; here it runs in
:math:`u = \log \sigma`, :math:`dy/du = -\sigma^2\, \mathrm{score}(y, \sigma)`, in which steps of equal length do equal work. Along it
:math:`\log q_\sigma(y)` changes by minus the divergence (chen2018), so that a trajectory carries its density.

The solver is torchdiffeq's Dormand-Prince of order 8: beside that of order 5 it calls the score half as often again, and at the same
tolerance is twenty to some hundred times as accurate. All rows share its steps, and the worst number of the worst row decides them;
so another row in the batch can change the others, but by no more than the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from toyscore import operators as ops
from toyscore._extras import missing
from toyscore.operators import DivergenceError, Score

_FIRST = 0.2  # of log sigma: the solver's own guess leads far beyond, since at small sigma nothing moves
_MOST = 2000  # steps between two levels

Rate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def check_tolerances(rtol: float, atol: float, y: Tensor) -> None:
    """Refuse tolerances that rounding alone exceeds where a flow starts, at which a solver's steps become ever smaller."""
    ops.check_positive(rtol, "rtol")
    ops.check_positive(atol, "atol")
    _check_digits(y)
    rounding, largest = torch.finfo(y.dtype).eps, max(1.0, float(y.detach().abs().max()))
    if rtol + atol / largest < rounding:
        remedy = "" if rounding < 1e-15 else ", or use float64"
        raise ValueError(
            f"rtol = {rtol:g}, atol = {atol:g}: numbers up to {largest:.3g} in {y.dtype} are rounded by {rounding:.2g} of themselves, and "
            f"no flow can be followed more closely; pass rtol={10 * rounding:.0e} or more{remedy}"
        )


def _check_digits(y: Tensor) -> None:
    if y.element_size() < 4:
        raise TypeError(
            f"x is {y.dtype}: its digits do not do for a solver that watches its errors; convert it with .float()"
        )


def flow(score: Score, y: Tensor, sigmas: Sequence[float], *, rtol: float, atol: float) -> list[Tensor]:
    """y [B, *event] at each of ``sigmas``, the first of which is where it starts. Source: song2021, Eq. (13). Errors as ``integrate``."""

    def rate(y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return ops.evaluate(score, y, sigma), y.new_zeros(len(y))

    return [states for states, _ in integrate(rate, y, sigmas, rtol=rtol, atol=atol)]


@torch.no_grad()
def integrate(
    rate: Rate, y: Tensor, sigmas: Sequence[float], *, rtol: float, atol: float
) -> list[tuple[Tensor, Tensor]]:
    r"""The flow, and the integral of its divergence :math:`-\sigma^2 \mathrm{tr}\, \partial \mathrm{score} / \partial y` over log sigma.

    Args:
        rate: ``(y, sigma)`` -> the score [B, *event] and the trace of its Jacobian [B], or an estimate of it; sigma is 0-d.
        y: [B, *event], where it starts.
        sigmas: [L] positive, of which the first is where y is.
        rtol, atol: of every number of every row, at every step.

    Returns:
        Per sigma, y [B, *event] and the integral [B] from the start.

    Raises:
        ImportError: torchdiffeq is not installed.
        TypeError, ValueError: y is no batch, or of 16 bits; a tolerance or a sigma that is not positive.
        DivergenceError: the solver could not go on.
    """
    try:
        with torch.device("cpu"):  # its tables are float64
            from torchdiffeq import odeint
    except ImportError as error:
        raise missing("adaptive flows", "torchdiffeq", "metrics", "need") from error
    ops.check_batch(y, "y")
    ops.check_finite(y, "y")
    ops.check_positive(rtol, "rtol")
    ops.check_positive(atol, "atol")
    _check_digits(y)
    if min(sigmas) <= 0:
        raise ValueError("the flow reaches sigma = 0, where log sigma ends: stop at a positive time, e.g. 1e-5")

    def field(u: Tensor, state: Tensor) -> Tensor:
        sigma = u.exp()
        drift, trace = rate(ops.unflatten(state[:, :-1].contiguous(), y), sigma)
        return -sigma.square() * torch.cat([ops.flatten(drift), trace.to(drift)[:, None]], 1)

    start = torch.cat([ops.flatten(y), y.new_zeros(len(y), 1)], 1)
    u = torch.tensor([math.log(sigma) for sigma in sigmas], dtype=y.dtype, device=y.device)
    first = min(_FIRST, float((u[1:] - u[:-1]).abs().min()))
    # it may not look beyond the ends, where a network knows nothing: step_t makes it stop at each u
    options: dict[str, Any] = {
        "norm": lambda error: error.abs().max(),
        "first_step": first,
        "step_t": u,
        "max_num_steps": _MOST,
        "dtype": torch.float64 if y.device.type == "cpu" else y.dtype,  # of log sigma: no float64 is made on a device
    }
    try:
        states = odeint(field, start, u, rtol=rtol, atol=atol, method="dopri8", options=options)
    except AssertionError as error:  # how torchdiffeq says that its steps have come to nothing, or are too many
        raise DivergenceError(
            f"the flow from sigma = {sigmas[0]:.6g} to {sigmas[-1]:.6g} cannot be followed within rtol = {rtol:g}, atol = {atol:g} "
            f"({error}): if the score is finite there, raise them or use float64, else look for the NaN in the score"
        ) from error
    return [(ops.unflatten(state[:, :-1].contiguous(), y), state[:, -1]) for state in states]
