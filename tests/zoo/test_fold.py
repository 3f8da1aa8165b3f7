"""Folded BatchNorm against the same affine map written out in float64, and where folding must not happen."""

import pytest
import torch
from bitfront.zoo.fold import fold_batch_norm
from torch import nn


def _settled(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.1)
    return model.eval()


def test_matches_the_formula_in_float64():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4, eps=1e-3)
    model = _settled(nn.Sequential(convolution, norm))
    scale = norm.weight.double() / (norm.running_var.double() + 1e-3).sqrt()
    folded = fold_batch_norm(model)
    rounding = {"rtol": 2e-6, "atol": 2e-6}  # some float32 roundings of values of about 1
    wanted = convolution.weight.double() * scale[:, None, None, None]
    torch.testing.assert_close(folded[0].weight.double(), wanted, **rounding)
    expected = norm.bias.double() + scale * (convolution.bias.double() - norm.running_mean.double())
    torch.testing.assert_close(folded[0].bias.double(), expected, **rounding)
    assert isinstance(folded[1], nn.Identity)
    assert isinstance(model[1], nn.BatchNorm2d)


class _Branching(nn.Module):
    """The convolution's own output is read twice, so its BatchNorm cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class _Shared(nn.Module):
    """The convolution is called twice, once without BatchNorm after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.conv(x).relu()))


@pytest.mark.parametrize("kind", [_Branching, _Shared])
def test_leaves_what_cannot_be_folded(kind):
    model = _settled(kind())
    folded = fold_batch_norm(model)
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    assert isinstance(folded.norm, nn.BatchNorm2d)
    torch.testing.assert_close(folded(x), model(x))


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="eval mode"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)))
