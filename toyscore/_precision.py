"""Exact mathematics keeps its digits, whatever the program around it asks of networks.

``torch.autocast`` turns matrix products into 16-bit ones, and TensorFloat-32 rounds their factors to 11 bits. Both are
meant for networks. Closed forms are no network: functions marked :func:`exact` run as if neither were set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

# What decides how many digits float32 matrix products keep, by kind of device.
_PRODUCTS = {"cpu": torch.backends.mkldnn.matmul, "cuda": torch.backends.cuda.matmul}  # type: ignore[attr-defined]
_BITS, _FULL = "fp32_precision", {"none", "ieee"}


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` without an ambient autocast and with float32 matrix products in full precision.

    It must not call a score that may be a network, whose precision is the caller's choice. (Gradients are the exception:
    they are taken in full precision.)
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        kinds = {a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor)}
        with ExitStack() as stack:
            for kind in filter(reduced, kinds):
                stack.enter_context(full_precision(kind))
            return function(*args, **kwargs)

    return wrapped


def reduced(kind: str) -> bool:
    """Whether matrix products of float32 on this kind of device are rounded to fewer digits just now."""
    products = _PRODUCTS.get(kind)  # asked without the detour of a failing look-up: a chain asks at every step
    return torch.is_autocast_enabled(kind) or (products is not None and products.__getattr__(_BITS) not in _FULL)


@contextmanager
def full_precision(kind: str) -> Iterator[None]:
    """Matrix products of float32 on this kind of device keep all their digits, also under autocast."""
    products = _PRODUCTS.get(kind)
    before = None if products is None else products.fp32_precision
    with torch.autocast(kind, enabled=False):
        try:
            if products is not None:
                products.fp32_precision = "ieee"
            yield
        finally:
            if products is not None:
                products.fp32_precision = "none"  # as its parent says, which may be what was read before
                if products.fp32_precision != before:
                    products.fp32_precision = before
