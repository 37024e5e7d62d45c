"""How the pages of this folder become a site: sphinx-build -W docs build/site.

Pages are plain Markdown that reads well without a site too: links are those between files of the
repository. What the site adds is made here: a reference from the docstrings, by the tasks of
api.md; links from names to it; the documents at the root; and formulas as MathML, without script.
"""

from __future__ import annotations

import re
from pathlib import Path

import latex2mathml.converter
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.writers.html import HTMLTranslator

import openmm_diffsim

HERE = Path(__file__).parent
ROOT = HERE.parent
REFERENCE = HERE / "reference"  # made anew in every build

project = "openmm_diffsim"
author = "openmm_diffsim developers"
project_copyright = f"{author}. MIT license"
version = release = openmm_diffsim.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
exclude_patterns = ["README.md"]

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_ivar = True  # or attributes would be described twice
napoleon_use_param = False  # types are words, not names to be linked
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = f"openmm_diffsim {release}"
html_copy_source = False
html_math_renderer = "mathml"
html_theme_options = {"use_download_button": False, "navbar_persistent": []}

suppress_warnings = ["ref.python"]  # an attribute of several classes is no link to any
MODULES = ["errors", "export", "fluid", "segments"]  # described whole
ESCAPED = re.compile(r"(``.*?``|(?<!\*)\*\w+\*(?!\*))|([|*])")  # what reST would read as markup
PLACED = nodes.reference | nodes.title | addnodes.pending_xref  # links, or not to be any


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", plain_text, priority=400)  # before napoleon
    app.connect("source-read", read_from_the_root)
    app.connect("doctree-read", link_names)
    app.add_html_math_renderer("mathml", (inline_formula, None), (formula, None))


# The reference -----------------------------------------------------------------------------------


def tasks() -> dict[str, list[str]]:
    """The sections of api.md, and the public names of each: where one begins a row, or is."""
    text = (HERE / "api.md").read_text(encoding="utf-8")
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    found: dict[str, dict[str, None]] = {title: {} for title in sections}
    left = {*openmm_diffsim.__all__, *MODULES}
    for pattern in (r"^\| *(`.*?) \|", r"`(.*?)`"):
        for title, section in sections.items():
            parts = " ".join(re.findall(pattern, section, flags=re.MULTILINE))
            names = [name for name in re.findall(r"\w+", parts) if name in left]
            found[title].update(dict.fromkeys(names))
            left -= {*names}
    if left:
        raise ValueError(f"docs/api.md has no place for {', '.join(sorted(left))}")
    return {title: list(names) for title, names in found.items()}


def write_reference(app: Sphinx) -> None:
    """A page for each task, and a list of them."""
    REFERENCE.mkdir(exist_ok=True)
    described = tasks()
    pages = {title: f"{title.lower().replace(' ', '_').replace(',', '')}" for title in described}
    for title, names in described.items():
        text = f"# {title}\n\n" + "\n".join(map(directive, names))
        write_if_new(REFERENCE / f"{pages[title]}.md", text)
    listed = "\n".join(pages.values())
    index = f"# From the docstrings\n\n```{{toctree}}\n:maxdepth: 2\n\n{listed}\n```\n"
    write_if_new(REFERENCE / "index.md", index)


def directive(name: str) -> str:
    found = getattr(openmm_diffsim, name, None)
    head, options = "", ""
    if name in MODULES:
        kind, head = "module", f"## {name}\n\n"
        options = f"\n   :exclude-members: {', '.join(openmm_diffsim.__all__)}"
    elif isinstance(found, type):
        kind = "class"
        options = "" if found.__bases__ == (object,) else "\n   :show-inheritance:"
    else:
        kind = "function"
    return f"{head}```{{eval-rst}}\n.. auto{kind}:: openmm_diffsim.{name}{options}\n```\n"


def write_if_new(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def plain_text(app: Sphinx, what: str, name: str, of: object, options: object, lines: list) -> None:
    """Docstrings are plain text: what is indented before the first section is a formula or code."""
    end = next((i for i, line in enumerate(lines) if re.fullmatch("-{3,}", line)), len(lines))
    made: list[str] = []
    within = False
    for i, line in enumerate(lines):
        indented = i < end and line.startswith("    ")
        if indented and not within:
            made += ["", "::", ""]
        elif within and line and not indented:
            made.append("")
        within = indented or (within and not line)
        made.append(line if within else ESCAPED.sub(_escaped, line))
    # An empty comment, or napoleon would read as a type what comes before a colon.
    lines[:] = ["..", "", *made] if what in ("attribute", "property") else made


def _escaped(found: re.Match[str]) -> str:
    return found[1] or f"\\{found[2]}"


def link_names(app: Sphinx, doctree: nodes.document) -> None:
    """`Name` in a text is a link to what the reference says of it."""
    known = {*openmm_diffsim.__all__, *MODULES}
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext()
        if name in known and not isinstance(literal.parent, PLACED):
            target = f"openmm_diffsim.{name}"
            kind = "mod" if name in MODULES else "obj"
            link = addnodes.pending_xref(
                "",
                literal.deepcopy(),
                refdomain="py",
                reftype=kind,
                reftarget=target,
                refdoc=app.env.docname,
                refwarn=True,
                refexplicit=True,
            )
            literal.replace_self(link)


# Documents at the root ---------------------------------------------------------------------------


def read_from_the_root(app: Sphinx, page: str, source: list[str]) -> None:
    """architecture.md here stands for ARCHITECTURE.md, whose links begin at the root."""
    path = ROOT / f"{page.upper()}.md"
    if path.exists():
        app.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        source[0] = re.sub(r"\]\((?!https?:|#)", "](../", text).replace("](../docs/", "](")
    source[0] = re.sub(r"\]\(\.\./([A-Z]+)\.md", lambda m: f"]({m[1].lower()}.md", source[0])


# Formulas ----------------------------------------------------------------------------------------


def inline_formula(self: HTMLTranslator, node: nodes.math) -> None:
    self.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def formula(self: HTMLTranslator, node: nodes.math_block) -> None:
    made = latex2mathml.converter.convert(node.astext(), display="block")
    self.body.append(f'<div style="padding: 0.6em 0; overflow: auto hidden">{made}</div>')
    raise nodes.SkipNode
