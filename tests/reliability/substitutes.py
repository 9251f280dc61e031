"""What is put in the place of each argument of a call, by its kind, and where that is no mistake."""

import math
import re
from collections.abc import Iterator
from typing import Any

import torch

from reliability.calls import CALLS, F32, F64, World

NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-1": -1, "0": 0}
COUNTS = {"True": True, "1.5": 1.5}  # to Python a truth value is a number; it is no count
WORDS = {"word": "word", "None": None, "[]": []}
LISTS = {
    "upwards": lambda values: values[::-1],
    "number": lambda values: 1.0,
    "word": lambda values: "word",
    "[]": lambda values: [],
}
OTHERS = {"list", "object", *WORDS}  # of another type at first sight: Python's own message will do
POSITIVE = ("sigma", "sigmas", "times", "t", "betas", "alpha_bars", "variance", "weights", "covariances")


def _rules(table: str) -> dict[str, tuple[re.Pattern[str], ...]]:
    return {line: tuple(map(re.compile, line.split(maxsplit=3)[:3])) for line in table.strip().splitlines()}


def matching(rules: dict[str, tuple[re.Pattern[str], ...]], *case: str) -> str | None:
    """The first rule for a call, a parameter and what is put there."""
    return next((rule for rule, parts in rules.items() if all(map(re.Pattern.fullmatch, parts, case))), None)


# names, parameter, what is put there, why it is no mistake, each a regular expression. "right": the call passes and its result is finite;
# "spreads": it passes, and what comes back is not finite; "unchecked": nothing is tried.
RIGHT = _rules(r"""
.* sigmas|betas|alpha_bars list|dtype numbers in a list or a tensor
.*(MLP|NoiseClassifier|ContinuousNCSN) sigmas deeper|shallower|upwards|number their range counts, not their shape
diagnostics.weight_blindness sigmas|weights upwards in any order
diagnostics.weight_blindness sigmas \[\] none asked for, none told
sde.check_times|samplers.adaptive_flow|diagnostics.affine_law times list|dtype numbers in a list or a tensor
samplers.(ddim.*network.*|probability_flow) times upwards from the data to the noise
distributions.GaussianMixture means|covariances|weights list nested numbers take the dtype they meet
distributions.GaussianMixture.*variances.* means list|dtype a mixture's dtype is its own
distributions.GaussianMixture.* covariances 0 a degenerate mixture has a density with noise
distributions.GaussianMixture\.\w+|samplers.of_mixture values|operator|y list nested numbers
distributions.[Ee]mpirical points dtype|deeper points of any event in any dtype
(?!sde.\w+.time).* sigma dtype|shallower x gives the dtype; 0-d is for all rows
distributions.GaussianMixture\..*|samplers.(langevin|tweedie)|losses.*(autograd|gaussian).* sigma integers zero is none
operators.check_sigma|diagnostics.(signal_to_noise|stein_numbers)|sde.(Sub)?VP.* sigma integers zero is none
sde.(VE|VP|SubVP).time sigma dtype|deeper|shallower number by number
distributions.GaussianMixture.(log_|score|perturb).* sigma 0 no noise: the clean density
sde.(VP|SubVP).time.*|plotting.*|samplers.(metropolis_)?langevin.* sigma 0 no noise: the clean density
diagnostics.(div|exact|eyring|spec|slow|hop|quad|Law).* sigma 0 no noise: the clean density
models.MLP.forward.*unconditional.* sigma .* a network of one level does not look at it
.*(observe|measure|of_mixture|of_measurement.*|diagnostics.normal_loss) noise_std 0 no noise
sde.reverse_drift.*|samplers.(reverse_sde|euler_maruyama_step) noise 0 the probability flow
sde.reverse_drift.* noise -1 only its square enters the drift
samplers.ddim.* eta 0 no noise: DDIM
sde.(?!transition).*|samplers.(posterior_mean|heun_step) t 0 the time of the data
sde.transition|samplers.*_step s 0 the time of the data
sde.uniform_times t_min 0 the time of the data
sde.* t dtype|shallower x gives the dtype; 0-d is for all rows
sde.\w+\.drift.*|samplers.diffuse x dtype nothing else has a dtype
sde.\w+\.drift.*one.time.*|samplers.diffuse x deeper one row of another event
sde.VE.drift.* x NaN|infinity the drift is zero whatever x is
samplers.langevin_step.* x dtype the score is brought to it
samplers.langevin_step.* grad dtype|integers brought to the dtype of x
samplers.(predictor_corrector.*|corrected_step) n_corrector_steps 0 the predictor alone
samplers.guided strength -1|0 away from y, or as without it
samplers.of_class label 0 the first class
samplers.of_class.* label list|shallower one class for each row, or for all
samplers.of_measurement.*variance.* y shallower one measurement for all rows
samplers.rows_of mask deeper|shallower an event of another shape
(losses.(ex|im)plicit.*|samplers.heun_step) generator number taken so that all are called alike; nothing is drawn
likelihood.bits_per_dimension log_prob integers|dtype|deeper|shallower|empty number by number
noise.log_normal log_mean -1|0 a logarithm may have any sign
diagnostics.(least_)?normal_loss codimension 0|1.5|True a number in a formula
diagnostics.normal_loss stiffness -1|0 a score may push outwards, or nowhere
diagnostics.uniform_cloud low|high -1|0 any ends in order
diagnostics.design_ladder overlap .* not used where the number of levels is given
diagnostics.(hop_rate|measured_variance) n_discard 0 nothing is discarded
diagnostics.matched_norms_law n_empty 0 no empty coordinate
diagnostics.relaxed_variance start 0 a chain may start at a point
diagnostics.(\w+_variance|check_stable|stability_bound) variance dtype|deeper|shallower number by number
diagnostics.(check_stable|stability_bound) variance list numbers in a list or a tensor
diagnostics.stein_numbers step_size 0 exact samples
diagnostics.stein_numbers centre list|integers|dtype|deeper|shallower brought to the dtype and an event of x
.*design_levels.*|diagnostics.(distance_quantile|largest_distance) points dtype any dtype
metrics.* chains|covariance dtype any dtype
metrics.Features.*|data.images|plotting.(samples|mosaic) x dtype any dtype
.* seed 0 a seed like others
train.draw_seed step|shard 0 counted from zero, or of no step
models.* data_mean|shift -1|0 a mean or a shift may have any sign
models.EMA decay 0 an average that forgets at once
models.adapters.sigma_clock sigma_min 0 a network for every level
models.adapters.sigma_clock sigma_max inf a network for every level
plotting.* like NaN|infinity|deeper|shallower|empty its dtype and device are taken, not its values
plotting.grid like dtype the grid takes it
plotting.(arrow_scale|mass_level) norms|density integers|dtype|deeper|shallower any dtype and shape
plotting.(samples|chains) x|states NaN|infinity a diverged chain is drawn where it is finite
plotting.(history|curves) x|steps|values integers|dtype any numbers
plotting.chains states dtype any dtype
plotting.history values NaN|infinity left out, and counted in the description
widgets.* low|value 0 a number like others
widgets.Slider low -1 a number like others
widgets.Slider\..* value -1 next to the lowest, and none of its own
widgets.Slider.at n 0 the lowest value
build.build_data part misspelt a toy is drawn anew, whatever the part
operators.check_batch x NaN|infinity|dtype|deeper check_finite looks at the values
operators.check_finite x dtype|integers|deeper|shallower|empty check_batch looks at dtype and shape
""")
SPREADS = _rules(r"""
distributions.* x NaN|infinity a chain notices within 16 states
(losses|models).* x|tangents NaN|infinity training notices at once, a chain within 16 states
sde.((Sub)?VP.drift|reverse_drift).* x NaN|infinity a chain notices within 16 states
samplers.(tweedie|posterior_mean|.*_step.*) x|grad|step_size NaN|infinity a chain notices within 16 states
likelihood.bits_per_dimension log_prob NaN|infinity number by number
diagnostics.least_normal_loss noise_std 0 without noise there is no least
""")
UNCHECKED = _rules(r"""
operators.(?!check_).* .* .* arithmetic on what has been checked; it must not cost a chain anything
operators.check_count minimum .* the rule itself
operators.check_sigma x .* its number of rows is looked at, and nothing else
samplers.(matched_norms|batch_norms|noise_std) .* .* the width of a corrector's step, called by it alone
models.adapters.(\w+_score|alpha_of) .* .* readings of a network's output, called by an adapter that checks
sde.(flow|integrate) sigmas .* adaptive_flow and log_likelihood check the times they are made of
diagnostics.Stage .* .* propagate checks the stages it is given
samplers.langevin_step.*row.* step_size .* anything that multiplies x
""")


def spoiled(values: Any, value: float) -> Any:
    """A tensor or list whose first number is another."""
    if isinstance(values, list):
        return [value, *values[1:]]
    found = values.detach().clone()
    found.view(-1)[0] = value
    return found


def kinds(key: str, value: Any, default: Any, annotation: str) -> Iterator[tuple[str, Any]]:
    """What is put in the place of an argument: in a word, and as a value."""
    floats = (isinstance(value, torch.Tensor) and value.is_floating_point()) or (
        isinstance(value, list) and type(value[0]) is float
    )
    if floats:
        yield "NaN", spoiled(value, math.nan)
        yield "infinity", spoiled(value, math.inf)
        if key in POSITIVE:
            yield "negative", spoiled(value, -1.0)
    if isinstance(value, torch.Tensor):
        yield "list", value.tolist()
        yield "deeper", value[None]
        if value.ndim:
            yield "shallower", value[0]
            yield "empty", value[:0]
        if floats:
            yield "integers", value.long()
            yield "dtype", value.to(F64 if value.dtype == F32 else F32)
            if key == "sigmas":
                yield "upwards", value.flip(0)
    elif floats:
        yield from ((kind, make(value)) for kind, make in LISTS.items())
    elif isinstance(value, torch.Generator):
        yield "number", 7
    elif annotation.startswith(("Score", "Callable", "Loss", "Draw")):
        yield "object", object()
    elif annotation.startswith("Literal") or key in ("role", "part", "slices", "law"):
        yield "misspelt", "wrod"
    elif (isinstance(value, int | float) and not isinstance(value, bool)) or re.match(
        r"(int|float) \| None", annotation
    ):
        yield from NUMBERS.items()
        yield from ((kind, word) for kind, word in WORDS.items() if word is not default)
        if isinstance(value, int) or annotation.startswith("int"):
            yield from COUNTS.items()


def substitutes(name: str) -> Iterator[tuple[str, str, Any, dict[str, Any]]]:
    """Of a call: a parameter, what is put there in a word and as a value, and all arguments with it."""
    call = CALLS[name]
    given = call.arguments(World(F32))
    for key, parameter in call.parameters.items():
        if key != "self" and not matching(UNCHECKED, name, key, ""):
            for kind, value in kinds(
                key, given.get(key, parameter.default), parameter.default, str(parameter.annotation)
            ):
                yield key, kind, value, (call.arguments(World(F32)) if call.changes else given) | {key: value}
