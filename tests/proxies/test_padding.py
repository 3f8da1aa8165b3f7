"""Batches cut to their longest sample: the same numbers where a mask is obeyed, nothing done where it is not."""

import bitfront as bf
import numpy as np
import pytest
import torch
from bitfront.evaluators import calibrate
from bitfront.proxies.augmented_hessian import AugmentedHessian
from bitfront.proxies.measured import MeasuredKL
from bitfront.proxies.padding import counted, without_padding
from bitfront.proxies.pairwise import Pairwise
from bitfront.proxies.top_eigenvalue import TopEigenvalue
from bitfront.task import Batch
from torch import nn

FORMATS = ["w2", "w4", "w4a8", "w8a8d"]


class Encoder(nn.Module):
    """Attention over the positions that the mask leaves; the mean of them, or all."""

    def __init__(self, obeys=True, pooled=True):
        super().__init__()
        torch.manual_seed(0)
        self.obeys, self.pooled = obeys, pooled
        self.embed, self.mix, self.head = nn.Embedding(20, 8), nn.Linear(8, 24), nn.Linear(8, 6)

    def forward(self, input_ids, attention_mask):
        q, k, v = self.mix(self.embed(input_ids)).chunk(3, -1)
        scores = q @ k.mT
        if self.obeys:
            scores = scores.masked_fill(attention_mask[:, None] == 0, float("-inf"))
        states = self.head(torch.tanh(scores.softmax(-1) @ v))
        weights = attention_mask[..., None].float()
        return (states * weights).sum(1) / weights.sum(1) if self.pooled else states


def padded(lengths, width=12, left=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.arange(width)
    counts = torch.tensor(lengths)[:, None]
    mask = (positions >= width - counts) if left else (positions < counts)
    return {"input_ids": torch.randint(0, 20, mask.shape, generator=generator), "attention_mask": mask.long()}


LENGTHS = [3, 11, 5, 2, 7, 4, 9, 3, 6, 2, 4, 8, 5, 3, 2, 10, 4, 6]


def made(model):
    data = [padded(LENGTHS, seed=seed) for seed in range(3)]
    task = bf.Task(model, calibration=data[:1], validation=data[1:2], holdout=data[2:], quality="kl")
    space = bf.SearchSpace.from_model(model, data[0], formats=FORMATS, ties="none")
    return task, space, calibrate(task, space)


def test_samples_of_like_length_come_together_and_outputs_stay():
    model = Encoder().eval()
    batch = Batch(padded(LENGTHS), torch.arange(len(LENGTHS)))
    pieces = without_padding(model, [batch])
    assert [len(each) for each in pieces] == [9, 9]
    assert [each.inputs["input_ids"].shape[1] for each in pieces] == [4, 11]
    order = torch.cat([each.targets for each in pieces])
    assert sorted(order.tolist()) == list(range(len(LENGTHS)))
    with torch.no_grad():
        found = torch.cat([each(model) for each in pieces])
        torch.testing.assert_close(found, batch(model)[order], rtol=1e-5, atol=1e-6)
    (whole,) = without_padding(model, [batch], lengths=1)
    assert whole.targets.tolist() == list(range(len(LENGTHS)))
    assert whole.inputs["attention_mask"].shape == (18, 11)


@pytest.mark.parametrize("proxy", [MeasuredKL(), Pairwise(sites=3), TopEigenvalue(), AugmentedHessian()])
def test_scores_are_those_of_the_padded_data(proxy, monkeypatch):
    task, space, calibration = made(Encoder())
    cut = proxy.score(task, space, calibration, seed=0, advance=None)
    monkeypatch.setattr(f"{type(proxy).__module__}.without_padding", lambda model, batches, **_: batches)
    whole = proxy.score(task, space, calibration, seed=0, advance=None)
    np.testing.assert_allclose(cut.values, whole.values, rtol=1e-4)
    if whole.error is not None:
        np.testing.assert_allclose(cut.error, whole.error, rtol=1e-4)
    for sites, table in (whole.pairs or {}).items():
        np.testing.assert_allclose(cut.pairs[sites], table, atol=1e-5 * np.nanmax(whole.values))


@pytest.mark.parametrize("model", [Encoder(obeys=False), Encoder(pooled=False)])
def test_a_model_that_sees_padding_or_returns_it_is_left_alone(model):
    batch = Batch(padded(LENGTHS))
    assert without_padding(model.eval(), [batch]) == [batch]


def test_what_has_no_trailing_padding_is_left_alone():
    model = Encoder().eval()
    for inputs in (padded([12, 12]), padded([3, 5], left=True)):
        batch = Batch(inputs)
        assert without_padding(model, [batch]) == [batch]
    positional = Batch(tuple(padded(LENGTHS).values()))
    assert without_padding(model, [positional]) == [positional]


def test_lengths_count_up_to_the_last_position_that_is_not_masked():
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert counted(Batch({"attention_mask": mask})).tolist() == [3, 0, 4]
    assert counted(Batch({"attention_mask": mask * 2.5})) is None
    assert counted(Batch({"input_ids": mask})) is None
