"""Build the book from committed runs alone: nothing is trained, measured or fetched.

    python -m calibnb.book.read

The chapters run as they do in the pipeline, without a run of one's own, and the pages are built of them in
``.read/book/_build/html``.
"""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from calibnb.book import building
from calibnb.errors import UserError
from calibnb.evidence import runs
from calibnb.pipeline.execute import parameter_names
from calibnb.pipeline.execute import read as read_notebook
from calibnb.pipeline.terminal import Terminal

RUNS = Path("runs")
OUT = Path(".read/book")


def chapters(toc: object) -> list[str]:
    """The pages of a table of contents that are notebooks."""
    return [page for page in building.files(toc) if notebook_of(page).is_file()]


def notebook_of(page: str) -> Path:
    """The notebook of a page; the first page is the introduction."""
    return Path("notebooks/chapters") / f"{'introduction' if page == 'index' else page}.ipynb"


def command(page: str, run: Path) -> list[str]:
    """The command line that executes a page's notebook without a run of one's own."""
    notebook = notebook_of(page)
    declared = parameter_names(read_notebook(notebook))
    items = {"folder_path": "items/novelty", "settings_path": "items/study/settings.jsonl"}
    given = {"own": "false"} | {name: str(run / path) for name, path in items.items()}
    if "settings_path" in declared:  # settings are shown with the parameters that they were made with
        given["params_path"] = str(run / "params.yaml")
    options = [part for name, value in given.items() if name in declared for part in ("-p", name, value)]
    out = OUT / "executed" / f"{page}.ipynb"
    return [sys.executable, "-m", "calibnb.pipeline.execute", str(notebook), str(out), *options]


def build() -> None:
    """Execute the chapters and build the pages.

    Raises
    ------
    UserError
        Where no run is committed, or a chapter fails, which is shown with what it said.
    """
    found = runs.committed(RUNS)
    if not found:
        raise UserError(
            f"{RUNS}: must hold a committed run; `python -m calibnb.pipeline.keep NAME` keeps a finished one"
        )
    # What needs a model, or a judge, is of the first run that has it: one of some benchmarks alone has not.
    whole = [run.name for run in found if (RUNS / run.name / "pages").is_dir()]
    if not whole:
        raise UserError(f"{RUNS}: must hold a run of all benchmarks, got {', '.join(run.name for run in found)}")
    first = RUNS / whole[0]
    shutil.rmtree(OUT, ignore_errors=True)
    toc = yaml.safe_load((Path("book") / "_toc.yml").read_text(encoding="utf-8"))
    kept = {path.stem: path for path in sorted((first / "pages").glob("*.ipynb"))}
    pages = [page for page in chapters(toc) if page not in kept]
    (OUT / "executed").mkdir(parents=True)
    for page, path in kept.items():
        shutil.copyfile(path, OUT / "executed" / f"{page}.ipynb")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool, Terminal(len(pages)) as terminal:
        done = list(pool.map(lambda page: terminal.run(page, command(page, first), Path(), environment), pages))
    failed = [page for page, well in zip(pages, done, strict=True) if not well]
    if failed:
        raise UserError(f"failed: {', '.join(failed)}")
    print("building the pages", flush=True)
    building.publish(Path("book"), OUT / "executed", [], OUT / "_build")


def main() -> int:
    """The command line; returns the exit status."""
    try:
        build()
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"built {OUT / '_build' / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
