"""The page of `inspect`: whole, complete in itself, and safe whatever a model calls its layers."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import sparsec
from sparsec.compiler import Report
from sparsec.errors import ArtifactError
from sparsec.report.page import render_page, write_page
from sparsec.runtime.session import StepTime
from tests.report.page_reader import Page

NAMES = ["<script>alert(1)</script>", "price $5^{2}$", """a "b" & 'c'; d</title>""", "{{ 7 * 7 }}"]
SIZES = [24, 40, 32, 16, 8]


@pytest.fixture(autouse=True)
def no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsec.report.page.memory_bandwidth", lambda l3_bytes: 25e9)


def chain(names: list[str], batch: int | str = 16, share: float = 0.2) -> onnx.ModelProto:
    """Products one behind the other, whose weights have a share of nonzeros and no channel that is all zeros."""
    rng = np.random.default_rng(0)
    weights = []
    for rows, columns in pairwise(SIZES):
        mask = rng.random((rows, columns)) < share
        mask |= (share > 0) & (np.arange(rows)[:, None] % columns == np.arange(columns) % rows)
        weights.append(rng.standard_normal((rows, columns), np.float32) * mask)
    nodes = []
    for n, name in enumerate(names):
        nodes.append(helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"product{n}"], name=name))
        nodes.append(helper.make_node("Relu", [f"product{n}"], [f"x{n + 1}"]))
    last = len(names)
    nodes.append(helper.make_node("Relu", [f"x{last}"], ["y"]))
    x = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [batch, SIZES[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, SIZES[last]])
    constants = [numpy_helper.from_array(weight, f"w{n}") for n, weight in enumerate(weights[:last])]
    graph = helper.make_graph(nodes, "chain", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def report() -> Report:
    return sparsec.inspect(chain(NAMES), "x86-64-v3", options=True)


def test_the_page_shows_every_layer_and_only_text_of_the_model(report: Report) -> None:
    page = Page(render_page(report.as_dict(), "<b>model</b>", report.maps))
    assert page.count("script") == 0 and "<b>model</b>" in page.text
    for name in NAMES:
        assert page.text.count(name) >= 2, "in the table and on its bar"
    assert page.count("details") == len(report.layers) == len(NAMES)
    assert page.count("svg", role="img") == 2
    for layer in report.layers:
        assert layer.layout in page.text and layer.why in page.text and layer.why
        for option in layer.options:
            assert option.name in page.text


def test_the_page_maps_every_weight(report: Report) -> None:
    page = Page(render_page(report.as_dict(), "model", report.maps))
    small, whole, corner = (page.pictures[start::3] for start in range(3))
    for layer, *pictures in zip(report.layers, small, whole, corner, strict=True):
        assert {picture.size for picture in pictures} == {(layer.shape[1], layer.shape[0])}
        for picture in pictures:
            opaque = np.asarray(picture.convert("RGBA"))[..., 3] > 0
            assert np.isclose(opaque.mean(), 1 - layer.sparsity)


def test_refused_layouts_say_why(report: Report) -> None:
    fields = report.as_dict()
    fields["layers"][0]["options"] += [
        {"name": "2:4", "layout": "", "refusal": "row 3 has <3> entries", "nbytes": 0, "seconds": 0, "chosen": False}
    ]
    assert "row 3 has <3> entries" in Page(render_page(fields, "model")).text


def test_measured_times_are_shown_beside_predicted_ones(report: Report) -> None:
    steps = [StepTime(name, f"linear_{n}", 0.123 + n) for n, name in enumerate(NAMES)]
    page = Page(render_page(report.as_dict(), "model", report.maps, steps))
    assert "123 ms" in page.text and "3.1 s" in page.text
    assert "25 GB/s measured" in page.text and "chosen layout, measured" in page.text


def test_the_same_report_makes_the_same_page(report: Report) -> None:
    first, second = (render_page(report.as_dict(), "model", report.maps) for _ in range(2))
    assert first == second


def test_a_model_without_weights_has_a_page() -> None:
    report = sparsec.inspect(chain([]), options=True)
    page = Page(render_page(report.as_dict(), "model", report.maps))
    assert "no layers with weights" in page.text and page.count("svg") == 0


def test_a_weight_of_zeros_has_a_page() -> None:
    report = sparsec.inspect(chain(["fc"], share=0.0), options=True)
    page = Page(render_page(report.as_dict(), "model", report.maps))
    assert "100.0 %" in page.text and page.count("svg", role="img") == 2


def test_open_dimensions_are_noted() -> None:
    report = sparsec.inspect(chain(["fc"], "batch"), shapes={"batch": (1, 8)}, options=True)
    page = Page(render_page(report.as_dict(), "model", report.maps))
    assert "batch (1 to 8)" in page.text and page.count("details") == 1


def test_a_manifest_of_an_older_library_has_a_page_without_a_roofline(report: Report) -> None:
    fields = report.as_dict()
    for layer in fields["layers"]:
        for name in ("flops", "traffic", "options", "why"):
            del layer[name]
    page = Page(render_page(fields, "model"))
    assert page.count("svg", role="img") == 1 and page.count("img") == 0
    assert page.count("details") == len(NAMES)


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path, report: Report) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match=r"cannot write .*folder: "):
        write_page(tmp_path / "folder", "page")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (
        Page(report.to_html(tmp_path / "page.html", "mine").read_text(encoding="utf-8")).text.strip().startswith("mine")
    )


def test_work_and_traffic_count_what_is_there(report: Report) -> None:
    for layer in report.layers:
        rows, depth = layer.shape
        assert layer.flops == round(2 * 16 * rows * depth * (1 - layer.sparsity))
        assert layer.traffic == layer.nbytes + 4 * 16 * (rows + depth)


def test_a_grouped_convolution_has_no_zeros_but_its_own() -> None:
    weight = np.random.default_rng(0).standard_normal((16, 1, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="depthwise", group=16, pads=[1, 1, 1, 1])
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 14, 14]) for name in "xy"]
    graph = helper.make_graph([node], "grouped", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (layer,) = sparsec.inspect(model, "x86-64-v3", options=True).layers
    assert (layer.sparsity, layer.structure, layer.dense_nbytes) == (0, "dense", weight.nbytes)
    assert layer.dense_seconds == layer.seconds
    assert "as fast as dense by the model" in layer.why or layer.why.startswith("dense: ")
