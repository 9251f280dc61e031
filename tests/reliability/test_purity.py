"""Shape, dtype, device, inputs and every global random state are left as they were, by each public function."""

import json
import os
import random
import subprocess
import sys
from functools import cache
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
QUIET = {  # take a generator so that all are called alike, and need none
    "losses.explicit_score_matching",
    "losses.implicit_score_matching",
    "losses.implicit_score_matching (autograd)",
    "operators.source",
    "samplers.heun_step",
}
OWN_PICTURES = {"plotting.canvas"}  # their artists are new each time
AGREE = 1e-5  # float32 with float64, relative to the largest number of a result
LOOSER = {"samplers.adaptive_flow": 1e-3}  # the tolerance it is called with


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


@cache
def outcome(name, dtype):
    """What a call returned, and what it changed: in words."""
    call, w = CALLS[name], World(dtype)
    arguments = call.arguments(w)
    kept = tensors([value for key, value in arguments.items() if key not in call.changes])
    before = [(t.detach().clone(), t._version, t.requires_grad, t.grad) for t in kept]
    fresh, was = w.generator.get_state(), state()
    found = list(leaves(run(name, w, arguments)))
    now = state()
    changed = [key for key in was if was[key] != now[key]]
    for t, (value, version, grad_wanted, grad) in zip(kept, before, strict=True):
        same = torch.equal(t, value) and (t._version, t.requires_grad, t.grad) == (version, grad_wanted, grad)
        changed += [] if same else [f"an input of shape {list(t.shape)}"]
    drew = not torch.equal(w.generator.get_state(), fresh)
    return SimpleNamespace(found=found, tensors=tensors(found), changed=changed, drew=drew, arguments=arguments)


def test_every_public_function_is_called_or_exempt_with_a_reason(measured):
    called = {name.partition(" (")[0] for name in CALLS}
    names = set(public())
    assert sorted(names - called - EXEMPT.keys()) == []
    assert sorted(EXEMPT.keys() - names) == []
    assert sorted(called - names) == []
    assert called.isdisjoint(EXEMPT)
    measured.count("public functions, classes and methods called in float32 and float64", len(called))


@pytest.mark.parametrize("name", CALLS)
def test_a_call_changes_no_input_and_no_global_state(name):
    weights = ["torch's generator"] if CALLS[name].default else []  # networks draw their weights from torch's own
    for dtype in (F32, F64):
        assert [words for words in outcome(name, dtype).changed if words not in weights] == []


@pytest.mark.parametrize("name", CALLS)
def test_results_are_finite_and_have_the_dtype_and_shape_promised(name):
    call = CALLS[name]
    for dtype in (F32, F64):
        found = outcome(name, dtype).tensors
        assert {t.dtype for t in found if t.is_floating_point()} <= {call.dtype or dtype}
        assert all(bool(torch.isfinite(t).all()) for t in found)
        if call.shape is not None:
            shapes = [tuple(t.shape) for t in found]
            assert shapes == (call.shape if isinstance(call.shape, list) else [call.shape] * max(1, len(found)))


def test_a_generator_that_is_given_is_drawn_from(measured):
    """And nothing else is: no global state changes."""
    given = {name for name in CALLS if "generator" in outcome(name, F32).arguments}
    assert {name for name in given if not outcome(name, F32).drew} == QUIET & given
    measured.count("functions that draw from the generator they are given, and from no other", len(given - QUIET))


@pytest.mark.parametrize("name", [name for name in CALLS if name not in OWN_PICTURES])
def test_equal_seeds_give_equal_results(name):
    if CALLS[name].default:
        with torch.random.fork_rng(devices=[]):
            results = []
            for _ in range(2):
                torch.manual_seed(7)
                w = World(F32)
                results.append(list(leaves(run(name, w, CALLS[name].arguments(w)))))
    else:
        w = World(F32)
        results = [outcome(name, F32).found, list(leaves(run(name, w, CALLS[name].arguments(w))))]
    assert [type(leaf) for leaf in results[0]] == [type(leaf) for leaf in results[1]]
    for one, other in zip(*results, strict=True):
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        else:
            assert np.array_equal(one, other)


def test_float32_agrees_with_float64(measured):
    """Where nothing is drawn: a generator gives other numbers in another dtype."""
    names = [name for name, call in CALLS.items() if not call.default and not outcome(name, F32).drew]
    worst = {1e-5: 0.0, 1e-3: 0.0}
    for name in names:
        for leaf in zip(outcome(name, F32).found, outcome(name, F64).found, strict=True):
            if isinstance(leaf[0], torch.Tensor | float):
                single, double = (torch.as_tensor(value).detach().to(F64) for value in leaf)
                assert single.shape == double.shape
                error = torch.where(single == double, 0.0, (single - double).abs())  # infinities are equal
                limit = LOOSER.get(name, AGREE)
                if error.numel():
                    found = float(error.max() / double.abs().max().clamp(min=1e-3))
                    assert found <= limit, name
                    worst[limit] = max(worst[limit], found)
    measured.count("functions whose float32 agrees with their float64", len(names))
    measured.at_most("largest difference of float32 from float64, relative", worst[AGREE], AGREE)


def in_a_process_of_its_own(script, *arguments):
    """What a script of this folder prints: it writes to the memory of torch."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE.parent)])}
    command = [sys.executable, str(HERE / script), *arguments]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if "UnavailableError: " in found.stderr:
        pytest.skip("pretended devices: " + found.stderr.rpartition("UnavailableError: ")[2].strip())
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_every_call_gives_on_a_pretended_device_what_it_gives_on_the_cpu(kind, measured):
    """With that default device and without: no mixed devices, no float64 on the device, results where the inputs are."""
    found = json.loads(in_a_process_of_its_own("devices.py", "calls", kind))
    assert {name: words for name, words in found.items() if any(words)} == {}
    measured.count(
        "calls on a pretended CUDA and a pretended MPS device, with and without that default device", 2 * len(found)
    )


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_chain_waits_for_its_device_only_where_it_looks_for_divergence(kind, measured):
    """Once in sixteen steps, however many calls of the score a step makes."""
    found = json.loads(in_a_process_of_its_own("devices.py", "waits", kind))
    measured.at_most(
        "waits of the host for a pretended device, a step of a chain", max(found.values()), 1 / CHECK_EVERY
    )


def test_the_pretended_devices_refuse_what_real_ones_do():
    in_a_process_of_its_own("device_emulator.py")
