"""Write a plan's tables as C: what `runtime/sparsec_model.h` declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sparsec.codegen.link import Constants
from sparsec.codegen.lower import PREFIX, Kernel, dtype_of
from sparsec.codegen.plan import Plan, Step
from sparsec.runtime.dims import bounds, to_c
from sparsec.targets.features import probe

MANIFEST_SECTION = ".sparsec.manifest"
"""Where the manifest can be read without loading the library."""


def write_tables(
    plan: Plan, kernels: Mapping[str, Kernel], constants: Constants, code: Constants, manifest: str
) -> str:
    """The C source of a model's tables, for constants and code that lie so in their sections."""
    used = {step.kernel: kernels[step.kernel] for step in plan.steps}
    symbols = {symbol.name: f"s[{index}]" for index, symbol in enumerate(plan.symbols)}
    calls = [_call(plan, used[step.kernel], step, number, symbols) for number, step in enumerate(plan.steps)]
    steps = [f"{_quote(s.label)}, {_quote(s.kernel)}, step{number}" for number, s in enumerate(plan.steps)]
    lines = [
        '#include "sparsec_model.h"',
        "extern const unsigned char sparsec_constants[], sparsec_code[];",
        *(_prototype(kernel) for kernel in used.values()),
        f"static const char manifest[] __attribute__((section({_quote(MANIFEST_SECTION)}))) = {_quote(manifest)};",
        _table("sparsec_probe", "probes", _probes(plan)),
        _table("sparsec_symbol", "symbols", _symbols(plan)),
        _ports("inputs", plan, plan.inputs),
        _ports("outputs", plan, plan.outputs),
        _table("sparsec_storage", "tensors", _storages(plan, {"constant": constants.offsets, "code": code.offsets})),
        *calls,
        _table("sparsec_step", "steps", steps),
        _shapes(plan, symbols),
        _model(plan, used, constants),
    ]
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    """A C string literal of the text in UTF-8."""
    plain = set(range(32, 127)) - set(b'"\\?')
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'


def _table(ctype: str, name: str, rows: Iterable[str]) -> str:
    """An array of structs; never empty, which C does not allow."""
    return f"static const {ctype} {name}[] = {{{', '.join(f'{{{row}}}' for row in rows) or '{0}'}}};"


def _prototype(kernel: Kernel) -> str:
    types = ["void *"] * len(kernel.buffers)
    types += [f"{dtype_of(scalar)}_t" for scalar in kernel.scalars]
    types += [f"{size.dtype}_t" for size in kernel.sizes]
    return f"int32_t {PREFIX}{kernel.name}({', '.join(types) or 'void'});"


def _call(plan: Plan, kernel: Kernel, step: Step, number: int, symbols: Mapping[str, str]) -> str:
    arguments = [f"t[{arg}]" for arg in step.args]
    arguments += [symbols[scalar.name] for scalar in kernel.scalars]
    arguments += [to_c(plan.tensors[step.args[size.buffer]].shape[size.axis], symbols) for size in kernel.sizes]
    signature = f"static int32_t step{number}(void *const *t, const int64_t *s)"
    return f"{signature} {{ (void)t, (void)s; return {PREFIX}{kernel.name}({', '.join(arguments)}); }}"


def _probes(plan: Plan) -> list[str]:
    machine = plan.target.machine
    probes = {name: probe(name, machine.arch) for name in sorted(machine.isa)}
    return [f"{_quote(name)}, {p.leaf}u, {p.subleaf}, {p.register}, {p.bit}, {p.state}" for name, p in probes.items()]


def _symbols(plan: Plan) -> list[str]:
    rows = []
    for symbol in plan.symbols:
        shapes = [plan.tensors[index].shape for index in plan.inputs]
        where = next((i, shape.index(symbol.name)) for i, shape in enumerate(shapes) if symbol.name in shape)
        rows.append(f"{_quote(symbol.name)}, {symbol.lower}, {symbol.upper}, {where[0]}, {where[1]}")
    return rows


def _ports(name: str, plan: Plan, indices: Sequence[int]) -> str:
    """The descriptions of the inputs or outputs, with their smallest and largest shapes."""
    lines, rows = [], []
    for position, index in enumerate(indices):
        tensor = plan.port(index)
        ranges = [bounds(dim, plan.ranges) for dim in tensor.shape]
        for end, bound in enumerate(("min", "max")):
            dims = ", ".join(str(max(0, dim[end])) for dim in ranges) or "0"
            lines.append(f"static const int64_t {name}_{position}_{bound}[] = {{{dims}}};")
        itemsize = np.dtype(tensor.dtype).itemsize
        shapes = f"{name}_{position}_min, {name}_{position}_max"
        rows.append(f"{_quote(tensor.name)}, {_quote(tensor.dtype)}, {itemsize}, {len(tensor.shape)}, {shapes}")
    return "\n".join([*lines, _table("sparsec_tensor", name, rows)])


def _storages(plan: Plan, offsets: Mapping[str, Sequence[int]]) -> list[str]:
    rows = []
    for storage in (tensor.storage for tensor in plan.tensors):
        offset = offsets[storage.kind][storage.index] if storage.kind in offsets else storage.offset
        rows.append(f"SPARSEC_{storage.kind.upper()}, {storage.index}, {offset}")
    return rows


def _shapes(plan: Plan, symbols: Mapping[str, str]) -> str:
    dims = [dim for index in plan.inputs + plan.outputs for dim in plan.port(index).shape]
    body = " ".join(f"d[{axis}] = {to_c(dim, symbols)};" for axis, dim in enumerate(dims))
    return f"static void shapes(const int64_t *s, int64_t *d) {{ (void)s, (void)d; {body} }}"


def _model(plan: Plan, kernels: Mapping[str, Kernel], constants: Constants) -> str:
    counts = {
        "probes": len(plan.target.machine.isa),
        "symbols": len(plan.symbols),
        "inputs": len(plan.inputs),
        "outputs": len(plan.outputs),
        "tensors": len(plan.tensors),
        "steps": len(plan.steps),
    }
    fields = {"manifest": "manifest", "constants": "sparsec_constants", "code": "sparsec_code", "shapes": "shapes"}
    fields |= {name: name for name in counts}
    fields |= {"arena_bytes": str(plan.arena_bytes), "workspace_bytes": str(workspace_bytes(plan, kernels))}
    fields |= {"slices": str(plan.slices), "streamed_bytes": str(constants.streamed_bytes)}
    fields |= {f"num_{name}": str(count) for name, count in counts.items()}
    initialiser = ", ".join(f".{name} = {value}" for name, value in fields.items())
    return f"const sparsec_model sparsec_the_model = {{{initialiser}}};"


def workspace_bytes(plan: Plan, kernels: Mapping[str, Kernel]) -> int:
    """Scratch memory that each thread needs for any of the steps."""
    return max((_workspace(plan, kernels[step.kernel], step) for step in plan.steps), default=0)


def _workspace(plan: Plan, kernel: Kernel, step: Step) -> int:
    shapes = [[bounds(dim, plan.ranges) for dim in plan.tensors[arg].shape] for arg in step.args]
    return kernel.workspace_bytes(shapes, plan.ranges)
