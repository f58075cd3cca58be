"""Laying out the book's pages, and finding what keeps them from being read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from calibnb import params
from calibnb.book import APPENDIX, appendix, assemble, contents, files, problems
from calibnb.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study() -> params.Params:
    change = {"models": ["smollm2-135m", "./a/folder"], "seeds": [3, 4], "methods": ["soft"]}
    change |= {"variants": ["base"], "retention": ["base", "soft"], "numbers": ["base", "soft"]}
    return params.parse(params.merge(params.read(ROOT / "params.yaml"), change))


def test_the_appendix_names_every_run(study: params.Params) -> None:
    models = ("smollm2-135m", "a/folder")
    once = [f"{stage}/{model}" for stage in ("weights", "temperature", "ordinary") for model in models]
    runs = [f"finetune/{model}/soft/seed-{seed}" for model in models for seed in (3, 4)]
    alone, both = ("base",), ("base", "soft")
    lists = {"structured": both, "openended": alone, "positions": alone, "novelty": alone, "language": alone}
    lists |= {"baselines": alone, "capability": both, "perplexity": both}
    measured = [f"{b}/{model}/{variant}" for b, names in lists.items() for model in models for variant in names]
    assert [entry["file"] for entry in appendix(study)] == once + runs + measured


def test_the_appendix_is_put_in_its_place() -> None:
    committed = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    pages = list(files(committed))
    added = list(files(contents(committed, [{"file": "weights/tiny", "title": "Weights"}])))
    place = pages.index(APPENDIX) + 1
    assert added == [*pages[:place], "weights/tiny", *pages[place:]]


def test_a_page_that_is_nowhere_is_an_error(study: params.Params, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"_toc\.yml: index: there is neither .* nor .*"):
        assemble(ROOT / "book", tmp_path / "executed", study, tmp_path / "source")


def test_stale_runs_stay_out(study: params.Params, tmp_path: Path) -> None:
    executed = tmp_path / "executed"
    committed = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    for page in [*files(contents(committed, appendix(study))), "weights/another"]:
        (executed / page).parent.mkdir(parents=True, exist_ok=True)
        (executed / f"{page}.ipynb").write_text("{}")
    assemble(ROOT / "book", executed, study, tmp_path / "source")
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
        ('<span class="math">\\(\\frac{1}{2}\\)</span>', None),
        ("<p>\\(x\\)</p>", "raw TeX '\\\\('"),
        ("<p>costs $x_1 \\le 3$ at most</p>", "raw TeX"),
        ("<td>$\\mu$</td>", "raw TeX"),
        ("<p>costs $3 and then $4</p>", None),
        ("<pre>r'$\\frac{1}{2}$'</pre>", None),
    ],
)
def test_problems_of_a_page(tmp_path: Path, body: str, found: str | None) -> None:
    (tmp_path / "page.html").write_text(f"<html><body><article>{body}</article></body></html>")
    lines = list(problems(tmp_path))
    if found is None:
        assert lines == []
    else:
        assert len(lines) == 1
        assert lines[0].startswith(f"page.html: {found}")
