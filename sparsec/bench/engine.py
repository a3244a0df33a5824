"""The parent's end of an engine that runs in a process of its own."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sparsec.bench import worker
from sparsec.errors import SparsecError
from sparsec.targets.native import cores

_PATIENCE_SECONDS = 300.0


class Absent(Exception):
    """An engine cannot take part; the message says why."""


class Engine:
    """An engine that has read its model, has run it once and waits for its turns.

    ``memory_bytes`` are what that took at most, beside the interpreter, the engine's own code and the inputs.

    Parameters
    ----------
    name : str
        A key of `worker.ENGINES`.
    path : str
        The ONNX file, or sparsec's artifact.
    threads : int
        Threads that the engine may use.
    folder : Path
        Holds ``inputs.npz`` already; outputs and the log go there too.
    python : str, optional
        The interpreter to run it in; this one by default.
    label : str, optional
        What to call it, where an engine takes part more than once.
    pinned : bool
        Whether it may run on no more cores than it has threads.

    Raises
    ------
    Absent
        The engine is not installed, or cannot run this model.
    """

    def __init__(
        self,
        name: str,
        path: str,
        threads: int,
        folder: Path,
        python: str | None,
        label: str | None = None,
        pinned: bool = False,
    ) -> None:
        self.name, self._folder = label or name, folder
        self._log = (folder / f"{self.name}.log").open("w+")
        command = [python or sys.executable, worker.__file__, name, path, str(threads), str(folder / "inputs.npz")]
        command += map(str, _processors(threads) if pinned else ())
        env = os.environ | {"OMP_NUM_THREADS": str(threads)}
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=env
            )
        except OSError as error:
            raise Absent(f"its interpreter does not start: {error}") from error
        try:
            greeting = self._answer()
        except SparsecError as error:
            self.close()
            raise Absent(str(error)) from error
        if "version" not in greeting:
            self.close()
            missing = greeting.get("missing")
            raise Absent(f"not installed: pip install {name}" if missing else greeting["error"])
        self.version: str = greeting["version"]
        self.load_seconds: float = greeting["load_seconds"]
        self.memory_bytes: int = greeting["memory_bytes"]
        self._process.send_signal(signal.SIGSTOP)

    def outputs(self) -> list[NDArray[Any]]:
        """Run once and return the outputs, in the model's order."""
        path = self._folder / f"{self.name}.npz"
        self._ask(fetch=str(path))
        with np.load(path) as archive:
            return [archive[key] for key in archive.files]

    def run(self, iterations: int) -> list[float]:
        """Take a turn: seconds of each of ``iterations`` runs."""
        return self._ask(run=iterations)["times"]

    def close(self) -> None:
        """End the process."""
        self._process.send_signal(signal.SIGCONT)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _ask(self, **command: Any) -> dict[str, Any]:
        """What the process answers; between its turns it is stopped, since idle threads of some engines spin on."""
        self._process.send_signal(signal.SIGCONT)
        try:
            return self._asked(command)
        finally:
            self._process.send_signal(signal.SIGSTOP)

    def _asked(self, command: dict[str, Any]) -> dict[str, Any]:
        pipe = _open(self._process.stdin)
        try:
            pipe.write(json.dumps(command) + "\n")
            pipe.flush()
        except BrokenPipeError:
            raise SparsecError(f"{self.name} stopped during the race: {self._last_words()}") from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        pipe = _open(self._process.stdout)
        ready, _, _ = select.select([pipe], [], [], _PATIENCE_SECONDS)
        if not ready:
            self._process.kill()
            raise SparsecError(f"{self.name} did not answer within {_PATIENCE_SECONDS:.0f} s")
        line = pipe.readline()
        if not line:
            raise SparsecError(f"{self.name} stopped during the race: {self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return f"exit code {code}" + (f", {lines[-1]}" if lines else "")


def _processors(threads: int) -> list[int]:
    """Processors for this many threads, on cores of their own while there are such."""
    places = sorted((place, cpu) for core in cores() for place, cpu in enumerate(core))
    return [cpu for _, cpu in places[:threads]]


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "workers are started with pipes"
    return pipe
