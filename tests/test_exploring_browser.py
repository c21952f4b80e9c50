"""The page of ``plmscope explore`` in a real browser: Chromium, where it is installed.

One server on a free port; what a person does is done by mouse and by keyboard, and what they read is looked at.
"""

import threading
import time
from urllib.parse import quote

import pytest
import uvicorn

import plmscope as ps
from plmscope.data.proteins import Protein
from plmscope.explaining.explainer import ExplainSettings
from plmscope.explaining.explanation import acting, verdict
from plmscope.exploring.server import application, listening, names_of
from plmscope.exploring.session import Session

FEW = ExplainSettings(copies=20, supporting=6, opposing=2, draws=4)
HOSTILE = '"><img src=x onerror=document.title=1>'


@pytest.fixture(scope="module")
def session(golden, tmp_path_factory):
    found = Session(ps.open_run(golden.copy(tmp_path_factory.mktemp("browsed") / "run")), settings=FEW)
    found.explainer.__dict__["_distances"] = None  # MMseqs2 takes seconds a search, and is looked at elsewhere
    return found


@pytest.fixture(scope="module")
def address(session):
    with listening("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        app = application(session, token="t", hosts=names_of("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/?token=t"
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def page(chromium, address):
    """A page that is watched: an error of its script, or a request to elsewhere, fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened, wrong = context.new_page(), []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    own = (address.split("?")[0], "data:", "blob:", "file:")
    opened.on("request", lambda one: None if one.url.startswith(own) else wrong.append(one.url))
    yield opened
    context.close()
    assert not wrong


def done(page, text="explained."):
    """Wait until the page has said that it is done."""
    page.wait_for_function("t => document.getElementById('status').textContent.endsWith(t)", arg=text, timeout=60_000)


def paste(page, address, sequence, name="mine"):
    page.goto(address)
    page.fill("#sequence", f">{name}\n{sequence}")
    page.click("#ask [type=submit]")
    done(page)


def test_paste_mutate_switch_and_come_back(page, address, session):
    protein = session.opened.proteins("test")[0]
    sequence = protein.sequence[:30]
    paste(page, address, sequence)
    one = next(session.explainer([Protein("mine", sequence)]))
    assert page.text_content("#protein-name") == "mine"
    assert f"explained is class {one.summary['explained']}".lower() in page.text_content(".question").lower()
    assert page.locator(".strip b").all_text_contents() == list(sequence)
    assert page.locator(".strip b.out").count() == one.summary["residues_outside"]
    assert page.locator(".neuron").count() == len(one.neurons)
    assert f"by chance: {verdict(one.summary)})" in page.locator("#explained .legend").first.text_content()
    assert acting(one.neurons.iloc[0]) in page.locator(".neuron small").first.text_content()

    # Mutate by the mouse: the letter, the class, the attribution, the neurons.
    page.locator(".strip b").nth(4).click()
    letter = "W" if sequence[4] != "W" else "A"
    page.click(f"#letters button[data-letter={letter}]")
    done(page)
    assert page.locator(".strip b").nth(4).text_content() == letter
    assert page.locator(".strip b.mutated").count() == 1
    change = ps.variants(session.opened, sequence, mutations=[f"{sequence[4]}5{letter}"]).table["change"][0]
    assert f"{change:+.3f}".replace("-", "−") in page.text_content("#effect")
    assert "before the mutation" in page.text_content(".neuron >> nth=0")

    # Switch a neuron off: the decision is another.
    page.locator(".neuron .switches button[data-to=zero]").first.click()
    done(page)
    assert page.locator(".chips li").count() == 2 and "by the neurons" in page.text_content("#effect")
    assert page.locator(".neuron .switches button[data-to=zero]").first.get_attribute("aria-pressed") == "true"
    seen = page.text_content("#changed table"), page.text_content("#effect")
    link = page.url

    # The permalink opens the same; Back undoes.
    page.go_back()
    page.wait_for_function("() => document.querySelectorAll('.chips li').length === 1")
    done(page)
    page.goto("about:blank")
    page.goto(link)
    done(page)
    page.wait_for_selector("#effect")
    assert (page.text_content("#changed table"), page.text_content("#effect")) == seen
    page.locator(".chips button").first.click()
    done(page)
    assert page.locator(".strip b.mutated").count() == 0


def test_by_keyboard_and_narrow_and_dark(page, address, session):
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme="dark")
    page.goto(address)
    page.focus("#sequence")
    page.keyboard.insert_text(session.opened.proteins("test")[1].sequence[:25])
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    done(page)
    page.focus(".strip")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    own = page.text_content(".strip b.at")
    letter = "W" if own != "W" else "A"
    page.keyboard.press(letter.lower())
    done(page)
    assert page.text_content(".strip b.at") == letter
    assert page.evaluate("document.activeElement.classList.contains('strip')")
    page.focus(".neuron .switches button >> nth=0")
    page.keyboard.press("Space")
    done(page)
    assert page.locator(".chips li").count() == 2
    page.focus("#search [name=module]")
    page.select_option("#search [name=module]", "key")
    page.focus("#search [type=submit]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#found table")
    page.locator("#found button[aria-label$='along the protein']").first.click()
    page.wait_for_selector("#along svg")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    backgrounds = []
    for _ in range(2):
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.click("#theme")
    assert backgrounds == ["rgb(20, 24, 28)", "rgb(253, 253, 252)"]


def test_hostile_text_stays_text(page, address, session):
    sequence = session.opened.proteins("test")[0].sequence[:20]
    paste(page, address, sequence, name=HOSTILE.replace(" ", "_"))
    assert page.locator("main img").count() == 0 and page.title().startswith(HOSTILE[:5])
    assert page.text_content("#protein-name") == HOSTILE.replace(" ", "_")
    page.goto("about:blank")
    page.goto(f"{address}#s={sequence}&n={quote(HOSTILE)}&m={quote('<b>')}&c={quote('0~<i>~1~zero')}&c=0~key~1~zero")
    done(page)
    assert page.text_content("#protein-name") == HOSTILE and page.locator("main img, main i i, main b b").count() == 0
    assert page.locator(".chips li").count() == 1
    page.fill("#sequence", ">a\nMKT\n>b\nMKT")
    page.click("#ask [type=submit]")
    assert "one at a time" in page.text_content("#status")
    page.fill("#search [name=motif]", HOSTILE)
    page.click("#search [type=submit]")
    page.wait_for_selector("#found .note")
    assert page.locator("#found img").count() == 0


def test_what_is_seen_is_taken_away(page, address, session, tmp_path):
    sequence = session.opened.proteins("test")[0].sequence[:20]
    paste(page, address, sequence)
    for button, end in (("save-json", ".json"), ("save-residues", "-residues.csv"), ("save-page", ".html")):
        with page.expect_download() as found:
            page.click(f"#{button}")
        assert found.value.suggested_filename == f"mine{end}"
        found.value.save_as(tmp_path / f"mine{end}")
    rows = (tmp_path / "mine-residues.csv").read_text().splitlines()
    assert len(rows) == 21 and rows[1].startswith(f"1,{sequence[0]},")
    page.goto((tmp_path / "mine.html").as_uri())
    assert page.text_content("#protein-name") == "mine" and page.locator(".strip b").count() == 20
