"""Lower scheduled PrimFuncs to plain C functions, and compile those with LLVM.

TVM would wrap every kernel in its packed calling convention, which boxes the arguments and checks them again in every
call. All of that is known when the plan is compiled, so here a kernel becomes

    int32_t kernel(float *x, float *y, int64_t n)

with the address of each buffer, and then the value of each dimension that is symbolic.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.ir import PointerType, PrimType, StringImm
from tvm.sym.analyzer import Analyzer, ConstIntBound
from tvm.tirx.buffer import is_buffer_var
from tvm.tirx.stmt import AttrStmt, Bind, DeclBuffer, Return, SeqStmt

from sparsec.codegen.bfloat16 import legalize_bfloat16, spread_bits
from sparsec.codegen.intrinsics import define_intrinsics
from sparsec.codegen.plan import ALIGNMENT
from sparsec.codegen.registers import hide_registers, restore_buffers
from sparsec.errors import ArtifactError, last_line
from sparsec.runtime.dims import Range
from sparsec.targets import Target

TVM_ERRORS = (tvm.error.InternalError, tvm.error.DiagnosticError, tvm.error.OpError, NotImplementedError, ValueError)
"""What TVM raises where it does not take what it is given."""

PREFIX = "kernel_"
"""Starts the C names of kernels, so that a kernel named `exp` is not libm's."""


@dataclass(frozen=True)
class Size:
    """A symbolic dimension, which the kernel takes as a last argument: axis `axis` of buffer `buffer`."""

    variable: tirx.Var
    dtype: str
    buffer: int
    axis: int


@dataclass(frozen=True)
class Kernel:
    """The C function that a PrimFunc became: it takes `buffers`, then `scalars` (by symbol name), then `sizes`.

    `workspaces` are the bytes of each block that it asks the runtime for, `lets` the variables of its body in them.
    """

    name: str
    buffers: tuple[tirx.Var, ...]
    scalars: tuple[tirx.Var, ...]
    sizes: tuple[Size, ...]
    lets: tuple[tuple[tirx.Var, Any], ...]
    workspaces: tuple[Any, ...]

    def expected_shapes(self, shapes: Sequence[Sequence[int]]) -> list[list[int | None]]:
        """What the kernel takes the shapes of its buffers to be when it is called with these; None where unclear."""
        analyzer = self._analyzer(shapes)
        return [[_constant(analyzer.simplify(dim)) for dim in buffer.shape] for buffer in self.buffers]

    def workspace_bytes(self, shapes: Sequence[Sequence[Range]], symbols: Mapping[str, Range]) -> int:
        """Scratch memory that one thread never exceeds, as if no block were freed before the kernel returns."""
        analyzer = Analyzer()
        for size in self.sizes:
            _bind(analyzer, size.variable, shapes[size.buffer][size.axis])
        for scalar in self.scalars:
            _bind(analyzer, scalar, symbols[scalar.name])
        for variable, value in self.lets:
            analyzer.bind(variable, value)
        total = 0
        for nbytes in self.workspaces:
            most = analyzer.const_int_bound(analyzer.simplify(nbytes)).max_value
            if most >= ConstIntBound.POS_INF:
                raise ArtifactError(f"kernel {self.name!r} allocates a workspace of {nbytes} bytes, which has no bound")
            total += -(-most // ALIGNMENT) * ALIGNMENT
        return total

    def _analyzer(self, shapes: Sequence[Sequence[int]]) -> Analyzer:
        analyzer = Analyzer()
        for size in self.sizes:
            analyzer.bind(size.variable, tirx.IntImm(size.dtype, shapes[size.buffer][size.axis]))
        return analyzer


def _bind(analyzer: Analyzer, variable: tirx.Var, bounds: Range) -> None:
    low, high = (tirx.IntImm(dtype_of(variable), bound) for bound in bounds)
    analyzer.bind(variable, low if bounds[0] == bounds[1] else tvm.ir.Range.from_min_extent(low, high - low + 1))


def _constant(expr: Any) -> int | None:
    return int(expr.value) if isinstance(expr, tirx.IntImm) else None


def _passes() -> list[Any]:
    """TVM's S-TIR pipeline as far as it concerns CPUs, up to where calling conventions are chosen."""
    return [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.AnnotateIrregularLoop(),
        s_tir.transform.InjectSoftwarePipeline(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        *legalize_bfloat16(),
        tirx.transform.NarrowDataType(32),
        s_tir.transform.LoopPartition(),
        tirx.transform.VectorizeLoop(True),
        spread_bits(),
        tirx.transform.StorageRewrite(),
        s_tir.transform.HoistIfThenElse(),
        tirx.transform.UnrollLoop(),
        s_tir.transform.RenormalizeSplitPattern(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
        s_tir.transform.RewriteUnsafeSelect(),
        tirx.transform.CommonSubexprElim(),
        tirx.transform.FP8ComputeLegalize(),
        tirx.transform.VerifyMemory(),
    ]


def lower(module: tvm.IRModule, target: Target) -> tuple[dict[str, Kernel], tvm.IRModule]:
    """Lower kernels to C functions; says how each is called, and returns them ready for `write_objects`.

    Raises
    ------
    ArtifactError
        Naming the kernel that TVM does not lower.
    """
    kernels, functions = {}, {}
    for name, function in module.functions.items():
        with _blaming(name.name_hint):
            kernels[name.name_hint], functions[name] = _lower_one(name, function, target)
    return kernels, tvm.IRModule(functions)


def _lower_one(name: tvm.ir.GlobalVar, function: tirx.PrimFunc, target: Target) -> tuple[Kernel, tirx.PrimFunc]:
    bind = tirx.transform.BindTarget(target.machine.tvm())
    buffers = tvm.ir.transform.Sequential([bind, *_passes()])(tvm.IRModule({name: function}))
    bits = [tirx.transform.FP8StorageLegalize(), tirx.transform.BF16StorageLegalize()]  # of registers too
    flat = tvm.ir.transform.Sequential(bits)(tvm.IRModule({name: _as_c_function(name.name_hint, buffers[name])}))
    registers: list[Any] = []
    hidden = hide_registers(flat[name], registers)
    pointers = tirx.transform.LowerTVMBuiltin()(tvm.IRModule({name: hidden}))
    lowered = restore_buffers(pointers[name], registers)
    kernel = _kernel(name.name_hint, buffers[name], lowered)
    return kernel, define_intrinsics(tirx.transform.LowerIntrin()(tvm.IRModule({name: lowered}))[name])


@contextmanager
def _blaming(kernel: str) -> Iterator[None]:
    """Name the kernel that TVM fails on."""
    try:
        yield
    except TVM_ERRORS as error:
        raise ArtifactError(
            f"kernel {kernel!r} does not compile: {last_line(error)}; this is a bug in sparsec, please report it with "
            "what --dump writes"
        ) from error


def write_objects(module: tvm.IRModule, target: Target, folder: Path) -> list[Path]:
    """Compile lowered kernels with LLVM, each in an object file of its own and as many at a time as there are cores."""
    build, tvm_target = tvm.get_global_func("target.build.llvm"), target.machine.tvm()

    def compile_one(name: tvm.ir.GlobalVar) -> Path:
        path = folder / f"{PREFIX}{name.name_hint}.o"
        with _blaming(name.name_hint):
            build(tvm.IRModule({name: module[name]}), tvm_target).write_to_file(str(path))
        return path

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(compile_one, module.functions))


def _kernel(name: str, before: tirx.PrimFunc, after: tirx.PrimFunc) -> Kernel:
    """The signature of a kernel `before` its buffers became pointers, and its allocations `after`."""
    buffers = tuple(p for p in before.params if is_buffer_var(p))
    scalars = tuple(before.params[len(buffers) :])
    if any(is_buffer_var(p) for p in scalars):
        raise ArtifactError(f"kernel {name!r} takes a buffer after a scalar; put its buffers first")
    workspaces = _workspaces(after)
    return Kernel(name, buffers, scalars, _sizes(buffers), _lets(after, workspaces), workspaces)


def dtype_of(variable: tirx.Var) -> str:
    """The element type of a buffer, or the type of a scalar."""
    return str(variable.dtype if is_buffer_var(variable) else variable.ty.dtype)


def _sizes(buffers: Sequence[tirx.Var]) -> tuple[Size, ...]:
    """The first place where each symbolic dimension stands alone."""
    found: list[Size] = []
    for index, buffer in enumerate(buffers):
        for axis, dim in enumerate(buffer.shape):
            if isinstance(dim, tirx.Var) and not any(dim.same_as(size.variable) for size in found):
                found.append(Size(dim, dtype_of(dim), index, axis))
    return tuple(found)


def _as_c_function(name: str, function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Take buffers as pointers and symbolic dimensions as values."""
    buffers = [parameter for parameter in function.params if is_buffer_var(parameter)]
    pointers = [tirx.Var(b.name, PointerType(PrimType(str(b.dtype)), b.ty.storage_scope)) for b in buffers]
    declarations = [DeclBuffer(b, data=pointer) for b, pointer in zip(buffers, pointers, strict=True)]
    scalars = function.params[len(buffers) :]
    sizes = [size.variable for size in _sizes(buffers)]
    # LowerTVMBuiltin wants to know the device that workspaces are allocated on: kDLCPU, number 0.
    body = AttrStmt(StringImm("default"), "device_id", tirx.IntImm("int32", 0), function.body)
    body = AttrStmt(StringImm("default"), "device_type", tirx.IntImm("int32", 1), body)
    body = SeqStmt([*declarations, body, Return(tirx.IntImm("int32", 0))])
    lowered = tirx.PrimFunc([*pointers, *scalars, *sizes], body, PrimType("int32"), function.attrs)
    return lowered.with_attr("global_symbol", PREFIX + name)


def _lets(function: tirx.PrimFunc, used: Sequence[Any]) -> tuple[tuple[tirx.Var, Any], ...]:
    """The variables bound in a function that these expressions depend on, in order."""
    bound: list[tuple[tirx.Var, Any]] = []
    tvm_ffi.structural_walk(function.body, (Bind, lambda bind: bound.append((bind.var, bind.value))))
    needed = {variable for value in used for variable in tirx.analysis.undefined_vars(value)}
    found = []
    for variable, value in reversed(bound):
        if variable in needed:
            needed.update(tirx.analysis.undefined_vars(value))
            found.append((variable, value))
    return tuple(reversed(found))


def _workspaces(function: tirx.PrimFunc) -> tuple[Any, ...]:
    found = []

    def visit(call: Any) -> None:
        if getattr(call.op, "name", "") == "tirx.TVMBackendAllocWorkspace":
            found.append(call.args[2])

    tvm_ffi.structural_walk(function.body, (tvm.ir.Call, visit))
    return tuple(found)
