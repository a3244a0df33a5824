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
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Var

Expr = Any

_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # Cody and Waite; n * high is exact for the n that occur
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


def expand_math(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Replace calls of transcendental functions on float32 by vectorisable arithmetic.

    Parameters
    ----------
    func : PrimFunc
        A function whose loops are not vectorised yet in the sense of TVM's VectorizeLoop; loop annotations may stand.
    """

    def expand(call: Call) -> Expr:
        expansion = _EXPANSIONS.get(getattr(call.op, "name", ""))
        if expansion is None or str(call.ty.dtype) != "float32":
            return call
        expanded = expansion(*call.args)
        return call if expanded is None else expanded

    return func.with_body(tvm_ffi.structural_map(func.body, (Call, expand), order="post"))


def _f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def _i32(value: int) -> Expr:
    return tirx.const(value, "int32")


def _let(value: Expr, body: Callable[[Expr], Expr], name: str = "t") -> Expr:
    """Name a value, so that an expression that needs it often stays small."""
    var = Var(name, value.ty)
    return tirx.Let(var, value, body(var))


def _horner(x: Expr, coefficients: Sequence[float]) -> Expr:
    """c0 + c1 x + c2 x² + …"""
    value = _f32(coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + _f32(c)
    return value


def _clip(x: Expr, low: float, high: float) -> Expr:
    """x between two bounds; NaN stays NaN, since a comparison with it is false."""
    bounded = tirx.Select(x < _f32(low), _f32(low), x)
    return _let(bounded, lambda b: tirx.Select(b > _f32(high), _f32(high), b), "clipped")


def _bits(x: Expr) -> Expr:
    return tirx.reinterpret("int32", x)


def _power_of_two(n: Expr) -> Expr:
    """2ⁿ for a normal result, from its exponent bits."""
    return tirx.reinterpret("float32", (n + _i32(127)) << _i32(23))


def _scaled_exp(n: Expr, r: Expr) -> Expr:
    """2ⁿ eʳ; the power of two is applied in halves, so that overflow and denormals come out right."""

    def combine(r: Expr, k: Expr) -> Expr:
        value = r * r * _horner(r, _EXP) + r + _f32(1)
        return _let(k >> _i32(1), lambda half: value * _power_of_two(half) * _power_of_two(k - half), "half")

    return _let(r, lambda r: _let(n.astype("int32"), lambda k: combine(r, k), "k"), "r")


def exp(x: Expr) -> Expr:
    """eˣ = 2ⁿ eʳ with |r| ≤ ln 2 / 2."""

    def reduced(x: Expr) -> Expr:
        n = tirx.nearbyint(x * _f32(math.log2(math.e)))
        return _let(n, lambda n: _scaled_exp(n, x - n * _f32(_LN2_HIGH) - n * _f32(_LN2_LOW)), "n")

    return _let(_clip(x, -104.0, 89.0), reduced, "x")


def exp2(x: Expr) -> Expr:
    """2ˣ = 2ⁿ e^((x − n) ln 2)."""

    def reduced(x: Expr) -> Expr:
        return _let(tirx.nearbyint(x), lambda n: _scaled_exp(n, (x - n) * _f32(math.log(2))), "n")

    return _let(_clip(x, -151.0, 129.0), reduced, "x")


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + e⁻ˣ), or eˣ / (1 + eˣ) where x is negative, so that e never overflows."""

    def quotient(x: Expr) -> Expr:
        negative = x < _f32(0)
        small = exp(tirx.Select(negative, x, _f32(0) - x))
        return _let(small, lambda e: tirx.Select(negative, e, _f32(1)) / (_f32(1) + e), "e")

    return _let(x, quotient, "x")


def _rational(x: Expr, numerator: Sequence[float], denominator: Sequence[float], limit: float) -> Expr:
    """An odd function that saturates at ±1: x P(x²) / Q(x²) up to a limit."""

    def ratio(x: Expr) -> Expr:
        value = _let(x * x, lambda u: x * _horner(u, numerator) / _horner(u, denominator), "u")
        return _let(value, lambda v: _clip(v, -1.0, 1.0), "ratio")

    return _let(_clip(x, -limit, limit), ratio, "x")


def rsqrt(x: Expr) -> Expr:
    """1 / √x; TVM vectorises the square root, but not its reciprocal."""
    return tirx.const(1, x.ty.dtype) / tirx.sqrt(x)


def tanh(x: Expr) -> Expr:
    """A rational function of degree 9 over 8."""
    return _rational(x, *_TANH)


def erf(x: Expr) -> Expr:
    """A rational function of degree 11 over 10."""
    return _rational(x, *_ERF)


def power(x: Expr, y: Expr) -> Expr | None:
    """xʸ for exponents that models write down: small integers and halves; None for any other."""
    if not isinstance(y, tirx.FloatImm) or abs(y.value) > 8 or y.value * 2 != int(y.value * 2):
        return None
    whole, half = divmod(abs(y.value), 1)

    def factors(x: Expr) -> Expr:
        value = tirx.sqrt(x) if half else None
        square, n = x, int(whole)
        while n:
            if n & 1:
                value = square if value is None else value * square
            square, n = square * square, n >> 1
        return _f32(1) if value is None else value

    product = _let(x, factors, "x")
    return _f32(1) / product if y.value < 0 else product


def _log_parts(x: Expr, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """x = 2ᵏ (1 + f) with 1 + f in [√½, √2); `combine(k, f)` is the logarithm for positive finite x."""
    tiny = x < _f32(1.1754943508222875e-38)
    scaled = tirx.Select(tiny, x * _f32(2.0**25), x)
    offset = _i32(0x3F3504F3)  # the bits of √½

    def split(bits: Expr) -> Expr:
        def rest(k: Expr) -> Expr:
            f = tirx.reinterpret("float32", bits - (k << _i32(23))) - _f32(1)
            exponent = k.astype("float32") - tirx.Select(tiny, _f32(25), _f32(0))
            return _let(f, lambda f: _let(exponent, lambda e: combine(e, f), "e"), "f")

        return _let((bits - offset) >> _i32(23), rest, "k")

    return _let(_bits(scaled), split, "bits")


def log(x: Expr) -> Expr:
    """k ln 2 + log(1 + f)."""

    def combine(k: Expr, f: Expr) -> Expr:
        def series(s: Expr) -> Expr:
            tail = f * s * _horner(f, _LOG) - _f32(0.5) * s + k * _f32(_LN2_LOW)
            return k * _f32(_LN2_HIGH) + (f + tail)

        return _let(f * f, series, "s")

    def edges(x: Expr) -> Expr:
        inf, nan = tirx.const(math.inf, "float32"), tirx.const(math.nan, "float32")
        finite = _log_parts(x, combine)
        # NaN and +inf pass through; zero gives -inf and a negative number NaN.
        ordinary = tirx.Select(x < inf, finite, x)
        return tirx.Select(x > _f32(0), ordinary, tirx.Select(x == _f32(0), _f32(0) - inf, nan + x))

    return _let(x, edges, "x")


def log2(x: Expr) -> Expr:
    """log x / ln 2."""
    return log(x) * _f32(math.log2(math.e))


def log10(x: Expr) -> Expr:
    """log x / ln 10."""
    return log(x) * _f32(math.log10(math.e))


def log1p(x: Expr) -> Expr:
    """log(1 + x), corrected for what 1 + x rounded off."""

    def corrected(x: Expr) -> Expr:
        def of_sum(u: Expr) -> Expr:
            exact = tirx.Select(u == _f32(1), x, log(u) * (x / (u - _f32(1))))
            return tirx.Select(u == tirx.const(math.inf, "float32"), u, exact)

        return _let(x + _f32(1), of_sum, "u")

    return _let(x, corrected, "x")


_EXPANSIONS: dict[str, Callable[..., Expr | None]] = {
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
