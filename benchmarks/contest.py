"""Compile one benchmark network and race it: what ``make bench`` and ``make demo`` share."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sparsec
from benchmarks.models import cached
from sparsec.bench import Race, race

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


@dataclass(frozen=True)
class Contest:
    """One race of one compiled network."""

    compiled: Compiled
    race: Race

    def to_json(self) -> dict[str, Any]:
        """The race, with what was compiled and how large and how slow to make it is."""
        compiled = self.compiled
        return {
            "network": compiled.network,
            "sparsity": compiled.sparsity,
            "compile_seconds": compiled.seconds,
            "model_bytes": compiled.model.stat().st_size,
            "artifact_bytes": compiled.artifact.stat().st_size,
            **self.race.to_json(),
        }


def compile_network(network: str, sparsity: float, folder: Path, threads: int) -> Compiled:
    """Write the network to ``folder`` (once) and compile it (always, since the compiler may have changed)."""
    model = cached(folder, network, sparsity)
    artifact = model.with_suffix(f".{threads}.so")
    start = time.perf_counter()
    sparsec.compile(model, threads=threads).save(artifact)
    return Compiled(network, sparsity, model, artifact, time.perf_counter() - start)


def contest(compiled: Compiled, threads: int, seconds: float, peers: tuple[str, ...]) -> Contest:
    """Race the library against the peers on the file that it was compiled from."""
    return Contest(compiled, race(compiled.model, peers, threads, compiled.artifact, seconds))
