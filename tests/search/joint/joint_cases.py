"""A small family on the digits of scikit-learn: residual blocks that can be left out and cut."""

import hashlib

import bitfront as bf
import numpy as np
import torch
from bitfront.architecture import ArchitectureSpace, Choices, Dimension
from sklearn.datasets import load_digits
from torch import nn

HIDDEN = (8, 16, 24)
BLOCKS = 2
MADE = {}


class Block(nn.Module):
    def __init__(self, hidden, width=32):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x, hidden=None):
        if hidden is None:
            return x + self.down(torch.relu(self.up(x)))
        inner = torch.relu(nn.functional.linear(x, self.up.weight[:hidden], self.up.bias[:hidden]))
        return x + nn.functional.linear(inner, self.down.weight[:, :hidden], self.down.bias)


class Net(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.stem, self.head = nn.Linear(64, 32), nn.Linear(32, 10)
        self.blocks = nn.ModuleList(Block(each) for each in hidden)

    def forward(self, x, hidden=None):
        x = self.stem(x.flatten(1) if x.ndim == 2 else nn.functional.adaptive_avg_pool2d(x, 8).flatten(1))
        for index, block in enumerate(self.blocks):
            if hidden is None or index < len(hidden):
                x = block(x, None if hidden is None else hidden[index])
        return self.head(x)


class Digits:
    """The family: cuts its networks out of one that was trained with random choices."""

    name = "digits-mlp"

    def __init__(self, resolutions=None):
        self.net, self.resolutions = trained(), resolutions
        first = [Dimension("resolution", "resolution", resolutions)] if resolutions else []
        depth = Dimension("depth", "depth", tuple(range(BLOCKS + 1)))
        blocks = [
            Dimension(f"block{index}.hidden", "width", HIDDEN, when=(("depth", tuple(range(index + 1, BLOCKS + 1))),))
            for index in range(BLOCKS)
        ]
        self.architecture = ArchitectureSpace((*first, depth, *blocks))

    def build(self, choices):
        hidden = [int(choices[f"block{index}.hidden"]) for index in range(int(choices["depth"]))]
        made = Net(hidden)
        with torch.no_grad():
            for mine, theirs in ((made.stem, self.net.stem), (made.head, self.net.head)):
                mine.load_state_dict(theirs.state_dict())
            for mine, theirs, kept in zip(made.blocks, self.net.blocks, hidden, strict=False):
                mine.up.weight.copy_(theirs.up.weight[:kept])
                mine.up.bias.copy_(theirs.up.bias[:kept])
                mine.down.weight.copy_(theirs.down.weight[:, :kept])
                mine.down.bias.copy_(theirs.down.bias)
        return made.eval()

    def resolution(self, choices):
        return int(choices["resolution"]) if self.resolutions else None

    @property
    def digest(self):
        content = hashlib.sha256(repr(self.resolutions).encode())
        for tensor in self.net.state_dict().values():
            content.update(tensor.numpy().tobytes())
        return content.hexdigest()[:16]


def data():
    """Images [1797, 64] and labels, shuffled."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return torch.tensor(images[order] / 16, dtype=torch.float32), torch.tensor(labels[order])


def trained():
    """The network that all are cut out of; made once (a cache of functools would not travel to workers)."""
    if "net" not in MADE:
        MADE["net"] = _trained()
    return MADE["net"]


def _trained():
    images, labels = data()
    torch.manual_seed(0)
    net, draw = Net([max(HIDDEN)] * BLOCKS), np.random.default_rng(0)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(300):
        rows = torch.tensor(draw.integers(0, 1000, 128))
        hidden = [int(draw.choice(HIDDEN)) for _ in range(int(draw.integers(0, BLOCKS + 1)))]
        loss = nn.functional.cross_entropy(net(images[rows], None if step % 2 else hidden), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def task(quality="loss", images=None):
    """The task on samples that were not trained on; the model is the largest network."""
    given, labels = data()
    given = given if images is None else images(given)
    batches = {
        "calibration": [(given[1000:1032], labels[1000:1032])],
        "validation": [(given[1100 + 64 * i : 1164 + 64 * i], labels[1100 + 64 * i : 1164 + 64 * i]) for i in range(3)],
        "holdout": [(given[1400 + 64 * i : 1464 + 64 * i], labels[1400 + 64 * i : 1464 + 64 * i]) for i in range(3)],
    }
    family = Digits()
    return bf.Task(family.build(family.architecture.largest()), **batches, quality=quality, name="digits")


def choices(**values):
    return Choices.from_dict({name.replace("_", "."): value for name, value in values.items()})
