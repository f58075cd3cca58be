"""Laying out the book's pages, and finding what keeps them from being read."""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from notebook_code import code_of

from calibnb.book.building import APPENDIX, appendix, assemble, contents, files, problems
from calibnb.errors import UserError
from calibnb.pipeline import params

ROOT = Path(__file__).parents[1]
BENCHMARKS = (
    *("baselines", "capability", "language", "mixing", "novelty"),
    *("openended", "perplexity", "positions", "sequences", "structured", "told"),
)


@pytest.fixture(scope="module")
def study() -> params.Params:
    change = {"models": ["smollm2-135m", "./a/folder"], "seeds": [3, 4], "methods": ["soft", "mixed"]}
    change |= {"variants": ["base", "soft"]}
    lists = {name: "all" if name in ("structured", "capability", "perplexity") else ["base"] for name in BENCHMARKS}
    change["benchmarks"] = {name: {"variants": variants} for name, variants in lists.items()}
    return params.parse(params.merge(params.read(ROOT / "params.yaml"), change))


def test_the_appendix_names_every_run(study: params.Params) -> None:
    models = ("smollm2-135m", "a/folder")
    once = [f"{stage}/{model}" for stage in ("weights", "ordinary") for model in models]
    runs = [f"finetune/{m}/{method}/seed-{seed}" for m in models for method in ("soft", "mixed") for seed in (3, 4)]
    alone, both = ("base",), ("base", "soft")
    lists = dict.fromkeys(BENCHMARKS, alone) | {"structured": both, "capability": both, "perplexity": both}
    measured = [f"measure/{b}/{model}/{variant}" for b, names in lists.items() for model in models for variant in names]
    assert [entry["file"] for entry in appendix(study)] == once + runs + measured


def test_the_appendix_is_put_in_its_place() -> None:
    committed = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    pages = list(files(committed))
    added = list(files(contents(committed, [{"file": "weights/tiny", "title": "Weights"}])))
    place = pages.index(APPENDIX) + 1
    assert added == [*pages[:place], "weights/tiny", *pages[place:]]


def test_a_page_that_is_nowhere_is_an_error(study: params.Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"_toc\.yml: index: there is neither .* nor .*"):
        assemble(ROOT / "book", tmp_path / "executed", appendix(study), tmp_path / "source")


def test_stale_runs_stay_out(study: params.Params, tmp_path: Path) -> None:
    executed = tmp_path / "executed"
    committed = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    for page in [*files(contents(committed, appendix(study))), "weights/another"]:
        (executed / page).parent.mkdir(parents=True, exist_ok=True)
        (executed / f"{page}.ipynb").write_text("{}")
    assemble(ROOT / "book", executed, appendix(study), tmp_path / "source")
    made = {str(path.relative_to(tmp_path / "source")) for path in (tmp_path / "source").rglob("*.ipynb")}
    assert "weights/a/folder.ipynb" in made
    assert "weights/another.ipynb" not in made


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('<img src="a.png" alt="A tree."/>', None),
        ('<img src="a.png"/>', "the picture a.png has no alt text"),
        ('<img src="a.png" alt=" "/>', "the picture a.png has no alt text"),
        ('<script src="_static/a.js"></script>', None),
        (
            '<script src="https://host.example/a.js"></script>',
            "loads https://host.example/a.js over the network",
        ),
        (
            '<link rel="stylesheet" href="//host.example/a.css"/>',
            "loads //host.example/a.css over the network",
        ),
        (
            '<script>const u = "https://host.example/a.js"</script>',
            "a script may load https://host.example/a.js",
        ),
        ('<a href="https://host.example/paper">paper</a>', None),
        ('<a href="//host.example/paper">paper</a>', None),
        ('<a href="mailto:a@host.example">mail</a>', None),
        ('<img src="data:image/png;base64,AAAA" alt="A tree."/>', None),
        ('<a href="">here</a><a href="#">here</a><a href="#top">here</a>', None),
        ('<a href="page.html">here</a><a href="./page.html#">here</a><a href="sub/../page.html">here</a>', None),
        ('<a href="other.html#two">there</a><a href="sub/deep.html">there</a><a href="sub/">there</a>', None),
        ('<a href="other.html#na%C3%AFve">there</a><a href="with%20space.html">there</a>', None),
        ('<a href="search.html?q=law#x">there</a><form action="search.html"></form>', None),
        ('<a href="_downloads/ab12/table.csv">data</a><a href="_static/plot.svg#part">plot</a>', None),
        ('<a href="#own">here</a><h2 id="own">Own</h2><a href="#old">here</a><a name="old"></a>', None),
        ('<a href="method">method</a>', "links to method, where there is no file"),
        ('<a href="other">there</a>', "links to other, where there is no file"),
        ('<a href="other.ipynb">there</a>', "links to other.ipynb, where there is no file"),
        ('<a href="Other.html">there</a>', "links to Other.html, where there is no file"),
        ('<a href="with+space.html">there</a>', "links to with+space.html, where there is no file"),
        ('<a href="sub/other.html">there</a>', "links to sub/other.html, where there is no file"),
        ('<a href="_static">there</a>', "links to _static, where there is no file"),
        ('<a href="../outside.html">there</a>', "links to ../outside.html, where there is no file"),
        ('<a href="/other.html">there</a>', "links to /other.html, which is not relative to the page"),
        ('<a href="doc:method">there</a>', "links to doc:method, which no browser opens; allowed: "),
        ('<a href="file:///other.html">there</a>', "links to file:///other.html, which no browser opens"),
        ('<a href="http://[">there</a>', "links to http://[, which is no address"),
        ('<a href="#two">here</a>', "links to #two, where there is no such place on the page"),
        ('<a href="other.html#three">there</a>', "links to other.html#three, where there is no such place"),
        ('<a href="sub/deep.html#two">there</a>', "links to sub/deep.html#two, where there is no such place"),
        ('<img src="_images/a.png" alt="A tree."/>', "links to _images/a.png, where there is no file"),
        ('<link rel="stylesheet" href="_static/b.css"/>', "links to _static/b.css, where there is no file"),
        ('<script src="_static/b.js?v=1"></script>', "links to _static/b.js?v=1, where there is no file"),
        ('<span class="math">\\(\\frac{1}{2}\\)</span>', None),
        ("<p>\\(x\\)</p>", "raw TeX '\\\\('"),
        ("<p>costs $x_1 \\le 3$ at most</p>", "raw TeX"),
        ("<td>$\\mu$</td>", "raw TeX"),
        ("<p>costs $3 and then $4</p>", None),
        ("<pre>r'$\\frac{1}{2}$'</pre>", None),
    ],
)
def test_problems_of_a_page(tmp_path: Path, body: str, found: str | None) -> None:
    html = tmp_path / "html"
    for path, text in {
        "page.html": f"<html><body><article>{body}</article></body></html>",
        "other.html": '<h2 id="two">Two</h2><h2 id="naïve">Naive</h2>',
        "with space.html": "",
        "search.html": '<p id="x"></p>',
        "sub/deep.html": '<a href="../other.html#two">there</a><a href="deep.html">here</a>',
        "sub/index.html": "",
        "a.png": "",
        "_static/a.js": "",
        "_static/plot.svg": "",
        "_static/macros.html": '<a href="{{ address }}">not a page</a>',
        "_downloads/ab12/table.csv": "",
        "../outside.html": "",
    }.items():
        (html / path).parent.mkdir(parents=True, exist_ok=True)
        (html / path).write_text(text)
    lines = list(problems(html))
    if found is None:
        assert lines == []
    else:
        assert len(lines) == 1
        assert lines[0].startswith(f"page.html: {found}")


def test_a_dead_link_is_told_once_a_page(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        (tmp_path / name).write_text('<a href="method">one</a><a href="method">two</a>')
    assert list(problems(tmp_path)) == [f"{n}.html: links to method, where there is no file" for n in "ab"]


SOURCES = [*sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "book" / "pages").glob("*.md"))]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_links_of_sources_lead_to_pages(source: Path) -> None:
    """Sphinx resolves what stands in the text; what code writes into an output is an address as it stands."""
    pages = set(files(yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())))
    texts, outputs = [source.read_text()], list[str]()
    if source.suffix == ".ipynb":
        cells = nbformat.read(source, as_version=4).cells
        texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
        constants = [node.value for node in ast.walk(ast.parse(code_of(source))) if isinstance(node, ast.Constant)]
        outputs = [value for value in constants if isinstance(value, str)]
    above = "pages/" if source.suffix == ".md" else ""
    for text, suffix in [*((t, "") for t in texts), *((t, ".html") for t in outputs)]:
        for address in re.findall(r"\]\(([^)\s]+)\)|href=[\"']([^\"'{]+)", text):
            path, _, _ = "".join(address).partition("#")
            if path and not re.match("https?:|mailto:", path):
                assert path.endswith(suffix), f"{path} in an output must be the name of a built page"
                assert posixpath.normpath(above + path.removesuffix(suffix)) in pages, path
