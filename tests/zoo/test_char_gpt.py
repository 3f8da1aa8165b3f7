"""The language model beats a bigram model that counted the same training text."""

import pytest
import torch
from bitfront import zoo
from bitfront.errors import InvalidInput
from bitfront.zoo import char_gpt as room
from bitfront.zoo import topics


def _mean_loss(entry, data) -> float:
    with torch.no_grad():
        return float(torch.stack([entry.loss(entry.model(inputs), targets) for inputs, targets in data]).mean())


def _bigram_loss(data) -> float:
    """Nats a character of the bigram model with add-0.1 smoothing."""
    text, size = room.encode(topics.text("train")), len(room.ALPHABET)
    counts = torch.full((size, size), 0.1).index_put((text[:-1], text[1:]), torch.ones(len(text) - 1), accumulate=True)
    logs = (counts / counts.sum(1, keepdim=True)).log()
    return float(torch.stack([-logs[inputs, targets].mean() for inputs, targets in data]).mean())


def test_loss_is_below_bigram(char_gpt):
    entry, _ = char_gpt
    for data in (entry.validation, entry.holdout):
        assert _mean_loss(entry, data) < _bigram_loss(data) - 0.1


def test_progress_reports_every_step_and_a_falling_loss(char_gpt):
    _, steps = char_gpt
    total = room.recipe().steps
    assert [step[:2] for step in steps] == [(index + 1, total) for index in range(total)]
    assert steps[-1][2] < 0.6 * steps[0][2]


def test_targets_are_the_next_characters(char_gpt):
    entry, _ = char_gpt
    inputs, targets = entry.validation[0]
    assert inputs.shape == targets.shape == (16, room.CONTEXT)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    text = "".join(room.ALPHABET[index] for index in inputs[0].tolist())
    assert text in topics.text("validation")


def test_is_causal_and_has_the_usual_projection_names(char_gpt):
    entry, _ = char_gpt
    inputs = entry.example_inputs.clone()
    with torch.no_grad():
        before = entry.model(inputs)
        inputs[:, 64:] = 5
        after = entry.model(inputs)
    torch.testing.assert_close(before[:, :64], after[:, :64])
    assert not torch.allclose(before[:, 64:], after[:, 64:])
    linear = {name.rpartition(".")[2] for name, m in entry.model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert linear == {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "head"}
    assert sum(parameter.numel() for parameter in entry.model.parameters()) == zoo.describe("char_gpt").parameters


def test_exports_with_a_dynamic_batch(char_gpt):
    entry, _ = char_gpt
    inputs = entry.example_inputs
    program = torch.export.export(entry.model, (inputs,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    other = entry.validation[0][0]
    with torch.no_grad():
        torch.testing.assert_close(program.module()(other), entry.model(other), atol=1e-5, rtol=1e-4)


def test_more_sequences_than_there_are(zoo_cache):
    with pytest.raises(InvalidInput, match=r"char_gpt: holdout=9999, but this Python's text has \d+ sequences"):
        zoo.load("char_gpt", holdout=9999, cache=zoo_cache)
