"""Keeps the user's names of layers through TVM's importers."""

from typing import Any


def trace_layers(module: Any, named: dict[str, str]) -> dict[str, str]:
    """Extend the named results to all bindings of ``main``: those in between belong to the next named one."""
    layers: dict[str, str] = {}
    pending: list[str] = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            pending.append(binding.var.name)
            if pending[-1] in named:
                layers.update(dict.fromkeys(pending, named[pending[-1]]))
                pending.clear()
    return layers
