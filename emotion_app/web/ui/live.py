"""The Live page: microphone, current emotion, timeline, distribution, alerts, and a summary that can be saved.

One component of our own, as on the Analyze page: the sound goes from an AudioWorklet over ``/ws/emotion``
(``static/live_stream.js``), what comes back is drawn by the other ``static/live*.js``, one function body. Here is the
markup, in one language; texts that the scripts need travel in data attributes.
"""

from __future__ import annotations

import json
from html import escape

import gradio as gr

from emotion_app.labels import EMOTIONS, NEGATIVE
from emotion_app.settings import Limits, Settings
from emotion_app.web.i18n import Words
from emotion_app.web.ui.shell import Shell
from emotion_app.web.ui.theme import read_static

SCRIPTS = ("live_stream.js", "live_chart.js", "live_view.js", "live_keep.js", "live.js")
MODELS = ("auto", "large", "lite")
MODEL_NAMES = {"auto": None, "large": "emotion2vec_plus_large", "lite": "lite"}
BASELINES = ("off", "auto", "saved")  # saved: the one that is chosen on the Analyze page
WINDOWS_S = (2, 3, 5)
SAID = (  # texts that the scripts fill in, each ser_live_say_<name>
    "start", "stop", "idle", "asking", "connecting", "loading", "live", "lost", "resumed", "resumed_lost", "restarted",
    "ending", "ended", "ended_limit", "denied", "nomic", "busymic", "insecure", "unsupported", "micgone", "silent",
    "unreachable", "refused", "token", "noend", "reload", "retry", "lite", "speech", "quiet", "off", "wait", "hearing",
    "now", "utterance", "runner", "adjusted", "late", "gap", "last", "session", "negative", "hold", "share", "remove",
    "alerted", "alert_at", "dismiss", "total", "spoken", "sentences", "mostly", "alerts", "missing", "none", "saving",
    "kept", "tip", "saved", "saved_parts", "save_failed", "files", "file", "seconds", "minutes",
)  # fmt: skip
MIC_ICON = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path class="p" d="M12 15a3.5 3.5 0 0 0 3.5-3.5v-5a3.5 3.5 0 0 0-7 0v5'
    'A3.5 3.5 0 0 0 12 15zm6-3.5a6 6 0 0 1-12 0M12 17.5V21"/>'
    '<rect class="s" x="6.5" y="6.5" width="11" height="11" rx="2"/></svg>'
)


def build(shell: Shell) -> None:
    """Lay the page out inside its tab."""
    page = gr.HTML(
        html_template="${markup}",
        js_on_load="\n".join(read_static(name) for name in SCRIPTS),
        apply_default_css=False,
        elem_id="ser-live",
        markup=live_markup(shell.first, shell.settings),
    )
    shell.bind(page, lambda w: gr.HTML(markup=live_markup(w, shell.settings)))


def live_markup(words: Words, settings: Settings) -> str:
    """The page in one language; the scripts write the state into it."""
    left = f"{_controls(words)}{_options(words)}{_small_print(words)}"
    right = f"{_alert(words)}{_now(words)}{_timeline(words)}{_distribution(words)}{_utterances(words)}"
    return (
        f'<div class="ser-live" data-state="idle" {_data(words, settings.limits)}>{left}'
        f'<div class="ser-live-get">{right}</div></div>'
    )


def _data(words: Words, limits: Limits) -> str:
    emotions = [
        {"key": e.key, "emoji": e.emoji, "name": e.name(words.lang), "white": e.ink == "#FFFFFF"} for e in EMOTIONS
    ]
    facts = {
        "lang": words.lang, "clip_s": limits.clip_s, "upload_mb": limits.upload_mb, "rules": limits.stream_alerts,
        "session_s": limits.stream_session_s,
        "models": MODEL_NAMES, "negative": NEGATIVE,
    }  # fmt: skip
    said = {name: words(f"ser_live_say_{name}") for name in SAID}
    return " ".join(
        f'data-{name}="{escape(json.dumps(value, ensure_ascii=False))}"'
        for name, value in (("words", said), ("emotions", emotions), ("facts", facts))
    )


def _controls(words: Words) -> str:
    return (
        '<section class="ser-card ser-live-go">'
        f'<button type="button" class="ser-live-start" aria-keyshortcuts="Space">{MIC_ICON}'
        f"<b>{_t(words, 'ser_live_say_start')}</b><kbd>{_t(words, 'ser_live_space')}</kbd></button>"
        '<p class="ser-live-state" role="status"><i aria-hidden="true"></i><span></span></p>'
        '<div class="ser-live-trouble" role="alert"><p></p><button type="button" class="ser-act" hidden></button></div>'
        '<div class="ser-live-sound"><div class="ser-live-meter" role="meter" '
        f'aria-label="{_t(words, "ser_live_level")}" aria-valuemin="-60" aria-valuemax="0" aria-valuenow="-60">'
        "<b></b></div>"
        '<div class="ser-live-heard"><span class="ser-live-vad"><i aria-hidden="true"></i><span></span></span>'
        '<em class="ser-live-clock">0:00</em></div></div></section>'
    )


def _options(words: Words) -> str:
    seconds = [(str(s), words("ser_seconds", seconds=s)) for s in WINDOWS_S]
    models = [(name, words(f"ser_model_{name}")) for name in MODELS]
    baselines = [(name, words(f"ser_live_baseline_{name}")) for name in BASELINES]
    rules = f'<ul class="ser-live-rules"></ul>{_rule_form(words)}'
    return (
        '<section class="ser-card ser-live-options">'
        f"{_segmented('model', words('ser_model'), models)}"
        f"{_segmented('window', words('ser_live_window'), seconds)}"
        f'<p class="ser-hint">{_t(words, "ser_live_window_hint")}</p>'
        f"{_segmented('baseline', words('ser_live_baseline'), baselines)}"
        f'<p class="ser-hint">{_t(words, "ser_live_baseline_hint")} '
        f'<button type="button" class="ser-act ser-live-anew" hidden>{_t(words, "ser_live_baseline_anew")}</button></p>'
        f"<fieldset><legend>{_t(words, 'ser_live_rules')}</legend>{rules}</fieldset></section>"
    )


def _segmented(name: str, legend: str, choices: list[tuple[str, str]]) -> str:
    items = "".join(
        f'<label><input type="radio" name="ser-live-{name}" value="{value}"><span>{escape(text)}</span></label>'
        for value, text in choices
    )
    return f'<fieldset class="ser-live-seg"><legend>{escape(legend)}</legend><div>{items}</div></fieldset>'


def _rule_form(words: Words) -> str:
    """One line to make a rule: who, how much, for how long."""
    who = f'<option value="negative">{_t(words, "ser_live_say_negative")}</option>' + "".join(
        f'<option value="{e.key}">{e.emoji} {escape(e.name(words.lang))}</option>' for e in EMOTIONS
    )
    much = "".join(f'<option value="{p}"{" selected" if p == 70 else ""}>{p} %</option>' for p in range(30, 100, 10))
    kinds = [("hold", s) for s in (1, 2, 3, 5, 10)] + [("share", s) for s in (30, 60, 300)]
    how = "".join(
        f'<option value="{kind} {s}"{" selected" if (kind, s) == ("hold", 2) else ""}>'
        f"{_t(words, f'ser_live_rule_{kind}', seconds=s)}</option>"
        for kind, s in kinds
    )
    return (
        f"<details><summary>{_t(words, 'ser_live_rule_new')}</summary><div class='ser-live-rule'>"
        f'<select data-rule="who" aria-label="{_t(words, "ser_live_rule_who")}">{who}</select>'
        f'<select data-rule="much" aria-label="{_t(words, "ser_live_rule_much")}">{much}</select>'
        f'<select data-rule="how" aria-label="{_t(words, "ser_live_rule_how")}">{how}</select>'
        f'<button type="button" class="ser-live-add">{_t(words, "ser_live_rule_add")}</button></div></details>'
    )


def _small_print(words: Words) -> str:
    lines = (("🔒", "ser_live_private"), ("ℹ", "ser_live_honest"), ("⚖", "ser_live_consent"))
    return '<ul class="ser-live-print">' + "".join(
        f'<li><i aria-hidden="true">{sign}</i><span>{_t(words, key)}</span></li>' for sign, key in lines
    ) + "</ul>"  # fmt: skip


def _alert(words: Words) -> str:
    return (
        '<section class="ser-live-alert" role="alert" hidden><i aria-hidden="true">🔔</i>'
        "<div><b></b><span></span></div>"
        f'<button type="button" aria-label="{_t(words, "ser_live_say_dismiss")}">✕</button></section>'
    )


def _now(words: Words) -> str:
    faces = "".join(
        f'<li style="--c:var(--ser-{e.key})"><i aria-hidden="true">{e.emoji}</i>{escape(e.name(words.lang))}</li>'
        for e in EMOTIONS
    )
    return (
        f'<section class="ser-card ser-empty ser-live-empty"><h2>{_t(words, "ser_live_empty_title")}</h2>'
        f'<p>{_t(words, "ser_live_empty_text")}</p><ul class="ser-faces">{faces}</ul></section>'
        '<section class="ser-card ser-hero ser-live-now"><div class="ser-headline">'
        '<span class="ser-emoji" aria-hidden="true"></span><div class="ser-name"><h2></h2><p></p></div>'
        f'<div class="ser-score"><b></b><span>{_t(words, "ser_score")}</span></div></div>'
        '<p class="ser-live-what"></p><ul class="ser-notes"></ul></section>'
        '<p class="ser-live-said" aria-live="polite"></p>'
    )


def _timeline(words: Words) -> str:
    return (
        f'<section class="ser-card ser-live-timeline"><h3>{_t(words, "ser_timeline")}<small></small></h3>'
        f'<canvas role="img" aria-label="{_t(words, "ser_live_timeline_label")}"></canvas>'
        f'<p class="ser-live-tip"></p></section>'
    )


def _distribution(words: Words) -> str:
    rows = "".join(
        f'<li class="ser-bar"><span><i aria-hidden="true">{e.emoji}</i>{escape(e.name(words.lang))}</span>'
        f'<div><b style="width:0;background:var(--ser-{e.key})"></b></div><em></em></li>'
        for e in EMOTIONS
    )
    return (
        f'<section class="ser-card ser-live-share"><h3>{_t(words, "ser_live_share")}'
        f'<small>{_t(words, "ser_live_share_of")}</small></h3><ul class="ser-bars">{rows}</ul></section>'
    )


def _utterances(words: Words) -> str:
    return (
        f'<section class="ser-card ser-live-summary"><h3>{_t(words, "ser_live_summary")}</h3><dl></dl>'
        '<div class="ser-live-acts">'
        f'<button type="button" class="ser-live-save">💾 {_t(words, "ser_live_save")}</button>'
        f'<button type="button" class="ser-live-csv">⬇ {_t(words, "ser_live_csv")}</button>'
        f'<button type="button" class="ser-live-drop">{_t(words, "ser_live_drop")}</button></div>'
        f'<p class="ser-hint ser-live-kept" role="status"></p>'
        '<div class="ser-downloads"></div></section>'
        f'<section class="ser-card ser-live-list"><h3>{_t(words, "ser_live_list")}</h3><ol></ol></section>'
    )


def _t(words: Words, key: str, **facts: object) -> str:
    return escape(words(key, **facts))
