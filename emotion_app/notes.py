"""Quality notes: what a listener should know about a clip or a result, in words (zh and en).

A note never stops an analysis; an error does (see ``errors``). ``severity`` tells the page how loud to be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from emotion_app.labels import Lang

Severity = Literal["info", "warning"]

_TEXTS: dict[str, tuple[Severity, str, str]] = {
    # code: (severity, en, zh)
    "too_short": (
        "warning",
        "Only {duration_s:.2f} s of sound; 1 s or more is needed for a reliable answer",
        "只有 {duration_s:.2f} 秒声音；至少 1 秒结果才可靠",
    ),
    "long": (
        "info",
        "{duration_s:.0f} s is long for one sentence: look at the timeline, not only at the overall emotion",
        "{duration_s:.0f} 秒对一句话来说偏长：请看时间线，不要只看整体情感",
    ),
    "clipped": (
        "warning",
        "The recording is overdriven (clipped): {share:.1%} of the samples",
        "录音过载（削波）：{share:.1%} 的采样点",
    ),
    "silent": ("warning", "There is no sound in this clip, only silence", "这段音频没有声音，只有静音"),
    "quiet": ("info", "The recording is very quiet ({level_db:.0f} dBFS)", "录音音量很低（{level_db:.0f} dBFS）"),
    "truncated": (
        "warning",
        "The file is damaged or cut off; {decoded_s:.1f} s could be read",
        "文件损坏或不完整；只读到 {decoded_s:.1f} 秒",
    ),
    "mixed_down": ("info", "{channels} channels were mixed down to one", "{channels} 个声道已混合为单声道"),
    "channels_cancel": (
        "warning",
        "The channels cancel each other out when mixed: one channel was used",
        "声道混合后相互抵消：只使用了一个声道",
    ),
    "narrow_band": (
        "info",
        "Low sampling rate ({sample_rate} Hz): telephone quality",
        "采样率较低（{sample_rate} Hz）：电话音质",
    ),
    "video": ("info", "The sound track of a video was used", "使用了视频中的声音"),
    "several_tracks": ("info", "{tracks} sound tracks: the first was used", "有 {tracks} 条音轨：使用了第一条"),
    "scaled": (
        "info",
        "Samples beyond full scale (peak {peak:.2f}) were scaled down",
        "超出满幅的采样（峰值 {peak:.2f}）已按比例缩小",
    ),
    "non_finite": (
        "warning",
        "{count} samples were not numbers and were set to 0",
        "{count} 个采样点不是数值，已置为 0",
    ),
    "embedded_model": (
        "warning",
        "Answered by the small embedded model, not by Emotion2Vec+ Large: {reason}",
        "由内置小模型作答，而不是 Emotion2Vec+ Large：{reason_zh}",
    ),
    "windowed": (
        "info",
        "Computed in windows of {window_s:g} s with {context_s:g} s of context on each side",
        "按 {window_s:g} 秒分窗计算，两侧各带 {context_s:g} 秒上下文",
    ),
    "precision": (
        "info",
        "Computed in {precision} instead of {wanted}: {reason}",
        "以 {precision} 计算，而不是 {wanted}：{reason}",
    ),
    "oom": ("warning", "Memory ran out: {step}", "内存不足：{step_zh}"),
    "charts_skipped": ("warning", "No charts in this folder: {reason}", "本文件夹没有图表：{reason}"),
    "low_margin": ("info", "Two emotions are close: {first} and {second}", "两种情感接近：{first_zh} 和 {second_zh}"),
    "baseline_used": (
        "info",
        "Shown are the scores adjusted to the speaker's baseline {name} ({count} clips, taken as {share:.0%} neutral); "
        "the plain scores are kept beside them",
        "显示的是按说话人基线 {name}（{count} 段，假定中性占 {share:.0%}）调整后的得分；未调整的得分一并保留",
    ),
    "baseline_short": (
        "warning",
        "The baseline {name} has {count} clips; at least {min_clips} are needed, so the plain scores are shown",
        "基线 {name} 只有 {count} 段；至少需要 {min_clips} 段，因此显示未调整的得分",
    ),
    "not_saved": ("info", "Nothing was saved for this result", "此结果未保存"),
}


@dataclass(frozen=True)
class Note:
    """One remark with its facts.

    >>> Note("mixed_down", {"channels": 2}).text("en")
    '2 channels were mixed down to one'
    """

    code: str
    facts: dict[str, float | int | str] = field(default_factory=dict)

    @property
    def severity(self) -> Severity:
        """``warning`` when the answer itself may be wrong because of it, else ``info``."""
        return _TEXTS[self.code][0]

    def text(self, lang: Lang) -> str:
        """The remark in words."""
        _, en, zh = _TEXTS[self.code]
        return (zh if lang == "zh" else en).format(**self.facts)


def known_codes() -> tuple[str, ...]:
    """Every note code there is, for tests and for the API description."""
    return tuple(_TEXTS)
