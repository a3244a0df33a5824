"""What a compiled model is made of, as data: its tensors, where they are stored, and the kernels to run in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparsec.errors import ArtifactError
from sparsec.runtime.dims import Dim, Range, bounds, evaluate, free_symbols
from sparsec.targets import Target

if TYPE_CHECKING:
    import tvm

ALIGNMENT = 64
"""Bytes to which every tensor is aligned: one cache line, one AVX-512 vector."""


@dataclass(frozen=True)
class Symbol:
    """A dimension that is known only when the model runs, within bounds (both included)."""

    name: str
    lower: int
    upper: int


@dataclass(frozen=True)
class Storage:
    """Memory that a tensor lies in.

    Parameters
    ----------
    kind : {"input", "output", "constant", "code", "arena"}
    index : int
        Which input, output, constant or code.
    offset : int
        Bytes from the start of the arena.
    """

    kind: Literal["input", "output", "constant", "code", "arena"]
    index: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; several tensors may name the same one with different shapes."""

    name: str
    shape: tuple[Dim, ...]
    dtype: str
    storage: Storage

    def nbytes(self, symbols: dict[str, int]) -> int:
        """Bytes that the tensor takes for these values of the symbols."""
        return prod(evaluate(dim, symbols) for dim in self.shape) * np.dtype(self.dtype).itemsize

    def max_nbytes(self, symbols: Mapping[str, Range]) -> int:
        """Bytes that the tensor never exceeds within these ranges of the symbols."""
        return max_elements(self.shape, symbols) * np.dtype(self.dtype).itemsize


def max_elements(shape: Sequence[Dim], symbols: Mapping[str, Range]) -> int:
    """How many elements a shape never exceeds within these ranges of the symbols.

    The largest shape need not be at an upper bound of a symbol: ``n * (8 - n)`` is largest in the middle.
    """
    return prod(max(0, bounds(dim, symbols)[1]) for dim in shape)


@dataclass(frozen=True)
class Step:
    """One call: a kernel of the module and its tensors.

    Parameters
    ----------
    kernel : a global symbol of the module
    args : indices into the plan's tensors, in parameter order
    label : the layer, for profiles
    flops : useful operations of a run, a multiply-add on an entry that pruning left being two; 0 where the step is no
        product
    instruction : what carries them out, by name, as ``"fma.8"``; empty where plain loops do
    """

    kernel: str
    args: tuple[int, ...]
    label: str
    flops: Dim = 0
    instruction: str = ""


@dataclass
class Plan:
    """A model that is ready to be compiled.

    Parameters
    ----------
    inputs, outputs : list of int
        Indices into `tensors`; input `i` has the storage ``Storage("input", i)``.
    constants : list of np.ndarray
        What the ``"constant"`` storages hold.
    code : list of np.ndarray
        Machine code that kernels call, uint8 [bytes], which the ``"code"`` storages hold.
    slices : int
        How often a run calls all steps, each time for the next part of the first axis of every input and output;
        `tensors` have the shapes of one part.
    arena_bytes : int
        Memory for intermediate tensors, enough for all values of the symbols.
    module : tvm.IRModule
        The kernels, as scheduled PrimFuncs named by their global symbols.
    manifest : dict
        JSON values that the artifact carries along, such as layouts and versions.
    """

    tensors: list[Tensor]
    inputs: list[int]
    outputs: list[int]
    steps: list[Step]
    constants: list[np.ndarray]
    arena_bytes: int
    module: tvm.IRModule
    target: Target
    symbols: list[Symbol] = field(default_factory=list)
    slices: int = 1
    code: list[np.ndarray] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)

    def port(self, index: int) -> Tensor:
        """The whole of an input or output, of which a tensor is one slice."""
        tensor = self.tensors[index]
        if self.slices == 1:
            return tensor
        rows, *others = tensor.shape
        assert isinstance(rows, int)
        return replace(tensor, shape=(self.slices * rows, *others))

    @property
    def streamed(self) -> set[int]:
        """The constants of steps that multiply, mostly read whole; of others, as of tables, it may be a few rows."""
        read = {arg for step in self.steps if step.flops != 0 for arg in step.args}
        return {s.index for s in (self.tensors[arg].storage for arg in read) if s.kind == "constant"}

    @property
    def lower(self) -> dict[str, int]:
        """The smallest value of each symbol."""
        return {symbol.name: symbol.lower for symbol in self.symbols}

    @property
    def upper(self) -> dict[str, int]:
        """The largest value of each symbol."""
        return {symbol.name: symbol.upper for symbol in self.symbols}

    @property
    def ranges(self) -> dict[str, Range]:
        """The smallest and the largest value of each symbol."""
        return {symbol.name: (symbol.lower, symbol.upper) for symbol in self.symbols}

    def validate(self) -> None:
        """Check that indices, bounds, sizes and names fit together.

        Raises
        ------
        ArtifactError
            Naming the first thing that does not.
        """
        for problem in self._problems():
            raise ArtifactError(f"the plan is inconsistent: {problem}")

    def _problems(self) -> Iterator[str]:
        for symbol in self.symbols:
            if not symbol.name.isidentifier() or not 0 < symbol.lower <= symbol.upper:
                yield f"symbol {symbol.name!r} has bounds {symbol.lower} to {symbol.upper}"
        yield from self._interface_problems()
        yield from self._slice_problems()
        for tensor in self.tensors:
            yield from self._tensor_problems(tensor)
        for step in self.steps:
            if not f"_{step.kernel}".isidentifier() or not step.kernel.isascii():
                yield f"kernel {step.kernel!r} of step {step.label!r} is not a C identifier"
            if bad := [arg for arg in step.args if not 0 <= arg < len(self.tensors)]:
                yield f"step {step.label!r} names tensor {bad[0]} of {len(self.tensors)}"
            if unknown := free_symbols(step.flops) - self.upper.keys():
                yield f"step {step.label!r} has the unknown symbol {min(unknown)!r} in its operations"

    def _interface_problems(self) -> Iterator[str]:
        for kind, indices in (("input", self.inputs), ("output", self.outputs)):
            for position, index in enumerate(indices):
                if not 0 <= index < len(self.tensors):
                    yield f"{kind} {position} names tensor {index} of {len(self.tensors)}"
                elif self.tensors[index].storage != Storage(kind, position):  # type: ignore[arg-type]
                    yield f"{kind} {position} ({self.tensors[index].name}) is stored in {self.tensors[index].storage}"
            names = [self.tensors[index].name for index in indices]
            if repeated := {name for name in names if names.count(name) > 1}:
                yield f"two {kind}s have the name {min(repeated)!r}"
        dims = {dim for index in self.inputs for dim in self.tensors[index].shape}
        if unbound := [symbol.name for symbol in self.symbols if symbol.name not in dims]:
            yield f"symbol {unbound[0]!r} is not a dimension of any input"

    def _slice_problems(self) -> Iterator[str]:
        if self.slices < 1:
            yield f"it has {self.slices} slices"
        if self.slices > 1 and self.symbols:
            yield f"it has {self.slices} slices and the symbol {self.symbols[0].name!r}"
        for index in (*self.inputs, *self.outputs):
            if self.slices > 1 and not self.tensors[index].shape:
                yield f"{self.tensors[index].name!r} has no axis for {self.slices} slices"

    def _tensor_problems(self, tensor: Tensor) -> Iterator[str]:
        try:
            used = set().union(*(free_symbols(dim) for dim in tensor.shape))
        except ArtifactError as error:
            yield f"tensor {tensor.name!r}: {error}"
            return
        if unknown := used - self.upper.keys():
            yield f"tensor {tensor.name!r} has the unknown symbol {min(unknown)!r} in its shape"
            return
        if problem := self._storage_problem(tensor):
            yield f"tensor {tensor.name!r} {problem}"

    def _storage_problem(self, tensor: Tensor) -> str | None:
        """Why a tensor does not lie in its storage, if so."""
        storage, need = tensor.storage, tensor.max_nbytes(self.ranges)
        if storage.kind == "arena":
            if storage.offset % ALIGNMENT or storage.offset < 0:
                return f"lies at byte {storage.offset}, which is not a multiple of {ALIGNMENT}"
            end = storage.offset + need
            return f"ends at byte {end} of {self.arena_bytes} in the arena" if end > self.arena_bytes else None
        stored = {"input": len(self.inputs), "output": len(self.outputs), "constant": len(self.constants)}
        stored["code"] = len(self.code)
        if not 0 <= storage.index < stored[storage.kind]:
            return f"names {storage.kind} {storage.index} of {stored[storage.kind]}"
        if storage.kind in ("constant", "code"):
            array = (self.constants if storage.kind == "constant" else self.code)[storage.index]
            if array.dtype not in (tensor.dtype, np.uint8):  # packed layouts mix types, as bytes
                return f"is {tensor.dtype}, but {storage.kind} {storage.index} is {array.dtype}"
            too_small = need > array.nbytes
            has = f"{storage.kind} {storage.index}, which has {array.nbytes}"
            return f"needs {need} bytes of {has}" if too_small else None
        owner = self.tensors[(self.inputs if storage.kind == "input" else self.outputs)[storage.index]]
        # At the same values of the symbols: two ways to write one size may have different bounds.
        too_small = any(tensor.nbytes(symbols) > owner.nbytes(symbols) for symbols in (self.lower, self.upper))
        return f"is larger than the {storage.kind} {owner.name!r} that it lies in" if too_small else None
