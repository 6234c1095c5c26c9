"""Saving beside the training: the state is copied, and a thread writes the copy while the next steps run.

    with Saver() as saver:
        saver.save(directory, step, state)    # back when the state is copied; `checkpoint.save` has the arguments
        ...
        saver.wait()                          # back when all is on the disk

The files, and the moment at which a state counts as saved, are those of `checkpoint.save`. Several processes
synchronize by collectives over the devices. If a thread sent one, it could come before a training step's in one process
and after it in another, and both would wait for ever. So all processes copy the state and begin the save in the main
thread, at the same step; the thread does only what needs no collective (`checkpoint.begin`).
"""

from __future__ import annotations

import os
import shutil
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcl.train import checkpoint
from jaxcl.typing import PyTree


class Saver:
    """One save at a time, the next waits for it. Leaving the block waits for the last one, whatever ended the block.

    What a save raises is raised by the next call of `look`, `save` or `wait`, or by the end of the block; where an
    error ends the block, it is a warning.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None
        self._copies: list[np.ndarray] = []

    def save(self, directory: str | Path, step: int, state: PyTree, **settings: Any) -> None:
        """Saves a state as `checkpoint.save` does; back when it is copied and its arrays may be donated.

        With several processes all must call it.
        """
        if jax.process_count() == 1:
            self.run(lambda copy: checkpoint.save(directory, step, copy, **settings), state)
        else:
            self.wait()
            self._start(checkpoint.begin(directory, step, self._copied(state), **settings))

    def run(self, write: Callable[[PyTree], None], state: PyTree) -> None:
        """Calls write(copy of the state) beside what follows, once what was written before is done. For one process."""
        self.wait()
        copy = self._copied(state)
        self._start(lambda: write(copy))

    def _start(self, write: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                write()
            except BaseException as error:
                self._failed = error

        # Not a daemon: if the wait is interrupted as well, the program ends while the thread still writes, and a thread
        # must not be killed inside C++ code.
        self._thread = threading.Thread(target=guarded, name="jaxcl-saver")
        self._thread.start()

    def look(self) -> None:
        """Raises what a save has raised so far; does not wait."""
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error

    def wait(self) -> None:
        """Waits until all is on the disk. With several processes all must call it."""
        begun = self._thread is not None
        self._join()
        if begun:
            checkpoint.meet("jaxcl has saved")  # process 0 is the last

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.look()

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: Any) -> None:
        if error is None:
            self.wait()
        else:
            try:
                self._join()  # the others may be elsewhere
            except Exception as failed:
                warnings.warn(f"What was being saved when the run ended is lost: {failed}", stacklevel=2)

    def _copied(self, state: PyTree) -> PyTree:
        """The state on the host, in memory of its own, which is that of the copy before where it fits; on the devices
        what numpy has no numbers for, and what is spread over several processes."""
        leaves, structure = jax.tree.flatten(state)
        plain = [i for i, x in enumerate(leaves) if _is_plain(x)]
        fetched = jax.device_get([leaves[i] for i in plain])
        kinds = [(np.shape(x), np.asarray(x).dtype) for x in fetched]
        if kinds != [(x.shape, x.dtype) for x in self._copies]:
            self._copies = [np.empty(shape, dtype) for shape, dtype in kinds]
        # On a CPU what was fetched is the array's own memory, which the next step is given to write in. (Memory that is
        # used again is written three times as fast: the system need not find it.)
        for copy, x in zip(self._copies, fetched, strict=True):
            np.copyto(copy, x)
        copies = [x if _is_plain(x) else jax.numpy.copy(x) for x in leaves]
        for i, copy in zip(plain, self._copies, strict=True):
            copies[i] = copy
        return jax.tree.unflatten(structure, copies)


def check_renames(run_dir: str | Path) -> None:
    """Raises ValueError where directories cannot be renamed in a run directory, as in some buckets that are mounted: no
    step could get its name. All processes must call it. What else is wrong with it is told where it is written in."""
    run_dir, refused = Path(run_dir).absolute(), ""
    if jax.process_index() == 0:
        new = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
        before = run_dir / f".rename-{os.getpid()}"
        after = before.with_name(f"{before.name}-after")
        with suppress(OSError):
            (before / "arrays").mkdir(parents=True)  # a folder in a folder, as a step's is
            (before / "arrays" / "file").touch()
            try:
                before.rename(after)
            except OSError as error:
                refused = f"{error.strerror or error}"
        for path in (before, after):
            shutil.rmtree(path, ignore_errors=True)
        for path in new:
            with suppress(OSError):
                path.rmdir()
    failed = bool(refused)
    if jax.process_count() > 1:
        failed = bool(multihost_utils.broadcast_one_to_all(np.int32(failed)))
    if failed:
        raise ValueError(
            f"A directory cannot be renamed in {run_dir} ({refused or 'as process 0 says'}), and a checkpoint is"
            " complete by such a rename. Give a --run-dir on a disk, on a file system that hosts share (NFS, Filestore)"
            ", or in a bucket with a hierarchical namespace."
        )


def _is_plain(x: Any) -> bool:
    """Whether numpy can have all of it: no typed key, and whole in this process."""
    if not isinstance(x, jax.Array):
        return True
    key = jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
    return not key and (x.is_fully_addressable or x.is_fully_replicated)
