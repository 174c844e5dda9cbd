"""How Sphinx builds these pages: `sphinx-build -W docs build/docs`."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "PicoSAM2"
author = "The PicoSAM2 developers"
copyright = author
version = release = installed("picosam2")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "cli_pages"]
exclude_patterns = ["_ext", "cli/examples", "runs"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # signatures of arrays are long; docstrings give shape and dtype

default_role = "code"  # docstrings have single backticks for code
html_theme = "furo"
html_title = "PicoSAM2"
html_show_sphinx = False
