"""The documents: what they link to and name is there, and the tutorial does what it says."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import openmm_diffsim as diffsim

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


def text_of(path: Path) -> str:
    """Without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """Of its headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ +(.*)$", text_of(path), flags=re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {heading.replace(" ", "-") for heading in words}


def broken_links(path: Path) -> list[str]:
    found = []
    for target, anchor in LINK.findall(text_of(path)):
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            found.append(f"{target}#{anchor}" if anchor else target)
    return found


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    assert broken_links(path) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One two!\n[x](a.md#one-two) [y](a.md#three) [z](b.md)\n")
    assert broken_links(tmp_path / "a.md") == ["a.md#three", "b.md"]


def test_the_readme_has_the_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^<!-- command: (.*) -->\n```sh\n(.*)\n```$", readme, flags=re.M))
    assert list(blocks) == ["main job", "tests"]
    assert all(block.startswith("python3 -m venv .venv && . ") for block in blocks.values())
    _, main_job = blocks["main job"].split(" pip install --quiet . && ")  # as .ci/run does
    assert main_job.startswith("openmm-diffsim refine examples/lennard_jones.toml && python ")


def test_every_page_is_on_the_site() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    listed = {
        page
        for block in re.findall(r"```{toctree}(.*?)```", index, re.S)
        for page in re.findall(r"^[\w/]+$", block, re.M)
    }
    pages = {path.stem for path in ROOT.glob("docs/*.md")} - {"index"}
    assert listed == pages | {"reference/index"}


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_code_is_python_and_scripts_are_there(path: Path) -> None:
    for block in python_blocks(path):
        compile(block, str(path), "exec")
    for script in re.findall(r"python ((?:benchmarks|examples)/\w+\.py)", path.read_text()):
        assert (ROOT / script).exists()
    for configuration in re.findall(
        r"openmm-diffsim refine (examples/\S+\.toml)", path.read_text()
    ):
        assert (ROOT / configuration).exists()


def test_every_public_name_has_its_task() -> None:
    named = re.findall(r"`[^`]+`", (ROOT / "docs/api.md").read_text(encoding="utf-8"))
    words = {word for name in named for word in re.findall(r"\w+", name)}
    assert {*diffsim.__all__} - words == set()


# The tutorial ------------------------------------------------------------------------------------

TUTORIAL = ROOT / "docs/tutorial.md"
SHORTER = {"rounds=45": "rounds=2", "steps=4500": "steps=1000", "fluid(500": "fluid(200"}
SHORTER |= {'"Threads": "2"': '"Threads": "1"', "simulation.step(1000)": "simulation.step(10)"}
SHORTER |= {"r_max=r[-1]": "r_max=0.85"}  # half the smaller box


def test_the_script_of_the_tutorial_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, but for a smaller box and fewer steps."""
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    blocks = "\n".join(python_blocks(TUTORIAL))
    for long, short in SHORTER.items():
        assert long in blocks
        blocks = blocks.replace(long, short)
    script, by_hand = blocks.split("import torch\n")
    script = script.replace(
        "targets = [", "r, g, g_error = (x[r < 0.85] for x in (r, g, g_error))\ntargets = ["
    )
    exec(script, names)
    assert len(names["fit"].history) == 2 or names["fit"].converged
    assert np.isfinite(names["error"]).all()
    before = names["pair"].values.detach().clone()
    exec("import torch\n" + by_hand, names)
    assert not torch.equal(before, names["pair"].values)


def test_the_configuration_of_the_tutorial_is_that_of_the_main_job() -> None:
    written = re.findall(
        r"```toml\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    main_job = (ROOT / "examples/lennard_jones.toml").read_text(encoding="utf-8")
    told, run = tomllib.loads(written[0]), tomllib.loads(main_job)
    assert run["refine"].pop("method") == "gauss-newton"  # which is the default
    assert told == run
