"""The elastic supernet: accuracy of its sub-networks, with shared and own statistics, and against training alone.

    python benchmarks/architecture_supernet.py [--preset fashion] [--random 8] [--alone 2] [--json FILE] [--weights F]

Trains the supernet of the preset (the weights stay in the cache of the zoo's weights; a killed run goes on), then takes
the largest, the smallest and some random sub-networks and counts the test images that each gets right: with the
statistics that all share, and with its own, re-estimated on 512 training images. The smallest and the first random ones
are also trained alone: as many optimizer steps of as many images, the same optimizer, labels only, one cycle of the
learning rate of the supernet's first phase. Intervals are Wilson's at 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bitfront as bf
import numpy as np
import torch
from bitfront.architecture import Choices
from bitfront.search.families.elastic import (
    ElasticFamily,
    ElasticRecipe,
    ElasticShape,
    SubNetwork,
    batches_of,
    elastic_family,
    resized,
    save_weights,
)
from bitfront.search.families.elastic.presets import preset
from bitfront.zoo.labelled import Images, cross_entropy
from bitfront.zoo.training import Recipe, fit, reproducible
from bitfront.zoo.weights_cache import cached, default_folder

CALIBRATION = 512


def chosen(shape: ElasticShape, random: int) -> dict[str, Choices]:
    """The sub-networks of the table."""
    draw = np.random.default_rng(0)
    found = {"largest": shape.architecture.largest(), "smallest": shape.architecture.smallest()}
    return found | {f"random {number}": shape.architecture.sample(draw) for number in range(1, random + 1)}


def right(model: torch.nn.Module, choices: Choices, images: Images) -> int:
    """Test images that a network gets right."""
    total = 0
    with torch.no_grad():
        for start in range(0, len(images), 250):
            outputs = model(resized(images.inputs[start : start + 250], int(choices["resolution"])))
            total += int((outputs.argmax(1) == images.targets[start : start + 250]).sum())
    return total


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in percent."""
    z, share = 1.959964, count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total**2))
    return 100 * (middle - half), 100 * (middle + half)


def alone(choices: Choices, recipe: ElasticRecipe, train: Images) -> torch.nn.Module:
    """The sub-network trained on labels only, for the steps of the whole supernet; kept in the zoo's cache."""
    own = Recipe(
        f"alone_{recipe.name}",
        1,
        f"{recipe.data}; {recipe.shape.architecture.digest} {choices.digest} at {choices['resolution']}",
        recipe.steps,
        recipe.batch,
        recipe.phases[0].learning_rate,
        recipe.weight_decay,
        recipe.warmup,
    )
    pick = batches_of(train, recipe.batch)

    def draw(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        images, targets = pick(generator)
        return resized(images, int(choices["resolution"])), targets

    def progress(done: int, total: int, loss: float) -> None:
        if done % 250 == 0:
            print(f"  alone: step {done} of {total}, loss {loss:.3f}", file=sys.stderr, flush=True)

    with reproducible(own.seed):
        model = SubNetwork(recipe.shape, choices)
    return cached(model, own, lambda net: fit(net, own, draw, cross_entropy, progress))


def row(name: str, choices: Choices, family: ElasticFamily, shared: ElasticFamily, test: Images) -> dict[str, Any]:
    """One line of the table."""
    started = time.process_time()
    model = family.build(choices)
    seconds = time.process_time() - started
    example = resized(test.inputs[:1], family.resolution(choices))
    sites = bf.SearchSpace.from_model(model, example, formats=["w8"]).sites
    own, common = right(model, choices, test), right(shared.build(choices), choices, test)
    return {
        "name": name,
        "choices": choices.to_dict(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": sum(site.macs for site in sites),
        "build_seconds": seconds,
        "accuracy_shared_statistics": 100 * common / len(test),
        "accuracy": 100 * own / len(test),
        "interval": wilson(own, len(test)),
    }


def show(rows: list[dict[str, Any]]) -> None:
    """The table as markdown."""
    print("| sub-network | pixels | kMACs | parameters | shared statistics | own statistics | 95 % | trained alone |")
    print("|---|---:|---:|---:|---:|---:|---|---:|")
    for each in rows:
        low, high = each["interval"]
        cells = [
            each["name"],
            str(each["choices"]["resolution"]),
            f"{each['macs'] / 1e3:.0f}",
            f"{each['parameters']:,}",
            f"{each['accuracy_shared_statistics']:.1f}",
            f"{each['accuracy']:.1f}",
            f"{low:.1f} to {high:.1f}",
            f"{each['accuracy_alone']:.1f}" if "accuracy_alone" in each else "",
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="fashion")
    parser.add_argument("--random", type=int, default=8)
    parser.add_argument("--alone", type=int, default=2)
    parser.add_argument("--only-alone", action="store_true", help="train these and stop")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--weights", type=Path, help="also write the supernet's weights here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = preset(arguments.preset)
    recipe = found.recipe(1.0, 0)
    train, test = found.data()
    networks = chosen(recipe.shape, arguments.random)
    apart = {name: networks[name] for name in list(networks)[1 : 1 + arguments.alone]}
    trained = {name: alone(choices, recipe, train) for name, choices in apart.items()}
    if arguments.only_alone:
        return
    started = time.process_time()

    def progress(done: int, total: int, loss: float) -> None:
        if done % 50 == 0:
            print(f"  supernet: step {done} of {total}, loss {loss:.3f}", file=sys.stderr, flush=True)

    family = elastic_family(arguments.preset, calibration=CALIBRATION, progress=progress)
    seconds = time.process_time() - started
    print(f"weights in {default_folder()}, digest of the family {family.digest}, {seconds:.0f} CPU seconds to get them")
    if arguments.weights:
        save_weights(family.net, arguments.weights)
    rows = [row(name, choices, family, ElasticFamily(family.net), test) for name, choices in networks.items()]
    for each in rows:
        if each["name"] in trained:
            each["accuracy_alone"] = 100 * right(trained[each["name"]], networks[each["name"]], test) / len(test)
    show(rows)
    if arguments.json:
        record = {
            "preset": arguments.preset,
            "steps": recipe.steps,
            "seconds": seconds,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "rows": rows,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
