"""The process of a job in which one configuration ends the process and another gives NaN, told by the environment."""

import ctypes
import os
import sys

from bitfront.errors import NonFiniteOutput
from bitfront.evaluators import FakeQuantEvaluator
from bitfront.service.worker.child import main

deadly, not_finite = os.environ["DEADLY"], os.environ["NOT_FINITE"]
evaluate = FakeQuantEvaluator.evaluate_many


def trapped(self, configurations, *arguments, **options):
    if deadly in [each.digest for each in configurations]:
        ctypes.string_at(0)
    found = evaluate(self, configurations, *arguments, **options)
    return [
        NonFiniteOutput("the outputs are not finite") if each.digest == not_finite else one
        for each, one in zip(configurations, found, strict=True)
    ]


FakeQuantEvaluator.evaluate_many = trapped
sys.exit(main())
