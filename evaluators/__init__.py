"""What a configuration really costs in quality: calibration, quantizers, metrics, the evaluator."""

from ..measurement import Measurement, aggregate, bootstrap_means, interval, probability_better
from .calibration import VERSION as CALIBRATION_VERSION
from .calibration import Calibration, calibrate, run_float
from .evaluator import Evaluator, FakeQuantEvaluator, evaluate, evaluation_context
from .metrics import objective, output_tensor, per_sample
from .quantized_model import QuantizedModel

__all__ = [
    "CALIBRATION_VERSION",
    "Calibration",
    "Evaluator",
    "FakeQuantEvaluator",
    "Measurement",
    "QuantizedModel",
    "aggregate",
    "bootstrap_means",
    "calibrate",
    "evaluate",
    "evaluation_context",
    "interval",
    "objective",
    "output_tensor",
    "per_sample",
    "probability_better",
    "run_float",
]
