"""Quantised networks, compiled, against ONNX Runtime and PyTorch."""

import numpy as np
import onnx
import pytest
import torch
import torch.ao.quantization.fx._decomposed
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

import sparsec
from tests.graph.quantized_models import CONVOLUTIONS, reference, sample, steps_off, transformer


def run(model, x: np.ndarray, target: str = "native") -> np.ndarray:
    return sparsec.compile(model, target=target).load(threads=1)(x)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("uint8", "native"),
        ("int8, stride 2", "native"),
        ("groups, other pads", "native"),
        ("4x4, stride 3", "x86-64-v2"),
        ("uint8", "emulate:aarch64"),
        ("int8, stride 2", "emulate:armv8.6"),
    ],
)
def test_convolutions(name, target):
    model = CONVOLUTIONS[name].model()
    x = sample(model)
    np.testing.assert_array_equal(run(model, x, target), reference(model, x))


def test_a_transformer():
    model = transformer()
    x = sample(model)
    off = steps_off(run(model, x), reference(model, x), 0.03)
    assert off.max() <= 2 and off.astype(bool).mean() < 0.05  # softmaxes and norms are rounded otherwise


class Samples(CalibrationDataReader):
    def __init__(self, model: onnx.ModelProto) -> None:
        self.samples = iter([{"x": sample(model, seed)} for seed in range(3)])

    def get_next(self):
        return next(self.samples, None)


def small_network() -> onnx.ModelProto:
    """Convolutions with a residual, joined channels, pooling and a classifier, in floats."""
    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
            self.depthwise = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16)
            self.pointwise = torch.nn.Conv2d(16, 16, 1)
            self.last = torch.nn.Linear(32, 10)

        def forward(self, x):
            x = torch.relu(self.first(x))
            y = torch.relu(self.depthwise(x))
            x = torch.nn.functional.silu(self.pointwise(y) + x)
            x = torch.nn.functional.max_pool2d(torch.cat([x, y], 1), 2)
            return self.last(x.mean((2, 3)))

    program = torch.onnx.export(Network().eval(), (torch.zeros(1, 3, 20, 20),), input_names=["x"], dynamo=True)
    return program.model_proto


@pytest.mark.parametrize(
    ("form", "activation"),
    [(QuantFormat.QDQ, QuantType.QInt8), (QuantFormat.QOperator, QuantType.QUInt8)],
    ids=["pairs, int8", "operators, uint8"],
)
def test_what_onnx_runtime_quantises(form, activation, tmp_path):
    model = small_network()
    options = {"quant_format": form, "activation_type": activation, "weight_type": QuantType.QInt8}
    # Of seven bits, since ONNX Runtime saturates sums of two larger products on processors without VNNI.
    quantize_static(model, tmp_path / "q.onnx", Samples(model), per_channel=True, reduce_range=True, **options)
    quantised = onnx.load(tmp_path / "q.onnx")
    x = sample(model, seed=9)
    y, wanted = run(quantised, x), reference(quantised, x)
    scale = np.diff(np.unique(wanted)).min()  # results are whole multiples of it
    assert len(np.unique(wanted)) > 5 and steps_off(y, wanted, scale).max() <= 1


def test_an_exported_program_of_pytorch():
    quantized = torch.ops.quantized_decomposed

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            made = torch.Generator().manual_seed(0)
            self.register_buffer("w1", torch.randint(-127, 128, (16, 8, 3, 3), generator=made, dtype=torch.int8))
            self.register_buffer("s1", 0.01 * torch.rand(16, generator=made))
            self.register_buffer("z1", torch.zeros(16, dtype=torch.int64))
            self.register_buffer("w2", torch.randint(-127, 128, (10, 16), generator=made, dtype=torch.int8))
            self.b1 = torch.nn.Parameter(torch.randn(16, generator=made))

        def forward(self, x):
            x = store(x, 0.03, -3, -128, 127, torch.int8)
            w = quantized.dequantize_per_channel(self.w1, self.s1, self.z1, 0, -127, 127, torch.int8)
            x = torch.relu(torch.nn.functional.conv2d(x, w, self.b1, padding=1))
            x = store(x, 0.05, -128, -128, 127, torch.int8)
            x = torch.nn.functional.max_pool2d(x, 2).mean((2, 3))
            x = store(x, 0.01, 5, 0, 127, torch.uint8)  # seven bits
            w = quantized.dequantize_per_tensor(self.w2, 0.01, 0, -127, 127, torch.int8)
            return store(torch.nn.functional.linear(x, w), 0.02, 0, -128, 127, torch.int8)

    def store(x, *how):
        return quantized.dequantize_per_tensor(quantized.quantize_per_tensor(x, *how), *how)

    x = 2 * torch.randn(4, 8, 12, 12, generator=torch.Generator().manual_seed(1))
    program = torch.export.export(Network().eval(), (x,))
    wanted = program.module()(x).detach().numpy()
    assert len(np.unique(wanted)) > 10
    assert steps_off(run(program, x.numpy()), wanted, 0.02).max() <= 1  # PyTorch multiplies by the inverse of scales
