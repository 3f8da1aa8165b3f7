"""The patches of convolutions: the inputs behind every output position, as a strided view of the padded input."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def patches(module: Convolution, value: Tensor) -> Tensor:
    """The patches of a convolution.

    Args:
        module: says kernel, stride, dilation, padding and padding mode.
        value: its input [samples, channels, *space], or without samples.

    Returns:
        A view [samples, *output space, channels, *kernel]; the last axes in the order of the weight's.
    """
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = functional.pad(_batched(value, module), _padding(module), mode=mode)
    return _windows(padded, module.kernel_size, module.stride, module.dilation)


def transposed_patches(module: Transposed, value: Tensor, output: Tensor) -> Tensor:
    """The patches of a transposed convolution.

    It is a convolution with the mirrored kernel over the input with stride - 1 zeros between its elements (Dumoulin and
    Visin 2016, arXiv:1603.07285, section 4).

    Args:
        module: says kernel, stride, dilation and padding.
        value: its input [samples, channels, *space], or without samples.
        output: what it returned; its shape tells the output padding, which a caller may choose.

    Returns:
        A view [samples, *output space, channels, *kernel]; the last axes in the order of the weight's.
    """
    value, spread = _batched(value, module), len(module.kernel_size)
    sizes = [(size - 1) * step + 1 for size, step in zip(value.shape[2:], module.stride, strict=True)]
    spaced = value.new_zeros(*value.shape[:2], *sizes)
    positions: tuple[slice, ...] = tuple(slice(None, None, step) for step in (1, 1, *module.stride))
    spaced[positions] = value
    around: list[int] = []
    for axis in reversed(range(spread)):
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1)
        before = reach - int(module.padding[axis])
        around += [before, output.shape[axis - spread] + reach - sizes[axis] - before]
    windows = _windows(functional.pad(spaced, around), module.kernel_size, (1,) * spread, module.dilation)
    return windows.flip(tuple(range(-spread, 0)))


def _batched(value: Tensor, module: Convolution | Transposed) -> Tensor:
    return value if value.ndim == len(module.kernel_size) + 2 else value.unsqueeze(0)


def _padding(module: Convolution) -> list[int]:
    """Elements added before and after each axis, the last axis first, as ``torch.nn.functional.pad`` takes them."""
    around: list[int] = []
    for axis in reversed(range(len(module.kernel_size))):
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1)
        if isinstance(module.padding, str):
            before = reach // 2 if module.padding == "same" else 0
            around += [before, reach - before if module.padding == "same" else 0]
        else:
            around += [int(module.padding[axis])] * 2
    return around


def _windows(value: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> Tensor:
    """[samples, channels, *space] -> [samples, *output space, channels, *kernel], without a copy."""
    spread = len(kernel)
    for axis, (size, step, gap) in enumerate(zip(kernel, stride, dilation, strict=True)):
        value = value.unfold(axis + 2, (size - 1) * gap + 1, step)[..., ::gap]
    return value.movedim(1, 1 + spread)
