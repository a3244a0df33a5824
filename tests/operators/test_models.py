"""Layers of one model take every layout, each by its name."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import sparsec
from sparsec.ir.layout import Layout
from sparsec.ir.sums import Sum
from tests.ir.product_cases import integers
from tests.operators.cells import LAYOUTS


def held(layout: Layout | Sum, places: np.ndarray) -> np.ndarray:
    """A weight of which random entries are left that the layout can hold, in some places."""
    mask = layout.holds(places & (np.random.default_rng(0).random(places.shape) < 0.4))
    return np.where(mask, integers(*places.shape) % 5 + 1, np.float32(0))


@pytest.mark.parametrize("storage", [None, "bfloat16"])
def test_convolutions_and_batched_products_take_every_layout_by_name(storage):
    nodes, outputs, weights = [], [], []
    for number, layout in enumerate(LAYOUTS.values()):
        convolution = held(layout, np.ones((13, 27), bool)).reshape(13, 3, 3, 3)
        diagonal = held(layout, np.kron(np.eye(2), np.ones((5, 9))) != 0)
        batched = np.stack([diagonal[:5, :9].T, diagonal[5:, 9:].T])
        for name, op, x, weight, shape, attributes in (
            ("conv", "Conv", "image", convolution, (1, 13, 5, 7), {"pads": [1, 1, 1, 1]}),
            ("matmul", "MatMul", "tokens", batched, (2, 6, 5), {}),
        ):
            layer = f"{name}.{number}"
            weights.append(numpy_helper.from_array(weight, f"{layer}.weight"))
            nodes.append(helper.make_node(op, [x, f"{layer}.weight"], [f"{layer}.y"], layer, **attributes))
            outputs.append(helper.make_tensor_value_info(f"{layer}.y", TensorProto.FLOAT, shape))
    inputs = {"image": integers(1, 3, 5, 7), "tokens": integers(2, 6, 9)}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in inputs.items()]
    graph = helper.make_graph(nodes, "layouts", infos, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    layouts = {f"*.{number}": layout for number, layout in enumerate(LAYOUTS.values())}
    session = sparsec.compile(model, layouts=layouts, storage=storage).load(threads=1)
    wanted = ReferenceEvaluator(model).run(None, inputs)
    for info, found, want in zip(outputs, session(*inputs.values()), wanted, strict=True):
        np.testing.assert_array_equal(found, want, err_msg=info.name)
    stored = {layer["name"]: layer["layout"] for layer in session.manifest["layers"]}
    assert stored == {node.name: str(layouts[f"*.{node.name.split('.')[1]}"]) for node in nodes}
