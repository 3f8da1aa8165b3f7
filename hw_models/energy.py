r"""Energy of a forward pass, from published costs of operations: a model, not a measurement.

.. math:: E(f) = \sum_i \mathrm{MACs}_i\,\big(e_\times(f_i) + e_+(f_i)\big) + Q(f)\, e_\mathrm{DRAM}

with the traffic Q of ``traffic.py`` and the figures of Horowitz (ISSCC 2014, figure 1.1.9, 45 nm). They rank
configurations; joules of a newer process are lower. On-chip memories, control, leakage and arithmetic outside the sites
are not counted.

========================================  ============================================================================
weight and input                          one multiply-accumulate
========================================  ============================================================================
integers of b_w and b_a bits              0.2 pJ x b_w b_a / 64, and an int32 addition of 0.1 pJ. The area of an array
                                          multiplier grows with b_w b_a; so do Horowitz's figures: 3.1 pJ at 32 bits is
                                          15.5 times 0.2 pJ at 8
``bf16``, ``fp16``, and weight-only       fp16 multiplication (1.1 pJ) added up in fp32 (0.9 pJ); for bf16, whose
formats of a 16-bit model                 significand is shorter, that is an upper bound
``fp32``, and weight-only formats of a    fp32 multiplication (3.7 pJ) and addition (0.9 pJ): the weights are unpacked
32-bit model
minifloats and block formats as inputs    refused: no figure is published there
========================================  ============================================================================

The standard deviation is that of DRAM: 1.3 to 2.6 nJ per 64 bits, taken as a 95 % interval. No table that bitfront
reads has measured power of matrix products (``aiconfigurator-core`` 0.12 has it for attention and mixtures of experts
on a B200 alone).
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from ..errors import NotMeasured
from ..formats import Format
from ..space import SearchSpace, Site
from .cost_model import Question
from .prices import PriceTable, tabulate
from .traffic import traffic_mb

_NORMAL_95 = 1.959964
_MJ_PER_PJ = 1e-9


@cache
def _published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files(__package__).joinpath("energy.json").read_text())
    return found


def mac_picojoules(site: Site, format_: Format) -> float:
    """Energy of one multiply-accumulate of a site in a format, in pJ.

    Raises:
        NotMeasured: no figure is published for the arithmetic.
    """
    multiply, add = _published()["multiply_pj"], _published()["add_pj"]
    weight, activation = format_.weight, format_.activation
    if activation is None or activation.is_wide:
        bits = site.weight_bits if activation is None else activation.bits
        return float(multiply[f"fp{bits}"] + add["fp32"])
    if weight.number == "int" and activation.number == "int":
        return float(multiply["int8"] * weight.bits * activation.bits / 64 + add["int32"])
    raise NotMeasured(
        f"format {format_.name}: no energy of its arithmetic is published in {_published()['reference']}; "
        "offer integer inputs (w8a8), a weight-only format (w4) or fp16, or leave energy_mj out"
    )


def energy_mj(space: SearchSpace, question: Question) -> PriceTable:
    """Millijoules of a forward pass of ``question.batch`` samples, by the energy model of this module.

    The uncertainty of the base is spread evenly over the sites.

    Raises:
        NotMeasured: no energy is published for the arithmetic of a format.
        InvalidInput: the space was made without tracing the tensors.
    """
    low, high = _published()["dram_pj_per_64_bits"]
    traffic = traffic_mb(space, question)
    per_mb = 1e6 / 8 * (low + high) / 2 * _MJ_PER_PJ
    relative = (high - low) / (high + low) / _NORMAL_95
    arithmetic = tabulate(
        space, lambda site, format_: site.macs * question.batch * mac_picojoules(site, format_) * _MJ_PER_PJ
    )
    moved = per_mb * traffic.values
    base = per_mb * traffic.base
    sigma = relative * (moved + base / len(space.sites))
    return PriceTable(
        metric="energy_mj",
        unit="mJ",
        values=arithmetic + moved,
        sigma=np.asarray(sigma, dtype=np.float64),
        base=base,
        source="model",
        provenance=(
            f"model, not measured: multiply-accumulates and DRAM traffic at batch {question.batch} with the figures of "
            f"{_published()['reference']}; on-chip memories, control and leakage not counted"
        ),
    )
