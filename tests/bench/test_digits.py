"""The digits network: its gradients are right, it learns, and its ONNX form computes the same."""

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import digits


@pytest.fixture(scope="module")
def trained() -> digits.Digits:
    return digits.train(sparsity=0.9, epochs=4, pruning_epochs=8)


def test_gradients_match_finite_differences():
    rng = np.random.default_rng(0)
    p = {name: value.astype(np.float64) for name, value in digits._initial(rng).items()}
    images, labels = rng.random((5, 1, 8, 8)), rng.integers(0, 10, 5)

    def loss() -> float:
        logits = digits.forward(p, images)
        return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), labels]))

    gradients = digits._gradients(p, images, labels)
    for name, value in p.items():
        direction = rng.standard_normal(value.shape)
        step = 1e-6
        value += step * direction
        above = loss()
        value -= 2 * step * direction
        below = loss()
        value += step * direction
        slope = (above - below) / (2 * step)
        assert np.vdot(gradients[name], direction) == pytest.approx(slope, rel=1e-3, abs=1e-7), name


def test_pruned_network_reads_digits(trained):
    for parameters in (trained.dense, trained.pruned):
        assert trained.accuracy(digits.forward(parameters, trained.images)) > 0.9
    for name in digits.PRUNED:
        weight = trained.pruned[name]
        assert np.count_nonzero(weight == 0) == round(0.9 * weight.size)
    assert np.all(trained.pruned["conv1"] != 0)


def test_onnx_form_computes_the_same(trained):
    model = digits.export(trained.pruned, len(trained.images))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": trained.images})
    np.testing.assert_allclose(logits, digits.forward(trained.pruned, trained.images), rtol=1e-4, atol=1e-4)
