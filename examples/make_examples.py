"""Make the example clips with espeak-ng: synthetic speech in a speaking style, in Chinese and English.

    sudo apt-get install espeak-ng
    python examples/make_examples.py            # writes examples/clips/*.flac and clips.json

A style is pitch, pitch range, speed and loudness only. What a model says about such a clip is not known beforehand,
so the names tell the style and never an emotion label.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from emotion_app.audio import load
from emotion_app.settings import Limits
from emotion_app.types import SAMPLE_RATE, Floats

CLIPS = Path(__file__).parent / "clips"
EDGE_S = 0.15  # silence kept before and after the speech
GAP_S = 0.35  # between the parts of the long clip
SPEECH_LEVEL = 10 ** (-50 / 20)  # quieter is edge silence
# espeak-ng language + variant. Not "cmn": in 1.51 it reads a character as English ("jin one" for jin1).
VOICES = {
    ("zh", "female"): "cmn-latn-pinyin+f2", ("zh", "male"): "cmn-latn-pinyin+m3",
    ("en", "female"): "en-us+f4", ("en", "male"): "en-us+m7",
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How to speak: espeak-ng's pitch (0-99, 50 usual), SSML range in %, words a minute, and the peak in dBFS."""

    pitch: int
    range_percent: int
    words_per_minute: int
    peak_dbfs: float
    zh: str
    en: str


@dataclass(frozen=True)
class Example:
    """One entry of clips.json."""

    file: str
    language: str
    style: str
    voice: str
    title_zh: str
    title_en: str
    duration_s: float


STYLES = {
    "cheerful": Style(68, 170, 185, -4, "欢快", "cheerful"),
    "sad_slow": Style(28, 45, 105, -14, "低沉缓慢", "sad and slow"),
    "angry_fast_loud": Style(48, 150, 235, -1, "急促响亮", "angry, fast and loud"),
    "calm_neutral": Style(45, 80, 155, -8, "平静", "calm, neutral"),
    "surprised": Style(82, 200, 175, -4, "惊讶", "surprised"),
    "fearful": Style(74, 60, 215, -12, "紧张害怕", "fearful"),
}
LINES = {  # (language, voice, style): what is said
    ("zh", "female", "cheerful"): "太好了！今天阳光真灿烂，我们去公园玩吧！",
    ("zh", "male", "sad_slow"): "他走了以后，房间里空荡荡的。",
    ("zh", "male", "angry_fast_loud"): "我已经说过三遍了！你为什么就是不听？马上停下来！",
    ("zh", "female", "calm_neutral"): "明天上午九点，我们在二楼会议室开会。",
    ("zh", "female", "surprised"): "啊？真的吗？我完全没有想到你会来！",
    ("zh", "male", "fearful"): "小声一点，外面好像有人，门把手刚才动了一下。",
    ("en", "female", "cheerful"): "This is wonderful news! Come on, let us celebrate together in the garden!",
    ("en", "male", "sad_slow"): "She left in the autumn, and the house went quiet.",
    ("en", "male", "angry_fast_loud"): "I told you three times already! Why do you never listen? Stop this right now!",
    ("en", "male", "calm_neutral"): "The meeting starts at nine o'clock in the room on the second floor.",
    ("en", "female", "surprised"): "Oh! Really? I never expected to see you here today!",
    ("en", "female", "fearful"): "Be quiet, I think somebody is outside, the door handle just moved again.",
}
CHANGING = (  # the long clip: one voice, four styles
    ("calm_neutral", "我来说说今天的事情。上午一切照旧，没有什么特别的。"),
    ("cheerful", "然后我收到一封信，我被录取了！"),
    ("angry_fast_loud", "可是他们居然把我的名字写错了！打电话也没有人接！"),
    ("sad_slow", "现在天黑了，只剩我一个人。"),
)


def main() -> None:
    """Write every clip and the list of them."""
    CLIPS.mkdir(exist_ok=True)
    examples = []
    for (language, voice, style), words in LINES.items():
        sound = speak(words, VOICES[language, voice], STYLES[style])
        examples.append(write(sound, language, voice, style, STYLES[style].zh, STYLES[style].en))
    gap = np.zeros(round(GAP_S * SAMPLE_RATE), np.float32)
    parts = [part for style, words in CHANGING for part in (speak(words, VOICES["zh", "female"], STYLES[style]), gap)]
    sound = np.concatenate(parts[:-1])
    examples.append(write(sound, "zh", "female", "changing", "平静→欢快→急促→低沉", "calm, cheerful, angry, then sad"))
    listed = json.dumps([asdict(example) for example in examples], ensure_ascii=False, indent=2)
    (CLIPS / "clips.json").write_text(listed + "\n", encoding="utf-8")


def speak(words: str, voice: str, style: Style) -> Floats:
    """``words`` as (n,) float32 at 16 kHz, edges trimmed, peak as the style wants it."""
    ssml = f'<speak><prosody range="{style.range_percent}%">{words}</prosody></speak>'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        subprocess.run(
            ["espeak-ng", "-m", "-v", voice, "-p", str(style.pitch), "-s", str(style.words_per_minute),
             "-w", str(path), ssml],
            check=True,
        )  # fmt: skip
        samples = load(path, limits=Limits()).samples
    samples = samples * np.float32(10 ** (style.peak_dbfs / 20) / np.abs(samples).max())
    loud = np.flatnonzero(np.abs(samples) > SPEECH_LEVEL)
    edge = round(EDGE_S * SAMPLE_RATE)
    return np.pad(samples[loud[0] : loud[-1] + 1], edge)


def write(sound: Floats, language: str, voice: str, style: str, zh: str, en: str) -> Example:
    """One FLAC file (16 kHz, mono, 16 bits) and its entry."""
    name = f"synthetic_{language}_{voice}_{style}.flac"
    whole = np.rint(sound * 32_767).astype(np.int16)[None]
    with av.open(str(CLIPS / name), "w", format="flac") as file:
        stream = file.add_stream("flac", rate=SAMPLE_RATE, layout="mono", options={"compression_level": "12"})
        stream.codec_context.open()
        size = stream.codec_context.frame_size
        for start in range(0, whole.shape[1], size):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(whole[:, start : start + size]), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    names = {"zh": ("中文", "Chinese"), "en": ("英文", "English"), "female": ("女声", "female"),
             "male": ("男声", "male")}  # fmt: skip
    return Example(
        file=name,
        language=language,
        style=style,
        voice=voice,
        title_zh=f"合成{names[language][0]}{names[voice][0]} · {zh}",
        title_en=f"Synthetic {names[language][1]}, {names[voice][1]} · {en}",
        duration_s=round(len(sound) / SAMPLE_RATE, 2),
    )


if __name__ == "__main__":
    main()
