"""What a configuration really costs in quality: calibration, quantizers, metrics, the evaluator."""

from ..measurement import Difference, Measurement, aggregate, bootstrap_means, difference, interval, probability_better
from .batch_norm import Statistics, batch_norm_statistics, taken_on
from .calibrate import calibrate, calibration_steps
from .calibration import VERSION as CALIBRATION_VERSION
from .calibration import Calibration
from .equalization import prepared
from .evaluator import Evaluator, FakeQuantEvaluator, evaluate, evaluation_context
from .finetuning import Epoch, Finetuned, finetune
from .float_run import in_eval, run_float
from .metrics import objective, output_tensor, per_sample
from .quantized_model import QuantizedModel
from .racing import Race, smallest_value
from .recipe import Recipe
from .replay import Mode
from .shard import Done, Evaluation, execution_key

__all__ = [
    "CALIBRATION_VERSION",
    "Calibration",
    "Difference",
    "Done",
    "Epoch",
    "Evaluation",
    "Evaluator",
    "FakeQuantEvaluator",
    "Finetuned",
    "Measurement",
    "Mode",
    "QuantizedModel",
    "Race",
    "Recipe",
    "Statistics",
    "aggregate",
    "batch_norm_statistics",
    "bootstrap_means",
    "calibrate",
    "calibration_steps",
    "difference",
    "evaluate",
    "evaluation_context",
    "execution_key",
    "finetune",
    "in_eval",
    "interval",
    "objective",
    "output_tensor",
    "per_sample",
    "prepared",
    "probability_better",
    "run_float",
    "smallest_value",
    "taken_on",
]
