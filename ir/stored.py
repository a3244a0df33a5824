"""What the operands of a kernel take in memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from sparsec.ir.gather import Gather, expressions, find_gather
from sparsec.ir.kernel import Buffer, Kernel, Stored, walk_expressions
from sparsec.ir.nibbles import nibble_bytes
from sparsec.ir.spelled_nest import code_packings, spelled_nests

MIN_INDEX_BITS = 16  # narrower loads cost as much, and 8-bit ones would need a kernel for each


def array_types(kernel: Kernel, buffer: Buffer, gather: Gather | None) -> dict[str, np.dtype]:
    """Return the type of each array that a kernel takes in place of a packed operand, by name and in order.

    Coordinates that became offsets have the type of these, and the values are left out where only the pattern is read.
    """
    assert buffer.layout is not None
    types = dict(buffer.layout.index_types(buffer.extents, MIN_INDEX_BITS))
    if gather:
        types |= dict.fromkeys(gather.arrays, gather.table.dtype)
    if any(Stored(buffer.name) in walk_expressions(value) for value in expressions(kernel.body)):
        types["data"] = np.dtype("uint8" if buffer.dtype == "int4" else buffer.dtype)
    return types


def greatest_indices(buffer: Buffer) -> dict[str, int]:
    """Return the greatest index that leads into a buffer, and that each of its index arrays could hold, by array.

    Words of bits are no indices. Of symbolic dimensions no more is known than that they are at least 1.
    """
    extents = buffer.extents
    if buffer.layout is None:
        return {"": prod(extents) - 1}
    words = {f"level{depth}.{name}" for depth, (_, level) in enumerate(buffer.layout.levels) for name in level.words}
    limits = buffer.layout.index_limits(extents) | {"data": buffer.layout.axes(extents)[-1].positions - 1}
    return {name: limit for name, limit in limits.items() if name not in words}


def stored_bytes(kernel: Kernel, masks: Mapping[str, np.ndarray]) -> int:
    """Return how many bytes the arrays in place of some packed operands take, without storing values.

    Parameters
    ----------
    masks : bool, of the shape of each operand, by its name: where it has entries

    Raises
    ------
    LayoutError : if a layout cannot hold these entries
    """
    total, codes = 0, code_packings(list(spelled_nests(kernel)))
    for name, mask in masks.items():
        buffer = kernel.buffers[name]
        assert buffer.layout is not None, f"{name} is dense"
        if name in codes:
            arrays = codes[name].pack(dict(buffer.layout.pack(mask.astype(buffer.dtype)).arrays))
            total += sum(array.nbytes for array in arrays.values())
            continue
        lengths = buffer.layout.lengths(mask)
        if buffer.dtype == "int4":
            lengths["data"] = nibble_bytes(lengths["data"])
        types = array_types(kernel, buffer, find_gather(kernel, name))
        total += sum(lengths[array] * dtype.itemsize for array, dtype in types.items())
    return total


def dense_bytes(count: int, dtype: str) -> int:
    """Return how many bytes so many values take, none left out."""
    return nibble_bytes(count) if dtype == "int4" else count * np.dtype(dtype).itemsize
