"""``run_joint`` from end to end: baselines, exactness, budgets, what is refused, what the store knows."""

import itertools

import numpy as np
import pytest
import torch
from bitfront.architecture import ArchitectureSpace, Dimension, Genome
from bitfront.errors import InfeasibleBudget, InvalidInput, UnsupportedModel
from bitfront.hw_models import KernelRow, MeasuredTable, price
from bitfront.search import LocalExecutor, RayExecutor
from bitfront.search.joint import FrontEvolution, Told, run_joint
from bitfront.store import Store

FORMATS = ["w2", "w4", "w8"]
ASKED = {"formats": FORMATS, "objectives": ["quality", "size_mb"], "executor": "local", "evaluations": 20}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('joint')}/store.db"


@pytest.fixture(scope="module")
def result(digits, digits_task, store):
    return run_joint(digits_task, digits, store=store, **ASKED)


def test_the_largest_network_in_float_and_uniform_is_always_measured(digits, result):
    largest = digits.architecture.largest()
    uniform = {point.baseline: point for point in result.points if point.baseline}
    assert set(uniform) == set(FORMATS)
    assert all(point.genome.choices == largest for point in uniform.values())
    assert all(point.holdout is not None for point in uniform.values())
    assert set(result.float_model) == {"validation", "holdout"}


def test_the_foretold_front_is_that_of_every_genome(digits, result):
    """Brute force over every configuration of every architecture that was proposed gives the same front."""
    assert len(result.assessed) > 6
    floats = {point.genome.choices: point.float_quality for point in result.points}
    objectives = []
    for choices, found in result.assessed.items():
        sites = len(found.problem.space.sites)
        every = np.array(list(itertools.product(range(len(FORMATS)), repeat=sites)))
        scores = found.problem.loss("sqnr")[np.arange(sites), every].sum(axis=1)
        assert choices in floats or len(found.front)
        size = found.problem.totals(every, "size_mb")
        objectives.append((choices, scores, size))
    front = [(quality, costs[0]) for _, quality, costs in result.predicted_front]
    law = {genome.choices: quality for genome, quality, _ in result.predicted_front}
    assert law
    for quality, size in front:  # nothing foretold dominates a point of the front
        for choices, scores, sizes in objectives:
            values = _foretold(result, choices, scores)
            assert not ((values < quality * (1 - 1e-9)) & (sizes <= size)).any()
    best = min(float(_foretold(result, choices, scores).min()) for choices, scores, _ in objectives)
    assert min(quality for quality, _ in front) == pytest.approx(best)


def _foretold(result, choices, scores):
    return result.law.qualities(choices, scores)


def test_points_are_priced_and_predicted_with_intervals(result):
    frame = result.front
    assert (frame["predicted_low"] <= frame["predicted"]).all()
    assert (frame["predicted"] <= frame["predicted_high"]).all()
    assert (frame["validation_low"] <= frame["validation_value"]).all()
    for row in frame.itertuples():
        genome = Genome.from_dict({"architecture": row.architecture, "formats": row.formats})
        assert genome.digest == row.digest
        _, space = result.network(genome)
        assert price(space, metrics=["size_mb"]).of(genome.configuration)["size_mb"].value == pytest.approx(row.size_mb)
    on_front = frame[frame["pareto"]]
    assert (np.diff(on_front.sort_values("size_mb")["validation_value"]) < 0).all()


def test_a_search_for_both_beats_uniform_formats_of_the_largest_network(result):
    rounds = result.search["rounds"]
    assert [line["hypervolume"] for line in rounds] == sorted(line["hypervolume"] for line in rounds)
    assert rounds[-1]["hypervolume"] > 1.2 * rounds[0]["hypervolume"]
    best = result.choose()
    assert best.point.genome == result.best()
    assert best.reason


def test_a_budget_is_asked_of_what_was_measured(result):
    size = float(np.median(result.front["size_mb"]))
    genome = result.best(size_mb=size)
    row = result.front[result.front["digest"] == genome.digest].iloc[0]
    assert row["size_mb"] <= size
    assert result.best(max_drop=10.0) == result.points[0].genome  # the cheapest of all
    with pytest.raises(InfeasibleBudget, match="smallest measured"):
        result.best(size_mb=1e-9)
    with pytest.raises(InfeasibleBudget, match="the least is"):
        result.best(max_drop=-10.0)
    with pytest.raises(InvalidInput, match="unknown budget 'energy_mj'"):
        result.best(energy_mj=1.0)


def test_the_module_of_a_genome_is_plain(digits, result):
    genome = result.best()
    module = result.module(genome)
    batch = torch.rand(4, 64)
    assert torch.equal(module(batch), digits.build(genome.choices)(batch))
    with pytest.raises(InvalidInput, match="does not fit the model"):
        result.network(Genome(digits.architecture.smallest(), result.points[-1].genome.configuration))


def test_what_the_store_knows_is_not_measured_again(digits, digits_task, store, result):
    again = run_joint(digits_task, digits, store=store, **ASKED)
    assert again.front.drop(columns="origin").equals(result.front.drop(columns="origin"))
    measured = next(ran for ran in again.ledger.ran if ran.stage == "measure")
    assert measured.ran == 0
    assert all(ran.ran == 0 for ran in again.ledger.ran if ran.stage in ("trace", "calibrate", "score", "propose"))
    assert any(candidate.configuration == result.best().digest for candidate in _candidates(store))


def _candidates(url):
    store = Store(url)
    return [row for job in store.jobs() for row in store.candidates(job.id)]


def test_the_seed_decides_whoever_measures(digits, digits_task, tmp_path):
    asked = ASKED | {"evaluations": 9, "seed": 3}
    one = run_joint(digits_task, digits, store=f"sqlite:///{tmp_path}/a.db", **asked)
    asked["executor"] = LocalExecutor(shard_size=1)
    other = run_joint(digits_task, digits, store=f"sqlite:///{tmp_path}/b.db", **asked)
    assert one.front.equals(other.front)


def test_constraints_hold_and_the_largest_network_has_its_say(digits, digits_task, store):
    limit = 0.003
    found = run_joint(digits_task, digits, store=store, **(ASKED | {"constraints": {"size_mb": limit}}))
    alone = [point for point in found.points if point.origin == "formats alone"]
    assert len(alone) == 1
    assert alone[0].prices["size_mb"].value <= limit
    assert alone[0].holdout is not None
    chosen = found.choose().point
    assert chosen.feasible
    assert chosen.prices["size_mb"].value <= limit
    judged = [point for point in found.points if point.feasible and point.holdout is not None]
    assert chosen in judged
    with pytest.raises(InfeasibleBudget):
        run_joint(digits_task, digits, store=store, **(ASKED | {"constraints": {"size_mb": 1e-6}}))


def test_a_predictor_stands_in_for_float_measurements(digits, digits_task, tmp_path, result):
    asked = []

    def predictor(choices):
        asked.append(choices)
        return 0.3 - 0.05 * int(choices["depth"])

    fresh = f"sqlite:///{tmp_path}/store.db"
    found = run_joint(digits_task, digits, store=fresh, predictor=predictor, **ASKED)
    assert asked
    floats = found.search["rounds"][-1]["float_networks"]
    assert floats == 1  # the largest, which is a baseline
    assert len(found.points) > len(result.points)  # what is not spent on float networks goes to genomes


def test_what_cannot_be_built_is_left_out_and_told(cases, digits_task, store):
    class Fragile(cases["Digits"]):
        name = "fragile"

        def build(self, choices):
            if choices["depth"] == 0:
                raise UnsupportedModel("a network without blocks is not offered")
            return super().build(choices)

    found = run_joint(digits_task, Fragile(), store=store, **ASKED)
    assert len(found.refused) == 1
    assert any("without blocks is not offered" in note for note in found.notes)
    assert len(found.assessed) > 6


def test_the_deadline_ends_the_search_with_its_baselines(digits, digits_task, store):
    found = run_joint(digits_task, digits, store=store, seconds=1e-9, **ASKED)
    assert {point.origin for point in found.points} == {"uniform"}
    assert found.search["ended"] == "the time is up"


def test_a_proposer_of_ones_own_is_asked_and_told(digits, digits_task, store):
    told = []

    class Alphabetical:
        def __init__(self, architecture, seed):
            self.left = sorted(architecture.all(), key=lambda choices: choices.pairs)

        def ask(self, count):
            found, self.left = self.left[:count], self.left[count:]
            return found

        def tell(self, known):
            told.append(list(known))

    found = run_joint(digits_task, digits, store=store, proposer=Alphabetical, **ASKED)
    assert told
    last = told[-1]
    assert {each.choices for each in last} == set(found.assessed)
    assert all(isinstance(each, Told) and np.isfinite(each.quality) for each in last)
    assert sum(each.share for each in last) == pytest.approx(1.0)
    assert all((each.gap == 0) or each.share == 0 for each in last)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"evaluations": 0}, "at least 1"),
        ({"finalists": 0}, "at least 1"),
        ({"objectives": ["quality"]}, "at least one price"),
        ({"objectives": ["quality", "size_bm"]}, "did you mean 'size_mb'"),
        ({"proxy": "sqrn"}, "sqnr"),
        ({"executor": "remote"}, "choose 'ray' or 'local'"),
        ({"proposer": lambda architecture, seed: object()}, "has no ask and tell"),
    ],
)
def test_what_cannot_be_asked_is_refused(digits, digits_task, store, asked, told):
    with pytest.raises(InvalidInput, match=told):
        run_joint(digits_task, digits, store=store, **(ASKED | asked))


def test_evolution_proposes_each_architecture_once_and_all_of_a_small_space(digits):
    proposer, seen = FrontEvolution(digits.architecture, seed=0), []
    empty = np.zeros((0, 2))
    while found := proposer.ask(3):
        seen += found
        proposer.tell([Told(each, 0.5, empty, float(index), 0.0) for index, each in enumerate(seen)])
    assert len(seen) == len(set(seen)) == 13


def test_evolution_stays_near_the_front():
    space = ArchitectureSpace(tuple(Dimension(f"d{index}", "width", tuple(range(6))) for index in range(10)))
    proposer, known = FrontEvolution(space, seed=1, initial=8), []
    for _ in range(25):
        known += proposer.ask(4)
        totals = [sum(int(value) for value in each.values()) for each in known]
        proposer.tell(
            [Told(each, 0.0, np.zeros((0, 2)), total, 0.0) for each, total in zip(known, totals, strict=True)]
        )
    late = [sum(int(value) for value in each.values()) for each in known[-20:]]
    early = [sum(int(value) for value in each.values()) for each in known[:8]]  # random ones
    assert np.mean(late) < 0.8 * np.mean(early)


def test_ray_gives_what_one_process_gives(digits, digits_task, tmp_path):
    asked = ASKED | {"evaluations": 6, "formats": ["w2", "w4"], "finalists": 1}
    one = run_joint(digits_task, digits, store=f"sqlite:///{tmp_path}/a.db", **asked)
    asked["executor"] = RayExecutor(workers=1)
    other = run_joint(digits_task, digits, store=f"sqlite:///{tmp_path}/b.db", **asked)
    assert one.front.equals(other.front)


@pytest.mark.parametrize(("device", "formats"), [("nvidia-l40s", ["fp8", "bf16"]), ("cpu", ["w8", "bf16"])])
def test_several_prices_are_those_of_each_architecture_on_the_device(digits, digits_task, store, device, formats):
    asked = {"formats": formats, "objectives": ["quality", "latency_ms", "size_mb"], "evaluations": 12}
    found = run_joint(digits_task, digits, store=store, device=device, whole_models=0, **(ASKED | asked))
    opened = Store(store)
    known = MeasuredTable(tuple(KernelRow(**row) for row in opened.kernels(device)))
    opened.close()
    assert len({point.genome.choices for point in found.points}) > 2
    for point in found.points:
        _, space = found.network(point.genome)
        own = price(space, device, 1, ["latency_ms", "size_mb"], [known]).of(point.genome.configuration)
        assert point.prices["latency_ms"].value == pytest.approx(own["latency_ms"].value)
        assert point.prices["size_mb"].value == pytest.approx(own["size_mb"].value)
        assert point.prices["latency_ms"].source == ("measured" if device == "cpu" else "predicted")
    largest = found.assessed[digits.architecture.largest()]
    smallest = found.assessed[digits.architecture.smallest()]
    assert smallest.costs.min(axis=0)[0] < largest.costs.min(axis=0)[0]
    for each in found.assessed.values():  # the union of the exact fronts against each price
        alone = [each.problem.front("sqnr", name) for name in ("latency_ms", "size_mb")]
        assert {tuple(row) for row in each.front} == {tuple(row) for front in alone for row in front}
    table = found.front[["validation_value", "latency_ms", "size_mb"]].to_numpy()
    dominated = [((table <= row).all(axis=1) & (table < row).any(axis=1)).any() for row in table]
    assert (found.front["pareto"].to_numpy() == ~np.array(dominated)).all()
    assert any("union of its exact fronts against latency_ms and size_mb" in note for note in found.notes)
    assert any("no whole model was timed" in note for note in found.notes) == (device == "cpu")
