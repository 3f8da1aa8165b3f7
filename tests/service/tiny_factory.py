"""A factory for job files in tests: a small convolutional network with fixed weights."""

import torch
from torch import nn


def tiny(width=8, broken=False):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, groups=width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 5),
    )  # fmt: skip
    if broken:
        with torch.no_grad():
            model[0].weight[0, 0, 0, 0] = float("nan")
    return model


def slow(seconds=0.15, brake=None):
    """The same network, slowed down, so that a test can kill a run; with `brake`, only while that file exists."""
    model = tiny()
    model.append(Wait(seconds, brake))
    return model


class Wait(nn.Module):
    def __init__(self, seconds, brake=None):
        super().__init__()
        self.seconds = seconds
        self.brake = brake

    def forward(self, x):
        import os
        import time

        if self.brake is None or os.path.exists(self.brake):
            time.sleep(self.seconds)
        return x


def not_a_model():
    return 3
