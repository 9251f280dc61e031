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

NOT_FLOAT32 = {"distributions.GaussianMixture.to": "asks for float64"}
AGREE = 1e-6  # with the CPU, relative to the largest number of a result


def outcome(name, device="cpu", default=None):
    """The leaves of what a call returned: in a new world, with a default device or none."""
    torch.manual_seed(0)
    w = World(F32, device)
    with torch.device(default) if default else nullcontext():
        return list(leaves(run(name, w, CALLS[name].arguments(w))))


def compared(name, plain, found, device, default):
    """What is wrong with leaves, in words; None if nothing is."""
    if [type(leaf) for leaf in plain] != [type(leaf) for leaf in to_cpu(found)]:
        return "returned something else than on the CPU"
    wanted = "cpu" if CALLS[name].dtype == F64 else device
    for one, other in zip(plain, found, strict=True):
        if isinstance(one, torch.Tensor):
            if CALLS[name].dtype != F32 and not (CALLS[name].default and not default) and other.device.type != wanted:
                return f"returned a tensor on {other.device.type}, not on {wanted}"
            if one.dtype != other.dtype:
                return f"returned {other.dtype}, and {one.dtype} on the CPU"
            one, other = (np.asarray(to_cpu(t.detach()).to(F64)) for t in (one, other))
        if isinstance(one, float | np.ndarray) and np.asarray(one).dtype.kind == "f":
            same = np.allclose(one, other, rtol=AGREE, atol=AGREE * np.abs(one).max(initial=1e-3), equal_nan=True)
        else:
            same = np.array_equal(one, other)
        if not same:
            return "returned other values than on the CPU"
    return None


def tried(name, plain, emulator, default):
    """What is wrong with a call on a device, in words; None if nothing is."""
    kind = emulator.device.type
    with emulator.watch() as seen:
        try:
            problem = compared(name, plain, outcome(name, kind, default), kind, default)
        except Exception as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if OWN in f.filename]
            where = f"{frames[-1].filename.rpartition(OWN)[2]}:{frames[-1].lineno}" if frames else "the test"
            problem = f"{where}: {type(error).__name__}: {str(error)[:200]}"
    if problem is None and seen.doubles:
        problem = "float64 on the device: " + "; ".join(list(seen.doubles)[:3])
    return problem


def report(kind):
    names = [name for name in CALLS if name not in NOT_FLOAT32]
    plain = {name: outcome(name) for name in names}
    with Emulator(kind) as emulator:
        return {name: [tried(name, plain[name], emulator, default) for default in (None, kind)] for name in names}


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump(report(sys.argv[1]), sys.stdout)
