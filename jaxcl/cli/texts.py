"""What the commands say of themselves."""

from __future__ import annotations

HELP = """\
jaxcl: contrastive self-supervised learning in JAX.

A config is a Python file with a dataclass of knobs and a function that makes a recipe of them. Those that come with
jaxcl are known by their names in every folder: quickstart is configs/quickstart.py. Start from one:

  jaxcl configs                                         their names, and what each is
  jaxcl configs quickstart > mine.py                    a copy, to change

Three commands take it from images to a reported accuracy:

  jaxcl train configs/quickstart.py                     pretrain; a second time, go on where it stopped
  jaxcl train configs/quickstart.py --epochs 40         a finished run of 15: go on for longer
  jaxcl train configs/quickstart.py --run-dir runs/two --temperature 0.1      change a knob, in another run
  jaxcl train configs/quickstart.py --help              the knobs of a config
  jaxcl evaluate runs/quickstart                        kNN and linear accuracy, beside two baselines
  jaxcl evaluate runs/quickstart --protocol fewshot5 rotation corruption
  jaxcl evaluate runs/quickstart --protocol transfer --data tfds:mnist
  jaxcl evaluate runs/quickstart --layers 1 -1          what the projection head makes of the representation, too
  jaxcl embed runs/quickstart --data folder:photos --out features.csv     features, with file names, for other tools
  jaxcl export runs/RUN --to torchvision                weights for PyTorch; `jaxcl train CONFIG --init FILE` takes some
  jaxcl plot runs/quickstart                            views, curves, map, neighbors: runs/quickstart/plots/report.html

  jaxcl replay runs/quickstart                          after a loss of nan: the operation that made it

  jaxcl status runs/quickstart                          step, speed, time left, last save; also while it trains

  jaxcl plan configs/quickstart.py                      before training: what a step needs of this machine,
  jaxcl plan configs/simclr_imagenet.py --machine tpu-v5e-64      or of another: does it fit, what bounds it, how long
  jaxcl views configs/quickstart.py                     before training: what the network will be shown
  jaxcl parts configs/quickstart.py                     what a method is made of: its five parts with their settings
  jaxcl sweep configs/quickstart.py --seed 0 1 2 --temperature 0.1 0.5
                                                        every combination, with means and 95 % intervals over seeds
  jaxcl study                                           the studies that come with jaxcl: questions of papers
  jaxcl study temperature_and_loss                      its runs, as far as they are not there, and a page of answers

With --debug, as in `jaxcl --debug train ...`, an error shows where in the program it arose.
"""


TRAIN_HELP = """\
usage: jaxcl train CONFIG [--run-dir DIR] [--distributed [HOST:PORT PROCESSES PROCESS]] [--join-timeout SECONDS]
                   [--anyway] [--preset NAME] [--knob value ...]

Pretrains. CONFIG is a file, or the name of one that comes with jaxcl (`jaxcl configs`). DIR is runs/CONFIG unless given
(runs/CONFIG_NAME of a preset); a run that is there is gone on with, bit for bit. `jaxcl train CONFIG --help` shows the
knobs of a config, and its presets if it has any. What does not fit into this machine's memory is refused before the
first step, unless --anyway is given.

A finished run is made longer by more --epochs; its learning rate then goes on as that of the longer run. Another run
starts from its encoder by --init DIR, or from a file of weights by --init FILE (.safetensors, .pth).

Ctrl-C and SIGTERM save after the step that is being made, and end (status 130 and 75); a second Ctrl-C ends at once.

On several hosts run the same command on each, with a DIR that all of them see. `--distributed` alone is enough where
jax knows the cluster (Cloud TPU, Slurm, Kubernetes, Open MPI); elsewhere say where process 0 listens, how many
processes there are, and which this one is: --distributed 10.0.0.1:1234 4 0
They wait SECONDS (120) for each other. Where one ends, the others do within a minute; start all of them again.
"""


PLAN_HELP = """\
usage: jaxcl plan CONFIG.py [--machine NAME] [--json FILE] [--no-advise]
                  [--images N] [--shape HEIGHT WIDTH CHANNELS] [--classes K] [--preset NAME]
                  [--knob value ...]

Compiles the training step of a config for a machine, which need not be there, and tells whether it fits, what a step
and the run take at the least, and what bounds them. NAME is tpu-GENERATION-CHIPS (tpu-v5e-64; v2, v3, v4, v5e, v5p,
v6e or 7x), h100, a100, h200 or b200, with a number for several (h100-8); without it, the machine at hand. A TPU needs
the extra `tpu`, a GPU `cuda`: pip install 'jaxcl[tpu]'. A large network takes minutes to compile.

Nothing is trained and no image is opened. Where the data is not there, --images, --shape and --classes say what it is.
What would fit in place of what does not is tried out, unless --no-advise is given; each attempt compiles.
`jaxcl plan CONFIG.py --help` shows the knobs of a config.
"""


VIEWS_HELP = """\
usage: jaxcl views CONFIG.py [--out FILE] [--images N] [--knob value ...]

Draws N training images (8) beside the views that the first training step would make of them. Under each view its
drawn parameters are printed. FILE is CONFIG-views.png unless given.
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

Makes the runs of a study, those that are not there yet, and the page of its answer: DIR/NAME.md with tables,
intervals, differences by seed and a picture. NAME is one that comes with jaxcl, or a file; without it they are listed.
A study says which knobs vary, which are fixed, and which settings are compared; --seed 0..9 takes other seeds than its
own, and other knobs, as --data-dir, hold for all runs.

--small       fewer and shorter runs of a smaller encoder, for a CPU, where the study has such
--together N  as for `jaxcl sweep`
--run-dir     runs/NAME-study unless given, or runs/NAME-small-study
"""
