"""Pages that are made from the code are up to date."""

import json
from pathlib import Path

from deploy.make_dashboard import dashboard
from docs.make_tables import errors_page, limits_page

ROOT = Path(__file__).parents[1]


def test_tables() -> None:
    assert (ROOT / "docs/limits.md").read_text(encoding="utf-8") == limits_page()
    assert (ROOT / "docs/errors.md").read_text(encoding="utf-8") == errors_page()


def test_dashboard() -> None:
    assert json.loads((ROOT / "deploy/grafana-dashboard.json").read_text(encoding="utf-8")) == dashboard()


def test_links() -> None:
    """Every relative link of README and docs leads somewhere."""
    import re

    for page in [*ROOT.glob("README*.md"), *ROOT.glob("docs/*.md"), ROOT / "training/README.md"]:
        if not page.exists():
            continue
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
