"""MiniLM holds its real weights: it knows which sentences mean the same."""

import pytest
import torch
from bitfront import zoo
from bitfront.zoo import minilm_l6


@pytest.fixture(scope="module")
def entry() -> zoo.ZooEntry:
    return zoo.load("minilm_l6", calibration=16, validation=16, holdout=16)


def test_paraphrases_are_closer_than_unrelated_sentences(entry):
    pairs = [
        ("A man is playing a guitar on the street.", "Someone plays guitar outdoors."),
        ("The stock market fell sharply today.", "Shares dropped a lot this afternoon."),
        ("How do I reset my password?", "I forgot my login and want a new password."),
    ]
    with torch.no_grad():
        left, right = (entry.model(**minilm_l6.tokenize(side)) for side in zip(*pairs, strict=True))
    cosine = left @ right.T
    paraphrases = cosine.diagonal()
    unrelated = cosine[~torch.eye(len(pairs), dtype=torch.bool)]
    assert paraphrases.min() > 0.5
    assert unrelated.max() < 0.25


def test_padding_does_not_change_an_embedding(entry):
    sentence = ["The tuple is returned unchanged."]
    with torch.no_grad():
        short, long = (entry.model(**minilm_l6.tokenize(sentence, length)) for length in (16, 64))
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(long.norm(dim=-1), torch.ones(1))


def test_batches_are_dicts_in_the_order_of_forward(entry):
    inputs, targets = entry.validation[0]
    assert targets is None
    assert entry.input_names == tuple(inputs) == ("input_ids", "attention_mask")
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (16, minilm_l6.LENGTH)
    assert sum(parameter.numel() for parameter in entry.model.parameters()) == zoo.describe(entry.name).parameters


def test_differentiates_twice_and_exports(entry):
    inputs = entry.example_inputs
    weight = entry.model.encoder.encoder.layer[0].attention.self.query.weight
    (gradient,) = torch.autograd.grad(entry.model(**inputs)[:, 0].sum(), weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), weight)
    assert torch.isfinite(second).all()
    assert second.abs().max() > 0

    dynamic = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    program = torch.export.export(entry.model, (), inputs, dynamic_shapes=dynamic)
    other = entry.validation[0][0]
    with torch.no_grad():
        torch.testing.assert_close(program.module()(**other), entry.model(**other), atol=1e-5, rtol=1e-4)
