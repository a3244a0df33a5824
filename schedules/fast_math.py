"""Transcendental functions as plain arithmetic, so that they become vector code.

LLVM calls the C library once per lane for `exp`, `erf` and their like. Here each call on float32 is replaced by a range
reduction and a polynomial or rational approximation. The reductions are those of W. J. Cody and W. Waite, Software
Manual for the Elementary Functions (1980), with their two-part ln 2; the coefficients were fitted for float32 by
iteratively reweighted least squares (Lawson) on the relative error. NaN and infinities give what C gives, and results
below the normal range are rounded once, to the right denormal.

| function | largest error |
|---|---|
| exp, exp2 | 1 ulp |
| log | 1 ulp |
| log2, log10, log1p | 3 ulp |
| sigmoid | 3 ulp |
| tanh, erf | 5 ulp, 3e-7 absolute |
| ½ + ½ erf(x √½) | 2.4e-7 absolute |
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import product
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Var
from tvm.s_tir import SBlock, SBlockRealize

Expr = Any
Values = Mapping[Var, Any]

TOGETHER = 4  # vectors that take a step together at most: more would not stay in 16 registers

_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # Cody and Waite; n * high is exact for the n that occur
_UNITS, _BIAS = 1.5 * 2**23, 127  # floats around it are a unit apart; of exponents
# (eʳ − 1 − r) / r²
_EXP = (0.4999999403953552, 0.1666651964187622, 0.04166839271783829, 0.008368780836462975, 0.0013814467238262296)
# (log(1 + f) − f + f²/2) / f³
_LOG = (0.3333333134651184, -0.2500081956386566, 0.20001226663589478, -0.16623356938362122, 0.14201757311820984,
        -0.13160182535648346, 0.1276157796382904, -0.07634497433900833)  # fmt: skip
# x P(x²) / Q(x²) up to a limit from which on the function is ±1
_TANH = (
    (1.0, 0.13379715383052826, 0.0034940324258059263, 2.0583445802913047e-05, 1.3319024105840072e-08),
    (1.0, 0.46713030338287354, 0.025871064513921738, 0.00032830893178470433, 7.761999540889519e-07),
    9.02,
)
_ERF = (
    (1.1283791065216064, 0.19078339636325836, 0.05279022455215454, 0.0037795898970216513, 0.00028480804758146405,
     2.0419722659426043e-06),
    (1.0, 0.5024101138114929, 0.1142573431134224, 0.014997398480772972, 0.0011652078246697783, 3.8004061934771016e-05),
    3.93,
)  # fmt: skip
# The same of Φ(x) − ½, where Φ is the normal distribution function; fitted on the absolute error, then in float32
_NORMAL = (
    (0.3989417850971222, 0.04836496338248253, 0.00542712165042758, 0.00030136140412651, 5.675605734722922e-06),
    (1.0, 0.28789278864860535, 0.03659747540950775, 0.0026246095076203346, 0.00010844029020518064,
     4.934173603032832e-07),
    5.1,
)  # fmt: skip


def expand_math(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Replace calls of transcendental functions on float32 by arithmetic wherever a loop is vectorised.

    A call that only some lanes make stays, since its arguments must not be computed without it, and so do calls for
    single numbers.

    Parameters
    ----------
    func : PrimFunc
        A scheduled function, not lowered yet.
    """

    return func.with_body(tvm_ffi.structural_map(func.body, (tirx.For, _expand_loop), order="pre"))


class _Steps:
    """Intermediate results, each in a buffer of its own with one element per lane of so many vectors.

    TVM's analyzer sees through variables that a let binds, and writes out all of it wherever one is used; it does not
    see through memory. LLVM keeps the buffers in registers.
    """

    def __init__(self, loop: tirx.For, places: Sequence[Values]) -> None:
        self.loop, self.places = loop, places
        self.vector = Var("vector", loop.loop_var.ty)
        self.buffers: list[Expr] = []
        self.stores: list[tirx.BufferStore] = []

    def __call__(self, value: Expr) -> Expr:
        """Compute a value once; what is returned is cheap to use often."""
        lanes = int(self.loop.extent)
        buffer = tirx.decl_buffer((len(self.places) * lanes,), value.ty.dtype, f"step{len(self.buffers)}")
        place = self.vector * lanes + (self.loop.loop_var - self.loop.min)
        self.buffers.append(buffer)
        self.stores.append(tirx.BufferStore(buffer, value, [place]))
        return tirx.BufferLoad(buffer, [place])

    def expand(self, store: tirx.BufferStore) -> tirx.Stmt:
        """Take each step of a store for all vectors before the next step, and at the end the store itself."""
        self.stores.append(tirx.BufferStore(store.buffer, self._expanded(store.value), list(store.indices)))
        vectors = [{self.vector: tirx.IntImm(self.vector.ty.dtype, n), **place} for n, place in enumerate(self.places)]
        body = tirx.stmt_seq(*(self._lanes(_substitute(store, vector)) for store in self.stores for vector in vectors))
        return SBlockRealize([], True, SBlock([], [], [], "math", body, alloc_buffers=self.buffers))

    def _expanded(self, value: Expr) -> Expr:
        def expand_sum(value: tirx.Add) -> Expr:
            x = _normal_argument(value)
            return value if x is None else normal_cdf(self, self._expanded(x))

        def expand_call(call: Call) -> Expr:
            return _EXPANSIONS[call.op.name](self, *map(self._expanded, call.args)) if _expandable(call) else call

        return tvm_ffi.structural_map(value, ((tirx.Add, expand_sum), (Call, expand_call)), order="pre")

    def _lanes(self, store: tirx.BufferStore) -> tirx.Stmt:
        loop, lane = self.loop, Var("lane", self.loop.loop_var.ty)
        return tirx.For(lane, loop.min, loop.extent, loop.kind, _substitute(store, {loop.loop_var: lane}))


def _expand_loop(loop: tirx.For) -> tirx.Stmt:
    """A vectorised loop becomes one vectorised loop per step: TVM would share a buffer inside it between the lanes.

    Of the vectors of unrolled loops around it, a few take each step together: as many chains hide its latency, and read
    its coefficients once.
    """
    unrolled: list[tirx.For] = []
    inner: Any = loop
    while isinstance(inner, tirx.For) and inner.kind == tirx.stmt.ForKind.UNROLLED:
        unrolled.append(inner)
        inner = inner.body
    if not isinstance(inner, tirx.For) or inner.kind != tirx.stmt.ForKind.VECTORIZED:
        return loop
    body = inner.body
    if isinstance(body, SBlockRealize) and body.block.init is None:
        values = dict(zip((it.var for it in body.block.iter_vars), body.iter_values, strict=True))
        body = _substitute(body.block.body, values)
    ranges = ([around.min + n for n in range(int(around.extent))] for around in unrolled)
    places = [dict(zip((around.loop_var for around in unrolled), place, strict=True)) for place in product(*ranges)]
    expanded = _expand_body(body, inner, places) if _calls(body) else None
    return loop if expanded is None else expanded


def _expand_body(body: tirx.Stmt, loop: tirx.For, places: Sequence[Values]) -> tirx.Stmt | None:
    """The body of a vectorised loop, in loops of its own; branches that all lanes take alike come outside."""
    if isinstance(body, tirx.BufferStore) and _is_branch(body.value):
        condition, *values = body.value.args
        body = tirx.IfThenElse(condition, *(tirx.BufferStore(body.buffer, v, list(body.indices)) for v in values))
    if isinstance(body, tirx.IfThenElse):
        if _uses(body.condition, [loop.loop_var]):
            return None
        if _uses(body.condition, places[0]):
            return _one_by_one(body, loop, places)
        branches = [None if b is None else _expand_body(b, loop, places) for b in (body.then_case, body.else_case)]
        if branches[0] is None or (body.else_case is not None and branches[1] is None):
            return None
        return tirx.IfThenElse(body.condition, *branches)
    if not isinstance(body, tirx.BufferStore):
        return None
    if any(_is_branch(call) and _calls(call.args[1:]) for call in _all_calls(body.value)):
        return None
    if len(places) > 1 and _uses(body.value, [body.buffer]):
        return _one_by_one(body, loop, places)  # a vector may read what the one before it wrote
    size = -(-len(places) // -(-len(places) // TOGETHER))
    groups = (places[n : n + size] for n in range(0, len(places), size))
    return tirx.stmt_seq(*(_Steps(loop, group).expand(body) for group in groups))


def _one_by_one(body: tirx.Stmt, loop: tirx.For, places: Sequence[Values]) -> tirx.Stmt | None:
    vectors = [_expand_body(_substitute(body, place), loop, [{}]) for place in places]
    return None if any(vector is None for vector in vectors) else tirx.stmt_seq(*vectors)


def _substitute(node: Any, values: Values) -> Any:
    return tvm_ffi.structural_map(node, (Var, lambda v: values.get(v, v)), order="post")


def _all_calls(node: Any) -> list[Call]:
    found: list[Call] = []
    tvm_ffi.structural_walk(node, (Call, found.append))
    return found


def _calls(node: Any) -> bool:
    """Whether there is something to expand."""
    return any(map(_expandable, _all_calls(node)))


def _is_branch(value: Expr) -> bool:
    return isinstance(value, Call) and getattr(value.op, "name", "") == "prim.if_then_else"


def _uses(expr: Expr, variables: Collection[Var]) -> bool:
    found: list[Var] = []
    tvm_ffi.structural_walk(expr, (Var, found.append))
    return any(v.same_as(var) for v in found for var in variables)


def _expandable(call: Call) -> bool:
    name = getattr(call.op, "name", "")
    if name == "tirx.pow" and not _is_written_down(call.args[1]):
        return False
    return name in _EXPANSIONS and (name == "tirx.rsqrt" or str(call.ty.dtype) == "float32")


def _is_written_down(exponent: Expr) -> bool:
    """Whether an exponent is one that models write down: a small integer or half of one."""
    return isinstance(exponent, tirx.FloatImm) and abs(exponent.value) <= 8 and (exponent.value * 2).is_integer()


def _normal_argument(value: tirx.Add) -> Expr | None:
    """x of ½ + ½ erf(x √½), as GELU has it, whatever the order of the operands."""
    erf = _beside(0.5, tirx.Mul, _beside(0.5, tirx.Add, value))
    if isinstance(erf, Call) and _expandable(erf) and erf.op.name == "tirx.erf":
        return _beside(math.sqrt(0.5), tirx.Mul, erf.args[0])
    return None


def _beside(number: float, kind: Any, value: Expr | None) -> Expr | None:
    """The other operand of a sum or a product with a number."""
    if isinstance(value, kind):
        for one, other in ((value.a, value.b), (value.b, value.a)):
            if isinstance(one, tirx.FloatImm) and math.isclose(one.value, number, rel_tol=1e-7):
                return other
    return None


def _f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def _i32(value: int) -> Expr:
    return tirx.const(value, "int32")


def _horner(step: _Steps, x: Expr, coefficients: Sequence[float]) -> Expr:
    """c0 + c1 x + c2 x² + …, a coefficient in each step, so that no more of them are in registers than one."""
    value = _f32(coefficients[-1])
    for c in coefficients[-2::-1]:
        value = step(value * x + _f32(c))
    return value


def nearest(step: _Steps, x: Expr) -> Expr:
    """The nearest integer, or the even one of two; of `tirx.nearbyint` TVM would make a loop over the lanes."""
    return tirx.call_llvm_pure_intrin("float32", "llvm.nearbyint", x)


def _clip(step: _Steps, x: Expr, low: float, high: float) -> Expr:
    """x between two bounds; NaN stays NaN, since a comparison with it is false."""
    x = step(x)
    x = step(tirx.Select(x < _f32(low), _f32(low), x))
    return step(tirx.Select(x > _f32(high), _f32(high), x))


def _rounded(step: _Steps, x: Expr, bias: int) -> tuple[Expr, Expr]:
    """The integer nearest to a small x, and an int32 whose low 9 bits are that integer plus the bias.

    Where floats are a unit apart, an addition rounds, and leaves the integer in their bits without a conversion.
    """
    shift = _f32(_UNITS + bias)
    shifted = step(x + shift)
    return shifted - shift, tirx.reinterpret("int32", shifted)


def _scaled_exp(step: _Steps, n: Expr, bits: Expr, r: Expr) -> Expr:
    """2ⁿ eʳ; the power of two is applied in halves, so that overflow and denormals come out right.

    The low bits of `bits` are n + 2 · 127. What half of n, plus 127, leaves of them is biased as an exponent, too.
    """
    r = step(r)
    _, half = _rounded(step, n * _f32(0.5), _BIAS)
    value = step(r * r * _horner(step, r, _EXP) + r + _f32(1))
    low, high = (tirx.reinterpret("float32", part << _i32(23)) for part in (half, bits - half))
    return value * low * high


def exp(step: _Steps, x: Expr) -> Expr:
    """eˣ = 2ⁿ eʳ with |r| ≤ ln 2 / 2."""
    x = _clip(step, x, -104.0, 89.0)
    n, bits = _rounded(step, x * _f32(math.log2(math.e)), 2 * _BIAS)
    n = step(n)
    return _scaled_exp(step, n, bits, x - n * _f32(_LN2_HIGH) - n * _f32(_LN2_LOW))


def exp2(step: _Steps, x: Expr) -> Expr:
    """2ˣ = 2ⁿ e^((x − n) ln 2)."""
    x = _clip(step, x, -151.0, 129.0)
    n, bits = _rounded(step, x, 2 * _BIAS)
    n = step(n)
    return _scaled_exp(step, n, bits, (x - n) * _f32(math.log(2)))


def sigmoid(step: _Steps, x: Expr) -> Expr:
    """1 / (1 + e⁻ˣ), or eˣ / (1 + eˣ) where x is negative, so that e never overflows."""
    x = step(x)
    negative = x < _f32(0)
    e = step(exp(step, tirx.Select(negative, x, _f32(0) - x)))
    return tirx.Select(negative, e, _f32(1)) / (_f32(1) + e)


def _square(step: _Steps, x: Expr, limit: float) -> Expr:
    """x² up to that of a limit."""
    u = step(x * x)
    return step(tirx.Select(u > _f32(limit * limit), _f32(limit * limit), u))


def _rational(step: _Steps, x: Expr, numerator: Sequence[float], denominator: Sequence[float], limit: float) -> Expr:
    """An odd function that saturates at ±1: x P(x²) / Q(x²) up to a limit."""
    x = step(x)
    u = _square(step, x, limit)
    return _clip(step, x * _horner(step, u, numerator) / _horner(step, u, denominator), -1.0, 1.0)


def rsqrt(step: _Steps, x: Expr) -> Expr:
    """1 / √x; TVM vectorises the square root, but not its reciprocal."""
    return tirx.const(1, x.ty.dtype) / tirx.sqrt(x)


def tanh(step: _Steps, x: Expr) -> Expr:
    """A rational function of degree 9 over 8."""
    return _rational(step, x, *_TANH)


def erf(step: _Steps, x: Expr) -> Expr:
    """A rational function of degree 11 over 10."""
    return _rational(step, x, *_ERF)


def normal_cdf(step: _Steps, x: Expr) -> Expr:
    """Φ(x) = ½ + ½ erf(x √½), as ½ and a rational function of degree 9 over 10; past the limit it is 0 or 1.

    Beside ½ an absolute error is enough, which takes lower degrees than the relative one of erf.
    """
    numerator, denominator, limit = _NORMAL
    x = step(x)
    u = _square(step, x, limit)
    ratio = _horner(step, u, numerator) / _horner(step, u, denominator)
    return _clip(step, x * ratio + _f32(0.5), 0.0, 1.0)


def power(step: _Steps, x: Expr, y: Expr) -> Expr:
    """xʸ by multiplications and one square root."""
    whole, half = divmod(abs(y.value), 1)
    square, n = step(x), int(whole)
    value = tirx.sqrt(square) if half else _f32(1)
    while n:
        value = step(value * square) if n & 1 else value
        square, n = step(square * square), n >> 1
    return _f32(1) / value if y.value < 0 else value


def log(step: _Steps, x: Expr) -> Expr:
    """k ln 2 + log(1 + f), where x = 2ᵏ (1 + f) and 1 + f lies in [√½, √2)."""
    x = step(x)
    tiny = x < _f32(1.1754943508222875e-38)
    bits = step(tirx.reinterpret("int32", tirx.Select(tiny, x * _f32(2.0**25), x)))
    exponent = step((bits - _i32(0x3F3504F3)) >> _i32(23))  # subtracted are the bits of √½
    k = step(exponent.astype("float32") - tirx.Select(tiny, _f32(25), _f32(0)))
    f = step(tirx.reinterpret("float32", bits - (exponent << _i32(23))) - _f32(1))
    s = step(f * f)
    tail = f * s * _horner(step, f, _LOG) - _f32(0.5) * s + k * _f32(_LN2_LOW)
    finite = k * _f32(_LN2_HIGH) + (f + tail)
    # NaN and +inf pass through; zero gives -inf and a negative number NaN.
    inf, nan = tirx.const(math.inf, "float32"), tirx.const(math.nan, "float32")
    ordinary = tirx.Select(x < inf, finite, x)
    return tirx.Select(x > _f32(0), ordinary, tirx.Select(x == _f32(0), _f32(0) - inf, nan + x))


def log2(step: _Steps, x: Expr) -> Expr:
    """log x / ln 2."""
    return log(step, x) * _f32(math.log2(math.e))


def log10(step: _Steps, x: Expr) -> Expr:
    """log x / ln 10."""
    return log(step, x) * _f32(math.log10(math.e))


def log1p(step: _Steps, x: Expr) -> Expr:
    """log(1 + x), corrected for what 1 + x rounded off."""
    x = step(x)
    u = step(x + _f32(1))
    exact = tirx.Select(u == _f32(1), x, log(step, u) * (x / (u - _f32(1))))
    return tirx.Select(u == tirx.const(math.inf, "float32"), u, exact)


_EXPANSIONS: dict[str, Callable[..., Expr]] = {
    "tirx.nearbyint": nearest,
    "tirx.exp": exp,
    "tirx.exp2": exp2,
    "tirx.erf": erf,
    "tirx.pow": power,
    "tirx.rsqrt": rsqrt,
    "tirx.tanh": tanh,
    "tirx.sigmoid": sigmoid,
    "tirx.log": log,
    "tirx.log2": log2,
    "tirx.log10": log10,
    "tirx.log1p": log1p,
}
