r"""How far off: scores from the truth, samples from a law, chains from having mixed.

*Scores.* The Fisher divergence :math:`\frac12 E_q \|s - s^*\|^2` is what every objective minimises; seen region by region it
shows where a low total hides a wrong field. *Samples.* Weights of the modes, Wasserstein-2 (exact, through POT, and sliced), the maximum
mean discrepancy, the energy distance and the probability that two clouds have one law. *Chains.* R-hat, split and rank-normalised,
and the effective sample size of vehtari2021: near one, and near the number of states, when independent chains agree and forget
their past. *Images.* How sure a classifier of the real ones is of the samples, and how many of each class it sees; Fréchet and kernel
distances, precision, recall and coverage in its features; the share of the noise that a score leaves unexplained at each level, which
says when training is done but not when samples are good.

Everything returns Python floats or tensors on the input's device. Distances of clouds are computed in float64 on the CPU. All but
the kernel distance stay the same where both clouds move, and grow with their units. POT is imported where it is used: it takes seconds.
"""

from toyscore.metrics.classes import Classifier, Confidence, fit_classifier
from toyscore.metrics.clouds import mmd2, sliced_wasserstein2, wasserstein2
from toyscore.metrics.coverage import Overlap, expected_coverage, nearest, overlap
from toyscore.metrics.energy import energy_distance, same_law
from toyscore.metrics.features import Features, fit_features, frechet_distance, kernel_distance
from toyscore.metrics.fields import (
    Scored,
    fisher_divergence,
    fisher_divergence_by_region,
    mode_weight_errors,
    mode_weights,
    relative_errors,
)
from toyscore.metrics.inception import InceptionScores, inception_scores
from toyscore.metrics.levels import denoising_losses, linear_losses
from toyscore.metrics.mixing import effective_sample_size, rank_normalized_r_hat, split_r_hat

__all__ = [
    "Classifier",
    "Confidence",
    "Features",
    "InceptionScores",
    "Overlap",
    "Scored",
    "denoising_losses",
    "effective_sample_size",
    "energy_distance",
    "expected_coverage",
    "fisher_divergence",
    "fisher_divergence_by_region",
    "fit_classifier",
    "fit_features",
    "frechet_distance",
    "inception_scores",
    "kernel_distance",
    "linear_losses",
    "mmd2",
    "mode_weight_errors",
    "mode_weights",
    "nearest",
    "overlap",
    "rank_normalized_r_hat",
    "relative_errors",
    "same_law",
    "sliced_wasserstein2",
    "split_r_hat",
    "wasserstein2",
]
