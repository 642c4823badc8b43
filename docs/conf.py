"""How Sphinx builds the site: `sphinx-build -W --keep-going docs build/site`."""

from typing import Any

import django
from django.conf import settings
from sphinx.application import Sphinx

import pgchannels

settings.configure()  # `pgchannels.django.testing` reads them where it is used
django.setup()

project = "pgchannels"
author = "The pgchannels authors"
copyright = f"2026, {author}"  # noqa: A001
version = release = pgchannels.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["images"]
default_role = "code"
nitpicky = False
suppress_warnings = [
    "misc.highlighting_failure"
]  # console output in blocks of text

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = f"pgchannels {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "source_repository": "https://github.com/pgchannels/pgchannels/",
    "source_branch": "main",
    "source_directory": "docs/",
}


def setup(_: Sphinx) -> dict[str, Any]:
    """Nothing of the site depends on the order in which pages are read."""
    return {"parallel_read_safe": True}
