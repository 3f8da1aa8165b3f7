"""Small benches whose loss is known: the sum over sites of mean (gradient x error)² x elements, with noise."""

import numpy as np
from bitfront.proxies.formulas import SiteStatistics
from bitfront.search.evolution import BenchData

BITS = (2, 3, 4, 8)


def statistics_of(sites, formats, seed=1, drawn=32):
    """Statistics of sites with random weights, gradients and rounding errors that halve with each bit."""
    generator = np.random.default_rng(seed)
    count, total = len(sites), len(sites) * drawn
    bits = np.array([float(name[1:]) for name in formats])

    def spread(power):
        return np.repeat(np.exp(power * generator.normal(size=count)), drawn)

    width = spread(1.0)
    elements = generator.integers(100, 5000, size=count)
    return SiteStatistics(
        tuple(sites),
        tuple(formats),
        np.ones((count, len(bits)), dtype=bool),
        np.full((count, 2), (4, drawn // 4), dtype=np.int64),
        elements,
        {
            "weight": (generator.normal(size=total) * width).astype(np.float32),
            "gradient": (generator.normal(size=total) * spread(1.0)).astype(np.float32),
        },
        {"error": np.stack([generator.uniform(-1, 1, total) * width * 2.0**-each for each in bits]).astype(np.float32)},
        {"macs": generator.integers(1000, 90_000, size=count).astype(float)},
        {"bits": np.tile(bits, (count, 1))},
    )


def table_of(statistics, *names):
    """Sum over the drawn elements of the squared product of tensors and the error: [sites, formats]."""
    product = statistics.format_tensors["error"].astype(np.float64)
    for name in names:
        product = product * statistics.tensors[name]
    sums = np.add.reduceat(product**2, statistics.offsets[:-1], axis=1)
    return (sums * statistics.elements / statistics.shapes.prod(axis=1)).T


def bench(name="net", seed=1, points=60, sites=8, noise=0.2):
    """A bench; its rivals know the error alone (``mse``) and nothing but the bits (``bits``)."""
    statistics = statistics_of([f"s{index}" for index in range(sites)], [f"w{each}" for each in BITS], seed)
    generator = np.random.default_rng(seed + 1000)
    choices = generator.integers(0, len(BITS), size=(points, sites))
    rows = np.arange(sites)

    def total(table):
        return table[rows, choices].sum(axis=1)

    measured = total(table_of(statistics, "gradient")) * np.exp(noise * generator.normal(size=points))
    bits = statistics.format_scalars["bits"]
    sizes = total(bits * statistics.elements[:, None])
    rivals = {"mse": total(table_of(statistics)), "bits": -total(bits)}
    return BenchData(name, choices, measured, sizes, statistics, rivals)
