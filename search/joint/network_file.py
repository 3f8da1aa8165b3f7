"""The chosen network as a plain file: its float weights as safetensors, with the genome in the header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ...architecture import Family, Genome
from ...errors import InvalidInput
from ...files import replacing

if TYPE_CHECKING:
    from torch import nn


def write_network(module: nn.Module, genome: Genome, family: Family, path: str | Path) -> None:
    """Write weights and buffers (to the side, synced, renamed).

    The header's metadata are texts: ``genome`` (the JSON of ``Genome.to_dict``), ``family`` (its name) and
    ``family_digest``. Any reader of safetensors takes the tensors; ``read_network`` gives the module.

    Args:
        module: the plain network of the genome's architecture.
        genome: architecture and formats.
        family: of which it is.
        path: of the file.
    """
    from safetensors.torch import save_file

    metadata = {"genome": json.dumps(genome.to_dict()), "family": family.name, "family_digest": family.digest}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    with replacing(path) as side:
        save_file(tensors, side, metadata=metadata)


def read_network(path: str | Path, family: Family) -> tuple[nn.Module, Genome]:
    """The module of a file, with its weights, and the genome.

    Args:
        path: what ``write_network`` wrote.
        family: builds the architecture; its own weights may have changed since.

    Raises:
        InvalidInput: the file is missing, is no network of a genome, is of another family, or does not fit it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as cause:
        raise InvalidInput(f"cannot read the network {path}: {' '.join(str(cause).split())}") from None
    if "genome" not in metadata or metadata.get("family") != family.name:
        raise InvalidInput(
            f"{path} is a network of family {metadata.get('family')!r}, not of {family.name!r}; give the family that "
            "was searched"
        )
    genome = Genome.from_dict(json.loads(metadata["genome"]))
    module = family.build(family.architecture.choices(genome.choices)).eval()
    try:
        module.load_state_dict(state)
    except RuntimeError as cause:
        raise InvalidInput(f"{path} does not fit its architecture: {' '.join(str(cause).split())[:300]}") from None
    return module, genome
