"""Write what is asked: settings, those that training may see, methods, what is prepared, what a benchmark needs.

    python -m calibnb.pipeline.items

Stages that train or measure depend on these files and not on the parameters that they are made of. So another grid of
held-out families changes one file, and nothing is trained again for it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from pathlib import Path

import yaml

from calibnb.benchmarks import registry
from calibnb.errors import UserError, room
from calibnb.laws import settings, specs
from calibnb.pipeline import needed, params
from calibnb.training.params import TRAINED, TRAINING_SETTINGS, write_methods

FOLDER = Path("items")


def write(study: params.Params, folder: Path, only: Collection[str] | None = None) -> None:
    """Everything, in a folder a benchmark; one that needs nothing says so there.

    Parameters
    ----------
    study : Params
        The whole of params.yaml.
    folder : Path
        Where the files go.
    only : Collection[str] or None
        Benchmarks that are asked, where not all of them are.
    """
    everything = specs.build(study.families, study.data.validation_share, study.data.significant_digits)
    settings.write_questions(settings.questions(everything, study.prompt), folder / settings.STUDY.relative_to(FOLDER))
    seen = settings.TrainingSettings.of(study.families, study.data.validation_share, study.data.significant_digits)
    seen.write(folder / TRAINING_SETTINGS.relative_to(FOLDER))
    preparing = registry.modules(registry.ITEMS)
    trained = {name: study.finetune[name] for name in study.methods}
    for name, by_whom in study.needed().items():
        path = folder / needed.FOLDER.relative_to(FOLDER) / f"{name}.yaml"
        needed.leave({path: yaml.safe_dump(by_whom, sort_keys=False)})
    write_methods(trained, folder / TRAINED.relative_to(FOLDER))
    for name in registry.blocks() if only is None else only:
        (folder / name).mkdir(parents=True, exist_ok=True)
        if name in preparing:
            preparing[name].prepare(study, folder / name)
        else:  # an empty folder would not come back from a cache
            (folder / name / "nothing.txt").write_text("It needs nothing beside a model.\n", encoding="utf-8")


def main() -> int:
    """The command line; returns the exit status."""
    try:
        shutil.rmtree(FOLDER, ignore_errors=True)
        with room(FOLDER):
            write(params.load(), FOLDER)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
