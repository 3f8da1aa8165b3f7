"""A model that takes on a configuration by fake quantization, and takes it off again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import InvalidInput
from ..formats import Format, TensorFormat
from ..space import SearchSpace, Site
from ..tracing import without_attention_fast_path
from .calibration import Calibration
from .float_run import first_tensor
from .quantizers import Quantizer, round_to_float


class QuantizedModel:
    """Fake quantization of one model, with every quantized weight kept for the next configuration that uses it.

    Weights are exchanged, not copied: taking on a configuration costs one pointer per site. A format rounds the weight
    and, where it says so, the input of the layer; products are accumulated in the model's own type. Sites that a
    configuration does not name stay in float.

    Args:
        model: the float model; it holds its own weights again whenever no configuration is taken on.
        space: its sites.
        calibration: scales and ranges.
        cache_bytes: how much memory quantized weights may take; the least recently used go first.
    """

    def __init__(
        self, model: nn.Module, space: SearchSpace, calibration: Calibration, cache_bytes: int = 4_000_000_000
    ) -> None:
        self.model = model
        self.space = space
        self.calibration = calibration
        self._cache_bytes = cache_bytes
        self._held = 0
        self._weights: OrderedDict[tuple[str, TensorFormat], Tensor] = OrderedDict()
        self._sites = {site.name: site for site in space.sites}
        self._parameters = {site.name: model.get_parameter(site.parameter) for site in space.sites}
        self._originals = {name: parameter.data for name, parameter in self._parameters.items()}

    def weight(self, site: Site, target: TensorFormat) -> Tensor:
        """The fake-quantized weight of a site, in the type of the float weight."""
        key = (site.name, target)
        if key in self._weights:
            self._weights.move_to_end(key)
            return self._weights[key]
        original = self._originals[site.name]
        if target.is_wide:
            quantized = round_to_float(original, target)
        else:
            quantized = self.calibration.quantize(site, original, target).dequantize().to(original.dtype)
        self._weights[key] = quantized
        self._held += _bytes(quantized)
        while self._held > self._cache_bytes and len(self._weights) > 1:
            self._held -= _bytes(self._weights.popitem(last=False)[1])
        return quantized

    @contextmanager
    def applied(self, configuration: Mapping[str, str]) -> Iterator[nn.Module]:
        """The model with a configuration taken on, for the length of a ``with`` block.

        Args:
            configuration: ``{site name: format name}``; sites left out stay in float.

        Raises:
            InvalidInput: the configuration names a site that the space does not have.
        """
        unknown = sorted(set(configuration) - set(self._sites))
        if unknown:
            raise InvalidInput(f"the configuration names unknown sites: {', '.join(unknown[:5])}")
        with ExitStack() as stack:
            for name, format_name in configuration.items():
                site, target = self._sites[name], Format.parse(format_name)
                stack.callback(setattr, self._parameters[name], "data", self._parameters[name].data)
                self._parameters[name].data = self.weight(site, target.weight)
                for module in site.modules:
                    quantizer = self.rounding(site, module, target)
                    if quantizer is not None:
                        hook = _rounding(quantizer)
                        handle = self.model.get_submodule(module).register_forward_pre_hook(hook, with_kwargs=True)
                        stack.callback(handle.remove)
            stack.enter_context(without_attention_fast_path())
            yield self.model

    def rounding(self, site: Site, module: str, target: Format) -> Quantizer | None:
        """What rounds the input of a module of a site under a format.

        Returns:
            The quantizer; ``None`` where the format leaves activations alone, and for inputs that are
            indices or out of a hook's reach.

        Raises:
            InvalidInput: the format narrows activations, and this module's input cannot be, or was not calibrated.
        """
        activation = target.activation
        if activation is None:
            return None
        # a site of another kind may share its weight with an embedding
        reachable = not isinstance(self.model.get_submodule(module), (nn.Embedding, nn.MultiheadAttention))
        if not reachable:
            if activation.is_wide:
                return None
            raise InvalidInput(f"site {site.name} ({site.kind}) cannot take {target}: choose a weight-only format")
        return self.calibration.activation(module, activation)


def _rounding(quantizer: Quantizer) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """A forward pre-hook (with keywords) that rounds the first tensor among the arguments."""

    def round_input(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        value = first_tensor(args, kwargs)
        if value is None or not value.is_floating_point():
            raise InvalidInput(
                f"{type(module).__name__} gets no floating-point input; its activation cannot be quantized: exclude "
                "the site or offer weight-only formats"
            )
        rounded = quantizer(value)
        return (
            tuple(rounded if each is value else each for each in args),
            {name: rounded if each is value else each for name, each in kwargs.items()},
        )

    return round_input


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
