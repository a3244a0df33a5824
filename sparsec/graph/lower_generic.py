"""One fused loop-level function from a group of Relax operators."""

from tvm import relax, tirx
from tvm.ir import IRModule
from tvm.tirx.buffer import is_buffer_var

from sparsec.errors import UnsupportedError
from sparsec.graph import legalize_numbers, legalize_sorting

_LEGAL = legalize_numbers.LEGAL | legalize_sorting.LEGAL


def lower_group(module: IRModule, name: str = "group") -> tirx.PrimFunc:
    """Lower the `main` function of a module, all calls of it, to one function over buffers.

    FuseOps would fuse only what its patterns allow. A function that is marked primitive is merged as a whole, so the
    group is marked and called once from a function around it.

    Parameters
    ----------
    module : IRModule
        A Relax module whose `main` has one dataflow block of operators on its parameters.
    name : str
        The global symbol of the result.

    Returns
    -------
    PrimFunc
        Its parameters are those of `main`, then one buffer per output, then symbolic sizes that no shape shows.

    Raises
    ------
    UnsupportedError
        If TVM has no loops for one of the operators.
    """
    # What the first pass emits for sorting are operators again.
    legal = relax.transform.LegalizeOps()(relax.transform.LegalizeOps(_LEGAL)(module))
    group = legal["main"]
    operators = _left_over(group)
    if operators:
        raise UnsupportedError(f"{', '.join(operators)}: TVM has no loop-level form of this operator")
    builder = relax.BlockBuilder(IRModule({v: f for v, f in legal.functions.items() if v.name_hint != "main"}))
    fused = builder.add_func(group.without_attr("global_symbol").with_attr("Primitive", 1), "fused")
    params = [relax.Var(p.name, p.ty) for p in group.params]
    with builder.function("main", params):
        with builder.dataflow():
            out = builder.emit_output(relax.Call(fused, params))
        builder.emit_func_output(out)
    merged = relax.transform.FuseTIR()(builder.get())
    (func,) = (f for f in merged.functions.values() if isinstance(f, tirx.PrimFunc))
    return _with_all_parameters(func, merged["main"]).with_attr("global_symbol", name)


def _with_all_parameters(func: tirx.PrimFunc, caller: relax.Function) -> tirx.PrimFunc:
    """Give back the parameters that FuseTIR dropped because only their shapes are used, and sizes used as numbers."""
    (call,) = (b.value for block in caller.body.blocks for b in block.bindings if isinstance(b.value, relax.Call))
    passed = list(call.args[1])
    own = dict(zip(passed, func.params, strict=False))
    tensors = [p for p in caller.params if isinstance(p.ty, relax.TensorType)]
    params = [own[p] if p in own else tirx.decl_buffer(list(p.ty.shape), str(p.ty.dtype), p.name) for p in tensors]
    rest = list(func.params)[len(passed) :]
    hidden = [v.name for p in caller.params if isinstance(p.ty, relax.ShapeType) for v in p.ty.values]
    # A size that no dimension shows alone, as n in 64 - n, cannot be read from a shape when the kernel is called.
    alone = [d for p in (*params, *rest) if is_buffer_var(p) for d in p.shape if isinstance(d, tirx.Var)]
    sizes = [v for v in tirx.analysis.undefined_vars(func.body, [*rest, *alone]) if v.name in hidden]
    return tirx.PrimFunc([*params, *rest, *sizes], func.body, func.ret_type, func.attrs)


def _left_over(group: relax.Function) -> list[str]:
    """The operators that stayed operators when the others became loops."""
    found: set[str] = set()

    def visit(node: relax.Expr) -> None:
        name = getattr(getattr(node, "op", None), "name", "")
        if isinstance(node, relax.Call) and name.startswith("relax.") and name != "relax.call_tir":
            found.add(name.removeprefix("relax."))

    relax.analysis.post_order_visit(group, visit)
    return sorted(found)
