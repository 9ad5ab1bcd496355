"""Defect Hub: industrial-defect datasets, models and metrics for the Hugging Face ecosystem.

Importing it registers the models with transformers' Auto classes and the pipeline "defect-diagnosis", once
transformers is imported: before that nobody can ask for a model, and who only handles data does not wait for torch.
"""

import sys
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType

from wrapt import register_post_import_hook

from defect_hub._version import __version__
from defect_hub.embedded import EMBEDDED_CHECKPOINT

_FOLDERS = getattr(find_spec("defect_hub.modeling"), "submodule_search_locations", [])


def _register(imported: ModuleType) -> None:
    """Register once transformers is there, unless a file of `modeling` that imported it is not complete yet."""
    # The import system gives a package its submodule when the submodule is complete.
    package = sys.modules.get("defect_hub.modeling")
    begun = [name for name in list(sys.modules) if name.startswith("defect_hub.modeling.")]
    complete = all(hasattr(package, name.rpartition(".")[2]) for name in begun if name != imported.__name__)
    if "transformers" in sys.modules and complete and "defect_hub.registration" not in sys.modules:
        from defect_hub.registration import register

        register()


register_post_import_hook(_register, "transformers")
for _file in iter_modules(_FOLDERS, "defect_hub.modeling."):
    register_post_import_hook(_register, _file.name)

__all__ = ["EMBEDDED_CHECKPOINT", "__version__"]
