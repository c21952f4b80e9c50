"""Look at pages with axe-core in Chromium, in light and in dark: violations, and how many rules each page met.

    npm install axe-core
    python scripts/scan_accessibility.py node_modules/axe-core/axe.min.js site runs/demo/report.html
    python scripts/scan_accessibility.py node_modules/axe-core/axe.min.js "http://127.0.0.1:8765/?token=t"

Files, folders of pages, or addresses. Every rule of axe-core is on, those called best practice too. Ends with 1 where
a page has a violation.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright


def addresses(places: list[str]) -> list[str]:
    """Of every page that was named or lies in a named folder."""
    found = []
    for place in places:
        path = Path(place)
        pages = sorted(path.rglob("*.html")) if path.is_dir() else [path]
        found += [place] if "://" in place else [page.resolve().as_uri() for page in pages]
    return found


def opened_up(page: Any) -> None:
    """What is folded is looked at too."""
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("axe", type=Path, help="axe.min.js")
    parser.add_argument("places", nargs="+")
    parser.add_argument("--seconds", type=float, default=0.3, help="to wait after a page has loaded")
    given = parser.parse_args()
    script, wrong, passed, unsure, scans = given.axe.read_text(encoding="utf-8"), 0, 0, 0, 0
    with sync_playwright() as started:
        own = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=own, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
            for address in addresses(given.places):
                page = context.new_page()
                page.goto(address)
                page.wait_for_timeout(given.seconds * 1000)
                opened_up(page)
                page.evaluate(script)
                found = page.evaluate("axe.run(document)")
                scans += 1
                passed += len(found["passes"])
                for one in found["violations"]:
                    wrong += len(one["nodes"])
                    print(f"{address} ({scheme}): {one['id']}, {len(one['nodes'])} elements: {one['help']}")
                    print(f"    {one['nodes'][0]['html'][:200]}")
                for one in found["incomplete"]:
                    unsure += len(one["nodes"])
                    print(f"{address} ({scheme}): not decided: {one['id']}, {len(one['nodes'])} elements")
                    print(f"    {one['nodes'][0]['html'][:200]}")
                page.close()
        version = found["testEngine"]["version"]
    print(
        f"axe-core {version}: {scans} scans of {scans // 2} pages, {wrong} violations, {passed} rules met, "
        f"{unsure} elements that it cannot decide"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
