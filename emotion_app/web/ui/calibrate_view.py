"""The Calibrate page as HTML. Every text that came from outside is escaped here."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from emotion_app.baseline import Baseline
from emotion_app.baseline_files import BaselineStore
from emotion_app.enrol import Said
from emotion_app.errors import EmotionError
from emotion_app.web.i18n import Words
from emotion_app.web.ui.render import percent

SENTENCES = 5  # asked for; the rule counts the ten newest
WITH_WORDS = ("unknown", "silent", "too_short")  # reasons that are no errors
ABOUT_NAME = ("BAD_NAME", "BASELINE_EXISTS", "CANNOT_SAVE")  # said beside the name, the rest beside the sentences


@dataclass(frozen=True, eq=False)
class Draft:
    """What one open page has gathered.

    Attributes:
        baseline: not saved yet, with a name of its own; None before the first accepted sentence.
        takes: the last sentences heard, accepted or not.
        least: clips that the rule wants.
        listening: name of the clip that is being listened to.
        problem: why the last thing did not work, when it was not the sentence's fault.
        saved: name under which the last draft was saved.
        kept: clips in that one.
    """

    baseline: Baseline | None = None
    takes: tuple[Said, ...] = ()
    least: int = 3
    listening: str = ""
    problem: EmotionError | None = None
    saved: str = ""
    kept: int = 0

    @property
    def count(self) -> int:
        """Accepted sentences."""
        return self.baseline.count if self.baseline else 0

    @property
    def ready(self) -> bool:
        """Whether it can be saved: a smaller one would never be applied."""
        return self.count >= self.least


def why_html(words: Words) -> str:
    """What this is for."""
    return (
        f'<section class="ser-card ser-calibrate-why"><h2>{_t(words, "ser_calibrate_title")}</h2>'
        f"<p>{_t(words, 'ser_calibrate_why')}</p></section>"
    )


def say_html(draft: Draft, words: Words) -> str:
    """How far it is, and what to say next."""
    n = draft.count
    steps = "".join(f'<i class="{"ser-in" if i < n else ""}"></i>' for i in range(SENTENCES))
    state = words("ser_calibrate_of", n=n, all=SENTENCES) if n <= SENTENCES else words("ser_calibrate_more", n=n)
    least = words("ser_calibrate_enough") if draft.ready else words("ser_calibrate_least", least=draft.least)
    if n < SENTENCES:
        said = (
            f"<h3>{_t(words, 'ser_calibrate_say')}</h3><blockquote>{_t(words, f'ser_calibrate_sentence_{n + 1}')}"
            f'</blockquote><p class="ser-hint">{_t(words, "ser_calibrate_how")}</p>'
        )
    else:
        said = f"<blockquote>{_t(words, 'ser_calibrate_all')}</blockquote>"
    return (
        f'<div class="ser-calibrate-of" role="status"><b>{escape(state)}</b><span>{escape(least)}</span></div>'
        f'<div class="ser-steps" role="progressbar" aria-valuemin="0" aria-valuemax="{SENTENCES}" '
        f'aria-valuenow="{min(n, SENTENCES)}" aria-label="{_t(words, "ser_calibrate_title")}">{steps}</div>{said}'
    )


def takes_html(draft: Draft, words: Words) -> str:
    """What was heard so far, newest first, each accepted or refused in words."""
    rows = [_take(take, words) for take in reversed(draft.takes)]
    if draft.listening:
        busy = f"<b>{_t(words, 'ser_calibrate_listening')}</b><p>{escape(draft.listening)}</p>"
        rows.insert(0, f'<li class="ser-going" aria-busy="true"><i class="ser-spin"></i><div>{busy}</div></li>')
    shown = f'<ol class="ser-takes" aria-live="polite">{"".join(rows)}</ol>' if rows else ""
    problem = draft.problem if draft.problem and draft.problem.code not in ABOUT_NAME else None
    trouble = said_html(problem.text(words.lang), "no") if problem else ""
    acts = ""
    if problem and problem.code == "BASELINE_NO_RULE":
        acts += f'<button type="button" class="ser-act" data-act="lite">{_t(words, "ser_act_lite")}</button>'
    if (draft.takes or draft.baseline) and not draft.listening:
        acts += f'<button type="button" data-act="over">{_t(words, "ser_calibrate_over")}</button>'
    return f"{trouble}{shown}{f'<div class=ser-calibrate-acts>{acts}</div>' if acts else ''}"


def _take(take: Said, words: Words) -> str:
    if take.used and take.prediction is not None:
        first = take.prediction.emotion
        said = words("ser_calibrate_sounded", emotion=f"{first.emoji} {first.name(words.lang)}",
                     score=percent(take.prediction.confidence))  # fmt: skip
        return _row("ok", "✓", words("ser_calibrate_accepted"), said, take.name)
    if take.why in WITH_WORDS:
        why = words(f"ser_calibrate_refused_{take.why}")
    else:
        why = take.error.text(words.lang) if take.error else ""
    return _row("no", "✗", words("ser_calibrate_again"), why, take.name)


def _row(kind: str, sign: str, title: str, said: str, name: str) -> str:
    return (
        f'<li class="ser-{kind}" title="{escape(name)}"><i aria-hidden="true">{sign}</i><div><b>{escape(title)}</b>'
        f"<p>{escape(said)}</p></div></li>"
    )


def told_html(draft: Draft, words: Words) -> str:
    """What became of saving, with the buttons that it asks for; or what is still missing."""
    if draft.saved:
        go = f'<button type="button" class="ser-act" data-act="go">{_t(words, "ser_calibrate_analyze")}</button>'
        said = said_html(words("ser_calibrate_saved", name=draft.saved, n=draft.kept), "ok")
        return f'{said}<div class="ser-calibrate-acts">{go}</div>'
    if draft.problem and draft.problem.code in ABOUT_NAME:
        return _name_trouble(draft.problem, words)
    if not draft.ready:
        return f'<p class="ser-hint">{_t(words, "ser_calibrate_missing", n=draft.least - draft.count)}</p>'
    return f'<p class="ser-hint">{_t(words, "ser_calibrate_fits")}</p>'


def _name_trouble(problem: EmotionError, words: Words) -> str:
    name = str(problem.facts.get("name", ""))
    if problem.code == "BAD_NAME" and not name:
        return said_html(words("ser_calibrate_nameless"), "no")
    if problem.code != "BASELINE_EXISTS":
        return said_html(problem.text(words.lang), "no")
    return (
        f"{said_html(words('ser_calibrate_exists', name=name), 'no')}"
        f'<div class="ser-calibrate-acts"><button type="button" class="ser-act" data-act="replace">'
        f'{_t(words, "ser_calibrate_replace")}</button><button type="button" data-act="other">'
        f"{_t(words, 'ser_calibrate_other')}</button></div>"
    )


def said_html(text: str, kind: str) -> str:
    """A message; ``kind`` is ``ok`` or ``no``."""
    return f'<p class="ser-told ser-{kind}" role="{"status" if kind == "ok" else "alert"}">{escape(text)}</p>'


def list_html(store: BaselineStore, words: Words) -> str:
    """Saved baselines with their facts; each can be chosen and deleted."""
    rows = "".join(_saved(store, name, words) for name in store.names())
    none = f'<p class="ser-hint">{_t(words, "ser_calibrate_none_yet")}</p>'
    return f"<h3>{_t(words, 'ser_calibrate_list')}</h3>{f'<ul class=ser-saved-list>{rows}</ul>' if rows else none}"


def _saved(store: BaselineStore, name: str, words: Words) -> str:
    use, delete = "", _t(words, "ser_calibrate_delete")
    try:
        found = store.open(name)
    except EmotionError as error:
        facts = error.text(words.lang)
    else:
        facts = words(
            "ser_calibrate_facts", n=found.count, model=found.model, date=f"{found.created:%Y-%m-%d %H:%M}",
            share=f"{100 * found.neutral_share:.0f}",
        )  # fmt: skip
        use = (
            f'<button type="button" data-act="use" data-on="✓ {_t(words, "ser_calibrate_used")}" '
            f'data-off="{_t(words, "ser_calibrate_use")}">{_t(words, "ser_calibrate_use")}</button>'
        )
    return (
        f'<li data-name="{escape(name)}"><div><div class="ser-who"><b>{escape(name)}</b><p>{escape(facts)}</p></div>'
        f'<div class="ser-row-acts">{use}<button type="button" data-act="ask">{delete}</button></div></div>'
        f'<div class="ser-ask" role="group"><div class="ser-who">{_t(words, "ser_calibrate_sure", name=name)}</div>'
        f'<button type="button" class="ser-sure" data-act="delete">{delete}</button>'
        f'<button type="button" data-act="keep">{_t(words, "ser_calibrate_keep")}</button></div></li>'
    )


def _t(words: Words, key: str, **facts: object) -> str:
    return escape(words(key, **facts))
