"""JupyterLab and the classroom in a browser, as they are used: open a notebook, run it, move a slider by keyboard, see the picture change.

Runs where Chromium and its driver are installed; elsewhere it is skipped, unless TOYSCORE_BROWSER=required.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from toyscore import course

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))
import classroom  # noqa: E402

SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1400",
]
PATIENCE = 90
NO_NEWS = f"--LabApp.app_settings_dir={ROOT / 'notebooks' / 'lab'}"  # of Makefile, too
CULLED = 10  # seconds after which a closed page's kernel ends
STATE = ".toyscore-panel > .widget-text:last-child input"
NUMBERS = ".toyscore-slider .widget-text input"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        message = "the browser tests need Chromium and its driver (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("TOYSCORE_BROWSER") == "required":
            pytest.fail(message)
        pytest.skip(message)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@contextlib.contextmanager
def served(command, folder, ready, **environment):
    """A server in a process of its own, from when the address ``ready`` answers until the end."""
    private = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | private | environment | {"OMP_NUM_THREADS": "1"}
        )
    try:
        for _ in range(PATIENCE * 2):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(ready, timeout=2).close()
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
        else:
            pytest.fail((folder / "log").read_text())
        yield
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a notebook in a JupyterLab over a copy of the course, with its token."""
    folder = tmp_path_factory.mktemp("lab")
    course.copy(folder / "course")
    port, token = free_port(), secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", NO_NEWS]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'course'}"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    address = f"http://127.0.0.1:{port}"
    with served(command, folder, f"{address}/api/status?token={token}"):
        yield lambda notebook: f"{address}/lab/workspaces/{secrets.token_hex(4)}/tree/{notebook}?reset&token={token}"


@pytest.fixture(scope="module")
def hall(tmp_path_factory):
    """The address of a page of the classroom, with its token."""
    folder = tmp_path_factory.mktemp("classroom")
    classroom.write(folder / "pages")
    port, token = free_port(), secrets.token_hex(16)
    address = f"http://127.0.0.1:{port}"
    command = classroom.command(folder / "pages", port, token, False)
    soon = {"cull_idle_timeout": CULLED, "cull_interval": 1}  # seconds, where a class has minutes
    for n, word in enumerate(command):
        key = word.partition("=")[0]
        if (name := key.rpartition(".")[2]) in soon:
            command[n] = f"{key}={soon.pop(name)}"
    assert not soon
    paths = os.pathsep.join([str(ROOT / "notebooks"), str(ROOT)])
    with served(command, folder, f"{address}/?token={token}", PYTHONPATH=paths):
        yield lambda page: f"{address}/{page}?token={token}"


def wait(driver, what, seconds=PATIENCE):
    """The value of ``what()`` once it is true; a screenshot and the page's words where it never is."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(NoSuchElementException, StaleElementReferenceException):
            if found := what():
                return found
        time.sleep(0.1)
    shoot(driver, "failed")
    return pytest.fail(
        f"waited {seconds} s in vain; the page says:\n{driver.find_element('tag name', 'body').text[-3000:]}"
    )


def shoot(driver, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


def press(driver, label):
    (button,) = [b for b in driver.find_elements("css selector", ".widget-button") if b.text == label]
    button.click()


def scroll_to(driver, selector):
    """The first such element of the notebook, of which JupyterLab keeps only what is near the window."""
    scroller = driver.find_element("css selector", ".jp-WindowedPanel-outer")
    driver.execute_script("arguments[0].scrollTop = 0", scroller)

    def look():
        if found := driver.find_elements("css selector", selector):
            driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found[0])
            return found[0]
        return driver.execute_script("arguments[0].scrollTop += 300", scroller)

    return wait(driver, look)


@pytest.mark.slow
def test_a_reader_runs_the_notebook_and_moves_a_slider(browser, lab):
    """In a copy of the course: run all, the solution is right; keys, numbers, play and the state line move the picture; reset brings it
    back; names for those who do not see; nobody asks about news."""
    from selenium.webdriver.common.keys import Keys

    browser.get(lab("01_what_is_a_score.ipynb"))
    wait(browser, lambda: browser.find_elements("css selector", ".jp-Notebook .jp-Cell"))
    still = wait(browser, lambda: browser.find_elements("css selector", ".jp-OutputArea-output img"))
    assert still, "before anything ran, the stored picture is shown"

    ready = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
    wait(browser, lambda: browser.find_elements("css selector", ready))
    run_all(browser)
    wait(browser, lambda: "Correct: within 1e-6" in browser.find_element("css selector", ".jp-Notebook").text)
    picture = scroll_to(browser, ".widget-image")
    handles = browser.find_elements("css selector", ".widget-slider .noUi-handle")
    wait(browser, lambda: [handle.accessible_name for handle in handles] == ["x", "y", "weight", "sigma"])
    wait(browser, lambda: "density, weights 0.8 and 0.2" in picture.accessible_name)
    state = browser.find_element("css selector", STATE)
    start = state.get_attribute("value")
    assert moved(browser, picture, handles[1]) < 2
    wait(browser, lambda: state.get_attribute("value") != start)
    press(browser, "reset")
    wait(browser, lambda: state.get_attribute("value") == start)
    first = picture.get_attribute("src")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handles[3])
    handles[3].send_keys(Keys.ARROW_RIGHT * 5)
    wait(browser, lambda: picture.get_attribute("src") != first)
    wait(browser, lambda: "sigma=0.5" in state.get_attribute("value"))
    numbers = {number.accessible_name: number for number in browser.find_elements("css selector", NUMBERS)}
    assert list(numbers) == ["x", "y", "weight", "sigma"]
    assert {number.aria_role for number in numbers.values()} == {"spinbutton"}
    assert numbers["sigma"].get_attribute("value") == "0.5"
    numbers["y"].send_keys(Keys.ARROW_UP * 2, Keys.TAB)
    wait(browser, lambda: "y=2.5" in state.get_attribute("value"))
    handles[1].send_keys(Keys.ARROW_LEFT * 2)
    wait(browser, lambda: "y=2.0" in state.get_attribute("value"))
    wait(browser, lambda: numbers["y"].get_attribute("value") == "2")
    assert "σ = 0.5" in picture.get_attribute("alt")
    assert unnamed(browser) == []
    assert not browser.find_elements("css selector", ".Toastify__toast")
    shoot(browser, "01-slider")

    press(browser, "play")
    wait(browser, lambda: float(state.get_attribute("value").split("sigma=")[1].split("&")[0]) > 1.5)
    press(browser, "stop")
    time.sleep(0.5)
    stopped = state.get_attribute("value")
    assert "sigma=6.0" not in stopped
    time.sleep(0.5)
    assert state.get_attribute("value") == stopped

    state.send_keys(Keys.CONTROL, "a", Keys.NULL, "weight=0.3&sigma=2&x=-1", Keys.ENTER)
    wait(browser, lambda: "weights 0.3 and 0.7" in picture.get_attribute("alt"))
    state.send_keys(Keys.CONTROL, "a", Keys.NULL, "weight=3", Keys.ENTER)
    wait(
        browser, lambda: "3 is out of range" in browser.find_element("css selector", ".widget-html [role=status]").text
    )
    press(browser, "reset")
    wait(browser, lambda: picture.get_attribute("alt").startswith("density, weights 0.8 and 0.2"))
    press(browser, "PNG")
    link = wait(browser, lambda: browser.find_element("css selector", "a[download='what-is-a-score.png']"))
    assert link.get_attribute("href").startswith("data:image/png;base64,")
    shoot(browser, "01-after")


def unnamed(driver):
    """The pictures and controls of panels that a screen reader has no name for."""
    parts = driver.find_elements("css selector", ".toyscore-panel :is(img, input, select, button, [role=slider])")
    assert len(parts) > 8
    return [part.get_attribute("outerHTML") for part in parts if part.is_displayed() and not part.accessible_name]


def run_all(driver):
    """The menu Run, entry Run All Cells."""
    menu = wait(
        driver, lambda: [m for m in driver.find_elements("css selector", ".lm-MenuBar-item") if m.text == "Run"]
    )
    menu[0].click()
    entry = wait(
        driver,
        lambda: [
            e for e in driver.find_elements("css selector", ".lm-Menu-item") if e.text.startswith("Run All Cells")
        ],
    )
    entry[0].click()


def moved(driver, picture, handle):
    """Press an arrow on a slider's handle; the seconds until the picture has changed."""
    from selenium.webdriver.common.keys import Keys

    first = picture.get_attribute("src")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    start = time.monotonic()
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_LEFT):  # one that starts at its end moves the other way
        handle.send_keys(key)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if picture.get_attribute("src") != first:
                return time.monotonic() - start
            time.sleep(0.02)
        start = time.monotonic()
    shoot(driver, "unmoved")
    return pytest.fail("no key moved the picture")


def resize(driver, width, height):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def boxes(driver, selector):
    """Top, bottom, left and right of each such element, in pixels of the window."""
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getBoundingClientRect().toJSON())"
    return driver.execute_script(script, selector)


def answers(address):
    """The status of an address."""
    try:
        return urllib.request.urlopen(address, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_a_class_meets_a_page_without_code(browser, hall):
    """The prompt and the panel, where the address says and as large as a projector allows, and no code; the keyboard moves it, reset
    brings it back; names for those who do not see; a closed page leaves no kernel."""
    from selenium.webdriver.common.keys import Keys

    resize(browser, 1366, 768)
    browser.get(hall("voila/render/07_mixture_weights.ipynb") + "&panel=mixture-weights&a=2.0&step=500&wieght=0.3")
    wait(browser, lambda: len(browser.find_elements("css selector", ".widget-image")) == 2, 2 * PATIENCE)
    picture = browser.find_element("css selector", ".widget-image")
    wait(browser, lambda: picture.get_attribute("alt"))
    assert browser.title == "07 · Failure 2: mixture weights"
    words = browser.find_element("tag name", "body").text
    assert "Predict first" in words
    assert "import " not in words
    state, other = browser.find_elements("css selector", STATE)
    start = "a=2.0&weight=0.8&step=500"
    wait(browser, lambda: state.get_attribute("value") == start)
    assert "a=2.0" not in other.get_attribute("value"), "the address named the first panel"
    status = browser.find_element("css selector", "[role=status]")
    assert "wieght=0.3: no control has this name; did you mean weight?" in status.text
    assert status.rect["y"] < 768, "it is seen"
    assert browser.execute_script("return arguments[0].closest('[aria-live=polite]') !== null", status)
    shoot(browser, "classroom-07")

    assert [h.text for h in browser.find_elements("css selector", "h1, h2")] == [browser.title, "Vote 1", "Vote 2"]
    images, panels, prompts = (boxes(browser, s) for s in (".widget-image", ".toyscore-panel", "h2"))
    assert images[0]["bottom"] <= 768, "the picture is on the screen with its question"
    assert images[0]["height"] > 400
    assert panels[0]["bottom"] <= 768
    assert prompts[1]["top"] > 768, "and the second question is not"
    assert images[1]["bottom"] - prompts[1]["top"] <= 768
    wide = "return [...document.querySelectorAll('.widget-label')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)"
    assert browser.execute_script(wide) == []
    script = "return performance.getEntriesByType('resource').map(e => e.name)"
    outside = {n for n in browser.execute_script(script) if n.startswith("http") and "//127.0.0.1:" not in n}
    blocked = [
        entry["message"] for entry in browser.get_log("browser") if "action has been blocked" in entry["message"]
    ]
    assert all(any(name in message for message in blocked) for name in outside), "nothing is asked of the internet"
    size = browser.execute_script("return getComputedStyle(document.querySelector('.widget-label')).fontSize")
    assert float(size.removesuffix("px")) >= 18

    handles = browser.find_elements("css selector", ".widget-slider .noUi-handle")
    assert [handle.accessible_name for handle in handles] == ["a", "weight", "step", "a"]
    assert unnamed(browser) == []
    assert moved(browser, picture, handles[0]) < 2
    assert browser.execute_script("return getComputedStyle(document.activeElement).boxShadow").startswith(
        "rgb(213, 94, 0)"
    )
    wait(browser, lambda: state.get_attribute("value") != start)
    next(b for b in browser.find_elements("css selector", ".widget-button") if b.text == "reset").click()
    wait(browser, lambda: state.get_attribute("value") == start)
    number = browser.find_element("css selector", NUMBERS)
    number.send_keys(Keys.CONTROL, "a", Keys.NULL, "2.7", Keys.ENTER)
    wait(browser, lambda: "2.7 is between two steps of 0.5; the nearest, 2.5, is taken" in status_of(browser))
    wait(browser, lambda: number.get_attribute("value") == "2.5")
    assert state.get_attribute("value") == "a=2.5&weight=0.8&step=500"

    resize(browser, 390, 844)
    two, one = boxes(browser, ".widget-image")
    assert two["width"] > 1.7 * 390, "on a telephone two squares are moved sideways"
    assert 330 < one["width"] < 390, "and one is seen whole"
    resize(browser, 1280, 1400)
    script = "return JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId"
    kernel = hall(f"api/kernels/{browser.execute_script(script)}")
    time.sleep(CULLED + 2)
    assert answers(kernel) == 200, "an open page keeps its kernel"
    browser.get("about:blank")
    wait(browser, lambda: answers(kernel) == 404, 30)


def status_of(driver):
    """What the first panel says under its picture."""
    return driver.find_element("css selector", ".toyscore-panel [role=status]").text
