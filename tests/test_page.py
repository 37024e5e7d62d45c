"""The page of a fit, the page of several, and how a page is watched."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from threading import Thread
from typing import Any

import browser
import numpy as np
import openmm
import pytest
from fake_statepoint import FakeStatePoint
from networks import embedded, fluid
from openmm import app
from systems import argon, empty_system, langevin, lattice, simulate, topology

import openmm_diffsim as diffsim
from openmm_diffsim import cli
from openmm_diffsim.cli import watch
from openmm_diffsim.io.lock import Lock
from openmm_diffsim.report import page, running
from openmm_diffsim.report.page.svg import Plot, log_ticks, ticks
from openmm_diffsim.report.page.text import number, unit, with_error

HOSTILE = "<img src=x onerror=alert(1)>&\"'"  # of a file or folder, from others
PLAIN = "lennard-jones"
VOID = {"meta", "link", "br", "img", "hr", "input"}
ENDED = (cli.FINISHED, cli.NOT_CONVERGED)

CONFIG = """
[system]
particles = 120
number_density = 15.0
mass = 39.948
[dynamics]
temperature = 150.0
timestep = 0.01
platform = "CPU"
threads = 1
[potential]
kind = "{kind}"
cutoff = 0.85
knots = 30
[[target]]
observable = "rdf"
file = '''{file}'''
uncertainty = 0.02
[[target]]
observable = "pressure"
value = 300.0
uncertainty = 100.0
[refine]
rounds = 2
equilibration = 200
steps = 1000
every = 25
"""


class Reader(HTMLParser):
    """Tags that do not match, all tags, and the text that is shown."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(content.decode())
        self.close()
        self.wrong += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing, at {self.getpos()}")
        self.text += " " if tag in {"td", "th", "dt", "dd", "li", "p", "h2", "h3"} else ""

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open[-1:]):
            self.text += data


def text_of(content: bytes) -> str:
    return " ".join(Reader(content).text.split())


# Fits of every kind -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the command line leaves behind of two short fits; one has names from a bad dream."""
    root = tmp_path_factory.mktemp("fits")
    data = root / f"g {HOSTILE}.csv"
    r = np.arange(0.005, 0.95, 0.01)
    x6 = (0.34 / np.maximum(r, 0.1)) ** 6
    g = np.exp(-4 * 0.8 * (x6**2 - x6))
    data.write_text("\n".join(f"{a:.4f},{b:.6f}" for a, b in zip(r, g, strict=True)))
    found = {}
    for name, kind in ((f"spline {HOSTILE}", "spline"), (PLAIN, "lennard-jones")):
        config = root / f"{kind}.toml"
        text = CONFIG.format(kind=kind, file=data.name)
        config.write_text(text if kind == "spline" else text.replace("knots = 30\n", ""))
        found[kind] = root / name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(running.RunningPage, "_tell", pytest.fail)
            patch.setattr(running.RunningPage, "__call__", keeping_the_first(root / "first.html"))
            code = cli.main(["refine", str(config), "--output", str(found[kind])])
        assert code in ENDED
    return found


def keeping_the_first(kept: Path) -> Callable[[Any, Any], None]:
    """What ``refine`` does after each round, and a copy of the first page."""
    plain = running.RunningPage.__call__

    def call(self: running.RunningPage, fit: diffsim.Refinement) -> None:
        plain(self, fit)
        if not kept.exists():
            kept.write_bytes((self._folder / page.NAME).read_bytes())

    return call


def short(potential: Any, targets: list[diffsim.Target], **options: Any) -> diffsim.Refinement:
    fit = diffsim.Refinement(potential, targets, **options)
    return fit.run(rounds=2, steps=600, every=10, equilibration=50, progress=False)


def of_parameters() -> diffsim.Refinement:
    """Of a force that the System has, at two temperatures: no table of anything."""
    box = np.eye(3) * 1.6
    force = openmm.NonbondedForce()
    for _ in range(27):
        force.addParticle(0.0, 0.34, 1.0)
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.75)
    system = empty_system(27, box)
    system.addForce(force)
    learned = diffsim.SystemParameters(system)
    learned.lennard_jones()
    points = []
    for kelvin in (150.0, 250.0):
        simulation = simulate(system, lattice(27, box, 0.02, 1), langevin(kelvin), "Reference")
        points.append(diffsim.StatePoint(simulation, learned))
    return short(
        learned,
        [
            diffsim.Target(points[0], diffsim.Pressure(), 100.0, uncertainty=200.0),
            diffsim.Target(
                points[1], diffsim.Pressure(), 300.0, uncertainty=200.0, systematic=[[50.0]]
            ),
        ],
    )


def of_a_network(folder: Path) -> diffsim.Refinement:
    network = embedded()
    point = fluid(network)
    target = diffsim.Target(point, diffsim.Pressure(), 100.0, uncertainty=300.0)
    return short(network, [target], checkpoint=folder / "network.npz")


def of_dimers() -> diffsim.Refinement:
    """Two types of particle, and a bond: a sum, of which each term has tables."""
    n, box = 24, np.eye(3) * 1.7
    pair = diffsim.LennardJones(0.3, 0.8, n_types=2, cutoff=0.7, name="pair")
    bond = diffsim.BondSpline(0.15, 0.45, 20, name=f"bond {HOSTILE}")
    r = np.linspace(0.15, 0.45, 30)
    bond.set_table(r, 2000.0 * (r - 0.3) ** 2)
    top = topology(n)
    atoms = list(top.atoms())
    for k in range(0, n, 2):
        top.addBond(atoms[k], atoms[k + 1])
    system = empty_system(n, box)
    bonds = [(k, k + 1) for k in range(0, n, 2)]
    bond.attach(system, bonds=bonds)
    pair.attach(system, types=np.arange(n) % 2, exclusions=bonds)
    half = lattice(n // 2, box)
    x = np.stack([half, half + np.array([0.3, 0, 0])], axis=1).reshape(-1, 3)
    simulation = app.Simulation(top, system, langevin(200.0), openmm.Platform.getPlatform(0))
    simulation.context.setPositions(x)
    simulation.minimizeEnergy()
    both = pair + bond
    point = diffsim.StatePoint(simulation, both)
    bins = diffsim.BondDistribution(0.2, 0.4, 20, bonds=bonds)
    centres = np.linspace(0.205, 0.395, 20)
    p = np.exp(-(((centres - 0.3) / 0.02) ** 2) / 2) / (0.02 * np.sqrt(2 * np.pi))
    return short(
        both,
        [
            diffsim.Target(point, bins, centres, p, uncertainty=2.0, scale=0.1),
            diffsim.Target(point, diffsim.Pressure(), 100.0, uncertainty=500.0),
        ],
    )


@pytest.fixture(scope="module")
def pages(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Of fits of all kinds, and of two fits."""
    folder = tmp_path_factory.mktemp("pages")
    found = {kind: (path / page.NAME).read_bytes() for kind, path in folders.items()}
    found["first"] = (folders["spline"].parent / "first.html").read_bytes()
    fits = {"parameters": of_parameters(), "network": of_a_network(folder), "dimers": of_dimers()}
    for name, fit in fits.items():
        diffsim.write_report(fit, folder / f"{name}.html")
        found[name] = (folder / f"{name}.html").read_bytes()
    found["running"] = page.fit_page(fits["dimers"], HOSTILE, {"a": {HOSTILE: HOSTILE}})
    output = folder / "compare.html"
    assert cli.main(["compare", *map(str, folders.values()), "--output", str(output)]) == 0
    found["compare"] = output.read_bytes()
    return found


# What stands on a page ----------------------------------------------------------------------------


def test_pages_are_whole_and_need_nothing_else(pages: dict[str, bytes]) -> None:
    for name, content in pages.items():
        read = Reader(content)
        assert not read.wrong, name
        assert not {"script", "img", "iframe", "object"} & set(read.tags), name
        loads = [v for k, v in read.attributes if k in ("src", "href", "srcset", "data")]
        assert loads == ["data:,"], name  # no icon
        assert b"default-src 'none'" in content and b"url(" not in content, name
        assert b"@import" not in content and len(content) < 200_000, name
        ids = [v for k, v in read.attributes if k == "id"]
        assert len(ids) == len(set(ids)), name
        assert "nan" not in re.findall(r"\bnan\b", read.text.lower()), name


def test_a_reader_finds_what_is_not_closed() -> None:
    assert Reader(b"<p><b>x</p></b>").wrong and Reader(b"<div><p>x</p>").wrong
    assert not Reader(b"<p>x<br><svg><path d='M0,0'/></svg></p>").wrong


def test_names_from_others_are_text(pages: dict[str, bytes]) -> None:
    assert f"spline {HOSTILE}" in text_of(pages["spline"])
    assert f"g {HOSTILE}.csv" in text_of(pages["spline"])
    assert f"bond {HOSTILE}" in text_of(pages["dimers"])
    assert text_of(pages["running"]).count(HOSTILE) > 1
    assert f"spline {HOSTILE}" in text_of(pages["compare"])


def test_the_page_says_what_the_summary_says(
    pages: dict[str, bytes], folders: dict[str, Path]
) -> None:
    summary = json.loads((folders["spline"] / "summary.json").read_text())
    text = text_of(pages["spline"])
    assert ("not converged" not in text) is summary["converged"]
    well = summary["final"]["wells"][0]
    assert f"{well['r_nm']:.4f} {number(well['u_kJ_mol'], 4)}" in text
    for each in summary["verdict"]["targets"]:
        assert f"misfit {each['misfit']:.2f}, at most {each['limit']:.2f}" in text or (
            each["name"] == "Pressure"
        )
    (pressure,) = summary["final"]["scalars"]
    assert f"{with_error(pressure['model'], pressure['standard_error'])} bar" in text
    assert "scale" in text  # of a digitised g(r), known to a per cent
    assert '"number_density": 15.0' in text and f"openmm {openmm.__version__}" in text
    rows = re.findall(r"<tr><td class=\"n\">\d+</td>", pages["spline"].decode())
    assert len(rows) == len(summary["rounds"])


def test_a_section_is_there_where_there_is_something(pages: dict[str, bytes]) -> None:
    def sections(name: str) -> set[str]:
        return set(re.findall(r'<section id="([\w-]+)"', pages[name].decode())) - {
            "reasons",
            "warnings",
        }

    always = {"asked", "targets", "rounds"}
    assert sections("spline") == always | {"potential", "parameters", "nuisances", "go-on"}
    assert sections("parameters") == always | {"parameters", "nuisances", "go-on"}
    assert sections("network") - {"parameters"} == always | {"forms", "go-on"}
    assert sections("dimers") >= always | {"potential", "parameters", "nuisances", "go-on"}
    assert "go-on" not in sections("running") | sections("first")
    assert "After 1 round " in text_of(pages["first"])
    physical = text_of(pages["parameters"])
    assert "lennard_jones.sigma" in physical and "lennard_jones.epsilon" in physical
    dimers = text_of(pages["dimers"])
    assert all(row in dimers for row in ("0-0", "0-1", "1-1"))
    assert pages["dimers"].count(b"u(r) / kJ") == 2  # pairs of all types in one, bonds in another


def test_what_no_frame_saw_is_shaded(pages: dict[str, bytes]) -> None:
    assert "no frame has any there" in text_of(pages["lennard-jones"])
    drawn = pages["lennard-jones"].decode().partition('id="potential"')[2].partition("</svg>")[0]
    shaded = re.search(r'class="shade" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawn)
    assert shaded is not None and float(shaded[1]) == 0.0 and float(shaded[2]) > 5  # the core


def test_production_goes_on_as_the_page_says(
    pages: dict[str, bytes], folders: dict[str, Path]
) -> None:
    reader = pages["spline"].decode().partition('<section id="go-on">')[2]
    code = re.search(r"<pre><code>(.+?)</code></pre>", reader, re.DOTALL)
    assert code is not None
    program = Reader(code[0].encode()).text
    assert len(program.splitlines()) <= 6
    told = program + "\nprint(context.getStepCount(), context.getSystem().getNumParticles())"
    done = subprocess.run(
        [sys.executable, "-c", told],
        cwd=folders["spline"],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENMM_DEFAULT_PLATFORM": "CPU"},
    )
    before = json.loads((folders["spline"] / "summary.json").read_text())["final"]["md_steps"]
    assert done.stdout.split() == [str(before + 1000), "120"], done.stderr


# In a browser -------------------------------------------------------------------------------------


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium to open a page with")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_fit_a_phone_and_a_desk(pages: dict[str, bytes], tmp_path: Path, dark: bool) -> None:
    seen = browser.look_at(pages, tmp_path, dark)
    assert len(seen.pages) == len(pages) * len(browser.WIDTHS)
    assert {each["name"]: each["found"] for each in seen.pages if each["found"]} == {}
    assert seen.console == [] and seen.requests == []
    light = [sum(map(int, re.findall(r"\d+", each["paper"])[:3])) > 400 for each in seen.pages]
    assert set(light) == {not dark}
    ink = [sum(map(int, re.findall(r"\d+", each["ink"])[:3])) > 400 for each in seen.pages]
    assert set(ink) == {dark}
    assert min(each["figures"] for each in seen.pages) > 0


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium to open a page with")
def test_a_browser_finds_what_is_wrong(tmp_path: Path) -> None:
    bad = (
        b"<!DOCTYPE html><html><body><p style='width:900px'>wide</p><img src='/planted.png'>"
        b"<svg role='img'></svg><b id='a'></b><b id='a'></b><script>console.error('planted')"
        b"</script></body></html>"
    )
    seen = browser.look_at({"bad": bad}, tmp_path)
    phone, desk = ("\n".join(each["found"]) for each in seen.pages)
    for told in ("without alt", "without title", "planted.png", "id twice"):
        assert told in phone and told in desk
    assert "leaves the page" in phone and "is 9" in phone and "leaves the page" not in desk
    assert any("planted" in line for line in seen.console)
    assert "/planted.png" in seen.requests


# As a fit runs ------------------------------------------------------------------------------------


def two_particles() -> diffsim.Refinement:
    point = FakeStatePoint(argon(0.6, 30), 300.0, 1.3)
    r = np.linspace(0.3, 0.6, 20)
    rdf = diffsim.RDF(0.65, 26)
    target = diffsim.Target(point, rdf, r, np.ones(20), uncertainty=0.02, as_it_is=True)
    return diffsim.Refinement(point.potential, [target])


def run_with(on_round: Callable[[Any], Any]) -> diffsim.Refinement:
    fit = two_particles()
    return fit.run(rounds=3, steps=4000, every=10, progress=False, on_round=on_round)


def test_every_round_has_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_SHARE", np.inf)
    writer = running.RunningPage(tmp_path, {"a": 1}, pytest.fail)
    found = []

    def on_round(fit: diffsim.Refinement) -> None:
        writer(fit)
        text = text_of((tmp_path / page.NAME).read_bytes())
        assert "running" in text and f"After {len(fit.history)} round" in text
        found.append(fit.history[-1].excesses)

    fit = run_with(on_round)
    assert len(found) == len(fit.history) > 1
    assert all(row == (entry.excess,) for row, entry in zip(found, fit.history, strict=True))
    written = json.loads((tmp_path / "written.json").read_text())
    assert list(written["files"]) == [page.NAME]  # by this fit, which may replace it


def test_a_page_that_would_take_long_waits(tmp_path: Path) -> None:
    writer = running.RunningPage(tmp_path, {}, pytest.fail)
    writer._cost, writer._written = 10.0, time.perf_counter() - 400.0  # 2.5 per cent
    run_with(writer)
    assert not (tmp_path / page.NAME).exists()
    writer._written = time.perf_counter() - 600.0
    run_with(writer)
    assert (tmp_path / page.NAME).exists()


def test_a_page_that_cannot_be_written_ends_no_fit(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / page.NAME).write_text("somebody else's")
    fit = run_with(running.RunningPage(tmp_path, {}, told.append))
    assert len(fit.history) > 1 and len(told) == 1 and page.NAME in told[0]
    assert (tmp_path / page.NAME).read_text() == "somebody else's"


def test_what_is_said_in_passing_needs_no_further_work() -> None:
    fit = run_with(lambda fit: None)
    passing = fit.in_passing()
    assert passing.solution is None and passing.remarks == []
    covariance = fit.last_step.covariance if fit.last_step is not None else None
    np.testing.assert_array_equal(passing.covariance, covariance)


# Watched ------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    server = watch.serve(tmp_path, 0)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def get(url: str, host: str | None = None) -> tuple[str, Any]:
    request = urllib.request.Request(url, headers={} if host is None else {"Host": host})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode(), answer.headers


def test_watch_shows_each_round_and_that_it_ended(served: tuple[Path, str]) -> None:
    folder, url = served
    text, headers = get(url)
    assert "no report.html yet" in text and headers["Refresh"]
    with Lock(folder / "fit.lock", "a fit"):
        for number_of in ("one", "two"):
            (folder / page.NAME).write_text(f"<html><body>\n<p>round {number_of}</p></body></html>")
            text, headers = get(url)
            assert f"round {number_of}" in text and "is running" in text
            assert int(headers["Refresh"]) > 0 and headers["Cache-Control"] == "no-store"
    text, headers = get(f"{url}/report.html")
    assert "has ended" in text and headers["Refresh"] is None and "round two" in text


def test_watch_shows_nothing_else_and_to_nobody_else(served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / page.NAME).write_text("<html><body></body></html>")
    (folder / "secret").write_text("s")
    for path in ("/secret", "/../secret", "/fit.lock", "/report.html/"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(url + path)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(url, host="somewhere.example:8077")
    assert "ended" in get(url, host="localhost:1")[0]


def test_watch_from_the_command_line(folders: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openmm_diffsim", "watch", "--port", "0"]
    running_one = subprocess.Popen(
        [*command, str(folders["spline"])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert running_one.stdout is not None
        line = running_one.stdout.readline()
        text, _ = get(line.split()[0])
        assert "How to go on" in text and "The fit has ended" in text
    finally:
        running_one.send_signal(signal.SIGINT)
    _, errors = running_one.communicate(timeout=60)
    assert running_one.returncode == cli.INTERRUPTED and "Traceback" not in errors
    assert cli.main(["watch", str(tmp_path / "nowhere")]) == cli.BAD_INPUT
    assert cli.main(["watch", str(tmp_path), "--port", "99999"]) == cli.BAD_INPUT


def test_a_port_that_is_taken_is_told(
    served: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, url = served
    assert cli.main(["watch", str(folder), "--port", url.rpartition(":")[2]]) == cli.BAD_INPUT
    assert "--port" in capsys.readouterr().err


# Compared -----------------------------------------------------------------------------------------


def test_two_fits_side_by_side(pages: dict[str, bytes], folders: dict[str, Path]) -> None:
    text = text_of(pages["compare"])
    assert f"The forms of the potentials differ (spline {HOSTILE}: spline; {PLAIN}: lennard" in text
    for folder in folders.values():
        summary = json.loads((folder / "summary.json").read_text())
        for each in summary["verdict"]["targets"]:
            assert f"{number(each['misfit'])} of {number(each['limit'])}" in text
        (pressure,) = summary["final"]["scalars"]
        assert with_error(pressure["model"], pressure["standard_error"]) in text
    name, value, error, *_ = (
        (folders[PLAIN] / "parameters.csv").read_text().splitlines()[1].split(",")
    )
    assert f"{name} – {with_error(float(value), float(error))}" in text
    assert "potential.kind spline lennard-jones" in text
    drawn = pages["compare"].decode().partition('id="potentials"')[2].partition("</figure>")[0]
    assert drawn.count('class="line') == drawn.count('class="band') == 2


def test_other_targets_are_told(folders: dict[str, Path], tmp_path: Path) -> None:
    summary = json.loads((folders[PLAIN] / "summary.json").read_text())
    summary["verdict"]["targets"][0]["name"] = "S(Q)"
    other = tmp_path / "other"
    other.mkdir()
    (other / "summary.json").write_text(json.dumps(summary))
    output = tmp_path / "c.html"
    arguments = ["compare", str(folders[PLAIN]), str(other), "--output", str(output)]
    assert cli.main(arguments) == 0
    assert "Not all fits have the same targets (S(Q), g(r) not in all)" in text_of(
        output.read_bytes()
    )
    assert cli.main(arguments) == 0  # its own page may be replaced


@pytest.mark.parametrize(
    "content",
    [None, "", "[]", "{}", '{"final": {}}', '{"final": {"a": 1}, "verdict": [], "rounds": 1}'],
)
def test_what_is_no_fit_is_not_compared(
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    if content is not None:
        (bad / "summary.json").write_text(content)
    output = tmp_path / "c.html"
    arguments = ["compare", str(folders[PLAIN]), str(bad), "--output", str(output)]
    assert cli.main(arguments) == cli.BAD_INPUT and not output.exists()
    told = capsys.readouterr().err
    assert "summary.json" in told and len(told.splitlines()) == 1


def test_compare_replaces_nothing_of_others(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [str(folder) for folder in folders.values()]
    other = tmp_path / "c.html"
    other.write_text("mine")
    assert cli.main(["compare", *both, "--output", str(other)]) == cli.BAD_INPUT
    assert other.read_text() == "mine" and "c.html is there already" in capsys.readouterr().err
    assert cli.main(["compare", both[0]]) == cli.BAD_INPUT
    nowhere = tmp_path / "no" / "c.html"
    assert cli.main(["compare", *both, "--output", str(nowhere)]) == cli.BAD_INPUT


# Its parts ----------------------------------------------------------------------------------------


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-1.3, 0.4, 5) == pytest.approx([-1.0, -0.5, 0.0])
    assert ticks(0.6, 3.4, 6, whole=True) == [1, 2, 3]
    assert log_ticks(0.3, 12.0) == pytest.approx([0.5, 1, 2, 5, 10])
    assert log_ticks(1e-6, 1e3)[0] == pytest.approx(1e-6)


@pytest.mark.parametrize("ends", [(1.0, 1.0), (0.0, 0.0), (np.nan, 1.0), (-np.inf, np.inf)])
@pytest.mark.parametrize("log", [False, True])
def test_a_plot_of_anything_is_drawn(ends: tuple[float, float], log: bool) -> None:
    plot = Plot("t<", "d&", "x", "y", ends, ends, log)
    y = np.array([1.0, np.nan, np.inf, -1e300, 2.0])
    plot.line(np.arange(5.0), y)
    plot.band(np.arange(5.0), y - 1, y + 1)
    plot.points(np.arange(5.0), y, "c0", np.array([0.1, 1, np.nan, np.inf, 0.1]))
    text = str(plot.svg())
    assert not Reader(text.encode()).wrong
    assert "nan" not in text and "inf" not in text and "<title>t&lt;</title>" in text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.33995, 0.00012, "0.33995 ± 0.00012"),
        (-1.006, 0.0079, "−1.0060 ± 0.0079"),
        (945.4, 47.0, "945 ± 47"),
        (1.5, np.nan, "1.5"),
        (np.nan, np.nan, "–"),
        (4.5e-4, 1e-6, "0.0004500 ± 0.0000010"),
        (4.5e-9, 1e-11, "4.500×10⁻⁹ ± 1.0×10⁻¹¹"),
    ],
)
def test_numbers_have_the_digits_of_their_error(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


def test_units_are_as_in_print() -> None:
    assert unit("kJ/mol") == "kJ mol⁻¹" and unit("nm^2/ps") == "nm² ps⁻¹"
    assert unit("1/nm^3") == "nm⁻³" and unit("") == "" and unit("bar") == "bar"
