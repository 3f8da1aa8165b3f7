"""XTrace against its definition: a subspace of its own for every test vector."""

import numpy as np
import pytest
import torch
from bitfront.proxies.hutchinson import random_signs
from bitfront.proxies.xtrace import xtrace


@pytest.mark.parametrize("products", [4, 8, 14])
def test_equals_leaving_out_each_vector_in_turn(products):
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    matrix = root + root.T
    like = torch.zeros(0, dtype=torch.float64)
    found = xtrace(lambda v: matrix @ v, 20, products, torch.Generator().manual_seed(7), like)

    columns = products // 2
    probes = random_signs((20, columns), torch.Generator().manual_seed(7), like).numpy()
    dense = matrix.numpy()
    samples = []
    for left_out in range(columns):
        basis, _ = np.linalg.qr(dense @ np.delete(probes, left_out, axis=1))
        rest = np.eye(20) - basis @ basis.T
        vector = probes[:, left_out]
        samples.append(np.trace(basis.T @ dense @ basis) + vector @ rest @ dense @ rest @ vector)
    assert found.value == pytest.approx(np.mean(samples), rel=1e-9)
    assert found.error == pytest.approx(np.std(samples, ddof=1) / np.sqrt(columns), rel=1e-7)
