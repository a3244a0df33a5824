"""Benchmark networks, compiled."""

import time
from dataclasses import dataclass
from pathlib import Path

import sparsec
from benchmarks.models import cached

TITLES = {
    "bert_base": "BERT-base, 128 tokens",
    "resnet50": "ResNet-50, 224²",
    "resnet18": "ResNet-18, 224²",
    "vgg16": "VGG-16, 224²",
    "mobilenet_v2": "MobileNetV2, 224²",
    "vit_small": "ViT-S/16, 224²",
}


@dataclass(frozen=True)
class Compiled:
    """A benchmark network as an ONNX file and as a library.

    ``seconds`` is the time to compile it; ``sparsity`` the share of zeros in every pruned weight.
    """

    network: str
    sparsity: float
    model: Path
    artifact: Path
    seconds: float

    @property
    def label(self) -> str:
        """A name for tables: ``BERT-base, 128 tokens, 90 %``."""
        return f"{TITLES[self.network]}, {self.sparsity * 100:g} %"


def compile_network(network: str, sparsity: float, folder: Path, threads: int) -> Compiled:
    """Write the network to ``folder`` (once) and compile it (always, since the compiler may have changed)."""
    model = cached(folder, network, sparsity)
    artifact = model.with_suffix(f".{threads}.so")
    start = time.perf_counter()
    sparsec.compile(model, threads=threads).save(artifact)
    return Compiled(network, sparsity, model, artifact, time.perf_counter() - start)
