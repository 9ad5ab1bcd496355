"""Models and processors of Defect Hub; a flat folder, because a Hub model repository carries these very files."""

import transformers  # noqa: F401  # Registers our classes before the first of these files is imported.
