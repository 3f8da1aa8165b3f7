"""The accuracy predictor: columns against a naive reference, learning, sample efficiency, the hook of the search."""

import math

import numpy as np
import pytest
import torch
from bitfront.architecture import ArchitectureSpace, Choices, Dimension, Genome
from bitfront.errors import InvalidInput
from bitfront.search.joint import run_joint
from bitfront.search.joint.accuracy_encoding import GenomeEncoding
from bitfront.search.joint.accuracy_network import Ensemble
from bitfront.search.joint.accuracy_predictor import AccuracyPredictor
from bitfront.space import Configuration
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

FORMATS = ("w2", "w3", "w4", "w8")
LAYERS = 6
LOSS = {"w2": 1.5, "w3": 0.3, "w4": 0.1, "w8": 0.02}


def space_of():
    depth = Dimension("depth", "depth", (3, 4, 5, 6))
    widths = [
        Dimension(f"w{n}", "width", (8, 16, 24), () if n < 3 else (("depth", tuple(range(max(3, n + 1), 7))),))
        for n in range(LAYERS)
    ]
    return ArchitectureSpace((depth, *widths))


SPACE = space_of()
WORTH = np.random.default_rng(5).uniform(0.02, 0.2, LAYERS)


def quality(genome):
    """Wider and deeper is better; coarse formats lose, most in some of the layers."""
    better = sum(WORTH[n] * int(genome.choices[f"w{n}"]) / 8 for n in range(int(genome.choices["depth"])))
    lost = sum(2 * WORTH[int(site[1:])] * LOSS[name] for site, name in genome.configuration.items())
    return 0.3 * math.exp(lost - better)


def pair(draw):
    choices = SPACE.sample(draw)
    share = draw.dirichlet(np.ones(4))
    formats = {f"l{n}": FORMATS[int(draw.choice(4, p=share))] for n in range(int(choices["depth"]))}
    return Genome(choices, Configuration.from_dict(formats))


def labelled(genomes):
    return {each: quality(each) for each in genomes}


@pytest.fixture(scope="module")
def data():
    """120 float networks, 100 pairs, 80 held-out pairs."""
    draw = np.random.default_rng(0)
    floats = {choices: quality(Genome(choices)) for choices in (SPACE.sample(draw) for _ in range(120))}
    return floats, [pair(draw) for _ in range(100)], [pair(draw) for _ in range(80)]


@pytest.fixture(scope="module")
def encoding(data):
    return GenomeEncoding.of(SPACE, data[1])


@pytest.fixture(scope="module")
def pretrained(data, encoding):
    return AccuracyPredictor.pretrained(encoding, data[0])


def naive_row(encoding, genome):
    """Column by column, from the definition."""
    found = [
        float(each.name in genome.choices and genome.choices[each.name] == value)
        for each in encoding.architecture.dimensions
        for value in each.values
    ]
    formats = genome.configuration.to_dict()
    found += [float(formats.get(site) == name) for site in encoding.sites for name in encoding.formats]
    return found + [list(formats.values()).count(name) / max(1, len(formats)) for name in encoding.formats]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_rows_are_one_hot(seed):
    draw = np.random.default_rng(seed)
    encoding = GenomeEncoding(SPACE, tuple(f"l{n}" for n in range(LAYERS)), FORMATS)
    genomes = [pair(draw) for _ in range(3)]
    genomes.append(Genome(genomes[0].choices))
    rows = encoding.rows(genomes)
    assert rows.shape == (4, encoding.size)
    assert rows.tolist() == [naive_row(encoding, each) for each in genomes]
    assert (rows[-1, encoding.of_architecture :] == 0).all()  # a float network


def test_the_ensemble_is_its_formula_and_keeps_its_function_on_another_scale():
    draw = np.random.default_rng(0)
    rows, wanted = draw.normal(size=(30, 7)), draw.normal(size=30)
    found = Ensemble.drawn(7, hidden=5, members=3, seed=1).rescaled(0.4, 2.0)
    found = found.trained(rows, wanted, 20)
    first, one, second, two, last, bias = (each.numpy() for each in found.parameters)

    def silu(x):
        return x / (1 + np.exp(-x))

    for member in range(3):
        hidden = silu(silu(rows @ first[member] + one[member]) @ second[member] + two[member])
        naive = 0.4 + 2.0 * (hidden @ last[member] + bias[member])[:, 0]
        assert found.outputs(rows)[member] == pytest.approx(naive)
    assert found.rescaled(-1.0, 0.3).outputs(rows) == pytest.approx(found.outputs(rows))


def test_an_ensemble_learns_what_comes_on_top():
    """log(e^u + e^g) = wanted: the loss falls, and the part on top is that of the truth."""
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(60, 3))
    under, top = draw.normal(size=60), rows @ [1.0, -0.5, 0.3]
    start = Ensemble.drawn(3, hidden=16, members=2, seed=1)
    found = start.trained(rows, np.logaddexp(under, top), 400, under)
    assert np.corrcoef(found.outputs(rows).mean(axis=0), top)[0, 1] > 0.97
    alone = start.trained(rows, np.logaddexp(under, top), 400)
    assert np.corrcoef(alone.outputs(rows).mean(axis=0), top)[0, 1] < 0.97


def test_a_pair_is_its_float_network_and_what_formats_lose(pretrained, data):
    adapted = pretrained.adapted(labelled(data[1][:20]))
    nets = [Genome(each.choices) for each in data[2]]
    assert adapted.predict(nets) == pytest.approx(pretrained.predict(nets))
    assert (adapted.predict(data[2]) > adapted.predict(nets)).all()
    lost = np.exp(adapted.loss.outputs(adapted.encoding.rows(data[2])).mean(axis=0))
    assert adapted.predict(data[2]) - adapted.predict(nets) == pytest.approx(lost)


def test_float_networks_are_foretold(pretrained):
    draw = np.random.default_rng(9)
    fresh = [SPACE.sample(draw) for _ in range(80)]
    truth = [quality(Genome(each)) for each in fresh]
    assert spearmanr([pretrained(each) for each in fresh], truth).statistic > 0.97


def test_pretraining_needs_fewer_pairs(data, encoding, pretrained):
    """Rank correlation on held-out pairs, means over seeds, against the same network on the pairs alone."""
    _, pool, held = data
    truth = [quality(each) for each in held]
    gains = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(pool))[:12]
        pairs = labelled([pool[int(index)] for index in order])
        adapted, alone = pretrained.adapted(pairs), AccuracyPredictor.scratch(encoding, pairs, seed=seed)
        ranks = [spearmanr(each.predict(held), truth).statistic for each in (adapted, alone)]
        gains.append(ranks[0] - ranks[1])
    assert min(gains) > 0
    assert np.mean(gains) > 0.05


def test_adapting_learns_pairs_and_does_not_forget_float_networks(data, pretrained):
    floats, pool, held = data
    adapted = pretrained.adapted(labelled(pool))
    assert spearmanr(adapted.predict(held), [quality(each) for each in held]).statistic > 0.95
    assert spearmanr([adapted(each) for each in floats], list(floats.values())).statistic > 0.97


def test_no_pairs_change_nothing(pretrained):
    assert pretrained.adapted({}) is pretrained


def test_pairs_add_up_and_are_replaced(data, pretrained):
    first, second = labelled(data[1][:4]), labelled(data[1][4:8])
    both = pretrained.adapted(first, steps=5).adapted({**second, data[1][0]: 0.5}, steps=5)
    assert dict(both.pairs) == {**first, **second, data[1][0]: 0.5}
    assert both.floats == pretrained.floats


def test_the_seed_decides_and_the_global_state_does_not(data, encoding):
    pairs = labelled(data[1][:10])
    one = AccuracyPredictor.scratch(encoding, pairs, seed=2, steps=30).predict(data[2])
    torch.manual_seed(77)
    two = AccuracyPredictor.scratch(encoding, pairs, seed=2, steps=30).predict(data[2])
    other = AccuracyPredictor.scratch(encoding, pairs, seed=3, steps=30).predict(data[2])
    assert (one == two).all()
    assert not (one == other).all()


def test_a_quality_of_zero_counts_as_half_the_smallest_other(data, encoding):
    pairs = dict(zip(data[1][:6], [0.0, 0.2, 0.4, 0.1, 0.3, 0.2], strict=True))
    found = AccuracyPredictor.scratch(encoding, pairs)
    assert found.floor == 0.05
    assert found.predict(list(pairs)) == pytest.approx([0.05, 0.2, 0.4, 0.1, 0.3, 0.2], rel=0.2)


def test_it_is_the_predictor_of_a_joint_search(digits, digits_task, tmp_path):
    """Pretrained on measured float networks of the real family; the search then measures no float network itself."""
    every = list(digits.architecture.all())
    values = {each: _loss(digits, digits_task, each) for each in every}
    predictor = AccuracyPredictor.pretrained(GenomeEncoding(digits.architecture), values)
    assert all(predictor(each) == pytest.approx(value, rel=0.15) for each, value in values.items())
    found = run_joint(
        digits_task,
        digits,
        formats=["w2", "w4", "w8"],
        objectives=["quality", "size_mb"],
        executor="local",
        evaluations=12,
        predictor=predictor,
        store=f"sqlite:///{tmp_path}/store.db",
    )
    assert found.search["rounds"][-1]["float_networks"] == 1
    believed = np.array([[found.law.floats[each], predictor(each)] for each in found.assessed])
    assert len(believed) > 6
    assert believed[:, 0] == pytest.approx(believed[:, 1], rel=0.25)  # mended by what quantized networks tell


def _loss(family, task, choices):
    module = family.build(choices)
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(module(*each.inputs), each.targets).item() for each in task.validation
        ]
    return float(np.mean(losses))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda encoding: AccuracyPredictor.pretrained(encoding, {SPACE.smallest(): 0.1}), "at least two"),
        (
            lambda encoding: AccuracyPredictor.pretrained(encoding, {SPACE.smallest(): 0.1, SPACE.largest(): math.inf}),
            "leave networks out",
        ),
        (
            lambda encoding: AccuracyPredictor.pretrained(encoding, {SPACE.smallest(): 0.1, SPACE.largest(): -0.1}),
            "finite qualities from 0 on",
        ),
        (lambda encoding: GenomeEncoding(SPACE, ("a", "a"), FORMATS), "must differ"),
        (
            lambda encoding: encoding.rows([Genome(SPACE.smallest(), Configuration.from_dict({"l0": "w5"}))]),
            "has no column",
        ),
        (lambda encoding: encoding.rows([Genome(Choices.from_dict({"depth": 99}))]), "one of"),
    ],
)
def test_what_cannot_be_learned_is_refused(encoding, made, told):
    with pytest.raises(InvalidInput, match=told):
        made(encoding)
