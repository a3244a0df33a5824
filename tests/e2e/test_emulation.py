"""Networks scheduled for processors that this machine is not, and run here."""

import numpy as np
import pytest

import sparsec
from benchmarks import digits
from tests.e2e.quantized_networks import quantized_digits


@pytest.mark.parametrize("name", ["armv8.6", "sapphirerapids", "sm_80", "sm_90"])
def test_the_digits_network(name: str) -> None:
    network = digits.train(sparsity=0.9, epochs=1, pruning_epochs=1)
    images = network.images[:16]
    artifact = sparsec.compile(digits.export(network.pruned, len(images)), target=f"emulate:{name}")
    found = artifact.load(threads=1)(images)
    np.testing.assert_allclose(found, digits.forward(network.pruned, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["neoverse-n1", "armv8.6", "haswell", "cascadelake", "sapphirerapids", "sm_90"])
def test_the_digits_network_in_int8(name: str) -> None:
    case = quantized_digits()
    found = sparsec.compile(case.model, target=f"emulate:{name}").load(threads=1)(**case.inputs)
    np.testing.assert_array_equal([found], case.wanted)
