"""Pages of what was learnt, each a single HTML file that can be sent by mail.

run.py         of one run, with pictures that open its images and its encoder (`jaxcl plot`)
study.py       of many runs, from what stands in their directories alone (`jaxcl report`)
pictures.py    the pictures of a run
gather.py      runs as their directories tell them
figures.py     accuracy against knobs, curves and scores of many runs, as numbers to be drawn
ran.py         what ran where, and for how long
live.py        the same to be pointed at, by plotly
html.py        the pieces of a page; page.css, page.js
"""

from jaxcl.report.pictures import draw_views, picture_of_views, sample, visible
from jaxcl.report.run import Report, plot_run, write_report
from jaxcl.report.study import report_runs

__all__ = [
    "Report",
    "draw_views",
    "picture_of_views",
    "plot_run",
    "report_runs",
    "sample",
    "visible",
    "write_report",
]
