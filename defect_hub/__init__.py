"""Defect Hub: industrial-defect datasets, models and metrics for the Hugging Face ecosystem.

Importing it registers the models with transformers' Auto classes and the pipeline "defect-diagnosis".
"""

from defect_hub._version import __version__
from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.registration import register

register()

__all__ = ["EMBEDDED_CHECKPOINT", "__version__"]
