"""Inputs for a compiled model: from files, and from a seed where none is given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsec.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sparsec.runtime.library import TensorInfo
    from sparsec.runtime.session import Session


def read_inputs(files: Sequence[tuple[str, Path]], infos: Sequence[TensorInfo]) -> dict[str, np.ndarray]:
    """Read one NumPy file for each name.

    Raises
    ------
    InputError
        A name is not an input or is given twice, or a file is missing or holds no array.
    """
    import numpy as np

    types = {info.name: info.dtype for info in infos}
    arrays: dict[str, np.ndarray] = {}
    for name, file in files:
        if name not in types:
            raise InputError(f"there is no input {name!r}; the model has {', '.join(map(str, infos))}")
        if name in arrays:
            raise InputError(f"input {name!r} is given twice")
        try:
            array = np.load(file, allow_pickle=False)
        except OSError as error:
            raise InputError(f"cannot read {file} for input {name!r}: {error.strerror or error}") from None
        except (EOFError, ValueError):
            array = None
        if not isinstance(array, np.ndarray):
            raise InputError(f"{file} for input {name!r} is not an array that numpy.save wrote")
        if array.dtype == "V2" and types[name].name == "bfloat16":  # so numpy.save writes it
            array = array.view(types[name])
        arrays[name] = array
    return arrays


def random_inputs(
    session: Session, shapes: Mapping[str, Any], seed: int, skip: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Draw an array for each input: floats are standard normal, integers 0 or 1, masks all ones.

    Parameters
    ----------
    shapes : sizes of inputs by name, or of symbols by name; what is open otherwise is as large as it may be
    skip : inputs to leave out
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    arrays = {}
    for info, shape in zip(session.inputs, _sizes(session, shapes), strict=True):
        if info.name in skip:
            continue
        if info.dtype.kind not in "biu":  # bfloat16 has a kind of its own
            arrays[info.name] = rng.standard_normal(shape, np.float32).astype(info.dtype)
        else:
            low = 1 if "mask" in info.name else 0
            arrays[info.name] = rng.integers(low, 2, shape).astype(info.dtype)
    return arrays


def _sizes(session: Session, shapes: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """The shape of each input: what is asked for it, or for its symbols, or the largest."""
    stated: dict[str, list[Any]] = {entry["name"]: entry["shape"] for entry in session.manifest["inputs"]}
    ranges: dict[str, list[int]] = session.manifest["symbols"]
    symbols = (f"{name} from {low} to {high}" for name, (low, high) in ranges.items())
    known = ", ".join([*map(str, session.inputs), *symbols])
    for name, asked in shapes.items():
        if name not in stated and name not in ranges:
            raise InputError(f"there is no input or dimension {name!r} to give a shape to; the model has {known}")
        if not all(isinstance(dim, int) for dim in asked) or (name in ranges and len(asked) != 1):
            example = f"{name}=1" if name in ranges else f"{name}=1,128"
            raise InputError(f"{name!r} runs at one size, as in --shape {example}, not at {asked}")
        if name in ranges and not ranges[name][0] <= asked[0] <= ranges[name][1]:
            raise InputError(f"dimension {name!r} cannot be {asked[0]}; the model has {known}")
    sizes = {name: shapes[name][0] for name in ranges if name in shapes}
    return [
        shapes.get(info.name)
        or tuple(sizes.get(dim, high) for dim, high in zip(stated[info.name], info.max_shape, strict=True))
        for info in session.inputs
    ]
