"""A pretended accelerator at the level of the dispatcher: what a device would refuse, and what it would wait for, without one.

    from reliability.device_emulator import Emulator  # before toyscore: it stands in for torch.Generator
    with Emulator("cuda") as gpu, gpu.watch() as seen:  # or "mps"; what seems to be on the device is kept on the CPU
        final(langevin(p.to("cuda").score, x, step_size=0.1, n_steps=32, generator=torch.Generator("cuda")))
    print(seen.waits, seen.uploads)  # by operator and line of toyscore

It refuses an operator that mixes CUDA tensors with CPU ones (only 0-d CPU tensors in pointwise operators, indices and copies may meet
them), ``.numpy()``, a generator of another device, an operator without a kernel for the device (native_functions.yaml of the installed
torch), and on MPS float64, also on the way from there (``.to("cpu", torch.float64)`` casts before it copies). It counts ``waits`` of the
host for the device (item, cpu(), nonzero, boolean masks, checked linear algebra) and ``uploads``, copies from unpinned host memory, which
wait for the stream, too. It cannot see races, numerics of the real kernels, speed and memory.

It writes to the memory of torch: give it a process of its own. A build of torch whose memory looks otherwise raises UnavailableError.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest import mock

import torch
import torchgen
import yaml
from torch.overrides import TorchFunctionMode
from torch.utils import _device
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

_CGenerator = torch._C.Generator
_current: Emulator | None = None
OWN = os.sep + "toyscore" + os.sep


class UnavailableError(RuntimeError):
    """This build of torch, or this machine, cannot pretend."""


def _symbol(library: str, name: str) -> int:
    try:
        found = getattr(ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", library)), name)
    except (OSError, AttributeError) as error:
        raise UnavailableError(f"torch {torch.__version__} has no {name} in {library}") from error
    return ctypes.cast(found, ctypes.c_void_p).value or 0


def _guard(kind: str) -> None:
    """Let a build without this kind of device get as far as the dispatcher: a guard that does nothing, and an autograd engine that does
    not look for the streams of an accelerator. Both in the memory of this process only."""
    slots = (ctypes.c_void_p * 14).from_address(_symbol("libc10.so", "_ZN3c104impl26device_guard_impl_registryE"))
    slot = {"cuda": 1, "mps": 13}[kind]
    if slots[slot] == slots[0]:
        return  # done before
    if slots[slot]:
        raise UnavailableError(f"torch {torch.__version__} was built with {kind} devices")
    never = {"x86_64": b"\x31\xc0\xc3", "aarch64": b"\x00\x00\x80\x52\xc0\x03\x5f\xd6"}  # return false
    if platform.machine() not in never:
        raise UnavailableError(f"no instructions for a {platform.machine()} processor")
    code = never[platform.machine()]
    address = _symbol("libtorch_cpu.so", "_ZN2at11accelerator13isAcceleratorEN3c1010DeviceTypeE")
    page = mmap.PAGESIZE
    first = address - address % page
    length = ctypes.c_size_t(-(-(address + len(code) - first) // page) * page)
    mprotect = ctypes.CDLL(None).mprotect
    if mprotect(ctypes.c_void_p(first), length, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
        raise UnavailableError("the memory of torch cannot be written to")
    ctypes.memmove(address, code, len(code))
    mprotect(ctypes.c_void_p(first), length, mmap.PROT_READ | mmap.PROT_EXEC)
    slots[slot] = slots[0]  # the processor's, which does nothing


class _Meta(type(_CGenerator)):  # type: ignore[misc]
    def __instancecheck__(cls, value: Any) -> bool:
        return type.__instancecheck__(_CGenerator, value)


_SAID: dict[int, torch.device] = {}  # by what is underneath: the dispatcher wraps it anew


class Generator(_CGenerator, metaclass=_Meta):
    """torch.Generator that can be of a pretended device; underneath it is a CPU one."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return _CGenerator.__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self._said = _full(torch.device(device))
        _SAID[self._cdata] = self._said

    def __del__(self) -> None:
        _SAID.pop(self._cdata, None)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._said


torch.Generator = Generator  # type: ignore[misc,assignment]


def _full(device: torch.device) -> torch.device:
    return torch.device(device.type, 0) if device.type != "cpu" and device.index is None else device


class Pretended(torch.Tensor):
    """Says it is on the device; ``elem`` holds the numbers, on the CPU."""

    elem: torch.Tensor

    @staticmethod
    def __new__(cls, elem: torch.Tensor, device: torch.device) -> Any:
        like = {"strides": elem.stride(), "storage_offset": elem.storage_offset(), "dtype": elem.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, elem.shape, **like, layout=elem.layout, device=device)

    def __init__(self, elem: torch.Tensor, device: torch.device) -> None:
        self.elem = elem

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _current._run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


def to_cpu(value: Any) -> Any:
    """The numbers, not counted."""
    return tree_map_only(Pretended, lambda t: t.detach().elem if _current else t.elem, value)


class _Makers(TorchFunctionMode):
    """torch.tensor and its like read their device below the dispatcher: here they make a CPU tensor, then copied, as torch does."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.kind = device.type

    def _indexed(self, value: Any) -> Any:
        """A device without an index is 0: the guard that stands in cannot say so."""
        if type(value) is torch.device or (type(value) is str and value == self.kind):
            return _full(torch.device(value))
        return value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args, kwargs = tuple(map(self._indexed, args)), {k: self._indexed(v) for k, v in (kwargs or {}).items()}
        if func is torch.Tensor.numpy and isinstance(args[0], Pretended):
            raise TypeError(f"can't convert {args[0].device} device type tensor to numpy")
        if func is torch.Tensor.tolist and isinstance(args[0], Pretended):
            return args[0].detach().cpu().tolist()
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], Pretended):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)  # a list becomes a tensor, which is copied
            index = tuple(torch.as_tensor(i, device="cpu") if isinstance(i, list) else i for i in index)
            return func(args[0], index, *args[2:])
        if func not in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            return func(*args, **kwargs)
        device = kwargs.pop("device", None)
        if device is None and func is torch.Tensor.new_tensor:
            device = args[0].device
        if device is None and _device.CURRENT_DEVICE is not None:
            device = _device.CURRENT_DEVICE
        if device is None and func is torch.as_tensor and args and isinstance(args[0], torch.Tensor):
            device = args[0].device
        device = torch.device("cpu" if device is None else device)
        if device.type != self.kind:
            return func(*args, **kwargs, device=device)
        if func is torch.as_tensor and isinstance(args[0], torch.Tensor):
            return args[0].to(device, kwargs.get("dtype") or (args[1] if len(args) > 1 else args[0].dtype))
        if func is torch.Tensor.new_tensor:
            args, kwargs = args[1:], {"dtype": args[0].dtype} | kwargs
        grad = kwargs.pop("requires_grad", False)
        made = (torch.as_tensor if func is torch.as_tensor else torch.tensor)(*args, **kwargs, device="cpu")
        return made.to(device).requires_grad_(grad)


@cache
def _kernels() -> dict[str, Any]:
    """The operators of the yaml that comes with torch, by name."""
    path = os.path.join(os.path.dirname(torchgen.__file__), "packaged", "ATen", "native", "native_functions.yaml")
    with open(path) as file:
        entries = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
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


@dataclass
class Seen:
    """What happened while it was watched, each as "operator @ file:line function"."""

    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    doubles: Counter[str] = field(default_factory=Counter)  # float64 made on the device


_FORGIVING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}  # take indices from the host


class Emulator(TorchDispatchMode):
    """While it lasts, ``kind`` is a device of this machine. See the module."""

    def __init__(self, kind: str = "cuda") -> None:
        super().__init__()
        self.device = torch.device(kind, 0)
        self.key = kind.upper()
        self.seen = Seen()

    def __enter__(self) -> Emulator:
        global _current
        self._stack = stack = ExitStack()
        kind = self.device.type
        patch = lambda target, name, value: stack.enter_context(mock.patch.object(target, name, value))  # noqa: E731
        _guard(kind)
        if kind == "cuda":
            torch._C._ensureCUDADeviceGuardSet()
        stream = mock.Mock()
        stream.is_capturing.return_value = False
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        run_backward = torch.autograd._engine_run_backward

        def one_thread(*a: Any, **k: Any) -> Any:
            with torch.autograd.set_multithreading_enabled(False):  # inference_mode(False) had switched it on
                return run_backward(*a, **k)

        patch(torch.autograd, "_engine_run_backward", one_thread)
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # parameters keep their identity, as on a device
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, before)
        for module, name, value in (
            (torch.cuda, "_lazy_init", lambda: None),
            (torch.cuda, "is_available", lambda: kind == "cuda"),
            (torch.cuda, "is_bf16_supported", lambda *a, **k: True),
            (torch.cuda, "manual_seed_all", lambda seed: None),
            (torch.mps, "manual_seed", lambda seed: None),
            (torch.accelerator, "current_accelerator", lambda *a, **k: torch.device(kind)),
            (torch.accelerator, "current_stream", lambda *a: stream),
        ):
            patch(module, name, value)
        stack.enter_context(_Makers(self.device))
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
        wanted = None if asked is None else _full(torch.device(asked))
        if not here and (wanted is None or wanted.type == "cpu"):
            self._check_generator(args, kwargs, on_device=False)
            return func(*args, **kwargs)
        on_device = wanted.type != "cpu" if wanted is not None else True
        if name == "_to_copy":
            if here and not on_device:
                self._note(self.seen.waits, "copy to the host")
                self._check_double(name, kwargs.get("dtype") or here[0].dtype)  # cast on the device, then copied
            elif on_device and not here:
                self._note(self.seen.uploads, "copy to the device")
        elif here:
            self._check_mixture(func, name, args, there)
        if on_device and not _has_kernel(func, self.key):
            raise NotImplementedError(f"{func._schema.name} is not currently implemented for the {self.key} device")
        self._check_generator(args, kwargs, on_device)
        self._count(name, args, kwargs)
        inner_args, inner_kwargs = tree_unflatten([t.elem if isinstance(t, Pretended) else t for t in flat], spec)
        if wanted is not None:
            inner_kwargs["device"] = torch.device("cpu")
        out = func(*inner_args, **inner_kwargs)  # draws of no generator are the CPU's
        mutated = {id(t.elem): t for t in here}
        writes = any(r.alias_info is not None and r.alias_info.is_write for r in func._schema.returns)

        def wrap(value: torch.Tensor) -> Any:
            if writes and id(value) in mutated:
                return mutated[id(value)]
            if not on_device:
                return value
            if value.dtype in (torch.float64, torch.complex128):
                self._note(self.seen.doubles, name)
                self._check_double(name, value.dtype)
            return Pretended(value, self.device)

        result = tree_map_only(torch.Tensor, wrap, out)
        if torch.Tag.inplace_view in func.tags:
            with torch._C._DisableTorchDispatch():  # what the wrapper says of its shape, too
                func(*args, **kwargs)
        return result

    def _check_mixture(self, func: Any, name: str, args: Any, there: list[torch.Tensor]) -> None:
        if not there:
            return
        words = f"{name}: Expected all tensors to be on the same device, but found at least two devices, {self.device} and cpu!"
        if name in _FORGIVING:
            if not isinstance(args[0], Pretended):
                raise RuntimeError(f"{name}: indices should be on the device of the indexed tensor (cpu)")
            if name.startswith("index_put") and not isinstance(args[2], Pretended) and args[2].ndim:
                raise RuntimeError(words)
            for index in args[1]:
                if isinstance(index, torch.Tensor) and not isinstance(index, Pretended):
                    self._note(self.seen.uploads, "index on the host")
            return
        pointwise = torch.Tag.pointwise in func.tags or name in ("fill_", "where", "masked_fill", "masked_fill_")
        if pointwise and all(t.ndim == 0 for t in there):
            written = func._schema.returns and func._schema.returns[0].alias_info is not None and args
            if written and isinstance(args[0], torch.Tensor) and not isinstance(args[0], Pretended):
                raise RuntimeError(words)
            return
        raise RuntimeError(words)

    def _check_generator(self, args: Any, kwargs: dict[str, Any], on_device: bool) -> None:
        for value in (*args, *kwargs.values()):
            if type.__instancecheck__(_CGenerator, value):
                kind = _SAID.get(value._cdata, torch.device("cpu")).type
                wanted = self.device.type if on_device else "cpu"
                if kind != wanted:
                    raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{kind}'")

    def _check_double(self, name: str, dtype: torch.dtype) -> None:
        if dtype in (torch.float64, torch.complex128) and self.key == "MPS":
            raise TypeError(f"{name}: the {self.key} framework doesn't support float64")

    def _count(self, name: str, args: Any, kwargs: dict[str, Any]) -> None:
        if name in _WAITS:
            self._note(self.seen.waits, name)
        masks = args[1] if name in _FORGIVING else ()
        if any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in masks):
            self._note(self.seen.waits, name + " by a boolean mask")

    def _note(self, counter: Counter[str], what: str) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None and (OWN not in frame.f_code.co_filename or frame.f_code.co_filename == __file__):
            frame = frame.f_back
        where = (
            f"{frame.f_code.co_filename.rpartition(OWN)[2]}:{frame.f_lineno} {frame.f_code.co_name}" if frame else "?"
        )
        counter[f"{what} @ {where}"] += 1


def _refused(kind: type[Exception], words: str, act: Callable[[], Any]) -> None:
    try:
        act()
    except kind as error:
        found = str(error)
    else:
        raise AssertionError(f"was not refused: {words}")
    assert words in found, found


def check_refusals() -> None:
    """What is pretended refuses what real devices do, and counts what they wait for."""
    with Emulator("cuda") as gpu:
        x = torch.arange(6.0, device="cuda").view(3, 2)
        assert x.device == torch.device("cuda", 0)
        assert all(t.is_cuda for t in (x, x + 1, x.new_zeros(2)))
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
        _refused(RuntimeError, "indices", lambda: torch.ones(3)[torch.tensor([0], device="cuda")])
        _refused(TypeError, "numpy", lambda: x.numpy())
        _refused(RuntimeError, "generator", lambda: torch.randn(2, device="cuda", generator=torch.Generator()))
        _refused(RuntimeError, "generator", lambda: torch.randn(2, generator=torch.Generator("cuda")))
        g = torch.Generator("cuda").manual_seed(1)
        drawn = torch.randn(3, device="cuda", generator=g)
        assert g.device.type == "cuda"
        assert isinstance(torch.default_generator, torch.Generator)
        assert torch.equal(drawn.cpu(), torch.randn(3, generator=torch.Generator().manual_seed(1)))
        with gpu.watch() as seen:
            x[x > 1], bool(x.any()), x.tolist(), torch.tensor(1.0, device="cuda"), x[torch.tensor([0])]
        assert (seen.waits.total(), seen.uploads.total()) == (3, 2), seen
        with gpu.watch() as seen:
            x.double()
        assert seen.doubles
        net = torch.nn.Linear(2, 3).to("cuda")
        optimizer = torch.optim.Adam(net.parameters(), fused=True)
        with torch.autocast("cuda", torch.bfloat16):
            out = net(x)
        assert (out.dtype, out.is_cuda) == (torch.bfloat16, True)
        out.float().square().sum().backward()
        before = net.weight.cpu()
        optimizer.step()
        assert not torch.equal(before, net.weight.cpu())
        with torch.device("cuda"):
            assert torch.zeros(2).is_cuda
            assert torch.tensor([1.0]).is_cuda
    with Emulator("mps"):
        assert (torch.ones(2, device="mps") * 2).is_mps
        _refused(NotImplementedError, "MPS", lambda: torch.linalg.eig(torch.eye(2, device="mps")))
        _refused(TypeError, "float64", lambda: torch.ones(2, device="mps").double())
        _refused(TypeError, "float64", lambda: torch.ones(2, device="mps").to("cpu", torch.float64))
