"""What is put in the place of each number and each tensor of a call, and where that is no mistake."""

import inspect
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from reliability.calls import CALLS, F32, World, function_of

NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-1": -1, "0": 0}
COUNTS = {"True": True, "1.5": 1.5}  # to Python a truth value is a number; it is no count
WORDS = {"a word": "word", "None": None, "an empty list": []}
NOT_FINITE = "NaN|infinity"

# names, parameter, what is put there, why it is right: each of these is taken, and what comes back is finite
LEGITIMATE = [
    (
        r"noise\.(check_sigmas|annealed_steps|levels)|sde\.level_times|samplers\.annealed_langevin \(a network\)|models\.MLP|"
        r"diagnostics\.annealed_stages|metrics\.(denoising|linear)_losses",
        "sigmas",
        "a list|another dtype",
        "levels are numbers, in a list or a tensor",
    ),
    (r"models\.MLP", "sigmas", "an axis (more|fewer)", "their range counts, not their shape"),
    (r"noise\.ddpm_levels", "betas", "a list|another dtype", "numbers in a list or a tensor"),
    (r"models\.adapters\.ddpm_clock", "alpha_bars", "a list|another dtype", "numbers in a list or a tensor"),
    (r"sde\.check_times|samplers\.adaptive_flow|diagnostics\.affine_law", "times", "a list|another dtype", "numbers"),
    (
        r"distributions\.GaussianMixture",
        "means|covariances|weights",
        "a list",
        "nested numbers take the dtype they meet",
    ),
    (r"distributions\.GaussianMixture \(variances\)", "means", "a list|another dtype", "a mixture's dtype is its own"),
    (
        r"distributions\.GaussianMixture \(variances\)",
        "covariances",
        "0",
        "a degenerate mixture has a density with noise",
    ),
    (r"distributions\.GaussianMixture\.\w+|samplers\.of_mixture", "values|operator|y", "a list", "nested numbers"),
    (r"distributions\.(E|e)mpirical", "points", "another dtype|an axis more", "points of any event in any dtype"),
    (
        r"(?!sde\.(VE|VP|SubVP)\.time).*",
        "sigma",
        "another dtype|an axis fewer",
        "x gives the dtype; 0-d is for all rows",
    ),
    (
        r"distributions\.GaussianMixture\..*|samplers\.(langevin|tweedie)|losses\..*\((autograd|gaussian)\)|operators\.check_sigma|"
        r"diagnostics\.(signal_to_noise|stein_numbers)|sde\.(VP|SubVP)\.time",
        "sigma",
        "integers",
        "whole numbers are noise levels, zero is none",
    ),
    (r"sde\.(VE|VP|SubVP)\.time", "sigma", "another dtype|an axis (more|fewer)", "number by number"),
    (
        r"distributions\.GaussianMixture\.(log_prob|log_responsibilities|score|perturb).*|sde\.(VP|SubVP)\.time.*|plotting\.\w+|"
        r"samplers\.(metropolis_)?langevin.*|diagnostics\.(divergences|exact_fisher.*|eyring_kramers|spectral_gap|slow_modes|"
        r"hop_rate|quadrature|Law\.total_variation)",
        "sigma",
        "0",
        "no noise: the clean density",
    ),
    (r".*(observe|measure|of_mixture|of_measurement.*|diagnostics\.normal_loss)", "noise_std", "0", "no noise"),
    (r"sde\.reverse_drift|samplers\.(reverse_sde|euler_maruyama_step)", "noise", "0", "the probability flow"),
    (r"sde\.reverse_drift", "noise", "-1", "only its square enters the drift"),
    (r"samplers\.ddim(_step)?", "eta", "0", "no noise: DDIM"),
    (r"sde\.(?!transition).*|samplers\.(posterior_mean|heun_step)", "t", "0", "the time of the data"),
    (r"sde\.transition|samplers\..*_step", "s", "0", "the time of the data"),
    (r"sde\.uniform_times", "t_min", "0", "the time of the data"),
    (r"sde\..*", "t", "another dtype|an axis fewer", "x gives the dtype; 0-d is for all rows"),
    (r"sde\.(VE|VP|SubVP)\.drift( \(one time\))?|samplers\.diffuse", "x", "another dtype", "nothing else has a dtype"),
    (r"sde\.(VE|VP|SubVP)\.drift \(one time\)|samplers\.diffuse", "x", "an axis more", "one row of another event"),
    (r"sde\.VE\.drift.*", "x", NOT_FINITE, "the drift is zero whatever x is"),
    (r"samplers\.langevin_step.*", "x", "another dtype", "the score is brought to it"),
    (r"samplers\.langevin_step.*", "grad", "another dtype|integers", "brought to the dtype of x"),
    (r"samplers\.predictor_corrector|samplers\.corrected_step", "n_corrector_steps", "0", "the predictor alone"),
    (r"samplers\.guided", "strength", "-1|0", "away from y, or as without it"),
    (r"samplers\.of_class", "label", "0", "the first class"),
    (r"samplers\.of_class \(.*", "label", "a list|an axis fewer", "one class for each row, or for all"),
    (r"samplers\.of_measurement \(a variance\)", "y", "an axis fewer", "one measurement for all rows"),
    (r"samplers\.rows_of", "mask", "an axis (more|fewer)", "an event of another shape"),
    (r"likelihood\.bits_per_dimension", "log_prob", "integers|another dtype|an axis .*|empty", "number by number"),
    (r"noise\.log_normal", "log_mean", "-1|0", "a logarithm may have any sign"),
    (r"diagnostics\..*_normal_loss|diagnostics\.normal_loss", "codimension", "0|1.5|True", "a number in a formula"),
    (r"diagnostics\.normal_loss", "stiffness", "-1|0", "a score may push outwards, or nowhere"),
    (r"diagnostics\.uniform_cloud", "low|high", "-1|0", "any ends in order"),
    (r"diagnostics\.(hop_rate|measured_variance)", "n_discard", "0", "nothing is discarded"),
    (r"diagnostics\.matched_norms_law", "n_empty", "0", "no empty coordinate"),
    (r"diagnostics\.relaxed_variance", "start", "0", "a chain may start at a point"),
    (
        r"diagnostics\.(\w+_variance|check_stable|stability_bound)",
        "variance",
        "another dtype|an axis .*",
        "number by number",
    ),
    (r"diagnostics\.(check_stable|stability_bound)", "variance", "a list", "numbers in a list or a tensor"),
    (r"diagnostics\.stein_numbers", "step_size", "0", "exact samples"),
    (
        r"diagnostics\.stein_numbers",
        "centre",
        "a list|integers|another dtype|an axis .*",
        "brought to the dtype and an event of x",
    ),
    (r"diagnostics\.(design_levels.*|distance_quantile|largest_distance)", "points", "another dtype", "any dtype"),
    (r"metrics\.(split_r_hat|rank_normalized_r_hat|effective_sample_size)", "chains", "another dtype", "any dtype"),
    (r"metrics\.linear_losses", "covariance", "another dtype", "any dtype"),
    (r"metrics\.Features\..*|data\.images|plotting\.(samples|mosaic)", "x", "another dtype", "any dtype"),
    (r".*", "seed", "0", "a seed like others"),
    (r"train\.draw_seed", "step|shard", "0", "counted from zero, or of no step"),
    (r"models\.(ContinuousNCSN|NoiseClassifier)", "data_mean", "-1|0", "a mean may have any sign"),
    (r"models\.EMA", "decay", "0", "an average that forgets at once"),
    (r"models\.adapters\.rescaled", "shift", "-1|0", "a shift may have any sign"),
    (r"models\.adapters\.sigma_clock", "sigma_min", "0", "a network for every level"),
    (r"models\.adapters\.sigma_clock", "sigma_max", "inf", "a network for every level"),
    (r"plotting\.\w+", "like", NOT_FINITE + "|an axis .*|empty", "its dtype and device are taken, not its values"),
    (r"plotting\.grid", "like", "another dtype", "the grid takes it"),
    (
        r"plotting\.(arrow_scale|mass_level)",
        "norms|density",
        "integers|another dtype|an axis .*",
        "any dtype and shape",
    ),
    (r"plotting\.(samples|chains)", "x|states", NOT_FINITE, "a diverged chain is drawn where it is finite"),
    (r"plotting\.chains", "states", "another dtype", "any dtype"),
    (r"plotting\.(history|curves)", "x|steps|values", "integers|another dtype", "any numbers"),
    (r"plotting\.history", "values", NOT_FINITE, "left out, and counted in the description"),
    (r"widgets\.Slider.*", "low|value", "0", "a number like others"),
    (r"widgets\.Slider", "low", "-1", "a number like others"),
    (r"widgets\.Slider\.(place|nearest|on_step)", "value", "-1", "next to the lowest, and none of its own"),
    (r"widgets\.Slider\.at", "n", "0", "the lowest value"),
    (r"widgets\.Seed", "value", "0", "a seed like others"),
    (r"operators\.check_batch", "x", NOT_FINITE + "|another dtype|an axis more", "check_finite looks at the values"),
    (
        r"operators\.check_finite",
        "x",
        "another dtype|integers|an axis .*|empty",
        "check_batch looks at dtype and shape",
    ),
]

# names, parameter, what is put there, why: it is taken, and something that is not finite comes back
SPREADS = [
    (
        r"distributions\..*\.(log_prob|log_responsibilities|score|responsibilities|jacobian|nearest)( .*)?",
        "x",
        NOT_FINITE,
        "a chain notices within 16 states",
    ),
    (r"losses\..*", "x", NOT_FINITE, "training notices at once"),
    (
        r"models\..*\.(forward|jvp)( .*)?",
        "x|tangents",
        NOT_FINITE,
        "a chain notices within 16 states, training at once",
    ),
    (r"sde\.(VP|SubVP)\.drift.*|sde\.reverse_drift.*", "x", NOT_FINITE, "a chain notices within 16 states"),
    (
        r"samplers\.(tweedie|posterior_mean|\w+_step.*)",
        "x|grad|step_size",
        NOT_FINITE,
        "a chain notices within 16 states",
    ),
    (r"likelihood\.bits_per_dimension", "log_prob", NOT_FINITE, "number by number"),
    (r"diagnostics\.least_normal_loss", "noise_std", "0", "without noise there is no least"),
]

# names, parameter, why nothing is checked
UNCHECKED = [
    (r"operators\.(?!check_).*", ".*", "arithmetic on what has been checked; it must not cost a chain anything"),
    (r"samplers\.(matched_norms|batch_norms|noise_std)", ".*", "the width of a corrector's step, called by it alone"),
    (
        r"models\.adapters\.(\w+_score|alpha_of)",
        ".*",
        "readings of a network's output, called by an adapter that checks",
    ),
    (r"diagnostics\.Stage", ".*", "propagate checks the stages it is given"),
    (r"operators\.check_sigma", "x", "its number of rows is looked at, and nothing else"),
    (r"samplers\.langevin_step \(.*", "step_size", "anything that multiplies x"),
]


def _listed(rules: list[tuple[str, ...]], *case: str) -> int | None:
    """The number of the first rule for a case."""
    return next((i for i, rule in enumerate(rules) if all(map(re.fullmatch, rule, case))), None)


def legitimate(name: str, key: str, kind: str) -> int | None:
    return _listed(LEGITIMATE, name, key, kind)


def spreads(name: str, key: str, kind: str) -> int | None:
    return _listed(SPREADS, name, key, kind)


def for_tensor(t: torch.Tensor) -> Iterator[tuple[str, Any]]:
    yield "a list", t.tolist()
    if t.is_floating_point():
        yield "integers", t.long()
        yield "another dtype", t.to(torch.float64 if t.dtype == F32 else F32)
        for kind, value in (("NaN", math.nan), ("infinity", math.inf)):
            spoiled = t.detach().clone()
            spoiled.view(-1)[0] = value
            yield kind, spoiled
    yield "an axis more", t[None]
    if t.ndim:
        yield "an axis fewer", t[0]
        yield "empty", t[:0]


def substitutes(name: str) -> Iterator[tuple[str, str, Any, Callable[[], dict[str, Any]]]]:
    """Of a call: a parameter, what is put there in words and as a value, and how the arguments are made."""
    call, w = CALLS[name], World(F32)
    given = call.arguments(w)
    defaults = {key: p.default for key, p in inspect.signature(function_of(name)).parameters.items()}
    for key, value in given.items():
        if key == "self" or isinstance(value, bool) or _listed(UNCHECKED, name, key) is not None:
            continue
        if isinstance(value, int | float):
            kinds = {**NUMBERS, **WORDS, **(COUNTS if isinstance(value, int) else {})}
            if defaults.get(key, 0) is None:
                del kinds["None"]
        elif isinstance(value, torch.Tensor):
            kinds = dict(for_tensor(value))
        else:
            continue
        for kind, other in kinds.items():
            make = (lambda: call.arguments(World(F32))) if call.changes else (lambda: dict(given))
            yield key, kind, other, make
