import math

import numpy as np
import pytest

from sparsec.errors import ModelError, UnsupportedError
from sparsec.frontends import load_model
from tests.frontends.onnx_cases import run_relax

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")
nn = torch.nn


class Attention(nn.Module):
    """Embeddings, positions from a buffer, one attention by hand or by PyTorch's own, layer norm and GELU."""

    def __init__(self, fused, dim=16, heads=2):
        super().__init__()
        self.fused, self.heads = fused, heads
        self.words, self.positions = nn.Embedding(50, dim), nn.Embedding(32, dim)
        self.register_buffer("order", torch.arange(32)[None])
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, dim)

    def forward(self, ids, mask):
        batch, length = ids.shape
        x = self.norm(self.words(ids) + self.positions(self.order[:, :length]))
        bias = (1.0 - mask[:, None, None, :].float()) * -1e4
        q, k, v = (
            layer(x).view(batch, length, self.heads, -1).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        if self.fused:
            y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        else:
            y = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias, -1) @ v
        return {"hidden": x + nn.functional.gelu(self.out(y.transpose(1, 2).reshape(batch, length, -1))), "tokens": x}


def tokens(batch, length):
    ids = torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[:, 1 + length // 2 :] = 0
    return ids, mask


def operators_of(imported):
    return [
        binding.value.op.name
        for block in imported.module["main"].body.blocks
        for binding in block.bindings
        if hasattr(binding.value, "op")
    ]


SYMBOLIC = {"ids": ("batch", "seq"), "mask": ("batch", "seq"), "batch": (1, 4), "seq": (1, 32)}


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True])
def test_attention_with_symbolic_batch_and_sequence(fused):
    torch.manual_seed(0)
    model = Attention(fused).eval()
    imported = load_model(model, tokens(1, 8), SYMBOLIC)
    assert (imported.inputs, imported.outputs) == (("ids", "mask"), ("hidden", "tokens"))
    assert imported.symbols == {"batch": (1, 4), "seq": (1, 32)}
    for batch, length in [(1, 1), (3, 32)]:
        example = tokens(batch, length)
        results = run_relax(imported, [value.numpy() for value in example])
        for got, want in zip(results, model(*example).values(), strict=True):
            np.testing.assert_allclose(got, want.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_graph_stays_simple():
    """No reshapes around matrix products, no attention operator, no slices of known bounds left as minima."""
    operators = operators_of(load_model(Attention(True), tokens(2, 8), SYMBOLIC))
    assert operators.count("relax.matmul") == 6
    assert operators.count("relax.reshape") == 4
    assert not {"relax.nn.attention", "relax.index_tensor"} & set(operators)


def test_layers_are_modules():
    imported = load_model(Attention(True), tokens(2, 8))
    modules = {layer.partition(":")[0] for layer in imported.layers.values()}
    assert {"words", "query", "norm", "out"} <= modules


def test_weights_are_constants():
    imported = load_model(Attention(False), tokens(2, 8))
    assert len(imported.module["main"].params) == 2


def test_keyword_example_inputs():
    ids, mask = tokens(2, 8)
    assert load_model(Attention(False), {"mask": mask, "ids": ids}).inputs == ("ids", "mask")


def test_module_keeps_its_mode():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4))
    model[2].eval()
    load_model(model, torch.zeros(2, 4))
    assert [module.training for module in model.modules()] == [True, True, True, False]


@pytest.fixture
def program():
    dims = {"x": {0: torch.export.Dim("n", min=1, max=8)}}
    return torch.export.export(nn.Linear(4, 3), (torch.zeros(2, 4),), dynamic_shapes={"input": dims["x"]}, strict=False)


def test_exported_program_keeps_its_range(program):
    imported = load_model(program)
    assert list(imported.symbols.values()) == [(1, 8)]


def test_exported_program_can_be_closed(program):
    imported = load_model(program, shapes={"input": (5, 4)})
    assert imported.symbols == {}
    assert [int(size) for size in imported.module["main"].ret_ty.shape] == [5, 3]


def test_exported_program_file(program, tmp_path):
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    assert load_model(path, shapes={"input": ("n", 4), "n": (1, 4)}).symbols == {"n": (1, 4)}
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"not an exported PyTorch program, or it is truncated"):
        load_model(path)
    with pytest.raises(ModelError, match="cannot read"):
        load_model(tmp_path / "nowhere.pt2")


def test_example_inputs_are_needed():
    with pytest.raises(ModelError, match=r"Linear needs example inputs, as in example_inputs="):
        load_model(nn.Linear(4, 3))


def test_example_inputs_must_fit():
    with pytest.raises(ModelError, match=r"do not fit Linear.forward"):
        load_model(nn.Linear(4, 3), (torch.zeros(2, 4), torch.zeros(2, 4)))


def test_example_inputs_must_be_tensors():
    with pytest.raises(ModelError, match=r"argument 'input' of Linear.forward is int"):
        load_model(nn.Linear(4, 3), (1,))


def test_shapes_must_fit_the_example():
    with pytest.raises(ModelError, match="asks for 5 at axis 0, but its example has 2"):
        load_model(nn.Linear(4, 3), torch.zeros(2, 4), {"input": (5, 4)})


def test_failed_export_is_one_sentence():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match=r"torch.export cannot export Branches"):
        load_model(Branches(), torch.zeros(2))


def test_unsupported_operator_names_the_module():
    class Determinant(nn.Module):
        def forward(self, x):
            return torch.linalg.det(x)

    with pytest.raises(UnsupportedError, match=r"node '0:.*operator .*det.*float32\[3, 3\]"):
        load_model(nn.Sequential(Determinant()), torch.zeros(3, 3))
