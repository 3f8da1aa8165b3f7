r"""Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721, section 4.1).

For two layers with :math:`f(s x) = s f(x)` between them,

.. math:: W_2 f(W_1 x + b_1) = (W_2 S)\, f(S^{-1} W_1 x + S^{-1} b_1), \qquad S = \operatorname{diag}(s),

and with :math:`r^{(1)}_i = \max_j |W_{1,ij}|`, :math:`r^{(2)}_i = \max_j |W_{2,ji}|` the choice (eq. 11)

.. math:: s_i = \frac{1}{r^{(2)}_i} \sqrt{r^{(1)}_i r^{(2)}_i}

makes both ranges of channel i equal. Pairs that share a layer are repeated in turn until nothing moves. Batch
normalization is folded first. A bound of ReLU6 is kept exactly, as a bound per channel (``pairs``); runtimes that
compute ReLU6 within an integer convolution may need an operator of its own for it.

It evens out the channels of weights, which helps where they share a scale (per tensor), and at 3 and 4 bits with bias
correction. Activations are divided by s too: their ranges grow apart, and with one static scale per tensor 8-bit inputs
can lose more than the weights gain.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...space import SearchSpace, Site
from ...task import Batch
from .batch_norm_folding import fold_batch_norms
from .channels import grouped, output_channels, scale_channels
from .dataflow import record
from .pairs import Layers, Pair, find_pairs

_SWEEPS = 100
_STEADY = 1e-3  # of log s


def equalize(model: nn.Module, space: SearchSpace, example: Batch) -> dict[str, Tensor]:
    """Equalize all pairs of a model in place.

    Args:
        model: in evaluation mode. A folded batch normalization becomes an identity, a ReLU6 whose bound moved a ReLU.
        space: its sites.
        example: shows which layer reads which.

    Returns:
        Site name of the first layer of each pair -> s, float64 [output channels].
    """
    dataflow = record(model, example)
    if fold_batch_norms(model, space, dataflow):
        dataflow = record(model, example)
    pairs = find_pairs(model, space, dataflow)
    scales = equalizing_scales(model, pairs)
    _move_bounds(model, pairs, scales, Layers(space, dataflow).clips(model))
    for pair, scale in zip(pairs, scales, strict=True):
        first, second = (model.get_submodule(site.modules[0]) for site in (pair.first, pair.second))
        scale_channels(first, pair.first.kind, outputs=1 / scale)
        scale_channels(second, pair.second.kind, inputs=scale.repeat_interleave(pair.repeat))
    return {pair.first.name: scale for pair, scale in zip(pairs, scales, strict=True)}


def equalizing_scales(model: nn.Module, pairs: list[Pair]) -> list[Tensor]:
    """The scales s of every pair at which all ranges are equal: float64 [channels] each; 1 for channels of zeros.

    Only the largest magnitude of each kernel plane matters, so the weights are reduced to those first.
    """
    repeats = {pair.second: pair.repeat for pair in pairs}
    sites = list(dict.fromkeys(site for pair in pairs for site in (pair.first, pair.second)))
    planes = {site: _planes(model, site, repeats.get(site, 1)) for site in sites}
    outputs = {site: torch.ones_like(plane[:, :, :1]) for site, plane in planes.items()}
    inputs = {site: torch.ones_like(plane[:, :1, :]) for site, plane in planes.items()}
    for _ in range(_SWEEPS):
        largest = 0.0
        for pair in pairs:
            first, second = pair.first, pair.second
            r1 = ((planes[first] * inputs[first]).amax(2, keepdim=True) * outputs[first]).flatten()
            r2 = ((planes[second] * outputs[second]).amax(1, keepdim=True) * inputs[second]).flatten()
            s = torch.where((r1 > 0) & (r2 > 0), (r1 / r2).sqrt(), 1.0)
            s = torch.where(torch.isfinite(s), s, 1.0)
            outputs[first] = outputs[first] / s.reshape(outputs[first].shape)
            inputs[second] = inputs[second] * s.reshape(inputs[second].shape)
            largest = max(largest, float(s.log().abs().max()))
        if largest < _STEADY:
            break
    return [inputs[pair.second].flatten() for pair in pairs]


def _planes(model: nn.Module, site: Site, repeat: int) -> Tensor:
    """The largest magnitude behind each pair of channels: [groups, outputs, inputs] of a group."""
    module = model.get_submodule(site.modules[0])
    parts = grouped(module.get_parameter("weight").detach(), site.kind, int(getattr(module, "groups", 1)))
    by_channel = parts.reshape(*parts.shape[:2], parts.shape[2] // repeat, -1)
    return by_channel.abs().amax(3).double()


def _move_bounds(model: nn.Module, pairs: list[Pair], scales: list[Tensor], clips: dict[str, list[Site]]) -> None:
    """Put the bound of every ReLU6 that a pair passes on the layers before it: min(x, bound / s)."""
    by_site = {pair.first: scale for pair, scale in zip(pairs, scales, strict=True)}
    for path in dict.fromkeys(pair.clip for pair in pairs if pair.clip):
        clip = model.get_submodule(path)
        assert isinstance(clip, nn.Hardtanh)
        for site in clips[path]:
            module = model.get_submodule(site.modules[0])
            weight = module.get_parameter("weight")
            scale = by_site.get(site, torch.ones(output_channels(module, site), dtype=torch.float64))
            trailing = [1] * (0 if site.kind == "linear" else int(site.kind[-2]))
            bound = (clip.max_val / scale).to(weight).reshape(-1, *trailing)
            module.register_buffer("output_bound", bound)
            module.register_forward_hook(bound_output)
        model.set_submodule(path, nn.ReLU(clip.inplace))


def bound_output(module: nn.Module, args: object, output: Tensor) -> Tensor:
    """A forward hook: the output of a layer, at most ``module.output_bound``."""
    bound = module.output_bound
    assert isinstance(bound, Tensor)
    return torch.minimum(output, bound)
