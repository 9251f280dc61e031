"""A pretended accelerator: tensors made without a device, or moved to the CPU, are told apart from those of the inputs.

Tensors of the inputs say that they are on ``cuda:0``, and what is computed from them is there, too. A tensor that is made without a
device is on the host, and may not meet the others, but for single numbers and indices: what torch refuses on a machine that has one.
"""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

PRETENDED = torch.device("cuda", 0)
_MAKERS = {
    getattr(torch, name)
    for name in (
        *(
            "arange",
            "as_tensor",
            "empty",
            "eye",
            "from_numpy",
            "full",
            "linspace",
            "logspace",
            "ones",
            "rand",
            "randint",
        ),
        *("randn", "randperm", "tensor", "zeros"),
    )
}
_MAY_MEET = {"__getitem__", "copy_", "index_put_"}


class Host(torch.Tensor):
    """A tensor on the CPU."""


class Accelerator(TorchFunctionMode):
    """While it lasts, plain tensors are on an accelerator."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name, owner = getattr(func, "__name__", ""), getattr(func, "__self__", None)
        if owner is torch.Tensor.device:
            return torch.device("cpu") if isinstance(args[0], Host) else PRETENDED
        if owner is torch.Tensor.is_cuda:
            return not isinstance(args[0], Host)
        if name == "__deepcopy__" and isinstance(args[0], Host):
            return args[0].detach().as_subclass(torch.Tensor).clone().as_subclass(Host)
        given = _tensors((args, kwargs))
        if name in ("numpy", "__array__") and not isinstance(args[0], Host):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in _MAKERS or name.startswith("new_"):
            host = _is_host(kwargs.pop("device", None), given)
        elif name in ("to", "cpu", "cuda"):
            host, args, kwargs = _moved(name, args, kwargs)
        else:
            kinds = {isinstance(t, Host) for t in given if t.ndim} or {isinstance(t, Host) for t in given} or {False}
            if len(kinds) == 2 and name not in _MAY_MEET:
                raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found cuda:0 and cpu")
            host = isinstance(args[0], Host) if len(kinds) == 2 else kinds.pop()
        with torch._C.DisableTorchFunctionSubclass():
            return _kept(func(*args, **kwargs), host)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [t for v in value for t in _tensors(v)] if isinstance(value, list | tuple | type({}.values())) else []


def _is_host(device: Any, given: list[torch.Tensor]) -> bool:
    if device is not None:
        return torch.device(device).type == "cpu"
    return isinstance(given[0], Host) if given else True


def _moved(name: str, args: Any, kwargs: dict[str, Any]) -> tuple[bool, Any, dict[str, Any]]:
    """Whether ``to`` leads to the host, and its arguments without the device."""
    tensor, *rest = args
    host = name == "cpu" or isinstance(tensor, Host)
    left: list[Any] = []
    for value in [*rest, kwargs.pop("device", None), kwargs.pop("other", None)]:
        if isinstance(value, torch.device | str):
            host = torch.device(value).type == "cpu"
        elif isinstance(value, torch.Tensor):
            host = isinstance(value, Host)
            kwargs["dtype"] = value.dtype
        elif isinstance(value, torch.dtype):
            kwargs["dtype"] = value
        elif value is not None:
            left.append(value)
    return host, (tensor, *left), kwargs


def _kept(value: Any, host: bool) -> Any:
    if isinstance(value, torch.Tensor):
        if host != isinstance(value, Host):
            return value.as_subclass(Host if host else torch.Tensor)
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_kept(v, host) for v in value))
    if isinstance(value, tuple) and type(value).__module__ == "torch.return_types":
        return type(value)([_kept(v, host) for v in value])
    if type(value) in (tuple, list):
        return type(value)(_kept(v, host) for v in value)
    return value
