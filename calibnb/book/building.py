"""Build the book from the executed notebooks.

    python -m calibnb.book

The pages are assembled in book/_build/source: what is committed under book/, the executed chapters
beside it, and one appendix page for each executed notebook of a matrix stage, as params.yaml names them.
Jupyter Book then runs with every warning an error. The pages must do without a network and show no raw
TeX, every picture must say in words what it shows, and every link must lead somewhere; `problems` looks
for what breaks this, and the build fails on it. The result, book/_build/html, replaces the one before only
when all is well.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup

from calibnb.benchmarks import registry
from calibnb.errors import UserError, room
from calibnb.models.places import place
from calibnb.pipeline import params
from calibnb.pipeline.params import Params

# The page in the committed _toc.yml below which the executed notebooks are listed.
APPENDIX = "pages/executed"

# What a browser loads by itself when it opens a page: attribute by tag.
LOADED = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src", "video": "src"}

# Where a page leads or what it shows: attributes of any tag. Other schemes than these no browser opens by itself.
LINKS = ("href", "src", "action", "poster")
ELSEWHERE = ("http", "https", "mailto", "data", "javascript")

# Mathematics that nothing will typeset: a dollar pair around a command, a bare delimiter, an environment.
RAW_TEX = re.compile(
    r"\$\$|\\[(\[]|\\begin\{|\\(?:frac|sum|mathrm|mathbb|operatorname|text)\b|\$[^$\n]*\\[a-z]+[^$\n]*\$"
)


def appendix(study: Params) -> list[dict[str, str]]:
    """The executed notebooks of the matrix stages, as entries of a table of contents.

    Each has `file`, its path below book/executed without the suffix, and `title`.
    """
    run = {"weights": True} | {stage: any(by_whom.values()) for stage, by_whom in study.needed().items()}
    pages = [
        (f"{stage}/{place(model)}", f"{title} {model}")
        for stage, title in {
            "weights": "Weights of",
            "temperature": "A temperature for",
            "ordinary": "Ordinary answers of",
        }.items()
        if run[stage]
        for model in study.models
    ]
    pages += [
        (f"finetune/{place(model)}/{method}/seed-{seed}", f"Fine-tuning {model}: {method}, seed {seed}")
        for model in study.models
        for method in study.methods
        for seed in study.seeds
    ]
    pages += [
        (f"measure/{name}/{place(model)}/{variant}", f"{benchmark.title} of {model}: {variant}")
        for name, benchmark in registry.benchmarks().items()
        for model in study.models
        for variant in study.measured(name)
    ]
    return [{"file": file, "title": title} for file, title in pages]


def contents(committed: dict[str, Any], entries: list[dict[str, str]]) -> dict[str, Any]:
    """The table of contents with `entries` as sections of the page `APPENDIX`."""
    parts = []
    for part in committed["parts"]:
        chapters = [
            {**chapter, "sections": entries} if chapter["file"] == APPENDIX and entries else chapter
            for chapter in part["chapters"]
        ]
        parts.append({**part, "chapters": chapters})
    return {**committed, "parts": parts}


def files(toc: Any) -> Iterator[str]:
    """Every page that a table of contents names, its root first."""
    if isinstance(toc, dict):
        for key, value in toc.items():
            if key in ("root", "file"):
                yield value
            else:
                yield from files(value)
    elif isinstance(toc, list):
        for value in toc:
            yield from files(value)


def assemble(book: Path, executed: Path, entries: list[dict[str, str]], out: Path) -> None:
    """Lay out in `out` all that Jupyter Book reads, `entries` being the executed notebooks of the appendix.

    Raises
    ------
    UserError
        For a page of the table of contents that is neither committed nor executed.
    """
    shutil.copytree(book, out, ignore=shutil.ignore_patterns("_build", "executed", ".*"))
    toc = contents(yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8")), entries)
    for page in files(toc):
        notebook = executed / f"{page}.ipynb"
        if notebook.is_file():
            target = out / f"{page}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(notebook, target)
        elif not (out / f"{page}.md").is_file():
            raise UserError(f"{book / '_toc.yml'}: {page}: there is neither {book / page}.md nor {notebook}")
    (out / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False, allow_unicode=True), encoding="utf-8")


def build(source: Path, out: Path) -> None:
    """Run Jupyter Book on `source` and put the pages in `out`, which must not exist.

    Raises
    ------
    UserError
        If it warns about anything; what it said is on stderr by then.
    """
    with tempfile.TemporaryDirectory(prefix="calibnb-book-") as folder:
        command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
        options = ["build", str(source), "--path-output", folder, "--quiet", "-n", "-W", "--keep-going"]
        # What it says on stdout is where this temporary folder is.
        run = subprocess.run([*command, *options], check=False, stdout=subprocess.DEVNULL)
        html = Path(folder) / "_build" / "html"
        if run.returncode or not (html / "index.html").is_file():
            raise UserError(f"{source}: jupyter-book warns about these pages; see the lines above")
        shutil.move(html, out)


def problems(html: Path) -> Iterator[str]:
    """What keeps the pages in `html` from being read: one line each, with the page.

    Looks for what is loaded over the network, for TeX outside of what MathJax typesets, for pictures
    without a text in their place, and for links to what is not among the pages.
    """
    links: list[tuple[Path, str]] = []
    anchors: dict[Path, set[str]] = {}  # by page
    for page in sorted(html.rglob("*.html")):
        if "_static" in page.relative_to(html).parts:
            continue
        soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        name = page.relative_to(html)
        for tag, attribute in LOADED.items():
            for element in soup.find_all(tag):
                address = str(element.get(attribute, ""))
                if re.match(r"(https?:)?//", address):
                    yield f"{name}: loads {address} over the network"
        for script in soup.find_all("script"):
            for address in re.findall(r"https?://[^\s\"'`]+\.(?:js|css)", script.get_text()):
                yield f"{name}: a script may load {address} over the network"
        for image in soup.find_all("img"):
            if not str(image.get("alt", "")).strip():
                yield f"{name}: the picture {image.get('src')} has no alt text"
        links += [(name, str(tag[key])) for tag in soup.find_all(True) for key in LINKS if tag.has_attr(key)]
        anchors[name] = {str(tag[key]) for tag in soup.find_all(True) for key in ("id", "name") if tag.has_attr(key)}
        article = soup.find("article") or soup
        for element in article.find_all(["pre", "code", "script", "style"]) + article.select(".math"):
            element.decompose()
        for match in RAW_TEX.finditer(article.get_text()):
            yield f"{name}: raw TeX {match.group()!r}"
    for name, address in dict.fromkeys(links):
        reason = dead(html, name, address, anchors)
        if reason is not None:
            yield f"{name}: links to {address}, {reason}"


def dead(html: Path, page: Path, address: str, anchors: dict[Path, set[str]]) -> str | None:
    """Why an address on a page leads nowhere; None where it leads to a file in `html` or to another host.

    Parameters
    ----------
    html : Path
        Folder of the pages.
    page : Path
        From `html` on, as in `anchors`.
    address : str
        What the page links to.
    anchors : dict[Path, set[str]]
        Names of the places on each page.
    """
    try:
        parts = urlsplit(address.strip())
    except ValueError as error:
        return f"which is no address ({error})"
    if parts.scheme in ELSEWHERE or (parts.netloc and not parts.scheme):
        return None
    if parts.scheme:
        return f"which no browser opens; allowed: {', '.join(ELSEWHERE)}, or a path to a page"
    if parts.path.startswith("/"):
        return "which is not relative to the page"
    path, root = html / page, html.resolve()
    if parts.path:
        path = path.parent / unquote(parts.path)
    if path.is_dir():
        path /= "index.html"
    if not path.resolve().is_relative_to(root) or not path.is_file():
        return "where there is no file"
    target, place = path.resolve().relative_to(root), unquote(parts.fragment)
    # An empty place and `top` are the top of any page; other files than pages have places of their own kinds.
    if place in ("", "top") or target not in anchors or place in anchors[target]:
        return None
    return "where there is no such place on the page"


def publish(book: Path, executed: Path, entries: list[dict[str, str]], made: Path) -> Path:
    """Build the pages in ``made/html``, which is replaced only when all is well.

    Raises
    ------
    UserError
        If Jupyter Book warns, or :func:`problems` finds something; the lines are on stderr by then.
    """
    source, fresh, html = made / "source", made / "new", made / "html"
    for path in (source, fresh):
        shutil.rmtree(path, ignore_errors=True)
    with room(source):
        assemble(book, executed, entries, source)
        build(source, fresh)
    found = list(problems(fresh))
    if found:
        print(*found, sep="\n", file=sys.stderr)
        raise UserError(f"{fresh}: {len(found)} problems with the pages, listed above")
    shutil.rmtree(html, ignore_errors=True)
    fresh.rename(html)
    shutil.rmtree(source)
    return html


def main() -> int:
    """The command line; returns the exit status."""
    book = Path("book")
    try:
        html = publish(book, book / "executed", appendix(params.load()), book / "_build")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{html / 'index.html'}")
    return 0
