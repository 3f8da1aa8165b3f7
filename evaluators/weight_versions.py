"""Notices that a model was changed after something had been computed from it."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack

from torch import Tensor, nn

from ..errors import InvalidInput
from .batch_norm import batch_norms

_exchanged: Counter[int] = Counter()  # id of a parameter -> how many exchanges of its data are open


class WeightVersions:
    """The parameters and running statistics of a model as they are now.

    A change is seen by torch's version counter (optimizer steps, ``load_state_dict``, in-place operations; of batch
    normalization in training mode the counter of its batches), by the address of the data (``model.to``,
    ``parameter.data = ...``), and by another parameter at the same place. What is written in place through
    ``parameter.data`` leaves no trace and is not seen.

    Args:
        model: whose exchanges by ``exchange`` do not count as changes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = []
        for name, parameter in model.named_parameters():
            path, _, leaf = name.rpartition(".")
            held = model.get_submodule(path)._parameters
            self._parameters.append((name, held, leaf, parameter, _version(parameter), parameter.data_ptr()))
        self._statistics = [
            (path, buffer, _version(buffer))
            for path, norm in batch_norms(model).items()
            for buffer in (norm.running_mean, norm.running_var, norm.num_batches_tracked)
            if buffer is not None
        ]

    def check(self) -> None:
        """Whether everything is as it was; costs less than a microsecond for each parameter.

        Raises:
            InvalidInput: something changed.
        """
        for name, held, leaf, parameter, version, address in self._parameters:
            moved = parameter.data_ptr() != address and not _exchanged[id(parameter)]
            if moved or _version(parameter) != version or held.get(leaf) is not parameter:
                raise InvalidInput(f"the weights changed since this evaluator was made ({name}); make a new one")
        for path, buffer, version in self._statistics:
            if _version(buffer) != version:
                raise InvalidInput(
                    f"the statistics of batch normalization changed since this evaluator was made ({path}); make a "
                    "new one"
                )


def exchange(stack: ExitStack, parameter: nn.Parameter, tensor: Tensor) -> None:
    """Give a parameter other data until a stack unwinds; exchanges may nest."""
    stack.callback(_put_back, parameter, parameter.data)
    _exchanged[id(parameter)] += 1
    parameter.data = tensor


def _put_back(parameter: nn.Parameter, data: Tensor) -> None:
    parameter.data = data
    _exchanged[id(parameter)] -= 1
    if not _exchanged[id(parameter)]:
        del _exchanged[id(parameter)]


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # inference tensors have no counter
