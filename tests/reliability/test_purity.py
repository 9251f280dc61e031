"""Shape, dtype, device, inputs and every global random state are left as they were, by each public function."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch

from helpers import F64
from reliability.calls import CALLS, EXEMPT, F32, World, leaves, public, run, tensors
from toyscore.samplers.chains import CHECK_EVERY

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MODULES = sorted({name.partition(".")[0] for name in CALLS})
QUIET = {  # take a generator so that all are called alike, and need none
    *("losses.explicit_score_matching", "losses.implicit_score_matching", "losses.implicit_score_matching (autograd)"),
    *("operators.source", "samplers.heun_step"),
}
LOOSER = {"samplers.adaptive_flow": 1e-3}  # of float32 and float64: the tolerance it is called with


def state():
    """All that a call could change for others."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch's generator": torch.get_rng_state().numpy().tobytes(),
        "numpy's generator": (kind, keys.tobytes(), *rest),
        "random's generator": random.getstate(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "numpy's errors": np.geterr(),
        "matplotlib's parameters": dict(mpl.rcParams),
        "folder": os.getcwd(),
    }


def outcome(name, dtype):
    """What a call returned, and what it changed: in words."""
    call, w = CALLS[name], World(dtype)
    arguments = call.arguments(w)
    kept = tensors([value for key, value in arguments.items() if key not in call.changes])
    before = [(t.detach().clone(), t._version, t.requires_grad, t.grad) for t in kept]
    fresh, was = w["generator"].get_state(), state()
    found = list(leaves(run(name, w, arguments)))
    now = state()
    changed = [key for key in was if was[key] != now[key]]
    for t, (value, version, grad_wanted, grad) in zip(kept, before, strict=True):
        same = torch.equal(t, value) and (t._version, t.requires_grad, t.grad) == (version, grad_wanted, grad)
        changed += [] if same else [f"an input of shape {list(t.shape)}"]
    drew = not torch.equal(w["generator"].get_state(), fresh)
    given = arguments.get("generator") is not None or "generator" in call.use
    return SimpleNamespace(found=found, tensors=tensors(found), changed=changed, drew=drew, given=given)


def difference(single, double):
    """The largest, relative to the largest number; infinities are equal."""
    single, double = (torch.as_tensor(value).detach().to(F64) for value in (single, double))
    error = torch.where(single == double, 0.0, (single - double).abs())
    return float(error.max() / double.abs().max().clamp(min=1e-3)) if error.numel() else 0.0


def faults(name):
    """What a call does that it must not, in words."""
    call, results = CALLS[name], []
    for dtype in (F32, F32, F64):
        with torch.random.fork_rng(devices=[], enabled=call.default):  # networks draw their weights from torch's own
            torch.manual_seed(7) if call.default else None
            results.append(outcome(name, dtype))
        found = results[-1].tensors
        shapes = [tuple(t.shape) for t in found]
        yield from (
            f"changes {words}" for words in results[-1].changed if not (call.default and words == "torch's generator")
        )
        if not {t.dtype for t in found if t.is_floating_point()} <= {call.dtype or dtype}:
            yield "another dtype"
        if not all(bool(torch.isfinite(t).all()) for t in found):
            yield "not finite"
        if call.promise and shapes != (
            call.shape if isinstance(call.shape, list) else [call.shape] * max(1, len(found))
        ):
            yield f"shapes {shapes}"
    one, two, double = results
    if one.drew != (one.given and name not in QUIET):
        yield "draws from its generator" if one.drew else "draws nothing from its generator"
    for a, b in zip(one.found, two.found, strict=True):
        same = type(a) is type(b) and (torch.equal(a, b) if isinstance(a, torch.Tensor) else np.array_equal(a, b))
        if not same and name != "plotting.canvas":  # whose artists are new each time
            yield "another result of the same seed"
    if not (call.default or one.drew):  # a generator gives other numbers in another dtype
        numbers = [
            pair for pair in zip(one.found, double.found, strict=True) if isinstance(pair[0], torch.Tensor | float)
        ]
        if any(difference(*pair) > LOOSER.get(name, 1e-5) for pair in numbers):
            yield "float32 differs from float64"


def test_every_public_function_is_called_or_exempt_with_a_reason():
    called = {name.partition(" (")[0] for name in CALLS}
    names = set(public())
    assert sorted(names - called - EXEMPT.keys()) == []
    assert sorted(EXEMPT.keys() - names) == []
    assert sorted(called - names) == []
    assert called.isdisjoint(EXEMPT)


@pytest.mark.parametrize("module", MODULES)
def test_a_call_is_a_pure_function_of_its_inputs_and_its_generator(module):
    """In float32, twice, and float64: shapes and dtypes as promised, finite, no input and no global state changed, drawn from the
    generator that is given and no other, the same for the same seed, and float64's numbers where nothing is drawn."""
    found = {name: list(faults(name)) for name in CALLS if name.startswith(f"{module}.")}
    assert {name: words for name, words in found.items() if words} == {}


def in_a_process_of_its_own(script, *arguments):
    """What a script of this folder prints: it writes to the memory of torch."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE.parent)])}
    command = [sys.executable, str(HERE / script), *arguments]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "UnavailableError: " in found.stderr:
        pytest.skip("pretended devices: " + found.stderr.rpartition("UnavailableError: ")[2].strip())
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("which", ["law", pytest.param("sweep", marks=pytest.mark.slow)])
def test_a_call_gives_on_a_pretended_device_what_it_gives_on_the_cpu(which):
    """Calls that differ in kind, or all, with that default device and without: no mixed devices, no float64 on the device, results
    where the inputs are; and a chain waits for its device once in sixteen steps, where it looks for divergence. What is pretended refuses
    what real devices refuse, see check_refusals."""
    for kind, found in json.loads(in_a_process_of_its_own("devices.py", which)).items():
        assert {name: words for name, words in found["calls"].items() if any(words)} == {}, kind
        assert {name: waits for name, waits in found["waits"].items() if waits > 1 / CHECK_EVERY} == {}, kind
