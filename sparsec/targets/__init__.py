"""Processors that sparsec compiles for. Nothing here imports TVM until `Target.tvm` is called."""

from sparsec.targets.catalogue import GPUS, TARGETS
from sparsec.targets.target import L1_SETS, L2_WAYS, LINE, PAGE, Target

__all__ = ["GPUS", "L1_SETS", "L2_WAYS", "LINE", "PAGE", "TARGETS", "Target"]
