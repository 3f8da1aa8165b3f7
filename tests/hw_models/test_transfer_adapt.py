"""A device from a few of its measurements: accuracy, intervals, refusals, and which shapes are chosen."""

import numpy as np
import pytest
from bitfront.errors import InvalidInput, NotMeasured
from bitfront.hw_models import device
from bitfront.hw_models.gemm import Gemms, MeasuredGemms
from bitfront.hw_models.law import SPREAD, START, log_ms, work
from bitfront.hw_models.transfer import Sources, adapt, next_shapes, usable
from bitfront.hw_models.transfer.choice import _greedy
from bitfront.hw_models.transfer.evidence import UNTAUGHT
from bitfront.hw_models.transfer.prior import Prior
from bitfront.hw_models.transfer.process import before, fitted
from bitfront.hw_models.transfer.rehearsal import Rehearsal

NAMES = ("nvidia-a100-sxm-80gb", "nvidia-h100-sxm", "nvidia-h200-sxm", "nvidia-l40s", "nvidia-l4")
TARGET = device("nvidia-l40s")


def table(name: str, rows: int = 300, seed: int = 0, forms=("bf16", "fp16")) -> MeasuredGemms:
    """Times of a made-up family: each device its own law, all with one remainder whose size differs, and 3 % noise."""
    own = np.random.default_rng(NAMES.index(name) + 10)
    theta = START + 0.4 * SPREAD * own.normal(size=len(START))
    generator = np.random.default_rng(1000 * NAMES.index(name) + seed)
    m, n, k = (2 ** generator.integers(4, 13, rows) for _ in range(3))
    gemms = Gemms(np.full(rows, name), generator.choice(np.array(forms), rows), m, n, k)
    bump = own.uniform(0.1, 0.3) * np.sin(np.log2(n) + 2 * np.log2(k) - np.log2(m))
    times = log_ms(theta, work(gemms, device(name))) + bump + 0.03 * generator.normal(size=rows)
    return MeasuredGemms(gemms.device, gemms.format, m, n, k, np.exp(times))


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources.of({name: table(name) for name in NAMES if name != TARGET.name})


@pytest.fixture(scope="module")
def model(sources):
    return adapt(sources, TARGET, table(TARGET.name, 40, 1), width=np.inf)


def test_forty_samples_foretell_the_rest(sources, model):
    truth = table(TARGET.name, 300, 2)
    error = np.abs(model.predict(truth).ms / truth.ms - 1)
    assert error.mean() < 0.12
    law_alone = before(Prior.of(sources, TARGET, ("bf16", "fp16")), UNTAUGHT).posterior(truth)[0]
    assert error.mean() < 0.5 * np.abs(np.exp(law_alone) / truth.ms - 1).mean()


def test_intervals_cover(sources):
    inside = []
    for left_out in NAMES:
        others = Sources.of({name: table(name) for name in NAMES if name != left_out})
        truth = table(left_out, 300, 2)
        found = adapt(others, device(left_out), table(left_out, 40, 1), width=np.inf).predict(truth)
        assert (found.low < found.ms).all()
        assert (found.ms < found.high).all()
        inside.append(((truth.ms >= found.low) & (truth.ms <= found.high)).mean())
    assert 0.82 <= np.mean(inside) <= 0.98


def test_wider_coverage_means_wider_intervals(sources):
    samples, asked = table(TARGET.name, 20, 1), table(TARGET.name, 50, 2)
    narrow, wide = (
        adapt(sources, TARGET, samples, coverage=coverage, width=np.inf).predict(asked) for coverage in (0.5, 0.95)
    )
    np.testing.assert_allclose(narrow.ms, wide.ms)
    assert (wide.high > narrow.high).all()
    assert wide.coverage == 0.95


def test_the_same_question_has_the_same_answer(sources, model):
    again = adapt(sources, TARGET, table(TARGET.name, 40, 1), width=np.inf)
    asked = table(TARGET.name, 50, 2)
    np.testing.assert_array_equal(again.predict(asked).high, model.predict(asked).high)


def test_too_wide_intervals_are_refused_with_a_number(sources):
    samples, asked = table(TARGET.name, 3, 1), table(TARGET.name, 100, 2)
    shy = adapt(sources, TARGET, samples, width=0.4)
    with pytest.raises(
        NotMeasured, match=r"of 100 products on nvidia-l40s are too uncertain after 3 measurements"
    ) as e:
        shy.predict(asked)
    assert "more" in str(e.value)
    estimate = shy.estimate(asked)
    fine = usable(estimate, 0.4)
    assert not fine.all()
    np.testing.assert_array_equal(fine, estimate.high <= 1.4 * estimate.ms)
    if fine.any():
        shy.predict(asked.take(fine))


def test_a_width_below_the_noise_needs_more_than_any_number(sources):
    shy = adapt(sources, TARGET, table(TARGET.name, 40, 1), width=0.001)
    with pytest.raises(NotMeasured, match="300 more would not do"):
        shy.predict(table(TARGET.name, 50, 2))


def test_formats_that_nobody_measured_are_refused(sources, model):
    asked = table(TARGET.name, 5, 3, ("int8_wo",))
    with pytest.raises(NotMeasured, match="int8_wo was measured neither on nvidia-l40s nor on a source"):
        model.predict(asked)
    mixed = table(TARGET.name, 60, 1, ("bf16", "int8_wo"))
    found = adapt(sources, TARGET, mixed, width=np.inf).predict(asked)
    assert np.isfinite(found.ms).all()


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (table(TARGET.name, 2), {}, "2 measurements of nvidia-l40s; give at least 3"),
        (table("nvidia-l4", 20), {}, "the samples are of nvidia-l4, the model is of nvidia-l40s"),
        (table(TARGET.name, 20), {"coverage": 1.0}, "coverage 1.0"),
        (table(TARGET.name, 20), {"width": 0.0}, "width 0.0"),
    ],
)
def test_unusable_questions(sources, samples, options, message):
    with pytest.raises(InvalidInput, match=message):
        adapt(sources, TARGET, samples, **options)


def test_rows_of_another_device_are_refused(model):
    with pytest.raises(InvalidInput, match="asked for are of nvidia-l4,"):
        model.predict(table("nvidia-l4", 5))


def test_one_source_is_enough_to_begin():
    alone = Sources.of({"nvidia-h100-sxm": table("nvidia-h100-sxm")})
    assert Rehearsal.of(alone, TARGET).belief is UNTAUGHT
    truth = table(TARGET.name, 200, 2)
    found = adapt(alone, TARGET, table(TARGET.name, 60, 1), width=np.inf).predict(truth)
    assert np.abs(found.ms / truth.ms - 1).mean() < 0.3


def test_no_source_may_be_closer_to_its_player_than_to_the_new_device(sources):
    """H100 and H200 are twins; nothing resembles an L40S as much, so neither sees the other in its rehearsal."""
    plays = Rehearsal.of(sources, TARGET).plays
    assert "nvidia-h200-sxm" not in plays["nvidia-h100-sxm"].tables
    assert "nvidia-h100-sxm" not in plays["nvidia-h200-sxm"].tables


def test_chosen_shapes_are_distinct_indices(sources):
    candidates = table(TARGET.name, 80, 4)
    first = next_shapes(sources, TARGET, candidates, None, 10)
    assert len(set(first.tolist())) == 10
    assert set(first.tolist()) <= set(range(80))
    more = next_shapes(sources, TARGET, candidates, candidates.take(first), 10)
    assert len(set(more.tolist()) - set(first.tolist())) >= 8
    assert sorted(next_shapes(sources, TARGET, candidates, None, 500).tolist()) == list(range(80))


def test_greedy_variances_are_those_of_refitting(sources):
    """The downdates against conditioning on the chosen rows from nothing, and the first choice against trying all."""
    prior = Prior.of(sources, TARGET, ("bf16", "fp16"))
    process, candidates, targets = before(prior, UNTAUGHT), table(TARGET.name, 25, 5), table(TARGET.name, 30, 6)
    steps = _greedy(process, candidates, targets, None)
    chosen, kept = zip(*(next(steps) for _ in range(4)), strict=True)
    offered, wanted = (prior.features(prior.shapes(gemms), process.theta) for gemms in (candidates, targets))
    among, across = process.covariance(offered, offered), process.covariance(wanted, offered)
    prior_variance = np.diag(process.covariance(wanted, wanted))

    def left(rows):
        inverse = np.linalg.inv(among[np.ix_(rows, rows)] + process.amplitudes.noise * np.eye(len(rows)))
        return prior_variance - np.einsum("ij,jk,ik->i", across[:, rows], inverse, across[:, rows])

    np.testing.assert_allclose(kept[3], left(list(chosen)), atol=1e-6)
    assert chosen[0] == min(range(25), key=lambda row: left([row]).sum())


def test_chosen_shapes_beat_random_ones(sources):
    candidates, truth = table(TARGET.name, 300, 4), table(TARGET.name, 300, 2)
    belief = Rehearsal.of(sources, TARGET).belief
    prior = Prior.of(sources, TARGET, ("bf16", "fp16"))

    def spread(rows):
        some = candidates.take(rows)
        return fitted(prior, some, np.log(some.ms), belief).posterior(truth)[1].mean()

    generator = np.random.default_rng(0)
    random = np.mean([spread(generator.permutation(300)[:15]) for _ in range(5)])
    assert spread(next_shapes(sources, TARGET, candidates, None, 15)) < random


def test_cheap_shapes_come_first_if_cost_counts(sources):
    candidates = table(TARGET.name, 200, 4)
    free, thrifty = (next_shapes(sources, TARGET, candidates, None, 10, cost=cost) for cost in (None, candidates.ms))
    assert candidates.ms[thrifty].sum() < candidates.ms[free].sum()


def test_choice_refuses_nonsense(sources):
    candidates = table(TARGET.name, 10, 4)
    with pytest.raises(InvalidInput, match="10 candidates and a count of 0"):
        next_shapes(sources, TARGET, candidates, None, 0)
    with pytest.raises(InvalidInput, match="one positive number for each of the 10"):
        next_shapes(sources, TARGET, candidates, None, 3, cost=np.zeros(10))
