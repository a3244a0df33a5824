"""Weights of 2:4 zeros are multiplied by instructions that are told which depths are stored."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.errors import LayoutError
from sparsec.ir.instruction import find_instruction
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, For
from sparsec.ir.matcher import Match, Refusal, enclosing, match
from sparsec.ir.notation import parse_layout
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, Product
from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.rules.product import Proposal, propose
from sparsec.schedules.steps import Tile
from sparsec.targets import Target
from tests.ir.product_cases import Compiled

HOPPER = Target.parse("emulate:sm_90")

LEVELS = "k floordiv 64 : dense, i : dense, k floordiv 4 mod 16 : dense, k mod 4 : structured[2, 4]"

UPDATE = f"""
kernel update(
    W: int8[16, 128] @ "(i, k) -> ({LEVELS})",
    part: int8[2, 8, 64]
) -> acc: int32[16, 8]:
    for p0 in W[0]:
        for p1 in W[1], v in range(0, 8), p2 in W[2], p3 in W[3]:
            acc[p1, v] += W * part[p0, v, p2 * 4 + p3]
"""


def found(text: str, name: str = "cuda.mma_sp_s8.m16n8k64") -> Match | Refusal:
    kernel = parse_kernel(text)
    (outer,) = kernel.body
    assert isinstance(outer, For)
    (nest,) = outer.body
    assert isinstance(nest, For) and enclosing(kernel.body, nest)
    return match(nest, kernel, find_instruction(name))


def test_coordinates_of_a_level_are_an_operand() -> None:
    matched = found(UPDATE)
    assert isinstance(matched, Match)
    values = {name: str(place.value) for name, place in matched.places.items()}
    assert values.keys() == {"a", "e", "b", "c"} and "p3" in values["e"]
    for name in ("a", "e", "b"):
        assert all(segment.is_contiguous for register in matched.places[name].registers for segment in register)


@pytest.mark.parametrize(
    ("old", "new", "kind", "reason"),
    [
        ("structured[2, 4]", "dense", "access", "no level in the loops stores coordinates, which .* takes as e"),
        ("structured[2, 4]", "structured[1, 4]", "extents", "p3 runs once, not a multiple of 2"),
        ("p2 * 4 + p3", "p2 * 4 + p3 + p1", "access", "moves along p1, and b .* does not"),
        ("int8[2, 8, 64]", "int16[2, 8, 64]", "types", "part is int16, where .* takes b in int8"),
        ("acc[p1, v]", "acc[p2, v]", "access", "acc.* moves along p2, and c .* does not"),
        ("acc[p1, v]", "acc[0, v]", "access", "acc.* does not move along an axis"),
    ],
)
def test_near_misses(old: str, new: str, kind: str, reason: str) -> None:
    refused = found(UPDATE.replace(old, new))
    assert isinstance(refused, Refusal) and refused.kind == kind
    assert re.search(reason, refused.reason)


def test_groups_of_another_size_are_refused() -> None:
    levels = "k floordiv 64 : dense, i : dense, k floordiv 8 mod 8 : dense, k mod 8 : structured[2, 8]"
    refused = found(UPDATE.replace(LEVELS, levels).replace("p2 * 4", "p2 * 8"))
    assert isinstance(refused, Refusal) and refused.kind == "extents"
    assert refused.reason == "p3 is one of 8 coordinates, and cuda.mma_sp_s8.m16n8k64 takes one of 4"


# -- products ------------------------------------------------------------------------------------------------------


def product_of(rows: int, depth: int, columns: int, x: str, weight: str) -> Product:
    sums = "int32" if x in ("int8", "uint8") else "float32"
    return Product(
        name="linear",
        weight=Buffer("W", weight, (rows, depth)),
        x=Buffer("X", x, (1, depth * columns)),
        y=Buffer("Y", sums, (1, rows * columns)),
        x_index=(BATCH, DEPTH * columns + COLUMN),
        y_index=(BATCH, ROW * columns + COLUMN),
        batch=1,
        rows=rows,
        depth=depth,
        columns=columns,
        rounded=sums == "float32",
    )


def two_of_four(rows: int, depth: int, dtype: str) -> np.ndarray:
    """A weight with at most two nonzeros in each four depths, of floats small integers."""
    random = np.random.default_rng([rows, depth])
    limit = 128 if dtype == "int8" else 8
    dense = random.integers(-limit, limit, (rows, depth // 4, 4))
    order = random.permuted(np.broadcast_to(np.arange(4), dense.shape), axis=2)
    return np.where(order < 2, dense, 0).reshape(rows, depth).astype(dtype)


def proposed(rows: int, depth: int, columns: int, x: str, weight: str) -> tuple[Proposal, np.ndarray]:
    matrix = two_of_four(rows, depth, weight)
    return propose(product_of(rows, depth, columns, x, weight), matrix.astype(np.float32), HOPPER), matrix


@pytest.mark.parametrize(
    ("x", "weight", "name"),
    [
        ("int8", "int8", "mma_sp_s8.m16n8k64"),
        ("uint8", "int8", "mma_sp_s8u8.m16n8k64"),
        ("float16", "float16", "mma_sp_f16.m16n8k32"),
        ("bfloat16", "bfloat16", "mma_sp_bf16.m16n8k32"),
    ],
)
@pytest.mark.parametrize(("rows", "depth", "columns"), [(32, 128, 16), (40, 100, 29)])
def test_products_are_exact(x: str, weight: str, name: str, rows: int, depth: int, columns: int) -> None:
    proposal, matrix = proposed(rows, depth, columns, x, weight)
    scheduled = proposal.trace.apply(proposal.product, HOPPER.emits)
    assert f"as cuda.{name}:" in str(scheduled.kernel)
    activations = np.random.default_rng(1).integers(0, 100 if x == "uint8" else 8, (depth, columns)).astype(x)
    wide = scheduled.kernel.outputs[0].dtype
    wanted = matrix.astype(wide) @ activations.astype(wide)
    operands = {"W": matrix, "X": activations.reshape(1, -1)}
    if rows == 32:
        np.testing.assert_array_equal(interpret(scheduled.kernel, operands)["Y"], wanted.reshape(1, -1))
    outputs = Compiled(scheduled.lowered, scheduled.func)(operands, {"Y": (1, rows * columns)})
    np.testing.assert_array_equal(outputs["Y"], wanted.reshape(1, -1))


def test_the_weight_takes_half_of_its_values_and_the_layout_is_found_by_name() -> None:
    proposal, matrix = proposed(64, 256, 64, "int8", "int8")
    assert (proposal.family, proposal.name) == ("N:M", "2:4") and proposal.seconds < proposal.dense_seconds
    assert proposal.product.layout is not None
    arrays = proposal.product.layout.pack(matrix).arrays
    assert arrays["data"].size == arrays["level4.indices"].size == matrix.size // 2


@pytest.mark.parametrize("nonzeros", [3, 4])
def test_what_has_more_nonzeros_is_multiplied_as_before(nonzeros: int) -> None:
    matrix = np.zeros((64, 64, 4), np.float32)
    matrix[..., :nonzeros] = 1
    proposal = propose(product_of(64, 256, 64, "int8", "int8"), matrix.reshape(64, 256), HOPPER)
    assert "mma_sp" not in proposal.trace.to_json() and "cuda.mma_s8" in proposal.trace.to_json()


@pytest.mark.parametrize(
    "layout",
    [
        "(i, k) -> (i : dense, k floordiv 4 : compressed, k mod 4 : structured[2, 4])",
        "(i, k) -> (i floordiv 16 : dense, k : structured[8], i mod 16 : dense)",
    ],
)
def test_other_layouts_are_refused(layout: str) -> None:
    product = product_of(32, 64, 16, "int8", "int8").stored_as(parse_layout(layout))
    with pytest.raises(LayoutError, match=r"at once|one depth at a time"):
        build_kernel(product, Tile((16,), stage=True, dots=(16, 8, 128)).tiling(16, 32))


def test_a_quantised_layer() -> None:
    rows, depth, tokens = 48, 128, 24
    weight, random = two_of_four(rows, depth, "int8"), np.random.default_rng(2)
    constants = {"w": weight.T.copy(), "s": np.float32(0.02), "zw": np.int8(0), "zx": np.uint8(7)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zx"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "zx"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "zw"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["y"], "layer"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [tokens, d]) for n, d in (("x", depth), ("y", rows))]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "quantised", ends[:1], ends[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = sparsec.compile(model, target="emulate:sm_90").load(threads=1)
    assert "structured[2, 4]" in session.manifest["layers"][0]["layout"]
    x = random.standard_normal((tokens, depth), np.float32)
    steps = np.clip(np.round(x / np.float32(0.02)) + 7, 0, 255).astype(np.int32) - 7
    exact = (steps @ weight.T.astype(np.int32)).astype(np.float64) * np.float32(0.02) * np.float32(0.02)
    np.testing.assert_allclose(session(x), exact, rtol=1e-6)
