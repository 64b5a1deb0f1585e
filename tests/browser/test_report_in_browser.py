"""The report in a browser: what is seen, heard, clicked and typed, and that nothing leaves the page."""

import base64
import os
import time
from pathlib import Path

import pytest
from contracts import trained

import keepbest as library
from keepbest import Checkpointer, CheckpointPolicy
from keepbest.storage.backend import open_backend
from keepbest.storage.history import Row
from keepbest.storage.journal import Journal
from keepbest.storage.notes import Began, Ended, SaveFailed

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'
PATIENCE = 10
"""Seconds for which the browser may take to show what was asked for."""


def wait(what):
    """Return what `what` returns as soon as it is true."""
    until = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < until, "the page does not come to show it"
        time.sleep(0.02)
    return found


def press(page, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(page.driver).send_keys(*keys).perform()


def drawn(page, chart=0):
    """Wait until a chart is drawn and return its element."""
    element = page.all(".chart")[chart]
    page.run("arguments[0].scrollIntoView({block: 'center'})", element)
    wait(lambda: element.find_elements("css selector", "canvas"))
    return element


def readout(page, chart=0):
    return page.all(".readout")[chart].text


def colours(page, chart=0):
    """How many points of a chart's canvas have each colour."""
    return page.run(
        """
        const canvas = document.querySelectorAll(".chart")[arguments[0]].querySelector("canvas");
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const found = {};
        for (let at = 0; at < data.length; at += 4) {
          const name = data[at + 3] < 250 ? "see-through" : `${data[at]},${data[at + 1]},${data[at + 2]}`;
          found[name] = (found[name] || 0) + 1;
        }
        return found;
        """,
        chart,
    )


@pytest.fixture
def opened(page, report, trained_run):
    """The report of a run that crashed, was resumed, overfitted and was stopped, in the browser."""
    return page.open(report(trained_run))


def test_the_page_opens_without_a_complaint_and_without_a_request(opened):
    """Opening the report asks for nothing but the file itself, and the console stays silent."""
    for chart in range(len(opened.all(".chart"))):
        drawn(opened, chart)
    assert opened.complaints() == []
    asked = [url for url in opened.requests() if not url.startswith("data:")]
    assert asked == [opened.driver.current_url]
    assert opened.run("return performance.getEntriesByType('resource').length") == 0


def test_curves_and_marks_are_drawn(opened):
    """The canvas has both curves in their colours, and the best checkpoint in its own."""
    drawn(opened)
    found = colours(opened)
    for name, least in (("11,87,208", 200), ("180,83,9", 100), ("10,107,61", 30)):
        assert found.get(name, 0) >= least, (name, found)


def test_a_heading_sorts_its_table_both_ways(opened):
    """A click on a heading sorts by its column, a second one the other way round, and says so to all."""
    heading = next(found for found in opened.all("#run-0-checkpoints-caption ~ thead th") if "epoch" in found.text)
    table = heading.find_element("xpath", "ancestor::table")

    def epochs():
        return [row.find_elements("tag name", "td")[3].text for row in table.find_elements("css selector", "tbody tr")]

    assert epochs() == ["6", "11", "12"]
    button = heading.find_element("tag name", "button")
    opened.run("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    assert (heading.get_attribute("aria-sort"), epochs()) == ("ascending", ["6", "11", "12"])
    button.click()
    assert (heading.get_attribute("aria-sort"), epochs()) == ("descending", ["12", "11", "6"])
    assert len(table.find_elements("css selector", "[aria-sort]")) == 1


def test_the_mouse_reads_values_off_a_chart(opened):
    """Wherever the mouse is over a chart, the values there and what happened are written below it."""
    from selenium.webdriver import ActionChains

    over = drawn(opened).find_element("css selector", ".u-over")
    ActionChains(opened.driver).move_to_element_with_offset(over, -over.size["width"] // 2 + 2, 0).perform()
    assert wait(lambda: readout(opened)).startswith("Epoch 1: val_loss 0.75; train_loss 1; saved, deleted since")
    ActionChains(opened.driver).move_to_element_with_offset(over, over.size["width"] // 2 - 2, 0).perform()
    wait(lambda: readout(opened).startswith("Epoch 12: val_loss 0.86; "))
    assert "stopped" in readout(opened)
    assert "overfitting" in readout(opened)
    ActionChains(opened.driver).move_to_element(opened.one("#title-0")).perform()
    wait(lambda: readout(opened) == "")


def test_the_keyboard_moves_along_a_chart(opened):
    """A chart takes the focus, and its keys move a cursor whose values a screen reader is told."""
    from selenium.webdriver.common.keys import Keys

    chart = drawn(opened)
    opened.run("arguments[0].focus()", chart)
    press(opened, Keys.ARROW_RIGHT)
    assert wait(lambda: readout(opened)).startswith("Epoch 1: ")
    press(opened, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    wait(lambda: readout(opened).startswith("Epoch 3: "))
    press(opened, Keys.ARROW_LEFT)
    wait(lambda: readout(opened).startswith("Epoch 2: "))
    press(opened, Keys.END)
    wait(lambda: readout(opened).startswith("Epoch 12: "))
    press(opened, Keys.HOME, *[Keys.ARROW_RIGHT] * trained.BEST)
    wait(lambda: readout(opened).startswith(f"Epoch {trained.BEST + 1}: val_loss 0.5;"))
    assert "best checkpoint; saved" in readout(opened)
    assert opened.all(".readout")[0].get_attribute("aria-live") == "polite"
    where = opened.run("return document.querySelector('.u-cursor-x').getBoundingClientRect().left")
    over = opened.run("return document.querySelector('.u-over').getBoundingClientRect().toJSON()")
    assert where - over["left"] == pytest.approx(over["width"] * trained.BEST / 11, abs=2)


def test_the_keyboard_zooms(opened):
    """Plus shows less of the axis, zero all of it again."""
    from selenium.webdriver.common.keys import Keys

    chart = drawn(opened)
    opened.run("arguments[0].focus()", chart)
    press(opened, Keys.HOME)
    wait(lambda: readout(opened).startswith("Epoch 1: "))
    whole = colours(opened)
    press(opened, "+")
    wait(lambda: colours(opened) != whole)
    press(opened, Keys.END)
    wait(lambda: readout(opened).startswith("Epoch 12: "))
    press(opened, "0")
    wait(lambda: colours(opened) == whole)


def test_the_tab_key_reaches_everything_in_the_order_in_which_it_is_read(opened):
    """Everything that can be used is reached by Tab, from the top to the bottom, and shows that it is."""
    from selenium.webdriver.common.keys import Keys

    opened.run("document.body.tabIndex = -1; document.body.focus()")
    seen = []
    for _ in range(200):
        press(opened, Keys.TAB)
        place = opened.run(
            """
            const at = document.activeElement;
            return at === document.body ? null : [
              [...document.querySelectorAll("*")].indexOf(at), at.tagName, at.className,
              getComputedStyle(at).outlineStyle,
            ];
            """
        )
        if place is None or place in seen:
            break
        seen.append(place)
    order = [place[0] for place in seen]
    assert order == sorted(order)
    kinds = {(tag, name) for _, tag, name, _ in seen}
    assert {("BUTTON", ""), ("DIV", "chart"), ("DIV", "chart gap"), ("DIV", "scrolls"), ("SUMMARY", "")} <= kinds
    assert sum(tag == "DIV" and name.startswith("chart") for _, tag, name, _ in seen) == len(opened.all(".chart"))
    assert {outline for *_, outline in seen} == {"solid"}


def test_dark_and_light_can_be_chosen_and_follow_the_system_until_then(opened):
    """The page is as dark as the system; the button turns it over, with the charts."""
    drawn(opened)

    def paper():
        return opened.run("return getComputedStyle(document.body).backgroundColor")

    assert paper() == "rgb(255, 255, 255)"
    assert "11,87,208" in colours(opened)
    toggle = opened.one("#theme")
    toggle.click()
    assert (toggle.get_attribute("aria-pressed"), paper()) == ("true", "rgb(20, 23, 26)")
    wait(lambda: "138,180,248" in colours(opened))
    assert "11,87,208" not in colours(opened)
    toggle.click()
    assert (toggle.get_attribute("aria-pressed"), paper()) == ("false", "rgb(255, 255, 255)")
    opened.run("delete document.documentElement.dataset.theme")
    opened.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    wait(lambda: paper() == "rgb(20, 23, 26)")
    wait(lambda: "138,180,248" in colours(opened))
    assert toggle.get_attribute("aria-pressed") == "true"


def contrast(one, other):
    def light(colour):
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_curves_stand_out_from_the_paper(opened, theme):
    """Text has the contrast that people with low vision need (4.5), curves that of graphics (3), in either theme."""
    opened.run("document.documentElement.dataset.theme = arguments[0]", theme)
    found = opened.run(
        """
        const probe = document.createElement("i");
        document.body.append(probe);
        const names = ["ink", "dim", "good", "bad", "paper", ...Array.from({ length: 8 }, (_, at) => `colour-${at}`)];
        return Object.fromEntries(names.map((name) => {
          probe.setAttribute("hidden", "");
          probe.style.color = `var(--${name})`;
          return [name, getComputedStyle(probe).color];
        }));
        """
    )
    for name in ("ink", "dim", "good", "bad"):
        assert contrast(found[name], found["paper"]) >= 4.5, name
    for at in range(8):
        assert contrast(found[f"colour-{at}"], found["paper"]) >= 3, at


def test_a_curve_can_be_hidden_and_shown_again(opened):
    """The legend's buttons take a curve out of the chart and put it back."""
    drawn(opened)
    button = next(found for found in opened.all("[data-series]") if found.text == "train_loss")
    before = colours(opened)["180,83,9"]
    button.click()
    wait(lambda: "180,83,9" not in colours(opened))
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    wait(lambda: colours(opened).get("180,83,9", 0) == before)


def test_one_legend_hides_a_run_in_every_chart(page, report, trained_run, tmp_path):
    """Of several runs the same metrics share a chart, and one legend speaks for all charts."""
    page.open(report(trained_run, trained.overfitted(str(tmp_path / "other"), shift=0.1)))
    drawn(page, 1)
    drawn(page, 0)
    assert {"11,87,208", "180,83,9"} <= set(colours(page))
    next(found for found in page.all("[data-run]") if found.text == "other").click()
    for chart in (0, 1):
        wait(lambda chart=chart: "180,83,9" not in colours(page, chart))
        assert "11,87,208" in colours(page, chart)


def test_a_chart_marks_only_the_runs_that_it_shows(page, report, trained_run, tmp_path):
    """Where a run logged nothing, its saves and its end are neither drawn nor read out."""
    from selenium.webdriver.common.keys import Keys

    with Checkpointer(tmp_path / "other", CheckpointPolicy(keep_all=True), state={"epoch": 0}) as ckpt:
        for _epoch in ckpt.epochs(12):
            ckpt.log(val_loss=0.9, loss=0.8)
    page.open(report(trained_run, str(tmp_path / "other")))
    titles = [found.text for found in page.all("h3")]
    for title, shown in (("val_loss, train_loss and loss", True), ("learning_rate", False)):
        at = titles.index(title)
        page.run("arguments[0].focus()", drawn(page, at))
        press(page, Keys.END)
        told = wait(lambda at=at: readout(page, at))
        assert told.startswith("Epoch 12: ")
        assert ("other saved" in told) is shown
        assert ("180,83,9" in colours(page, at)) is shown


def test_a_page_prints_with_every_curve_in_black_on_white(opened):
    """On paper stand all charts, also those never scrolled to and those that were dark, and no buttons."""
    opened.one("#theme").click()
    printed = opened.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": False})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page/") + pdf.count(b"/Type /Page ") >= 2
    assert len(opened.all(".chart canvas")) == len(opened.all(".chart"))
    assert opened.run("return document.documentElement.dataset.theme") == "dark"
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert opened.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not opened.one("#theme").is_displayed()
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_before_printing_every_chart_is_drawn_and_light(page, report, trained_run):
    """The printer gets all charts, also those never scrolled to, for white paper; the screen is then as it was."""
    page.open(report(trained_run), width=700, height=300)
    drawn(page)
    page.one("#theme").click()
    wait(lambda: "138,180,248" in colours(page))
    assert len(page.all(".chart canvas")) < len(page.all(".chart"))
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert len(page.all(".chart canvas")) == len(page.all(".chart"))
    wait(lambda: all("11,87,208" in colours(page, chart) for chart in range(len(page.all(".chart")))))
    page.run("dispatchEvent(new Event('afterprint'))")
    wait(lambda: "138,180,248" in colours(page))


@pytest.mark.parametrize("width", [400, 320])
def test_a_narrow_window_scrolls_in_one_direction_only(page, report, trained_run, width):
    """On a phone nothing stands beyond the edge: tables scroll inside, charts shrink."""
    page.open(report(trained_run), width=width)
    drawn(page)
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.run("return document.querySelector('canvas').getBoundingClientRect().right") <= width


def test_a_chart_follows_the_window(page, report, trained_run):
    """A chart that was drawn wide becomes narrow with the window."""
    page.open(report(trained_run), width=1200)
    drawn(page)
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    wait(lambda: page.run("return document.querySelector('canvas').getBoundingClientRect().right") <= 400)
    assert page.run("return document.documentElement.scrollWidth") <= 400


def test_strangers_names_run_nothing(page, report, tmp_path):
    """A run made to attack its reader is shown as the text that it is."""
    entries = [
        Began(checkpoint=None, policy={HOSTILE: 1}, host=HOSTILE, time=1.0, epoch=0, step=0),
        *(
            Row(kind=kind, epoch=epoch, step=epoch, time=1.0, metrics={HOSTILE: 1.0, f"val_{HOSTILE}": 2.0 + epoch})
            for epoch in range(4)
            for kind in ("step", "epoch")
        ),
        SaveFailed(checkpoint=HOSTILE, error=HOSTILE, time=1.0, epoch=1, step=1),
        Ended(cause="exception", error=HOSTILE, time=1.0, epoch=1, step=1),
    ]
    urls = [str(tmp_path / name) for name in ("<img src=x onerror=hacked=1>", "b'\"><script>hacked=1<")]
    for url in urls:
        journal = Journal(open_backend(url))
        journal.append(*entries)
        journal.close()
    page.open(report(*urls))
    for chart in range(len(page.all(".chart"))):
        page.run("arguments[0].focus()", drawn(page, chart))
        press(page, "\ue014")
        wait(lambda chart=chart: HOSTILE in readout(page, chart))
    assert page.run("return window.hacked === undefined && typeof hacked === 'undefined'")
    assert page.all("img") == []
    assert len(page.all("script")) == 2
    assert HOSTILE in page.one("body").text


def test_the_policy_of_the_page_stops_a_script_that_got_in(opened):
    """Were a script to get into the page after all, the browser would not run it, nor fetch a thing for it."""
    opened.provoked = True
    opened.run(
        """
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "https://example.invalid/x.png";
        document.body.append(image);
        """
    )
    wait(lambda: len(opened.complaints()) >= 1)
    assert opened.run("return window.hacked === undefined")


@pytest.mark.slow
def test_a_hundred_thousand_rows_open_at_once(page, report, tmp_path):
    """The report of a long run is small, opens at once, and can be read at any point."""
    path = report(trained.long(str(tmp_path / "long")))
    assert path.stat().st_size < 2_000_000
    page.open(path)
    chart = drawn(page)
    took = page.run("const [of] = performance.getEntriesByType('navigation'); return of.loadEventEnd - of.startTime")
    print(f"{path.stat().st_size:,} bytes, loaded in {took:.0f} ms")  # noqa: T201 - a figure to read with -s
    assert 0 < took < 30_000
    page.run("arguments[0].focus()", chart)
    press(page, "\ue010")  # End
    wait(lambda: readout(page).startswith("Epoch 1,000: "))


def test_a_run_with_one_row_and_one_with_none_are_shown(page, report, tmp_path):
    """The first report of a training that has just begun is a page, too."""
    journal = Journal(open_backend(str(tmp_path / "one")))
    journal.append(Row(kind="epoch", epoch=0, step=1, time=1.0, metrics={"loss": 1.0, "flat": 0.0, "huge": 1e29}))
    journal.append(Row(kind="epoch", epoch=1, step=2, time=1.0, metrics={"nothing": float("nan"), "flat": 0.0}))
    journal.close()
    page.open(report(str(tmp_path / "one")))
    for chart in range(4):
        page.run("arguments[0].focus()", drawn(page, chart))
        press(page, "\ue011")  # Home
        wait(lambda chart=chart: readout(page, chart).startswith("Epoch "))


@pytest.mark.slow
def test_the_picture_of_the_documentation(page, report, tmp_path):
    """The picture in the documentation is that of a real training: digits, overfitted, resumed and stopped.

    It is put into docs/ where KEEPBEST_WRITE_DOCS=1 says so.
    """
    from contracts.digits import train

    page.open(report(train(str(tmp_path / "digits"))), width=1100, height=1500)
    for chart in range(len(page.all(".chart"))):
        drawn(page, chart)
    assert any("Overfitting by val_loss" in element.text for element in page.all("figcaption"))
    page.run("scrollTo(0, 0)")
    picture = base64.b64decode(page.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])
    assert picture.startswith(b"\x89PNG")
    if os.environ.get("KEEPBEST_WRITE_DOCS") == "1":
        (Path(library.__file__).parent / "docs" / "report.png").write_bytes(picture)
