"""Rewrites of operators that TVM's importer gets wrong or lacks, into operators that it gets right."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper
from tvm.relax.frontend.onnx import onnx_frontend

from sparsec.frontends.onnx_facts import Facts, Nodes, Rewrite, attributes_of, find_facts, input_of, unsupported
from sparsec.frontends.onnx_quantized import CONTRIBUTED, QUANTIZED
from sparsec.frontends.onnx_resize import resize_weights

_NAMESAKES = {"Attention"}
"""Operators of which TVM converts another operator of the same name."""


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the model's own functions, and operators that TVM cannot import, by their definitions."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    while missing := {n.op_type for n in model.graph.node if n.domain in ("", "ai.onnx") and not is_imported(n)}:
        before = len(model.graph.node)
        model = _inline(model, sorted(missing))
        if len(model.graph.node) == before:
            break
    return model


def _inline(model: onnx.ModelProto, operators: list[str]) -> onnx.ModelProto:
    _state_defaults(model, operators)
    # The inliner wants the types of all arguments, and takes those of weights from the inputs only.
    weights = [
        helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims) for weight in model.graph.initializer
    ]
    count = len(model.graph.input)
    model.graph.input.extend(weights)
    # Where the inliner cannot instantiate a definition, the operator stays, and is reported under the user's name.
    with contextlib.suppress(RuntimeError):
        ids = [("", op) for op in operators]
        model = onnx.inliner.inline_selected_functions(model, ids, inline_schema_functions=True)
    del model.graph.input[count:]
    return model


def _state_defaults(model: onnx.ModelProto, operators: list[str]) -> None:
    """Write the default attributes of operators into their nodes, since the inliner loses those."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    for node in model.graph.node:
        if node.op_type in operators and node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type):
            given = {attribute.name for attribute in node.attribute}
            for name, attribute in onnx.defs.get_schema(node.op_type, opset).attributes.items():
                if attribute.default_value.type and name not in given:
                    node.attribute.append(attribute.default_value)


def is_imported(node: onnx.NodeProto) -> bool:
    """Whether TVM's importer takes a node and makes the right thing of it."""
    if node.op_type not in onnx_frontend._get_convert_map():
        return False
    if node.domain not in ("", "ai.onnx"):
        return node.domain == "com.microsoft"
    if node.op_type == "LayerNormalization":
        return not any(node.output[1:])
    if node.op_type == "RMSNormalization":
        return attributes_of(node).get("axis", -1) == -1
    return node.op_type not in _NAMESAKES


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply every rewrite of `REWRITES`."""
    if not any(map(_rule, model.graph.node)):
        return model
    facts = find_facts(model)
    nodes: Nodes = []
    for node in model.graph.node:
        replacement = _replace(node, facts)
        for new in replacement or ():
            new.name = node.name
        nodes.extend([node] if replacement is None else replacement)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(facts.added)
    return result


def _replace(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    rule = _rule(node)
    try:
        return rule and rule(node, facts)
    except (IndexError, KeyError, TypeError, ValueError) as err:
        raise unsupported(node, f"has inputs or attributes that do not fit it: {err}") from err


def _rule(node: onnx.NodeProto) -> Rewrite | None:
    return REWRITES.get("" if node.domain == "ai.onnx" else node.domain, {}).get(node.op_type)


def batch_normalization(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """Training is refused; what TVM returns for it is wrong."""
    if attributes_of(node).get("training_mode", 0) or any(node.output[1:]):
        raise unsupported(node, "in training mode is not supported; export the model for inference")
    return None


def constant(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """A `Constant` in any of its forms is an initializer."""
    kind, value = next(iter(attributes_of(node).items()), ("nothing", None))
    if kind == "value":
        array = numpy_helper.to_array(value)
    elif kind in ("value_float", "value_floats"):
        array = np.array(value, np.float32)
    elif kind in ("value_int", "value_ints"):
        array = np.array(value, np.int64)
    else:
        return None
    facts.added.append(numpy_helper.from_array(array, node.output[0]))
    facts.constants[node.output[0]] = array
    return []


def conv_transpose(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """`output_shape` says what `pads` and `output_padding` would (ONNX operators, "ConvTranspose")."""
    attrs = attributes_of(node)
    shape, weight = facts.shape(node.input[0]), facts.shape(node.input[1])
    if "output_shape" not in attrs or shape is None or weight is None:
        return None
    spatial = [size for size in shape[2:] if size is not None]
    kernel = attrs.get("kernel_shape", weight[2:])
    ones = [1] * len(kernel)
    begins, ends, extras = [], [], []
    sizes = zip(spatial, kernel, attrs.get("strides", ones), attrs.get("dilations", ones), strict=True)
    for (size, width, stride, dilation), target in zip(sizes, attrs["output_shape"][-len(kernel) :], strict=True):
        total = stride * (size - 1) + (width - 1) * dilation + 1 - target
        extras.append(max(0, -total))
        total = max(0, total)
        small, large = total // 2, total - total // 2
        upper = attrs.get("auto_pad") == "SAME_UPPER"
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    for name in ("output_shape", "auto_pad"):
        attrs.pop(name, None)
    attrs |= {"pads": begins + ends, "output_padding": extras}
    return [helper.make_node("ConvTranspose", node.input, node.output, **attrs)]


def dropout(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """At inference the input itself, and a mask that keeps everything."""
    training = input_of(node, 2)
    if training and (training not in facts.constants or facts.constants[training].any()):
        raise unsupported(node, "in training mode is not supported; export the model for inference")
    nodes = [helper.make_node("Identity", node.input[:1], node.output[:1])]
    if any(node.output[1:]):
        true = facts.constant(np.array(True), node.output[1])
        shape = helper.make_node("Shape", node.input[:1], [f"{node.output[1]}::shape"])
        nodes += [shape, helper.make_node("Expand", [true, shape.output[0]], node.output[1:])]
    return nodes


def eye_like(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """A constant, the shape being known."""
    attrs, shape = attributes_of(node), facts.static_shape(node.input[0])
    if shape is None:
        return None
    dtype = helper.tensor_dtype_to_np_dtype(attrs["dtype"]) if "dtype" in attrs else facts.dtype(node.input[0])
    value = facts.constant(np.eye(shape[0], shape[1], attrs.get("k", 0), dtype), node.output[0])
    return [helper.make_node("Identity", [value], node.output)]


def is_inf(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """TVM ignores which of the two infinities is asked for."""
    attrs = attributes_of(node)
    positive, negative = attrs.get("detect_positive", 1), attrs.get("detect_negative", 1)
    if positive and negative:
        return None
    infinity = np.array(np.inf if positive else -np.inf if negative else np.nan, facts.dtype(node.input[0]))
    return [helper.make_node("Equal", [node.input[0], facts.constant(infinity, node.output[0])], node.output)]


def lp_normalization(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """x / ‖x‖, and 0 where the norm is 0."""
    attrs, x, y = attributes_of(node), node.input[0], node.output[0]
    axes = facts.constant(np.array([attrs.get("axis", -1)]), y)
    zero, one = (facts.constant(np.array(value, facts.dtype(x)), y) for value in (0, 1))
    return [
        helper.make_node(f"ReduceL{attrs.get('p', 2)}", [x, axes], [f"{y}::norm"], keepdims=1),
        helper.make_node("Equal", [f"{y}::norm", zero], [f"{y}::zero"]),
        helper.make_node("Where", [f"{y}::zero", one, f"{y}::norm"], [f"{y}::divisor"]),
        helper.make_node("Div", [x, f"{y}::divisor"], [y]),
    ]


def mish(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """x · tanh(log(1 + e)) with e = exp(x) is x · n / (n + 2) with n = e · (e + 2), which keeps the small values."""
    x, y = node.input[0], node.output[0]
    limit, two = (facts.constant(np.array(value, facts.dtype(x)), y) for value in (20, 2))
    return [
        helper.make_node("Min", [x, limit], [f"{y}::limited"]),  # the quotient is 1 from here on, and e stays finite
        helper.make_node("Exp", [f"{y}::limited"], [f"{y}::e"]),
        helper.make_node("Add", [f"{y}::e", two], [f"{y}::e_2"]),
        helper.make_node("Mul", [f"{y}::e", f"{y}::e_2"], [f"{y}::n"]),
        helper.make_node("Add", [f"{y}::n", two], [f"{y}::n_2"]),
        helper.make_node("Div", [f"{y}::n", f"{y}::n_2"], [f"{y}::tanh"]),
        helper.make_node("Mul", [x, f"{y}::tanh"], [y]),
    ]


def one_hot(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """Indices compared with 0, 1, 2, … along the new axis; TVM takes no depth that is not a Python int."""
    y, shape = node.output[0], facts.shape(node.input[0])
    depth, values = facts.constants.get(node.input[1]), node.input[2]
    if depth is None or shape is None:
        return None
    size, axis = int(depth.item()), attributes_of(node).get("axis", -1) % (len(shape) + 1)
    positions = np.arange(size).reshape([size if i == axis else 1 for i in range(len(shape) + 1)])
    names = [facts.constant(np.asarray(v), y) for v in (size, 0, 1, [axis], positions)]
    length, zero, one, axes, positions_ = names
    on, off = f"{y}::on", f"{y}::off"
    return [
        helper.make_node("Gather", [values, one], [on]),
        helper.make_node("Gather", [values, zero], [off]),
        helper.make_node("Cast", node.input[:1], [f"{y}::int"], to=onnx.TensorProto.INT64),
        helper.make_node("Less", [f"{y}::int", zero], [f"{y}::negative"]),
        helper.make_node("Add", [f"{y}::int", length], [f"{y}::wrapped"]),
        helper.make_node("Where", [f"{y}::negative", f"{y}::wrapped", f"{y}::int"], [f"{y}::index"]),
        helper.make_node("Unsqueeze", [f"{y}::index", axes], [f"{y}::column"]),
        helper.make_node("Equal", [f"{y}::column", positions_], [f"{y}::hot"]),
        helper.make_node("Where", [f"{y}::hot", on, off], [y]),
    ]


def power(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """The exponent may have another type than the base, which gives the type of the result; integers go by float64."""
    (base, exponent), y = node.input, node.output[0]
    kinds = [_element_type(name, facts) for name in node.input]
    if None in kinds:
        return None
    is_integer = np.dtype(helper.tensor_dtype_to_np_dtype(kinds[0])).kind in "iu"
    if kinds[0] == kinds[1] and not is_integer:
        return None
    kind = onnx.TensorProto.DOUBLE if is_integer else kinds[0]
    nodes = [helper.make_node("Cast", [exponent], [f"{y}::exponent"], to=kind)]
    if not is_integer:
        return [*nodes, helper.make_node("Pow", [base, f"{y}::exponent"], [y])]
    return [
        *nodes,
        helper.make_node("Cast", [base], [f"{y}::base"], to=kind),
        helper.make_node("Pow", [f"{y}::base", f"{y}::exponent"], [f"{y}::power"]),
        helper.make_node("Cast", [f"{y}::power"], [y], to=kinds[0]),
    ]


def _element_type(name: str, facts: Facts) -> int | None:
    if name in facts.constants:
        return helper.np_dtype_to_tensor_dtype(facts.constants[name].dtype)
    return facts.types[name].elem_type if name in facts.types else None


def resize(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """Axis by axis a gather or a product; what is left to TVM has axes of symbolic size."""
    attrs, shape = attributes_of(node), facts.shape(node.input[0])
    arguments = [facts.constants.get(input_of(node, index)) for index in (1, 2, 3)]
    if shape is None or (arguments[1] is None and arguments[2] is None):
        return None
    axes = [axis % len(shape) for axis in attrs.get("axes", range(len(shape)))]
    plan = _plan_resize([shape[axis] for axis in axes], arguments, attrs)
    if plan is None:
        return None
    if attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise unsupported(node, "with coordinate_transformation_mode 'tf_crop_and_resize' is not supported")
    current, nodes = node.input[0], []
    for axis, (size, target, scale) in zip(axes, plan, strict=True):
        if size == target and scale == 1:
            continue
        weights = resize_weights(size, target, scale, attrs).astype(facts.dtype(node.input[0]))
        result = f"{node.output[0]}::axis_{axis}"
        nodes += _resize_axis(current, result, axis, len(shape), weights, attrs.get("mode", "nearest"), facts)
        current = result
    return [*nodes, helper.make_node("Identity", [current], node.output)]


def _plan_resize(
    sizes: Sequence[int | None], arguments: Sequence[np.ndarray | None], attrs: dict[str, Any]
) -> list[tuple[int, int, float]] | None:
    """Size, target and scale per axis; None where an axis to resize is symbolic."""
    _, scales, targets = arguments
    if targets is not None and targets.size:
        if None in sizes:
            return None
        known = [size for size in sizes if size is not None]
        ratios = [target / size for target, size in zip(targets.tolist(), known, strict=True)]
        policy = attrs.get("keep_aspect_ratio_policy", "stretch")
        if policy == "stretch":
            return list(zip(known, targets.tolist(), ratios, strict=True))
        ratio = min(ratios) if policy == "not_larger" else max(ratios)
        return [(size, int(np.floor(ratio * size + 0.5)), ratio) for size in known]
    if scales is None:
        return None
    plan = []
    for size, scale in zip(sizes, scales.tolist(), strict=True):
        if size is None and scale != 1:
            return None
        plan.append((0, 0, 1.0) if size is None else (size, int(np.floor(size * scale)), scale))
    return plan


def _resize_axis(x: str, y: str, axis: int, rank: int, weights: np.ndarray, mode: str, facts: Facts) -> Nodes:
    if mode == "nearest":
        return [helper.make_node("Gather", [x, facts.constant(weights.argmax(1), y)], [y], axis=axis)]
    if axis == rank - 1:
        return [helper.make_node("MatMul", [x, facts.constant(weights.T, y)], [y])]
    if axis == rank - 2:
        return [helper.make_node("MatMul", [facts.constant(weights, y), x], [y])]
    order = [*range(rank)]
    order[axis], order[-1] = order[-1], order[axis]
    return [
        helper.make_node("Transpose", [x], [f"{y}::swapped"], perm=order),
        helper.make_node("MatMul", [f"{y}::swapped", facts.constant(weights.T, y)], [f"{y}::resized"]),
        helper.make_node("Transpose", [f"{y}::resized"], [y], perm=order),
    ]


def roi_align(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """TVM takes the maximum of other samples than ONNX does."""
    if attributes_of(node).get("mode", "avg") == "max":
        raise unsupported(node, "with mode 'max' is not supported")
    return None


def space_to_depth(node: onnx.NodeProto, facts: Facts) -> Nodes | None:
    """TVM ignores the order of the axes."""
    if attributes_of(node).get("mode", "DCR") != "DCR":
        raise unsupported(node, "with mode 'CRD' is not supported")
    return None


_STANDARD: dict[str, Rewrite] = {
    "BatchNormalization": batch_normalization,
    "Constant": constant,
    "ConvTranspose": conv_transpose,
    "Dropout": dropout,
    "EyeLike": eye_like,
    "IsInf": is_inf,
    "LpNormalization": lp_normalization,
    "Mish": mish,
    "OneHot": one_hot,
    "Pow": power,
    "Resize": resize,
    "RoiAlign": roi_align,
    "SpaceToDepth": space_to_depth,
}

REWRITES = {"": _STANDARD | QUANTIZED, "com.microsoft": CONTRIBUTED}
"""What to put in place of a node, by domain and operator: None leaves it as it is."""
