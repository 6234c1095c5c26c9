"""Who gets the metrics of a run besides metrics.jsonl: TensorBoard, Weights & Biases, MLflow, or one's own.

A logger has two functions, and nothing else is asked of it:

    write(step, metrics)      numbers by name, all finite
    close()

Only process 0 has loggers. One that fails is reported once and gets nothing more; training goes on (`train.log`).
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxcl.records import parsed, write_whole

# Under which names a run is known elsewhere, so that it goes on there: {"wandb": id, "mlflow": id}.
FILE = "loggers.json"


class Logger(Protocol):
    """What gets the metrics of a run."""

    def write(self, step: int, metrics: Mapping[str, float], /) -> None: ...

    def close(self) -> None: ...


# A logger's name -> the package that it needs, and what brings it.
PACKAGES = {
    "tensorboard": ("tensorboardX", "tensorboardX"),
    "wandb": ("wandb", "'jaxcl[wandb]'"),
    "mlflow": ("mlflow", "'jaxcl[mlflow]'"),
}


def check_loggers(loggers: Sequence[str | Logger]) -> None:
    """Raises ValueError for a name that no logger has, and ImportError, with the command that installs it, where the
    package of one is missing. Without tensorboardX a run goes on: the log says so."""
    for name in loggers:
        if not isinstance(name, str):
            continue
        if name not in PACKAGES:
            raise ValueError(
                f"Metrics go to {', '.join(PACKAGES)}, or to an object with write and close; got {name!r}."
            )
        package, brings = PACKAGES[name]
        if name == "tensorboard":
            continue
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f"--logger {name} needs {package}, which is not here: pip install {brings}"
            ) from error


def open_logger(
    name: str, run_dir: Path | None, *, start_step: int = 0, purge_step: int | None = None
) -> Logger | None:
    """The logger of that name, of a run that goes on from `start_step`, 0 of one that begins; None where it has nothing
    to write to.

    purge_step
        TensorBoard's: what was written of this step and later ones is void.

    Raises ImportError without its package, and whatever its package raises.
    """
    if name == "tensorboard":
        return None if run_dir is None else TensorBoard(run_dir, purge_step=purge_step)
    return (
        WandB(run_dir, start_step=start_step) if name == "wandb" else MLflow(run_dir, start_step=start_step)
    )


class TensorBoard:
    """Events in the run directory."""

    def __init__(self, run_dir: Path, *, purge_step: int | None = None):
        # Here, as it imports PyTorch where there is one.
        from tensorboardX import SummaryWriter

        self._events = SummaryWriter(
            str(run_dir),
            purge_step=purge_step,
            # Files are named by the second; a run that goes on within one would overwrite its former self.
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.time()
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step, walltime=now)
        self._events.flush()

    def close(self) -> None:
        self._events.close()


class WandB:
    """A run of Weights & Biases, its files in RUN_DIR/wandb.

    Project and name are WANDB_PROJECT, or jaxcl, and WANDB_NAME, or the run directory's; WANDB_MODE=offline keeps all
    here, for `wandb sync`. A run that goes on is the same run there. Curves are drawn over "step", so what was made
    twice, after a kill, is drawn twice at the same step.
    """

    def __init__(self, run_dir: Path | None, *, start_step: int = 0):
        import wandb

        known = ids(run_dir).get("wandb") if start_step else None
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "jaxcl"),
            name=os.environ.get("WANDB_NAME") or (run_dir and run_dir.absolute().name),
            id=known or os.environ.get("WANDB_RUN_ID"),
            resume="allow",
            dir=run_dir and str(run_dir),
            config=knobs(run_dir),
            reinit="create_new",  # several runs may be trained together
        )
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        keep(run_dir, wandb=self._run.id)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({**metrics, "step": step})

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI says, in the experiment MLFLOW_EXPERIMENT_NAME, or jaxcl.

    Its parameters are the knobs. A run that goes on is the same run there.
    """

    def __init__(self, run_dir: Path | None, *, start_step: int = 0):
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._client, self._metric = MlflowClient(), Metric
        known = ids(run_dir).get("mlflow") if start_step else None
        if known is not None:
            self._id = known
            self._client.update_run(known, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "jaxcl")
        there = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if there is None else there.experiment_id
        made = self._client.create_run(experiment, run_name=run_dir and run_dir.absolute().name)
        self._id = made.info.run_id
        params = [Param(knob, str(value)) for knob, value in knobs(run_dir).items()]
        self._client.log_batch(self._id, params=params)
        keep(run_dir, mlflow=self._id)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._id, metrics=[self._metric(name, float(value), now, step) for name, value in metrics.items()]
        )

    def close(self) -> None:
        self._client.set_terminated(self._id)


# --- beside the run ------------------------------------------------------------------------------------------------


def _read(file: Path) -> dict[str, Any]:
    try:
        found = parsed(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def ids(run_dir: Path | None) -> dict[str, str]:
    """What a run is called by loggers that keep it elsewhere."""
    found = {} if run_dir is None else _read(run_dir / FILE)
    return {name: value for name, value in found.items() if isinstance(value, str)}


def keep(run_dir: Path | None, **new: str) -> None:
    if run_dir is not None:
        write_whole(run_dir / FILE, json.dumps(ids(run_dir) | new) + "\n")


def knobs(run_dir: Path | None) -> dict[str, Any]:
    return {} if run_dir is None else _read(run_dir / "knobs.json")
