"""Where a training stands, on disk: weights, statistics and the optimizer's moments in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ....errors import Conflict, InvalidInput
from ....files import replacing


def save_checkpoint(path: Path, net: nn.Module, optimizer: Optimizer | None, step: int, digest: str) -> None:
    """Write to the side, sync, rename: after a kill at any time the old file or the new one is there, whole.

    Args:
        path: of the file.
        net: its parameters and buffers are stored.
        optimizer: its state is stored; ``None`` between two phases.
        step: steps done.
        digest: of the recipe.
    """
    from safetensors.torch import save_file

    tensors = {f"net.{name}": value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    if optimizer is not None:
        for number, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    with replacing(path) as side:
        save_file(tensors, side, metadata={"step": str(step), "recipe": digest})


def load_checkpoint(path: Path, net: nn.Module, digest: str) -> tuple[int, dict[int, dict[str, torch.Tensor]]]:
    """Give ``net`` the stored weights.

    Args:
        path: of the file.
        net: changed in place.
        digest: of the recipe that goes on.

    Returns:
        Steps done, and the optimizer's state by parameter (empty between two phases).

    Raises:
        Conflict: the file is of another recipe.
        InvalidInput: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, torch.Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            for key in file.keys():  # noqa: SIM118 (the file is no mapping)
                tensors[key] = file.get_tensor(key)
    except (SafetensorError, OSError) as cause:
        raise InvalidInput(
            f"the checkpoint {path} cannot be read ({cause}); remove it to train from the start"
        ) from None
    if metadata.get("recipe") != digest:
        raise Conflict(
            f"the checkpoint {path} is of recipe {metadata.get('recipe')}, not {digest}; remove it or name another file"
        )
    net.load_state_dict({key.removeprefix("net."): value for key, value in tensors.items() if key.startswith("net.")})
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".")
            state.setdefault(int(number), {})[name] = value
    return int(metadata["step"]), state
