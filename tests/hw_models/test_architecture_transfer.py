"""A new device from a few samples: the posterior against a plain computation, the design, the reference data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bitfront.errors import InvalidInput
from bitfront.hw_models.architecture import DeviceTransfer, encode_cells
from bitfront.hw_models.architecture.transfer import _NOISES
from scipy.stats import multivariate_normal, spearmanr


def devices(networks: int = 400, count: int = 9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Encodings, and milliseconds of devices that are all mixtures of three costs."""
    rng = np.random.default_rng(seed)
    x = rng.random((networks, 3))
    weights = rng.dirichlet([1, 1, 1], count)
    logs = np.log(x @ weights.T + 0.05) + rng.normal(0, 1, count)
    return x, np.exp(logs + 0.02 * rng.standard_normal(logs.shape))


def test_posterior_is_the_mixture_computed_plainly() -> None:
    _, ms = devices(60, 4)
    transfer = DeviceTransfer.of(ms[:, :3])
    measured = np.array([1, 5, 9, 20])
    observed = np.log(ms[measured, 3])
    rows = transfer.factors[measured]
    weights, centres = [], []
    for component in transfer._components():
        prior = np.diag(component.variances)
        for noise in _NOISES:
            covariance = rows @ prior @ rows.T + noise * np.eye(4)
            expected = transfer.mean[measured] + rows @ component.centre
            weights.append(np.exp(component.log_weight) * multivariate_normal(expected, covariance).pdf(observed))
            gain = prior @ rows.T @ np.linalg.inv(covariance)
            loadings = component.centre + gain @ (observed - expected)
            centres.append(transfer.mean + transfer.factors @ loadings)
    plain = np.average(centres, axis=0, weights=weights)
    found = transfer.predict(measured, ms[measured, 3])
    np.testing.assert_allclose(np.log(found.ms), plain, rtol=1e-8, atol=1e-10)
    total = sum(np.exp(component.log_weight) for component in transfer._components())
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("encoded", [False, True])
def test_ten_samples_tell_a_new_device(encoded: bool) -> None:
    x, ms = devices()
    encodings = np.column_stack([x, x**2, x[:, [0]] * x[:, 1:]]) if encoded else None
    transfer = DeviceTransfer.of(ms[:, :-1], encodings)
    measured = transfer.choose(10)
    truth, rest = ms[:, -1], np.setdiff1d(np.arange(len(ms)), measured)
    found = transfer.predict(measured, truth[measured])
    assert spearmanr(found.ms[rest], truth[rest])[0] > 0.98
    assert np.abs(found.ms / truth - 1)[rest].mean() < 0.05
    assert ((found.low <= truth) & (truth <= found.high))[rest].mean() > 0.85


def test_a_device_like_a_known_one_is_recognized() -> None:
    _, ms = devices()
    transfer = DeviceTransfer.of(ms)
    measured = transfer.choose(4)
    found = transfer.predict(measured, 3.0 * ms[measured, 2])
    assert np.abs(found.ms / (3.0 * ms[:, 2]) - 1).mean() < 0.04


def test_each_choice_lowers_the_variance_of_differences_most() -> None:
    _, ms = devices(120, 5)
    transfer = DeviceTransfer.of(ms)
    pool = np.arange(0, 120, 3)
    chosen = transfer.choose(3, pool)
    centred = transfer.factors - transfer.factors.mean(0)

    def left(rows: list[int]) -> float:
        precision = np.eye(transfer.factors.shape[1]) + transfer.factors[rows].T @ transfer.factors[rows] / 0.01
        return float(np.einsum("ij,jk,ik->", centred, np.linalg.inv(precision), centred))

    for step in range(3):
        before = chosen[:step].tolist()
        assert left([*before, int(chosen[step])]) == pytest.approx(
            min(left([*before, int(each)]) for each in pool if each not in before), rel=1e-6
        )


def test_wrong_input_is_refused_in_one_line() -> None:
    _, ms = devices(20, 3)
    transfer = DeviceTransfer.of(ms)
    for wrong, message in (
        (lambda: DeviceTransfer.of(ms[:, :1]), "devices >= 2"),
        (lambda: DeviceTransfer.of(np.where(ms > ms.min(), ms, 0.0)), "positive and finite"),
        (lambda: DeviceTransfer.of(ms, np.ones((3, 2))), r"encodings have shape \(3, 2\)"),
        (lambda: transfer.choose(21), "count=21 of 20"),
        (lambda: transfer.predict(np.array([1, 2]), np.array([1.0])), "2 architectures and 1 times"),
        (lambda: transfer.predict(np.array([1]), np.array([-1.0])), "one positive time"),
    ):
        with pytest.raises(InvalidInput, match=message):
            wrong()


@pytest.mark.reference
def test_beats_ridge_on_devices_of_nas_bench_201(reference_data: Path) -> None:
    from sklearn.linear_model import Ridge

    frame = pd.read_csv(reference_data / "nasbench201_accuracy_latency.csv.gz")
    rows = np.random.default_rng(0).permutation(len(frame))[:2500]
    frame = frame.iloc[rows]
    ms = frame.iloc[:, frame.columns.get_loc("1080ti_1") :].astype(float)
    encodings = encode_cells(list(frame["cellstr"]), pairs=True)
    ours, ridge = [], []
    for device in ("raspi4", "titanx_256", "2080ti_32"):
        known, truth = ms.drop(columns=device).to_numpy(), ms[device].to_numpy()
        transfer = DeviceTransfer.of(known, encodings)
        measured = transfer.choose(10, np.arange(1000))
        rest = np.setdiff1d(np.arange(len(ms)), measured)
        ours.append(spearmanr(transfer.predict(measured, truth[measured]).ms[rest], truth[rest])[0])
        logs = np.log(known)
        logs = (logs - logs.mean(0)) / logs.std(0)
        for draw in range(3):
            few = np.random.default_rng(draw).permutation(len(ms))[:10]
            ridge.append(spearmanr(Ridge().fit(logs[few], np.log(truth[few])).predict(logs), truth)[0])
    assert np.mean(ours) > np.mean(ridge) + 0.005
    assert min(ours) > 0.95
