"""Kernels, evidence and posterior against their definitions."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models import device
from bitfront.hw_models.gemm import Gemms, MeasuredGemms
from bitfront.hw_models.law import START, log_ms, work
from bitfront.hw_models.transfer import Sources
from bitfront.hw_models.transfer.evidence import UNTAUGHT, learned, negative_log_posterior
from bitfront.hw_models.transfer.kernels import PARTS, parts, variance
from bitfront.hw_models.transfer.prior import Prior
from bitfront.hw_models.transfer.process import before, fitted
from scipy.optimize import approx_fprime

TARGET = device("nvidia-l40s")


def products(name: str, rows: int, seed: int, forms=("bf16", "fp8")) -> Gemms:
    generator = np.random.default_rng(seed)
    m, n, k = (2 ** generator.integers(5, 13, rows) for _ in range(3))
    return Gemms(np.full(rows, name), generator.choice(np.array(forms), rows), m, n, k)


def made(name: str, rows: int, seed: int, forms=("bf16", "fp8"), shift: float = 0.0) -> MeasuredGemms:
    """Times by the law with a remainder that all devices share."""
    gemms = products(name, rows, seed, forms)
    bump = 0.2 * np.sin(np.log2(gemms.n) + 2 * np.log2(gemms.k))
    ms = np.exp(log_ms(START + shift, work(gemms, device(name))) + bump)
    return MeasuredGemms(gemms.device, gemms.format, gemms.m, gemms.n, gemms.k, ms)


@pytest.fixture(scope="module")
def sources() -> Sources:
    names = ("nvidia-h100-sxm", "nvidia-h200-sxm", "nvidia-b200")
    return Sources.of({name: made(name, 500, seed, shift=0.05 * seed) for seed, name in enumerate(names)})


@pytest.fixture(scope="module")
def prior(sources) -> Prior:
    return Prior.of(sources, TARGET, ("bf16", "fp8"))


def test_the_remainder_of_a_measured_shape_is_the_measured_one(sources):
    source = sources.fitted["nvidia-b200", "bf16"]
    np.testing.assert_allclose(source.remainder_at(source.rows)[:50], source.remainder[:50], atol=0.02)


def test_the_remainder_fades_far_from_the_table(sources):
    far = Gemms(*(np.array([value]) for value in ("nvidia-b200", "bf16", 1, 2**22, 2**22)))
    assert abs(sources.fitted["nvidia-b200", "bf16"].remainder_at(far)[0]) < 1e-6


def test_parts_are_covariances(prior):
    features = prior.features(prior.shapes(products(TARGET.name, 40, 3)), prior.start())
    kernels = parts(features, features)
    assert kernels.shape == (len(PARTS), 40, 40)
    for kernel in kernels:
        np.testing.assert_allclose(kernel, kernel.T, atol=1e-9)
        assert np.linalg.eigvalsh(kernel).min() > -1e-6
    amplitudes = np.arange(1.0, len(PARTS) + 1)
    total = np.tensordot(amplitudes, kernels, 1)
    np.testing.assert_allclose(variance(features, amplitudes), np.diag(total), rtol=1e-5)


def test_gradient_of_the_evidence(prior):
    features = prior.features(prior.shapes(products(TARGET.name, 25, 4)), prior.start())
    kernels, deviation = parts(features, features), np.random.default_rng(0).normal(size=25) * 0.3
    point = UNTAUGHT.log + 0.3
    _, gradient = negative_log_posterior(point, kernels, deviation, UNTAUGHT)
    numeric = approx_fprime(point, lambda log: negative_log_posterior(log, kernels, deviation, UNTAUGHT)[0], 1e-6)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=1e-4)
    found = learned(kernels, deviation, UNTAUGHT)
    value = negative_log_posterior(found.log, kernels, deviation, UNTAUGHT)[0]
    assert value < negative_log_posterior(UNTAUGHT.log, kernels, deviation, UNTAUGHT)[0]


def test_posterior_is_the_conditional_normal(prior):
    samples = made(TARGET.name, 15, 5)
    process = fitted(prior, samples, np.log(samples.ms), UNTAUGHT)
    asked = products(TARGET.name, 20, 6)
    seen, new = (prior.features(prior.shapes(gemms), process.theta) for gemms in (samples, asked))
    amplitudes, noise = process.amplitudes.parts, process.amplitudes.noise
    among = np.tensordot(amplitudes, parts(seen, seen), 1) + noise * np.eye(15)
    cross = np.tensordot(amplitudes, parts(new, seen), 1)
    inverse = np.linalg.inv(among)
    expected = new.mean + cross @ inverse @ (np.log(samples.ms) - seen.mean)
    spare = np.diag(np.tensordot(amplitudes, parts(new, new), 1) - cross @ inverse @ cross.T)
    mean, deviation = process.posterior(asked)
    np.testing.assert_allclose(mean, expected, atol=1e-6)
    np.testing.assert_allclose(deviation, np.sqrt(spare + noise), atol=1e-5)
    np.testing.assert_allclose(np.diag(process.remaining(new, new)), spare, atol=1e-6)


def test_before_the_first_measurement_it_is_the_prior(prior):
    process = before(prior, UNTAUGHT)
    asked = products(TARGET.name, 10, 7)
    features = prior.features(prior.shapes(asked), prior.start())
    mean, deviation = process.posterior(asked)
    np.testing.assert_allclose(mean, features.mean)
    np.testing.assert_allclose(deviation**2, variance(features, UNTAUGHT.parts) + UNTAUGHT.noise)


def test_measurements_narrow_the_posterior(prior):
    asked = products(TARGET.name, 30, 8)
    samples = made(TARGET.name, 40, 9)
    _, wide = before(prior, UNTAUGHT).posterior(asked)
    _, narrow = fitted(prior, samples, np.log(samples.ms), UNTAUGHT).posterior(asked)
    assert narrow.mean() < 0.5 * wide.mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: {}, "no source has 50 rows"),
        (lambda table: {"few": table.take(np.arange(20))}, "no source has 50 rows"),
        (
            lambda table: {"two": MeasuredGemms.joined([table, made("nvidia-b200", 60, 0)])},
            "'two' must hold rows of exactly one device, not of 2",
        ),
        (
            lambda table: {"zero": MeasuredGemms(table.device, table.format, table.m, table.n, table.k, 0 * table.ms)},
            "row 0 has the time 0.0 ms",
        ),
        (
            lambda table: {"flat": MeasuredGemms(table.device, table.format, 0 * table.m, table.n, table.k, table.ms)},
            "row 0 is m=0",
        ),
    ],
)
def test_unusable_sources_are_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        Sources.of(change(made("nvidia-h100-sxm", 100, 0, ("bf16",))))


def test_unknown_device_of_a_source(sources):
    table = made("nvidia-h100-sxm", 100, 0)
    strange = MeasuredGemms(np.full(100, "acme-1"), table.format, table.m, table.n, table.k, table.ms)
    with pytest.raises(InvalidInput, match="unknown device 'acme-1'"):
        Sources.of({"acme": strange})
    own = Sources.of({"acme": strange}, {"acme-1": device("nvidia-h100-sxm")})
    assert own.tables == ("acme",)


def test_a_format_that_no_source_has_borrows(sources):
    prior = Prior.of(sources, TARGET, ("int8_wo",))
    assert not prior.formats["int8_wo"].measured
    assert 0 < prior.formats["int8_wo"].tables.sum() < 1
    with pytest.raises(NotMeasured, match="fp4"):
        Prior.of(sources, TARGET, ("nvfp4",)).shapes(products(TARGET.name, 3, 0, ("nvfp4",)))
