"""Examples of what an extra installs run where it is installed."""

import importlib.util

collect_ignore = (
    [] if importlib.util.find_spec("sentence_transformers") else ["featuretl/media/text.py"]
)
