"""The kernels of a model: what its sites run in each format."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import NotMeasured
from ...space import SearchSpace
from ..kernels import Kernel, site_kernel, unfused
from ..tables.kernel_formats import kernel_format
from .catalogue import Runtime
from .grid import with_formats

#: What every format is compared with.
_REFERENCE = "bf16"


def model_kernels(
    space: SearchSpace,
    device: str,
    runtime: Runtime,
    batches: Sequence[int] = (1,),
    formats: tuple[str, ...] | None = None,
) -> list[Kernel]:
    """What is to be timed for a model.

    In onnxruntime on the CPU, where ``formats`` are not named, these are the kernels that ``price(device="cpu")`` asks
    for, so that it finds the rows; elsewhere those that run the formats of the space, and bf16.

    Args:
        space: the model's sites and formats.
        device: cpu or cuda.
        runtime: onnxruntime or torch.
        batches: samples per forward pass.
        formats: names of kernel formats (``catalogue``).

    Raises:
        NotMeasured: the runtime has no kernel for a format of the space.
        InvalidInput: the runtime has none of ``formats``.
    """
    if formats is None and runtime == "onnxruntime":
        sites = (site_kernel(site, name, batch) for batch in batches for site in space.sites for name in site.formats)
        made = list(dict.fromkeys(sites))
    else:
        bases = tuple(dict.fromkeys(site_kernel(site, "fp32", batch) for batch in batches for site in space.sites))
        made = with_formats(bases, device, runtime, formats or _served(space))
    if runtime == "onnxruntime":
        pairs = ((kernel, unfused(kernel)) for kernel in made)
        made = list(dict.fromkeys(kernel for pair in pairs for kernel in pair if kernel is not None))
    return made


def _served(space: SearchSpace) -> tuple[str, ...]:
    """The kernel formats that run the formats of a space."""
    found = {name: kernel_format(name) for name in space.formats}
    without = [name for name, kernel in found.items() if kernel is None]
    if without:
        raise NotMeasured(
            f"no kernel is known for {', '.join(without)}; name the kernels to time with --formats, "
            "such as bf16,fp8,w8a8,int4_wo"
        )
    return tuple(dict.fromkeys([_REFERENCE, *(kernel for kernel in found.values() if kernel)]))
