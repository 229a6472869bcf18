"""Languages, widths, dark mode: said in words by tests, and left as pictures for people."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

OpenPage = Callable[..., Page]
# Latin words that belong on the Chinese page: names of models, formats, files and units.
NAMES = (
    r"emotion2vec\S*|Emotion2Vec\+?|Large|lite|Embedding|softmax|WAV|MP3|M4A|FLAC|OGG|WEBM|AMR|MB|kB|kHz|ms|zip|EN|cpu|"
    r"fp32|flac|synthetic_\S+|outputs\S*|result\.json|\w+\.wav|\w+\.png|frames\.csv|embedding\.npy|"
    r"\.npy|ModelScope|iic/\S+|emotion-app\S*|models get|gradio_client|curl|Shift|f\b"
)


def done(page: Page, frame: bool = True) -> Page:
    page.click(".ser-example[data-example*=changing]")
    if frame:
        page.click("#ser-granularity label:nth-of-type(2)")
    page.click("#ser-analyze")
    page.wait_for_selector(".ser-zip")
    for summary in page.locator("summary").all():
        summary.click()
    return page


def words_of(page: Page) -> str:
    """All text that can be seen on all tabs, and the texts for screen readers, without the headline and the switch."""
    texts = []
    for tab in page.locator("#ser-tabs [role=tab]").all():
        tab.click()
        texts.append(
            page.evaluate("""() => {
            const skip = [...document.querySelectorAll('.ser-hero h2 span, #ser-lang, pre')];
            const old = skip.map((e) => e.style.display);
            skip.forEach((e) => (e.style.display = 'none'));
            const labels = [...document.querySelectorAll('[id^=ser-] [aria-label], [id^=ser-] [title]')]
              .filter((e) => e.offsetParent && !e.closest('pre, #ser-lang, .tab-wrapper'))
              .flatMap((e) => [e.getAttribute('aria-label'), e.getAttribute('title')]);
            const text = [document.body.innerText, ...labels, document.title].join('\\n');
            skip.forEach((e, i) => (e.style.display = old[i]));
            return text; }""")
        )
    page.locator("#ser-tabs [role=tab]").first.click()
    return "\n".join(texts)


def english_in(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]{3,}", re.sub(NAMES, " ", text))


def chinese_in(text: str) -> list[str]:
    return re.findall(r"[一-鿿]+", text)


def test_the_browser_chooses_the_language_and_the_switch_changes_all(open_page: OpenPage) -> None:
    page = done(open_page("zh-TW"))
    assert not english_in(words_of(page))
    page.click("#ser-lang label:nth-of-type(2)")
    expect(page.locator("#ser-brand")).to_have_text("Speech Emotion Recognition")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    assert not chinese_in(words_of(page))
    page.reload()
    expect(page.locator("#ser-brand")).to_have_text("Speech Emotion Recognition")  # the choice is kept


@pytest.mark.parametrize(
    ("lang", "brand"), [("en-GB", "Speech"), ("fr-FR", "Speech"), ("zh", "语音"), ("zh-CN", "语音")]
)
def test_language_of_the_browser(open_page: OpenPage, lang: str, brand: str) -> None:
    page = open_page(lang)
    expect(page.locator("#ser-brand")).to_contain_text(brand)
    left = words_of(page)
    assert not (english_in(left) if brand == "语音" else chinese_in(left))


def test_a_link_can_name_the_language(open_page: OpenPage) -> None:
    assert "语音" in open_page("en-US", query="?lang=zh").inner_text("#ser-brand")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures(open_page: OpenPage, shots: Path, width: int, scheme: str) -> None:
    """No sideways scrolling, the button in sight, text readable; the pictures are for looking at."""
    for lang in ("zh-CN", "en-US"):
        page = open_page(lang, width, scheme)
        page.screenshot(path=shots / f"empty_{lang}_{width}_{scheme}.png", full_page=True)
        done(page)
        page.mouse.move(0, 0)
        page.wait_for_timeout(600)
        page.screenshot(path=shots / f"frame_{lang}_{width}_{scheme}.png", full_page=True)
        assert page.evaluate(WIDE) == []
        assert page.evaluate(CONTRAST) == []
        page.locator("#ser-tabs [role=tab]").last.click()
        page.screenshot(path=shots / f"about_{lang}_{width}_{scheme}.png", full_page=True)


def test_focus_is_visible(open_page: OpenPage) -> None:
    page = open_page()
    seen = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        outline = page.evaluate(OUTLINE)
        what = page.evaluate(
            "document.activeElement.className + document.activeElement.id + document.activeElement.type"
        )
        assert outline, f"no outline on {what}"
        seen.add(what)
    assert len(seen) >= 6


# Whether what has the focus, or something around it, is outlined.
OUTLINE = """() => {
  for (let e = document.activeElement; e && e !== document.body; e = e.parentElement) {
    const s = getComputedStyle(e);
    if (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2) return true;
  }
  return document.activeElement === document.body;
}"""

# What sticks out on the right.
WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('body *')]
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && e.offsetParent)
  .map((e) => e.className || e.tagName)"""

# Text against what is behind it, WCAG AA: 4.5, or 3 for large text. Emoji are pictures.
CONTRAST = """() => {
  const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const line = (v) => ((v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  const lum = ([r, g, b]) => .2126 * line(r) + .7152 * line(g) + .0722 * line(b);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => top[i] * a + under[i] * (1 - a));
  };
  const behind = (e) => {
    const layers = [];
    for (; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    return layers.filter((l) => l.length).reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const wrong = [];
  for (const e of document.querySelectorAll('[id^=ser-] *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetParent || e.closest('svg, [aria-hidden=true]')) continue;
    const s = getComputedStyle(e), bg = behind(e), fg = over(parse(s.color), bg), px = parseFloat(s.fontSize);
    const [a, b] = [lum(fg), lum(bg)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
    if (ratio < (px >= 24 || (px >= 18.6 && Number(s.fontWeight) >= 700) ? 3 : 4.5))
      wrong.push(`${e.className || e.tagName} "${e.textContent.trim().slice(0, 20)}" ${ratio.toFixed(2)}`);
  }
  return wrong;
}"""
