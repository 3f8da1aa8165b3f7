"""Hutch++ against its algorithm, written out in float64."""

import numpy as np
import pytest
import torch
from bitfront.proxies.hutchinson import random_signs
from bitfront.proxies.hutchpp import hutchpp


@pytest.mark.parametrize("products", [6, 9, 15])
def test_equals_the_textbook_algorithm_with_the_same_signs(products):
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    matrix = root + root.T
    like = torch.zeros(0, dtype=torch.float64)
    found = hutchpp(lambda v: matrix @ v, 20, products, torch.Generator().manual_seed(7), like)

    generator = torch.Generator().manual_seed(7)
    columns = products // 3
    sketch = random_signs((20, columns), generator, like).numpy()
    probes = random_signs((20, columns), generator, like).numpy()
    dense = matrix.numpy()
    basis, _ = np.linalg.qr(dense @ sketch)
    rest = np.eye(20) - basis @ basis.T
    samples = [probes[:, j] @ rest @ dense @ rest @ probes[:, j] for j in range(columns)]
    assert found.value == pytest.approx(np.trace(basis.T @ dense @ basis) + np.mean(samples), rel=1e-10)
    assert found.error == pytest.approx(np.std(samples, ddof=1) / np.sqrt(columns), rel=1e-8)
