"""A kernel in torch: its data on a device, the call that is timed, and what the call must give.

The same code serves the CPU and CUDA. The reference is computed in float64 from the operands as the kernel reads them
(dequantized), on the first rows and output channels, so that ``TorchKernel.error`` is the kernel's own rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import NotMeasured
from ..kernels import Kernel
from ..timing import MAX_REPEATS
from .catalogue import format_of, is_conversion

if TYPE_CHECKING:
    import torch

#: Rows and output channels that are compared with the reference.
CHECKED = 16
#: Format -> largest relative error (Frobenius norm) that the kernel's rounding explains.
BOUNDS = {"fp32": 1e-4, "tf32": 5e-3}
OTHER_BOUND = 2e-2

Call = Callable[[], "torch.Tensor"]
Compare = Callable[["torch.Tensor"], float]


@dataclass(frozen=True)
class TorchKernel:
    """A kernel ready to run.

    Attributes:
        fresh: the input's values.
        x: the input that the call reads.
        call: what is timed.
        compare: relative error of the call's output.
        bound: the error that the format explains.
        executed: the operators of torch that the call runs, joined by ``+``.
        tf32: whether float32 products may round their inputs to tf32 while the call runs.
        most_repeats: runs that one sample may hold.
    """

    fresh: torch.Tensor
    x: torch.Tensor
    call: Call
    compare: Compare
    bound: float
    executed: str
    tf32: bool = False
    most_repeats: int = MAX_REPEATS

    def prepare(self) -> None:
        """Set the precision and write the input, as the layer before would have."""
        import torch

        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        if torch.backends.cudnn.allow_tf32 != self.tf32:
            torch.backends.cudnn.allow_tf32 = self.tf32
        self.x.copy_(self.fresh)

    def run(self) -> None:
        """One call."""
        self.call()

    def error(self) -> float:
        """Relative error of one call against the reference."""
        self.prepare()
        return self.compare(self.call())


def load(kernel: Kernel, device: str, seed: int = 0) -> TorchKernel:
    """Make random data on a device and the call that computes with it.

    Raises:
        NotMeasured: torch has no such kernel.
    """
    import torch

    generator = torch.Generator(device=device).manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    if is_conversion(kernel):
        from .torch_conversions import conversion

        return conversion(kernel, normal(*kernel.input_shape))
    if kernel.op == "Conv":
        from .torch_convolution import convolution

        return convolution(kernel, normal)
    if kernel.op != "Gemm":
        raise NotMeasured(f"{kernel.op} is not timed in torch; offer products and convolutions")
    x = normal(*kernel.input_shape)
    n, k = kernel.weight_shape if kernel.channel_axis == 0 else kernel.weight_shape[::-1]
    weight = normal(n, k) / k**0.5
    bias = normal(n) if kernel.bias else None
    from .torch_products import product

    return product(kernel, x, weight, bias)


def checked(kernel: Kernel, device: str) -> TorchKernel:
    """A loaded kernel whose output has been compared with the reference.

    Raises:
        NotMeasured: torch refuses the kernel, or the output is further from the reference than rounding explains.
    """
    with torch_refusal(kernel):
        loaded = load(kernel, device)
        error = loaded.error()
    if not error <= loaded.bound:
        raise NotMeasured(
            f"{kernel.op} {kernel.shape} {format_of(kernel)}: the output differs from the reference by {error:.2g} "
            f"(relative), more than the {loaded.bound:.2g} that rounding explains; it is not timed"
        )
    return loaded


@contextmanager
def torch_refusal(kernel: Kernel) -> Iterator[None]:
    """Turns torch's way to say that it has no such kernel, or no memory for it, into ``NotMeasured``.

    Raises:
        NotMeasured: torch refused; a broken device (``torch.AcceleratorError``) is not taken for a refusal.
    """
    import torch

    try:
        yield
    except torch.AcceleratorError:
        raise
    except (RuntimeError, NotImplementedError) as cause:
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        raise NotMeasured(f"{kernel.op} {kernel.shape} {format_of(kernel)}: torch refuses: {said}") from None


def product_error(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Compare:
    """Compares the first rows and output channels of a product with float64."""
    wanted = x[:CHECKED].double() @ weight[:CHECKED].double().t()
    if bias is not None:
        wanted = wanted + bias[:CHECKED].double()
    return lambda y: relative(y[:CHECKED, :CHECKED], wanted)


def relative(y: torch.Tensor, wanted: torch.Tensor) -> float:
    """Frobenius norm of the difference over that of what is wanted."""
    return float((y.double() - wanted).norm() / wanted.norm())


def dtype(name: str) -> torch.dtype:
    """The type of a wide format; tf32 is stored as float32."""
    import torch

    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)
