"""Bad input is refused at the call, in a message with the parameter, the value, the rule and a remedy that works; what is no mistake is
listed."""

import linecache
import math
import re
import traceback
from functools import partial
from inspect import signature
from itertools import product

import numpy as np
import pytest
import torch

from reliability.calls import CALLS, F32, NAMESPACE, World, leaves, run
from reliability.substitutes import COUNTS, NUMBERS, OTHERS, RIGHT, SPREADS, matching, substitutes
from toyscore import data, plotting, widgets
from toyscore.distributions import GaussianMixture, empirical, two_modes
from toyscore.losses import (
    at_random_sigma,
    denoising_score_matching,
    implicit_score_matching,
    perturbed,
    sliced_score_matching,
)
from toyscore.metrics import fisher_divergence, mmd2
from toyscore.models import EMA, MLP, NCSN
from toyscore.models.adapters import sigma_clock
from toyscore.noise import check_range, ddpm_levels, geometric, karras, levels, linear_betas, log_normal, log_uniform
from toyscore.samplers import ancestral_step, annealed_langevin, between, metropolis_langevin, tweedie
from toyscore.sde import VE, VP, SubVP, transition, uniform_times
from toyscore.sde.processes import LATEST
from toyscore.train import fit

RENAMED = {  # a function, a parameter, and what messages call it; or they report not the number, but its dtype
    r".*check_count|plotting.*": {"value": "n", "n_arrows": "n"},
    r".*check_positive": {"value": "step"},
    r".*check_range": {"low": "sigma_min", "high": "sigma_max"},
    r".*heun_step": {"s": "t"},
    r".*of_mixture": {"y": "values"},
    r".*weight_blindness": {"sigmas": "sigma"},
    r".*Seed": {"value": "seed"},
    r".*of_class": {"label": "label"},
    r".*Mixture.*": {"covariances": "covariances"},
}


def named(error, name, key, kind, value):
    """Whether a message says what is wrong, in some words: the number, or the parameter, or the dtype or shape that was given."""
    given = [f"{value}", f"{value:g}"] if kind in NUMBERS | COUNTS else [key]
    given += [other[key] for pattern, other in RENAMED.items() if key in other and re.fullmatch(pattern, name)]
    if isinstance(value, torch.Tensor):
        given += [str(value.dtype), str(list(value.shape))]
    found = any(re.search(rf"(?<![\w.]){re.escape(words)}(?!\w)", str(error)) for words in given)
    return found and re.search("[;:] ", str(error)) and len(str(error).split()) >= 4


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
    """Do what messages advise about a parameter, in turn, until the call passes: what was advised; None where it is of no use."""
    ways = []
    while error is not None:
        message = str(error)
        advice = re.sub(rf"\b{key}\b", "key", message.rpartition("; ")[2])
        way = next((way for way in ADVICE if re.fullmatch(way, advice)), None)
        number = isinstance(arguments[key], int | float)
        if way is None or not re.search(rf"\b{key}\b", message) or (advice.startswith("pass 0") and not number):
            break
        if len(ways) > 4:
            return None
        ways.append(way)
        at = sum(int(i) for i in re.findall(r"\[(\d+)\] = ", message)[:1])
        better = eval(re.sub(way, ADVICE[way], advice), NAMESPACE | arguments | {"key": arguments[key], "at": at})
        arguments = arguments | {key: better}
        error, _ = answer(name, arguments)
    return ways


def answer(name, arguments):
    """How a call was refused, or None; and whether what came back is finite."""
    try:
        found = leaves(run(name, World(F32), arguments))
    except (TypeError, ValueError) as error:
        return error, False
    numbers = [torch.as_tensor(leaf) for leaf in found if isinstance(leaf, float | torch.Tensor)]
    return None, all(bool(torch.isfinite(leaf).all()) for leaf in numbers)


@pytest.mark.filterwarnings("ignore:sigma_1:UserWarning")  # what is advised may be warned of
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_put_in_place_of_an_argument_is_refused_with_a_remedy_or_no_mistake(every):
    """Each remedy that is one of ``ADVICE`` is followed: of every call and parameter, or once for each line that refuses."""
    faults, seen, used = {}, set(), []
    for name in CALLS:
        for key, kind, value, arguments in substitutes(name):
            error, finite = answer(name, arguments)
            right, spreads = (matching(rules, name, key, kind) for rules in (RIGHT, SPREADS))
            used += [right, spreads]
            fault = None
            if error is None:
                if not (right or spreads):
                    fault = "is taken"
                elif finite == bool(spreads):
                    fault = "comes back as something " + ("finite" if finite else "not finite")
            elif right or isinstance(error, np.linalg.LinAlgError):
                fault = f"is refused: {error}"
            else:
                last = traceback.extract_tb(error.__traceback__, -1)[0]
                line = linecache.getline(last.filename, last.lineno).lstrip()
                own = "/toyscore/" in last.filename and line.startswith("raise")  # not by Python or torch
                shape = kind if isinstance(value, list | torch.Tensor) else ""  # any number is mended to the same
                place = (name, key, shape) if every else (last.filename, last.lineno)
                place += (str(error).rpartition("; ")[2],)
                if not named(error, name, key, kind, value) and (own or kind not in OTHERS):
                    fault = f"is not named: {error}"
                elif place not in seen:
                    ways = follow(name, key, arguments, error)
                    fault = f"is not mended: {error}" if ways is None else None
                    used += ways or []
                seen.add(place)
            if fault:
                faults[f"{name}({key} = {kind})"] = fault
    assert faults == {}
    assert [rule for rule in (*RIGHT, *SPREADS, *ADVICE) if rule not in used] == []  # of what is refused by now
    assert len(used) > 10000


# functions of two numbers, the lower first
ENDS = {
    "geometric": lambda sigma_min, sigma_max: geometric(sigma_max, sigma_min, 3),
    "karras": lambda sigma_min, sigma_max: karras(sigma_max, sigma_min, 3),
    "log_uniform": log_uniform,
    "log_normal": lambda sigma_min, sigma_max: log_normal(sigma_min, sigma_max),
    "check_range": lambda low, high: check_range(low, high, ("low", "high")),
    "VE": VE,
    "VP": VP,
    "SubVP": SubVP,
    "sigma_clock": sigma_clock,
    "uniform_times": lambda t_min, t_max: uniform_times(10, t_min=t_min, t_max=t_max),
    "transition": lambda s, t: transition(VP(), s, t),
    "ancestral_step": lambda s, t: ancestral_step(VP(), P.score, X, t, s),
}


def mended(function, given, message):
    """The arguments after what a message advises at its end, or None where it can only say where to look."""
    remedy = message.rpartition("; ")[2]
    if remedy == "look at where it comes from":
        return None
    if remedy == "swap them":
        first, second = re.findall(r"(\w+) = ", message)[:2]
        return given | {first: given[second], second: given[first]}
    new = {key: float(value) for key, value in re.findall(r"(\w+)=([-+.\w]+)", remedy)}
    assert new and set(new) <= set(signature(function).parameters), remedy  # noqa: PT018
    return given | new


@pytest.mark.parametrize("name", ENDS)
def test_two_ends_are_mended(name):
    """Equal, upside down, negative, zero, NaN, infinite, in every pair: the advice fits this very pair."""
    function, refused = ENDS[name], 0
    for ends in product((-1.0, 0.0, 0.5, 1.0, 1.2, 3.0, 1000.0, math.inf, math.nan), repeat=2):
        if name in ("transition", "ancestral_step") and not all(0 < end <= LATEST for end in ends):
            continue  # one of them is no time, see below, or without noise to step back from
        given = dict(zip(signature(function).parameters, ends, strict=False))
        try:
            function(**given)
        except ValueError as error:
            refused += 1
            better = mended(function, given, str(error))
            assert better != given
            assert better or not all(map(math.isfinite, ends))
            function(**better or {}) if better else None
    assert refused > 2


@pytest.mark.parametrize("process", [VE(), VP(), SubVP()])
@pytest.mark.parametrize(
    ("t", "words", "better"),
    [
        (-0.1, "pass 0 for the data", 0.0),
        (1.7, "pass at most 1.5", 1.5),
        (500.0, "divide steps by their number", 0.5),
    ],
)
def test_a_time_out_of_range_is_mended(process, t, words, better):
    """By what is advised for this very time, as a number, in a tensor and among the times of a chain."""
    for bad in (t, torch.tensor([0.5, t])):
        with pytest.raises(ValueError, match=rf"^t = {t:g}: times run from 0 .* to 1 .*; {words}$"):
            process.marginal(bad)
    process.marginal(better)
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


FEWER = "n_levels = 100000: .*; pass fewer"
NEARER = "float32 does not hold all levels; pass ends nearer to 1"
LARGER = "a larger one, e.g. rho=7.0"
HELD = float(np.float32(0.001))


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
        (lambda low: VE(low).time(0.001), (0.01,), rf"below sigma_min = 0.01, .* VE\(sigma_min={HELD}\)$", (HELD,)),
        (VE().time, (0.0,), "sigma = 0 is below sigma_min = 0.01, .*; pass at least that$", (0.01,)),
    ],
)
def test_levels_that_cannot_be_held_are_mended(call, given, words, better):
    with pytest.raises(ValueError, match=words):
        call(*given)
    call(*better)


NAN = float("nan")
X, MEANS, LEVELS = torch.zeros(3, 2), torch.zeros(3, 2), [1.0, 0.1]
P, CLOUD, AX = two_modes(), empirical(torch.zeros(4, 2)), plotting.canvas()[1]
PIXELS, PICTURES = np.zeros((3, 1, 8, 8), np.uint8), torch.zeros(3, 1, 8, 8)
SHEAR = torch.tensor([[[1.0, 0.5], [0.2, 1.0]]])
INDEFINITE = torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])


class Arrays:
    """A distribution that draws by NumPy."""

    def sample(self, n, *, generator=None):
        return np.zeros((n, 2), np.float32)


def train(**options):
    given = {"model": MLP(width=4), "data": P, "loss": implicit_score_matching, "n_steps": 2, "batch_size": 4}
    return list(fit(**given | options))


def state():
    model = MLP(width=4)
    return next(fit(model, P, implicit_score_matching, n_steps=2, batch_size=4)).state()


def anneal(sigmas=(1.0, 0.5), **options):
    return list(annealed_langevin(P.score, X, sigmas, **{"step_size": 0.1, "n_steps_each": 2} | options))


def reduced(*args, **options):
    return implicit_score_matching(*args).mean()


def detached(*args, **options):
    return implicit_score_matching(*args).detach()


# what no signature says, and what the first checks that everything calls say: words of the message, in this order, and the call
VALUES = {
    "covariances[0] differs from its transpose by 0.3: pass (C + C.mT) / 2": lambda: GaussianMixture(MEANS, SHEAR),
    "covariances[0] is degenerate sigma = 0: pass sigma > 0": lambda: GaussianMixture(MEANS, 0.0).score(
        X, torch.tensor([1.0, 0.0, 1.0])
    ),
    "dims = []: different coordinates from 0 to 1; pass": lambda: P.marginal([]),
    "dims = [2]: from 0 to 1": lambda: P.marginal([2]),
    "dims = [0, 0]: different": lambda: P.marginal([0, 0]),
    "dims = 0: must name": lambda: P.marginal(0),
    "dims = [0, 1] every coordinate use log_prob": lambda: P.condition([0, 1], [0.0, 0.0]),
    "sigma has shape [2]: one noise level; pass": lambda: P.perturb(torch.ones(2)),
    "sigma = 1e+30: square must be finite pass": lambda: P.score(X, 1e30),
    "sigma = 1.0000000200408773e+20: square must be finite pass": lambda: P.score(X, torch.full((3,), 1e20)),
    "sigma square 0.0 torch.float32: normal pass": lambda: CLOUD.score(X, 1e-24),
    "n_levels = 1 sigma_max = 1.0 pass n_levels >= 2": lambda: geometric(1.0, 0.1, 1),
    "clamp = (1.0, 0.0): low < high; pass": lambda: anneal(clamp=(1.0, 0.0)),
    "clamp = 1.0: (low, high) pass": lambda: anneal(clamp=1.0),
    "clamp = ('a', 'b'): (low, high) pass": lambda: anneal(clamp=("a", "b")),
    "x has 3 rows: n = 2 multiple; pass 2 rows per path": lambda: between(2)(X, None),
    "the score returned shape [3, 1] for x of shape [3, 2]: check": lambda: tweedie(lambda x, s: x[:, :1], X, 1.0),
    "log_prob returned shape []: [3]; do not reduce": lambda: list(
        metropolis_langevin(lambda x, s: P.log_prob(x, s).sum(), P.score, X, step_size=0.1, n_steps=2)
    ),
    "weight(sigma) has shape [3, 3]: number or [3]; do not": lambda: denoising_score_matching(
        P.score, X, torch.ones(3), weight=lambda s: s[:, None]
    ),
    "loss = sliced_score_matching: clean x pass perturbed(loss)": lambda: at_random_sigma(
        partial(sliced_score_matching, n_slices=2), levels(LEVELS)
    ),
    "loss = denoising_score_matching: x from q_sigma pass it as it is": lambda: perturbed(denoising_score_matching),
    "the clouds have 3 and 1 points: 2 are needed in each; draw more": lambda: mmd2(X, X[:1]),
    "image_size = 9: even halves; pad or crop": lambda: NCSN(1, 9, 4, LEVELS),
    "model has no trainable parameter pass a network": lambda: train(model=torch.nn.Identity()),
    "batch_size = 4 n_shards = 3: pass batch_size=6": lambda: train(n_shards=3),
    "autocast = torch.float16: torch.bfloat16 or None; scaled": lambda: train(autocast=torch.float16),
    "loss returned shape [] for 4 examples: [4]; do not reduce": lambda: train(loss=reduced),
    "loss returned float for 4 examples": lambda: train(loss=lambda *args, **options: 1.0),
    "does not depend on the model's parameters: do not detach": lambda: train(loss=detached),
    "the state lacks model, optimizer, recipe, step: pass": lambda: train(state={}),
    "seed = 1 state was made with seed = 0 pass the same": lambda: train(seed=1, state=state()),
    "clip = 1.0, clip = None: same recipe; pass the same": lambda: train(clip=1.0, state=state()),
    "layers.0.weight shape [4, 2] in the state, [5, 2] in the model: build": lambda: train(
        model=MLP(width=5), state=state()
    ),
    "torch.float32, in the state, torch.float64, in the model: build the same": lambda: train(
        model=MLP(width=4).double(), state=state()
    ),
    "values has shape [0, 1, 8, 8]: no image; pass": lambda: data.Images(PIXELS[:0]),
    "values reach 20: n_levels = 17 0 to 16; pass": lambda: data.Images(PIXELS + 20, n_levels=17),
    "n_levels = 300: 8 bits, 256; requantise": lambda: data.Images(PIXELS, n_levels=300),
    "no labels: use sample, or pass labels": lambda: data.Images(PIXELS).sample_labelled(2),
    "photos is empty: pass at least one": lambda: data.Crops([]),
    "photos[0] has shape [1, 8, 8]: crop of side 9; lower size": lambda: data.Crops([PIXELS[0]], 9),
    "x has values from -1 to -1: [0, 1]; map [-1, 1] there by (x + 1) / 2": lambda: data.images(PICTURES - 1),
    "log_prob returned shape [16, 2] for 16 points: [B]; pass e.g. mixture.log_prob": lambda: plotting.density(
        AX, P.score, n=4
    ),
    "the values of plain have shape [2, 4]: [n_seeds, 3]; stack": lambda: plotting.curves(
        AX, torch.arange(3.0), {"plain": torch.ones(2, 4)}
    ),
    "path ends in '.mp4': .gif; rename chains.mp4": lambda: plotting.save_gif([], "chains.mp4"),
    "no frame: consumed already; pass them anew": lambda: plotting.save_gif([], "x.gif"),
    "fps = 200: 50 frames; pass": lambda: plotting.save_gif([], "x.gif", fps=200),
    "n_colours = 1: 2 to 256; pass": lambda: plotting.save_gif([], "x.gif", n_colours=1),
    "path ends in '.bmp': .png, .svg or .pdf; rename x.bmp": lambda: plotting.save(AX.figure, "x.bmp"),
    "path ends in '.gif': .png; rename x.gif": lambda: plotting.save_mosaic(PIXELS[0, 0], "x.gif", ""),
    "a panel without controls: pass e.g. sigma=Slider": lambda: widgets.panel(AX.figure, print),
    "a slider at 0.25 steps of 0.1 from 0.0: nearest is 0.2; pass": lambda: widgets.Slider(0.0, 1.0, 0.25, step=0.1),
}
TYPES = {
    "score is GaussianMixture: callable pass mixture.score": lambda: implicit_score_matching(P, X),
    "distribution is method: score(x, sigma); pass the distribution": lambda: fisher_divergence(P.score, P.score, X),
    "data is Tensor: sample wrap empirical": lambda: train(data=X),
    "data.sample returned ndarray: tensor convert it with torch.as_tensor": lambda: train(data=Arrays()),
    "missing a required argument: 'sigma' pass at_random_sigma(loss,": lambda: train(loss=denoising_score_matching),
    "unexpected keyword argument 'generator' where it needs sigma": lambda: train(loss=lambda model, x: x),
    "model is method: torch.nn.Module; pass": lambda: train(model=P.score),
    "model is function: torch.nn.Module; pass": lambda: EMA(detached),
    "values is float64 of shape [3, 1, 8, 8]: uint8 array [N, C, H, W]; data.images": lambda: data.Images(PIXELS * 1.0),
    "values is uint8 of shape [3, 8, 8]: [N, C, H, W]; values[:, None]": lambda: data.Images(PIXELS[:, 0]),
    "photos[0] is float64 uint8 [C, H, W]; convert": lambda: data.Crops([PIXELS[0] * 1.0], 4),
    "sigma is float: a control is a Slider, Choice, Toggle or Seed; pass one": lambda: widgets.panel(
        AX.figure, print, sigma=1.0
    ),
}


@pytest.mark.parametrize("words", [*VALUES, *TYPES])
def test_what_no_signature_says_is_named(words):
    with pytest.raises(TypeError if words in TYPES else ValueError) as caught:
        (VALUES | TYPES)[words]()
    message = str(caught.value)
    position = 0
    for word in words.split():  # each word, in this order
        found = message.find(word.rstrip(":;,") if message.find(word, position) < 0 else word, position)
        assert found >= 0, f"{word!r} is missing from {message!r}"
        position = found


def test_good_input_still_passes():
    """What the table changes is good as it is."""
    assert (len(train()), len(train(state=state())), len(anneal())) == (2, 1, 4)
