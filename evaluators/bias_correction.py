r"""Bias correction (Nagel et al. 2019, arXiv:1906.04721, section 4.2): the mean shift that rounding causes.

For a layer with weight W and input x, both rounded in a format, the shift of output channel c is

.. math:: E[W x]_c - E[\widehat W \widehat x]_c

over the calibration samples and all positions (the empirical form, with inputs of the float model); added to the bias
it makes the mean output that of the float layer. A layer is affine in its input, so its mean output is its output at
the mean input: one pass gathers the mean input, and the mean rounded input for each format of the activation, and each
format then costs one sample.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NonFiniteOutput
from ..formats import Format, TensorFormat, activation_name
from ..space import SearchSpace, Site
from ..task import Task
from .calibration import Advance, Calibration
from .float_run import first_tensor, run_float
from .quantizers import Quantizer

#: (site name, name of the activation format, or "" for the input as it is) -> the means of its input.
_Means = dict[tuple[str, str], "_Mean"]


def bias_shifts(
    task: Task, space: SearchSpace, calibration: Calibration, advance: Advance | None = None
) -> dict[tuple[str, str], Tensor]:
    """What to add to the bias of every site under every narrow format that it offers.

    Embeddings and the projections of ``nn.MultiheadAttention`` are left out: no bias of their own is added to what they
    compute. A site without a bias needs one to apply the shift: ``prepared`` gives it one.

    Args:
        task: model and calibration data; validation data is never read.
        space: sites and formats.
        calibration: scales, codes and ranges of those formats.
        advance: called with 1 after each calibration batch.

    Returns:
        (site name, format name) -> shift: float32 [output channels].

    Raises:
        NonFiniteOutput: a shift is NaN or infinite; the message names the site.
    """
    sites = [site for site in space.sites if site.kind.startswith(("linear", "hf_conv1d", "conv"))]
    means: _Means = {}
    mask: list[Tensor] = []  # of the batch that runs
    with ExitStack() as stack:
        for site in sites:
            for path in site.modules:
                module = task.model.get_submodule(path)
                if isinstance(module, nn.Embedding):
                    continue
                watch = _watch(site, _roundings(site, path, calibration), means, mask)
                stack.callback(module.register_forward_pre_hook(watch, with_kwargs=True).remove)
        stack.enter_context(torch.no_grad())
        for batch in task.calibration:
            mask[:] = [tensor for name, tensor in batch.tensors.items() if name == "attention_mask"]
            run_float(task.model, batch, "calibration")
            if advance:
                advance(1)
    shifts = {}
    for site in sites:
        for name, shift in _shifts(task.model, site, calibration, means).items():
            if not bool(torch.isfinite(shift).all()):
                raise NonFiniteOutput(f"the mean output of {site.name} in {name} is NaN or infinite")
            shifts[site.name, name] = shift
    return shifts


class _Mean:
    """Mean inputs by shape: positions of a linear layer are samples, those of a convolution are not."""

    def __init__(self) -> None:
        self.sums: dict[tuple[int, ...], tuple[Tensor, int]] = {}

    def add(self, samples: Tensor) -> None:
        """Add samples [n, ...]."""
        before, count = self.sums.get(tuple(samples.shape[1:]), (0.0, 0))
        self.sums[tuple(samples.shape[1:])] = before + samples.sum(0, dtype=torch.float64), count + len(samples)

    def output(self, module: nn.Module, channel_axis: int) -> Tensor:
        """Mean output of a layer over samples and positions: float64 [channels]."""
        total: Tensor | float = 0.0
        positions = 0
        dtype = module.get_parameter("weight").dtype
        for total_input, count in self.sums.values():
            output = module.forward((total_input / count)[None].to(dtype)).double()
            each = output.movedim(channel_axis, 0).flatten(1)
            total = total + each.sum(1) * count
            positions += each.shape[1] * count
        return torch.as_tensor(total) / positions


def _narrow(site: Site) -> list[Format]:
    return [found for name in site.formats if not (found := Format.parse(name)).weight.is_wide]


def _roundings(site: Site, path: str, calibration: Calibration) -> dict[str, Quantizer]:
    """What rounds the input of a module, by the name of the activation format."""
    wanted = {activation_name(each.activation): each.activation for each in _narrow(site) if each.activation}
    return {name: calibration.activation(path, target) for name, target in wanted.items()}


def _watch(site: Site, roundings: dict[str, Quantizer], means: _Means, mask: list[Tensor]) -> Callable[..., None]:
    def watch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = first_tensor(args, kwargs)
        assert value is not None
        for name, rounded in (("", value), *((name, quantize(value)) for name, quantize in roundings.items())):
            means.setdefault((site.name, name), _Mean()).add(_samples(site, rounded, mask))

    return watch


def _samples(site: Site, value: Tensor, mask: list[Tensor]) -> Tensor:
    """An input as samples [n, features] or [n, channels, *positions]."""
    if not site.kind.startswith("conv"):
        if mask and mask[0].shape == value.shape[:-1]:
            return value[mask[0].to(value.device) != 0]
        return value.reshape(-1, value.shape[-1])
    return value if value.ndim == len(site.weight_shape) else value[None]


def _shifts(model: nn.Module, site: Site, calibration: Calibration, means: _Means) -> dict[str, Tensor]:
    """Format name -> shift, for the narrow formats of a site that the data reached."""
    if (site.name, "") not in means:
        return {}
    module = next(found for path in site.modules if not isinstance(found := model.get_submodule(path), nn.Embedding))
    axis = 1 if site.kind.startswith("conv") else -1
    weight = module.get_parameter("weight")
    original, shifts = weight.data, {}
    by_weight: dict[TensorFormat, list[Format]] = {}
    for each in _narrow(site):
        by_weight.setdefault(each.weight, []).append(each)
    with torch.no_grad():
        exact = means[site.name, ""].output(module, axis)
        try:
            for target, formats in by_weight.items():
                weight.data = calibration.quantize(site, original, target).dequantize().to(original.dtype)
                for each in formats:
                    name = activation_name(each.activation) if each.activation else ""
                    shifts[each.name] = (exact - means[site.name, name].output(module, axis)).float()
        finally:
            weight.data = original
    return shifts
