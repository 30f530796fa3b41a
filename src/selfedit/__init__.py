"""selfedit teaches a language model to study: it writes its own training data, updates its own weights, and learns from
the exam which self-edits help (SEAL, arXiv 2506.10943).

    from selfedit import Workspace, improve, load_recipe

The public names are imported when first used, so that `import selfedit` loads neither torch nor anything else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfedit.config import load_recipe as load_recipe
    from selfedit.engine.base import open_backend as open_backend
    from selfedit.loop.algorithms import rest_em as rest_em
    from selfedit.loop.inner import propose as propose
    from selfedit.loop.inner import run_trials as run_trials
    from selfedit.loop.outer import improve as improve
    from selfedit.recipe import Recipe as Recipe
    from selfedit.tasks.base import load_domain as load_domain
    from selfedit.types import Adapter as Adapter
    from selfedit.types import Datum as Datum
    from selfedit.types import Example as Example
    from selfedit.types import Failure as Failure
    from selfedit.types import Question as Question
    from selfedit.types import Sample as Sample
    from selfedit.types import Score as Score
    from selfedit.types import SelfEdit as SelfEdit
    from selfedit.types import Task as Task
    from selfedit.types import TrainJob as TrainJob
    from selfedit.types import TrainSettings as TrainSettings
    from selfedit.types import Trial as Trial
    from selfedit.workspace import Workspace as Workspace

__version__ = "0.1.0"

_PUBLIC = {
    "Adapter": "selfedit.types",
    "Datum": "selfedit.types",
    "Example": "selfedit.types",
    "Failure": "selfedit.types",
    "Question": "selfedit.types",
    "Recipe": "selfedit.recipe",
    "Sample": "selfedit.types",
    "Score": "selfedit.types",
    "SelfEdit": "selfedit.types",
    "Task": "selfedit.types",
    "TrainJob": "selfedit.types",
    "TrainSettings": "selfedit.types",
    "Trial": "selfedit.types",
    "Workspace": "selfedit.workspace",
    "improve": "selfedit.loop.outer",
    "load_domain": "selfedit.tasks.base",
    "load_recipe": "selfedit.config",
    "open_backend": "selfedit.engine.base",
    "propose": "selfedit.loop.inner",
    "rest_em": "selfedit.loop.algorithms",
    "run_trials": "selfedit.loop.inner",
}

if not TYPE_CHECKING:  # a checker reads the imports above; this would let it accept any name

    def __getattr__(name: str) -> object:
        if name not in _PUBLIC:
            raise AttributeError(f"module 'selfedit' has no attribute {name!r}")
        return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*_PUBLIC, "__version__"])
