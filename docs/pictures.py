"""Make the pictures of the documentation again: python docs/pictures.py DATA

DATA holds the folders ``hymenoptera/train``, ``hymenoptera/val`` and ``sign-digits``. Needs Chromium with
its driver, and ``pip install pyte selenium``; takes some minutes.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver

DOCS = Path(__file__).resolve().parent
COMMANDS = (
    "featuretl train photos/train -o model.featuretl",
    "featuretl evaluate model.featuretl photos/val",
    "featuretl predict model.featuretl photos/val -o predictions.csv --top 2 --threshold 0.9",
    "featuretl report model.featuretl photos/val --train photos/train -o report.html",
    "featuretl export model.featuretl -o model.onnx",
)


def main(data: str) -> None:
    """Write workflow.svg, explain.png and report.png beside this script."""
    source = Path(data).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("photos").symlink_to(source / "hymenoptera")
        run(DOCS / "record.py", DOCS / "workflow.svg", *COMMANDS)
        run(DOCS.parent / "examples" / "explain_photographs.py", DOCS / "explain.png")
        digits = str(source / "sign-digits")
        subprocess.run(["featuretl", "extract", digits, "-o", "digits.npz"], check=True)
        title = ["--title", "Sign-language digits"]
        subprocess.run(
            ["featuretl", "report", "digits.npz", "-o", "report.html", *title], check=True
        )
        screenshot(Path("report.html").resolve()).save(DOCS / "report.png", optimize=True)


def run(*arguments: object) -> None:
    """Run a script with this Python."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


def screenshot(page: Path) -> Image.Image:
    """Return two parts of a report side by side: on a desktop, and on a phone in dark mode."""
    desktop = photographed(page, (1120, 1150), 0.8, dark=False)
    phone = photographed(page, (430, 920), 1, dark=True)
    both = Image.new("RGB", (desktop.width + phone.width, desktop.height))
    both.paste(desktop)
    both.paste(phone, (desktop.width, 0))
    return both.quantize(256)


def photographed(page: Path, size: tuple[int, int], scale: float, dark: bool) -> Image.Image:
    """Return a screenshot in which the mouse points at a mistake on the map."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        screen = {
            "width": size[0], "height": size[1], "deviceScaleFactor": scale, "mobile": dark
        }  # fmt: skip
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get(page.as_uri())
        point_at_a_mistake(browser, scroll=dark)
        return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def point_at_a_mistake(browser: webdriver.Chrome, scroll: bool) -> None:
    """Move the mouse to the right-most dot that is a mistake."""
    text = browser.find_element("id", "map-data").get_attribute("textContent")
    data = json.loads(text or "")
    mistakes = [i for i, wrong in enumerate(data["wrong"]) if wrong]
    i = max(mistakes, key=lambda i: data["x"][i])
    canvas = browser.find_element("css selector", ".map canvas")
    if scroll:
        block = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"
        browser.execute_script(block, canvas)
    margin = 18
    x = (data["x"][i] - 0.5) * (canvas.size["width"] - 2 * margin)
    y = (data["y"][i] - 0.5) * (canvas.size["height"] - 2 * margin)
    actions = webdriver.ActionChains(browser, duration=50)
    actions.move_to_element_with_offset(canvas, round(x), round(y)).perform()


if __name__ == "__main__":
    main(*sys.argv[1:])
