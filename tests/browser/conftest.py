"""What the browser tests need: a Chromium (`CHROMIUM` names it where it is not called so) and playwright."""

import os
import shutil

import pytest

try:
    from playwright import sync_api as playwright
except ImportError:
    playwright = None
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items):
    if CHROMIUM is None or playwright is None:
        needed = pytest.mark.skip(reason="needs a Chromium and playwright (pip install playwright)")
        for item in items:
            if "browser" in item.path.parts:
                item.add_marker(needed)
