"""What every picture promises: it draws without a warning, and leaves nothing of itself behind."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from jaxcl import plot

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
RECORDS = [{"step": i, "loss": 5 - 0.1 * i, "grad_norm": 1.0 + i} for i in range(1, 31)]

PICTURES = {
    "views_sheet": lambda: plot.views_sheet(IMAGES, (IMAGES / 255,), captions=[["flip"]] * 3),
    "training_curves": lambda: plot.training_curves(RECORDS),
    "embedding_map": lambda: plot.embedding_map(rng.normal(size=(20, 5)), [0, 1] * 10, method="pca"),
    "neighbors_sheet": lambda: plot.neighbors_sheet(
        IMAGES, IMAGES[None].repeat(3, 0), query_labels=[0, 1, 2], neighbor_labels=[[0, 1, 2]] * 3
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_figure_that_pyplot_does_not_hold(name, tmp_path):
    import matplotlib.pyplot as plt

    figure = PICTURES[name]()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "a.png")
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", PICTURES)
def test_drawing_changes_no_setting_and_obeys_none_of_a_dark_theme(name, tmp_path):
    dark = {
        "axes.facecolor": "black",
        "figure.facecolor": "black",
        "text.color": "white",
        "xtick.labelsize": 30,
    }
    rng.bit_generator.state = np.random.default_rng(1).bit_generator.state
    PICTURES[name]().savefig(tmp_path / "light.png", metadata={"Software": None})
    rng.bit_generator.state = np.random.default_rng(1).bit_generator.state
    with matplotlib.rc_context(dark):
        before = dict(matplotlib.rcParams)
        PICTURES[name]().savefig(tmp_path / "dark.png", metadata={"Software": None})
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "light.png").read_bytes() == (tmp_path / "dark.png").read_bytes()


def test_importing_the_room_loads_no_matplotlib_and_no_sklearn():
    code = "import sys, jaxcl, jaxcl.plot; sys.exit(any(m in sys.modules for m in ('matplotlib', 'sklearn')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "jaxcl\[plot\]"'):
        plot.training_curves(RECORDS)
