"""The page in headless Chromium: no errors, an interactive map, hostile names shown as text."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featuretl import write_report

webdriver = pytest.importorskip("selenium.webdriver")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)

CLASSES = ("<img src=x onerror=document.title='pwned'>", "</script><script>document.title='pwned'</script>")  # fmt: skip
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,1000",
    "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(photos, embeddings, tmp_path_factory):
    """A report whose classes, files and title have hostile names."""
    folder = tmp_path_factory.mktemp("report")
    images = []
    for i, photo in enumerate(photos):
        place = folder / f"{i}<" / f"script><b onclick=x>&amp;\"'{i}.jpg"
        place.parent.mkdir()
        place.write_bytes(Path(photo).read_bytes())
        images.append(str(place))
    y = np.repeat(CLASSES, 12)
    y[[3, 20]] = y[[20, 3]]
    path = folder / "report.html"
    title = f"{CLASSES[1]}$\\frac{{$"
    found = write_report(embeddings, images, y, path, title=title, n_bootstrap=5)
    return path, found


@pytest.fixture
def opened(browser, page):
    browser.get_log("browser")
    browser.get(page[0].as_uri())
    return browser


def map_data(browser):
    text = browser.find_element("id", "map-data").get_attribute("textContent")
    return json.loads(text)


def point_at(browser, i, click=False):
    """Move the mouse to the i-th dot of the map."""
    data = map_data(browser)
    canvas = browser.find_element("css selector", ".map canvas")
    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas
    )
    width, height = canvas.size["width"], canvas.size["height"]
    margin = 18
    x = (data["x"][i] - 0.5) * (width - 2 * margin)
    y = (data["y"][i] - 0.5) * (height - 2 * margin)
    actions = webdriver.ActionChains(browser, duration=50)
    actions.move_to_element_with_offset(canvas, round(x), round(y))
    (actions.click() if click else actions).perform()


def test_it_loads_without_errors_and_without_a_network(opened, page):
    assert opened.get_log("browser") == []
    loaded = opened.execute_script(
        "return performance.getEntriesByType('resource').map(r => r.name)"
    )
    assert [name for name in loaded if not name.startswith("data:")] == []
    pictures = opened.execute_script(
        "return [...document.images].filter(i => i.src).map(i => i.naturalWidth)"
    )
    assert len(pictures) > 2
    assert min(pictures) > 50
    assert opened.execute_script("return document.querySelectorAll('svg').length") == 3


def test_hostile_names_are_text(opened, page):
    assert opened.title.startswith(CLASSES[1])
    assert opened.find_element("tag name", "h1").text.startswith(CLASSES[1])
    chips = [chip.get_attribute("title") for chip in opened.find_elements("css selector", ".chips button")]  # fmt: skip
    assert set(CLASSES) <= set(chips)
    assert not opened.find_elements("css selector", "main b[onclick], img[onerror]")
    assert len(opened.find_elements("tag name", "script")) == 2
    labels = opened.execute_script("return [...document.querySelectorAll('svg text')].map(t => t.textContent)")  # fmt: skip
    assert any(label.startswith("</script>") for label in labels)


def test_an_inline_script_is_not_run(opened):
    """The content security policy blocks scripts even if a name were not escaped."""
    opened.execute_script(
        "const s = document.createElement('div'); s.innerHTML = '<img src=x onerror=\"window.pwned = 1\">';"
        "document.body.append(s)"
    )
    assert opened.execute_async_script(
        "const done = arguments[0]; setTimeout(() => done(window.pwned === undefined), 200)"
    )


def test_pointing_at_a_dot_shows_its_photograph(opened, photos):
    hover = opened.find_element("id", "hover")
    assert not hover.is_displayed()
    data = map_data(opened)
    point_at(opened, 5)
    assert hover.is_displayed()
    name = hover.find_element("class name", "file").text
    i = data["names"].index(name)  # the nearest dot
    near = np.hypot(data["x"][i] - data["x"][5], data["y"][i] - data["y"][5])
    assert near < 0.02
    image = hover.find_element("tag name", "img")
    assert image.get_attribute("src") == data["thumbs"][i]
    assert opened.execute_script("return arguments[0].naturalWidth", image) > 100
    assert hover.find_element("class name", "label").text == data["label"][i]
    point_at(opened, 12, click=True)
    assert hover.find_element("class name", "file").text != name


def test_a_click_on_a_class_filters(opened):
    canvas = opened.find_element("css selector", ".map canvas")
    shown = lambda: int(canvas.get_attribute("data-shown"))  # noqa: E731
    press = lambda chip: opened.execute_script("arguments[0].click()", chip)  # noqa: E731
    assert shown() == 24
    first, second, wrong = opened.find_elements("css selector", ".chips button")
    press(first)
    assert shown() == 12
    assert first.get_attribute("aria-pressed") == "true"
    data = map_data(opened)
    hidden = next(i for i, group in enumerate(data["group"]) if group == 1)
    point_at(opened, hidden)
    label = opened.find_element("css selector", "#hover .label").text
    assert label in ("", data["label"][data["group"].index(0)])
    press(second)
    assert shown() == 24
    press(first)
    press(second)
    press(wrong)
    assert shown() == sum(data["wrong"]) > 0


def test_on_a_phone_in_the_dark(browser, page):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    try:
        browser.get(page[0].as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L")
        assert np.median(np.asarray(picture)) < 60
        ink = "return getComputedStyle(document.querySelector('svg text')).fill"
        colour = [int(part) for part in browser.execute_script(ink)[4:-1].split(",")]
        assert min(colour) > 150
        tap(browser, 8)
        assert browser.find_element("id", "hover").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture(scope="module")
def wide(photos, tmp_path_factory):
    """A report on 24 classes with a long last column in the decision table."""
    path = tmp_path_factory.mktemp("wide") / "report.html"
    X = np.random.default_rng(0).normal(size=(48, 6)).astype(np.float32)
    y = [f"species number {i % 24}" for i in range(48)]
    write_report(X, photos * 2, y, path, cv=2, n_bootstrap=5)
    verdict = "a reason of many words that explains what was tried and what came of it " * 4
    row = "".join(
        f"<td>{cell}</td>" for cell in ("fine-tune", "resnet50", "0.95 (0.9 to 1)", verdict)
    )
    table = f'<div class="scroll"><table class="decided"><tr>{row}</tr></table></div>'
    path.write_text(path.read_text().replace("<main>", f"<main>{table}", 1))
    return path


def test_on_a_phone_nothing_is_cut_and_no_column_is_a_tower(browser, wide):
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.get(wide.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        row = "return document.querySelector('table.decided tr').offsetHeight"
        assert browser.execute_script(row) < 844 / 2
        seen = """return [...document.querySelectorAll('.scroll')].every(
            box => box.firstElementChild.getBoundingClientRect().width <= box.scrollWidth + 1)"""
        assert browser.execute_script(seen)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_paper_nothing_is_cut_and_no_page_is_blank(browser, wide):
    browser.set_window_size(720, 1000)  # the width of an A4 page without margins
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        browser.get(wide.as_uri())
        cut = """return [...document.querySelectorAll('.scroll, .scroll svg')].filter(
            element => element.getBoundingClientRect().right > innerWidth + 1).length"""
        assert browser.execute_script(cut) == 0
        height = browser.execute_script("return document.documentElement.scrollHeight")
        pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
        pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
        assert pages <= height / 900 + 2
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        browser.set_window_size(1200, 1000)


def tap(browser, i):
    place = browser.execute_script(
        "const c = document.querySelector('.map canvas'); c.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const b = c.getBoundingClientRect(); const d = JSON.parse(document.getElementById('map-data').textContent);"
        "return [b.left + 18 + d.x[arguments[0]] * (b.width - 36), b.top + 18 + d.y[arguments[0]] * (b.height - 36)]",
        i,
    )
    point = [{"x": place[0], "y": place[1]}]
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": point})  # fmt: skip
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    wait = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
    browser.execute_async_script(wait)
