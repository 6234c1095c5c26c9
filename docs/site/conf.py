"""The site's settings: `make docs` builds build/site from docs/, the README, notebooks and measurements.

Sphinx reads the repository's root, so that a link in a page leads to the same place on the site as on disk. A warning
is an error. Nothing is fetched by who reads it: equations are MathML, pictures are drawn here.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import figures  # noqa: E402

import jaxcl  # noqa: E402

project = "jaxcl"
version = release = jaxcl.__version__
copyright = "the authors of jaxcl"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "mathml",
    "docstrings",
    "constants",
    "names",
    "notebooks",
    "sphinx_copybutton",
]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
root_doc = "docs/index"
include_patterns = ["docs/**.md", "README.md", "CHANGELOG.md", "benchmarks/results/*.md", "notebooks/*.ipynb"]
# Not looked into.
exclude_patterns = [".*", "build", "dist", "runs", "jaxcl", "tests", "configs", "*.egg-info", "**/runs"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_linkify_fuzzy_links = False
html_math_renderer = "mathml"
default_role = "code"
# `--option` stays what it is.
smartquotes = False

autodoc_member_order = "alphabetical"
autodoc_default_options = {"members": True, "no-value": True}
add_module_names = False
python_display_short_literal_types = True
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "jaxcl"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["root"]
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
# Shells, equations and directories are none; Python says that it is.
highlight_language = "none"

figures.draw_all(HERE.parent / "figures")


def setup(app):
    app.connect("source-read", folder_links)


def folder_links(app, name, source):
    """The README's link to the folder of measurements leads to their page."""
    if name == "README":
        source[0] = source[0].replace("](benchmarks/results)", "](docs/measurements.md)")
