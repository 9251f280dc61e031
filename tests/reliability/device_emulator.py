"""A pretended accelerator at the level of the dispatcher: what a device would refuse, and what it would wait for, without one.

    from reliability.device_emulator import KIND, Emulator  # before toyscore: it stands in for torch.Generator
    with Emulator() as device, device.watch() as seen:  # what seems to be on the device is kept on the CPU
        final(langevin(p.to(KIND).score, x, step_size=0.1, n_steps=32, generator=torch.Generator(KIND)))
    print(seen.waits, seen.uploads)  # by operator and line of toyscore

It refuses what CUDA or MPS refuses: an operator that mixes its tensors with the CPU's (only 0-d CPU tensors in pointwise operators,
indices and copies may meet them), ``.numpy()``, a generator of another device, an operator without a kernel for either
(native_functions.yaml of the installed torch), and float64, also on the way from there (``.to("cpu", torch.float64)`` casts before it
copies). It counts ``waits`` of the host for the device (item, cpu(), nonzero, boolean masks, checked linear algebra) and ``uploads``,
copies from unpinned host memory, which wait for the stream, too. It cannot see races, numerics of the real kernels, speed and memory.

The device is that of a backend in Python, which torch registers for good: give it a process of its own.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torchgen
import yaml
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

KIND = "pretended"
OWN = os.sep + "toyscore" + os.sep
_CGenerator = torch._C.Generator
_current: Emulator | None = None


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend(KIND, _Backend())
DEVICE = torch.device(KIND, 0)


class _Meta(type(_CGenerator)):  # type: ignore[misc]
    def __instancecheck__(cls, value: Any) -> bool:
        return type.__instancecheck__(_CGenerator, value)


_SAID: dict[int, torch.device] = {}  # by what is underneath: the dispatcher wraps it anew


class Generator(_CGenerator, metaclass=_Meta):
    """torch.Generator that can be of the pretended device; underneath it is a CPU one."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return _CGenerator.__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self._said = DEVICE if torch.device(device).type == KIND else torch.device(device)
        _SAID[self._cdata] = self._said

    def __del__(self) -> None:
        _SAID.pop(self._cdata, None)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._said


torch.Generator = Generator  # type: ignore[misc,assignment]


class Pretended(torch.Tensor):
    """Says it is on the device; ``elem`` holds the numbers, on the CPU."""

    elem: torch.Tensor

    @staticmethod
    def __new__(cls, elem: torch.Tensor) -> Any:
        like = {"strides": elem.stride(), "storage_offset": elem.storage_offset(), "dtype": elem.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, elem.shape, **like, layout=elem.layout, device=DEVICE)

    def __init__(self, elem: torch.Tensor) -> None:
        self.elem = elem

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _current._run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


def to_cpu(value: Any) -> Any:
    """The numbers, not counted."""
    return tree_map_only(Pretended, lambda t: t.detach().elem if _current else t.elem, value)


class _Lists(TorchFunctionMode):
    """numpy() and tolist() never reach the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.numpy and isinstance(args[0], Pretended):
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy")
        if func is torch.Tensor.tolist and isinstance(args[0], Pretended):
            return args[0].detach().cpu().tolist()
        return func(*args, **(kwargs or {}))


@cache
def _kernels() -> dict[str, Any]:
    """The operators of the yaml that comes with torch, by name."""
    path = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    entries = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry["func"].partition("(")[0]: entry for entry in entries}


@cache
def _has_kernel(func: Any, key: str) -> bool:
    """Whether an operator has a kernel for a dispatch key."""
    name = func._schema.name.removeprefix("aten::")
    full = f"{name}.{func._schema.overload_name}" if func._schema.overload_name else name
    entry = _kernels().get(full)
    if entry is None:  # made by the code generator (functional, out) or of another library
        return True
    entry = _kernels().get(entry.get("structured_delegate", full), entry)
    dispatch = entry.get("dispatch")
    if dispatch is None or (key == "MPS" and name in _MPS_FALLBACK) or (key == "CUDA" and "ufunc_inner_loop" in entry):
        return True
    keys = {k.strip() for group in dispatch for k in str(group).split(",")}
    return key in keys or any(k.startswith("Composite") for k in keys)


# Kernels for MPS that are registered outside of the yaml, by falling back to the CPU (aten/src/ATen/mps/MPSFallback.mm)
_MPS_FALLBACK = {
    "linalg_svd", "_linalg_svd", "embedding_renorm_", "im2col", "col2im", "triangular_solve", "_unique2", "unique_dim"
}  # fmt: skip
_WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal",
    "_linalg_check_errors", "is_nonzero", "argwhere", "nonzero_numpy", "repeat_interleave",
}  # fmt: skip
_FORGIVING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}  # take indices from the host


@dataclass
class Seen:
    """What happened while it was watched, each as "operator @ file:line function"."""

    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)


class Emulator(TorchDispatchMode):
    """While it lasts, ``KIND`` is a device of this machine. See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()

    def __enter__(self) -> Emulator:
        global _current
        self._stack = stack = ExitStack()
        run_backward = torch.autograd._engine_run_backward

        def one_thread(*a: Any, **k: Any) -> Any:
            with torch.autograd.set_multithreading_enabled(False):  # others would not know this mode
                return run_backward(*a, **k)

        stack.enter_context(mock.patch.object(torch.autograd, "_engine_run_backward", one_thread))
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # parameters keep their identity, as on a device
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, before)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes a CPU tensor, which is then copied
        stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        stack.enter_context(_Lists())
        super().__enter__()
        _current = self
        return self

    def __exit__(self, *error: Any) -> None:
        global _current
        _current = None
        super().__exit__(*error)
        self._stack.close()

    @contextmanager
    def watch(self) -> Any:
        """Only what happens in here."""
        outer, self.seen = self.seen, Seen()
        try:
            yield self.seen
        finally:
            self.seen = outer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func._schema.name.removeprefix("aten::")
        flat, spec = tree_flatten((args, kwargs))
        here = [t for t in flat if isinstance(t, Pretended)]
        there = [t for t in flat if isinstance(t, torch.Tensor) and not isinstance(t, Pretended)]
        asked = kwargs.get("device")
        on_device = bool(here) if asked is None else torch.device(asked).type == KIND
        self._check_generator(args, kwargs, on_device)
        if not here and not on_device:
            return func(*args, **kwargs)
        if name == "_to_copy":
            if here and not on_device:
                _note(self.seen.waits, "copy to the host")
                _check_double(name, kwargs.get("dtype") or here[0].dtype)  # cast on the device, then copied
            elif on_device and not here:
                _note(self.seen.uploads, "copy to the device")
        elif here and there:
            self._check_mixture(func, name, args, there)
        for key in ("CUDA", "MPS") if on_device else ():
            if not _has_kernel(func, key):
                raise NotImplementedError(f"{name} is not currently implemented for the {key} device")
        masks = args[1] if name in _FORGIVING else ()
        if name in _WAITS or any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in masks):
            _note(self.seen.waits, name)
        inner_args, inner_kwargs = tree_unflatten([t.elem if isinstance(t, Pretended) else t for t in flat], spec)
        if asked is not None:
            inner_kwargs["device"] = torch.device("cpu")
        out = func(*inner_args, **inner_kwargs)  # draws of no generator are the CPU's
        mutated = {id(t.elem): t for t in here}
        writes = any(r.alias_info is not None and r.alias_info.is_write for r in func._schema.returns)

        def wrap(value: torch.Tensor) -> Any:
            if writes and id(value) in mutated:
                return mutated[id(value)]
            if not on_device:
                return value
            _check_double(name, value.dtype)
            return Pretended(value)

        result = tree_map_only(torch.Tensor, wrap, out)
        if torch.Tag.inplace_view in func.tags:
            with torch._C._DisableTorchDispatch():  # what the wrapper says of its shape, too
                func(*args, **kwargs)
        return result

    def _check_mixture(self, func: Any, name: str, args: Any, there: list[torch.Tensor]) -> None:
        words = (
            f"{name}: Expected all tensors to be on the same device, but found at least two devices, {DEVICE} and cpu!"
        )
        if name in _FORGIVING:
            if not isinstance(args[0], Pretended):
                raise RuntimeError(f"{name}: indices should be on the device of the indexed tensor (cpu)")
            if name.startswith("index_put") and not isinstance(args[2], Pretended) and args[2].ndim:
                raise RuntimeError(words)
            for index in args[1]:
                if isinstance(index, torch.Tensor) and not isinstance(index, Pretended):
                    _note(self.seen.uploads, "index on the host")
            return
        pointwise = torch.Tag.pointwise in func.tags or name in ("fill_", "where", "masked_fill", "masked_fill_")
        written = func._schema.returns and func._schema.returns[0].alias_info is not None and args[:1]
        on_host = written and isinstance(args[0], torch.Tensor) and not isinstance(args[0], Pretended)
        if not pointwise or on_host or any(t.ndim for t in there):
            raise RuntimeError(words)

    def _check_generator(self, args: Any, kwargs: dict[str, Any], on_device: bool) -> None:
        for value in (*args, *kwargs.values()):
            if type.__instancecheck__(_CGenerator, value):
                kind, wanted = _SAID.get(value._cdata, torch.device("cpu")).type, KIND if on_device else "cpu"
                if kind != wanted:
                    raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{kind}'")


def _check_double(name: str, dtype: torch.dtype) -> None:
    if dtype in (torch.float64, torch.complex128):
        raise TypeError(f"{name}: the MPS framework doesn't support float64")


def _note(counter: Counter[str], what: str) -> None:
    frame: Any = sys._getframe(1)
    while frame is not None and (OWN not in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    code = frame.f_code if frame else None
    where = f"{code.co_filename.rpartition(OWN)[2]}:{frame.f_lineno} {code.co_name}" if code else "?"
    counter[f"{what} @ {where}"] += 1


def _refused(kind: type[Exception], words: str, act: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=words):
        act()


def check_refusals() -> None:
    """What is pretended refuses what real devices do, and counts what they wait for."""
    with Emulator() as device:
        x = torch.arange(6.0, device=KIND).view(3, 2)
        assert all(t.device == DEVICE for t in (x, x + 1, x.new_zeros(2), x.new_tensor([1.0])))
        assert x.cpu().tolist() == [[0, 1], [2, 3], [4, 5]]
        assert float((x * torch.tensor(2.0)).sum()) == 30  # single numbers may meet
        for mixed in (
            lambda: x + torch.ones(2),
            lambda: torch.ones(3, 2) + x.sum(),
            lambda: torch.stack([x.sum(), torch.tensor(1.0)]),
            lambda: torch.cat([x, torch.zeros(1, 2)]),
            lambda: x @ torch.eye(2),
            lambda: torch.ones(()).add_(x.sum()),
        ):
            _refused(RuntimeError, "same device", mixed)
        _refused(RuntimeError, "indices", lambda: torch.ones(3)[torch.tensor([0], device=KIND)])
        _refused(TypeError, "numpy", lambda: x.numpy())
        _refused(RuntimeError, "generator", lambda: torch.randn(2, device=KIND, generator=torch.Generator()))
        _refused(RuntimeError, "generator", lambda: torch.randn(2, generator=torch.Generator(KIND)))
        _refused(NotImplementedError, "MPS", lambda: torch.linalg.eig(torch.eye(2, device=KIND)))
        for double in (lambda: x.double(), lambda: x.to("cpu", torch.float64)):
            _refused(TypeError, "float64", double)
        g = torch.Generator(KIND).manual_seed(1)
        drawn = torch.randn(3, device=KIND, generator=g)
        assert g.device == DEVICE
        assert isinstance(torch.default_generator, torch.Generator)
        assert torch.equal(drawn.cpu(), torch.randn(3, generator=torch.Generator().manual_seed(1)))
        with device.watch() as seen:
            x[x > 1], bool(x.any()), x.tolist(), torch.tensor(1.0, device=KIND), x[torch.tensor([0])]
        assert (seen.waits.total(), seen.uploads.total()) == (3, 2), seen
        net = torch.nn.Linear(2, 3).to(KIND)
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        net(x).square().sum().backward()
        before = net.weight.cpu()
        optimizer.step()
        assert not torch.equal(before, net.weight.cpu())
        with torch.device(KIND):
            assert torch.zeros(2).device == torch.tensor([1.0]).device == DEVICE
