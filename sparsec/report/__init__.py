"""Tables and numbers for people, made from the data that programs read: manifests, reports of `inspect`, profiles."""

from sparsec.report.layers import Totals, known_by, layer_table, removed_text, totals
from sparsec.report.measured import with_times
from sparsec.report.memory import memory_text, planned_memory
from sparsec.report.options import options_tables
from sparsec.report.screen import print_json, screen, text_of
from sparsec.report.steps import step_table
from sparsec.report.summary import summary
from sparsec.report.tensors import summarize_tensor, tensor_table
from sparsec.report.units import bytes_text, plural, seconds_text, some

__all__ = [
    "Totals",
    "bytes_text",
    "known_by",
    "layer_table",
    "memory_text",
    "options_tables",
    "planned_memory",
    "plural",
    "print_json",
    "removed_text",
    "screen",
    "seconds_text",
    "some",
    "step_table",
    "summarize_tensor",
    "summary",
    "tensor_table",
    "text_of",
    "totals",
    "with_times",
]
