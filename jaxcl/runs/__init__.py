"""A run directory: made and opened (`directory`), trained in (`training`) and evaluated (`evaluation`, as it is
`asked`, on the images of `images`, beside raw `pixels`; of which `marks` says what is complete).

RUN_DIR/
  config.py  knobs.json      what was run: the config's text, the value of every knob
  beside/                    the files that the config imports from its own folder
  run.json                   "about" the training images, versions, devices, when, by which command
  given/NAME/                of a run that this one learns from, as a teacher, the files above, without its weights
  trained_on.txt             the files that were trained on, below the folder that --data names; of images in files
  metrics.jsonl  events.*    the curves, as JSON lines and for TensorBoard
  loggers.json  wandb/       what the run is called by Weights & Biases and MLflow (--logger), and the former's files
  warnings.jsonl             what the run was warned of, and at which step
  checkpoints/               the newest states, each with a sha256 manifest
  evaluations/NAME.json      a protocol's result with its settings; NAME@OTHER.json: on other data, or asked otherwise
  evaluated.json             which protocols are complete, of which encoders
  plots/                     the pictures, and a page of them
  report.html                the page of `jaxcl report`

Paths among the knobs are recorded absolute, and "about" says what a recipe must know of the images: a run can be opened
from any directory, and without its images.
"""

from jaxcl.runs.asked import BASELINES, check_asked
from jaxcl.runs.directory import Run, create_or_resume, device, evaluations, open_run, trained_on
from jaxcl.runs.evaluation import Members, Opened, Unevaluated, evaluate_run, evaluate_runs
from jaxcl.runs.images import fitting, other_images, range_for, side_of, told_of_range
from jaxcl.runs.training import train_run, train_runs

__all__ = [
    "BASELINES",
    "Members",
    "Opened",
    "Run",
    "Unevaluated",
    "check_asked",
    "create_or_resume",
    "device",
    "evaluate_run",
    "evaluate_runs",
    "evaluations",
    "fitting",
    "open_run",
    "other_images",
    "range_for",
    "side_of",
    "told_of_range",
    "train_run",
    "train_runs",
    "trained_on",
]
