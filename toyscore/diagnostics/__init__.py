"""What theory predicts: why each failure happens, and how large it must be.

Where the truth is a mixture, each failure of score matching and of Langevin dynamics has a number that can be computed before anything
is run:

- *Steps.* ``stationary_variance`` and ``relaxed_variance``: what finite steps do; ``stability_bound``, ``signal_to_noise``,
  ``stein_numbers``, and the two
  published conventions.
- *Mixing.* ``spectral_gap``: the rate of hops between modes, also where it is 1e-30; ``eyring_kramers`` estimates and ``hop_rate``
  counts it.
- *Laws.* ``propagate``: the law of the discretised chain, plain or annealed; ``freeze_out``: the level at which its weights stop
  moving, and why.
- *Diffusions.* ``affine_law``: what any affine sampler of a diffusion ends with on Gaussian data, and ``gaussian_divergence``, its
  exact error; ``matched_norms_law``: the wrong law that a corrector samples whose steps depend on x.
- *Blindness.* ``weight_blindness`` and ``divergences``: what Kullback-Leibler sees of the weights and Fisher does not.
- *Levels.* ``design_levels``: noise levels and step size from a data set, by NCSNv2's rules.
- *Objectives.* ``objective_identities``: each objective is the Fisher divergence plus a constant; ``gradient_variance``: at what noise.
- *Manifolds.* ``normal_loss`` and ``intrinsic_dimension``: why the loss runs away on data without volume.

Everything but distances of points is float64 on the CPU; results are Python floats or CPU tensors.
"""

from toyscore.diagnostics.affine import Moments, affine_law, gaussian_divergence
from toyscore.diagnostics.blindness import Blindness, Divergences, divergences, weight_blindness
from toyscore.diagnostics.correctors import matched_norms_law
from toyscore.diagnostics.freezing import FreezeOut, freeze_out, last_laws
from toyscore.diagnostics.grids import Cloud, quadrature
from toyscore.diagnostics.identities import (
    Fisher,
    Identity,
    Objective,
    exact_fisher,
    gradient_variance,
    library_objectives,
    objective_identities,
)
from toyscore.diagnostics.levels import (
    NoiseDesign,
    design_ladder,
    design_levels,
    distance_quantile,
    largest_distance,
    level_overlap,
    level_ratio,
    tuned_step,
)
from toyscore.diagnostics.manifold import Dimension, intrinsic_dimension, least_normal_loss, normal_loss
from toyscore.diagnostics.propagation import (
    Law,
    Stage,
    annealed_stages,
    propagate,
    reduce,
    separates,
    turning_width,
    uniform_cloud,
)
from toyscore.diagnostics.spectrum import HopRate, SlowModes, eyring_kramers, hop_rate, slow_modes, spectral_gap
from toyscore.diagnostics.steps import (
    Variance,
    check_stable,
    epsilon_from_eta,
    eta_from_epsilon,
    measured_variance,
    relaxed_variance,
    signal_to_noise,
    stability_bound,
    stationary_variance,
    stein_numbers,
)

__all__ = [
    "Blindness",
    "Cloud",
    "Dimension",
    "Divergences",
    "Fisher",
    "FreezeOut",
    "HopRate",
    "Identity",
    "Law",
    "Moments",
    "NoiseDesign",
    "Objective",
    "SlowModes",
    "Stage",
    "Variance",
    "affine_law",
    "annealed_stages",
    "check_stable",
    "design_ladder",
    "design_levels",
    "distance_quantile",
    "divergences",
    "epsilon_from_eta",
    "eta_from_epsilon",
    "exact_fisher",
    "eyring_kramers",
    "freeze_out",
    "gaussian_divergence",
    "gradient_variance",
    "hop_rate",
    "intrinsic_dimension",
    "largest_distance",
    "last_laws",
    "least_normal_loss",
    "level_overlap",
    "level_ratio",
    "library_objectives",
    "matched_norms_law",
    "measured_variance",
    "normal_loss",
    "objective_identities",
    "propagate",
    "quadrature",
    "reduce",
    "relaxed_variance",
    "separates",
    "signal_to_noise",
    "slow_modes",
    "spectral_gap",
    "stability_bound",
    "stationary_variance",
    "stein_numbers",
    "tuned_step",
    "turning_width",
    "uniform_cloud",
    "weight_blindness",
]
