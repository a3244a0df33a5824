"""One sparse linear layer through every stage of the compiler, each printed.

    python tutorials/02_one_sparse_operator.py

    Y[i, m] = relu(Σ_k W[i, k] · X[k, m] + bias[i])

From top to bottom: the weight in its layout, the kernel as sparse loops, what those loops mean in NumPy, the schedule
as data, the loops that TVM gets before and after scheduling, the instructions of the inner loop, and its time.
"""

import json
import time

import numpy as np
import tvm

import sparsec
from sparsec.codegen.lower import lower
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, Load, call
from sparsec.ir.named import CSR
from sparsec.ir.printer import print_kernel
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, SUM, Product
from sparsec.report import seconds_text
from sparsec.schedules.rules.product import contenders
from sparsec.schedules.trace import Trace
from sparsec.targets import Target

ROWS, DEPTHS, COLUMNS = 256, 192, 64
WIDTH = 130
rng = np.random.default_rng(0)
weight = (rng.standard_normal((ROWS, DEPTHS)) * (rng.random((ROWS, DEPTHS)) < 0.1)).astype(np.float32)
bias = rng.standard_normal(ROWS, np.float32)
x = rng.standard_normal((DEPTHS, COLUMNS), np.float32)
expected = np.maximum(weight @ x + bias[:, None], 0)


def show(title: str, text: object, lines: int = 24) -> None:
    """Print a stage, cut after some lines and columns."""
    print(f"\n== {title}\n")
    whole = str(text).splitlines()
    for line in whole[:lines]:
        print("   ", line if len(line) <= WIDTH else f"{line[:WIDTH]} …")
    if len(whole) > lines:
        print(f"    … and {len(whole) - lines} lines more")


def brief(func: tvm.tirx.PrimFunc) -> str:
    """A function without its header and without what each block reads and writes, which follows from its body."""
    lines = str(func).splitlines()
    start = next(index for index, line in enumerate(lines) if "root" in line)
    return "\n".join(line for line in lines[start + 1 :] if not line.strip().startswith(("T.reads", "T.writes")))


# -- A layout is data --------------------------------------------------------------------------------------------------
# In MLIR's notation: a map from the coordinates of the matrix to levels, each stored in its way. Here with six numbers.

small = np.array([[0, 5, 0], [0, 0, 0], [7, 0, 8]], np.float32)
show(f"CSR is {CSR}, and stores\n{small}", "\n".join(f"{name:14} {a}" for name, a in CSR.pack(small).arrays.items()))

# -- The operator, and the layout that is chosen for it ----------------------------------------------------------------
# Activations are flat, columns innermost, so that each weight meets one run of vectors.

product = Product(
    name="linear",
    weight=Buffer("W", "float32", (ROWS, DEPTHS)),
    x=Buffer("X", "float32", (1, DEPTHS * COLUMNS)),
    y=Buffer("Y", "float32", (1, ROWS * COLUMNS)),
    x_index=(BATCH, DEPTH * COLUMNS + COLUMN),
    y_index=(BATCH, ROW * COLUMNS + COLUMN),
    batch=1,
    rows=ROWS,
    depth=DEPTHS,
    columns=COLUMNS,
    operands=(Buffer("bias", "float32", (ROWS,)),),
    epilogue=call("max", SUM + Load("bias", (ROW,)), 0.0),
)
target = Target.parse("native")
# The cheapest of the layouts whose entries are walked by loops, to look at these. With AVX-512 one whose entries are
# spelled out as machine code may be cheaper still, which `propose` would choose.
(proposal,) = contenders(product, weight, target)["bucketed rows"]
layout = proposal.product.layout
assert layout is not None
arrays = layout.pack(weight).arrays
show(
    f"the layout for {np.mean(weight == 0):.0%} zeros on {target.name}",
    "\n".join([str(layout), *(f"{name:18} {a.dtype}[{len(a)}] {a[:5]} …" for name, a in arrays.items())]),
)
print(f"    predicted {seconds_text(proposal.seconds)}, the best dense layout {seconds_text(proposal.dense_seconds)}")

# -- The kernel: loops over sparse axes --------------------------------------------------------------------------------
# `W[n]` walks level n of the weight; `W` alone is the stored value, `W.i` and `W.k` are its coordinates.

scheduled = proposal.trace.apply(proposal.product)
kernel = scheduled.kernel
show("the kernel", print_kernel(kernel))

# -- The interpreter is the meaning of the kernel ----------------------------------------------------------------------

result = interpret(kernel, {"W": weight, "X": x.reshape(1, -1), "bias": bias})["Y"].reshape(ROWS, COLUMNS)
show("interpreter against NumPy", f"largest difference {np.abs(result - expected).max():.1e}")
assert np.allclose(result, expected, rtol=1e-4, atol=1e-5)

# -- The schedule is data too ------------------------------------------------------------------------------------------

text = proposal.trace.to_json()
assert Trace.from_json(text) == proposal.trace
show("the trace", "\n".join(json.dumps(step) for step in json.loads(text)))

# -- What TVM gets -----------------------------------------------------------------------------------------------------
# A block for each fiber, in it a block for each nonzero whose position and coordinate are constants to what is inside.

show("lowered to TIR", brief(scheduled.lowered.func), lines=70)
show("scheduled: vectors and instructions", brief(scheduled.func), lines=70)

# -- What the processor gets -------------------------------------------------------------------------------------------


def inner_loop(assembly: str) -> str:
    """The straight piece of code between a label and a jump that has the most multiply-adds for its length."""
    pieces: list[list[str]] = [[]]
    for line in assembly.splitlines():
        code = line.split("#")[0].strip()
        if code.endswith(":"):
            pieces.append([])
        elif code and not code.startswith("."):
            pieces[-1].append(line.expandtabs(4).strip())

    def density(piece: list[str]) -> float:
        count = sum("fmadd" in line or "fmla" in line for line in piece)
        return count / (len(piece) + 4)

    return "\n".join(max(pieces, key=density))


_, module = lower(tvm.IRModule({"linear": scheduled.func}), target)
assembly = tvm.get_global_func("target.build.llvm")(module, target.tvm()).inspect_source("asm")
show("the inner loop", inner_loop(assembly), lines=14)

# -- The same through the public face, and its time --------------------------------------------------------------------


def fastest(multiply: sparsec.Session, runs: int = 200) -> float:
    """Seconds of the fastest of some runs."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        multiply(x)
        times.append(time.perf_counter() - start)
    return min(times)


sparse = sparsec.op("matmul", weight, COLUMNS, bias=bias, activation="relu", threads=1)
assert np.allclose(sparse(x), expected, rtol=1e-4, atol=1e-5)
full = sparsec.op(
    "matmul", np.where(weight == 0, np.float32(1), weight), COLUMNS, bias=bias, activation="relu", threads=1
)
times = fastest(sparse), fastest(full)
show("time", f"sparse {seconds_text(times[0])}, dense {seconds_text(times[1])}: {times[1] / times[0]:.1f}× as fast")
