"""One engine of a race, in a process of its own.

The parent starts this file with any interpreter that holds the engine and NumPy, so it imports nothing from sparsec
unless sparsec is the engine. Commands and answers are one JSON object a line. The process sleeps in ``read`` between
its turns, so that it takes nothing from the engine whose turn it is.
"""

import contextlib
import gc
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Inputs = dict[str, np.ndarray]
Run = Callable[[], Any]
Fetch = Callable[[], list[np.ndarray]]  # the outputs of the last run


def sparsec(path: str, threads: int, inputs: Inputs) -> tuple[Run, Fetch]:
    import sparsec

    run = sparsec.load(path, threads=threads).bind(**inputs)
    result = run()
    return run, lambda: list(result) if isinstance(result, tuple) else [result]


def onnxruntime(path: str, threads: int, inputs: Inputs) -> tuple[Run, Fetch]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Threads spin while a run lasts, which is fastest, but not after it, when another engine has its turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for name, array in zip(names, session.run(names, inputs), strict=True):
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
    return lambda: session.run_with_iobinding(binding), lambda: [value.numpy() for value in binding.get_outputs()]


def openvino(path: str, threads: int, inputs: Inputs) -> tuple[Run, Fetch]:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    for name, array in inputs.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    # Run by the calling thread, it need not wait for another one to wake up; views of the outputs are not copied.
    return lambda: request.infer(share_outputs=True), lambda: [
        np.array(request.get_output_tensor(i).data) for i in range(len(compiled.outputs))
    ]


def deepsparse(path: str, threads: int, inputs: Inputs) -> tuple[Run, Fetch]:
    from deepsparse import Engine  # type: ignore[import-not-found]

    arrays = list(inputs.values())
    engine = Engine(model=path, batch_size=len(arrays[0]), num_cores=threads)
    outputs: list[np.ndarray] = []

    def run() -> None:
        outputs[:] = engine.run(arrays, val_inp=False)

    return run, lambda: outputs


ENGINES = {engine.__name__: engine for engine in (sparsec, onnxruntime, openvino, deepsparse)}


def measure(run: Run, iterations: int) -> list[float]:
    """Seconds of each of ``iterations`` runs, after one that brings the caches back."""
    run()
    times = []
    for _ in range(iterations):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def resident(field: str = "VmRSS") -> int:
    """Bytes of memory that this process has in use, or with ``VmHWM`` the most that it had."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def forget_peak() -> None:
    """Let ``VmHWM`` start from what is in use now, where the system allows it."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def main(engine: str, path: str, threads: int, inputs_path: str, *processors: str) -> None:
    if processors:
        os.sched_setaffinity(0, map(int, processors))  # before the engine counts them
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what an engine prints must not mix with the answers

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")

    with np.load(inputs_path) as archive:
        inputs = dict(archive)
    os.environ["NM_DISABLE_ANALYTICS"] = "True"  # DeepSparse would report to its vendor, from its import on
    try:
        getattr(importlib.import_module(engine), "load", None)  # sparsec's own code loads on first use
        forget_peak()
        before = resident()
        start = time.perf_counter()
        run, fetch = ENGINES[engine](path, threads, inputs)
        load_seconds = time.perf_counter() - start
        run()  # memory is that of a run, too
    except ModuleNotFoundError as error:
        return answer(missing=error.name)
    except Exception as error:
        return answer(error=f"{type(error).__name__}: {error}")
    memory = resident("VmHWM") - before
    answer(version=importlib.metadata.version(engine), load_seconds=load_seconds, memory_bytes=memory)
    gc.disable()
    for line in sys.stdin:
        command = json.loads(line)
        if "fetch" in command:
            run()
            np.savez(command["fetch"], *fetch())
            answer(done=True)
        else:
            answer(times=measure(run, command["run"]))


if __name__ == "__main__":
    # Python puts the script's folder first on the path, where sparsec's modules would shadow packages of their names.
    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
