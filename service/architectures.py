"""Networks that a job may name for weights of its own, without any code of its own: those of the zoo."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .. import zoo
from ..errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor, nn

_LARGEST_ARGUMENT = 65_536


def check_architecture(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse a name or arguments that ``architecture`` would refuse.

    Raises:
        InvalidInput: no such architecture, or no such argument.
    """
    if name not in zoo.names():
        near = difflib.get_close_matches(name, zoo.names(), n=1, cutoff=0.0)[0]
        raise InvalidInput(
            f"model.architecture: none is called {name!r}; the nearest is {near!r} (all: {', '.join(zoo.names())})"
        )
    known = [*inspect.signature(_builder(name)).parameters]
    for key, value in arguments.items():
        if key not in known:
            raise InvalidInput(f"model.arguments: {name} takes {', '.join(known) or 'none'}, not {key!r}")
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST_ARGUMENT:
            raise InvalidInput(
                f"model.arguments.{key}: give a whole number from 1 to {_LARGEST_ARGUMENT}, got {value!r}"
            )


def architecture(name: str, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """A network of the zoo with weights from elsewhere, BatchNorm folded into the convolutions.

    Args:
        name: of a zoo entry.
        arguments: sizes that its constructor takes.
        state: its state dict, BatchNorm folded or not.

    Returns:
        The network in eval mode.

    Raises:
        InvalidInput: no such architecture or argument, or the weights do not fit.
    """
    from ..zoo.fold import fold_batch_norm

    check_architecture(name, arguments)
    model = _builder(name)(**arguments).eval()
    if set(state) == set(model.state_dict()):
        load_state(model, state, name)
        return fold_batch_norm(model)
    folded = fold_batch_norm(model)
    load_state(folded, state, name)
    return folded


def load_state(model: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Fill a model.

    Raises:
        InvalidInput: names or shapes do not fit.
    """
    try:
        model.load_state_dict(dict(state))
    except (RuntimeError, AttributeError, TypeError) as cause:
        told = " ".join(str(cause).split())[:300]
        raise InvalidInput(f"model.weights: {name} does not fit {type(model).__name__}: {told}") from None


def _builder(name: str) -> Callable[..., nn.Module]:
    from ..zoo.char_gpt import CharGPT
    from ..zoo.efficientnet_lite0 import EfficientNetLite0
    from ..zoo.mobilenet_v2 import MobileNetV2
    from ..zoo.resnet import ResNet

    def fashion_resnet(blocks: int = 2, width: int = 16, stride: int = 2, classes: int = 10) -> nn.Module:
        return ResNet(blocks, width, stride, classes)

    def minilm_l6() -> nn.Module:  # its layers are made from the settings that its package carries
        return zoo.load("minilm_l6", calibration=1, validation=1, holdout=1).model

    builders: dict[str, Callable[..., nn.Module]] = {
        "char_gpt": CharGPT,
        "digits_resnet20": ResNet,
        "efficientnet_lite0": EfficientNetLite0,
        "fashion_resnet": fashion_resnet,
        "minilm_l6": minilm_l6,
        "mobilenet_v2": MobileNetV2,
    }
    return builders[name]
