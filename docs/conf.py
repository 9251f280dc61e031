"""How Sphinx makes the documentation; ``make docs`` gathers its sources first (``make_site.py``)."""

import re

import toyscore

project = "toyscore"
author = copyright = "The toyscore authors"
release = version = toyscore.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx-mathjax-offline"]
nb_execution_mode = "off"  # notebooks are stored with their outputs, and compared with their sources by a test
nb_number_source_lines = False
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
html_theme = "furo"
html_title = f"toyscore {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {"footer_icons": [], "top_of_page_buttons": []}
html_copy_source = False
html_show_sphinx = False
exclude_patterns = []
pygments_style = "friendly"
python_use_unqualified_type_names = True


def as_written(app, what, name, obj, options, lines):
    """Docstrings write [B, *event] and |x|, which are markup to Sphinx: as they are, outside of literals."""
    inside, margin = False, 0
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        inside = inside and (not line.strip() or indent > margin)
        if not inside:
            parts = re.split(r"(``.*?``)", line)
            parts[::2] = [re.sub(r"\*(?=event\b)|\|", r"\\\g<0>", part) for part in parts[::2]]
            lines[number] = "".join(parts)
        if line.rstrip().endswith("::"):
            inside, margin = True, indent


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", as_written)
