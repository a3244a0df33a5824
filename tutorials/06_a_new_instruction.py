"""Teach the compiler an instruction that it does not have, and find it inside a sparse loop.

    python tutorials/06_a_new_instruction.py

`pmaddwd` of x86 processors multiplies 8 pairs of 16-bit integers and adds the products of neighbours. Signal processing
in fixed point lives on it, but the compiler only has declarations of the wider ones, which came with AVX2 and AVX-512.
"""

from typing import Any

import numpy as np
import tvm
from tvm import tirx

from sparsec.codegen.lower import lower
from sparsec.errors import ScheduleError
from sparsec.ir.instruction import instruction
from sparsec.ir.interpreter import interpret
from sparsec.ir.kernel import Buffer, For
from sparsec.ir.matcher import Refusal, match
from sparsec.ir.named import CSR
from sparsec.ir.parser import parse_kernel
from sparsec.ir.product import BATCH, COLUMN, DEPTH, ROW, Product
from sparsec.ir.product_kernel import build_kernel
from sparsec.schedules.rules.product import propose
from sparsec.schedules.steps import Tensorize, Tile
from sparsec.schedules.trace import Scheduled
from sparsec.targets import Target

# -- The instruction ---------------------------------------------------------------------------------------------------
# What it computes, as a kernel over buffers of constant shape; the extensions that a processor needs for it, by LLVM's
# names; and what is emitted: a function of TIR vectors, the sum last, as the kernel adds to it.


@instruction(
    """
    kernel pmaddwd(a: int16[4, 2], b: int16[4, 2]) -> c: int32[4]:
        for i in range(0, 4), j in range(0, 2):
            c[i] += a[i, j] * b[i, j]
    """,
    name="x86.pmaddwd.128",
    features=("sse4.1",),
    bits=128,
)
def pmaddwd(a: Any, b: Any, c: Any) -> Any:
    return c + tirx.call_llvm_pure_intrin("int32x4", "llvm.x86.sse2.pmadd.wd", a, b)


# -- What it computes --------------------------------------------------------------------------------------------------
# In a kernel, an instruction is a name behind loops. These go on saying what is computed: the interpreter runs them,
# and so does a processor without the instruction. `Tensorize` compares the loops around an assignment with the
# semantics, and cuts them to size. The blocks of a kernel are `init`, `update`, which adds to something, and `finish`.

ROW_SUMS = """
kernel row_sums(W: int16[24, 2], X: int16[24, 2]) -> Y: int32[24]:
    for v in range(0, 24):
        Y[v] = 0
    for v in range(0, 24), l in range(0, 2):
        Y[v] += W[v, l] * X[v, l]
"""

rng = np.random.default_rng(0)


def integers(*shape: int) -> np.ndarray:
    return rng.integers(-1000, 1000, shape).astype(np.int16)


w, x = integers(24, 2), integers(24, 2)
update = Tensorize("update", pmaddwd.name)
row_sums = update.apply(parse_kernel(ROW_SUMS))
assert np.array_equal(interpret(row_sums, {"W": w, "X": x})["Y"], (w.astype(np.int32) * x).sum(axis=1))
print(f"{row_sums}\n\ncomputes what NumPy computes\n")

# -- Found inside a sparse loop ----------------------------------------------------------------------------------------
# Nothing else has to be said. What an instruction takes at once is read from its semantics: two neighbours, so that a
# sparse weight is stored in runs of two columns of a row, wherever they stand. The two rows of X that they lead to are
# interleaved, for which there are instructions already, and the innermost loops are what `pmaddwd` does.

ROWS, DEPTHS, COLUMNS = 32, 48, 32
weight = np.where(rng.random((ROWS, DEPTHS)) < 0.2, integers(ROWS, DEPTHS), np.int16(0))
x = integers(DEPTHS, COLUMNS)
product = Product(
    name="filters",
    weight=Buffer("W", "int16", (ROWS, DEPTHS)),
    x=Buffer("X", "int16", (1, DEPTHS * COLUMNS)),
    y=Buffer("Y", "int32", (1, ROWS * COLUMNS)),
    x_index=(BATCH, DEPTH * COLUMNS + COLUMN),
    y_index=(BATCH, ROW * COLUMNS + COLUMN),
    batch=1,
    rows=ROWS,
    depth=DEPTHS,
    columns=COLUMNS,
)
x86 = Target.parse("x86-64-v2")
proposal = propose(product, weight, x86)
before = proposal.trace.kernel(proposal.product)
print(f"{before}\n")
print(*proposal.trace.steps, sep="\n")

assert update in proposal.trace.steps, "the rule for products took it"
(line,) = (line for line in str(update.apply(before)).splitlines() if pmaddwd.name in line)
print(f"\nafter the last Tensorize, the innermost loops are\n    {line.strip()}\n")

# -- It runs -----------------------------------------------------------------------------------------------------------
# On a processor with SSE4.1 the instruction does; elsewhere the loop that is its semantics does, in the same schedule.

machine = Target.parse("native")
target = x86 if machine.has("sse4.1") else Target.parse("emulate:x86-64-v2")


def run(scheduled: Scheduled) -> np.ndarray:
    """Compile for this machine, and call it with the weight as it is stored."""
    function = tvm.compile(tvm.IRModule({"filters": scheduled.func}), target.machine.tvm())["filters"]
    arrays = scheduled.pack("W", weight) | {"X": flat, "Y": np.zeros((1, ROWS * COLUMNS), np.int32)}
    given = [tvm.runtime.tensor(arrays[array or name]) for name, array in scheduled.lowered.parameters]
    function(*given)
    return given[-1].numpy().reshape(ROWS, COLUMNS)


expected = weight.astype(np.int32) @ x.astype(np.int32)
flat = x.reshape(1, -1)
scheduled = proposal.trace.apply(proposal.product, target.emits)
assert np.array_equal(interpret(scheduled.kernel, {"W": weight, "X": flat})["Y"].reshape(ROWS, COLUMNS), expected)
assert np.array_equal(run(scheduled), expected)
print(f"exact, interpreted and compiled for {target.name}")

_, module = lower(tvm.IRModule({"filters": proposal.trace.apply(proposal.product, x86.emits).func}), x86)
assembly = tvm.get_global_func("target.build.llvm")(module, x86.tvm()).inspect_source("asm")
lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
print(f"{sum(line.startswith('pmaddwd') for line in lines)} times in the machine code, such as")
print("   ", next(line for line in lines if line.startswith("pmaddwd")).expandtabs(4))

# -- Refusals ----------------------------------------------------------------------------------------------------------
# What is nearly the same is not the same, and the matcher says why. Here one thing at a time is changed in the kernel
# above.

CHANGES = [
    ("X: int16", "X: uint16"),  # types
    ("X[v, l]", "X[v, l] * 2"),  # more operators than the instruction has
    ("W[v, l] * X[v, l]", "max(W[v, l], X[v, l])"),  # others than it has
    ("Y[v] +=", "Y[v] ="),  # it adds
    ("l in range(0, 2)", "l in range(0, 1)"),  # too short
    ("Y[v] +=", "Y[v // 2] +="),  # two sums in one place
    ("Y[v] +=", "Y[l] +="),  # each product to another sum
]

print("\nrefused:")
for old, new in CHANGES:
    kernel = parse_kernel(ROW_SUMS.replace(old, new))
    nest = kernel.body[-1]
    assert isinstance(nest, For)
    found = match(nest, kernel, pmaddwd)
    assert isinstance(found, Refusal)
    print(f"    {old} → {new}\n        {found.kind}: {found.reason}")

# A step that finds nothing to do says so too. In CSR, columns are not in runs of two, and there is no loop over them.

try:
    update.apply(build_kernel(product.stored_as(CSR), Tile((COLUMNS,)).tiling(COLUMNS, ROWS)))
except ScheduleError as error:
    print(f"\nin CSR: {error}")
