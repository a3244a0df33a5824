"""Run an artifact with NumPy alone."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, Array, c_int64, c_void_p, cast
from dataclasses import dataclass
from math import prod
from statistics import median
from typing import Any

import numpy as np

from sparsec.errors import ArtifactError, InputError, TargetError
from sparsec.runtime.bfloat16 import from_dlpack
from sparsec.runtime.dims import evaluate
from sparsec.runtime.library import Library, TensorInfo

_ALIGNMENT = 64

MOST_THREADS = 1024
"""Of a call; `MAX_THREADS` of `sparsec_runtime.c`."""


@dataclass(frozen=True)
class StepTime:
    """How long one step of a model took.

    Parameters
    ----------
    label, kernel : the layer, and the function that computes it
    seconds : of one call
    flops : useful operations of one call, a multiply-add on an entry that pruning left being two; 0 for no product
    instruction : what carries them out, by name, as ``"fma.8"``; empty where plain loops do
    """

    label: str
    kernel: str
    seconds: float
    flops: int = 0
    instruction: str = ""


def load(artifact: str | os.PathLike[str] | bytes, threads: int | None = None) -> Session:
    """Load a compiled model.

    >>> session = load("model.so", threads=2)      # doctest: +SKIP
    >>> y = session(x)                             # doctest: +SKIP

    Parameters
    ----------
    artifact : path or bytes
        The shared library, or its contents.
    threads : int, optional
        How many threads a call uses, the caller's own among them. The default is ``SPARSEC_NUM_THREADS``, or else
        the physical cores that this process may use.

    Raises
    ------
    ArtifactError
        If the file is missing, cut short, foreign, or for another kind of machine.
    InputError
        If `artifact` is neither a path nor bytes, or `threads` no number of threads.
    TargetError
        If this processor lacks an extension that the artifact was compiled for.
    """
    return Session(Library(artifact), threads)


def check_threads(threads: int | None) -> None:
    """Refuse what is no number of threads."""
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST_THREADS):
        raise InputError(f"threads={threads!r} was given; expected from 1 to {MOST_THREADS}, or None for the default")


class Session:
    """A loaded model with its own memory and threads. Calls from several Python threads take turns."""

    def __init__(self, library: Library, threads: int | None = None) -> None:
        check_threads(threads)
        self._library = library
        self._context = library.c.sparsec_create(threads or 0)
        if not self._context:
            message = library.last_error()
            raise (TargetError if message.startswith("this processor") else ArtifactError)(message)
        # The library is an argument, so that it stays open until the context is destroyed.
        self._finalizer = weakref.finalize(self, _destroy, library, self._context)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        takes, gives = (", ".join(map(str, infos)) for infos in (self.inputs, self.outputs))
        return f"<Session of {takes} -> {gives}, threads={self.threads}>"

    @property
    def inputs(self) -> list[TensorInfo]:
        """The inputs, in the order of positional arguments."""
        return self._library.inputs

    @property
    def outputs(self) -> list[TensorInfo]:
        """The outputs, in the order that a call returns them."""
        return self._library.outputs

    @property
    def manifest(self) -> dict[str, Any]:
        """What the artifact was compiled from and for."""
        return self._library.manifest

    @property
    def threads(self) -> int:
        """How many threads a call uses, the caller's own among them."""
        return self._library.c.sparsec_num_threads(self._context)

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        """Run the model.

        >>> y = session(x)                         # doctest: +SKIP
        >>> y = session(input_ids=a, mask=b)       # doctest: +SKIP

        Parameters
        ----------
        *args, **kwargs
            The inputs, by position or name: NumPy arrays, or anything with ``__dlpack__`` or ``__array__``.
        out : np.ndarray or sequence of np.ndarray, optional
            Where to write the outputs; none may overlap an input or another output.

        Returns
        -------
        np.ndarray or tuple of np.ndarray
            A tuple where there are several outputs.

        Raises
        ------
        InputError
            If an input is missing, unknown, or of another shape or type than the model takes, or `out` does not fit.
        """
        arrays = self._take_inputs(args, kwargs)
        with self._lock:
            self._set_shapes(arrays)
            results = self._new_outputs() if out is None else self._take_outputs(out, arrays)
            self._run(_pointers(arrays), _pointers(results))
        return results[0] if len(results) == 1 else tuple(results)

    def bind(self, *args: Any, out: Any = None, **kwargs: Any) -> Callable[[], Any]:
        """Check inputs and outputs once, to run the model many times where they lie.

        >>> run = session.bind(x)                  # doctest: +SKIP
        >>> x[:] = another                         # doctest: +SKIP
        >>> y = run()                              # doctest: +SKIP

        Parameters are those of a call. An input that is no C-contiguous array is copied here and not read again.

        Returns
        -------
        callable
            Runs the model and returns its outputs, the same arrays each time.

        Raises
        ------
        InputError
            As a call does.
        """
        arrays = self._take_inputs(args, kwargs)
        with self._lock:
            self._set_shapes(arrays)
            results = self._new_outputs() if out is None else self._take_outputs(out, arrays)
        inputs, outputs = _pointers(arrays), _pointers(results)
        answer = results[0] if len(results) == 1 else tuple(results)

        def run() -> Any:
            with self._lock:
                self._set_shapes(arrays)  # other calls may have set others
                self._run(inputs, outputs)
            return answer

        return run

    def profile(self, *args: Any, runs: int = 10, **kwargs: Any) -> list[StepTime]:
        """The median time of each step over a number of runs with these inputs.

        With one thread, the time that other programs hold its processor meanwhile does not count.
        """
        arrays = self._take_inputs(args, kwargs)
        c, steps = self._library.c, range(self._library.c.sparsec_num_steps())
        symbols, work = self._symbols(arrays), self.manifest["steps"]
        times: list[list[int]] = []
        with self._lock:
            self._set_shapes(arrays)
            results = self._new_outputs()
            c.sparsec_set_profiling(self._context, 1)
            try:
                for _ in range(runs):
                    self._run(_pointers(arrays), _pointers(results))
                    times.append([c.sparsec_step_nanoseconds(self._context, step) for step in steps])
            finally:
                c.sparsec_set_profiling(self._context, 0)
        return [
            StepTime(
                c.sparsec_step_label(step).decode(),
                c.sparsec_step_kernel(step).decode(),
                median(run[step] for run in times) * 1e-9,
                evaluate(work[step]["flops"], symbols),
                work[step]["instruction"],
            )
            for step in steps
        ]

    def _take_inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[np.ndarray]:
        names = [info.name for info in self.inputs]
        if any(isinstance(value, Mapping) for value in args):
            expected = ", ".join(map(str, self.inputs))
            raise InputError(f"a dictionary was given for {expected}; inputs by name are keywords: session(**inputs)")
        if len(args) > len(names):
            raise InputError(f"{len(args)} inputs were given; expected {len(names)}: {', '.join(names)}")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise InputError(f"there is no input {name!r}; expected {', '.join(names)}")
            if name in given:
                raise InputError(f"input {name!r} was given by position and by name")
            given[name] = value
        if missing := [str(info) for info in self.inputs if info.name not in given]:
            raise InputError(f"missing {', '.join(missing)}")
        return [_take_input(info, given[info.name]) for info in self.inputs]

    def _symbols(self, arrays: Sequence[np.ndarray]) -> dict[str, int]:
        """The values that these inputs give to symbolic dimensions."""
        named = zip(self.manifest["inputs"], arrays, strict=True)
        sizes = {dim: size for entry, array in named for dim, size in zip(entry["shape"], array.shape, strict=True)}
        return {name: sizes[name] for name in self.manifest["symbols"]}

    def _set_shapes(self, arrays: Sequence[np.ndarray]) -> None:
        if not self.manifest["symbols"]:
            return
        shapes = [(c_int64 * max(array.ndim, 1))(*array.shape) for array in arrays]
        pointers = (POINTER(c_int64) * len(shapes))(*(cast(shape, POINTER(c_int64)) for shape in shapes))
        if self._library.c.sparsec_set_shapes(self._context, pointers):
            raise InputError(self._library.last_error())

    def _output_shape(self, index: int) -> tuple[int, ...]:
        shape = self._library.c.sparsec_output_shape(self._context, index)
        return tuple(shape[: len(self.outputs[index].min_shape)])

    def _new_outputs(self) -> list[np.ndarray]:
        return [_aligned_empty(self._output_shape(index), info.dtype) for index, info in enumerate(self.outputs)]

    def _take_outputs(self, out: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        arrays = [out] if isinstance(out, np.ndarray) else list(out)
        if len(arrays) != len(self.outputs):
            raise InputError(f"out has {len(arrays)} arrays; the model has {len(self.outputs)} outputs")
        for index, (info, array) in enumerate(zip(self.outputs, arrays, strict=True)):
            shape = self._output_shape(index)
            if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (shape, info.dtype):
                raise InputError(f"out for {info.name!r} is {_describe(array)}; expected {info.dtype}{list(shape)}")
            if not array.flags.c_contiguous or not array.flags.writeable:
                raise InputError(f"out for {info.name!r} must be C-contiguous and writeable")
            # All are contiguous, so that to compare where they begin and end is exact.
            for kind, infos, others in (("input", self.inputs, inputs), ("out for", self.outputs, arrays[:index])):
                for other_info, other in zip(infos, others, strict=False):
                    if np.may_share_memory(array, other):
                        raise InputError(
                            f"out for {info.name!r} overlaps {kind} {other_info.name!r}, which would be overwritten; "
                            "give it memory of its own"
                        )
        return arrays

    def _run(self, inputs: Array[c_void_p], outputs: Array[c_void_p]) -> None:
        if self._library.c.sparsec_run(self._context, inputs, outputs):
            raise ArtifactError(self._library.last_error())


def _pointers(arrays: Sequence[np.ndarray]) -> Array[c_void_p]:
    return (c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def _destroy(library: Library, context: int) -> None:
    library.c.sparsec_destroy(context)


def _take_input(info: TensorInfo, value: Any) -> np.ndarray:
    """The value as a C-contiguous array, after checking its type and shape."""
    try:
        array = _take_dlpack(info, value) if _wants_dlpack(value) else np.asarray(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"input {info.name!r} expects {info}; {type(value).__name__} is no array: {error}") from None
    fits = len(array.shape) == len(info.min_shape) and all(
        low <= dim <= high for low, dim, high in zip(info.min_shape, array.shape, info.max_shape, strict=True)
    )
    if array.dtype != info.dtype or not fits:
        raise InputError(f"input {info.name!r} expects {info}, and got {_describe(array)}")
    return np.ascontiguousarray(array)


def _take_dlpack(info: TensorInfo, value: Any) -> np.ndarray:
    return np.from_dlpack(value) if info.dtype.name != "bfloat16" else from_dlpack(value)


def _wants_dlpack(value: Any) -> bool:
    return hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray)


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    return type(value).__name__


def _aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array at a multiple of 64 bytes, which the runtime writes to without a copy."""
    nbytes = prod(shape) * dtype.itemsize
    raw = np.empty(nbytes + _ALIGNMENT, np.uint8)
    return np.ndarray(shape, dtype, raw, -raw.ctypes.data % _ALIGNMENT)
