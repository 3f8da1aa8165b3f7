"""Whether held-out data is held out: its samples must be in neither the calibration nor the validation data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ..task import SPLITS, Split, Task


def seen_before(task: Task) -> tuple[int, int]:
    """How many held-out samples scoring or search sees too, compared by the bytes of their inputs; and how many are.

    Args:
        task: its data; targets do not count, the same inputs with another label were seen all the same.

    Returns:
        Held-out samples that are also in the calibration or validation data, and all held-out samples.
    """
    known = {digest for split in SPLITS[:-1] for digest in _samples(task, split)}
    held = list(_samples(task, SPLITS[-1]))
    return sum(digest in known for digest in held), len(held)


def _samples(task: Task, split: Split) -> Iterator[bytes]:
    """A digest of every sample of a split."""
    import torch

    for batch in task.split(split):
        for index in range(len(batch)):
            content = hashlib.sha256()
            for name, tensor in sorted(batch.piece(index, index + 1).tensors.items()):
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                content.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
                content.update(flat.view(torch.uint8).numpy().tobytes())
            yield content.digest()
