"""Small Relax groups, lowered, scheduled, compiled and run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from sparsec.graph.lower_generic import lower_group
from sparsec.schedules.rules.generic import schedule
from sparsec.targets.target import Target

NATIVE = Target.parse("native")
TWO_CORES = replace(NATIVE, cores=2)

Emit = Callable[[relax.Expr], relax.Expr]


def group(build: Callable[..., Any], *shapes: Sequence[Any], dtypes: Sequence[str] = ()) -> tirx.PrimFunc:
    """The unscheduled function of a group; `build` gets `emit` and one variable per shape."""
    symbols: dict[str, tirx.Var] = {}

    def dim(size: Any) -> Any:
        return symbols.setdefault(size, tirx.Var(size, "int64")) if isinstance(size, str) else size

    builder = relax.BlockBuilder()
    kinds = [*dtypes, *["float32"] * (len(shapes) - len(dtypes))]
    params = [
        relax.Var(f"x{n}", relax.TensorType([dim(d) for d in shape], kind))
        for n, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
    ]
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(builder.normalize(build(builder.emit, *params)))
        builder.emit_func_output(out)
    return lower_group(builder.get(), "main")


@dataclass
class Kernel:
    """A compiled group."""

    library: Any

    def __call__(self, inputs: Sequence[np.ndarray], *outputs: np.ndarray) -> list[np.ndarray]:
        """Run on inputs, with outputs shaped and typed like the arrays given, and filled with garbage before."""
        out = [tvm.runtime.tensor(np.full(o.shape, 77, o.dtype)) for o in outputs]
        self.library["main"](*map(tvm.runtime.tensor, inputs), *out)
        return [o.numpy() for o in out]

    @property
    def assembly(self) -> str:
        return self.library.mod.inspect_source("asm")


def compiled(func: tirx.PrimFunc, target: Target = NATIVE) -> Kernel:
    scheduled = schedule(func, target)
    return Kernel(tvm.compile(tvm.IRModule({"main": scheduled}), target=target.tvm()))


def agree(
    build: Callable[..., Any],
    expected: Callable[..., Any],
    *inputs: np.ndarray,
    target: Target = TWO_CORES,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> None:
    """Hold the compiled group against NumPy."""
    wanted = expected(*inputs)
    wanted = [np.asarray(w) for w in (wanted if isinstance(wanted, list) else [wanted])]
    func = group(build, *(x.shape for x in inputs), dtypes=[str(x.dtype) for x in inputs])
    for got, want in zip(compiled(func, target)(inputs, *wanted), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype("float32")
