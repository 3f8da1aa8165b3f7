"""Small statistics, and a naive float64 interpreter of formulas: one site, one format, one operator at a time."""

import math

import numpy as np
from bitfront.proxies.formulas import SiteStatistics

SHAPES = [(4, 6), (1, 1), (3, 9), (4, 6), (2, 16)]
FORMATS = ("w2", "w4", "w4a8", "w8")
ALLOWED = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 0]], dtype=bool)


def statistics(seed=0):
    generator = np.random.default_rng(seed)
    shapes = np.array(SHAPES)
    counts = shapes.prod(axis=1)
    total = int(counts.sum())
    offered = np.repeat(ALLOWED.T, counts, axis=1)
    weight = generator.normal(size=total).astype(np.float32)
    by_width = {width: generator.normal(size=total) * 2.0**-width for width in (2, 4, 8)}
    error = np.stack([by_width[width] for width in (2, 4, 4, 8)]).astype(np.float32) * offered
    return SiteStatistics(
        sites=tuple(f"layer{index}" for index in range(len(shapes))),
        formats=FORMATS,
        allowed=ALLOWED,
        shapes=shapes,
        elements=counts * np.array([1, 1, 10, 3, 7]),
        tensors={"weight": weight, "gradient": generator.normal(size=total).astype(np.float32) * np.float32(0.1)},
        format_tensors={"error": error},
        scalars={"macs": generator.uniform(1e2, 1e4, len(shapes)), "trace": generator.normal(size=len(shapes))},
        format_scalars={
            "bits": np.where(ALLOWED, [2.0, 4.0, 4.0, 8.0], 0.0),
            "activation_bits": np.where(ALLOWED, [32.0, 32.0, 8.0, 32.0], 0.0),
        },
    )


def naive_scores(formula, found):
    """float64 [sites, formats], NaN where not offered; by loops over sites, formats and operators."""
    mean_sizes = _mean_sizes(formula, found)
    table = np.full(found.allowed.shape, np.nan)
    for site, column in np.argwhere(found.allowed):
        value = _value(formula.root, found, site, column, mean_sizes)
        assert value.ndim == 0
        table[site, column] = value
    return table


def _mean_sizes(formula, found):
    """Of each argument of ``relative``: the mean over all offered (site, format) of the mean |x|."""
    sizes = {}
    for node in formula.nodes:
        if node.name == "relative":
            each = [
                np.abs(_value(node.arguments[0], found, site, column, sizes)).mean()
                for site, column in np.argwhere(found.allowed)
            ]
            sizes[node.digest] = max(float(np.mean(each)), 1e-12)
    return sizes


def _value(node, found, site, column, sizes):
    """A number (0 dimensions) or a matrix."""
    if node.is_input:
        return _input(node.name, found, site, column)
    arguments = [_value(each, found, site, column, sizes) for each in node.arguments]
    if node.name == "relative":
        return arguments[0] / sizes[node.digest]
    whole = float(found.elements[site])
    if node.name in NAIVE_BINARY:
        return NAIVE_BINARY[node.name](*arguments)
    if node.name == "matrix_product":
        shape = next((each.shape for each in arguments if each.ndim), tuple(found.shapes[site]))
        left, right = (np.broadcast_to(each, shape) for each in arguments)
        return np.array([[float(sum(a * b)) for b in right] for a in left])
    if node.name == "cosine":
        left, right = (each.ravel() for each in np.broadcast_arrays(*arguments))
        norms = math.sqrt((left**2).mean() * (right**2).mean())
        return np.array((left * right).mean() / norms if norms > 1e-24 else 0.0)
    return np.asarray({**NAIVE_UNARY, **NAIVE_BLOCK}[node.name](arguments[0], whole))


def _input(name, found, site, column):
    kind = found.names[name]
    values = getattr(found, kind)[name]
    if kind == "scalars":
        return np.array(values[site])
    if kind == "format_scalars":
        return np.array(values[site, column])
    row = values if kind == "tensors" else values[column]
    return row[found.offsets[site] : found.offsets[site + 1]].reshape(found.shapes[site]).astype(np.float64)


def _elementwise(function):
    return lambda x, whole: np.vectorize(function, otypes=[np.float64])(x)


def _clip(x):
    return min(max(x, -60.0), 60.0)


def _sigmoid(x):
    return 1 / (1 + math.exp(-_clip(x)))


def _invert(x):
    return x / max(x * x, 1e-24)


NAIVE_UNARY = {
    "abs": _elementwise(abs),
    "complement": _elementwise(lambda x: 1 - x),
    "exp": _elementwise(lambda x: math.exp(_clip(x))),
    "invert": _elementwise(_invert),
    "log": _elementwise(lambda x: math.log(max(x, 1e-12))),
    "log_abs": _elementwise(lambda x: math.log(max(abs(x), 1e-12))),
    "negate": _elementwise(lambda x: -x),
    "power_of_half": _elementwise(lambda x: 2 ** -_clip(x)),
    "relu": _elementwise(lambda x: max(x, 0.0)),
    "sigmoid": _elementwise(_sigmoid),
    "sign": _elementwise(lambda x: float((x > 0) - (x < 0))),
    "softplus": _elementwise(lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x)))),
    "sqrt": _elementwise(lambda x: math.sqrt(abs(x))),
    "square": _elementwise(lambda x: x * x),
    "swish": _elementwise(lambda x: x * _sigmoid(x)),
    "tanh": _elementwise(math.tanh),
}

NAIVE_BINARY = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x * np.vectorize(_invert, otypes=[np.float64])(y),
    "maximum": lambda x, y: np.where(x > y, x, y),
    "minimum": lambda x, y: np.where(x < y, x, y),
}


def _whole_sum(x, whole):
    """Of a weight of which x was drawn."""
    return whole * float(np.sum(x)) / x.size


def _log_sum(x, whole):
    """Logarithm of the sum of exp(x) over the whole weight."""
    return x.max() + math.log(_whole_sum(np.exp(x - x.max()), whole))


NAIVE_BLOCK = {
    "mean": lambda x, whole: x.mean(),
    "sum": _whole_sum,
    "l1_norm": lambda x, whole: _whole_sum(np.abs(x), whole),
    "frobenius": lambda x, whole: math.sqrt(_whole_sum(x * x, whole)),
    "max": lambda x, whole: x.max(),
    "min": lambda x, whole: x.min(),
    "variance": lambda x, whole: ((x - x.mean()) ** 2).mean(),
    "deviation": lambda x, whole: math.sqrt(((x - x.mean()) ** 2).mean()),
    "normalise": lambda x, whole: (x - x.mean()) / max(math.sqrt(((x - x.mean()) ** 2).mean()), 1e-12),
    "min_max": lambda x, whole: (x - x.min()) / max(x.max() - x.min(), 1e-12),
    "unit": lambda x, whole: x / max(math.sqrt(_whole_sum(x * x, whole)), 1e-12),
    "softmax": lambda x, whole: np.exp(x - _log_sum(x, whole)),
    "log_softmax": lambda x, whole: x - _log_sum(x, whole),
}
