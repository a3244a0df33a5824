"""Rewrites of operators that TVM's importer gets wrong, into operators that it gets right."""

import onnx


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    return model
