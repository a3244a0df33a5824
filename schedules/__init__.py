"""Schedules as data: steps, traces, intrinsics and the rules that propose them."""

if __name__ != "sparsec.schedules":
    raise ImportError(
        "import this package as 'sparsec.schedules'; a second copy under another name would duplicate every class"
    )
