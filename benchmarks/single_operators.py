"""Race operators of `sparsec.op`, on one thread, against the same with nothing left out, and against PyTorch.

Engines take turns, and the best time of each counts.

    python -m benchmarks.single_operators
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import sparsec
from sparsec.report.units import seconds_text

ROUNDS = 15
HEADS, TOKENS, SIZE = 12, 1024, 64
RANDOM = np.random.default_rng(0)

Run = Callable[[], object]


@dataclass(frozen=True)
class Race:
    """The same work by several engines."""

    name: str
    engines: dict[str, Run]


def windows(block: int, around: int = 1, everywhere: int = 1) -> np.ndarray:
    """Blocks that see their neighbours, and the first ones, which see all and are seen by all."""
    place = np.arange(TOKENS) // block
    near = np.abs(place[:, None] - place) <= around
    return near | (place < everywhere) | (place < everywhere)[:, None]


def attention() -> Iterator[Race]:
    """Masked attention beside attention to all keys, and PyTorch's with the mask."""
    operands = [normal(HEADS, TOKENS, SIZE) for _ in range(3)]
    tensors = [torch.from_numpy(x)[None] for x in operands]
    every = sparsec.op("attention", np.ones((TOKENS, TOKENS)), HEADS, SIZE, threads=1)
    for block in (64, 32, 16):
        mask = windows(block)
        masked = sparsec.op("attention", mask, HEADS, SIZE, threads=1)
        bias = torch.from_numpy(mask)
        yield Race(
            f"attention, windows of {block}, {mask.mean():.0%} kept",
            {
                "sparsec": lambda run=masked: run(*operands),
                "nothing left out": lambda: every(*operands),
                "PyTorch": lambda bias=bias: torch.nn.functional.scaled_dot_product_attention(*tensors, bias),
            },
        )


def activations() -> Iterator[Race]:
    """A product whose activations are zero in whole rows, beside the same that reads them all."""
    weight = pruned(3072, 768, 0.1)
    read_all = sparsec.op("matmul", weight, 128, threads=1)
    skip = sparsec.op("matmul", weight, 128, sparse_activations=True, threads=1)
    sparse = torch.from_numpy(weight).to_sparse_csr()
    for share in (0.5, 0.8, 0.95):
        x = normal(768, 128)
        x[RANDOM.random(768) < share] = 0
        tensor = torch.from_numpy(x)
        yield Race(
            f"768 → 3072 at 90 %, {share:.0%} of the rows of X zero",
            {
                "sparsec": lambda x=x: skip(x),
                "nothing left out": lambda x=x: read_all(x),
                "PyTorch": lambda tensor=tensor: sparse @ tensor,
            },
        )


def embeddings() -> Iterator[Race]:
    """Bags of a sparse table, beside the same of a dense one."""
    table = pruned(100_000, 1024, 0.03)
    ids = RANDOM.integers(0, len(table), (256, 32))
    bags = torch.nn.EmbeddingBag.from_pretrained(torch.from_numpy(table), mode="sum")
    packed, dense = (
        sparsec.op("embedding_bag", table, 256, size=32, layout=layout, threads=1) for layout in ("CSR", "dense")
    )
    yield Race(
        "256 bags of 32 rows at 97 %",
        {
            "sparsec": lambda: packed(ids),
            "nothing left out": lambda: dense(ids),
            "PyTorch": lambda: bags(torch.from_numpy(ids)),
        },
    )


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def pruned(rows: int, columns: int, density: float) -> np.ndarray:
    return np.where(RANDOM.random((rows, columns)) < density, normal(rows, columns), np.float32(0))


def best_times(race: Race) -> dict[str, float]:
    """Let the engines take turns; the best time of each, in seconds."""
    best = dict.fromkeys(race.engines, float("inf"))
    for _ in range(ROUNDS):
        for name, run in race.engines.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def main() -> None:
    torch.set_num_threads(1)
    table = Table("operator", "sparsec", "nothing left out", "PyTorch")
    for races in (attention, activations, embeddings):
        for race in races():
            best = best_times(race)
            others = (f"{seconds_text(best[name])} ({best[name] / best['sparsec']:.1f}×)" for name in [*best][1:])
            table.add_row(race.name, seconds_text(best["sparsec"]), *others)
    Console().print(table)


if __name__ == "__main__":
    main()
