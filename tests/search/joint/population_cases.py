"""Spaces with conditions and ties, and the sites of their networks."""

from bitfront.architecture import ArchitectureSpace, Choices, Dimension
from bitfront.space import SearchSpace, Site, Tie

BLOCKS = 3


def _deep(block: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return (("depth", tuple(range(block + 1, BLOCKS + 1))),)


SPACE = ArchitectureSpace(
    (
        Dimension("depth", "depth", (1, 2, 3)),
        Dimension("resolution", "resolution", (24, 28)),
        *(
            each
            for block in range(BLOCKS)
            for each in (
                Dimension(f"b{block}.kernel", "kernel", (3, 5, 7), _deep(block)),
                Dimension(f"b{block}.skip", "skip", (False, True), _deep(block)),
                Dimension(f"b{block}.width", "width", (8, 16), (*_deep(block), (f"b{block}.skip", (False,)))),
            )
        ),
    ),
    ties=(("b0.width", "b1.width", "b2.width"),),
)


def sites(choices: Choices) -> SearchSpace:
    """A block that exists and is not skipped has two layers that are tied, the head has one."""
    blocks = [block for block in range(BLOCKS) if choices.get(f"b{block}.skip") is False]
    names = [f"b{block}.{layer}" for block in blocks for layer in ("expand", "project")]
    return SearchSpace(
        sites=[*(_site(name, ("w2", "w4", "w8")) for name in names), _site("head", ("w4", "w8", "bf16"))],
        formats=("w2", "w4", "w8", "bf16"),
        ties=[Tie((f"b{block}.expand", f"b{block}.project"), "block") for block in blocks],
    )


def _site(name: str, formats: tuple[str, ...]) -> Site:
    return Site(
        name=name,
        kind="linear",
        weight_shape=(4, 4),
        macs=16,
        formats=formats,
        parameter=f"{name}.weight",
        modules=(name,),
    )
