"""Each public function leaves shape, dtype, device, inputs and every global random state as they were, on the CPU and on a pretended
device, and keeps its digits under what networks are run with: autocast, and matrix products of fewer bits."""

import os
import random
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import F64, seeded
from reliability.calls import CALLS, EXEMPT, F32, World, leaves, public, run, tensors
from runs import in_fresh_process
from toyscore import metrics, models
from toyscore._precision import exact
from toyscore.distributions import asymmetric, two_modes
from toyscore.losses import explicit_score_matching, implicit_score_matching
from toyscore.samplers.chains import CHECK_EVERY

MODULES = sorted({name.partition(".")[0] for name in CALLS})
QUIET = {  # take a generator so that all are called alike, and need none
    *("losses.explicit_score_matching", "losses.implicit_score_matching", "losses.implicit_score_matching (autograd)"),
    *("operators.source", "samplers.heun_step"),
}
LOOSER = {"samplers.adaptive_flow": 1e-3}  # of float32 and float64: the tolerance it is called with
BACKWARD = ("train.fit", "diagnostics.gradient_variance")  # whose backward pass is the network's
NETWORKS = (
    models.MLP,
    models.NoiseClassifier,
    models.NCSN,
    models.CompactNCSN,
    models.ContinuousNCSN,
    metrics.Features,
)
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot"}


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


def outcome(name, dtype, way):
    """What a call returned in a context made by ``way``, whether it drew as it should, and in words what it did that it must not."""
    call, w = CALLS[name], World(dtype)
    with torch.random.fork_rng(devices=[]):  # networks draw their weights from torch's own generator
        torch.manual_seed(7)
        arguments = call.arguments(w)
        kept = tensors([value for key, value in arguments.items() if key not in call.changes])
        before = [(t.detach().clone(), t._version, t.requires_grad, t.grad) for t in kept]
        fresh = w["generator"].get_state()
        with way() as rounded:
            was = state()
            found = list(leaves(run(name, w, arguments)))
            now = state()
    drew = not torch.equal(w["generator"].get_state(), fresh)
    given = arguments.get("generator") is not None or "generator" in call.use
    faults = [f"changes {key}" for key in was if was[key] != now[key]]
    if call.default:
        faults = [words for words in faults if words != "changes torch's generator"]
    for t, (value, version, grad_wanted, grad) in zip(kept, before, strict=True):
        if not torch.equal(t, value) or (t._version, t.requires_grad, t.grad) != (version, grad_wanted, grad):
            faults.append(f"changes an input of shape {list(t.shape)}")
    if drew != (given and name not in QUIET):
        faults.append("draws from its generator" if drew else "draws nothing from its generator")
    results = tensors(found)
    if not {t.dtype for t in results if t.is_floating_point()} <= {call.dtype or dtype}:
        faults.append("another dtype")
    if not all(bool(torch.isfinite(t).all()) for t in results):
        faults.append("not finite")
    shapes = [tuple(t.shape) for t in results]
    if call.promise and shapes != call.shapes(len(results)):
        faults.append(f"shapes {shapes}")
    return found, drew, faults + [f"{product} of fewer bits" for product in rounded]


def faults(name):
    """What a call does that it must not, in words."""
    ways = ((F32, watched), (F32, watched if name in BACKWARD else hurried), (F64, watched))
    (one, drew, first), (two, _, second), (double, _, third) = (outcome(name, *way) for way in ways)
    yield from first + second + third
    for a, b in zip(one, two, strict=True):
        same = type(a) is type(b) and (torch.equal(a, b) if isinstance(a, torch.Tensor) else np.array_equal(a, b))
        if not same and name != "plotting.canvas":  # whose artists are new each time
            yield "another result of the same seed, under autocast"
    if not (CALLS[name].default or drew):  # a generator gives other numbers in another dtype
        numbers = [pair for pair in zip(one, double, strict=True) if isinstance(pair[0], torch.Tensor | float)]
        if any(difference(*pair) > LOOSER.get(name, 1e-5) for pair in numbers):
            yield "float32 differs from float64"


def difference(single, double):
    """The largest, relative to the largest number; infinities are equal."""
    single, double = (torch.as_tensor(value).detach().to(F64) for value in (single, double))
    error = torch.where(single == double, 0.0, (single - double).abs())
    return float(error.max() / double.abs().max().clamp(min=1e-3)) if error.numel() else 0.0


class Rounded(TorchDispatchMode):
    """Names the products of float32 that may lose digits where they run, as they would on a device that has TF32."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.overloadpacket.__name__
        if name in PRODUCTS and args[0].dtype == F32 and torch.backends.mkldnn.matmul.fp32_precision != "ieee":
            self.names.add(name)
        return operator(*args, **(kwargs or {}))


@contextmanager
def watched(precision="ieee"):
    """The products that may lose digits; a mode alone makes torch take other ways to some results."""
    mode, before = Rounded(), torch.backends.mkldnn.matmul.fp32_precision
    mode.names = set()
    torch.backends.mkldnn.matmul.fp32_precision = precision
    try:
        with mode:
            yield mode.names
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


@contextmanager
def hurried():
    """As a training script asks for: 16 bits in products, by autocast and by the backend."""
    with torch.autocast("cpu", dtype=torch.bfloat16), watched("bf16") as names:
        yield names


def test_every_public_function_is_called_or_exempt_with_a_reason():
    """What has no line is called with the arguments that go by its names, so only lines of what is gone can be wrong."""
    called, names = {name.partition(" (")[0] for name in CALLS}, set(public())
    assert sorted(names - called - EXEMPT.keys()) == []
    assert sorted(EXEMPT.keys() - names) == []
    assert sorted(name for name in called - names if not isinstance(CALLS[name].function, type)) == []
    assert called.isdisjoint(EXEMPT)


@pytest.fixture
def exact_networks(monkeypatch):
    """Networks keep their digits here, so that what is left of a difference is the package's own."""
    for network in NETWORKS:
        for method in {"forward", "jvp"} & vars(network).keys():
            monkeypatch.setattr(network, method, exact(getattr(network, method)))


@pytest.mark.usefixtures("exact_networks")
@pytest.mark.parametrize("module", MODULES)
def test_a_call_is_a_pure_function_of_its_inputs_and_its_generator(module):
    """In float32, under autocast and reduced products, too, and float64: shapes and dtypes as promised, finite, no input and no global
    state changed, drawn from the generator that is given and no other, the same for the same seed, and float64's numbers where nothing
    is drawn."""
    found = {name: list(faults(name)) for name in CALLS if name.startswith(f"{module}.")}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("which", ["law", pytest.param("sweep", marks=pytest.mark.slow)])
def test_a_call_gives_on_a_pretended_device_what_it_gives_on_the_cpu(which):
    """Calls that differ in kind, or all, with that default device and without: no mixed devices, no float64 on the device, results
    where the inputs are; and a chain waits for its device once in sixteen steps, where it looks for divergence. What is pretended refuses
    what real devices refuse, see check_refusals."""
    found = in_fresh_process(Path(__file__).with_name("devices.py"), which)  # the device is registered for good
    assert {name: words for name, words in found["calls"].items() if any(words)} == {}
    assert {name: waits for name, waits in found["waits"].items() if waits > 1 / CHECK_EVERY} == {}


def test_networks_stay_in_the_precision_that_is_asked_for():
    """What the tests above rely on: the products of a network are seen, and rounded; and what was set is set again afterwards"""
    w = World(F32)
    with hurried() as rounded:
        score = w["net"](w["x"], 0.5)
        asymmetric().score(w["plane"])
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
        assert torch.is_autocast_enabled("cpu")
    assert rounded or not torch.equal(score, w["net"](w["x"], 0.5))


def test_a_level_that_is_kept_under_autocast_serves_afterwards():
    p, q = asymmetric(), asymmetric()
    x = p.sample(20, generator=seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p.score(x, 0.7)
    assert torch.equal(p.score(x, 0.7), q.score(x, 0.7))


def test_the_truth_has_no_error_against_itself():
    """Exactly none, under autocast, too; and the implicit loss of the truth is J = F + constant with F = 0"""
    p = two_modes()
    x = p.sample(50, generator=seeded())
    plain = implicit_score_matching(p.score, x, 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(explicit_score_matching(p.score, x, 0.3, target=p.score).abs().max()) == 0
        assert torch.equal(implicit_score_matching(p.score, x, 0.0), plain)
        assert len(p.sample(1000, generator=seeded()).unique()) > 1900  # of 2,000 numbers
