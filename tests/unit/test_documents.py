"""The links between the documents lead to existing files and sections, and tables that repeat declarations agree with them."""

import re
from pathlib import Path

import pytest

from scripts.local.installation import ROOT
from shared.accounts.permissions import ROLES, SCOPE_MEANINGS

DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)")


def read_prose(path: Path) -> str:
    """Return a document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def read_anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", read_prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_section(name: str) -> None:
    broken = []
    for file, anchor in LINK.findall(read_prose(ROOT / name)):
        target = (ROOT / name).parent / file if file else ROOT / name
        if not target.exists() or (anchor and anchor not in read_anchors(target)):
            broken.append(f"{file}#{anchor}")
    assert not broken


def test_the_scopes_and_roles_are_those_that_the_service_knows() -> None:
    rows = re.findall(r"^\| `([a-z:]+)` \| (.+?) \| (.*) \|$", (ROOT / "docs/accounts.md").read_text(), re.MULTILINE)
    shown = {scope: (meaning, [cell.strip() == "x" for cell in cells.split("|")]) for scope, meaning, cells in rows if scope in SCOPE_MEANINGS}
    assert shown == {scope: (meaning, [scope in scopes for scopes in ROLES.values()]) for scope, meaning in SCOPE_MEANINGS.items()}
