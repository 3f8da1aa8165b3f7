"""The float model's outputs on a split: computed once, and by one of the workers of a machine."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import torch
from torch import Tensor

from ..errors import NonFiniteOutput
from ..task import Split, Task
from .float_run import run_float
from .metrics import output_tensor
from .tensor_files import TensorFolder


class FloatReference:
    """Float outputs by split; all that were asked for stay in memory (or mapped), outside every budget.

    Args:
        task: model and data.
        folder: what the workers of a machine share; ``None`` keeps outputs in memory only.
    """

    def __init__(self, task: Task, folder: str | Path | None = None) -> None:
        self.task = task
        self.folder = None if folder is None else TensorFolder(folder)
        self._outputs: dict[Split, list[Tensor]] = {}
        self._seconds: dict[Split, float] = {}

    def outputs(self, split: Split) -> list[Tensor]:
        """The tensor that is judged (``output_tensor``), for every batch.

        Raises:
            NonFiniteOutput: the float model gives NaN or infinity.
        """
        if split not in self._outputs:
            self._outputs[split] = self._shared(split) if self.folder else self._computed(split)
        return self._outputs[split]

    def seconds(self, split: Split) -> float:
        """How long the float model took for the split."""
        self.outputs(split)
        return self._seconds[split]

    def computed(self, split: Split, position: int) -> Tensor:
        """The float output of one batch, computed now."""
        with torch.no_grad():
            output = output_tensor(run_float(self.task.model, self.task.split(split)[position], split))
        if not bool(torch.isfinite(output).all()):
            raise NonFiniteOutput(f"the float model gives NaN or infinity on the {split} data")
        return output

    def _computed(self, split: Split) -> list[Tensor]:
        started = time.perf_counter()
        found = [self.computed(split, position) for position in range(len(self.task.split(split)))]
        self._seconds[split] = time.perf_counter() - started
        return found

    def _shared(self, split: Split) -> list[Tensor]:
        assert self.folder is not None
        content = hashlib.sha256(f"{self.task.digest(split)}|{split}|{torch.__version__}".encode())
        name = f"float-{content.hexdigest()[:32]}"
        file = self.folder.read(name)
        if file is None:
            found = self._computed(split)
            plain = {str(position): output for position, output in enumerate(found)}
            written = self.folder.write(name, plain, {"seconds": repr(self._seconds[split])})
            file = self.folder.read(name) if written else None
            if file is None:
                return found
        tensors, metadata = file
        self._seconds[split] = float(metadata["seconds"])
        parameter = next(self.task.model.parameters(), None)
        device = "cpu" if parameter is None else parameter.device
        return [tensors[str(position)].to(device) for position in range(len(tensors))]
