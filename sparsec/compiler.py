"""From a model to an artifact, stage by stage."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsec.codegen.artifact import Artifact, build
from sparsec.frontends import load_model
from sparsec.graph.canonicalize import PASSES
from sparsec.graph.from_relax import from_relax
from sparsec.graph.fuse import fuse
from sparsec.graph.graph import Graph
from sparsec.graph.kernels import Kernels
from sparsec.graph.lower import lower
from sparsec.graph.plan_layouts import plan_layouts
from sparsec.targets import Target

Progress = Callable[[str, float], None]


def compile(
    model: Any,
    target: str | Target = "native",
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    shapes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    dump: str | os.PathLike[str] | None = None,
) -> Artifact:
    target = Target.parse(target) if isinstance(target, str) else target
    imported = load_model(model, example_inputs, shapes)
    graph = from_relax(imported)
    del imported
    for pass_ in (*PASSES, plan_layouts):
        pass_(graph)
    graph.verify()
    kernels = Kernels(target)
    plan = lower(graph, fuse(graph), kernels)
    return build(plan)
