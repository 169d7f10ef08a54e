"""The documentation as a site: `make docs` writes it to build/docs. Warnings, broken links among pages included, are
errors."""

project = "Self-TPT service"
author = "The Self-TPT service developers"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
exclude_patterns = ["conf.py"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # transcripts of terminals are not always lexed
