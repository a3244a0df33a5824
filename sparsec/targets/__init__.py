"""Processors that sparsec compiles for. Nothing here imports TVM until `Target.tvm` is called."""

from sparsec.targets.catalogue import TARGETS
from sparsec.targets.target import Target

__all__ = ["TARGETS", "Target"]
