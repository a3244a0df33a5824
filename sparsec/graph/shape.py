"""Arithmetic on shapes whose dimensions are ints or TVM expressions over symbolic variables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from tvm import tirx
from tvm.ir import Expr
from tvm.sym import Analyzer

Dim: TypeAlias = int | Expr
Shape: TypeAlias = tuple[Dim, ...]

_analyzer = Analyzer()


def dim(value: object) -> Dim:
    """An int where the dimension is known, else the simplified expression."""
    if isinstance(value, int):
        return value
    if not isinstance(value, tirx.IntImm):
        value = _analyzer.simplify(value)
    return int(value.value) if isinstance(value, tirx.IntImm) else value


def equal(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are equal for every value of the symbols."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return bool(_analyzer.can_prove_equal(a, b))


def same_shape(a: Sequence[Dim], b: Sequence[Dim]) -> bool:
    return len(a) == len(b) and all(map(equal, a, b))


def product(dims: Iterable[Dim]) -> Dim:
    result: Dim = 1
    for d in dims:
        result = result * d
    return dim(result)


def symbols_of(dims: Iterable[Dim]) -> list[tirx.Var]:
    """The symbolic variables in a shape, each once, in order of appearance."""
    return list(dict.fromkeys(v for d in dims if not isinstance(d, int) for v in tirx.analysis.undefined_vars(d)))


def evaluate_dim(value: Dim, symbols: Mapping[str, int]) -> int:
    """The dimension's value once every symbol has one; a KeyError names a symbol that has none."""
    if isinstance(value, int):
        return value
    analyzer = Analyzer()
    for symbol in symbols_of([value]):
        analyzer.bind(symbol, tirx.const(symbols[symbol.name], str(symbol.ty.dtype)))
    return int(analyzer.simplify(value))


def broadcast(*shapes: Shape) -> Shape:
    """The shape of an elementwise operation over operands of these shapes."""
    rank = max(map(len, shapes))
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, d in enumerate(shape, rank - len(shape)):
            if isinstance(result[axis], int) and result[axis] == 1:
                result[axis] = d
    return tuple(result)


def broadcast_in(shape: Shape, frame: Shape, target: Shape) -> Shape | None:
    """The shape by which an operand that broadcasts against `frame` broadcasts against a relabelled `target`.

    >>> broadcast_in((768,), (1, 1, 768), (1, 768, 1))
    (1, 768, 1)
    """
    if product(shape) == 1:
        return (1,) * len(target)
    shape = (1,) * (len(frame) - len(shape)) + tuple(shape)
    if same_shape(shape, frame):
        return target
    wide = [axis for axis, dim in enumerate(frame) if not is_one(dim)]
    places = [axis for axis, dim in enumerate(target) if not is_one(dim)]
    if not same_shape([frame[axis] for axis in wide], [target[axis] for axis in places]):
        return None
    dims = dict(zip(places, (shape[axis] for axis in wide), strict=True))
    return tuple(dims.get(axis, 1) for axis in range(len(target)))


def reshape_groups(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Pair runs of axes of two shapes that hold the same elements, the runs as short as possible.

    >>> reshape_groups((2, 128, 768), (256, 12, 64))
    [([0, 1], [0]), ([2], [1, 2])]

    Axes of size one belong to no run, since they do not move elements.
    """
    left = [axis for axis, d in enumerate(source) if not is_one(d)]
    right = [axis for axis, d in enumerate(target) if not is_one(d)]
    groups: list[tuple[list[int], list[int]]] = []
    while left or right:
        a, b = left[:1], right[:1]
        while not equal(product(source[i] for i in a), product(target[i] for i in b)):
            # Grow the run whose known part is smaller; where nothing is left to grow, the rest is one run.
            grow_left = _smaller(product(source[i] for i in a), product(target[i] for i in b))
            if grow_left and len(a) < len(left):
                a = left[: len(a) + 1]
            elif len(b) < len(right):
                b = right[: len(b) + 1]
            elif len(a) < len(left):
                a = left[: len(a) + 1]
            else:
                break
        groups.append((a, b))
        left, right = left[len(a) :], right[len(b) :]
    return groups


def is_one(d: Dim) -> bool:
    return isinstance(d, int) and d == 1


def _smaller(a: Dim, b: Dim) -> bool:
    """A guess at a < b that reads every symbol as a large prime, so that s < 4 s and 64 < s hold."""
    sizes = [evaluate_dim(d, {v.name: 1_000_003 for v in symbols_of([d])}) for d in (a, b)]
    return sizes[0] < sizes[1]
