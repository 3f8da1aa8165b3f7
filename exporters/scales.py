"""A calibration for weight-only configurations, computed from the weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from ..errors import InvalidInput, NonFiniteOutput
from ..evaluators import Calibration
from ..evaluators.quantizers import choose_scales
from ..formats import Format, weight_name
from ..space import SearchSpace

if TYPE_CHECKING:
    from torch import nn


def weight_scales(model: nn.Module, space: SearchSpace, configuration: Mapping[str, str]) -> Calibration:
    """The scales that ``evaluators.calibrate`` would choose, for the formats that a configuration uses.

    Args:
        model: the float model.
        space: its sites.
        configuration: ``{site name: format name}`` of formats without static activation scales.

    Returns:
        A calibration without activation ranges.

    Raises:
        InvalidInput: a format has static activation scales, which only data can give.
        NonFiniteOutput: a weight is NaN or infinite.
    """
    scales = {}
    for site in space.sites:
        if site.name not in configuration:
            continue
        target = Format.parse(configuration[site.name])
        if target.needs_ranges:
            raise InvalidInput(
                f"site {site.name} is in {target}, which needs activation ranges; give export(..., "
                "calibration=Calibration) as evaluators.calibrate(task, space) returns it"
            )
        weight = model.get_parameter(site.parameter)
        if not bool(torch.isfinite(weight).all()):
            raise NonFiniteOutput(f"the weight of {site.name} holds NaN or infinity")
        if not target.is_wide:
            scales[site.name, weight_name(target.weight)] = choose_scales(weight, target.weight, site.channel_axis)
    return Calibration(scales)
