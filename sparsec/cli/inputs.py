"""Inputs for a compiled model: from files, and from a seed where none is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsec.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sparsec.runtime.library import TensorInfo


def read_inputs(files: Sequence[tuple[str, Path]], infos: Sequence[TensorInfo]) -> dict[str, np.ndarray]:
    """Read one NumPy file for each name.

    Raises
    ------
    InputError
        A name is not an input or is given twice, or a file is missing or holds no array.
    """
    import numpy as np

    names = [info.name for info in infos]
    arrays: dict[str, np.ndarray] = {}
    for name, file in files:
        if name not in names:
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
        arrays[name] = array
    return arrays


def random_inputs(infos: Sequence[TensorInfo], shapes: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Draw an array for each input: floats are standard normal, integers 0 or 1, masks all ones.

    Parameters
    ----------
    shapes : for inputs with open dimensions, which are as large as they may be otherwise
    """
    import numpy as np

    names = [info.name for info in infos]
    if wrong := [name for name in shapes if name not in names]:
        raise InputError(
            f"there is no input {wrong[0]!r} to give a shape to; the model has {', '.join(map(str, infos))}"
        )
    rng = np.random.default_rng(seed)
    arrays = {}
    for info in infos:
        shape = shapes.get(info.name, info.max_shape)
        if not all(isinstance(dim, int) for dim in shape):
            raise InputError(f"input {info.name!r} runs at one size, as in --shape {info.name}=1,128, not at {shape}")
        if info.dtype.kind == "f":
            arrays[info.name] = rng.standard_normal(shape, np.float32).astype(info.dtype)
        else:
            low = 1 if "mask" in info.name else 0
            arrays[info.name] = rng.integers(low, 2, shape).astype(info.dtype)
    return arrays
