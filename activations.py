"""The tensors of a forward pass: when each is made, who reads it, how large it is.

Tensors are those of a runtime that fuses pointwise operations into the operation before them, as onnxruntime, TensorRT
and TFLite do; ``activation_recorder.py`` finds them. This module needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Read:
    """One reading of a tensor.

    Attributes:
        step: the operation that reads; the end of the pass for outputs of the model.
        module: path of the quantizable module whose input this is; empty for all other operations.
        elements: how many elements are read (a slice has fewer than its tensor).
    """

    step: int
    module: str
    elements: int


@dataclass(frozen=True, slots=True)
class Activation:
    """One tensor of the forward pass.

    Attributes:
        made: the operation that writes it; -1 for inputs of the model.
        elements: number of elements.
        width: bytes of one element as the float model stores it.
        per_sample: whether it is computed from the inputs, and so grows with the batch.
        reads: who reads it, in order.
    """

    made: int
    elements: int
    width: int
    per_sample: bool
    reads: tuple[Read, ...]


@dataclass(frozen=True)
class ActivationGraph:
    """All tensors of a forward pass.

    Attributes:
        activations: in the order in which they are made.
        steps: number of operations; outputs are read at this step.
        samples: batch size of the recorded pass.
        operations: name of the operation of each step.
    """

    activations: tuple[Activation, ...]
    steps: int
    samples: int
    operations: tuple[str, ...] = ()
