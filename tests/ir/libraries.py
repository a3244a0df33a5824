"""Functions as machine code, compiled together.

The code in which TVM checks arguments takes LLVM longer than many a kernel does, so it is left out, and they are
checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tvm
from tvm import tirx

from sparsec.schedules.fast_math import expand_math
from sparsec.targets import Target


class Library:
    """Functions by their names, each of which takes what it declares and nothing else."""

    def __init__(self, funcs: Iterable[tirx.PrimFunc], target: Target) -> None:
        named = {str(func.attrs["global_symbol"]): func for func in funcs}
        self.parameters = {name: func.params for name, func in named.items()}
        module = tvm.IRModule({name: expand_math(func) for name, func in named.items()})
        with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
            self.code = tvm.compile(module, target=target.tvm())

    def __getitem__(self, name: str) -> Callable[..., None]:
        function, parameters = self.code[name], self.parameters[name]

        def run(*arguments: Any) -> None:
            check(parameters, arguments)
            function(*arguments)

        return run


def check(parameters: Sequence[tirx.Var], arguments: Sequence[Any]) -> None:
    """Hold arrays against the types and shapes of buffers; a symbol is one number in all of them."""
    symbols: dict[str, int] = {}
    for buffer, array in zip(parameters, arguments, strict=True):
        assert str(array.dtype) == str(buffer.dtype), f"{buffer} is {array.dtype}, not {buffer.dtype}"
        assert len(array.shape) == len(buffer.shape), f"{buffer} has the shape {array.shape}, not {buffer.shape}"
        for extent, dim in zip(array.shape, buffer.shape, strict=True):
            wanted = symbols.setdefault(dim.name, extent) if isinstance(dim, tirx.Var) else int(dim)
            assert extent == wanted, f"{buffer} has the shape {array.shape}, not {buffer.shape}"
