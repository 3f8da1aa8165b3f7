"""The dense predictor: monotone, accurate on held-out shapes, honest intervals, refusals, kept on disk."""

from dataclasses import replace

import numpy as np
import pytest
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models.gemm import Gemms, MeasuredGemms
from bitfront.hw_models.predictor import FormatModel, fit, fitted, kept, roofline_ms, surface

DEVICE = "nvidia-h100-sxm"
SIZES_M = np.array([1, 4, 16, 17, 64, 65, 256, 1024, 4096])
SIZES = np.array([128, 256, 512, 1024, 1536, 2048, 4096, 8192])


def products(m, n, k, format_="bf16", device=DEVICE):
    m, n, k = np.broadcast_arrays(*(np.atleast_1d(np.asarray(side, dtype=np.int64)) for side in (m, n, k)))
    return Gemms(np.full(len(m), device), np.full(len(m), format_), m, n, k)


def truth(gemms):
    """A kernel that launches in 3 us, fills tiles of 64 x 128 and is slower where m is odd: it falls along m."""
    padded = replace(gemms, m=-(-gemms.m // 64) * 64, n=-(-gemms.n // 128) * 128)
    return 0.003 + roofline_ms(padded) * np.where(gemms.m % 2 == 1, 1.1, 1.0) / 0.7


def measured(gemms, seed, noise=0.02):
    ms = truth(gemms) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(gemms)))
    return MeasuredGemms(gemms.device, gemms.format, gemms.m, gemms.n, gemms.k, ms)


def grid():
    m, n, k = (side.ravel() for side in np.meshgrid(SIZES_M, SIZES, SIZES, indexing="ij"))
    return products(m, n, k)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Fewer trees: these tables are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(surface.BOOSTING, "max_iter", 40)
        patch.setitem(surface.BOOSTING, "learning_rate", 0.2)
        patch.setitem(surface.BOOSTING, "max_leaf_nodes", 15)
        yield


@pytest.fixture(scope="module")
def split():
    """Seen and unseen weight shapes."""
    rows = measured(grid(), seed=0)
    held = np.isin(
        rows.n * 100_000 + rows.k,
        [n * 100_000 + k for n, k in zip(SIZES[:-1], SIZES[[3, 5, 1, 6, 2, 4, 0]], strict=True)],
    )
    return rows.take(~held), rows.take(held)


@pytest.fixture(scope="module")
def predictor(small, split):
    return fit(split[0], strict=True)


@pytest.fixture(scope="module")
def usual(small, split):
    return fit(split[0])


def test_held_out_shapes_are_close_and_covered(predictor, split):
    unseen = split[1]
    answer = predictor.predict(unseen)
    relative = np.abs(answer.ms / unseen.ms - 1)
    assert relative.mean() < 0.08
    assert relative.mean() < 0.25 * np.abs(roofline_ms(unseen) / unseen.ms - 1).mean()
    held = (answer.low <= unseen.ms) & (unseen.ms <= answer.high)
    assert held.mean() > 0.8
    assert answer.coverage == 0.9
    assert np.median(answer.high / answer.low) < 1.6


def test_time_never_falls_when_a_size_grows(predictor):
    rng = np.random.default_rng(1)
    low = [
        np.exp(rng.uniform(np.log(span[0]), np.log(span[1]), 4000)).astype(np.int64)
        for span in [(1, 8192), (64, 16384), (64, 16384)]
    ]
    before = predictor.predict(products(*low)).ms
    for axis, largest in enumerate((8192, 16384, 16384)):
        high = list(low)
        high[axis] = np.minimum(low[axis] + rng.integers(1, 1 + low[axis]), largest)
        after = predictor.predict(products(*high)).ms
        assert (after >= before * (1 - 1e-12)).all()
    everything = [
        np.minimum(side + rng.integers(0, 100, len(side)), largest)
        for side, largest in zip(low, (8192, 16384, 16384), strict=True)
    ]
    assert (predictor.predict(products(*everything)).ms >= before * (1 - 1e-12)).all()


def test_usually_it_falls_only_between_sizes_of_m_where_the_table_does(usual, split):
    model = usual.models[DEVICE, "bf16"]
    assert model.falls.tolist() == [[1, 4], [17, 64], [65, 256]]  # one row more than a tile meets a slower kernel
    rng = np.random.default_rng(4)
    low, high = np.array([[4, 17], [256, 8192]])[rng.integers(0, 2, 4000)].T  # between two falls
    m = np.exp(rng.uniform(np.log(low), np.log(high))).astype(np.int64)
    n, k = (np.exp(rng.uniform(np.log(64), np.log(16384), 4000)).astype(np.int64) for _ in range(2))
    before = usual.predict(products(m, n, k)).ms
    more = np.minimum(m + rng.integers(0, 1 + m), high)
    larger = [np.minimum(side + rng.integers(0, 1 + side), 16384) for side in (n, k)]
    assert (usual.predict(products(more, *larger)).ms >= before * (1 - 1e-12)).all()
    anywhere = rng.integers(1, 8192, 4000)  # also inside a fall it rises along n and k
    smaller, wider = (usual.predict(products(anywhere, *sides)).ms for sides in ((n, k), larger))
    assert (wider >= smaller * (1 - 1e-12)).all()
    odd = usual.predict(products([17, 64], 8192, 8192)).ms
    assert odd[0] > odd[1]


def test_following_the_falls_is_closer_to_the_table_than_rising_everywhere(usual, predictor, split):
    seen = split[0]
    followed, strict = (np.abs(one.predict(seen).ms / seen.ms - 1).mean() for one in (usual, predictor))
    assert followed < 0.8 * strict
    assert predictor.models[DEVICE, "bf16"].falls.shape == (0, 2)


def test_without_monotone_it_follows_what_was_measured(split):
    seen = split[0]
    free = fit(seen, monotone=False)
    np.testing.assert_allclose(free.predict(seen).ms, seen.ms, rtol=1e-9)
    odd = free.predict(products([17, 64], 8192, 8192)).ms
    assert odd[0] > odd[1]  # the table itself falls there


def test_outside_the_table_grows_in_proportion_with_wider_intervals_then_is_refused(predictor):
    edge, beyond = (predictor.predict(products(4096, 8192, k)) for k in (8192, 16384))
    assert beyond.ms == pytest.approx(2 * edge.ms)
    assert beyond.high / beyond.ms >= 2 * (edge.high / edge.ms) * (1 - 1e-9)
    assert beyond.low <= edge.ms
    small = predictor.predict(products(1, 64, 128))
    assert small.ms == pytest.approx(predictor.predict(products(1, 128, 128)).ms)
    for sides in [(1, 128, 16400), (8200, 128, 128), (1, 32, 128)]:
        with pytest.raises(NotMeasured, match=r"lies outside what was measured \(m 1 to 4096, n 128 to 8192"):
            predictor.predict(products(*sides))


def test_sizes_are_padded_to_the_alignment_of_the_table(predictor):
    padded, asked = (
        predictor.predict(products(16, [1008, 1008], 512)),
        predictor.predict(products(16, [1000, 1001], 512)),
    )
    np.testing.assert_array_equal(padded.ms, asked.ms)


@pytest.mark.parametrize(("device", "format_"), [(DEVICE, "fp8"), ("nvidia-t4", "bf16")])
def test_what_was_not_measured_is_refused(predictor, device, format_):
    with pytest.raises(NotMeasured, match=f"no latency model of {format_} on {device}"):
        predictor.predict(products(1, 128, 128, format_, device))
    with pytest.raises(InvalidInput, match="below 1"):
        predictor.predict(products(0, 128, 128))


def test_few_shapes_are_refused_and_said_so(split):
    seen = split[0]
    few = seen.take((seen.n == 128) & (seen.k > 0))
    with pytest.raises(NotMeasured, match="a dense table has at least 40"):
        fit(few)
    thin = replace(few, format=np.full(len(few), "fp8"))
    both = fit(MeasuredGemms.joined([seen, thin]))
    assert list(both.models) == [(DEVICE, "bf16")]
    with pytest.raises(NotMeasured, match=r"fp8 on nvidia-h100-sxm \(\d weight shapes were measured"):
        both.predict(products(1, 128, 128, "fp8"))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda rows: rows.take(rows.m < 0), {}, "no measurements"),
        (lambda rows: replace(rows, ms=-rows.ms), {}, "not a positive number"),
        (lambda rows: rows, {"coverage": 1.0}, "coverage is 1.0"),
    ],
)
def test_bad_input(split, change, options, message):
    with pytest.raises(InvalidInput, match=message):
        fit(change(split[0]), **options)


def test_saved_and_loaded_is_the_same_without_pickle(predictor, tmp_path):
    model = predictor.models[DEVICE, "bf16"]
    model.save(tmp_path / "model.npz")
    again = FormatModel.load(tmp_path / "model.npz")
    asked = products(*np.random.default_rng(2).integers(128, 4096, (3, 100)))
    for one, other in zip(model.predict(asked), again.predict(asked), strict=True):
        np.testing.assert_array_equal(one, other)
    with np.load(tmp_path / "model.npz", allow_pickle=False) as kept_arrays:
        assert all(kept_arrays[name].dtype != object for name in kept_arrays.files)
    (tmp_path / "model.npz").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(InvalidInput, match="no saved latency model"):
        FormatModel.load(tmp_path / "model.npz")


def test_fitted_once_per_content(split, tmp_path, monkeypatch):
    seen, calls = split[0], []
    original = kept.fit_format
    monkeypatch.setattr(kept, "fit_format", lambda *given: calls.append(given) or original(*given))
    asked = products([1, 100], [128, 5000], 1024)
    first = fitted(seen, folder=tmp_path).predict(asked)
    order = np.random.default_rng(0).permutation(len(seen))
    again = fitted(seen.take(order), folder=tmp_path).predict(asked)  # the order of the rows is no content
    np.testing.assert_array_equal(first.ms, again.ms)
    assert len(calls) == 1
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(b"torn")
    np.testing.assert_array_equal(fitted(seen, folder=tmp_path).predict(asked).high, first.high)
    assert len(calls) == 2
    changed = replace(seen, ms=np.concatenate([[2 * seen.ms[0]], seen.ms[1:]]))
    names = [kept.digest(*given) for given in [(seen, 0.9, 0, True), (changed, 0.9, 0, True), (seen, 0.8, 0, True)]]
    names.append(kept.digest(seen, 0.9, 0, True, True))
    assert len(set(names)) == 4
    assert names[0] == path.stem
