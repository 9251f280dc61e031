"""Every call of calls.py on a pretended device, as JSON on stdout: run by test_devices.py, in a fresh process for each kind of device."""

import json
import sys
import traceback
from contextlib import nullcontext

from reliability.device_emulator import OWN, Emulator, to_cpu  # before toyscore: it stands in for torch.Generator

# isort: split
import numpy as np
import torch

from helpers import F64
from reliability.calls import CALLS, F32, World, leaves, run

EXEMPT = {
    "distributions.GaussianMixture.to": "asks for float64",
    "operators.looks": "says where a value is",
}
ROUNDING = 1e-6  # of the CPU's results, relative to the largest number of each
AGREE = {
    name: 1e-3 for name in ("samplers.adaptive_flow", "likelihood.log_likelihood")
}  # the solver's, as they are called


def outcome(name, device="cpu", default=None):
    """What a call returned in a new world, with a default device or none: each leaf, on the CPU, and where it was."""
    torch.manual_seed(0)
    w = World(F32, device)
    with torch.device(default) if default else nullcontext():
        found = list(leaves(run(name, w, CALLS[name].arguments(w))))
    return [
        (to_cpu(leaf.detach()), leaf.device.type) if isinstance(leaf, torch.Tensor) else (leaf, None) for leaf in found
    ]


def tried(name, emulator, default):
    """What a call on a device returned, or what was wrong with it, in words."""
    with emulator.watch() as seen:
        try:
            found = outcome(name, emulator.device.type, default)
        except Exception as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if OWN in f.filename]
            where = f"{frames[-1].filename.rpartition(OWN)[2]}:{frames[-1].lineno}" if frames else "the test"
            return f"{where}: {type(error).__name__}: {str(error)[:200]}"
    return "float64 on the device: " + "; ".join(list(seen.doubles)[:3]) if seen.doubles else found


def compared(name, found, kind, default):
    """What is wrong with what a call on a device returned, in words; None if nothing is."""
    if isinstance(found, str):
        return found
    call, plain = CALLS[name], outcome(name)
    if [type(leaf) for leaf, _ in plain] != [type(leaf) for leaf, _ in found]:
        return "returned something else than on the CPU"
    wanted = "cpu" if call.dtype == F64 else kind
    promised = call.dtype != F32 and not (call.default and not default)
    for (one, _), (other, place) in zip(plain, found, strict=True):
        if promised and place not in (None, wanted):
            return f"returned a tensor on {place}, not on {wanted}"
        if isinstance(one, torch.Tensor):
            if one.dtype != other.dtype:
                return f"returned {other.dtype}, and {one.dtype} on the CPU"
            one, other = one.to(F64).numpy(), other.to(F64).numpy()
        if isinstance(one, float) or (isinstance(one, np.ndarray) and one.dtype.kind == "f"):
            size = AGREE.get(name, ROUNDING)
            same = np.allclose(one, other, rtol=size, atol=size * np.abs(one).max(initial=1e-3), equal_nan=True)
        else:
            same = (isinstance(one, np.ndarray) and one.dtype == object) or np.array_equal(one, other)
        if not same:
            return "returned other values than on the CPU"
    return None


def report(kind):
    """With the default device first: what is imported at the first call is imported there, too."""
    names = [name for name in CALLS if name not in EXEMPT]
    with Emulator(kind) as emulator:
        found = {default: {name: tried(name, emulator, default) for name in names} for default in (kind, None)}
    return {name: [compared(name, found[default][name], kind, default) for default in (None, kind)] for name in names}


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump(report(sys.argv[1]), sys.stdout)
