"""The single-operator cases of ``onnx.backend.test``, in the form in which a compiler can take them.

``python tests/frontends/onnx_cases.py [--json FILE] [NAME ...]`` imports every case, compiles it with TVM's default
pipeline and compares the numbers: the list of operators that the front end can claim.
"""

import collections
import functools
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from sparsec.errors import SparsecError
from sparsec.frontends import Imported, load_model

COMPILE_TIME_INPUTS = {
    "AffineGrid": [1],
    "CenterCropPad": [1],
    "Col2Im": [1, 2],
    "ConstantOfShape": [0],
    "CumSum": [1],
    "Dropout": [1, 2],
    "Expand": [1],
    "MaxUnpool": [2],
    "OneHot": [1, 2],
    "Pad": [1, 2, 3],
    "Range": [0, 1, 2],
    "Reshape": [1],
    "Resize": [1, 2, 3],
    "Slice": [1, 2, 3, 4],
    "Split": [1],
    "Squeeze": [1],
    "Tile": [1],
    "TopK": [1],
    "Trilu": [1],
    "Unsqueeze": [1],
    "Upsample": [1],
} | {
    f"Reduce{kind}": [1]
    for kind in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
}
"""Inputs that decide shapes: an ahead-of-time compiler needs their values, though a case passes them at run time."""


@dataclass(frozen=True)
class Case:
    """One case: ``model`` with its compile-time inputs as initializers, the inputs that are left, and the results."""

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]
    rtol: float
    atol: float


@functools.cache
def all_cases() -> tuple[list[Case], dict[str, str]]:
    """The cases that tensors can express, and for each other one the reason why not."""
    from onnx.backend.test.loader import load_node_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_node_model_tests()
    operators = {case.name: case.model.graph.node[0].op_type for case in found if len(case.model.graph.node) == 1}
    cases, skipped = [], {}
    for case in found:
        parent = re.sub(r"_expanded.*$", "", case.name)
        operator = operators.get(case.name) or f"{operators.get(parent, 'several')} (expanded)"
        inputs, outputs = (tuple(map(_as_array, values)) for values in case.data_sets[0])
        if not all(isinstance(value, np.ndarray) and value.dtype.kind in "fiub" for value in (*inputs, *outputs)):
            skipped[case.name] = f"{operator}: not a tensor of numbers that NumPy has"
            continue
        model, rest = _fix_inputs(case.model, inputs)
        cases.append(Case(case.name, operator, model, rest, outputs, case.rtol, case.atol))
    return cases, skipped


def _as_array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _fix_inputs(
    source: onnx.ModelProto, values: Iterable[np.ndarray]
) -> tuple[onnx.ModelProto, tuple[np.ndarray, ...]]:
    model = onnx.ModelProto()
    model.CopyFrom(source)
    graph = model.graph
    fixed = {
        node.input[index]
        for node in graph.node
        for index in COMPILE_TIME_INPUTS.get(node.op_type, ())
        if index < len(node.input)
    }
    rest, kept = [], []
    for info, value in zip(graph.input, values, strict=True):
        if info.name in fixed:
            graph.initializer.append(numpy_helper.from_array(value, info.name))
        else:
            kept.append(info)
            rest.append(value)
    kept = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in kept]
    del graph.input[:]
    graph.input.extend(kept)
    return model, tuple(rest)


def run_relax(imported: Imported, inputs: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Compile with TVM's default pipeline and run: slow, but it says what the imported graph means."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(relax.build(imported.module, "llvm"), tvm.cpu())
    result = machine["main"](*[tvm.runtime.tensor(value.copy()) for value in inputs])
    return [value.numpy() for value in ([result] if hasattr(result, "numpy") else result)]


def check(case: Case, run: Callable[[Imported, Iterable[np.ndarray]], list[np.ndarray]] = run_relax) -> None:
    """Import, run and compare; raises what went wrong."""
    shapes = {info.name: value.shape for info, value in zip(case.model.graph.input, case.inputs, strict=True)}
    imported = load_model(case.model, shapes=shapes)
    results = run(imported, case.inputs)
    for name, got, want in zip(imported.outputs, results, case.outputs, strict=True):
        assert got.dtype == want.dtype, f"{name} is {got.dtype}, not {want.dtype}"
        np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol, err_msg=name)


def _verdict(case: Case) -> str:
    try:
        check(case)
    except SparsecError as err:
        return f"{type(err).__name__}: {err}"
    except AssertionError as err:
        return "wrong: " + " ".join(str(err).split())[:400]
    except Exception as err:  # whatever TVM raises is the finding
        return f"{type(err).__name__}: " + " ".join(str(err).split())[-400:]
    return "pass"


def _in_child(case: Case) -> str:
    """Run in a forked process, for TVM may abort."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.write(writer, _verdict(case).encode()[:4096])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        verdict = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return verdict or f"crashed with status {status}"


def main(arguments: list[str]) -> None:
    target = arguments[1] if arguments[:1] == ["--json"] else None
    patterns = arguments[2:] if target else arguments
    from tvm import relax  # noqa: F401  (before the forks, which would each import it anew)

    import sparsec.frontends.from_onnx  # noqa: F401

    cases, skipped = all_cases()
    table: dict[str, dict[str, Any]] = collections.defaultdict(lambda: {"pass": [], "fail": {}})
    for case in cases:
        if patterns and not any(re.search(pattern, case.name) for pattern in patterns):
            continue
        verdict = _in_child(case)
        if verdict == "pass":
            table[case.operator]["pass"].append(case.name)
        else:
            table[case.operator]["fail"][case.name] = verdict
            print(case.operator, case.name, verdict, flush=True)
    if target:
        with open(target, "w") as file:
            json.dump({"operators": table, "skipped": skipped}, file, indent=1, sort_keys=True)
    passed = sum(len(row["pass"]) for row in table.values())
    print(f"{passed} pass, {sum(len(row['fail']) for row in table.values())} fail, {len(skipped)} are out of scope")


if __name__ == "__main__":
    main(sys.argv[1:])
