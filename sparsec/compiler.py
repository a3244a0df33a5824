"""The face of the compiler: from a model, or one operator, to an artifact."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsec.codegen.artifact import Artifact, build
from sparsec.errors import ArtifactError, InputError, ModelError, TargetError
from sparsec.frontends import load_model
from sparsec.graph.attention import join_attention
from sparsec.graph.bag_embeddings import bag_embeddings
from sparsec.graph.canonicalize import canonicalize
from sparsec.graph.choose import Choose, Chooser
from sparsec.graph.few_bits import few_bits
from sparsec.graph.find_integers import find_integers, stored_groups
from sparsec.graph.from_relax import from_relax
from sparsec.graph.fuse import Group, fuse
from sparsec.graph.given_layouts import Given, GivenLayouts, read_layout
from sparsec.graph.graph import Graph
from sparsec.graph.integer_layers import integer_layers
from sparsec.graph.kernels import Kernels
from sparsec.graph.layer import Layer, describe_layer, in_model, own_matrix
from sparsec.graph.layer_names import layer_names
from sparsec.graph.lower import lower, plan_text
from sparsec.graph.pad_columns import pad_columns
from sparsec.graph.patterned import find_patterned
from sparsec.graph.plan_images import plan_images
from sparsec.graph.plan_layouts import plan_layouts
from sparsec.graph.recognize_masked_attention import recognize_masked_attention
from sparsec.graph.round_activations import COMPUTED, round_activations
from sparsec.graph.split_batch import split_batch
from sparsec.graph.store_weights import STORAGES, store_weights
from sparsec.graph.winograd import use_winograd
from sparsec.ir.layout import Layout
from sparsec.ir.sums import Sum
from sparsec.operators import MASKED, build_operator
from sparsec.report import plural, summary, text_of, totals
from sparsec.report.maps import WeightMap
from sparsec.runtime.session import check_threads
from sparsec.schedules.rules.options import options as find_options
from sparsec.schedules.rules.product import propose
from sparsec.search.measure import Measured
from sparsec.targets import Target

if TYPE_CHECKING:
    from sparsec.runtime.session import Session, StepTime

Progress = Callable[[str, float], None]
"""Called with the name of a stage and the fraction of all work that is done."""


def compile(
    model: Any,
    target: str | Target = "native",
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    shapes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    dump: str | os.PathLike[str] | None = None,
    measure: bool = False,
    storage: str | None = None,
    layouts: Given | Mapping[str, Given] | None = None,
    compute: str | None = None,
    dense: bool = False,
    threads: int | None = None,
) -> Artifact:
    """Compile a model into one shared library.

    >>> artifact = sparsec.compile("bert.onnx")                                   # doctest: +SKIP
    >>> artifact.save("bert.so")                                                  # doctest: +SKIP
    >>> sparsec.compile("bert.onnx", target="x86-64-v3", shapes={"batch": 1})     # doctest: +SKIP

    Parameters
    ----------
    model : path, onnx.ModelProto, torch.nn.Module or torch.export.ExportedProgram
    target : str or Target
        What to compile for, as `Target.parse` reads it.
    example_inputs : tuple or dict of torch.Tensor, optional
        What a ``torch.nn.Module`` is traced with.
    shapes : mapping, optional
        Closes or bounds open dimensions; see `sparsec.frontends.load_model`.
    progress : callable, optional
        Called with the name of a stage and the fraction of all work that is done.
    dump : path, optional
        A folder for the graph after every pass and every kernel in all its forms, as text.
    measure : bool
        Choose layouts and tiles by timing candidates on one thread of this machine, about a second for each form of
        layer, instead of by the model of the target.
    storage : {"float16", "bfloat16", "int8", "int4", "int4:32", "int4:64", "int4:128"}, optional
        What the weights of layers are rounded to and stored as, a half, a quarter or an eighth of the bytes of float32.
        Of integers all of a row share a scale, or as many as are behind the colon. Sums stay float32, and activations
        keep the types that the model has. See `sparsec.graph.store_weights` for how far off results are.
    layouts : str, Layout or mapping, optional
        Layouts that are not to be chosen: one for all layers, or by the name of the layer, in which ``*`` stands for
        anything; a whole name counts before others, and of these the first that fits. A layout is written out, as
        ``"(i, k) -> (i : dense, k : bitmap)"`` (the outputs of a layer are ``i``, its inputs ``k``) and is taken so, or
        has a name. One that `inspect` prints, such as ``"bucketed rows"``, stands for a kind, of which each weight
        takes the layout that is predicted to be the fastest. Of grouped convolutions ``dense`` is what is best for the
        zeros between the groups.
    compute : {"bfloat16"}, optional
        What layers multiply, where the target has instructions for it: weights and what layers read are rounded, sums
        stay float32. See `sparsec.graph.round_activations` for how far off results are.
    dense : bool
        Choose among dense layouts only, as if no weight had zeros: what a pruned model is to be compared with. With
        `measure` these are timed.
    threads : int, optional
        How many threads the artifact will mostly run on: layouts and loops are chosen for so many, and it still runs on
        any number, but gains little from more. The default is the cores of the target: those of this machine for
        ``"native"``, one for other names.

    Raises
    ------
    SparsecError
        The model cannot be read or holds what is not supported, the target is not known, or the artifact or the dump
        cannot be written.
    """
    choose = Measured() if measure else propose
    run = _Run(_target(target, threads), progress, dump, choose, storage, _given(layouts), compute, dense)
    return run.build(run.read(model, example_inputs, shapes))


@dataclass(frozen=True, repr=False)
class Report:
    """What `inspect` found; printed, it is the table that `sparsec inspect` shows.

    Parameters
    ----------
    target : what the layers would be compiled for
    layers : those with weights, in the order in which they run
    symbols : the bounds of dimensions that are open
    maps : of the weight of each layer
    removed : names of layers of the model that are gone, since zeros leave them without effect or they were merged
    """

    target: Target
    layers: tuple[Layer, ...]
    symbols: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    maps: tuple[WeightMap, ...] = field(default=(), repr=False, compare=False)
    removed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        summed = totals(self.as_dict()["layers"])
        return f"<Report of {plural(summed.layers, 'layer')}, {summed.sparse} sparse, on {self.target.name}>"

    def __str__(self) -> str:
        return text_of(summary(self.as_dict(), "the model"))

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values, without the maps."""
        symbols = {name: list(bounds) for name, bounds in self.symbols.items()}
        layers = [layer.as_dict() for layer in self.layers]
        facts = {"target": self.target.as_dict(), "symbols": symbols}
        return facts | {"layers": layers, "removed": list(self.removed)}

    def to_html(
        self, path: str | os.PathLike[str], title: str = "model", steps: Sequence[StepTime] = (), threads: int = 1
    ) -> Path:
        """Write a page with charts, maps of the weights and the layouts of each layer, and return its path.

        >>> report = sparsec.inspect("bert.onnx", options=True)                       # doctest: +SKIP
        >>> report.to_html("bert.html", "BERT")                                       # doctest: +SKIP
        >>> session = sparsec.compile("bert.onnx").load(threads=1)                    # doctest: +SKIP
        >>> report.to_html("bert.html", "BERT", steps=session.profile(ids, mask))     # doctest: +SKIP

        Parameters
        ----------
        path : where to write it; the page needs no other file and no network
        title : what to call the model
        steps : times that `Session.profile` of the compiled model measured on this machine
        threads : how many threads the session used

        Raises
        ------
        ArtifactError
            The file cannot be written.
        """
        from sparsec.report.page import render_page, write_page  # plots and templates load slowly

        return write_page(path, render_page(self.as_dict(), title, self.maps, steps, threads))


def inspect(
    model: Any,
    target: str | Target = "native",
    example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    shapes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    storage: str | None = None,
    layouts: Given | Mapping[str, Given] | None = None,
    options: bool = False,
    compute: str | None = None,
    threads: int | None = None,
) -> Report:
    """Say of every layer how sparse it is, and what `compile` would choose for it and why.

    Takes what `compile` takes, and raises what it raises, but compiles nothing.

    >>> for layer in sparsec.inspect("bert.onnx").layers:                         # doctest: +SKIP
    ...     print(layer.name, layer.sparsity, layer.structure, layer.dense_seconds / layer.seconds)

    Parameters
    ----------
    options : bool
        Also list, for each layer, every layout with its size and predicted time, or the reason why it cannot hold the
        weight, and say why the chosen one was.
    """
    given = _given(layouts)
    run = _Run(_target(target, threads), progress, None, storage=storage, given=given, compute=compute)
    if isinstance(model, str | os.PathLike) and os.fspath(model).endswith(".so"):
        raise ModelError(
            f"{os.fspath(model)} is compiled already; its layers are in sparsec.load(...).manifest['layers'], "
            "and `sparsec inspect` shows them"
        )
    graph = run.read(model, example_inputs, shapes)
    groups = run.fuse(graph)
    layers, maps = [], []
    for done, group in enumerate(groups):
        if group.anchor and group.anchor.matrix and group.anchor.is_layer:
            matrix = group.anchor.matrix()
            proposal = run.choose(group, matrix)
            known = find_options(group.product, matrix, run.target, proposal) if options else ()
            layers.append(describe_layer(group, matrix, proposal, run.target, known))
            maps.append(WeightMap.of(matrix if group.anchor.weight.origin is None else own_matrix(group.anchor)))
        elif (patterned := find_patterned(group.nodes[0])) and patterned.matrix and patterned.describe:
            layers.append(patterned.describe(group.works[0], run.target))
            maps.append(WeightMap.of(patterned.matrix()))
        run.progress("choose layouts", 0.6 + 0.4 * (done + 1) / len(groups))
    run.choose.given.check_all_used()
    return Report(run.target, tuple(in_model(layers, graph)), dict(graph.symbols), tuple(maps), tuple(run.removed))


def op(
    name: str,
    *operands: Any,
    target: str | Target = "native",
    threads: int | None = None,
    dump: str | os.PathLike[str] | None = None,
    storage: str | None = None,
    layout: Given | None = None,
    **options: Any,
) -> Session:
    """Compile one operator with a constant weight, pattern or table, and load it.

    >>> multiply = sparsec.op("matmul", scipy.sparse.random(512, 256, 0.1, dtype="float32"), columns=64)
    ...                                                                           # doctest: +SKIP
    >>> y = multiply(x)                                                           # doctest: +SKIP

    Parameters
    ----------
    name : {"attention", "embedding_bag", "low_bit_matmul", "matmul", "sddmm"}
    operands, options
        What the function of this name in `sparsec.operators` takes.
    target, dump
        As in `compile`.
    storage
        As in `compile`, for the operators that have a weight or a table.
    threads : int, optional
        As in `sparsec.load`; the operator is compiled for so many.
    layout : str or Layout, optional
        How the weight, or what is computed at the entries of a mask, is stored, by name or in the notation; otherwise
        it is chosen.

    Raises
    ------
    LayoutError
        A layout that cannot hold the weight or the mask without loss.
    InputError
        An operator or activation that is not known, or operands that do not fit together.
    """
    given = None if layout is None or name != "matmul" else {name: layout}  # the others build it into their graph
    run = _Run(_target(target, threads), None, dump, storage=storage, given=_given(given))
    if storage is not None and name in MASKED:
        raise InputError(f"{name} has a mask and no weights to store as {storage}; leave storage out")
    return run.build(build_operator(name, operands, options, layout, run.target)).load(threads)


def _given(layouts: Given | Mapping[str, Given] | None) -> GivenLayouts:
    """Read layouts by layer; those that are given by name keep it, so that each weight takes the best of that kind."""
    by_layer = layouts if isinstance(layouts, Mapping) else {"*": layouts} if layouts is not None else {}
    return GivenLayouts({layer: _named(layout) for layer, layout in by_layer.items()})


def _named(layout: Given) -> Layout | Sum:
    found = read_layout(layout)
    return replace(found, name=layout.strip()) if isinstance(layout, str) and "->" not in layout else found


def _target(target: str | Target, threads: int | None) -> Target:
    check_threads(threads)
    found = Target.parse(target) if isinstance(target, str) else target
    return found if threads is None else found.with_cores(threads)


def _check_storage(storage: str | None, target: Target) -> None:
    if storage not in (None, *STORAGES):
        raise InputError(f"weights cannot be stored as {storage!r}; storage is one of {', '.join(STORAGES)}")
    machine = target.machine
    if storage == "float16" and machine.arch == "x86_64" and not machine.has("f16c"):
        raise TargetError(
            f"{machine.name} has no instruction that reads float16 (F16C), so layers would be slow; "
            "store the weights as bfloat16"
        )


class _Run:
    """One run of the compiler: what it compiles for, whom it tells, and where it dumps."""

    def __init__(
        self,
        target: Target,
        progress: Progress | None,
        dump: str | os.PathLike[str] | None,
        choose: Choose = propose,
        storage: str | None = None,
        given: GivenLayouts | None = None,
        compute: str | None = None,
        dense: bool = False,
    ) -> None:
        _check_storage(storage, target)
        if compute not in (None, *COMPUTED):
            raise InputError(f"layers cannot be computed in {compute!r}; compute is one of {', '.join(COMPUTED)}")
        self.storage, self.compute = storage, compute
        self.target = target
        self.choose = Chooser(target, choose, given or GivenLayouts(), dense)
        self.progress: Progress = progress or (lambda stage, fraction: None)
        self.dump = None if dump is None else Path(dump)
        self.dumped = 0
        self.outputs: tuple[str, ...] = ("y",)
        self.removed: list[str] = []
        self.groups: frozenset[int] = frozenset()
        if self.dump is not None:
            try:
                (self.dump / "kernels").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ArtifactError(f"cannot dump into {dump}: {error.strerror or error}") from None

    def read(self, model: Any, example_inputs: Any, shapes: Any) -> Graph:
        """Read a model and run the passes over its graph."""
        self.progress("read the model", 0.0)
        imported = load_model(model, example_inputs, shapes)
        self.progress("simplify", 0.3)
        graph, self.outputs = from_relax(imported), imported.outputs
        self.groups = imported.groups | stored_groups(graph)
        del imported  # its copy of the weights is not needed any more
        self.write("from_relax", graph)
        integer_layers(graph, self.target)
        self.write("integer_layers", graph)
        layers = canonicalize(graph, self.write)
        for pass_ in (split_batch, recognize_masked_attention, bag_embeddings):
            pass_(graph, self.target)
            self.write(pass_.__name__, graph)
        if not (self.groups or self.storage or self.compute):
            use_winograd(graph, self.target, self.choose.given.allows_filtering, self.choose.dense)
            self.write("use_winograd", graph)
        plan_images(graph, self.target.unit_lanes("float32"))
        self.write("plan_images", graph)
        plan_layouts(graph)
        self.write("plan_layouts", graph)
        few_bits(graph, self.target, self.choose.given.is_free)
        self.write("few_bits", graph)
        pad_columns(graph, self.target)
        self.write("pad_columns", graph)
        left = set(layer_names(graph))
        self.removed = [name for name in layers if name not in left]
        return graph

    def fuse(self, graph: Graph) -> list[Group]:
        self.progress("fuse", 0.5)
        if self.groups:
            find_integers(graph, self.groups)
            self.write("find_integers", graph)
        if self.compute is not None:
            round_activations(graph, self.target, self.compute)
            self.write("round_activations", graph)
        if self.storage is not None:
            store_weights(graph, self.storage)
            self.write("store_weights", graph)
        groups = join_attention(graph, fuse(graph, self.target), self.target)
        self.write("fuse", "\n".join(map(str, groups)))
        return groups

    def build(self, graph: Graph) -> Artifact:
        groups = self.fuse(graph)
        kernels = Kernels(self.choose, self.dump and self.dump / "kernels")
        scheduled = lambda done: self.progress("schedule kernels", 0.55 + 0.25 * done)  # noqa: E731
        plan = lower(graph, groups, kernels, self.outputs, scheduled)
        self.choose.given.check_all_used()
        self.write("plan", plan_text(plan))
        self.progress("generate code, link (first time: a minute)", 0.8)
        plan.manifest.update(storage=self.storage, compute=self.compute, removed=self.removed)
        artifact = build(plan)
        self.progress("done", 1.0)
        return artifact

    def write(self, stage: str, content: object) -> None:
        """Dump the state after a stage."""
        if self.dump is not None:
            self.dumped += 1
            (self.dump / f"{self.dumped:02}_{stage}.txt").write_text(f"{content}\n")
