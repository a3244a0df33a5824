"""Networks compiled for AArch64 and run under QEMU give what they should."""

import re
from pathlib import Path

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

import sparsec
from benchmarks import digits
from benchmarks.models import bert_base
from tests import qemu
from tests.e2e.quantized_networks import quantized_bert, quantized_digits
from tests.e2e.test_half_models import UNITS, stored_in

pytestmark = pytest.mark.skipif(bool(qemu.missing()), reason=qemu.missing())


def named(dump: Path) -> set[str]:
    """The instructions of the processor that kernels name."""
    kernels = "\n".join(path.read_text() for path in (dump / "kernels").iterdir())
    return set(re.findall(r" as (arm\.[\w.]+):", kernels))


@pytest.mark.parametrize("target", ["aarch64", "cortex-a72", "neoverse-n1", "neoverse-v1"])
def test_the_digits_network(target: str) -> None:
    network = digits.train(sparsity=0.9, epochs=1, pruning_epochs=1)
    images = network.images[:16]
    artifact = sparsec.compile(digits.export(network.pruned, len(images)), target=target)
    (found,) = qemu.run(artifact, images)
    np.testing.assert_allclose(found, digits.forward(network.pruned, images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["neoverse-n1", "armv8.6"])
def test_the_digits_network_in_bfloat16(target: str) -> None:
    network = digits.train(sparsity=0.9, epochs=1, pruning_epochs=1)
    images = network.images[:16]
    model = stored_in(digits.export(network.pruned, len(images)), "bfloat16")
    (found,) = qemu.run(sparsec.compile(model, target=target), images.astype("bfloat16"))
    exact = digits.forward(network.pruned, images)
    assert np.abs(found.astype(np.float32) - exact).max() <= 5 * UNITS["bfloat16"] * np.abs(exact).max()


@pytest.mark.parametrize("target", ["aarch64", "neoverse-v1"])
def test_a_small_bert(target: str) -> None:
    model = bert_base(tokens=8, layers=2, width=64, heads=4, vocabulary=50, sparsity=0.8)
    ids, mask = np.arange(8)[None] * 5, np.ones((1, 8), np.int64)
    mask[:, 6:] = 0
    found = qemu.run(sparsec.compile(model, target=target), ids, mask)
    wanted = ReferenceEvaluator(model).run(None, {"input_ids": ids, "attention_mask": mask})
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("target", "instructions"),
    [
        ("aarch64", set()),
        ("neoverse-n1", {"arm.interleave4_int8.128", "arm.sdot.128"}),
        ("neoverse-v1", {"arm.interleave8_int8.128", "arm.smmla.128"}),
        ("armv8.6", {"arm.interleave8_int8.128", "arm.smmla.128"}),
    ],
)
def test_the_digits_network_in_int8(target: str, instructions: set[str], tmp_path: Path) -> None:
    case = quantized_digits()
    artifact = sparsec.compile(case.model, target=target, dump=tmp_path)
    found = qemu.run(artifact, *case.inputs.values())
    np.testing.assert_array_equal(found, case.wanted)
    assert named(tmp_path) == instructions
    artifact.save(tmp_path / "digits.so")
    code = (tmp_path / "digits.so").read_bytes()
    wanted = {name.split(".")[1] for name in instructions} & set(ENCODINGS)
    assert {name for name in ENCODINGS if occurrences(code, name) >= SEVERAL} == wanted


ENCODINGS = {"sdot": 0x4E809400, "smmla": 0x4E80A400}
"""Of `sdot v.4s, v.16b, v.16b` and `smmla v.4s, v.16b, v.16b`, their registers 0 (Arm ARM, section C7.2)."""

REGISTERS = 0x001F03FF
SEVERAL = 8  # more than the words of constants that look like one by chance


def occurrences(code: bytes, name: str) -> int:
    """How often an instruction stands in a library."""
    words = np.frombuffer(code[: len(code) // 4 * 4], np.uint32)
    return int(np.count_nonzero(words & ~np.uint32(REGISTERS) == ENCODINGS[name]))


@pytest.mark.parametrize("target", ["neoverse-n1", "armv8.6"])
def test_a_small_bert_in_int8(target: str) -> None:
    case = quantized_bert()
    found = qemu.run(sparsec.compile(case.model, target=target), *case.inputs.values())
    for ours, theirs in zip(found, case.wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
