"""GPTQ against the published loop in float64, against every rounding of tiny layers, and in every format."""

import itertools

import pytest
import torch
from bitfront.evaluators.quantizers import Layout, choose_scales, decode, nearest
from bitfront.evaluators.reconstruction import Blocks, Gptq, LayerProblem, Moment
from bitfront.formats import Format

FORMATS = ["w2", "w3", "w4", "w8", "w3t", "w3z", "w4g32", "w4g64z", "w3b128"]
FORMATS += ["we4m3", "we2m1g32", "wmxfp8", "wmxfp4", "wnvfp4", "nf4"]


def problem_of(name, channels, elements, rows, blocks=None, seed=0):
    """A layer with correlated inputs that are not centred, in one format; and the inputs [blocks, rows, elements]."""
    generator = torch.Generator().manual_seed(seed)
    blocks, target = blocks or Blocks(), Format.parse(name).weight
    weight = torch.randn(channels, elements, generator=generator)
    width = elements // blocks.count if blocks.across else elements
    mixing = torch.randn(blocks.count, width, width, generator=generator)
    inputs = torch.randn(blocks.count, rows, width, generator=generator) @ mixing + 0.5
    layout = Layout.of(weight, target, 0)
    moment = Moment(inputs.mT @ inputs / rows, blocks)
    return LayerProblem(weight, layout, choose_scales(weight, target, 0), moment), inputs


def published(problem, damping=0.01, act_order=True):
    """Algorithm 1 in float64, column by column (which columns are updated together does not change the result)."""
    weight, hessian = problem.blocks[0].double().clone(), problem.moment.matrix[0].double().clone()
    hessian += damping * hessian.diagonal().mean() * torch.eye(len(hessian))
    factor = problem.factor[0].double()
    zero = problem.zero_point[0] if problem.zero_point.ndim else torch.zeros_like(problem.blocks[0])
    order = torch.arange(weight.shape[1])
    if act_order:
        order = problem.moment.matrix[0].diagonal().argsort(descending=True)
    weight, hessian, factor, zero = weight[:, order], hessian[order][:, order], factor[:, order], zero[:, order]
    root = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    found = torch.zeros_like(weight)
    for column in range(weight.shape[1]):
        ratio = (weight[:, column] / factor[:, column]).float()
        found[:, column] = nearest(ratio, problem.target, zero[:, column]).double() * factor[:, column]
        error = (weight[:, column] - found[:, column]) / root[column, column]
        weight[:, column:] -= error[:, None] * root[None, column, column:]
    return found[:, order.argsort()]


def relative(problem, quantized):
    return float(problem.errors(quantized).sum() / problem.errors(problem.nearest).sum())


@pytest.mark.parametrize("name", ["w3", "w4g32z", "wmxfp4", "wnvfp4", "nf4"])
@pytest.mark.parametrize("columns", [1, 7, 128])
@pytest.mark.parametrize("act_order", [False, True])
def test_the_published_loop(name, columns, act_order):
    problem, _ = problem_of(name, 12, 64, 200)
    expected = published(problem, act_order=act_order)
    # channels where the published loop is not better than nearest are rounded to nearest
    difference = (expected - problem.blocks[0]).float()[None]
    keeps = problem.form(difference)[0][0] >= problem.errors(problem.nearest)
    expected = torch.where(keeps[:, None], problem.nearest.dequantize().double(), expected)
    (found,) = Gptq(columns=columns, act_order=act_order)([problem])
    torch.testing.assert_close(found.dequantize().double(), expected, rtol=1e-6, atol=1e-7)
    assert not bool(keeps.all())


@pytest.mark.parametrize("blocks", [Blocks(3), Blocks(2, across=True)])
def test_blocks_are_independent_layers(blocks):
    problem, _ = problem_of("w3", 6, 8, 50, blocks)
    (found,) = Gptq()([problem])
    got = problem.split(found.dequantize())
    for block in range(blocks.count):
        weight = problem.blocks[block]
        layout = Layout.of(weight, problem.target, 0)
        single = problem.moment.matrix[block : block + 1]
        scales = type(problem.scales)(problem.factor[block, :, 0])
        (alone,) = Gptq()([LayerProblem(weight, layout, scales, Moment(single, Blocks()))])
        # across blocks, a channel keeps nearest by the sum over its blocks
        if not blocks.across:
            assert torch.equal(got[block], alone.dequantize())
    assert relative(problem, found) < 0.9


@pytest.mark.parametrize("name", ["w2", "w2z", "we1m1"])
def test_between_the_best_rounding_and_nearest(name):
    better = 0
    for seed in range(5):
        problem, inputs = problem_of(name, 20, 4, 12, seed=seed)
        (found,) = Gptq()([problem])
        errors, near = problem.errors(found).double(), problem.errors(problem.nearest).double()
        codes = torch.tensor(list(itertools.product(range(2**problem.target.bits), repeat=4)))
        if problem.target.number == "int" and problem.target.symmetric:
            codes = codes - 2 ** (problem.target.bits - 1)
        zero = problem.zero_point[0] if problem.zero_point.ndim else 0.0
        weights = decode(codes[:, None], problem.target, zero) * problem.factor[0]  # [roundings, channels, elements]
        outputs = (weights - problem.blocks[0]).double() @ inputs[0].double().T
        best = outputs.square().mean(2).min(0).values
        assert bool((errors >= best * (1 - 1e-4)).all())
        assert bool((errors <= near * (1 + 1e-6)).all())
        better += int((errors < near * 0.999).sum())
    assert better >= 15


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_on_its_grid_and_never_worse_than_nearest(name, act_order):
    problem, inputs = problem_of(name, 16, 128, 60)
    (found,) = Gptq(act_order=act_order)([problem])
    assert found.scales is problem.scales
    assert found.codes.dtype == problem.nearest.codes.dtype
    matrix = problem.layout.matrix(found.dequantize())
    ratio = matrix / problem.factor[0]
    zero = problem.zero_point if not problem.zero_point.ndim else problem.zero_point[0]
    torch.testing.assert_close(nearest(ratio, problem.target, zero), ratio, rtol=1e-5, atol=1e-5)

    def errors(weight):
        return ((weight - problem.weight).double() @ inputs[0].double().T).square().sum(1)

    nearest_errors = errors(problem.nearest.dequantize())
    assert bool((errors(found.dequantize()) <= nearest_errors * (1 + 1e-5)).all())
    assert float(errors(found.dequantize()).sum()) < 0.9 * float(nearest_errors.sum())


def test_channels_that_gptq_makes_worse_are_rounded_to_nearest():
    problem, _ = problem_of("w2", 64, 4, 12)
    raw = problem.form(published(problem).float()[None] - problem.blocks)[0][0]
    worse = raw > problem.errors(problem.nearest) * (1 + 1e-5)
    assert bool(worse.any())
    (found,) = Gptq()([problem])
    assert torch.equal(found.codes[worse], problem.nearest.codes[worse])
    assert bool((problem.errors(found) <= problem.errors(problem.nearest)).all())


def test_uncorrelated_inputs_leave_nearest():
    problem, _ = problem_of("w3", 8, 16, 40)
    diagonal = Moment(torch.diag(torch.rand(16, generator=torch.Generator().manual_seed(1)))[None], Blocks())
    problem = LayerProblem(problem.weight, problem.layout, problem.scales, diagonal)
    assert torch.equal(Gptq()([problem])[0].codes, problem.nearest.codes)


@pytest.mark.parametrize("act_order", [False, True])
def test_inputs_that_are_always_zero_are_rounded_to_nearest(act_order):
    problem, _ = problem_of("w3", 8, 16, 40)
    matrix = problem.moment.matrix.clone()
    matrix[:, [3, 9]], matrix[:, :, [3, 9]] = 0, 0
    problem = LayerProblem(problem.weight, problem.layout, problem.scales, Moment(matrix, Blocks()))
    (found,) = Gptq(act_order=act_order)([problem])
    assert torch.equal(found.codes[:, [3, 9]], problem.nearest.codes[:, [3, 9]])
    assert relative(problem, found) < 0.9


def test_no_data_leaves_nearest():
    problem, _ = problem_of("w3", 8, 16, 40)
    problem = LayerProblem(problem.weight, problem.layout, problem.scales, Moment(torch.zeros(1, 16, 16), Blocks()))
    assert torch.equal(Gptq()([problem])[0].codes, problem.nearest.codes)


def test_one_layer_in_several_formats_at_once():
    problems = [problem_of(name, 8, 32, 100)[0] for name in ("w3", "w4g32")]
    together = Gptq()(problems)
    assert [found.target for found in together] == [each.target for each in problems]
    for each, found in zip(problems, together, strict=True):
        assert torch.equal(Gptq()([each])[0].codes, found.codes)
