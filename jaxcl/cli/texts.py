"""What the commands say of themselves."""

from __future__ import annotations

HELP = """\
jaxcl: contrastive self-supervised learning in JAX.

A config is a Python file with a dataclass of knobs and a function that makes a recipe of them. Those that come with
jaxcl are known by their names in every folder: quickstart is configs/quickstart.py. Start from one:

  jaxcl configs                                         their names, and what each is
  jaxcl configs quickstart > mine.py                    a copy, to change

Three commands take it from images to a reported accuracy:

  jaxcl train configs/quickstart.py                     pretrain; the same command again resumes it
  jaxcl train configs/quickstart.py --epochs 40         train a finished run of 15 for longer
  jaxcl train configs/quickstart.py --run-dir runs/two --temperature 0.1      change a knob, in another run
  jaxcl train configs/quickstart.py --help              the knobs of a config
  jaxcl evaluate runs/quickstart                        kNN and linear accuracy, beside two baselines
  jaxcl evaluate runs/quickstart --protocol fewshot5 rotation corruption
  jaxcl evaluate runs/quickstart --protocol transfer --data tfds:mnist
  jaxcl evaluate runs/quickstart --layers 1 -1          the layers of the projection head as well
  jaxcl embed runs/quickstart --data folder:photos --out features.csv     features, with file names, for other tools
  jaxcl export runs/RUN --to torchvision                weights for PyTorch
  jaxcl plot runs/quickstart                            views, curves, map, neighbors: runs/quickstart/plots/report.html

  jaxcl replay runs/quickstart                          after a loss of nan: which operation made it

  jaxcl status runs/quickstart                          step, speed, time left, last save; also while it trains

  jaxcl plan configs/quickstart.py                      before training: does a step fit into this machine,
  jaxcl plan configs/simclr_imagenet.py --machine tpu-v5e-64      or another; what bounds it, how long it takes
  jaxcl views configs/quickstart.py                     before training: what the network will be shown
  jaxcl parts configs/quickstart.py                     what a method is made of: its five parts with their settings
  jaxcl sweep configs/quickstart.py --seed 0 1 2 --temperature 0.1 0.5
                                                        every combination, with means and 95 % intervals over seeds
  jaxcl study                                           the studies that come with jaxcl: questions of papers
  jaxcl study temperature_and_loss                      makes the missing runs, and a page of answers

With --debug, as in `jaxcl --debug train ...`, an error shows where in the program it arose.
"""


TRAIN_HELP = """\
usage: jaxcl train CONFIG [--run-dir DIR] [--distributed [HOST:PORT PROCESSES PROCESS]] [--join-timeout SECONDS]
                   [--anyway] [--preset NAME] [--knob value ...]

Pretrains. CONFIG is a file, or the name of one that comes with jaxcl (`jaxcl configs`). Default of DIR: runs/CONFIG, or
runs/CONFIG_NAME with a preset. If DIR holds an unfinished run, it is resumed, bit for bit. `jaxcl train CONFIG --help`
shows the knobs and presets of a config. A run that does not fit into this machine's memory is refused before the
first step, unless --anyway is given.

More --epochs continue a finished run; its learning rate then follows the schedule of the longer run. --init DIR starts
from the encoder of another run, --init FILE from a file of weights (.safetensors, .pth).

After Ctrl-C or SIGTERM the current step is finished and saved, and the program ends (status 130 or 75); a second Ctrl-C
ends it at once.

On several hosts run the same command on each, with a DIR that all of them see. `--distributed` alone is enough where
jax detects the cluster (Cloud TPU, Slurm, Kubernetes, Open MPI); elsewhere give the address of process 0, the number of
processes and the number of this one: --distributed 10.0.0.1:1234 4 0
They wait SECONDS (default: 120) for each other. If one ends, the others end within a minute; then start all again.
"""


PLAN_HELP = """\
usage: jaxcl plan CONFIG.py [--machine NAME] [--json FILE] [--no-advise]
                  [--images N] [--shape HEIGHT WIDTH CHANNELS] [--classes K] [--preset NAME]
                  [--knob value ...]

Compiles the training step of a config for a machine, which need not be present, and prints whether it fits, the least
time of a step and of the run, and what bounds them. NAME is tpu-GENERATION-CHIPS (tpu-v5e-64; v2, v3, v4, v5e, v5p,
v6e or 7x), h100, a100, h200 or b200, with a number for several (h100-8); default: this machine. A TPU needs
the extra `tpu`, a GPU `cuda`: pip install 'jaxcl[tpu]'. A large network takes minutes to compile.

Nothing is trained and no image is opened. Where the data is missing, --images, --shape and --classes describe it.
If the config does not fit, changes that would make it fit are tried, unless --no-advise is given; each try compiles.
`jaxcl plan CONFIG.py --help` shows the knobs of a config.
"""


VIEWS_HELP = """\
usage: jaxcl views CONFIG.py [--out FILE] [--images N] [--knob value ...]

Draws N training images (default: 8) beside the views that the first training step would make of them. Under each view
its drawn parameters are printed. Default of FILE: CONFIG-views.png.
`jaxcl views CONFIG.py --help` shows the knobs of a config.
"""


PARTS_HELP = """\
usage: jaxcl parts CONFIG.py [--knob value ...]

Prints what the method of a config is made of, in five parts: data augmentation, encoder, representation extraction,
similarity and loss, each with its functions and their settings. Nothing is trained.
`jaxcl parts CONFIG.py --help` shows the knobs of a config.
"""


STUDY_HELP = """\
usage: jaxcl study [NAME] [--small] [--seed SEED ...] [--together N] [--run-dir DIR] [--knob value ...]

Makes the missing runs of a study, and a page with its answer: DIR/NAME.md with tables, intervals, differences by seed
and a picture. NAME is a study that comes with jaxcl, or a file; without NAME the studies are listed. A study says which
knobs vary, which are fixed, and which settings are compared. --seed 0..9 replaces its seeds; other knobs, such as
--data-dir, are set for all runs.

--small       fewer and shorter runs of a smaller encoder, for a CPU, if the study has them
--together N  as for `jaxcl sweep`
--run-dir     default: runs/NAME-study, or runs/NAME-small-study
"""
