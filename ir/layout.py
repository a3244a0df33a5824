"""Layouts: how a tensor is stored, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from sparsec.errors import LayoutError
from sparsec.ir.levels import Axis, Dense, Index, Level, Load
from sparsec.ir.orders import Order
from sparsec.ir.packed import Packed
from sparsec.ir.packing import Blocks, Misfit, assemble, tile, untile


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

    >>> from sparsec.ir.named import CSR
    >>> packed = CSR.pack(np.array([[0, 5, 0], [7, 0, 8]], dtype=np.int8))
    >>> {name: array.tolist() for name, array in packed.arrays.items()}
    {'level1.indptr': [0, 1, 3], 'level1.indices': [1, 0, 2], 'data': [5, 7, 8]}

    Parameters
    ----------
    dims : names of the logical dimensions
    levels : (digit, level) pairs, outermost first
    orders : (dim, order) pairs: the dims whose coordinates are permuted before they are cut into digits
    name : by which a user gave it, if so: any layout of that kind may then stand in its place

    Raises
    ------
    LayoutError : if the digits do not cover each dim exactly, or a level cannot stand beside its neighbours
    """

    dims: tuple[str, ...]
    levels: tuple[tuple[Digit, Level], ...]
    orders: tuple[tuple[str, Order], ...] = ()
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.dims or len(set(self.dims)) != len(self.dims):
            raise LayoutError(f"The layout {self} must name each logical dimension once; rename the repeated ones.")
        unknown = {digit.dim for digit, _ in self.levels}.union(dim for dim, _ in self.orders).difference(self.dims)
        if unknown:
            raise LayoutError(f"The layout {self} uses {min(unknown)}, which is not among its dimensions; declare it.")
        for dim in self.dims:
            self._check_digits(dim)
        normal = tuple((digit, level.over(digit.size)) for digit, level in self.levels)
        object.__setattr__(self, "levels", normal)
        for depth, (digit, level) in enumerate(self.levels):
            above = self.levels[depth - 1][1] if depth else None
            if level.shares_positions and depth > 1 and self.levels[depth - 2][1].shares_lanes:
                above = self.levels[depth - 2][1]
            below = self.levels[depth + 1][1] if depth + 1 < len(self.levels) else None
            if objection := level.objection(above, below):
                raise LayoutError(f"In the layout {self}, level {depth} ({digit} : {level}) {objection}.")
        self._check_lanes()
        self._check_sizes([digit.size for digit, _ in self.levels])
        for depth, (digit, level) in enumerate(self.levels):
            if level.together > 1 and depth != self.leaf - 1:
                raise LayoutError(
                    f"In the layout {self}, level {depth} ({digit} : {level}) must be the last one that is not dense, "
                    "so that the values of a run are stored side by side."
                )

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
        digits = self.digits(dim)
        divisors = [digit.divisor for digit in digits]
        expected = [digit.divisor * (digit.size or 0) for digit in digits[1:]] + [1]
        if divisors != expected or digits[0].size is not None or any(digit.size == 1 for digit in digits):
            raise LayoutError(
                f"The levels of the layout {self} must hold every coordinate of {dim} exactly once; write {dim}, or "
                f"a pair such as {dim} floordiv 4 and {dim} mod 4."
            )

    def _check_lanes(self) -> None:
        """Raise unless what shares lanes is followed by levels that tell them apart, or by dense ones."""
        kinds = [level for _, level in self.levels]
        first = next((depth for depth, level in enumerate(kinds) if level.shares_lanes), len(kinds))
        for depth, level in enumerate(kinds[first + 1 :], first + 1):
            if not (isinstance(level, Dense) or level.shares_positions):
                raise LayoutError(
                    f"In the layout {self}, level {depth} ({self.levels[depth][0]} : {level}) is below {kinds[first]}, "
                    "under which there can only be dense and singleton levels."
                )

    def _check_sizes(self, sizes: Sequence[int | None], where: str = "") -> None:
        """Raise if a level cannot hold a digit of its size."""
        for depth, ((digit, level), size) in enumerate(zip(self.levels, sizes, strict=True)):
            if misfit := level.misfit(size, sizes[depth - 1] if depth else None):
                raise LayoutError(f"In the layout {self}, level {depth} ({digit} : {level}) {misfit}{where}.")

    # -- what is known from the shape alone ----------------------------------------------------------------------

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the extent of each level's coordinate for a tensor of `shape`; dims are padded to full blocks."""
        if len(shape) != len(self.dims):
            raise LayoutError(f"The layout {self} cannot hold shape {tuple(shape)}; it has {len(self.dims)} dims.")
        if min(shape) < 1:
            raise LayoutError(f"The layout {self} cannot hold shape {tuple(shape)}, which has no elements; drop it.")
        extents = dict(zip(self.dims, shape, strict=True))
        sizes = tuple(digit.size or -(-extents[digit.dim] // digit.divisor) for digit, _ in self.levels)
        self._check_sizes(sizes, f" in shape {tuple(shape)}")
        return sizes

    def padded(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return `shape` with every dim padded to full blocks."""
        extents = dict.fromkeys(self.dims, 1)
        for (digit, _), size in zip(self.levels, self.sizes(shape), strict=True):
            extents[digit.dim] *= size
        return tuple(extents.values())

    @property
    def leaf(self) -> int:
        """How many levels there are above the dense block that ends the layout."""
        depth = len(self.levels)
        while depth and isinstance(self.levels[depth - 1][1], Dense):
            depth -= 1
        return depth

    @property
    def is_dense(self) -> bool:
        """Whether every element is stored, zeros too."""
        return self.leaf == 0

    @property
    def together(self) -> int:
        """How many coordinates of the last level that is not dense make up a run, whose values stand side by side."""
        return self.levels[self.leaf - 1][1].together if self.leaf else 1

    def slot(self, position: Index, lane: Index | None) -> Index:
        """Return where the value of a position is stored; of a run, whose values stand by turns, that of one lane."""
        return position if lane is None else position * self.together + lane

    def axes(self, shape: Sequence[int]) -> tuple[Axis, ...]:
        """Return what each level knows of its place for a tensor of `shape`."""
        sizes = self.sizes(shape)
        return tuple(
            Axis(
                size=size,
                parents=prod(sizes[:depth]),
                positions=prod(sizes[: self.reach(depth)]) // self._lanes(depth, sizes),
                child=prod(sizes[depth + 1 : self.reach(depth + 1)]),
                above=self.levels[depth - 1][1] if depth else None,
                below=self.levels[depth + 1][1] if depth + 1 < len(sizes) else None,
            )
            for depth, size in enumerate(sizes)
        )

    def reach(self, depth: int) -> int:
        """Return the depth below level `depth` and the singletons that share its positions."""
        shares_lanes = depth < len(self.levels) and self.levels[depth][1].shares_lanes
        depth += 2 if shares_lanes else 1
        while depth < len(self.levels) and self.levels[depth][1].shares_positions:
            depth += 1
        return depth

    def _lanes(self, depth: int, sizes: Sequence[int]) -> int:
        """Return how many fibers of the next level share each position of this one."""
        return sizes[depth + 1] if self.levels[depth][1].shares_lanes else 1

    def index_types(self, shape: Sequence[int], min_index_bits: int = 8) -> dict[str, np.dtype]:
        """Return the element type of every index array of a tensor of `shape`, whatever its zeros.

        It is the narrowest of uint8, uint16, uint32 and uint64 that has `min_index_bits` and holds every value that
        the array could ever hold, so that all weights of one shape share one kernel.
        """
        return {name: _index_type(limit, min_index_bits) for name, limit in self.index_limits(shape).items()}

    def index_limits(self, shape: Sequence[int]) -> dict[str, int]:
        """Return the largest value that every index array of a tensor of `shape` could hold, whatever its zeros."""
        padded = dict(zip(self.dims, self.padded(shape), strict=True))
        limits = {f"{dim}.order": padded[dim] - 1 for dim, _ in self.orders}
        for depth, ((_, level), axis) in enumerate(zip(self.levels, self.axes(shape), strict=True)):
            limits |= {f"level{depth}.{name}": limit for name, limit in level.arrays(axis).items()}
        return limits

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
        min_index_bits : the narrowest index arrays to use

        Raises
        ------
        LayoutError : if the layout cannot hold a tensor of this shape, or with these entries (`refusal`)
        """
        array = np.asarray(array)
        types = self.index_types(array.shape, min_index_bits)
        tiled, orders = tile(self, array)
        blocks = self._assemble(tiled != 0, orders, array.shape)
        inner = prod(tiled.shape[self.leaf :])
        data = np.zeros((blocks.positions, inner), dtype=array.dtype)
        data[blocks.position] = tiled.reshape(-1, inner)[blocks.place]
        data[data == 0] = 0
        indices = orders | blocks.arrays
        beside = data.reshape(-1, self.together, inner).swapaxes(1, 2)
        arrays = {name: indices[name].astype(dtype) for name, dtype in types.items()} | {"data": beside.ravel()}
        return Packed(self, array.shape, arrays)

    def lengths(self, mask: np.ndarray) -> dict[str, int]:
        """Return how many elements each array of a tensor with entries where `mask` is not zero has, by name.

        Raises
        ------
        LayoutError : as `pack`
        """
        mask = _entries(mask)
        tiled, orders = tile(self, mask)
        blocks = self._assemble(tiled, orders, mask.shape)
        indices = {name: array.size for name, array in (orders | blocks.arrays).items()}
        return indices | {"data": blocks.positions * prod(tiled.shape[self.leaf :])}

    def nbytes(self, mask: np.ndarray, dtype: np.dtype | type, min_index_bits: int = 8) -> int:
        """Return how many bytes a tensor with entries where `mask` is not zero takes, without storing values.

        Raises
        ------
        LayoutError : as `pack`
        """
        types = self.index_types(np.shape(mask), min_index_bits) | {"data": np.dtype(dtype)}
        return sum(length * types[name].itemsize for name, length in self.lengths(mask).items())

    def holds(self, mask: np.ndarray) -> np.ndarray:
        """Return which of the entries of `mask` this layout can hold together, bool, of the shape of `mask`.

        >>> from sparsec.ir.notation import parse_layout
        >>> two_of_four = parse_layout("(k) -> (k floordiv 4 : dense, k mod 4 : structured[2])")
        >>> two_of_four.holds(np.array([1, 0, 1, 1, 0, 0, 0, 1])).astype(int).tolist()
        [1, 0, 1, 0, 0, 0, 0, 1]

        Raises
        ------
        LayoutError : if the layout cannot hold this shape
        """
        held = _entries(mask)
        while True:  # orders follow the entries, so fewer may stand in another order
            tiled, orders = tile(self, held)
            blocks = assemble(self, tiled, held.shape)
            if blocks.misfit is None:
                return held
            kept = np.zeros(prod(tiled.shape[: self.leaf]), dtype=bool)
            kept[blocks.place] = True
            tiled &= kept.reshape(tiled.shape[: self.leaf] + (1,) * (tiled.ndim - self.leaf))
            held = untile(self, tiled, held.shape, orders)

    def refusal(self, mask: np.ndarray) -> str | None:
        """Say why the layout cannot hold entries where `mask` is not zero, or return None if it can.

        >>> from sparsec.ir.notation import parse_layout
        >>> two_of_four = parse_layout("(i, k) -> (i : dense, k floordiv 4 : dense, k mod 4 : structured[2])")
        >>> two_of_four.refusal(np.array([[1, 0, 1, 1, 0, 0, 0, 1]]))
        'structured[2, 4] holds 2 in each fiber, and at i 0 there are 3, at k 0, 2, 3'
        """
        mask = _entries(mask)
        try:
            tiled, orders = tile(self, mask)
        except LayoutError as error:
            return str(error).removesuffix(".")
        misfit = assemble(self, tiled, mask.shape).misfit
        return self._refusal(misfit, orders, mask.shape) if misfit else None

    def _assemble(self, tiled: np.ndarray, orders: Mapping[str, np.ndarray], shape: Sequence[int]) -> Blocks:
        """Store the entries of a tiled mask, or raise."""
        blocks = assemble(self, tiled, shape)
        if blocks.misfit:
            refusal = self._refusal(blocks.misfit, orders, shape)
            raise LayoutError(f"The layout {self} cannot hold this tensor: {refusal}; prune it, or choose another.")
        return blocks

    def _refusal(self, misfit: Misfit, orders: Mapping[str, np.ndarray], shape: Sequence[int]) -> str:
        """Describe the entries of a fiber that are too many for its level."""
        sizes = self.sizes(shape)
        levels = np.unravel_index(misfit.place, sizes[: self.leaf])
        inside = np.zeros_like(misfit.place)
        logical = self.logical([*levels, *[inside] * (len(sizes) - self.leaf)], lambda name, at: orders[name][at])
        shared = [f"{dim} {c[0]}" for dim, c in zip(self.dims, logical, strict=True) if np.all(c == c[0])]
        differ = [f"{dim} {_listed(c)}" for dim, c in zip(self.dims, logical, strict=True) if np.any(c != c[0])]
        level = self.levels[misfit.depth][1]
        there = [f" at {', '.join(shared)}"] if shared else []
        there += [f" there are {len(misfit.place)}, at {' and '.join(differ)}" if differ else " there is one more"]
        return f"{level} {level.limit}, and{''.join(there)}"


def _entries(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    return mask if mask.dtype == bool else mask != 0


def _listed(coordinates: np.ndarray, most: int = 8) -> str:
    """Return numbers as words, the first few of many."""
    return ", ".join(map(str, coordinates[:most])) + (", …" if len(coordinates) > most else "")


def _index_type(limit: int, min_bits: int) -> np.dtype:
    fitting = (bits for bits in (8, 16, 32) if bits >= min_bits and limit < 2**bits)
    return np.dtype(f"uint{next(fitting, 64)}")
