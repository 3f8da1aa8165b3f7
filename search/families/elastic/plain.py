"""A sub-network as a plain module: ordinary convolutions, batch normalization and a linear classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

from ....architecture import Value
from .shape import Activation, BlockShape, ElasticShape

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish}


class Convolution(nn.Sequential):
    """Convolution (``conv``) that keeps the size at stride 1, batch normalization (``norm``), activation (``act``).

    Args:
        inputs: channels.
        outputs: channels.
        kernel: odd size.
        shape: of the network.
        stride: of the convolution.
        groups: of the convolution.
        activated: whether there is an activation.
    """

    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        shape: ElasticShape,
        *,
        stride: int = 1,
        groups: int = 1,
        activated: bool = True,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv"] = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        layers["norm"] = nn.BatchNorm2d(outputs, eps=shape.eps)
        if activated:
            layers["act"] = activation(shape)
        super().__init__(layers)


def activation(shape: ElasticShape) -> nn.Module:
    """The activation of a shape."""
    return _ACTIVATIONS[shape.activation]()


class Block(nn.Module):
    """Inverted bottleneck: 1x1 to more channels, depthwise, 1x1 back; a residual connection where shapes allow it.

    Args:
        block: its place and channels.
        shape: of the network.
        kernel: of the depthwise convolution.
        expansion: hidden channels over input channels.
    """

    def __init__(self, block: BlockShape, shape: ElasticShape, kernel: int, expansion: int) -> None:
        super().__init__()
        hidden, outputs = block.hidden(expansion), block.stage.width
        self.residual = block.residual
        self.expand = Convolution(block.inputs, hidden, 1, shape)
        self.depthwise = Convolution(hidden, hidden, kernel, shape, stride=block.stride, groups=hidden)
        self.project = Convolution(hidden, outputs, 1, shape, activated=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] -> [B, width, ceil(H / stride), ceil(W / stride)]."""
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class SubNetwork(nn.Module):
    """Images [B, channels, H, W] to logits [B, classes].

    A layer has the same name in every sub-network that holds it: ``stage2.block1.depthwise.conv``.

    Args:
        shape: of the supernet.
        choices: of ``shape.architecture``; initialised at random, the supernet fills in its weights.
    """

    def __init__(self, shape: ElasticShape, choices: Mapping[str, Value]) -> None:
        super().__init__()
        self.stem = Convolution(shape.channels, shape.stem, 3, shape, stride=shape.stem_stride)
        self.body: list[str] = []
        for block in running(shape, choices):
            stage = f"stage{block.number}"
            if stage not in self.body:
                self.add_module(stage, nn.Sequential())
                self.body.append(stage)
            kernel, expansion = block_choices(block, choices)
            self.get_submodule(stage).add_module(f"block{block.position}", Block(block, shape, kernel, expansion))
        self.head = Convolution(shape.stages[-1].width, shape.head, 1, shape)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(shape.head, shape.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, channels, H, W] -> logits [B, classes]."""
        x = self.stem(x)
        for stage in self.body:
            x = self.get_submodule(stage)(x)
        logits: torch.Tensor = self.classifier(self.pool(self.head(x)).flatten(1))
        return logits


def running(shape: ElasticShape, choices: Mapping[str, Value]) -> list[BlockShape]:
    """The blocks that run under these choices, from input to output."""
    return [block for block in shape.blocks() if f"{block.name}.kernel" in choices]


def block_choices(block: BlockShape, choices: Mapping[str, Value]) -> tuple[int, int]:
    """Kernel and expansion of a block that runs."""
    return int(choices[f"{block.name}.kernel"]), int(choices[f"{block.name}.expansion"])
