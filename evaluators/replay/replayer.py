"""Captured programs of a model, one for each shape of inputs, used only where they were seen to agree with it."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ...errors import InvalidInput
from ...task import Batch, Split
from ..float_reference import FloatReference
from ..float_run import on_device
from ..metrics import output_tensor
from ..quantized_model import QuantizedModel
from .capture import NotReplayable, capture
from .prefixes import PrefixRunner
from .program import Rounding

Mode = Literal["auto", "always", "never"]

_SHAPES = 8  # captures of one model
_WORTHWHILE = 2.0  # seconds of evaluation that a capture must be able to shorten


class Replayer:
    """Decides which batches are replayed.

    A batch is replayed if a program could be captured for its shape and has given, in float, the very bits of the
    model's own output on this batch. Everything else is evaluated by running the module; ``reasons`` says why.

    Args:
        quantized: the model.
        reference: its float outputs.
        budget: bytes that kept values may take.
        mode: ``"auto"`` captures once the evaluations asked for so far would take two seconds without.

    Attributes:
        reasons: shape of inputs -> why batches of that shape are not replayed.

    Raises:
        InvalidInput: an unknown mode.
    """

    def __init__(self, quantized: QuantizedModel, reference: FloatReference, budget: int, mode: Mode = "auto") -> None:
        check_mode(mode)
        self.reasons: dict[str, str] = {}
        self._quantized = quantized
        self._reference = reference
        self._budget = budget
        self._mode = mode
        self._asked = 0.0
        self._runners: dict[str, PrefixRunner] = {}
        self._checked: set[tuple[Split, int]] = set()
        self._modules = list(
            dict.fromkeys(name for site in quantized.space.sites for name in site.modules if quantized.reachable(name))
        )

    def worthwhile(self, candidates: int, split: Split) -> bool:
        """Whether to replay so many candidates on a split."""
        if self._mode == "never" or candidates < 2:
            return False
        self._asked += candidates * self._reference.seconds(split)
        return self._mode == "always" or self._asked >= _WORTHWHILE

    def runner(self, split: Split, position: int) -> PrefixRunner | None:
        """What replays a batch; ``None`` if the module itself must run."""
        batch = on_device(self._reference.task.split(split)[position], self._quantized.model)
        shape = _shape(batch)
        if shape not in self._runners and shape not in self.reasons:
            self._capture(batch, shape)
        if shape in self.reasons:
            return None
        if (split, position) not in self._checked:
            self._check(batch, shape, split, position)
        return self._runners.get(shape)

    def _capture(self, batch: Batch, shape: str) -> None:
        if len(self._runners) == _SHAPES:
            self.reasons[shape] = f"inputs of {_SHAPES} other shapes were captured before"
            return
        try:
            program = capture(self._quantized.model, batch, self._modules)
        except NotReplayable as cause:
            self.reasons[shape] = str(cause)
            return
        self._runners[shape] = PrefixRunner(program, self._quantized, self._budget)

    def _check(self, batch: Batch, shape: str, split: Split, position: int) -> None:
        """Replay the float model on a batch; give the shape up if a bit differs."""
        given = _float_output(self._runners[shape], batch)
        for wanted in (self._reference.outputs(split)[position], self._reference.computed(split, position)):
            if given.dtype == wanted.dtype and torch.equal(given, wanted):
                self._checked.add((split, position))
                return
            # a reference from another worker may differ from this process in the last bits: compare with one made here
        self.reasons[shape] = f"the replay of {split} batch {position} differs from the model"
        del self._runners[shape]


def check_mode(mode: str) -> None:
    """Refuse what is no mode of replay.

    Raises:
        InvalidInput: it is none.
    """
    if mode not in get_args(Mode):
        raise InvalidInput(f"replay={mode!r}; choose {' or '.join(map(repr, get_args(Mode)))}")


def _float_output(runner: PrefixRunner, batch: Batch) -> Tensor:
    program, model = runner.program, runner.quantized.model
    with torch.no_grad():
        values = program.start(list(batch.tensors.values()), model.get_parameter)
        program.timed_run(values, Rounding())
    return output_tensor(program.result(values))


def _shape(batch: Batch) -> str:
    """What a capture depends on."""
    return ", ".join(
        f"{name}: {tuple(tensor.shape)} {tensor.stride()} {tensor.dtype} {tensor.device}"
        for name, tensor in batch.tensors.items()
    )
