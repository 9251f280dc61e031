"""Calls of calls.py, and the waits of chains, on a pretended device, as JSON on stdout: run by test_purity.py in a fresh process, as
``devices.py law`` (calls that differ in kind) or ``devices.py sweep`` (all of them)."""

import json
import sys
import traceback
from contextlib import nullcontext
from functools import cache

# before toyscore: it stands in for torch.Generator
from reliability.device_emulator import KIND, OWN, Emulator, check_refusals, to_cpu

# isort: split
import numpy as np
import torch

from helpers import F64
from reliability.calls import CALLS, F32, World, leaves, run

LAW = """
distributions.GaussianMixture.score distributions.GaussianMixture.condition distributions.Empirical.log_prob noise.levels
losses.sliced_score_matching losses.at_random_sigma sde.geometric_times samplers.langevin samplers.predictor_corrector
samplers.of_measurement diagnostics.affine_law metrics.sliced_wasserstein2 models.MLP.jvp train.fit
"""  # calls that differ in kind; the others are a sweep
LAW_OF_WAITS = ("samplers.langevin (one level)", "samplers.annealed_langevin", "samplers.ancestral")
BACKWARD = ("reverse_sde", "reverse_diffusion", "ancestral", "ddim", "probability_flow", "predictor_corrector")
EACH = ("samplers.annealed_langevin", "samplers.inpaint")
PLAIN = ("samplers.langevin", "samplers.langevin (one level)", "samplers.metropolis_langevin")
CHAINS = {  # the arguments that make a chain of n steps
    **dict.fromkeys(PLAIN, lambda n: {"n_steps": n}),
    **dict.fromkeys(EACH, lambda n: {"sigmas": [2.0, 1.0], "n_steps_each": n // 2}),
    "samplers.diffuse": lambda n: {"times": [i / n for i in range(n + 1)]},
    **{f"samplers.{name}": lambda n: {"times": [1 - 0.9 * i / n for i in range(n + 1)]} for name in BACKWARD},
}
EXEMPT = ("distributions.GaussianMixture.to", "operators.looks")  # asks for float64; says where a value is
ROUNDING = 1e-6  # of the CPU's results, relative to the largest number of each
AGREE = {"samplers.adaptive_flow": 1e-3, "likelihood.log_likelihood": 1e-3}  # the solver's, as they are called


@cache
def outcome(name, device="cpu", default=None):
    """What a call returned in a new world, with a default device or none: each leaf, on the CPU, and where it was."""
    torch.manual_seed(0)
    w = World(F32, device)
    with torch.device(default) if default else nullcontext():
        found = list(leaves(run(name, w, CALLS[name].arguments(w))))
    return [
        (to_cpu(leaf.detach()), leaf.device.type) if isinstance(leaf, torch.Tensor) else (leaf, None) for leaf in found
    ]


def tried(name, default):
    """What a call on the device returned, or what was wrong with it, in words."""
    try:
        return outcome(name, KIND, default)
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if OWN in f.filename]
        where = f"{frames[-1].filename.rpartition(OWN)[2]}:{frames[-1].lineno}" if frames else "the test"
        return f"{where}: {type(error).__name__}: {str(error)[:200]}"


def compared(name, found, default):
    """What is wrong with what a call on the device returned, in words; None if nothing is."""
    if isinstance(found, str):
        return found
    call, plain = CALLS[name], outcome(name)
    if [type(leaf) for leaf, _ in plain] != [type(leaf) for leaf, _ in found]:
        return "returned something else than on the CPU"
    wanted = "cpu" if call.dtype == F64 else KIND
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


def calls(names):
    """What is wrong with each call, with that default device and without; with it first, for what a call imports is imported there."""
    names, defaults = [name for name in names if name not in EXEMPT], (KIND, None)
    with Emulator():
        found = {default: {name: tried(name, default) for name in names} for default in defaults}
    return {name: [compared(name, found[default][name], default) for default in defaults] for name in names}


def waits(name):
    """How often the host waits for the device in a step of a chain, copies to the device among it: in 32 steps, less in 16."""
    counts = []
    with Emulator() as emulator:
        for n in (16, 32):
            w = World(F32, KIND)
            arguments = CALLS[name].arguments(w) | CHAINS[name](n)
            with emulator.watch() as seen:
                run(name, w, arguments)
            counts.append(seen.waits.total() + seen.uploads.total())
    return (counts[1] - counts[0]) / 16


if __name__ == "__main__":
    torch.set_num_threads(1)
    check_refusals()  # what is pretended refuses what real ones do
    law = sys.argv[1:] == ["law"]
    found = {name: waits(name) for name in (LAW_OF_WAITS if law else CHAINS)}
    json.dump({"calls": calls(LAW.split() if law else CALLS), "waits": found}, sys.stdout)
