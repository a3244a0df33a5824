import numpy as np
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sparsec.frontends.onnx_resize import resize_weights

NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
POSITIONS = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners"]


def resize_by_onnxruntime(x, target, attrs):
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attrs)
    sizes = numpy_helper.from_array(np.array([1, 1, 1, target], np.int64), "sizes")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph([node], "resize", info[:1], info[1:], [sizes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x.reshape(1, 1, 1, -1)})[0].reshape(-1)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 9),
    target=st.integers(1, 19),
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    where=st.sampled_from(POSITIONS),
    rounding=st.sampled_from(NEAREST),
    antialias=st.booleans(),
)
def test_same_as_onnxruntime(size, target, mode, where, rounding, antialias):
    assume(not (antialias and (mode == "nearest" or where == "align_corners")))
    attrs = {
        "mode": mode,
        "coordinate_transformation_mode": where,
        "nearest_mode": rounding,
        "antialias": int(antialias),
    }
    x = np.random.default_rng(size).normal(size=size).astype(np.float32)
    got = resize_weights(size, target, target / size, attrs) @ x
    np.testing.assert_allclose(got, resize_by_onnxruntime(x, target, attrs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_weights_sum_to_one(mode):
    weights = resize_weights(7, 5, 5 / 7, {"mode": mode, "antialias": 1, "exclude_outside": 1})
    np.testing.assert_allclose(weights.sum(1), 1)


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="mode 'lanczos'"):
        resize_weights(2, 4, 2.0, {"mode": "lanczos"})
