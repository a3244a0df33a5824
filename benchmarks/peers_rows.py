"""What `make bench-peers` races, and what each race should reach."""

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.contest import TITLES

AIMS: dict[tuple[str, str, float, str], tuple[float, float | None]] = {
    # network, type, share of zeros and their pattern: speed-up over the faster dense peer, and over DeepSparse
    ("bert_base", "fp32", 0.0, "unstructured"): (1.0, None),
    ("bert_base", "fp32", 0.8, "unstructured"): (3.2, 1.4),
    ("bert_base", "fp32", 0.9, "unstructured"): (6.0, 1.6),
    ("bert_base", "fp32", 0.95, "unstructured"): (8.5, 1.6),
    ("bert_base", "fp32", 0.9, "block:4x1"): (8.0, 1.4),
    ("resnet50", "fp32", 0.0, "unstructured"): (1.0, None),
    ("resnet50", "fp32", 0.8, "unstructured"): (2.8, 1.6),
    ("resnet50", "fp32", 0.9, "unstructured"): (5.0, 2.0),
    ("resnet50", "fp32", 0.95, "unstructured"): (6.5, 2.2),
    ("bert_base", "int8", 0.0, "unstructured"): (1.0, None),
    ("bert_base", "int8", 0.9, "block:4x1"): (3.0, None),
    ("resnet50", "int8", 0.0, "unstructured"): (1.0, None),
    ("resnet50", "int8", 0.9, "block:4x1"): (3.0, 3.0),
}
TWO_THREADS_AIM = 1.85
"""How much faster two threads should be than one."""

OPSET = 13  # the newest that DeepSparse takes
TOKENS, SIZE = 128, 224


@dataclass(frozen=True)
class Row:
    """One race: a network, the form that it has, and how it is run.

    Parameters
    ----------
    network : str
        A key of `benchmarks.models.MODELS`.
    precision : {"fp32", "int8"}
    sparsity : float
        Share of zeros in every pruned weight.
    pattern : str
        Of the zeros, as `sparsec.pruning.parse_pattern` reads it.
    section : str
        Which table it stands in.
    extent : int
        Tokens, or the side of an image in pixels; 0 for what is usual.
    batch, threads : int
    target : str
        What sparsec compiles for.
    """

    network: str
    precision: str
    sparsity: float
    pattern: str = "unstructured"
    section: str = "fp32"
    extent: int = 0
    batch: int = 1
    threads: int = 1
    target: str = "native"

    @property
    def options(self) -> dict[str, Any]:
        """What `benchmarks.models.cached` writes the float network with."""
        extent = "tokens" if self.network == "bert_base" else "size"
        given = {"prune": self.pattern, "batch": self.batch, extent: self.extent}
        usual = {"prune": "unstructured", "batch": 1, extent: 0}
        return {"opset": OPSET} | dict(given.items() - usual.items())

    @property
    def base(self) -> "Row":
        """The same network one item at a time, on one thread."""
        return replace(self, batch=1, threads=1)

    @property
    def model(self) -> str:
        """The network for tables: ``BERT-base, 128 tokens``."""
        name = TITLES[self.network].partition(",")[0]
        extent = f"{self.extent or TOKENS} tokens" if self.network == "bert_base" else f"{self.extent or SIZE}²"
        return f"{name}, {extent}"

    @property
    def zeros(self) -> str:
        """The zeros for tables: ``90 %, 4×1 blocks``."""
        kind, _, shape = self.pattern.partition(":")
        return f"{self.sparsity * 100:g} %" + (f", {shape.replace('x', '×')} blocks" if kind == "block" else "")

    @property
    def key(self) -> str:
        """What its results are kept under."""
        parts = [self.model, self.zeros, self.precision, f"batch {self.batch}", f"threads {self.threads}", self.target]
        return f"{self.section}: {', '.join(parts)}"

    @property
    def aims(self) -> tuple[float | None, float | None]:
        """Speed-ups over the faster dense peer and over DeepSparse to reach, if there are such."""
        form = (self.network, self.precision, self.sparsity, self.pattern)
        return AIMS[form] if self.section in ("fp32", "int8") else (None, None)


FORMS = tuple(Row(*form, section=form[1]) for form in AIMS)
_BERT, _RESNET = (Row(network, "fp32", 0.9) for network in ("bert_base", "resnet50"))
_UNTUNED = [("mobilenet_v2", 0), ("vit_small", 0), ("vgg16", 0), ("resnet18", 0)]
_UNEVEN = [("mobilenet_v2", 200), ("resnet18", 200), ("resnet50", 200)]
SECTIONS: dict[str, tuple[Row, ...]] = {
    "fp32": tuple(row for row in FORMS if row.precision == "fp32"),
    "int8": tuple(row for row in FORMS if row.precision == "int8"),
    "threads": tuple(replace(row, section="threads", threads=2) for row in FORMS),
    "batch": tuple(replace(row, section="batch", batch=32) for row in (_BERT, _RESNET)),
    "tokens": tuple(replace(_BERT, section="tokens", extent=tokens) for tokens in (1, 16, 37, 0, 129, 384, 512)),
    "networks": tuple(Row(name, "fp32", 0.9, section="networks", extent=size) for name, size in _UNTUNED + _UNEVEN),
    "avx2": tuple(replace(row, section="avx2", target="haswell") for row in FORMS if row.sparsity == 0.9),
}
"""Rows by section, in the order in which they are raced and shown."""
