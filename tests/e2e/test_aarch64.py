"""Networks compiled for AArch64 and run under QEMU give what they give here."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import sparsec
from benchmarks import digits
from benchmarks.models import bert_base
from tests import qemu

pytestmark = pytest.mark.skipif(bool(qemu.missing()), reason=qemu.missing())


@pytest.mark.parametrize("target", ["aarch64", "cortex-a72", "neoverse-n1", "neoverse-v1"])
def test_the_digits_network(target: str) -> None:
    network = digits.train(sparsity=0.9, epochs=1, pruning_epochs=1)
    images = network.images[:16]
    artifact = sparsec.compile(digits.export(network.pruned, len(images)), target=target)
    (found,) = qemu.run(artifact, images)
    np.testing.assert_allclose(found, digits.forward(network.pruned, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["aarch64", "neoverse-v1"])
def test_a_small_bert(target: str) -> None:
    model = bert_base(tokens=8, layers=2, width=64, heads=4, vocabulary=50, sparsity=0.8)
    ids, mask = np.arange(8)[None] * 5, np.ones((1, 8), np.int64)
    mask[:, 6:] = 0
    found = qemu.run(sparsec.compile(model, target=target), ids, mask)
    wanted = ReferenceEvaluator(model).run(None, {"input_ids": ids, "attention_mask": mask})
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
