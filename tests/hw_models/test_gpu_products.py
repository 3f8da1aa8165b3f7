"""Sites as matrix products: multiply-accumulates agree, fused siblings, what is no product."""

import math

import numpy as np
import pytest
import torch
from bitfront.hw_models.gpu.products import GROUPED, IMPLICIT, LOOKUP, MATRIX, product, products
from bitfront.space import SearchSpace
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


def of(model, example, ties="none", formats=("bf16",)):
    return SearchSpace.from_model(model, example, formats=list(formats), ties=ties)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_m_n_k_are_the_multiply_accumulates(data):
    """m n k calls = macs x batch for every site that is a product (``site.macs`` is counted by another rule)."""
    cin, cout = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    kernel, stride = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    size, samples, batch = data.draw(st.integers(4, 7)), data.draw(st.integers(1, 2)), data.draw(st.integers(1, 5))
    layer = data.draw(st.sampled_from([nn.Conv2d, nn.ConvTranspose2d]))
    model = nn.Sequential(layer(cin, cout, kernel, stride, padding=data.draw(st.integers(0, 1))), nn.ReLU())
    (site,) = of(model, torch.zeros(samples, cin, size, size)).sites
    m, n, k = product(site, batch)
    assert m * n * k * site.calls == site.macs * batch


def test_linear_takes_all_tokens():
    space = of(nn.Linear(24, 40), torch.zeros(2, 7, 24))
    asked = products(space, batch=5)
    assert (asked.m[0], asked.n[0], asked.k[0]) == (5 * 7, 40, 24)
    assert asked.how[0] == MATRIX


def test_convolution_by_hand():
    """Implicit GEMM of a 3 x 3 convolution, stride 2, padding 1: 16 x 16 pixels come out of 32 x 32."""
    space = of(nn.Sequential(nn.Conv2d(8, 20, 3, stride=2, padding=1)), torch.zeros(1, 8, 32, 32))
    asked = products(space, batch=3)
    assert (asked.m[0], asked.n[0], asked.k[0]) == (3 * 16 * 16, 20, 8 * 9)
    assert asked.how[0] == IMPLICIT


def test_the_product_computes_the_convolution():
    """The claim behind the shape: unfolded pixels [m, k] times the weight [k, n] are the convolution."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(4, 6, 3, padding=1, bias=False), torch.randn(2, 4, 5, 5)
    (site,) = of(nn.Sequential(layer), x).sites
    m, n, k = product(site, 2)
    columns = nn.functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(m, k)
    out = (columns @ layer.weight.reshape(n, k).T).reshape(2, 25, n).transpose(1, 2).reshape(2, n, 5, 5)
    assert torch.allclose(out, layer(x), atol=1e-5)


def test_grouped_convolutions_and_look_ups_are_no_products():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.depthwise = nn.Embedding(9, 8), nn.Conv1d(8, 8, 3, groups=8)

        def forward(self, tokens):
            return self.depthwise(self.table(tokens).transpose(1, 2))

    asked = products(of(Model(), torch.zeros(2, 6, dtype=torch.long)), 1)
    assert sorted(asked.how) == sorted([LOOKUP, GROUPED])
    assert (asked.row == -1).all()
    assert len(asked.m) == 0


class Attention(nn.Module):
    def __init__(self, wide=16):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(16, wide), nn.Linear(16, 8), nn.Linear(16, 8)
        self.out = nn.Linear(8, 16)

    def forward(self, x):
        return self.out(self.v_proj(x) + self.q_proj(x)[..., :8] * self.k_proj(x))


def test_siblings_that_run_as_one_kernel_are_one_product():
    space = of(Attention(), torch.zeros(1, 3, 16), ties="auto")
    asked = products(space, batch=2)
    at = {site.name: index for index, site in enumerate(space.sites)}
    members = [at["q_proj"], at["k_proj"], at["v_proj"]]
    assert len(asked.m) == 2
    assert len(set(asked.row[members])) == 1
    shared = asked.row[members[0]]
    assert (asked.m[shared], asked.n[shared], asked.k[shared]) == (6, 32, 16)
    assert np.allclose(asked.share[members], [0.5, 0.25, 0.25])
    assert asked.share[at["out"]] == 1.0


@pytest.mark.parametrize("ties", ["none", [["q_proj", "k_proj", "v_proj"]]])
def test_other_ties_do_not_fuse(ties):
    space = of(Attention(), torch.zeros(1, 3, 16), ties=ties)
    if ties != "none":
        assert any("asked for" in tie.reason for tie in space.ties)
    assert len(products(space, 1).m) == 4


def test_packed_attention_is_one_product():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    space = of(Model(), torch.zeros(2, 5, 16), formats=["w8"])
    for site in space.sites:
        m, n, k = product(site, 2)
        assert (m, k) == (10, 16)
        assert n == math.prod(site.weight_shape) // 16
        assert m * n * k == site.macs * 2


def test_calls_count():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(self.layer(x))

    assert products(of(Twice(), torch.zeros(1, 8)), 1).share.tolist() == [2.0]
