"""Exact conversions from floats of 8 bits, of which TVM's are not: it makes 0.0078 of the zero of float8_e4m3fn.

Micikevicius et al., "FP8 formats for deep learning", 2022. Both formats go by way of float16, whose exponent has 5 bits
and the bias 15.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from sparsec.ir.types import FLOATS_OF_8_BITS


def is_float8(dtype: str) -> bool:
    """Whether elements, or those of vectors, are floats of 8 bits."""
    return dtype.startswith(FLOATS_OF_8_BITS)


def to_float32(value: Any) -> Any:
    """Return a TIR expression of float8, or of vectors of it, in float32."""
    kind, _, lanes = str(value.ty.dtype).partition("x")
    vector = f"x{lanes}" if lanes else ""
    bits = tirx.Cast(f"uint16{vector}", tirx.reinterpret(f"uint8{vector}", value))
    if kind == "float8_e5m2":  # the upper half of a float16
        return _of_bits(bits << _number(8, lanes), vector)
    # Its exponent has 4 bits and the bias 7; one number is NaN, of which adding 1 carries, and there is no infinity.
    magnitude, sign = bits & _number(0x7F, lanes), bits & _number(0x80, lanes)
    nan = (magnitude + _number(1, lanes) & _number(0x80, lanes)) * _number(0x7C00 // 0x80, lanes)
    wide = magnitude << _number(7, lanes) | nan
    return _of_bits(wide | sign << _number(8, lanes), vector) * _broadcast(tirx.const(256.0, "float32"), lanes)


def _of_bits(bits: Any, vector: str) -> Any:
    return tirx.Cast(f"float32{vector}", tirx.reinterpret(f"float16{vector}", bits))


def _number(value: int, lanes: str) -> Any:
    return _broadcast(tirx.const(value, "uint16"), lanes)


def _broadcast(value: Any, lanes: str) -> Any:
    return tirx.Broadcast(value, int(lanes)) if lanes else value
