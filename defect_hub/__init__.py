"""Defect Hub: industrial-defect datasets, models and metrics for the Hugging Face ecosystem.

Importing it registers the models with transformers' Auto classes and the pipeline "defect-diagnosis", once
transformers is imported: before that nobody can ask for a model, and who only handles data does not wait for torch.
"""

from types import ModuleType

from wrapt import register_post_import_hook

from defect_hub._version import __version__
from defect_hub.embedded import EMBEDDED_CHECKPOINT


def _register(transformers: ModuleType) -> None:
    from defect_hub.registration import register

    register()


register_post_import_hook(_register, "transformers")

__all__ = ["EMBEDDED_CHECKPOINT", "__version__"]
