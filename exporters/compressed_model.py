"""The Hugging Face model that a folder in the layout of the hub is written from: its names, and what servers fuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import UnsupportedModel
from ..space import SearchSpace, Site, Tie

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Projections that the servers stack into one matrix, as the families of models name them.
FUSED = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
)
#: Leaf names of the output layer of a language model.
OUTPUT_LAYERS = frozenset({"lm_head", "embed_out", "output_projection"})
_REASON = "vLLM and SGLang compute them as one matrix"


@dataclass(frozen=True)
class Hub:
    """A ``transformers`` model inside the model that was searched.

    Attributes:
        model: the transformers model.
        prefix: its path in the searched model with a dot behind; empty where it is that model.
    """

    model: PreTrainedModel
    prefix: str

    @staticmethod
    def of(model: nn.Module) -> Hub:
        """Find it.

        Raises:
            UnsupportedModel: there is none, or more than one, or the model around it has parameters of its own.
        """
        from transformers import PreTrainedModel

        found: list[tuple[str, PreTrainedModel]] = []
        for path, module in model.named_modules():
            inside = any(path.startswith(f"{outer}.") or not outer for outer, _ in found)
            if isinstance(module, PreTrainedModel) and not inside:
                found.append((path, module))
        if len(found) != 1:
            raise UnsupportedModel(
                f"compressed-tensors writes the layout of the Hugging Face hub, and {type(model).__name__} holds "
                f"{len(found)} transformers models where one is needed; choose torchao or onnx"
            )
        path, inner = found[0]
        own = {id(parameter) for parameter in inner.parameters()}
        outside = [name for name, parameter in model.named_parameters() if id(parameter) not in own]
        if outside:
            raise UnsupportedModel(
                f"{type(model).__name__} has parameters outside its transformers model ({', '.join(outside[:3])}), "
                "which the layout of the hub has no place for; choose torchao or onnx"
            )
        return Hub(inner, f"{path}." if path else "")

    def name(self, path: str) -> str:
        """The name in the folder of a module or parameter of the searched model."""
        return path.removeprefix(self.prefix)

    def refusals(self) -> Iterator[str]:
        """What keeps the folder from being read back; empty if nothing does."""
        import transformers

        name = type(self.model).__name__
        if getattr(transformers, name, None) is not type(self.model):
            yield f"{name} is no class of the transformers package, so that nobody can load the folder"
        if getattr(self.model, "_weight_conversions", None):
            yield f"{name} stores its weights under other names than its modules have; choose torchao"
        wide = {parameter.dtype for parameter in self.model.parameters()}
        if wide != {torch.float32}:
            yield f"weights are {', '.join(sorted(map(str, wide)))}; export model.float()"

    def stored(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint by name: every parameter once, and the persistent buffers."""
        once = {name for name, _ in self.model.named_parameters()}
        twice = {name for name, _ in self.model.named_parameters(remove_duplicate=False)} - once
        return {name: tensor.detach() for name, tensor in self.model.state_dict().items() if name not in twice}

    def linear(self) -> Iterator[str]:
        """Names of all linear modules."""
        return (name for name, module in self.model.named_modules() if isinstance(module, nn.Linear))

    @property
    def output_layer(self) -> str:
        """Name of the output layer of a language model; empty if there is none."""
        output = self.model.get_output_embeddings()
        return next((name for name, module in self.model.named_modules() if module is output), "")

    def config(self) -> dict[str, Any]:
        """What ``config.json`` says of the model itself, sorted."""
        found: dict[str, Any] = json.loads(self.model.config.to_json_string(use_diff=True))
        found["architectures"] = [type(self.model).__name__]
        found["dtype"] = str(self.model.dtype).removeprefix("torch.")
        return found

    def arguments(self) -> dict[str, Any]:
        """Arguments besides the configuration that the class was made with and that change its parameters."""
        without_pooler = getattr(self.model, "pooler", self) is None
        return {"add_pooling_layer": False} if without_pooler else {}


def fused_groups(space: SearchSpace) -> list[Tie]:
    """Sites that are siblings and that the servers stack into one matrix, by the names of ``FUSED``."""
    parents: dict[str, dict[str, str]] = {}
    for site in space.sites:
        parent, _, leaf = site.name.rpartition(".")
        parents.setdefault(parent, {})[leaf] = site.name
    found = []
    for children in parents.values():
        for leaves in FUSED:
            present = tuple(children[leaf] for leaf in leaves if leaf in children)
            if len(present) > 1:
                found.append(Tie(present, _REASON))
    return found


def is_tokenwise(site: Site) -> bool:
    """Whether inputs have the shape [batch, tokens, features], which the dynamic scales of the library are made for."""
    return len(site.input_shape) == 3
