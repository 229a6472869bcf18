"""The result column as HTML: empty, running, failed, done. Every text that came from outside is escaped here."""

from __future__ import annotations

from html import escape

from emotion_app.errors import EmotionError
from emotion_app.labels import EMOTIONS, Emotion
from emotion_app.notes import Note
from emotion_app.web.i18n import Words
from emotion_app.web.ui.player import player_html
from emotion_app.web.ui.views import Done, Empty, Failed, Running, Step, View

RESULTS_URL = "api/v1/results"  # relative to the page, so that it holds behind a proxy's prefix
USE_EMBEDDED = (
    "MODEL_MISSING",
    "MODEL_OFFLINE",
    "MODEL_BROKEN",
    "MODEL_UNKNOWN",
    "ENGINE_UNAVAILABLE",
    "OUT_OF_MEMORY",
)
WITHOUT_BASELINE = ("NO_BASELINE", "BASELINE_BROKEN", "BASELINE_NO_RULE", "BAD_NAME")
CHOOSE_OTHER = (
    "EMPTY",
    "UNDECODABLE",
    "NO_AUDIO",
    "BAD_FORMAT",
    "NOT_FINITE",
    "TOO_SHORT",
    "TOO_LONG",
    "TOO_LARGE",
    "DECODE_LIMIT",
    "NO_INPUT",
    "NOT_FOUND",
    "FORBIDDEN_PATH",
)


def render(view: View, words: Words) -> str:
    """HTML of the result column.

    Args:
        view: what to show.
        words: in which language.
    """
    if isinstance(view, Done):
        return _done(view, words)
    if isinstance(view, Failed):
        return _failed(view, words)
    if isinstance(view, Running):
        return _running(view, words)
    return _empty(view, words)


def _empty(_: Empty, words: Words) -> str:
    faces = "".join(
        f'<li style="--c:{e.colour}"><i aria-hidden="true">{e.emoji}</i>{escape(e.name(words.lang))}</li>'
        for e in EMOTIONS
    )
    return (
        f'<section class="ser-card ser-empty"><h2>{escape(words("ser_empty_title"))}</h2>'
        f'<p>{escape(words("ser_empty_text"))}</p><ul class="ser-faces">{faces}</ul></section>'
    )


def _running(view: Running, words: Words) -> str:
    last = view.steps[-1] if view.steps else Step("decode", 0.0, 0.0)
    if last.name == "decode" and last.fraction >= 1:  # asking a hub takes seconds before it reports anything
        last = Step("load", 0.0, 0.0)
    hint = words("ser_running_first") if last.name in ("download", "load") else ""
    known = 0 < last.fraction < 1
    now = f' aria-valuenow="{100 * last.fraction:.0f}"' if known else ""
    bar = (
        f'<div class="ser-progress{"" if known else " ser-unknown-length"}" role="progressbar" aria-valuemin="0" '
        f'aria-valuemax="100"{now}>'
        f'<b style="width:{100 * last.fraction if known else 30:.1f}%"></b></div>'
    )
    return (
        f'<section class="ser-card ser-running" aria-busy="true"><div class="ser-now"><i class="ser-spin"></i>'
        f'<div><h2 role="status">{escape(words(f"ser_step_{last.name}"))}</h2><p>{escape(view.source)}</p></div>'
        f'</div>{bar}<p class="ser-hint">{escape(hint)}</p></section>{_log(view.steps, words)}'
    )


def _failed(view: Failed, words: Words) -> str:
    error = view.error
    if error.code == "CANCELLED":
        fetching = bool(view.steps) and view.steps[-1].name == "download"
        text = words("ser_cancelled_download" if fetching else "ser_cancelled_text")
        return (
            f'<section class="ser-card ser-empty"><h2>{escape(words("ser_cancelled_title"))}</h2>'
            f"<p>{escape(text)}</p></section>"
        )
    act, key = _way_out(error, view.model)
    return (
        f'<section class="ser-card ser-failed" role="alert"><h2>{escape(words("ser_failed_title"))}</h2>'
        f'<p>{escape(error.text(words.lang))}</p><p class="ser-hint">{escape(words(f"ser_do_{act}"))}</p>'
        f'<button type="button" class="ser-act" data-act="{act}">{escape(words(key))}</button>'
        f'<span class="ser-code">{error.code}</span></section>{_log(view.steps, words, broken=True)}'
    )


def _way_out(error: EmotionError, model: str) -> tuple[str, str]:
    """What one button offers: another file, the embedded model, or the same again."""
    if error.code in CHOOSE_OTHER:
        return "choose", "ser_act_choose"
    if error.code in USE_EMBEDDED and model != "lite":
        return "lite", "ser_act_lite"
    if error.code == "BASELINE_OTHER_MODEL":
        return "calibrate", "ser_act_calibrate"
    if error.code in WITHOUT_BASELINE:
        return "plain", "ser_act_plain"
    return "retry", "ser_act_retry"


def _done(view: Done, words: Words) -> str:
    url = _url(view, "processed_audio.wav") if view.folder else ""
    return "".join(
        (
            _hero(view, words),
            _bars(view, words),
            player_html(view, words, url),
            _downloads(view, words),
            _log(view.steps, words, view),
        )
    )


def _hero(view: Done, words: Words) -> str:
    (first, score), (second, second_score) = view.prediction.top(2)
    own, other = (first.zh, first.en) if words.lang == "zh" else (first.en, first.zh)
    seconds = sum(step.seconds for step in view.steps)
    facts = (
        words("ser_then", emotion=f"{second.emoji} {second.name(words.lang)}", score=percent(second_score)),
        words("ser_seconds", seconds=f"{view.duration_s:.1f}"),
        words("ser_took", seconds=f"{seconds:.2f}"),
    )
    other_lang = "en" if words.lang == "zh" else "zh"
    chips = "".join(_chip(note, words) for note in view.notes if not (view.judged and note.code == "baseline_used"))
    return (
        f'<section class="ser-card ser-hero" style="--c:var(--ser-{first.key})"><div class="ser-headline">'
        f'<span class="ser-emoji" aria-hidden="true">{first.emoji}</span><div class="ser-name">'
        f'<h2 role="status">{escape(own)} <span lang="{other_lang}">{escape(other)}</span></h2>'
        f"<p>{''.join(f'<span>{escape(fact)}</span>' for fact in facts)}</p></div>"
        f'<div class="ser-score"><b>{percent(score)}</b><span>{escape(words("ser_score"))}</span></div></div>'
        f"{_judged(view, words)}"
        f'<p class="ser-source" title="{escape(view.source)}">{escape(view.source)}</p>'
        f"{f'<ul class=ser-notes>{chips}</ul>' if chips else ''}</section>"
    )


def _judged(view: Done, words: Words) -> str:
    """By which baseline, and the plain answer: said in the line of the headline, so its note is left out."""
    if view.judged is None:
        return ""
    plain = view.judged.plain
    emotion = f"{plain.emotion.emoji} {plain.emotion.name(words.lang)}"
    by = words("ser_calibrate_adjusted", name=view.judged.baseline, n=view.judged.count)
    without = words("ser_calibrate_plain", emotion=emotion, score=percent(plain.confidence))
    return f'<p class="ser-judged"><b>{escape(by)}</b><span>{escape(without)}</span></p>'


def _chip(note: Note, words: Words) -> str:
    sign = "⚠" if note.severity == "warning" else "ℹ"
    return f'<li class="ser-{note.severity}"><i aria-hidden="true">{sign}</i> {escape(note.text(words.lang))}</li>'


def _bars(view: Done, words: Words) -> str:
    plain = view.judged.plain.scores if view.judged else [None] * len(EMOTIONS)
    rows = "".join(
        _bar(e, float(s), e is view.prediction.emotion, words, p)
        for e, s, p in zip(EMOTIONS, view.prediction.scores, plain, strict=True)
    )
    kind, about = (" ser-both", "ser_calibrate_both") if view.judged else ("", "ser_uncalibrated")
    return (
        f'<section class="ser-card" aria-label="{escape(words("ser_scores"))}"><h3>{escape(words("ser_scores"))}'
        f'<small>{escape(words(about))}</small></h3><ul class="ser-bars{kind}">{rows}</ul></section>'
    )


def _bar(emotion: Emotion, score: float, first: bool, words: Words, plain: float | None) -> str:
    beside = "" if plain is None else f"<small>{percent(float(plain))}</small>"
    return (
        f'<li class="ser-bar{" ser-first" if first else ""}"><span><i aria-hidden="true">{emotion.emoji}</i>'
        f'{escape(emotion.name(words.lang))}</span><div><b style="width:{100 * score:.2f}%;'
        f'background:var(--ser-{emotion.key})"></b></div><em>{percent(score)}</em>{beside}</li>'
    )


def _url(view: Done, name: str) -> str:
    return f"{RESULTS_URL}/{view.folder}/{name}"


def _downloads(view: Done, words: Words) -> str:
    if not view.folder:
        return (
            f'<section class="ser-card ser-downloads" aria-busy="true"><span class="ser-hint">'
            f"{escape(words('ser_step_save'))}</span></section>"
        )
    single = "".join(
        f'<a href="{_url(view, name)}" download="{name}">{name}<small>{size_text(size)}</small></a>'
        for name, size in view.files
    )
    return (
        f'<section class="ser-card ser-downloads" aria-label="{escape(words("ser_download"))}">'
        f'<a class="ser-zip" href="{RESULTS_URL}/{view.folder}.zip" download="{view.folder}.zip">'
        f'<i aria-hidden="true">⬇</i> {escape(words("ser_download_all"))}</a>{single}</section>'
    )


def _log(steps: tuple[Step, ...], words: Words, view: Done | None = None, *, broken: bool = False) -> str:
    if not steps:
        return ""
    lines = "".join(_log_line(step, words, view, broken) for step in steps)
    return f'<section class="ser-card ser-log"><h3>{escape(words("ser_log"))}</h3><ol>{lines}</ol></section>'


def _log_line(step: Step, words: Words, view: Done | None, broken: bool) -> str:
    kind, sign = ("ok", "✓") if step.fraction >= 1 else ("broken", "✗") if broken else ("going", "…")
    detail = _detail(step, words, view) if view else (f"{100 * step.fraction:.0f} %" if 0 < step.fraction < 1 else "")
    return (
        f'<li class="ser-{kind}"><i aria-hidden="true">{sign}</i>'
        f"<span>{escape(words(f'ser_log_{step.name}'))} <small>{escape(detail)}</small></span>"
        f"<em>{time_text(step.seconds)}</em></li>"
    )


def _detail(step: Step, words: Words, view: Done) -> str:
    o, m = view.origin, view.model
    if step.name == "decode":
        return words(
            "ser_log_decode_detail",
            format=f"{o.container}/{o.codec}",
            rate=f"{o.sample_rate / 1000:g}",
            channels=o.channels,
            seconds=f"{view.duration_s:.2f}",
        )
    if step.name in ("load", "download"):
        return m.name
    if step.name == "infer":
        return words("ser_log_infer_detail", frames=view.n_frames, model=m.name, precision=m.precision, device=m.device)
    return view.folder if step.name == "save" else ""


def percent(score: float) -> str:
    """One decimal, never "100.0 %" for less: 0.784 -> ``78.4 %``."""
    return f"{min(100 * score, 99.9) if score < 1 else 100.0:.1f} %"


def size_text(n_bytes: int) -> str:
    """Bytes for people: ``1.2 kB``, ``3.4 MB``."""
    if n_bytes < 1000:
        return f"{n_bytes} B"
    return f"{n_bytes / 1000:.1f} kB" if n_bytes < 1_000_000 else f"{n_bytes / 1_000_000:.1f} MB"


def time_text(seconds: float) -> str:
    """Seconds for people: ``84 ms``, ``1.2 s``."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
