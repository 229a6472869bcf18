"""Speech emotion recognition with Emotion2Vec+ Large.

Names are loaded when first used, so that ``import emotion_app`` pulls in neither torch nor gradio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion_app.analyzer import Analyzer, Options, analyze
    from emotion_app.baseline import Baseline
    from emotion_app.baseline_files import BaselineStore
    from emotion_app.errors import EmotionError
    from emotion_app.models.loader import load_model
    from emotion_app.settings import Limits, Settings
    from emotion_app.types import Adjusted, Prediction, Result, Segment, Timeline, Waveform

__version__ = "0.1.0"
__all__ = [
    "Adjusted",
    "Analyzer",
    "Baseline",
    "BaselineStore",
    "EmotionError",
    "Limits",
    "Options",
    "Prediction",
    "Result",
    "Segment",
    "Settings",
    "Timeline",
    "Waveform",
    "analyze",
    "load_model",
]

_HOMES = {
    "Analyzer": "analyzer",
    "Options": "analyzer",
    "analyze": "analyzer",
    "Baseline": "baseline",
    "BaselineStore": "baseline_files",
    "EmotionError": "errors",
    "load_model": "models.loader",
    "Limits": "settings",
    "Settings": "settings",
    "Adjusted": "types",
    "Prediction": "types",
    "Result": "types",
    "Segment": "types",
    "Timeline": "types",
    "Waveform": "types",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emotion_app' has no attribute {name!r}")
    return getattr(import_module(f"emotion_app.{_HOMES[name]}"), name)
