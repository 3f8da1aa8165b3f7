"""A training of seconds on generated images; as a script it is killed in the middle of one."""

import os
import signal
import sys
from pathlib import Path

import torch
from bitfront.search.families.elastic import (
    ElasticNet,
    ElasticRecipe,
    ElasticShape,
    ElasticStage,
    progressive_shrinking,
    train,
)

SHAPE = ElasticShape(
    (ElasticStage(4, 1, depths=(1, 2, 3), kernels=(3, 5), expansions=(1, 3)),),
    stem=4,
    head=8,
    resolutions=(6, 8),
    classes=3,
    stem_stride=1,
)
PHASES = progressive_shrinking(SHAPE, largest_steps=8, steps=4, largest_rate=3e-2, rate=2e-2, samples=1)
RECIPE = ElasticRecipe("case", "bars", SHAPE, PHASES, batch=32)


def draw(generator):
    """Images whose class is the row that is bright."""
    classes = torch.randint(3, (RECIPE.batch,), generator=generator)
    images = 0.3 * torch.randn(RECIPE.batch, 1, 8, 8, generator=generator)
    images[torch.arange(RECIPE.batch), 0, 1 + 2 * classes] += 2.0
    return images, classes


if __name__ == "__main__":
    target, last = Path(sys.argv[1]), int(sys.argv[2])

    def kill(step, _total, _loss):
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    train(ElasticNet(SHAPE, seed=RECIPE.seed), RECIPE, draw, checkpoint=target, every=3, progress=kill)
