"""The player of a result as HTML: waveform and segments in the colours of the emotions, captions, keyboard.

The behaviour is in ``static/player.js``; facts travel in data attributes. Own markup, because Gradio's player has no
coloured timeline and speaks the browser's language only.
"""

from __future__ import annotations

import json
from html import escape

import numpy as np

from emotion_app.labels import EMOTIONS
from emotion_app.types import Segment
from emotion_app.web.i18n import Words
from emotion_app.web.ui.views import N_BARS, Done

RIVER_HEIGHT = 100
PLAY_ICON = (
    '<svg viewBox="0 0 24 24" aria-hidden="true"><path class="p" d="M8 5v14l11-7z"/>'
    '<path class="s" d="M7 5h4v14H7zM13 5h4v14h-4z"/></svg>'
)
MAX_LISTED = 200  # segments in the list; all of them are in result.json


def player_html(view: Done, words: Words, url: str) -> str:
    """Waveform, timeline, captions and transport.

    Args:
        view: the answer.
        words: the language.
        url: where the sound is.
    """
    names = json.dumps([f"{e.emoji} {e.name(words.lang)}" for e in EMOTIONS], ensure_ascii=False)
    colours = json.dumps([e.key for e in EMOTIONS])
    track = (
        ""
        if view.track is None
        else ",".join(f"{i}:{p}" for i, p in zip(view.track.labels, view.track.percent, strict=True))
    )
    hop = f' data-hop="{view.track.hop_s:.6f}" data-track="{track}"' if view.track else ""
    frame = view.granularity == "frame"
    return (
        f'<section class="ser-card ser-player" tabindex="0" role="group" aria-label="{escape(words("ser_player"))}" '
        f'data-src="{escape(url)}" data-duration="{view.duration_s:.3f}" data-names="{escape(names)}" '
        f'data-keys="{escape(colours)}" data-play="{escape(words("ser_play"))}" '
        f'data-pause="{escape(words("ser_pause"))}"{hop}>'
        f"<h3>{escape(words('ser_timeline' if frame else 'ser_sound'))}<small>{escape(words('ser_keys'))}</small></h3>"
        f'<div class="ser-stage"><div class="ser-seek" data-seek>{_wave(view)}{_strip(view, words) if frame else ""}'
        f'<div class="ser-head"></div></div>{_axis(view.duration_s)}</div>'
        f'<div class="ser-transport"><button type="button" class="ser-play" aria-label="{escape(words("ser_play"))}">'
        f"{PLAY_ICON}</button>"
        f'<span class="ser-time">0:00.0 / {clock(view.duration_s)}</span>'
        f'<span class="ser-caption" aria-live="off"></span></div>'
        f"{_more(view, words) if frame else ''}</section>"
    )


def clock(seconds: float) -> str:
    """Time for people: ``0:04.2``.

    >>> clock(64.26), clock(59.97)
    ('1:04.3', '1:00.0')
    """
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def _wave(view: Done) -> str:
    bars = []
    for i, (height, label) in enumerate(zip(view.peaks, view.bar_labels, strict=True)):
        h = max(2.0, 44 * height)
        bars.append(
            f'<rect x="{i + 0.15:.2f}" y="{24 - h / 2:.1f}" width="0.7" height="{h:.1f}" rx="0.3" '
            f'fill="var(--ser-{EMOTIONS[label].key})"/>'
        )
    return (
        f'<svg class="ser-wave" viewBox="0 0 {N_BARS} 48" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(bars)}</svg><div class="ser-rest"></div>'
    )


def _strip(view: Done, words: Words) -> str:
    total = max(view.duration_s, 1e-6)
    cells = []
    for segment in view.segments:
        e = segment.prediction.emotion
        left, width = 100 * segment.start_s / total, 100 * (segment.end_s - segment.start_s) / total
        ink = e.ink if e.ink == "#FFFFFF" else "#000000"  # the palette's dark ink has only 4.3:1 on angry
        cells.append(
            f'<button type="button" tabindex="-1" title="{escape(_said(segment, words))}" '
            f'style="left:{left:.3f}%;width:{width:.3f}%;background:{e.colour};color:{ink}">'
            f'<i aria-hidden="true">{e.emoji}</i><span>{escape(e.name(words.lang))}</span></button>'
        )
    return f'<div class="ser-strip">{"".join(cells)}</div>'


def _said(segment: Segment, words: Words) -> str:
    e = segment.prediction.emotion
    return (
        f"{clock(segment.start_s)} - {clock(segment.end_s)} {e.emoji} {e.name(words.lang)} "
        f"{100 * segment.prediction.confidence:.1f} %"
    )


def _axis(duration_s: float) -> str:
    step = next((s for s in (1, 2, 5, 10, 15, 30, 60, 120, 300) if duration_s / s <= 7), 600)
    ticks = (
        "".join(
            f'<span style="left:{100 * t / duration_s:.2f}%">{t // 60}:{t % 60:02d}</span>'
            for t in range(0, int(0.94 * duration_s) + 1, step)
        )
        if duration_s >= 1
        else ""
    )
    return f'<div class="ser-axis" aria-hidden="true">{ticks}</div>'


def _more(view: Done, words: Words) -> str:
    """Segments as a list (the timeline for keyboards and screen readers) and the scores over time."""
    rows = "".join(
        f'<li><button type="button" data-t="{s.start_s:.2f}"><em>{clock(s.start_s)} - {clock(s.end_s)}</em>'
        f'<i style="background:{s.prediction.emotion.colour}" aria-hidden="true"></i>'
        f"<span>{s.prediction.emotion.emoji} {escape(s.prediction.emotion.name(words.lang))}</span>"
        f"<b>{100 * s.prediction.confidence:.1f} %</b></button></li>"
        for s in view.segments[:MAX_LISTED]
    )
    more = len(view.segments) - MAX_LISTED
    rest = f'<p class="ser-hint">{escape(words("ser_more_segments", n=more))}</p>' if more > 0 else ""
    return (
        f"<details><summary>{escape(words('ser_segments', n=len(view.segments)))}</summary>"
        f'<ol class="ser-segments">{rows}</ol>{rest}</details>'
        f"<details><summary>{escape(words('ser_river'))}</summary>{_river(view, words)}</details>"
    )


def _river(view: Done, words: Words) -> str:
    """Nine scores over time, stacked: each height is a score."""
    if view.river is None:
        return ""
    n = len(view.river)
    x = np.linspace(0, 100, n) if n > 1 else np.array([0.0])
    tops = np.cumsum(view.river, axis=1)
    areas = []
    for k, emotion in enumerate(EMOTIONS):
        low = tops[:, k - 1] if k else np.zeros(n)
        up = [f"{a:.2f},{RIVER_HEIGHT * (1 - b):.2f}" for a, b in zip(x, tops[:, k], strict=True)]
        down = [f"{a:.2f},{RIVER_HEIGHT * (1 - b):.2f}" for a, b in zip(x[::-1], low[::-1], strict=True)]
        areas.append(
            f'<polygon points="{" ".join(up + down)}" fill="{emotion.colour}">'
            f"<title>{emotion.emoji} {escape(emotion.name(words.lang))}</title></polygon>"
        )
    present = [e for e, top in zip(EMOTIONS, view.river.max(axis=0), strict=True) if top >= 0.05]
    legend = "".join(
        f'<li><i style="background:{e.colour}"></i>{e.emoji} {escape(e.name(words.lang))}</li>' for e in present
    )
    return (
        f'<div class="ser-seek ser-river" data-seek><svg viewBox="0 0 100 {RIVER_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{escape(words("ser_river"))}">{"".join(areas)}</svg><div class="ser-head"></div></div>'
        f'<ul class="ser-legend">{legend}</ul>'
    )
