"""Pictures: plain arrays in, a matplotlib Figure out; saving it is yours (`figure.savefig("views.png", dpi=160)`).

matplotlib (`pip install "jaxcl[plot]"`) is loaded when the first picture is drawn, not on import. The figures belong
to no pyplot state: nothing has to be closed, and matplotlib's settings are neither read for what matters here nor
changed. In a notebook, run `%matplotlib inline` once and a figure at the end of a cell is shown.
"""

from jaxcl.plot.curves import training_curves
from jaxcl.plot.embeddings import embedding_map
from jaxcl.plot.losses import loss_comparison
from jaxcl.plot.neighbors import neighbors_sheet
from jaxcl.plot.panels import GridPanel, LinePanel, draw_panel, svg
from jaxcl.plot.regions import regions_sheet
from jaxcl.plot.scores import score_curves, score_distributions
from jaxcl.plot.sweeps import sweep_curves
from jaxcl.plot.views import views_sheet

__all__ = [
    "GridPanel",
    "LinePanel",
    "draw_panel",
    "embedding_map",
    "loss_comparison",
    "neighbors_sheet",
    "regions_sheet",
    "score_curves",
    "score_distributions",
    "svg",
    "sweep_curves",
    "training_curves",
    "views_sheet",
]
