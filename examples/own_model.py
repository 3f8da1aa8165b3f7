"""Your own model, in Python: any nn.Module, a few calibration samples, a budget.

python examples/own_model.py
"""

import bitfront as bf
import torch
from torch import nn


def build() -> nn.Module:
    """A small network that has learnt to tell the parity of two coordinates' signs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        x, y = batch(256)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(size, 2)
    return x, (x[:, 0] * x[:, 1] > 0).long()


def main() -> None:
    torch.set_num_threads(1)
    task = bf.Task(build(), calibration=[batch(64)], validation=[batch(256)], holdout=[batch(256)], quality="kl")
    space = bf.SearchSpace.from_model(task.model, batch(1), formats=["w2", "w3", "w4", "w6", "w8", "w8a8"])
    result = bf.run(task, space, objectives=["quality", "size_mb"], evaluations=24, executor="local")
    print(result.front[["id", "pareto", "holdout_value", "holdout_low", "holdout_high", "size_mb", "avg_bits"]])
    choice = result.choose(budgets={"avg_bits": 4.0})
    print(choice.reason)
    report = bf.export(task.model, choice.point.configuration, "out/own_model.onnx", example_inputs=batch(8))
    print(
        f"{report.path}: {report.bytes_on_disk} bytes, relative error {report.relative_error:.1e} in {report.runtime}"
    )


if __name__ == "__main__":
    main()
