"""A remedy is right: what a message advises is done, and the call passes."""

import ast
import math
import re
import traceback
from inspect import signature
from itertools import product

import pytest
import torch

from reliability.calls import CALLS, F32, NAMESPACE, World, run
from reliability.substitutes import refusals, substitutes
from toyscore.distributions import two_modes
from toyscore.models.adapters import sigma_clock
from toyscore.noise import (
    check_range,
    check_sigmas,
    ddpm_levels,
    geometric,
    karras,
    linear_betas,
    log_normal,
    log_uniform,
)
from toyscore.samplers import ancestral_step
from toyscore.sde import VE, VP, SubVP, geometric_times, karras_times, level_times, transition, uniform_times
from toyscore.sde.processes import LATEST

P = two_modes()
X = torch.zeros(3, 2)
NUMBERS = (-1.0, 0.0, 0.5, 1.0, 1.2, 3.0, 1000.0, math.inf, math.nan)

# the end of a message, where a parameter is called key: what to put there, in Python; "at" is an index that the message names
ADVICE = {
    r"pass e\.g\. key=([-\w.]+)(, \w+=\S+)?": r"\1",
    r"pass e\.g\. ((?:geometric|uniform_times|linear_betas)\(.*|\(x\[:, 0\].*|[-\de.]+|\w+_score_matching)": r"\1",
    r"pass (0|torch\.Generator\(\)\.manual_seed\(0\))(?: for .*)?": r"\1",
    r"convert (?:it|key) with ((?:key|torch)\S*\))": r"\1",
    r"convert it with (\.to\(.*\))": r"key\1",
    r"pass key > 0.*": "0.1 if isinstance(key, float | int) else 0 * key + 0.1",
    r"leave it out": "[float(v) for i, v in enumerate(key) if i != at]",
    r"sort them from large to small and drop repetitions": "sorted({float(v) for v in key}, reverse=True)",
    r"turn them round": "torch.as_tensor(key).flip(0)",
    r"pass a float|pass a number from 0.0 to 1.0": "0.7",
}


def follow(name, key, arguments, error):
    """Do what messages advise about a parameter, in turn, until the call passes: how often that was; None where advice is of no use."""
    seen = []
    while True:
        message = str(error)
        advice = re.sub(rf"\b{key}\b", "key", message.rpartition("; ")[2])
        way = next((way for way in ADVICE if re.fullmatch(way, advice)), None)
        number = isinstance(arguments[key], int | float)
        if way is None or not re.search(rf"\b{key}\b", message) or (advice.startswith("pass 0") and not number):
            return len(seen)
        if len(seen) > 4:
            return None
        seen.append(message)
        at = [int(i) for i in re.findall(r"\[(\d+)\] = ", message)[:1]]
        given = NAMESPACE | arguments | {"key": arguments[key], "at": sum(at)}
        arguments = arguments | {key: eval(re.sub(way, ADVICE[way], advice), given)}
        try:
            run(name, World(F32), arguments)
            return len(seen)
        except (TypeError, ValueError) as other:
            error = other


@pytest.mark.filterwarnings("ignore:sigma_1:UserWarning")  # what is advised may be warned of
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_advised_passes(every):
    """Whatever is put in the place of an argument, where the remedy is one of ``ADVICE``: of each line that refuses and each advice one."""
    done, seen = {}, set()
    for name in CALLS:
        for (key, kind, _, error, _), (*_, arguments) in zip(refusals(name), substitutes(name), strict=True):
            if error is not None:
                place = traceback.extract_tb(error.__traceback__)[-1]
                this = (place.filename, place.lineno, str(error).rpartition("; ")[2])
                if every or this not in seen:
                    done[name, key, kind, str(error)] = follow(name, key, arguments, error)
                seen.add(this)
    assert [case for case, steps in done.items() if steps is None] == []
    assert sum(steps > 0 for steps in done.values()) > (2500 if every else 150)


def mended(call, given, message):
    """The arguments after what a message advises at its end, or None where it can only say where to look"""
    remedy = message.rsplit("; ", 1)[1]
    if remedy == "look at where it comes from":
        return None
    if remedy == "swap them":
        first, second = re.findall(r"(\w+) = ", message)[:2]
        return given | {first: given[second], second: given[first]}
    new = {key: float(value) for key, value in re.findall(r"(\w+)=([-+.\w]+)", remedy)}
    assert new, f"nothing to do in {remedy!r}"
    assert set(new) <= set(signature(call).parameters), remedy
    return given | new


def passes_once_mended(call, given):
    """Whether the call was refused; what is advised is done, and it must pass"""
    try:
        call(**given)
        return False
    except ValueError as error:
        better = mended(call, given, str(error))
    if better is None:
        assert not all(math.isfinite(value) for value in given.values()), given
    else:
        assert better != given
        call(**better)
    return True


ENDS = {  # each with two numbers, the lower first
    "geometric": (lambda sigma_min, sigma_max: geometric(sigma_max, sigma_min, 3), ("sigma_min", "sigma_max")),
    "karras": (lambda sigma_min, sigma_max: karras(sigma_max, sigma_min, 3), ("sigma_min", "sigma_max")),
    "log_uniform": (log_uniform, ("sigma_min", "sigma_max")),
    "log_normal": (log_normal, ("sigma_min", "sigma_max")),
    "check_range": (check_range, ("low", "high")),
    "VE": (VE, ("sigma_min", "sigma_max")),
    "VP": (VP, ("beta_min", "beta_max")),
    "SubVP": (SubVP, ("beta_min", "beta_max")),
    "sigma_clock": (sigma_clock, ("sigma_min", "sigma_max")),
    "uniform_times": (lambda t_min, t_max: uniform_times(10, t_min=t_min, t_max=t_max), ("t_min", "t_max")),
    "transition": (lambda s, t: transition(VP(), s, t), ("s", "t")),
    "ancestral_step": (lambda s, t: ancestral_step(VP(), P.score, X, t, s), ("s", "t")),
}


@pytest.mark.parametrize("name", ENDS)
def test_two_ends_are_mended(name):
    """Equal, upside down, negative, zero, NaN, infinite, in every pair: the advice fits this very pair"""
    call, names = ENDS[name]
    if name == "check_range":
        call = lambda low, high: check_range(low, high, ("low", "high"))  # noqa: E731
    refused = 0
    for ends in product(NUMBERS, repeat=2):
        if name in ("transition", "ancestral_step") and not all(0 < end <= LATEST for end in ends):
            continue  # one of them is no time, see below, or without noise to step back from
        refused += passes_once_mended(call, dict(zip(names, ends, strict=True)))
    assert refused > 2


@pytest.mark.parametrize("process", [VE(), VP(), SubVP()])
@pytest.mark.parametrize(
    ("t", "words"),
    [(-0.1, "pass 0 for the data"), (1.7, "pass at most 1.5"), (500.0, "divide steps by their number")],
)
def test_a_time_out_of_range_is_mended(process, t, words):
    """By what is advised for this very time, as a number, in a tensor and among the times of a chain"""
    mend = {"pass 0 for the data": 0.0, "pass at most 1.5": 1.5, "divide steps by their number": t / 1000}[words]
    for bad in (t, torch.tensor([0.5, t])):
        with pytest.raises(ValueError, match=rf"^t = {t:g}: times run from 0 .* to 1 .*; {words}$"):
            process.marginal(bad)
    process.marginal(mend)
    with pytest.raises(ValueError, match=f"; {words}$"):
        transition(process, t, 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_has_no_remedy_but_where_it_comes_from(bad):
    for call in (
        lambda: P.score(X, bad),
        lambda: P.score(X, torch.tensor([1.0, bad, 1.0])),
        lambda: VP().marginal(bad),
        lambda: VP().time(bad),
        lambda: transition(VP(), 0.5, bad),
        lambda: transition(VP(), bad, 0.5),
    ):
        with pytest.raises(ValueError, match=r"-?(nan|inf): .*; look at where it comes from$"):
            call()


def test_levels_that_a_process_does_not_have_are_mended():
    with pytest.raises(
        ValueError, match=r"sigma = 0.001 is below sigma_min = 0.01, .* or VE\(sigma_min=(.*)\)$"
    ) as caught:
        VE().time(0.001)
    call = ast.literal_eval(re.search(r"sigma_min=([^)]*)\)", str(caught.value))[1])
    VE(sigma_min=call).time(0.001)
    with pytest.raises(ValueError, match=r"sigma = 0 is below sigma_min = 0.01, .*; pass at least that$"):
        VE().time(0.0)
    with pytest.raises(ValueError, match=r"t_min = 0.0 has no noise: .*; pass t_min > 0, e.g. 1e-3$"):
        geometric_times(VP(), 5, t_min=0.0)
    karras_times(VP(), 5, t_min=1e-3)
    level_times(VE(), [1.0, 0.01])


@pytest.mark.parametrize("levels", [[1.0, 0.0], [1.0, math.nan], [0.1, 1.0, 1.0], [math.inf, 1.0], [1.0, -1.0]])
def test_levels_are_mended(levels):
    """One is left out, or all are sorted from large to small and repetitions dropped"""
    with pytest.raises(ValueError, match="sigmas") as caught:
        check_sigmas(levels)
    message = str(caught.value)
    if message.endswith("; leave it out"):
        levels.pop(int(re.search(r"sigmas\[(\d+)\]", message)[1]))
    else:
        assert message.endswith("; sort them from large to small and drop repetitions")
        levels = sorted(set(levels), reverse=True)
    check_sigmas(levels)


FEWER = "n_levels = 100000: .*; pass fewer"
NEARER = "float32 does not hold all levels; pass ends nearer to 1"
LARGER = "a larger one, e.g. rho=7.0"


@pytest.mark.parametrize(
    ("call", "given", "words", "better"),
    [
        (geometric, (1.0001, 1.0, 100_000), FEWER, (1.0001, 1.0, 10)),
        (karras, (1.0001, 1.0, 100_000), FEWER, (1.0001, 1.0, 10)),
        (geometric, (1e300, 1.0, 5), NEARER, (1e30, 1.0, 5)),
        (karras, (1.0, 1e-60, 5), NEARER, (1.0, 1e-30, 5)),
        (lambda rho: karras(10.0, 1.0, 5, rho=rho), (1e-3,), LARGER, (7.0,)),
        (lambda rho: karras(0.5, 0.1, 5, rho=rho), (1e-4,), LARGER, (7.0,)),
        (linear_betas, (0.1, 0.1), "DDPM uses 1e-4 and 0.02", (1e-4, 0.02)),
        (ddpm_levels, ((0.1, 1.0),), r"pass betas\[:1\]", ((0.1,),)),
        (geometric, (2.0, 1.0, 1), "pass n_levels >= 2, or equal ends", (2.0, 1.0, 2)),
    ],
)
def test_levels_that_cannot_be_held_are_mended(call, given, words, better):
    with pytest.raises(ValueError, match=words):
        call(*given)
    call(*better)
