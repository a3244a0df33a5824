"""Bytes, seconds, counts and lists of names as people write them."""

from collections.abc import Sequence


def bytes_text(count: float) -> str:
    """Bytes with a decimal prefix.

    >>> bytes_text(187720), bytes_text(42)
    ('188 kB', '42 B')
    """
    return _scaled(count, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)))


def seconds_text(seconds: float) -> str:
    """A time with a fitting unit.

    >>> seconds_text(0.0185), seconds_text(92)
    ('18.5 ms', '92.0 s')
    """
    return _scaled(seconds, (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)))


def rate_text(rate: float, unit: str) -> str:
    """Something in a second, with a decimal prefix.

    >>> rate_text(1.028e11, "FLOP/s"), rate_text(5.62e9, "OP/s")
    ('103 GFLOP/s', '5.6 GOP/s')
    """
    return _scaled(rate, ((f"T{unit}", 1e12), (f"G{unit}", 1e9), (f"M{unit}", 1e6), (f"k{unit}", 1e3), (unit, 1.0)))


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "layer"), plural(0, "layer")
    ('1 layer', '0 layers')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names of many.

    >>> some(["fc1", "fc2", "fc3", "fc4", "fc5"])
    'fc1, fc2, fc3 and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    name, size = next((unit for unit in units if value >= unit[1]), units[-1])
    number = value / size
    return f"{number:.0f} {name}" if number >= 100 or name in ("B", "ns") else f"{number:.1f} {name}"
