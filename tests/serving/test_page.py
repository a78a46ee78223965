"""The page at ``/`` of the service, in a real browser that asks a real service."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.browser import Browser, MissingError
from deploy.picture import take_applicants
from stream.policy import HOUR_MS
from stream.serving.access import Tokens
from stream.serving.page import POLICY, page_files
from tests.kit import model
from tests.serving.asking import NOW_MS, Asked, serving
from tests.serving.test_applicants import HELD, Holding, applicant, label
from tests.serving.test_scores import known

ROWS = "[...document.querySelectorAll('#applicants li')]"
SHOWN = f"{ROWS}.map(row => row.querySelector('.who b').textContent)"
HOSTILE = (
    "<script>window.hurt = 1</script>",
    "\"><img src=x onerror='window.hurt = 1'>",
    "a/b?c=d#e&f=g%2F%00",
    "javascript:window.hurt=1",
    "\u202eflipped \U0001f600 ${window.hurt = 1} {{hurt}}",
)
CONTRASTS = """(() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => rgb(text).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = el => {
    const found = getComputedStyle(el).backgroundColor;
    return (rgb(found)[3] ?? 1) > 0 ? found : ground(el.parentElement);
  };
  return [...document.body.querySelectorAll("*")].filter(el => el.offsetParent
      && [...el.childNodes].some(node => node.nodeType === 3 && node.data.trim())).map(el => {
    const [a, b] = [light(getComputedStyle(el).color), light(ground(el))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), el.textContent.slice(0, 40)];
  });
})()"""
"""How clearly each text stands out from what it is on, as WCAG 2 reckons it."""


@pytest.fixture(scope="module")
def started() -> Iterator[Browser]:
    """Return a browser."""
    try:
        made = Browser()
    except MissingError as missing:
        pytest.skip(f"page not looked at: {missing}")
    with made:
        yield made


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """Return it; no script may have failed in it at the end, and nothing been forbidden."""
    started.show("about:blank")
    started.complaints.clear()
    started.requested.clear()
    yield started
    answers = "Failed to load resource"  # what the service refuses is an error to the browser
    assert [each for each in started.complaints if not each.startswith(answers)] == []


def market() -> Holding:
    """Job j with applicants m0 (the last) to m3 (the first), of whom something is known."""
    asked = Holding()
    known(asked, "per_member", "m3", [1.5, -0.5], 0.25)
    known(asked, "per_job", "j", [-0.25], 0.5)
    for n in range(4):
        one = applicant(f"a{n}", NOW_MS - (n + 1) * HOUR_MS, member=f"m{n}", score=n / 10 - 1)
        asked.publish(one)
    asked.publish(applicant("b", NOW_MS - HOUR_MS, job="elsewhere"))
    return asked


def test_its_files_are_served_to_everybody_and_bring_all_they_need(tmp_path: Path) -> None:
    """No token is needed for them, no other site is asked, and no script may run but its own."""
    tokens = tmp_path / "tokens"
    tokens.write_text("sixteen-characters\n")
    asked = Asked(model(), HELD, tokens=Tokens(tokens))
    files = page_files()
    assert set(files) == {"/", "/page.css", "/page.js", "/draw.js", "/words.js"}
    for path, (content_type, content) in files.items():
        reply = asked.ask(path)
        assert (reply.status, reply.headers["content-type"]) == (200, content_type)
        assert reply.body == content
        assert not re.search(rb"https?://|//[a-z]+\.|innerHTML|outerHTML|eval\(", content), path
        assert ("content-security-policy" in reply.headers) == (path == "/")
    assert asked.ask("/").headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none';")
    assert asked.ask("/v1/jobs").status == 401
    assert asked.ask("/page.css", b"", method="POST").status == 405


def test_a_job_is_found_and_its_list_moves_as_the_market_plays(browser: Browser) -> None:
    """By the keyboard alone; rows stay the same elements, glide, and say how they moved."""
    asked = market()
    with serving(asked) as url:
        browser.show(url)
        browser.wait_for("document.querySelectorAll('#job-list li').length === 2")
        assert "Choose a job" in browser.text()
        browser.press("/")
        browser.write("els")
        browser.wait_for("document.querySelectorAll('#job-list li').length === 1")
        browser.run("document.getElementById('search').select()")
        browser.write("j")
        browser.wait_for("document.querySelector('#job-list b').textContent === 'j'")
        browser.press("Tab")
        browser.press("Enter", "\r")
        browser.wait_for(f"{ROWS}.length === 4")
        assert browser.run(SHOWN) == ["m3", "m2", "m1", "m0"]
        assert "4 applicants wait for an answer." in browser.text()
        assert "Raised by m0 (×4.48) for this member; lowered by the global score" in browser.text()
        browser.run(
            "window.glided = 0; window.kept = document.querySelectorAll('#applicants li')[3];"
            " kept.firstChild.focus(); const animate = Element.prototype.animate;"
            " Element.prototype.animate = function(...all)"
            " { window.glided++; return animate.apply(this, all); }; 1"
        )
        known(asked, "per_member", "m0", [2.5, 0.0], 0.25)
        asked.held.decide([label("a2", "positive")], NOW_MS)
        asked.publish(applicant("new", NOW_MS, member="fresh", score=-3.0))
        browser.wait_for(f"{SHOWN}.join() === 'm0,m3,m1,fresh'")
        assert browser.run("kept.isConnected && kept === document.querySelector('#applicants li')")
        assert browser.run("kept.contains(document.activeElement)")
        assert browser.run("glided") > 0
        marks = browser.run(f"{ROWS}.map(row => row.querySelector('.rank small').textContent)")
        assert marks == ["▲ 3", "▼ 1", "", "new"]
        browser.press("ArrowDown")
        browser.press("Enter", "\r")
        browser.wait_for("document.getElementById('who').textContent === 'm3'")
        browser.press("Escape")
        browser.wait_for("document.getElementById('who').textContent === 'Where one stands'")
        browser.run(
            "document.getElementById('by').value = 'next';"
            " document.getElementById('by').dispatchEvent(new Event('change'))"
        )
        wanted = [each["member_id"] for each in asked.get("/j/applicants?by=next")["applicants"]]
        browser.wait_for(f"{SHOWN}.join() === '{','.join(wanted)}'")
    assert {re.sub(r"[^/]*$", "", each) for each in browser.requested if "/v1/" not in each} == {
        url
    }


def test_only_the_market_moves_rows(browser: Browser) -> None:
    """Another order, a longer list or a second look at a job is no move, and makes nobody new."""
    asked = Holding()
    for n in range(30):
        one = applicant(f"a{n:02}", NOW_MS - (1 + n % 7) * HOUR_MS, member=f"m{n}", score=-n / 30)
        asked.publish(one)
    marks = f"{ROWS}.map(row => row.querySelector('.rank small').textContent).join('')"
    chances = f"{ROWS}.map(row => row.querySelector('.chance b').textContent)"
    with serving(asked) as url:
        browser.show(f"{url}#job=j")
        browser.wait_for(f"{ROWS}.length === 20")
        for by in ("probability_now", "next", "probability"):
            browser.run(
                f"document.getElementById('by').value = '{by}';"
                " document.getElementById('by').dispatchEvent(new Event('change'))"
            )
            told = asked.get(f"/j/applicants?top=20&by={by}")["applicants"]
            browser.wait_for(f"{SHOWN}.join() === '{','.join(one['member_id'] for one in told)}'")
            browser.wait_for(
                f"{ROWS}[0].querySelector('.chance small').textContent.startsWith("
                f"'{'now' if by == 'probability' else 'at first'}')"
            )
            field = "probability" if by == "probability" else "probability_now"
            assert browser.run(chances) == [f"{100 * one[field]:.0f}\u00a0%" for one in told]
            assert browser.run(marks) == ""
        asked.held.decide([label("a00", "positive")], NOW_MS)
        browser.wait_for(f"{SHOWN}[0] === 'm1'")
        assert browser.run(marks) == "▲ 1" * 19 + "▲"  # the last comes from below
        browser.run("document.getElementById('more').click()")
        browser.wait_for(f"{ROWS}.length === 29")
        assert browser.run(marks) == ""
        browser.run("location.hash = ''")
        browser.wait_for(f"{ROWS}.length === 0")
        browser.run("location.hash = 'job=j'")
        browser.wait_for(f"{ROWS}.length === 20")
        assert browser.run(marks) == ""


SENTENCES: tuple[tuple[list[tuple[str, str, float]], str], ...] = (
    ([], "Nothing tells this applicant from others yet."),
    (
        [("global", "intercept", -0.9), ("per_member", "intercept", 0.4), ("global", "pay", 0.04)],
        "Raised by the member's own record (×1.49).",
    ),
    (
        [("per_job", "years", -0.7), ("per_member", "km", 0.5), ("per_member", "pay", 0.3)],
        "Raised by km (×1.65) and pay (×1.35) for this member; lowered by years (×0.50)"
        " for this job.",
    ),
    (
        [("global", "pay", 0.7), ("per_job", "km", 0.6), ("per_job", "intercept", 0.5)],
        "Raised by pay (×2.01) in general and km (×1.82) for this job.",
    ),
)


def test_reasons_are_a_sentence(browser: Browser) -> None:
    """At most two of each kind, the largest first; not what is the same for all, nor trifles."""
    with serving(market()) as url:
        browser.show(url)
        for reasons, sentence in SENTENCES:
            told = [
                dict(zip(("effect", "feature", "contribution"), one, strict=True))
                for one in reasons
            ]
            pairs = browser.run(f"import('/words.js').then(words => words.why({json.dumps(told)}))")
            assert "".join(text for text, _ in pairs) == sentence


def test_nothing_moves_for_who_likes_no_motion(browser: Browser) -> None:
    """Rows change places at once."""
    asked = market()
    with serving(asked) as url:
        browser.show(f"{url}#job=j", still=True)
        browser.wait_for(f"{ROWS}.length === 4")
        browser.run("Element.prototype.animate = () => { window.glided = true; }; 1")
        known(asked, "per_member", "m0", [2.5, 0.0], 0.25)
        browser.wait_for(f"{SHOWN}[0] === 'm0'")
        assert browser.run("document.getAnimations().length") == 0
        assert browser.run("window.glided") is None


def test_a_member_sees_where_it_stands(browser: Browser) -> None:
    """Rank, of how many, percentile, both chances, and what counts for and against, as answered."""
    asked = market()
    with serving(asked) as url:
        browser.show(f"{url}#job=j&application=a3")
        browser.wait_for("document.querySelector('.big')")
        told = asked.get("/j/applicants/a3")
        text = browser.run("document.getElementById('view').innerText").replace("\u00a0", " ")
        for words in (
            "m3\n",
            "1st\nof 4",
            "ahead of 100 % of those",
            f"{100 * told['probability']:.0f} %",
            f"{100 * told['probability_now']:.0f} %",
            "after 4 hours without an answer",
            f"+{told['parts']['member']:.2f}",
            f"together\nin log-odds\n{told['log_odds']:+.2f}",
            "What counts for it",
            "What counts against it",
            "j0 for this job",
            "Application a3 to job j, model test-model.",
        ):
            assert words in text, (words, text)
        asked.held.decide([label("a3", "positive")], NOW_MS)
        browser.wait_for("document.body.innerText.includes('no longer in the ranking')")
        assert "it was answered" in browser.text()
        browser.run("location.hash = 'job=j&application=a0'")
        browser.wait_for("document.getElementById('who').textContent === 'm0'")
        assert "nothing learned yet" in browser.text()
        browser.run("history.back()")
        browser.wait_for("document.body.innerText.includes('no longer in the ranking')")


def test_ids_are_text_whatever_is_in_them(browser: Browser) -> None:
    """Ids that are HTML, addresses or scripts are shown as they are, can be chosen, do nothing."""
    asked = market()
    for each in HOSTILE:
        asked.publish(applicant(each, NOW_MS - HOUR_MS, job=each, member=each))
    with serving(asked) as url:
        browser.show(url)
        browser.wait_for(f"document.querySelectorAll('#job-list li').length === {len(HOSTILE) + 2}")
        names = browser.run("[...document.querySelectorAll('#job-list b')].map(b => b.textContent)")
        assert set(HOSTILE) <= set(names)
        for number, each in enumerate(names):
            if each not in HOSTILE:
                continue
            browser.run(f"document.querySelectorAll('#job-list button')[{number}].click()")
            browser.wait_for(f"document.title.startsWith({each!r})" if each.isascii() else "true")
            browser.wait_for(f"{ROWS}.length === 1")
            assert browser.run(SHOWN) == [each]
            browser.run(f"{ROWS}[0].firstChild.click()")
            browser.wait_for("document.querySelector('.big')")
            assert browser.run("document.getElementById('who').textContent") == each
            assert browser.run("document.getElementById('job-name').textContent") == each
        assert browser.run("document.images.length + document.scripts.length") == 1
        assert browser.run("window.hurt") is None


def test_a_token_is_asked_for_and_kept_in_memory_alone(browser: Browser, tmp_path: Path) -> None:
    """A wrong one is said to be wrong; neither the address nor the browser's stores have it."""
    tokens = tmp_path / "tokens"
    tokens.write_text("sixteen-characters\n")
    asked = Asked(model(), HELD, tokens=Tokens(tokens))
    assert asked.store.applicants is not None
    with serving(asked) as url:
        browser.show(url)
        browser.wait_for("document.activeElement.id === 'token-text'")
        for token in ("another", "sixteen-characters"):
            browser.write(token)
            browser.press("Enter", "\r")
            if token == "another":  # noqa: S105 - a wrong one
                browser.wait_for("document.body.innerText.includes('does not know that token')")
        browser.wait_for("document.body.innerText.includes('No job has applicants yet')")
        kept = "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}])"
        assert browser.run(kept) == '["",{},{}]'
        assert browser.run("document.getElementById('token').hidden")
        browser.show("about:blank")
        browser.show(f"{url}#job=j&token=sixteen-characters")
        browser.wait_for("document.body.innerText.includes('Nobody waits for an answer here')")
        assert browser.run("location.href") == f"{url}#job=j"


def test_what_is_missing_is_said_with_what_to_do(browser: Browser) -> None:
    """No applicants held, none yet, none of that name, not ready, and a service that has gone."""
    with serving(Asked(model())) as url:
        browser.show(url)
        browser.wait_for(
            "document.body.innerText.includes('Put enabled = true under [applicants]')"
        )
    asked = Holding()
    with serving(asked) as url:
        asked.store.stands("12 records to go", ready=False)
        browser.show(url)
        browser.wait_for("document.body.innerText.includes('getting ready (12 records to go)')")
        asked.store.stands(None, ready=True, current_ms=NOW_MS)
        browser.wait_for("document.body.innerText.includes('is a worker running')")
        browser.run("document.getElementById('search').value = 'nowhere'")
        browser.wait_for("document.body.innerText.includes('No job has “nowhere” in its id')")
        browser.run("location.hash = 'job=j'")
        browser.wait_for("document.body.innerText.includes('Choose another job')")
    browser.wait_for("document.body.innerText.includes('The service does not answer')")
    assert "asking" in browser.text()


def test_how_old_and_how_good_it_is_is_said_in_words(browser: Browser) -> None:
    """Staleness and what degrades answers are sentences, in the colour of a warning."""
    asked = market()
    with serving(asked) as url:
        browser.show(f"{url}#job=j")
        browser.wait_for("document.getElementById('state').textContent === 'Up to date.'")
        assert browser.run("document.getElementById('state').className") == ""
        asked.now_ms = NOW_MS + 5 * 60_000
        browser.wait_for(
            "document.getElementById('state').textContent.includes('hears nothing new')"
        )
        assert "As of 5 minutes ago." in browser.text()
        assert browser.run("document.getElementById('state').className") == "warn"


@pytest.mark.parametrize("dark", [False, True])
def test_everything_can_be_read_on_any_screen(browser: Browser, dark: bool) -> None:
    """Contrast is 4.5 at least; nothing is cut off from 320 pixels on; narrow shows one thing."""
    asked = market()
    asked.publish(applicant("long", NOW_MS, job="j", member="long-" * 40))
    asked.publish(applicant("x", NOW_MS, job="jobs-with-names-" * 12))
    asked.now_ms = NOW_MS + 40_000
    with serving(asked) as url:
        for width in (320, 760, 761, 1150, 1400):
            for look in ("", "#job=j", "#job=j&application=long"):
                browser.show("about:blank")
                browser.show(url + look, size=(width, 800), dark=dark)
                browser.wait_for("document.querySelector('#job-list li')")
                browser.wait_for(f"{ROWS}.length === {5 if look else 0}")
                wide = "document.documentElement.scrollWidth - innerWidth"
                assert browser.run(wide) <= 0, (width, look)
                poor = [each for each in browser.run(CONTRASTS) if each[0] < 4.5]
                assert not poor
                seen = browser.run(
                    "['jobs', 'ranking', 'view'].filter(id => document.getElementById(id)"
                    ".getClientRects().length)"
                )
                level = ("jobs", "ranking", "view")[look.count("=")]
                assert seen == {
                    True: [level],
                    False: ["jobs", "view" if level == "view" else "ranking"],
                }.get(width <= 760, []) or (width > 1150 and len(seen) == 3)
        named = "[...document.querySelectorAll('input, select')].every(el => el.labels.length)"
        assert browser.run(named)


def test_a_page_that_nobody_sees_asks_nothing(browser: Browser) -> None:
    """It asks every second or two while it is seen, and again at once when it is seen again."""
    asked = market()
    with serving(asked) as url:
        browser.show(f"{url}#job=j")
        browser.wait_for(f"{ROWS}.length === 4")
        browser.run(
            "window.seen = true; Object.defineProperty(document, 'hidden', {get: () => !seen});"
            " window.seen = false; document.dispatchEvent(new Event('visibilitychange')); 1"
        )
        browser.requested.clear()
        time.sleep(2.5)
        browser.run("1")
        assert browser.requested == []
        browser.run("window.seen = true; document.dispatchEvent(new Event('visibilitychange')); 1")
        browser.wait_for("1")
        deadline = time.monotonic() + 30
        while len(browser.requested) < 4 and time.monotonic() < deadline:
            browser.run("1")
            time.sleep(0.1)
        assert len(browser.requested) >= 4  # twice for jobs and ranking


def test_the_pictures_of_the_docs_can_be_taken(tmp_path: Path) -> None:
    """Of a running service, with its token: light and dark, wide and narrow."""
    asked = market()
    try:
        with serving(asked) as url:
            taken = take_applicants(url.rstrip("/"), "not-asked-for", tmp_path)
    except MissingError as missing:
        pytest.skip(f"page not looked at: {missing}")
    heads = [path.read_bytes()[:24] for path in taken]
    assert all(head.startswith(b"\x89PNG") for head in heads)
    assert [int.from_bytes(head[16:20]) for head in heads] == [1400, 1400, 390, 390]
    assert len({path.read_bytes() for path in taken}) == 4
