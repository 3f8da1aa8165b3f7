"""AdaRound against autograd in float64, against every rounding of tiny layers, and in every format."""

import itertools
import math

import pytest
import torch
from bitfront.evaluators.quantizers import Layout, WeightScale, choose_scales, codebook
from bitfront.evaluators.reconstruction import AdaRound, Blocks, LayerProblem, Moment
from bitfront.evaluators.reconstruction.adaround import neighbours
from bitfront.formats import Format
from hypothesis import given
from hypothesis import strategies as st

FORMATS = ["w2", "w3", "w4", "w3t", "w3z", "w4g32", "w4g64z", "w3b128", "we4m3", "we2m1g32"]
FORMATS += ["wmxfp8", "wmxfp4", "wnvfp4", "nf4"]


def problem_of(name, channels, elements, rows, blocks=None, seed=0):
    """A layer with correlated inputs that are not centred, in one format; and the inputs [blocks, rows, elements]."""
    generator = torch.Generator().manual_seed(seed)
    blocks, target = blocks or Blocks(), Format.parse(name).weight
    weight = torch.randn(channels, elements, generator=generator)
    width = elements // blocks.count if blocks.across else elements
    mixing = torch.randn(blocks.count, width, width, generator=generator)
    inputs = torch.randn(blocks.count, rows, width, generator=generator) @ mixing + 0.5
    scales = choose_scales(weight, target, 0)
    return LayerProblem(weight, Layout.of(weight, target, 0), scales, Moment(inputs.mT @ inputs / rows, blocks)), inputs


def by_autograd(problem, inputs, method):
    """Eq. 21 to 25 written down in float64, on the inputs themselves: the learned h(V)."""
    weight, scale = problem.blocks[0].double(), problem.factor[0].double()
    low, high = problem.target.levels
    floor = (weight / scale).floor()
    fraction = (weight / scale - floor).clamp(0, 1)
    clipped = (floor < low) | (floor >= high)
    fraction[clipped] = 0  # h of a weight beyond the last level has no effect on the output
    variable = torch.logit((fraction + 0.1) / 1.2).requires_grad_()
    adam = torch.optim.Adam([variable], lr=method.rate)
    step = torch.where(clipped, 0.0, scale)
    unit = (step.square() * problem.moment.matrix[0].double().diagonal()).mean(1)
    for done in range(method.steps):
        up = (variable.sigmoid() * 1.2 - 0.1).clamp(0, 1)
        rounded = scale * (floor + up).clamp(low, high)
        error = ((rounded - weight) @ inputs[0].double().T).square().mean(1)
        loss = (error / unit).sum()
        progress = done / method.steps
        if progress >= method.warm:
            angle = math.pi * (progress - method.warm) / (1 - method.warm)
            beta = 2 + (20 - 2) * (1 + math.cos(angle)) / 2
            loss = loss + method.strength * (1 - (2 * up - 1).abs() ** beta).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    up = (variable.detach().sigmoid() * 1.2 - 0.1).clamp(0, 1)
    return up, scale * (floor + (up >= 0.5)).clamp(low, high)


def test_the_published_objective_by_autograd():
    method = AdaRound(steps=60, rate=0.05)
    problem, inputs = problem_of("w3", 8, 12, 100)
    up, rounded = by_autograd(problem, inputs, method)
    assert not bool(((up - 0.5).abs() < 1e-3).any())  # no weight is left so undecided that float32 would matter
    (found,) = method([problem])
    errors = problem.form(rounded.float()[None] - problem.blocks)[0][0]
    better = errors < problem.errors(problem.nearest)
    assert int(better.sum()) >= 4
    torch.testing.assert_close(found.dequantize()[better].double(), rounded[better], rtol=1e-6, atol=1e-7)
    assert torch.equal(found.codes[~better], problem.nearest.codes[~better])


@pytest.mark.parametrize("name", ["w2", "w3z", "we2m1"])
def test_between_the_best_rounding_and_nearest(name):
    gains, possible = 0.0, 0.0
    for seed in range(3):
        problem, inputs = problem_of(name, 16, 6, 10, seed=seed)
        (found,) = AdaRound()([problem])
        ratio = problem.blocks / problem.factor
        below, above = neighbours(ratio, problem.target, problem.zero_point)
        picks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))[:, None]
        weights = (below[0] + picks * (above - below)[0]) * problem.factor[0]  # [roundings, channels, elements]
        outputs = (weights - problem.blocks[0]).double() @ inputs[0].double().T
        best = outputs.square().mean(2).min(0).values
        errors, near = problem.errors(found).double(), problem.errors(problem.nearest).double()
        assert bool((errors >= best * (1 - 1e-4)).all())
        assert bool((errors <= near * (1 + 1e-6)).all())
        gains += float((near - errors).sum())
        possible += float((near - best).sum())
    assert gains > 0.5 * possible > 0


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_goes_to_a_neighbour_and_never_worse_than_nearest(name):
    problem, inputs = problem_of(name, 16, 128, 60)
    (found,) = AdaRound(steps=150)([problem])
    assert found.scales is problem.scales
    assert found.codes.dtype == problem.nearest.codes.dtype
    ratio = problem.blocks / problem.factor
    below, above = neighbours(ratio, problem.target, problem.zero_point)
    element = problem.layout.matrix(found.dequantize())[None] / problem.factor
    apart = torch.minimum((element - below).abs(), (element - above).abs())
    assert bool((apart <= 1e-5 * element.abs().clamp(min=1)).all())

    def errors(weight):
        return ((weight - problem.weight).double() @ inputs[0].double().T).square().sum(1)

    nearest_errors = errors(problem.nearest.dequantize())
    assert bool((errors(found.dequantize()) <= nearest_errors * (1 + 1e-5)).all())
    assert float(errors(found.dequantize()).sum()) < 0.9 * float(nearest_errors.sum())


@pytest.mark.parametrize("blocks", [Blocks(3), Blocks(2, across=True)])
def test_blocks(blocks):
    problem, inputs = problem_of("w3", 6, 16, 50, blocks)
    (found,) = AdaRound()([problem])
    difference = problem.split(found.dequantize()) - problem.blocks
    expected = blocks.by_channel((difference.double() @ inputs.double().mT).square().mean(2))
    torch.testing.assert_close(problem.errors(found).double(), expected, rtol=1e-4, atol=1e-6)
    assert float(expected.sum()) < 0.8 * float(problem.errors(problem.nearest).sum())


def test_uncorrelated_inputs_leave_nearest():
    problem, _ = problem_of("w3", 8, 16, 40)
    moment = Moment(torch.diag(torch.linspace(0.2, 1, 16))[None], Blocks())
    problem = LayerProblem(problem.weight, problem.layout, problem.scales, moment)
    assert torch.equal(AdaRound()([problem])[0].codes, problem.nearest.codes)


def test_a_weight_on_the_grid_and_no_data_stay_as_they_are():
    target, weight = Format.parse("w3").weight, torch.randint(-4, 4, (5, 8)).float()
    problem, _ = problem_of("w3", 5, 8, 40)
    layout, ones = Layout.of(weight, target, 0), WeightScale(torch.ones(5))
    exact = LayerProblem(weight, layout, ones, problem.moment)
    assert torch.equal(AdaRound()([exact])[0].dequantize(), weight)
    silent = LayerProblem(problem.weight, problem.layout, problem.scales, Moment(torch.zeros(1, 8, 8), Blocks()))
    assert torch.equal(AdaRound()([silent])[0].codes, problem.nearest.codes)


@given(
    name=st.sampled_from(["w2", "w4", "we4m3", "we5m2", "we2m1", "nf4"]),
    values=st.lists(st.floats(-600, 600, width=32), min_size=1, max_size=8),
)
def test_neighbours_are_the_elements_on_both_sides(name, values):
    target = Format.parse(name).weight
    ratio = torch.tensor(values)
    grid = torch.arange(*target.levels).float() if target.number == "int" else codebook(target)
    grid = torch.cat([grid, grid.new_tensor([target.largest])])
    grid = grid[torch.isfinite(grid)]
    below, above = neighbours(ratio, target, torch.tensor(0.0))
    for value, low, high in zip(values, below.tolist(), above.tolist(), strict=True):
        under, over = grid[grid <= value], grid[grid > value]
        assert low == (float(under.max()) if len(under) else float(grid.min()))
        assert high == (float(over.min()) if len(over) else float(grid.max()))


def test_neighbours_of_unsigned_codes():
    target, zero = Format.parse("w2z").weight, torch.tensor([0.0, 1.0, 3.0])
    below, above = neighbours(torch.tensor([-0.5, -0.5, -0.5]), target, zero)
    assert below.tolist() == [0, -1, -1]
    assert above.tolist() == [0, 0, 0]
