"""Place intermediate tensors in one arena, so that those that do not live at the same time share bytes.

Greedy, each tensor into the smallest gap that holds it (Pisarchyk and Lee, Efficient Memory Management for Deep Neural
Net Inference, 2020, section 5). No order of placing them is best for all models, so a few are tried; the best one is
within a few percent of the bytes that live at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

ALIGNMENT = 64
SLACK = 256
"""Bytes before and after every tensor that belong to no one: products read some vectors past the edge of an image."""


@dataclass(frozen=True)
class Life:
    """The bytes of a tensor, and the steps between which it must keep them (both included).

    ``over`` is the index of a tensor in whose place this one may be written if that is then read for the last time:
    an operand of a step that reads every element before it writes what takes its place, as elementwise ones and the
    epilogues of products do.
    """

    nbytes: int
    first: int
    last: int
    over: int | None = None


def plan_memory(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Return the offset of every tensor, and the size of the arena.

    >>> plan_memory([Life(1024, 0, 1), Life(1024, 1, 2), Life(1024, 2, 3)])
    ([256, 1536, 256], 2816)
    """
    owner, merged = _reuse_in_place(lives)
    orders = [sorted(merged, key=lambda i: key(merged[i])) for key in _ORDERS]
    offsets, size = min((_place(merged, order) for order in orders), key=lambda placed: placed[1])
    return [offsets[root] for root in owner], size


def _reuse_in_place(lives: Sequence[Life]) -> tuple[list[int], dict[int, Life]]:
    """Return for every tensor the one whose place it takes (itself, if none), and the joint lives of those."""
    owner: list[int] = []
    merged: dict[int, Life] = {}
    for index, life in enumerate(lives):
        root = index
        if life.over is not None and life.over < index:
            place = merged[owner[life.over]]
            if place.last == life.first and _end(0, place) == _end(0, life):
                root = owner[life.over]
                merged[root] = replace(place, last=life.last)
        owner.append(root)
        merged.setdefault(root, life)
    return owner, merged


_ORDERS: tuple[Callable[[Life], tuple[int, ...]], ...] = (
    lambda life: (-life.nbytes, life.last - life.first),
    lambda life: (-life.nbytes, -life.last),
    lambda life: (life.first, -life.nbytes),
)


def _place(lives: Mapping[int, Life], order: Sequence[int]) -> tuple[dict[int, int], int]:
    """Place tensors one after the other; return their offsets, and where the last one ends."""
    offsets: dict[int, int] = {}
    for index in order:
        life = lives[index]
        beside = [(offsets[i], _end(offsets[i], lives[i])) for i in offsets if _overlap(lives[i], life)]
        offsets[index] = _best_gap(sorted(beside), _end(0, life))
    return offsets, max((_end(offset, lives[i]) for i, offset in offsets.items()), default=0)


def _end(offset: int, life: Life) -> int:
    return -(-(offset + life.nbytes + SLACK) // ALIGNMENT) * ALIGNMENT


def _overlap(a: Life, b: Life) -> bool:
    return a.first <= b.last and b.first <= a.last


def _best_gap(occupied: Sequence[tuple[int, int]], nbytes: int) -> int:
    """The start of the smallest gap between sorted intervals that holds so many bytes, or of the space behind them."""
    best, least = None, 0
    end = SLACK
    for start, stop in occupied:
        if start - end >= nbytes and (best is None or start - end < least):
            best, least = end, start - end
        end = max(end, stop)
    return end if best is None else best
