"""What a configuration really costs in quality: calibration, quantizers, metrics, the evaluator."""

from ..measurement import Difference, Measurement, aggregate, bootstrap_means, difference, interval, probability_better
from .calibrate import calibrate, calibration_steps
from .calibration import VERSION as CALIBRATION_VERSION
from .calibration import Calibration
from .equalization import prepared
from .evaluator import Evaluator, FakeQuantEvaluator, evaluate, evaluation_context
from .finetuning import Epoch, Finetuned, finetune
from .float_run import run_float
from .metrics import objective, output_tensor, per_sample
from .quantized_model import QuantizedModel
from .racing import Race, smallest_value
from .recipe import Recipe

__all__ = [
    "CALIBRATION_VERSION",
    "Calibration",
    "Difference",
    "Epoch",
    "Evaluator",
    "FakeQuantEvaluator",
    "Finetuned",
    "Measurement",
    "QuantizedModel",
    "Race",
    "Recipe",
    "aggregate",
    "bootstrap_means",
    "calibrate",
    "calibration_steps",
    "difference",
    "evaluate",
    "evaluation_context",
    "finetune",
    "interval",
    "objective",
    "output_tensor",
    "per_sample",
    "prepared",
    "probability_better",
    "run_float",
    "smallest_value",
]
