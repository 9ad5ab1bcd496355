"""Starts the Space, diagnoses a picture in headless Chromium and saves what a visitor sees.

python scripts/screenshot_space.py [--model ID] [--image FILE] [--reference OK...] [--out docs/images/space.png]
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "spaces" / "defect_diagnosis"
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
PATIENCE_S = 120
expect.set_options(timeout=PATIENCE_S * 1000)


@contextmanager
def served(model: str | None = None) -> Iterator[str]:
    """Run the Space on a free port; yields its address.

    Args:
        model: Folder or Hub id; None takes the Space's own default.

    Raises:
        RuntimeError: It does not answer.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(SPACE / "app.py"), "--port", str(port), *(["--model", model] if model else [])]
    server = subprocess.Popen(command, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"})
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(server, url)
        yield url
    finally:
        server.terminate()
        server.wait()


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"{url} does not answer, exit code {server.poll()}")


@contextmanager
def browser_page(url: str, width: int = 1280, height: int = 900) -> Iterator[Page]:
    """Yield an open page of headless Chromium, pixels as a small laptop's."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(url)
        yield page
        browser.close()


def diagnose(page: Page, image: Path, references: Sequence[Path] = ()) -> None:
    """Upload, press the button and wait for the verdict and both pictures."""
    page.locator("#image input[type=file]").set_input_files(image)
    expect(page.locator("#image img")).to_be_visible()
    if references:
        page.locator("#references input[type=file]").set_input_files(list(references))
        expect(page.locator("#references img")).to_have_count(len(references))
    page.locator("#diagnose").click()
    expect(page.locator("#verdict .defective, #verdict .normal")).to_be_visible()
    expect(page.locator("#overlay img")).to_have_count(2)


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description="Photograph the Space.")
    parser.add_argument("--model", help="folder or Hub id (default: the Space's own)")
    parser.add_argument("--image", type=Path, default=SPACE / "examples" / "scratch.jpg")
    parser.add_argument("--reference", type=Path, nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "space.png")
    args = parser.parse_args()
    with served(args.model) as url, browser_page(url) as page:
        diagnose(page, args.image, args.reference)
        page.wait_for_timeout(1000)  # fade-ins
        page.screenshot(path=args.out, full_page=True)
    print(args.out)


if __name__ == "__main__":
    main()
