"""A model that takes on a configuration by fake quantization, and takes it off again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import InvalidInput
from ..formats import Format, TensorFormat, activation_name
from ..space import SearchSpace, Site
from ..tracing import without_attention_fast_path
from .calibration import Calibration
from .float_run import first_tensor, in_eval
from .quantizers import Quantizer
from .tensor_files import raw
from .weight_cache import WeightCache
from .weight_versions import WeightVersions, exchange


@dataclass(frozen=True)
class Changes:
    """What a configuration changes in a model.

    Attributes:
        weights: parameter name -> the site and the format that its weight is exchanged for.
        biases: parameter name -> (site name, format name) whose shift is added to that bias.
        rounding: module path -> the format that its input is rounded to.
    """

    weights: dict[str, tuple[Site, TensorFormat]]
    biases: dict[str, tuple[str, str]]
    rounding: dict[str, TensorFormat]


class QuantizedModel:
    """Fake quantization of one model, with every quantized weight kept for the next configuration that uses it.

    Weights are exchanged, not copied: taking on a configuration costs one pointer per site. A format rounds the weight
    and, where it says so, the input of the layer; products are accumulated in the model's own type. Where the
    calibration holds corrected biases they are exchanged too. Sites that a configuration does not name stay in float.

    Args:
        model: the float model; it holds its own weights again whenever no configuration is taken on.
        space: its sites.
        calibration: scales and ranges.
        cache_bytes: how much memory quantized weights may take; the least recently used go first.
        cache_folder: where quantized weights are shared with other processes; see ``WeightCache``.

    Raises:
        InvalidInput: ``cache_bytes`` is negative.
    """

    def __init__(
        self,
        model: nn.Module,
        space: SearchSpace,
        calibration: Calibration,
        cache_bytes: int = 4_000_000_000,
        cache_folder: str | Path | None = None,
    ) -> None:
        self.model = model
        self.space = space
        self.calibration = calibration
        self.cache = WeightCache(calibration, cache_bytes, cache_folder)
        self._versions = WeightVersions(model)
        self._sites = {site.name: site for site in space.sites}
        self._originals = {site.name: model.get_parameter(site.parameter).data for site in space.sites}
        self._rules: dict[tuple[str, str], tuple[Hashable, Quantizer]] = {}
        self._biases = {site.name: _biases(model, site) for site in space.sites}
        self._float_biases = {name: model.get_parameter(name).data for names in self._biases.values() for name in names}

    def weight(self, site: Site, target: TensorFormat) -> Tensor:
        """The fake-quantized weight of a site, in the type of the float weight."""
        return self.cache.get(site, target, self._originals[site.name])

    def bias(self, parameter: str, shift: tuple[str, str]) -> Tensor:
        """A bias with the shift that bias correction found for (site name, format name)."""
        float_bias = self._float_biases[parameter]
        return float_bias + self.calibration.biases[shift].to(float_bias)

    def rule(self, module: str, target: TensorFormat) -> tuple[Hashable, Quantizer]:
        """How the input of a module is rounded to a format.

        Returns:
            Something that is equal for modules that round alike (the format and its calibrated range), and the
            quantizer.
        """
        key = module, activation_name(target)
        if key not in self._rules:
            found = self.calibration.ranges.get(key)
            content = () if found is None else tuple(bytes(raw(end)) for end in found)
            self._rules[key] = (key[1], content), self.calibration.activation(module, target)
        return self._rules[key]

    def changes(self, configuration: Mapping[str, str]) -> Changes:
        """What a configuration changes.

        Args:
            configuration: ``{site name: format name}``; sites left out stay in float.

        Raises:
            InvalidInput: it names a site that the space does not have, or a format that was not calibrated there; or
                the weights of the model are no longer those it had here at first (see ``WeightVersions``).
        """
        if not isinstance(configuration, Mapping):
            raise InvalidInput(
                f"a configuration is a mapping {{site name: format name}}, got {type(configuration).__name__}"
            )
        self._versions.check()
        unknown = sorted(set(configuration) - set(self._sites))
        if unknown:
            raise InvalidInput(f"the configuration names unknown sites: {', '.join(unknown[:5])}")
        found = Changes({}, {}, {})
        for name, format_name in configuration.items():
            site, target = self._sites[name], Format.parse(format_name)
            if not target.weight.is_wide:
                self.calibration.scales(site, target.weight)
            found.weights[site.parameter] = site, target.weight
            found.biases.update(self._shifted(site, format_name))
            for module in site.modules:
                if self.rounding(site, module, target) is not None and target.activation is not None:
                    found.rounding[module] = target.activation
        return found

    @contextmanager
    def applied(self, configuration: Mapping[str, str]) -> Iterator[nn.Module]:
        """The model with a configuration taken on and in evaluation mode, for the length of a ``with`` block.

        Args:
            configuration: ``{site name: format name}``; sites left out stay in float.

        Raises:
            InvalidInput: as ``changes``; the model is then as it was.
        """
        changes = self.changes(configuration)
        with ExitStack() as stack:
            for name, (site, target) in changes.weights.items():
                exchange(stack, self.model.get_parameter(name), self.weight(site, target))
            for name, shift in changes.biases.items():
                exchange(stack, self.model.get_parameter(name), self.bias(name, shift))
            for name, activation in changes.rounding.items():
                hook = rounding_hook(self.rule(name, activation)[1])
                module = self.model.get_submodule(name)
                stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
            stack.enter_context(in_eval(self.model))
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
        if not self.reachable(module):
            if activation.is_wide:
                return None
            raise InvalidInput(f"site {site.name} ({site.kind}) cannot take {target}: choose a weight-only format")
        return self.rule(module, activation)[1]

    def reachable(self, module: str) -> bool:
        """Whether a hook sees the activation that enters a module: not indices, not what attention projects inside.

        A site of another kind may share its weight with an embedding.
        """
        return not isinstance(self.model.get_submodule(module), (nn.Embedding, nn.MultiheadAttention))

    def _shifted(self, site: Site, format_name: str) -> dict[str, tuple[str, str]]:
        """The bias parameters of a site that its format shifts."""
        key = site.name, format_name
        if key not in self.calibration.biases:
            return {}
        found = dict.fromkeys(self._biases[site.name], key)
        if not found:
            raise InvalidInput(
                f"site {site.name} has no bias to correct for {format_name}; evaluate the task that "
                "prepared(task, space, recipe) returns"
            )
        return found


def _biases(model: nn.Module, site: Site) -> list[str]:
    """Names of the bias parameters of the modules of a site."""
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [getattr(model.get_submodule(module), "bias", None) for module in site.modules]
    return [named[id(bias)] for bias in found if id(bias) in named]


def rounding_hook(quantizer: Quantizer) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
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
