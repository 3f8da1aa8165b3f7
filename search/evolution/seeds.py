"""Formulas that an evolution starts from: the proxies of the literature, written with the statistics of a bench.

Random formulas rarely multiply a squared error with a curvature; the literature does little else. Starting there, an
evolution can only be better on its training configurations, and what it adds can be read from the formula.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...proxies.formulas import Formula, fault
from .settings import EvolutionSettings

SEEDS: tuple[str, ...] = (
    "sum(fisher * square(error))",  # FIT and the Fisher proxies: diagonal of the Fisher
    "sum(hessian_diagonal * square(error))",  # the Gauss-Newton diagonal
    "sum(square(output_gradient * (activation * error)))",  # curvature as a Kronecker product, its diagonals
    "weight_error * (hessian_trace / elements)",  # HAWQ-V2
    "weight_error * (fisher_trace / elements)",
    "output_error * mean(square(output_gradient))",  # error of the output, weighed by what the loss makes of it
    "weight_error",
    "output_error",
    "sum(abs(error * gradient))",  # SNIP with the error in place of the weight
    "sum(square(error * gradient_magnitude))",
    "weight_error / elements / square(weight_deviation)",  # SQNR of the weights
    "activation_error / mean(square(activation)) + weight_error / elements / square(weight_deviation)",  # and inputs
    "log(weight_error / elements / square(weight_deviation))",  # in decibels
    "sum(abs(error) * exp(synflow))",
    "noise_bits * sum(softmax(log_abs(virtual_gradient)) * sqrt(relu(weight)))",  # EMQ
    "sum(square(activation * error))",
    "elements * power_of_half(bits)",
    "macs * power_of_half(noise_bits)",
)
"""Texts; a part of them fits any bench."""


def seeds_for(inputs: Mapping[str, str], settings: EvolutionSettings) -> tuple[Formula, ...]:
    """The seeds that are made of these inputs, none where the settings do not want them.

    Args:
        inputs: name -> kind, those that all benches share.
        settings: of the evolution; its ``inputs`` and ``max_size`` count.
    """
    if not settings.seeded:
        return ()
    usable = {name: kind for name, kind in inputs.items() if not settings.inputs or name in settings.inputs}
    formulas = (Formula.parse(text) for text in SEEDS)
    return tuple(each for each in formulas if fault(each, usable, settings.max_size) is None)
