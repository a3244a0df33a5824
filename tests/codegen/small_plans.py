"""Plans by hand, small enough to see their answers."""

import numpy as np
import tvm
from tvm.script import ir as I
from tvm.script import tirx as T

from sparsec.codegen.plan import Plan, Step, Storage, Symbol, Tensor
from sparsec.targets import Target


@I.ir_module
class Kernels:
    @T.prim_func(s_tir=True)
    def double(x: T.Buffer((4, 16), "float32"), y: T.Buffer((4, 16), "float32")):
        T.func_attr({"tirx.noalias": True})
        for i in range(4):
            for j in T.vectorized(16):
                with T.sblock("double"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = x[vi, vj] * T.float32(2)

    @T.prim_func(s_tir=True)
    def add(x: T.Buffer((4, 16), "float32"), w: T.Buffer((16,), "float32"), y: T.Buffer((4, 16), "float32")):
        T.func_attr({"tirx.noalias": True})
        for i in range(4):
            for j in T.vectorized(16):
                with T.sblock("add"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = x[vi, vj] + w[vj]

    @T.prim_func(s_tir=True)
    def reverse_rows(x_handle: T.handle, y_handle: T.handle):
        T.func_attr({"tirx.noalias": True})
        n, m = T.int64(), T.int64()
        x = T.match_buffer(x_handle, (n, m), "float32")
        y = T.match_buffer(y_handle, (n, m), "float32")
        with T.sblock("root"):
            copy = T.sblock_alloc_buffer((n, m), "float32")
            for i, j in T.grid(n, m):
                with T.sblock("copy"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    copy[vi, vj] = x[vi, vj] + T.float32(1)
            for i, j in T.grid(n, m):
                with T.sblock("reverse"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    y[vi, vj] = copy[n - T.int64(1) - vi, vj]

    @T.prim_func(s_tir=True)
    def fill(y_handle: T.handle, seq: T.int32):
        T.func_attr({"tirx.noalias": True})
        n = T.int32()
        y = T.match_buffer(y_handle, (n, 16), "int32")
        for i, j in T.grid(n, 16):
            with T.sblock("fill"):
                vi, vj = T.axis.remap("SS", [i, j])
                y[vi, vj] = seq * 100 + vi

    @T.prim_func(s_tir=True)
    def exp_reversed(x: T.Buffer((61, 512), "float32"), y: T.Buffer((61, 512), "float32")):
        T.func_attr({"tirx.noalias": True})
        for i in T.parallel(61):
            with T.sblock("row"):
                vi = T.axis.spatial(61, i)
                row = T.sblock_alloc_buffer((512,), "float32")
                for j in range(512):
                    with T.sblock("exp"):
                        vj = T.axis.spatial(512, j)
                        row[vj] = T.exp(x[vi, vj])
                for j in range(512):
                    with T.sblock("reverse"):
                        vj = T.axis.spatial(512, j)
                        y[vi, vj] = row[511 - vj]


def only(*names: str) -> tvm.IRModule:
    return tvm.IRModule({name: Kernels[name] for name in names})


def arena(name: str, offset: int, shape=(4, 16)) -> Tensor:
    return Tensor(name, shape, "float32", Storage("arena", offset=offset))


def affine_plan(bias: np.ndarray, target: str = "native", **changes) -> Plan:
    """y = ((x + bias) * 2 + bias) * 2, through an arena whose first slot is used twice."""
    fields = {
        "tensors": [
            Tensor("x", (4, 16), "float32", Storage("input", 0)),
            Tensor("y", (4, 16), "float32", Storage("output", 0)),
            Tensor("bias", (16,), "float32", Storage("constant", 0)),
            arena("a", 0),
            arena("b", 256),
            arena("c", 0),
        ],
        "inputs": [0],
        "outputs": [1],
        "steps": [
            Step("add", (0, 2, 3), "layer 1 bias"),
            Step("double", (3, 4), "layer 1 scale"),
            Step("add", (4, 2, 5), "layer 2 bias"),
            Step("double", (5, 1), "layer 2 scale"),
        ],
        "constants": [bias],
        "arena_bytes": 512,
        "module": only("add", "double"),
        "target": Target.parse(target),
        "manifest": {"model": "affine"},
    }
    return Plan(**(fields | changes))


def sliced_plan(slices: int, rows: int = 4) -> Plan:
    """y = (x + 1) with the rows of each slice reversed, and z = x + 2 through the arena, for slices of so many rows."""
    shape = (rows, 3)
    return Plan(
        tensors=[
            Tensor("x", shape, "float32", Storage("input", 0)),
            Tensor("y", shape, "float32", Storage("output", 0)),
            Tensor("z", shape, "float32", Storage("output", 1)),
            arena("t", 0, shape),
        ],
        inputs=[0],
        outputs=[1, 2],
        steps=[Step("reverse_rows", args, f"reverse {args}") for args in ((0, 1), (0, 3), (3, 2))],
        constants=[],
        arena_bytes=4 * 3 * rows,
        module=only("reverse_rows"),
        target=Target.parse("native"),
        slices=slices,
    )


def affine(x: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return ((x + bias) * 2 + bias) * 2


def symbolic_plan(target: str = "native") -> Plan:
    """y = (x + 1) with its batch*seq rows reversed, and `mask` twice reversed, that is, plus 2."""
    return Plan(
        symbols=[Symbol("batch", 1, 4), Symbol("seq", 2, 64)],
        tensors=[
            Tensor("x", ("batch", "seq", 3), "float32", Storage("input", 0)),
            Tensor("mask", ("batch", "seq"), "float32", Storage("input", 1)),
            Tensor("y", ("batch*seq", 3), "float32", Storage("output", 0)),
            Tensor("z", ("batch", "seq"), "float32", Storage("output", 1)),
            Tensor("x rows", ("batch*seq", 3), "float32", Storage("input", 0)),
            arena("t", 0, ("batch", "seq")),
        ],
        inputs=[0, 1],
        outputs=[2, 3],
        steps=[
            Step("reverse_rows", (4, 2), "reverse x", "6*batch*seq", "fma.8"),
            Step("reverse_rows", (1, 5), "reverse mask"),
            Step("reverse_rows", (5, 3), "reverse it back"),
        ],
        constants=[],
        arena_bytes=4 * 64 * 4,
        module=only("reverse_rows"),
        target=Target.parse(target),
    )


def symbolic(x: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (x + 1).reshape(-1, 3)[::-1], mask + 2


def parallel_plan(repeats: int = 1) -> Plan:
    """y = exp(x) with its columns reversed, in parallel with a workspace for each thread, computed `repeats` times."""
    return Plan(
        tensors=[
            Tensor("x", (61, 512), "float32", Storage("input", 0)),
            Tensor("y", (61, 512), "float32", Storage("output", 0)),
        ],
        inputs=[0],
        outputs=[1],
        steps=[Step("exp_reversed", (0, 1), f"exp {i}") for i in range(repeats)],
        constants=[],
        arena_bytes=0,
        module=only("exp_reversed"),
        target=Target.parse("native"),
    )
