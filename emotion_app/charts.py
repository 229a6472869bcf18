"""Pictures of a result for its folder: nine bars, and the emotions over time. The page draws its own charts.

matplotlib without pyplot: nothing is shared between threads, and it is imported at the first picture only (over a
second). Sizes are in CSS px; files have twice as many pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emotion_app.labels import EMOTIONS, Lang
from emotion_app.types import SAMPLE_RATE, Floats, Prediction, Result, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg

Doubles = NDArray[np.float64]

CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Noto Sans CJK JP", "PingFang SC",
    "Hiragino Sans GB", "STHeiti", "Heiti SC", "Heiti TC", "Microsoft YaHei", "SimHei", "DengXian",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "AR PL UMing CN", "AR PL UKai CN",
    "Arial Unicode MS", "SimSun",
)  # the system's, in order of liking; none is shipped
LATIN_FONT = "DejaVu Sans"  # comes with matplotlib
INK, SOFT, LINE, CARD, WAVE = "#1c1d1f", "#6b6f76", "#e7e7e3", "#ffffff", "#b9bdc6"
MIN_PEAK = 0.15  # a class that never gets this far is drawn thin and is not in the legend
MAX_COLUMNS = 1_600  # columns of a timeline; more could not be seen
_STEPS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_WORDS = {
    "zh": {"then": "其次", "score": "得分", "note": "得分为未经校准的 softmax", "smooth": "平滑 {window} 秒",
           "low": "其余低于 {peak} %",
           "confusion": "行为标注，列为回答，单位为每行的百分比"},
    "en": {"then": "then", "score": "score", "note": "scores are uncalibrated softmax",
           "smooth": "smoothed over {window} s", "low": "others stay below {peak} %",
           "confusion": "rows are labels, columns are answers, per cent of each row"},
}


def warm() -> None:
    """Import matplotlib now (over a second), so that the first saved result does not wait for it."""
    import matplotlib.figure  # noqa: F401


def scores_png(prediction: Prediction, lang: Lang) -> bytes:
    """The nine scores as bars in the model's order, 1280 x 860 pixels.

    Args:
        prediction: of an utterance, a segment, a speaker.
        lang: of the words; English when the system has no Chinese font.
    """
    sheet = _Sheet.make(640, 430, lang)
    sheet.headline(prediction, "")
    for row, (emotion, score) in enumerate(zip(EMOTIONS, prediction.scores, strict=True)):
        y = 118 + row * 31
        first = emotion is prediction.emotion
        sheet.write(32, y, emotion.name(sheet.lang), 14, INK if first else SOFT, bold=first)
        sheet.bar(150, y - 5, 390, 10, LINE)
        sheet.bar(150, y - 5, 390 * float(score), 10, emotion.colour)
        sheet.write(608, y, _percent(score), 14, INK if first else SOFT, bold=first, right=True)
    sheet.write(608, 406, sheet.words["note"], 11, SOFT, right=True)
    return sheet.png()


def timeline_png(result: Result, lang: Lang) -> bytes:
    """Sound, segments and smoothed scores over time, 1920 x 1080 pixels.

    Args:
        result: of frame granularity.
        lang: of the words; English when the system has no Chinese font.

    Raises:
        ValueError: the result has no timeline.
    """
    if result.timeline is None:
        raise ValueError("only a result of frame granularity has a timeline")
    sheet = _Sheet.make(960, 540, lang)
    duration_s = max(result.waveform.duration_s, result.timeline.end_s)
    length = f"{duration_s:.2f} s" if duration_s < 60 else _clock(duration_s, 1)
    sheet.headline(result.prediction, f"{_short(result.waveform.name)} · {length} · {result.model.name}")
    _draw_sound(sheet.panel(74, 100, 854, 62, duration_s), result.waveform.samples, duration_s)
    _draw_segments(sheet, result, duration_s)
    _draw_scores(sheet, result.timeline, duration_s)
    note = sheet.words["smooth"].format(window=f"{result.timeline.window_s:g}")
    sheet.write(928, 512, f"{note} · {sheet.words['note']}", 11, SOFT, right=True)
    return sheet.png()


def confusion_png(counts: Doubles, title: str, lang: Lang) -> bytes:
    """A confusion matrix: rows are the labels that occur, columns the answers, shares of each row in percent.

    Args:
        counts: (9, 9), rows labels, columns answers; classes without any clip or answer are left out.
        title: over it, e.g. corpus and model.
        lang: of the words; English when the system has no Chinese font.
    """
    rows, columns = np.flatnonzero(counts.sum(axis=1)), np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    left, top, size = 170, 120, 64
    width = max(left + size * len(columns) + 110, 480)
    sheet = _Sheet.make(width, top + size * len(rows) + 60, lang)
    sheet.write(32, 36, title, 16, INK, bold=True)
    sheet.write(32, 62, sheet.words["confusion"], 12, SOFT)
    for x, column in enumerate(columns):
        sheet.write(left + (x + 0.5) * size, top - 18, EMOTIONS[column].name(sheet.lang), 11, SOFT, centre=True)
    for y, row in enumerate(rows):
        middle = top + (y + 0.5) * size
        sheet.write(left - 14, middle, EMOTIONS[row].name(sheet.lang), 13, INK, right=True)
        sheet.write(left + size * len(columns) + 16, middle, f"n = {counts[row].sum():.0f}", 11, SOFT)
        for x, column in enumerate(columns):
            share = float(counts[row, column] / counts[row].sum())
            sheet.cell(left + x * size, top + y * size, size, EMOTIONS[row].colour if row == column else INK, share)
            sheet.write(left + (x + 0.5) * size, middle, f"{100 * share:.0f}", 14, INK, centre=True, bold=row == column)
    return sheet.png()


def result_charts(result: Result, lang: Lang = "en") -> dict[str, bytes]:
    """The pictures that belong into the folder of ``result``, by file name, as ``Store.save`` takes them.

    They show what is to be shown: with a speaker's baseline the adjusted scores, with its name beside the model's.
    """
    if (judged := result.adjusted) is not None:
        model = replace(result.model, name=f"{result.model.name} + {judged.baseline}")
        result = replace(result, prediction=judged.prediction, timeline=judged.timeline, frames=judged.frames,
                         segments=judged.segments, model=model, adjusted=None)
    charts = {"scores.png": scores_png(result.prediction, lang)}
    if result.timeline is not None:
        charts["timeline.png"] = timeline_png(result, lang)
    return charts


@dataclass(frozen=True, eq=False)
class _Sheet:
    """A white card measured in CSS px from its upper left corner."""

    canvas: FigureCanvasAgg
    axes: Axes
    lang: Lang
    fonts: tuple[str, ...]
    letters: frozenset[int]  # that these fonts have
    width: float
    height: float

    @classmethod
    def make(cls, width: float, height: float, lang: Lang) -> _Sheet:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        cjk = _cjk_font()
        figure = Figure(figsize=(width / 100, height / 100), dpi=200, facecolor=CARD)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        axes.set_zorder(5)  # words stand on the panels, not under them
        fonts = (cjk, LATIN_FONT) if cjk else (LATIN_FONT,)
        canvas = FigureCanvasAgg(figure)
        letters = frozenset[int]().union(*(_letters(font) for font in fonts))
        return cls(canvas, axes, "zh" if lang == "zh" and cjk else "en", fonts, letters, width, height)

    @property
    def words(self) -> dict[str, str]:
        return _WORDS[self.lang]

    def write(self, x: float, y: float, text: str, size: float, colour: str, *, bold: bool = False,
              right: bool = False, centre: bool = False) -> float:
        """Text centred on ``y``; characters that no font has are left out. Returns where it ends."""
        style: dict[str, Any] = {"fontfamily": list(self.fonts), "fontweight": "bold" if bold else "normal"}
        drawn = self.axes.text(
            x, y, _drawable(text, self.letters), fontsize=size * 0.72, color=colour, va="center_baseline",
            ha="right" if right else "center" if centre else "left", parse_math=False, **style,
        )
        return float(drawn.get_window_extent(self.canvas.get_renderer()).x1) / 2  # the canvas keeps its renderer

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A bar with round ends."""
        from matplotlib.patches import FancyBboxPatch

        if width > 0:
            round_ = f"round,pad=0,rounding_size={min(height, width) / 2}"
            self.axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=round_, facecolor=colour, linewidth=0))

    def cell(self, x: float, y: float, size: float, colour: str, share: float) -> None:
        """A square, the fuller the larger ``share``; never so dark that ink on it cannot be read."""
        from matplotlib.patches import Rectangle

        self.axes.add_patch(Rectangle((x, y), size - 2, size - 2, facecolor=LINE, alpha=0.35, linewidth=0))
        self.axes.add_patch(Rectangle((x, y), size - 2, size - 2, facecolor=colour, alpha=0.6 * share, linewidth=0))

    def headline(self, prediction: Prediction, right: str) -> None:
        """Emotion and score, runner-up below, and a remark on the right."""
        (first, score), (second, next_score) = prediction.top(2)
        self.bar(32, 30, 6, 46, first.colour)
        end = self.write(50, 42, first.name(self.lang), 24, INK, bold=True)
        self.write(end + 12, 43, f"{self.words['score']} {_percent(score)}", 16, SOFT)
        self.write(50, 69, f"{self.words['then']} {second.name(self.lang)} {_percent(next_score)}", 13, SOFT)
        self.write(self.width - 32, 43, right, 13, SOFT, right=True)

    def panel(self, x: float, y: float, width: float, height: float, duration_s: float) -> Axes:
        """An inner axis over time, without frame or ticks."""
        axes: Axes = self.canvas.figure.add_axes((x / self.width, 1 - (y + height) / self.height, width / self.width,
                                           height / self.height))
        axes.set(xlim=(0, duration_s), xticks=[], yticks=[], facecolor="none")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def png(self) -> bytes:
        target = io.BytesIO()
        self.canvas.print_png(target)
        return target.getvalue()


def _draw_sound(axes: Axes, samples: Floats, duration_s: float) -> None:
    """Envelope: the loudest sample of each column, mirrored, scaled to the loudest of all (no gain beyond 20 dB)."""
    edges = np.linspace(0, len(samples), min(MAX_COLUMNS, max(len(samples) // 32, 1)) + 1).astype(int)
    high = np.maximum.reduceat(np.abs(samples), edges[:-1]) if len(samples) else np.zeros(1)
    at_s, high = _to_the_edges((edges[:-1] + edges[1:]) / 2 / SAMPLE_RATE, high, duration_s)
    axes.fill_between(at_s, -high, high, color=WAVE, linewidth=0.4)
    top = max(float(high.max()), 0.1) * 1.02
    axes.set(xlim=(0, duration_s), ylim=(-top, top))


def _draw_segments(sheet: _Sheet, result: Result, duration_s: float) -> None:
    """The coloured band, with the word wherever it fits."""
    from matplotlib.colors import to_rgb

    x, y, width, height = 74, 172, 854, 30
    axes = sheet.panel(x, y, width, height, duration_s)
    columns = (np.arange(2 * width) + 0.5) / (2 * width) * duration_s
    ends = np.array([segment.end_s for segment in result.segments])
    which = np.minimum(np.searchsorted(ends, columns, side="right"), len(ends) - 1)
    colours = np.array([to_rgb(segment.prediction.emotion.colour) for segment in result.segments])
    axes.imshow(colours[which][None], extent=(0, duration_s, 0, 1), aspect="auto", interpolation="nearest")
    for segment in result.segments:
        emotion = segment.prediction.emotion
        name = emotion.name(sheet.lang)
        span = (segment.end_s - segment.start_s) / duration_s * width
        if span < 3:
            continue
        left = x + segment.start_s / duration_s * width
        if segment.start_s > 0 and span > 6:
            sheet.bar(left - 0.75, y, 1.5, height, CARD)
        need = 14 + sum(13.5 if ord(letter) > 0x2E80 else 8 for letter in name)
        if span >= need:
            sheet.write(left + span / 2, y + height / 2, name, 13, emotion.ink, centre=True)


def _draw_scores(sheet: _Sheet, timeline: Timeline, duration_s: float) -> None:
    """A line for each class, its grid, its clock, and a legend of those that matter."""
    x, y, width, height = 74, 222, 854, 220
    axes = sheet.panel(x, y, width, height, duration_s)
    axes.set(ylim=(0, 1.02))
    for share in (0, 0.25, 0.5, 0.75, 1):
        axes.axhline(share, color=LINE, linewidth=0.7, zorder=0)
        sheet.write(x - 10, y + height * (1 - share / 1.02), f"{100 * share:.0f} %", 11, SOFT, right=True)
    step_s = next((s for s in _STEPS_S if duration_s / s <= 12), _STEPS_S[-1])
    for tick in np.arange(0, duration_s + 1e-9, step_s):
        at = x + tick / duration_s * width
        sheet.bar(at - 0.4, y + height, 0.8, 5, WAVE)
        sheet.write(at, y + height + 16, _clock(tick, step_s), 11, SOFT, centre=True)
    at_s, scores = _to_the_edges(*_columns(timeline), duration_s)
    loud = scores.max(axis=0) >= MIN_PEAK
    for i, emotion in enumerate(EMOTIONS):
        if loud[i]:
            axes.fill_between(at_s, scores[:, i], color=emotion.colour, alpha=0.10, linewidth=0, zorder=1)
        axes.plot(at_s, scores[:, i], color=emotion.colour, linewidth=1.7 if loud[i] else 0.6,
                  alpha=1 if loud[i] else 0.45, solid_joinstyle="round", zorder=3 if loud[i] else 2)
    left: float = x
    for emotion in (e for e, shown in zip(EMOTIONS, loud, strict=True) if shown):
        sheet.bar(left, 479, 14, 6, emotion.colour)
        left = sheet.write(left + 20, 482, emotion.name(sheet.lang), 12.5, INK) + 20
    if not loud.all():
        sheet.write(left, 482, sheet.words["low"].format(peak=f"{100 * MIN_PEAK:.0f}"), 11, SOFT)


def _columns(timeline: Timeline) -> tuple[Doubles, Doubles]:
    """Times and scores, at most MAX_COLUMNS of them: means over equal stretches, which keeps the sum of the nine."""
    n = len(timeline.scores)
    edges = np.linspace(0, n, min(n, MAX_COLUMNS) + 1).astype(int)
    sums = np.add.reduceat(timeline.scores.astype(np.float64), edges[:-1], axis=0)
    at_s = timeline.start_s + (edges[:-1] + edges[1:]) / 2 * timeline.hop_s
    scores = sums / np.diff(edges)[:, None]
    return at_s, scores


def _to_the_edges(at_s: Doubles, values: Doubles, duration_s: float) -> tuple[Doubles, Doubles]:
    """Columns have their times in their middles; the first and the last value are held to 0 and the end."""
    return np.r_[0.0, at_s, duration_s], np.concatenate([values[:1], values, values[-1:]])


def _cjk_font() -> str | None:
    """The first of CJK_FONTS that this system has and that holds every word drawn here."""
    from matplotlib import font_manager

    here = {entry.name for entry in font_manager.fontManager.ttflist}
    needed = "".join([emotion.zh for emotion in EMOTIONS] + list(_WORDS["zh"].values()))
    return next((name for name in CJK_FONTS if name in here and set(map(ord, needed)) <= _letters(name)), None)


def _letters(font: str) -> frozenset[int]:
    from matplotlib import font_manager

    path = font_manager.findfont(font_manager.FontProperties(family=[font]))
    return frozenset(font_manager.get_font(path).get_charmap())


def _drawable(text: str, letters: frozenset[int]) -> str:
    return "".join(letter for letter in text if ord(letter) in letters and letter.isprintable())


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:26]}…{name[-13:]}"


def _percent(score: float) -> str:
    return f"{100 * score:.1f} %"


def _clock(time_s: float, step_s: float) -> str:
    """``m:ss``, with hours or tenths when needed; plain seconds for ticks closer than a tenth.

    >>> _clock(4, 1), _clock(4.5, 0.5), _clock(3720, 600), _clock(59.96, 0.1), _clock(0.06, 0.02)
    ('0:04', '0:04.5', '1:02:00', '1:00.0', '0.06')
    """
    if step_s < 0.1:
        return f"{time_s:.2f}"
    tenths = round(time_s * 10) if step_s < 1 else round(time_s) * 10
    minutes, rest = divmod(tenths, 600)
    seconds = f"{rest / 10:04.1f}" if step_s < 1 else f"{rest // 10:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds}" if minutes >= 60 else f"{minutes}:{seconds}"
