"""Layouts: how a tensor is stored, as data, and tensors stored that way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from math import prod
from types import MappingProxyType

import numpy as np

from sparsec.errors import LayoutError
from sparsec.ir.levels import ROOT, Axis, Balance, Cursor, Dense, Entries, Index, Level, Load, Singleton


@dataclass(frozen=True)
class Digit:
    """One digit of a logical coordinate, `dim floordiv divisor mod size`; the leading digit of a dim has no size."""

    dim: str
    divisor: int = 1
    size: int | None = None

    def __str__(self) -> str:
        divided = f" floordiv {self.divisor}" if self.divisor != 1 else ""
        return self.dim + divided + (f" mod {self.size}" if self.size is not None else "")

    def divided(self, number: int) -> Digit | None:
        """Return this `floordiv number`, or None where that is not a digit."""
        if self.size is None:
            return Digit(self.dim, self.divisor * number)
        return Digit(self.dim, self.divisor * number, self.size // number) if self.size % number == 0 else None

    def modulo(self, number: int) -> Digit | None:
        """Return this `mod number`, or None where that is not a digit."""
        return Digit(self.dim, self.divisor, number) if (self.size or number) % number == 0 else None


@dataclass(frozen=True)
class Layout:
    """A map from logical coordinates to levels, in storage order.

    Each logical dimension is written as a number in mixed radix, and each of its digits is the coordinate of one level.

    >>> from sparsec.ir.notation import parse_layout
    >>> csr = parse_layout("(i, k) -> (i : dense, k : compressed)")
    >>> packed = csr.pack(np.array([[0, 5, 0], [7, 0, 8]], dtype=np.int8))
    >>> {name: array.tolist() for name, array in packed.arrays.items()}
    {'level1.indptr': [0, 1, 3], 'level1.indices': [1, 0, 2], 'data': [5, 7, 8]}

    Parameters
    ----------
    dims : names of the logical dimensions
    levels : (digit, level) pairs, outermost first
    orders : (dim, order) pairs: the dims whose coordinates are permuted before they are cut into digits

    Raises
    ------
    LayoutError : if the digits do not cover each dim exactly, or a level cannot stand beside its neighbours
    """

    dims: tuple[str, ...]
    levels: tuple[tuple[Digit, Level], ...]
    orders: tuple[tuple[str, Balance], ...] = ()

    def __post_init__(self) -> None:
        if not self.dims or len(set(self.dims)) != len(self.dims):
            raise LayoutError(f"The layout {self} must name each logical dimension once; rename the repeated ones.")
        unknown = {digit.dim for digit, _ in self.levels}.union(dim for dim, _ in self.orders).difference(self.dims)
        if unknown:
            raise LayoutError(f"The layout {self} uses {min(unknown)}, which is not among its dimensions; declare it.")
        for dim in self.dims:
            self._check_digits(dim)
        for depth, (digit, level) in enumerate(self.levels):
            above = self.levels[depth - 1][1] if depth else None
            below = self.levels[depth + 1][1] if depth + 1 < len(self.levels) else None
            if objection := level.objection(above, below):
                raise LayoutError(f"In the layout {self}, level {depth} ({digit} : {level}) {objection}.")

    def __str__(self) -> str:
        orders = dict(self.orders)
        dims = (f"{dim} : {orders[dim]}" if dim in orders else dim for dim in self.dims)
        levels = (f"{digit} : {level}" for digit, level in self.levels)
        return f"({', '.join(dims)}) -> ({', '.join(levels)})"

    def digits(self, dim: str) -> list[Digit]:
        """Return the digits of `dim`, the leading one first."""
        return sorted((digit for digit, _ in self.levels if digit.dim == dim), key=lambda digit: -digit.divisor)

    def _check_digits(self, dim: str) -> None:
        """Raise unless the digits of `dim` are a mixed radix: 1, a, a·b, … with a leading digit without bound."""
        expected: int | None = 1
        for digit in reversed(self.digits(dim)):
            if digit.divisor != expected:
                break
            expected = None if digit.size is None else digit.divisor * digit.size
        else:
            if expected is None:
                return
        raise LayoutError(
            f"The levels of the layout {self} must hold every coordinate of {dim} exactly once; write {dim}, or "
            f"a pair such as {dim} floordiv 4 and {dim} mod 4."
        )

    # -- what is known from the shape alone ----------------------------------------------------------------------

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the extent of each level's coordinate for a tensor of `shape`; dims are padded to full blocks."""
        if len(shape) != len(self.dims):
            raise LayoutError(f"The layout {self} has {len(self.dims)} dimensions and cannot hold shape {tuple(shape)}.")
        if min(shape) < 1:
            raise LayoutError(f"The layout {self} cannot hold shape {tuple(shape)}, which has no elements; drop it.")
        extents = dict(zip(self.dims, shape, strict=True))
        return tuple(digit.size or -(-extents[digit.dim] // digit.divisor) for digit, _ in self.levels)

    def axes(self, shape: Sequence[int]) -> tuple[Axis, ...]:
        """Return what each level knows of its place for a tensor of `shape`."""
        sizes = self.sizes(shape)
        levels = [level for _, level in self.levels]
        axes = []
        for depth, size in enumerate(sizes):
            child = 1
            for below in range(depth + 1, len(levels)):
                if below > depth + 1 and not isinstance(levels[below], Singleton):
                    break
                child *= sizes[below]
            bounded = depth > 0 and levels[depth - 1].gives_fibers
            axes.append(Axis(size, prod(sizes[:depth]), child, bounded))
        return tuple(axes)

    def index_types(self, shape: Sequence[int], min_index_bits: int = 8) -> dict[str, np.dtype]:
        """Return the element type of every index array of a tensor of `shape`, whatever its zeros.

        It is the narrowest of uint8, uint16, uint32 and uint64 that has `min_index_bits` and holds every value that
        the array could ever hold, so that all weights of one shape share one kernel.
        """
        limits: dict[str, int] = {}
        padded = self._padded(shape)
        for dim, _ in self.orders:
            limits[f"{dim}.order"] = padded[self.dims.index(dim)] - 1
        for depth, ((_, level), axis) in enumerate(zip(self.levels, self.axes(shape), strict=True)):
            limits |= {f"level{depth}.{name}": limit for name, limit in level.arrays(axis).items()}
        return {name: _index_type(limit, min_index_bits) for name, limit in limits.items()}

    def logical(self, coordinates: Sequence[Index], load: Load) -> tuple[Index, ...]:
        """Return the logical coordinates for the coordinates of all levels; `load` reads the order arrays.

        A coordinate at or past the extent of its dim is padding.
        """
        found: dict[str, Index] = {}
        for (digit, _), coordinate in zip(self.levels, coordinates, strict=True):
            part = coordinate * digit.divisor if digit.divisor != 1 else coordinate
            found[digit.dim] = found[digit.dim] + part if digit.dim in found else part
        for dim, _ in self.orders:
            found[dim] = load(f"{dim}.order", found[dim])
        return tuple(found[dim] for dim in self.dims)

    # -- storing a tensor ----------------------------------------------------------------------------------------

    def pack(self, array: np.ndarray, min_index_bits: int = 8) -> Packed:
        """Store a tensor in this layout.

        An entry is stored if it is not equal to zero, so NaN is stored and -0.0, which masking leaves behind, is a
        zero like any other. `unpack` returns every bit of `array`, but for -0.0, which becomes +0.0.

        Parameters
        ----------
        array : any shape with as many dimensions as the layout has, any number type
        min_index_bits : 8, 16, 32 or 64, the narrowest index arrays to use
        """
        array = np.asarray(array)
        orders = self._orders(array)
        tiled = self._tile(array, orders)
        blocks, position, positions, indices = self._assemble(tiled != 0, array.shape, orders)
        inner = prod(tiled.shape[self.leaf :])
        data = np.zeros((positions, inner), dtype=array.dtype)
        data[position] = tiled.reshape(-1, inner)[blocks]
        data[data == 0] = 0
        types = self.index_types(array.shape, min_index_bits)
        arrays = {name: indices[name].astype(dtype) for name, dtype in types.items()} | {"data": data.ravel()}
        return Packed(self, array.shape, MappingProxyType(arrays))

    def nbytes(self, mask: np.ndarray, dtype: np.dtype | type, min_index_bits: int = 8) -> int:
        """Return how many bytes a tensor with entries where `mask` is not zero takes, without storing it."""
        mask = np.asarray(mask) != 0
        orders = self._orders(mask)
        tiled = self._tile(mask, orders)
        _, _, positions, indices = self._assemble(tiled, mask.shape, orders)
        inner = prod(tiled.shape[self.leaf :])
        types = self.index_types(mask.shape, min_index_bits)
        index_bytes = sum(indices[name].size * dtype.itemsize for name, dtype in types.items())
        return index_bytes + positions * inner * np.dtype(dtype).itemsize

    @property
    def leaf(self) -> int:
        """How many levels there are above the dense block that ends the layout."""
        depth = len(self.levels)
        while depth and isinstance(self.levels[depth - 1][1], Dense):
            depth -= 1
        return depth

    def _padded(self, shape: Sequence[int]) -> tuple[int, ...]:
        sizes = self.sizes(shape)
        return tuple(
            prod(size for size, (digit, _) in zip(sizes, self.levels, strict=True) if digit.dim == dim)
            for dim in self.dims
        )

    def _orders(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Return the order of each permuted dim; padding stays at the end, where it is its own coordinate."""
        orders = {}
        padded = self._padded(array.shape)
        for dim, order in self.orders:
            axis = self.dims.index(dim)
            weights = np.count_nonzero(array, axis=tuple(other for other in range(array.ndim) if other != axis))
            orders[dim] = np.concatenate((order.order(weights), np.arange(array.shape[axis], padded[axis])))
        return orders

    def _tile(self, array: np.ndarray, orders: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return `array` padded, permuted and transposed to [size of level 0, size of level 1, …]."""
        padded = self._padded(array.shape)
        if padded != array.shape:
            array = np.pad(array, [(0, wide - extent) for wide, extent in zip(padded, array.shape, strict=True)])
        for dim, order in orders.items():
            array = array.take(order, axis=self.dims.index(dim))
        split, storage = self._transposition(array.shape)
        return np.ascontiguousarray(array.reshape(split).transpose(storage))

    def untile(self, tiled: np.ndarray, shape: Sequence[int], orders: Mapping[str, np.ndarray]) -> np.ndarray:
        """Undo `_tile`."""
        _, storage = self._transposition(shape)
        array = tiled.transpose(np.argsort(storage)).reshape(self._padded(shape))
        for dim, order in orders.items():
            array = array.take(np.argsort(order), axis=self.dims.index(dim))
        return np.ascontiguousarray(array[tuple(slice(extent) for extent in shape)])

    def _transposition(self, shape: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the extents of all digits in logical order, and for each level which of them it holds."""
        sizes = dict(zip((digit for digit, _ in self.levels), self.sizes(shape), strict=True))
        logical = [digit for dim in self.dims for digit in self.digits(dim)]
        return [sizes[digit] for digit in logical], [logical.index(digit) for digit, _ in self.levels]

    def _assemble(
        self, mask: np.ndarray, shape: Sequence[int], orders: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, int, dict[str, np.ndarray]]:
        """Build the index arrays for a tiled mask.

        Returns the stored blocks (as places in the mask, a block being what the last dense levels span), the position
        of each, the number of positions, and the arrays by name. No value is looked at, and no step is per entry.
        """
        leaf = self.leaf
        sizes = mask.shape[:leaf]
        inner = prod(mask.shape[leaf:])
        occupied = mask.reshape(-1, inner).any(axis=1) if inner > 1 else mask.ravel()
        blocks = np.flatnonzero(occupied) if leaf else np.zeros(1, dtype=np.int64)
        position, positions = np.zeros(len(blocks), dtype=np.int64), 1
        arrays = {f"{dim}.order": order for dim, order in orders.items()}

        opens = _opens(blocks // prod(sizes[1:]))
        axes = self.axes(shape)
        for depth, (_, level) in enumerate(self.levels[:leaf]):
            coordinate = blocks // prod(sizes[depth + 1 :]) % sizes[depth]
            opens_below = _opens(blocks // prod(sizes[depth + 2 :]))
            stored = level.pack(axes[depth], Entries(positions, position, coordinate, opens, opens_below))
            position, positions, opens = stored.position, stored.positions, opens_below
            arrays |= {f"level{depth}.{name}": array for name, array in stored.arrays.items()}
            if np.any(position[1:] < position[:-1]):
                order = np.argsort(position, kind="stable")
                blocks, position, opens = blocks[order], position[order], opens[order]
        return blocks, position, positions, arrays


@dataclass(frozen=True)
class Packed:
    """A tensor stored in a layout.

    Parameters
    ----------
    layout : how it is stored
    shape : the logical shape, without padding
    arrays : 1-D arrays by name: `level1.indptr` and the like, `i.order` for a permuted dim, and the values, `data`
    """

    layout: Layout
    shape: tuple[int, ...]
    arrays: Mapping[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """How many bytes the arrays take."""
        return sum(array.nbytes for array in self.arrays.values())

    def load(self, name: str, index: Index) -> Index:
        """Read elements of an index array as int64, in which positions cannot overflow."""
        return self.arrays[name][index].astype(np.int64)

    def children(self, depth: int, parent: Cursor = ROOT) -> Iterator[Cursor]:
        """Iterate over the fiber of level `depth` under `parent`, in the order of the generated loops.

        >>> from sparsec.ir.notation import parse_layout
        >>> csr = parse_layout("(i, k) -> (i : dense, k : compressed)").pack(np.array([[0, 5, 0], [7, 0, 8]]))
        >>> [(row.coordinate, entry.coordinate) for row in csr.children(0) for entry in csr.children(1, row)]
        [(0, 1), (1, 0), (1, 2)]
        """
        fiber = parent.fiber and (np.array([parent.fiber[0]]), np.array([parent.fiber[1]]))
        batch = Cursor(np.array([parent.position]), np.array([parent.coordinate]), fiber)
        _, found = self._descend(depth, batch)
        fibers = zip(*(part.tolist() for part in found.fiber), strict=True) if found.fiber else repeat(None)
        for position, coordinate, fiber in zip(found.position.tolist(), found.coordinate.tolist(), fibers):  # noqa: B905
            yield Cursor(position, coordinate, fiber)

    def entries(self) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Return the logical coordinates of all stored entries and their positions in `data`, in loop order.

        Zeros that a block stores are entries; padding is not.
        """
        coordinates, position = self._walk(len(self.layout.levels))
        logical = self.layout.logical(coordinates, self.load)
        inside = np.ones(len(position), dtype=bool)
        for coordinate, extent in zip(logical, self.shape, strict=True):
            inside &= coordinate < extent
        return tuple(coordinate[inside] for coordinate in logical), position[inside]

    def unpack(self) -> np.ndarray:
        """Return the tensor as it was before it was packed, with +0.0 for every zero."""
        sizes = self.layout.sizes(self.shape)
        leaf = self.layout.leaf
        coordinates, position = self._walk(leaf)
        inner = prod(sizes[leaf:])
        block = np.zeros(len(position), dtype=np.int64)
        for size, coordinate in zip(sizes, coordinates):  # noqa: B905 - the levels of the block have no coordinate
            block = block * size + coordinate
        data = self.arrays["data"].reshape(-1, inner)
        tiled = np.zeros((prod(sizes[:leaf]), inner), dtype=data.dtype)
        tiled[block] = data[position]
        orders = {dim: self.arrays[f"{dim}.order"] for dim, _ in self.layout.orders}
        return self.layout.untile(tiled.reshape(sizes), self.shape, orders)

    def _walk(self, depth: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the coordinates in levels 0 to `depth` - 1, and the position, of everything that the loops visit."""
        coordinates: list[np.ndarray] = []
        cursor = Cursor(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
        for level in range(depth):
            origin, cursor = self._descend(level, cursor)
            coordinates = [coordinate[origin] for coordinate in coordinates] + [cursor.coordinate]
        return coordinates, cursor.position

    def _descend(self, depth: int, parents: Cursor) -> tuple[np.ndarray, Cursor]:
        """Visit a level under a batch of parents; return which of them each cursor came from, and the cursors.

        A generator's variables cannot be repeated for each iteration of a loop, so each loop starts the visit again,
        with the parents and the outer indices repeated.
        """
        level, axis = self.layout.levels[depth][1], self._axes[depth]
        origin = np.arange(len(parents.position))
        indices: list[np.ndarray] = []
        while True:
            cursor = _take(parents, origin)
            visit = level.visit(axis, cursor, lambda name, index: self.load(f"level{depth}.{name}", index))
            try:
                loop = next(visit)
                for index in indices:
                    loop = visit.send(index)
            except StopIteration as end:
                return origin, end.value
            extent = np.broadcast_to(loop.extent, origin.shape)
            again = np.repeat(np.arange(len(origin)), extent)
            first = np.cumsum(extent) - extent
            origin = origin[again]
            indices = [index[again] for index in indices] + [np.arange(len(again)) - first[again]]

    @cached_property
    def _axes(self) -> tuple[Axis, ...]:
        return self.layout.axes(self.shape)


def _take(cursor: Cursor, origin: np.ndarray) -> Cursor:
    fiber = cursor.fiber and (cursor.fiber[0][origin], cursor.fiber[1][origin])
    return Cursor(cursor.position[origin], cursor.coordinate[origin], fiber)


def _opens(keys: np.ndarray) -> np.ndarray:
    """Mark where a run of equal keys starts."""
    opens = np.ones(len(keys), dtype=bool)
    opens[1:] = keys[1:] != keys[:-1]
    return opens


def _index_type(limit: int, min_bits: int) -> np.dtype:
    bits = max(min_bits, np.min_scalar_type(limit).itemsize * 8)
    return np.dtype(f"uint{bits}")
