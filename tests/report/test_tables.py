"""Tables for people: layouts of each kind of layer, and measured times."""

from typing import Any

import pytest
from rich.console import Console

from sparsec.report import (
    known_by,
    layer_table,
    memory_text,
    options_tables,
    planned_memory,
    step_table,
    summary,
    with_times,
)
from sparsec.runtime.session import StepTime
from sparsec.schedules.rules import prices

CSR = "(i, k) -> (i : dense, k : compressed)"
BLOCKS = "(i, k) -> (i floordiv 4 : bucketed, k : compressed, i mod 4 : dense)"


def option(name: str, seconds: float, chosen: bool = False, refusal: str | None = None) -> dict[str, Any]:
    return {"name": name, "layout": CSR, "refusal": refusal, "nbytes": 1000, "seconds": seconds, "chosen": chosen}


def layer(name: str, **fields: Any) -> dict[str, Any]:
    known = [option("CSR", 1e-4, chosen=True), *(option(f"{n}x1 blocks", n * 1e-4) for n in range(2, 9))]
    refused = [option("2:4", 0, refusal="row 3 has 3 entries [in] columns 8 to 11, and 2:4 holds 2")]
    return {
        "name": name,
        "op": "linear",
        "shape": [64, 32],
        "sparsity": 0.9,
        "structure": "unstructured",
        "layout": CSR,
        "nbytes": 1000,
        "dense_nbytes": 8192,
        "seconds": 1e-4,
        "dense_seconds": 2e-3,
        "options": [*known, option("dense", 2e-3), *refused],
        "why": "CSR: 20.0× as fast as dense by the model",
    } | fields


def printed(renderable: Any, width: int = 100) -> str:
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    return text


def test_few_layouts_are_the_best_with_dense_and_the_chosen_one() -> None:
    text = printed(options_tables([layer("fc")]))
    assert "fc: linear 64×32, 90.0% zeros, unstructured\n" in text
    assert "▸  CSR" in text and "6x1 blocks" in text and "7x1 blocks" not in text
    assert "dense" in text and "2 slower layouts not shown" in text
    assert "left out: 2:4" in text and "row 3" not in text
    assert "CSR: 20.0× as fast" in text and CSR in text
    assert text.endswith("1 layer, 1 sparse: 1.0 kB, predicted 100 µs, 20.00× as fast as dense\n")


def test_all_layouts_are_shown_with_reasons() -> None:
    text = printed(options_tables([layer("fc")], everything=True))
    for name in ("CSR", *(f"{n}x1 blocks" for n in range(2, 9)), "dense"):
        assert name in text
    assert "✗  2:4: row 3 has 3 entries [in] columns 8 to 11, and 2:4 holds 2" in text
    assert "not shown" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [64, 64]},
        {"op": "conv2d"},
        {"sparsity": 0.8},
        {"structure": "2:4"},
        {"dense_seconds": 3e-3},
        {"options": [option("dense", 1e-4, chosen=True)]},
    ],
)
def test_layers_of_one_kind_share_a_table(change: dict[str, Any]) -> None:
    layers = [layer(f"fc{n}", sparsity=0.9 + n / 1e4) for n in range(5)]
    text = printed(options_tables([*layers, layer("other", **change)]))
    assert "fc0, fc1, fc2 and 2 more: linear" in text
    assert "\nother: " in text and text.count("CSR: 20.0×") == 2


def test_a_step_belongs_to_the_next_layer_of_its_name_and_operator() -> None:
    steps = [
        StepTime("fc", "transpose_0", 9.0),
        StepTime("fc", "linear_1", 1.0),
        StepTime("attention", "matmul_2", 9.0),
        StepTime("fc", "linear_1", 2.0),
        StepTime("conv", "conv2d_3", 3.0),
    ]
    layers = [layer("fc"), layer("fc"), layer("conv", op="conv2d")]
    assert [timed.get("measured") for timed in with_times(layers, steps)] == [1.0, 2.0, 3.0]
    assert with_times(layers, []) == layers


def test_transforms_belong_to_the_layer_between_them() -> None:
    steps = [
        StepTime("conv", "conv2d_0", 1.0),
        StepTime("conv1", "winograd_input_1", 0.5),
        StepTime("conv1", "conv2d_2", 2.0),
        StepTime("pool", "max_pool_5", 9.0),
        StepTime("conv1", "winograd_output_3", 0.25),
        StepTime("conv2", "winograd_input_1", 0.5),
        StepTime("conv2", "conv2d_2", 4.0),
    ]
    layers = [layer(name, op="conv2d", filtering=name[4:]) for name in ("conv", "conv1", "conv2")]
    assert [timed.get("measured") for timed in with_times(layers, steps)] == [1.0, 2.75, 4.5]


def test_a_layer_without_a_step_leaves_those_behind_it_theirs() -> None:
    steps = [StepTime("few", "low_bit_0", 1.0), StepTime("fc", "linear_1", 2.0)]
    assert [timed.get("measured") for timed in with_times([layer("few"), layer("fc")], steps)] == [None, 2.0]


def step(label: str, seconds: float, **fields: Any) -> dict[str, Any]:
    nothing = {"flops": 0, "instruction": "", "share_of_peak": None, "dense_seconds": None, "speedup": None}
    return {"label": label, "kernel": f"{label}_0", "seconds": seconds} | nothing | fields


FC = step("fc", 1e-3, flops=40_000_000, instruction="fma.8", share_of_peak=0.4)
QUANTISED = step("int8", 1e-3, flops=60_000_000, instruction="x86.vpmaddwd.256", share_of_peak=0.3)
SOFTMAX = step("softmax", 2e-3)


def cells(text: str, label: str) -> list[str]:
    """A row of a table."""
    (row,) = (line for line in text.splitlines() if line.startswith("│") and line.split("│")[1].strip() == label)
    return [cell.strip() for cell in row.split("│")[1:-1]]


def test_steps_are_held_against_the_peak_of_their_arithmetic() -> None:
    text = printed(step_table([FC, QUANTISED, SOFTMAX], {"fma.8": 1e11, "x86.vpmaddwd.256": 2e11}), 120)
    assert cells(text, "fc") == ["fc", "fc_0", "1.0 ms", "25.0%", "40.0 GFLOP/s", "40%"]
    assert cells(text, "int8") == ["int8", "int8_0", "1.0 ms", "25.0%", "60.0 GOP/s", "30%"]
    assert cells(text, "softmax") == ["softmax", "softmax_0", "2.0 ms", "50.0%", "", ""]
    assert cells(text, "3 steps")[2:] == ["4.0 ms", "", "", "18%"]
    assert "peak of a core: fma.8 100 GFLOP/s, x86.vpmaddwd.256 200 GOP/s\n" in text
    assert "dense" not in text


def test_steps_that_no_peak_is_known_of_show_their_rate_alone() -> None:
    text = printed(step_table([FC | {"instruction": "", "share_of_peak": None}], {}))
    assert cells(text, "fc")[4:] == ["40.0 GOP/s", ""] and "peak of a core" not in text


@pytest.mark.parametrize(("speedup", "slower"), [(0.93, True), (0.996, False), (3.0, False)])
def test_layers_that_are_slower_than_dense_are_red(speedup: float, slower: bool) -> None:
    table = step_table([FC | {"dense_seconds": speedup * 1e-3, "speedup": speedup}, SOFTMAX], {"fma.8": 1e11})
    console = Console(width=100, force_terminal=True, color_system="standard")
    with console.capture() as capture:
        console.print(table)
    red = "\x1b[1;31m"
    assert (red in capture.get()) == slower
    text = printed(table)
    assert cells(text, "fc")[-1] == f"{speedup:.2f}×" and cells(text, "softmax")[-2:] == ["", ""]
    told = "1 layer is slower than its dense self: fc (0.93×)\n"
    assert (told if slower else "no layer is slower than its dense self; those without a time are dense\n") in text


def test_memory_is_told_as_far_as_it_is_known() -> None:
    manifest = {"constant_bytes": 51_000_000, "arena_bytes": 2_400_000, "workspace_bytes": 0, "steps": []}
    assert memory_text(planned_memory(manifest)) == "memory: 51.0 MB weights, 2.4 MB activations"
    assert memory_text(planned_memory({"arena_bytes": 64}), 128) == "memory: 64 B activations; a run took 128 B"


def test_measured_times_are_a_column_where_there_are_any() -> None:
    layers = [layer("fc1"), layer("fc2")]
    assert "measured" not in printed(layer_table(layers, "model"))
    assert "–" in printed(layer_table([layers[0] | {"measured": 0.5}, layers[1]], "model"))


def test_times_that_layouts_were_chosen_by_are_no_predictions() -> None:
    timed, predicted = layer("timed", timed=True), layer("older")
    assert "predicted" not in printed(layer_table([timed], "model")) and known_by([predicted]) == "predicted"
    assert "measured or predicted" in printed(layer_table([timed, predicted], "model"), 200)
    header = printed(layer_table([timed | {"measured": 0.5}], "model"), 200)
    assert "measured alone" in header and "measured " in header.replace("measured alone", "")


def test_layers_tell_which_channels_they_have_lost() -> None:
    whole, less = layer("whole", removed_outputs=0), layer("less", removed_outputs=12, removed_inputs=1)
    assert "removed" not in printed(layer_table([whole, layer("older")], "model"), 200)
    text = printed(layer_table([whole, less], "model"), 200)
    assert "removed" in text and "12 outputs, 1 input" in text and "–" in text
    assert "narrow: removed" in printed(layer_table([whole, less], "model"), 100)


@pytest.mark.parametrize(
    ("width", "dropped"), [(80, ["bytes", "dense", "weight"]), (100, ["bytes"]), (120, []), (240, [])]
)
def test_narrow_terminals_keep_names_and_go_without_columns(width: int, dropped: list[str]) -> None:
    name = "/encoder/layer.11/attention/output/dense/MatMul"
    layers = [layer(name, shape=[3072, 768]), layer("fc", structure="4x1 blocks", layout=BLOCKS)]
    text = printed(layer_table(layers, "model"), width)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    header = next(line for line in text.splitlines() if line.startswith("┃"))
    assert "".join(row[0] for row in rows).startswith(f"{name}fc")
    found = {cell for row in rows for cell in row}
    assert {"90.0% unstructured", "90.0% 4x1 blocks", "CSR", "4x1 blocks", "20.00×"} <= found
    assert not any(f" {column} " in header for column in dropped)
    assert ("not shown, as the terminal is narrow: " + ", ".join(dropped) in text) == bool(dropped)


def test_layouts_without_a_name_have_letters() -> None:
    layouts = [CSR, "(i, k) -> (k : dense, i : bitmap, k : bitmap)", "(i, k) -> (i : compressed, k : bitmap)"]
    layers = [layer(f"fc{n}", layout=layout) for n, layout in enumerate([*layouts, layouts[1]])]
    text = printed(layer_table(layers, "model"), 120)
    assert [cells(text, f"fc{n}")[3] for n in range(4)] == ["CSR", "two-level bitmap", "A", "two-level bitmap"]
    assert text.endswith(f"A  {layouts[2]}\n")


def test_what_predictions_assume_of_open_dimensions_is_told() -> None:
    report = {"target": {"name": "x"}, "layers": [layer("fc")], "symbols": {"batch": [1, 8], "tokens": [1, 512]}}
    for layouts in (None, "few"):
        told = printed(summary(report, "model", layouts), 200)
        assert f"batch (1 to 8), tokens (1 to 512); predictions assume {prices.ASSUMED} columns" in told
    assert "assume" not in printed(summary(report | {"symbols": {}}, "model"))
