"""Networks with the type of a score function, ``model(x, sigma)`` -> like x; adapters for those with another; and a check of either."""

from toyscore.models import adapters
from toyscore.models.calibration import Calibration, CalibrationWarning, calibrate
from toyscore.models.classifier import NoiseClassifier
from toyscore.models.ema import EMA
from toyscore.models.mlp import MLP
from toyscore.models.ncsn import NCSN, CompactNCSN, ContinuousNCSN

__all__ = [
    "EMA",
    "MLP",
    "NCSN",
    "Calibration",
    "CalibrationWarning",
    "CompactNCSN",
    "ContinuousNCSN",
    "NoiseClassifier",
    "adapters",
    "calibrate",
]
