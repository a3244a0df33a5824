"""Closes or bounds the dimensions that a model leaves open, before anything else happens to it."""

import re
from collections.abc import Mapping, Sequence

from sparsec.errors import ModelError

Dim = int | tuple[int, int] | str
Shapes = Mapping[str, Sequence[Dim] | Dim]
StatedDim = int | str | None
"""A dimension as the model states it: fixed, named, or neither."""
Range = tuple[int, int]


def parse_shape(text: str) -> tuple[str, tuple[Dim, ...]]:
    """Parse the ``--shape`` flag.

    >>> parse_shape("x=1..8,3,224,224")
    ('x', ((1, 8), 3, 224, 224))
    >>> parse_shape("ids=batch,128")
    ('ids', ('batch', 128))
    """
    name, _, dims = text.rpartition("=")
    if not name:
        raise ModelError(f"cannot read the shape {text!r}; write it as x=1,3,640,640 or x=1..8,3,224,224")
    return name, tuple(_parse_dim(dim.strip(), text) for dim in dims.split(",") if dims)


def _parse_dim(dim: str, text: str) -> Dim:
    if re.fullmatch(r"\d+", dim):
        return int(dim)
    if bounds := re.fullmatch(r"(\d+)\.\.(\d+)", dim):
        return int(bounds[1]), int(bounds[2])
    if re.fullmatch(r"[A-Za-z_]\w*", dim):
        return dim
    raise ModelError(
        f"cannot read {dim!r} in the shape {text!r}; a dimension is a size as 640, a range as 1..8 or a name"
    )


def check_form(shapes: object) -> None:
    """Refuse what is not of the form of `Shapes`.

    Raises
    ------
    ModelError
        It is not a mapping, or holds something else than sizes, ranges and names.
    """
    if not isinstance(shapes, Mapping | None):
        raise ModelError(f"shapes={shapes!r} was given; expected a mapping, as {{'x': (1, 3, 224, 224)}}")
    for name, value in (shapes or {}).items():
        for dim in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            named = isinstance(dim, str) and not dim[:1].isdigit()
            ranged = isinstance(dim, tuple | list) and [type(bound) for bound in dim] == [int, int]
            if not (named or ranged or type(dim) is int):
                raise ModelError(f"{name!r} was given {dim!r}; expected a size as 4, a range as (1, 8), or a name")


def bind_shapes(
    inputs: Mapping[str, Sequence[StatedDim] | None], shapes: Shapes | None
) -> tuple[dict[str, list[int | str]], dict[str, Range]]:
    """Give every axis of every input a size, or a symbol with a range.

    >>> bind_shapes({"ids": ["batch", 128], "mask": ["batch", 128]}, {"batch": (1, 8)})
    ({'ids': ['batch', 128], 'mask': ['batch', 128]}, {'batch': (1, 8)})

    Parameters
    ----------
    inputs : mapping
        Input to its dimensions as the model states them; None where even the rank is unknown.
    shapes : mapping, optional
        As in `load_model`.

    Returns
    -------
    shapes, symbols
        Every input with sizes and symbols, and the range of each symbol.

    Raises
    ------
    ModelError
        An axis stays open, or ``shapes`` contradicts the model.
    """
    asked = dict(shapes or {})
    binding: dict[str, Dim] = {}
    dims = {name: _meet(name, stated, asked.pop(name, None), binding) for name, stated in inputs.items()}
    for name, value in asked.items():
        if name not in binding.values() and not any(name in axes for axes in dims.values()):
            raise ModelError(f"the model has neither an input nor a dimension {name!r}; {_describe(dims)}")
        _bind(name, _as_symbol_value(name, value), binding)
    resolved = {name: [_resolve(dim, binding) for dim in axes] for name, axes in dims.items()}
    for symbol, value in binding.items():
        if isinstance(value, str) and value not in binding and not any(value in axes for axes in dims.values()):
            raise ModelError(
                f"dimension {symbol!r} was given as {value!r}, which has no size; expected a number or a range, "
                f"as in --shape {symbol}=4 or --shape {symbol}=1..8"
            )
    for name, axes in resolved.items():
        _check_closed(name, axes, binding)
    return _rename_symbols(resolved, binding)


def _meet(
    name: str, stated: Sequence[StatedDim] | None, wanted: Sequence[Dim] | Dim | None, binding: dict[str, Dim]
) -> list[StatedDim]:
    """What the model states of an input, refined by what the user asks for; ranges and renames go to ``binding``."""
    if wanted is None:
        if stated is None:
            raise ModelError(f"input {name!r} has a dynamic rank; give its shape, as in --shape {name}=1,3,224,224")
        return [f"{name}_{axis}" if dim is None else dim for axis, dim in enumerate(stated)]
    asked = (wanted,) if isinstance(wanted, int | str) else tuple(wanted)
    if stated is None:
        stated = [None] * len(asked)
    if len(asked) != len(stated):
        raise ModelError(f"input {name!r} has {len(stated)} axes, but the shape given for it has {len(asked)}")
    return [_meet_axis(name, axis, *pair, binding) for axis, pair in enumerate(zip(stated, asked, strict=True))]


def _meet_axis(name: str, axis: int, stated: StatedDim, wanted: Dim, binding: dict[str, Dim]) -> StatedDim:
    if isinstance(stated, int):
        if wanted != stated:
            raise ModelError(f"input {name!r} has the fixed size {stated} at axis {axis}, but {wanted!r} was asked for")
        return stated
    if stated is None:
        if isinstance(wanted, str):
            return wanted
        stated = f"{name}_{axis}"
    if wanted != stated:
        _bind(stated, wanted, binding)
    return stated


def _as_symbol_value(name: str, value: Sequence[Dim] | Dim) -> Dim:
    """The entry of a symbol: a size, a range or another symbol, bare or as the one dimension of a shape."""
    if isinstance(value, int | str):
        return value
    if len(value) == 2 and all(isinstance(bound, int) for bound in value):
        return (value[0], value[1])  # type: ignore[return-value]
    if len(value) == 1:
        return value[0]
    raise ModelError(f"the dimension {name!r} takes one size or one range, as in --shape {name}=1..8, not {value!r}")


def _bind(symbol: str, value: Dim, binding: dict[str, Dim]) -> None:
    if not isinstance(value, str):
        lower, upper = (value, value) if isinstance(value, int) else value
        if not 1 <= lower <= upper:
            raise ModelError(
                f"dimension {symbol!r} cannot be {value!r}; sizes start at 1, and a range is (lower, upper)"
            )
        value = lower if lower == upper else (lower, upper)
    if binding.setdefault(symbol, value) != value:
        raise ModelError(
            f"dimension {symbol!r} is one size in the whole model, but got both {binding[symbol]} and {value}"
        )


def _resolve(dim: StatedDim, binding: dict[str, Dim]) -> int | str:
    """Follow renames to a size, or to the last symbol."""
    seen = {dim}
    while isinstance(dim, str) and isinstance(value := binding.get(dim), int | str) and value not in seen:
        dim = value
        seen.add(dim)
    assert dim is not None
    return dim


def _check_closed(name: str, axes: list[int | str], binding: dict[str, Dim]) -> None:
    open_dims = [dim for dim in axes if isinstance(dim, str) and dim not in binding]
    if not open_dims:
        return
    inner = 128 if len(axes) < 4 else 224

    def example(first: str, rest: str) -> str:
        dims = [str(d) if d not in open_dims else rest if axis else first for axis, d in enumerate(axes)]
        return f"--shape {name}={','.join(dims)}"

    def python(size: str) -> str:
        return "{" + ", ".join(f"{dim!r}: {size}" for dim in open_dims) + "}"

    raise ModelError(
        f"input {name!r} leaves {', '.join(map(repr, open_dims))} open in its shape ({', '.join(map(str, axes))}); "
        f"close it with {example('1', str(inner))} or bound it with {example('1..8', f'1..{inner}')}; "
        f"in Python, with shapes={python('1')} or shapes={python('(1, 8)')}"
    )


def _describe(dims: Mapping[str, Sequence[StatedDim]]) -> str:
    return "its inputs are " + ", ".join(f"{name}({', '.join(map(str, axes))})" for name, axes in dims.items())


def _rename_symbols(
    dims: dict[str, list[int | str]], binding: dict[str, Dim]
) -> tuple[dict[str, list[int | str]], dict[str, Range]]:
    """Make identifiers of the model's names, for they become variables of the compiled code."""
    names: dict[str, str] = {}
    for symbol in (dim for axes in dims.values() for dim in axes if isinstance(dim, str)):
        name = re.sub(r"^(?=\d)|\W", "_", symbol, flags=re.ASCII)
        while name in (other for seen, other in names.items() if seen != symbol):
            name += "_"
        names[symbol] = name
    shapes = {name: [names[dim] if isinstance(dim, str) else dim for dim in axes] for name, axes in dims.items()}
    ranges = {name: bounds for symbol, name in names.items() if isinstance(bounds := binding[symbol], tuple)}
    return shapes, ranges
