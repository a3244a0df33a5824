"""Processors that sparsec compiles for. Nothing here imports TVM until `Target.tvm` is called."""

from sparsec.targets.catalogue import GPUS, TARGETS
from sparsec.targets.target import LINE, PAGE, Target

__all__ = ["GPUS", "LINE", "PAGE", "TARGETS", "Target"]
