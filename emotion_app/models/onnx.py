"""``models export`` and ``engine=onnx``: a model as one ONNX file, checked against torch when it is written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from emotion_app.errors import ModelError, StoreError
from emotion_app.models import FrameArrays, FrameModel, WindowPlan
from emotion_app.models.scale import Scale, Scaled, standardise
from emotion_app.notes import Note
from emotion_app.settings import Settings
from emotion_app.types import EXCLUDED_LOGIT, BaselineRule, Floats, ModelInfo

if TYPE_CHECKING:
    import onnx

    from emotion_app.models.weights import Checkpoint

Kind = Literal["fp32", "fp16", "int8"]
GRAPHS = 5  # counts changes of graphs and window plans: files written before are written anew
KINDS: tuple[Kind, ...] = ("fp32", "fp16", "int8")
ALLOWED: dict[str, float] = {"fp32": 1e-4, "fp16": 0.02, "int8": 0.15}  # largest score difference to torch in fp32
PLAN = WindowPlan(whole_s=40.0, body_s=27.0, context_s=3.0)  # the attention matrix is written out: 260 MB at 40 s
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}


@dataclass(frozen=True)
class Exported:
    """A written file: its size, and the largest score difference to torch over the trial clips."""

    path: Path
    kind: str
    size_mb: float
    difference: float


class OnnxModel(Scaled):
    """An exported model behind the FrameModel contract.

    Args:
        session: onnxruntime's InferenceSession.
        info: what to say about it.
        scale: whole-clip normalisation.
        plan: how long clips are cut.
        rule: numbers of the baseline rule, when the model has a reference head.
        notes: what a reader of its results must know.
    """

    def __init__(
        self,
        session: Any,
        info: ModelInfo,
        scale: Callable[[Floats], Scale],
        plan: WindowPlan,
        rule: BaselineRule | None = None,
        notes: tuple[Note, ...] = (),
    ) -> None:
        self.info = info
        self.notes = notes
        self.plan = plan
        self.baseline_rule = rule
        self._session = session
        self._scale = scale
        self._names = [output.name for output in session.get_outputs()]

    def scale(self, samples: Floats) -> Scale:
        """Whole-clip normalisation."""
        return self._scale(samples)

    def forward(self, waves: Sequence[Floats]) -> list[FrameArrays]:
        """Frames of prepared waves, one by one: the graph takes one clip."""
        return [FrameArrays(**self.run(wave, normalize=False)) for wave in waves]

    def run(self, samples: Floats, normalize: bool) -> dict[str, Floats]:
        """The file's outputs by name; with ``normalize`` it does the whole-clip normalisation itself."""
        feed = {"waveform": np.ascontiguousarray(samples), "normalize": np.array(normalize, dtype=np.float32)}
        return dict(zip(self._names, self._session.run(None, feed), strict=True))

    def batch_limit(self, n_samples: int) -> int:
        """Always 1."""
        return 1


def export_model(name: str, settings: Settings, target: Path, kind: Kind = "fp32") -> Exported:
    """Write ``name`` as one ONNX file and compare it with torch.

    Args:
        name: as ``loader.load_model`` takes it; ``auto`` takes what is here.
        target: the file, or a directory that gets ``<name>.<kind>.onnx``.

    Raises:
        ModelError: MODEL_MISSING, ENGINE_UNAVAILABLE without onnx, MODEL_BROKEN when the file differs too much.
        StoreError: CANNOT_SAVE, DISK_FULL.
    """
    from emotion_app.models import loader, weights

    if kind not in KINDS:
        raise ModelError("ENGINE_UNAVAILABLE", engine="onnx", reason=f"precision {kind}: choose {', '.join(KINDS)}")
    choice = loader.resolve(name, settings)
    if target.is_dir():
        target = target / f"{choice.name.replace('/', '--')}.{kind}.onnx"
    if choice.family == "lite":
        return _export_lite(settings, target, kind)
    source = choice.directory or loader.model_path(choice.name, settings)
    checkpoint = weights.convert(source, settings.models_dir, choice.name)
    return _export_checkpoint(checkpoint, settings, target, kind)


def load_onnx(checkpoint: Checkpoint, settings: Settings) -> OnnxModel:
    """Run a checkpoint with onnxruntime; its ONNX file is written beside the converted weights at the first use."""
    kind = _kind(settings)
    path = checkpoint.directory / f"model-{GRAPHS}.{kind}.onnx"
    if not path.is_file():
        _export_checkpoint(checkpoint, settings, path, kind)
    return open_onnx(path, settings)


def load_onnx_lite(settings: Settings) -> OnnxModel:
    """The embedded model with onnxruntime."""
    from emotion_app.models.lite import read_lite

    kind, version = _kind(settings), read_lite().info.sha256 or "0"
    path = settings.models_dir / "onnx" / f"lite-{version[:16]}-{GRAPHS}.{kind}.onnx"
    if not path.is_file():
        _export_lite(settings, path, kind)
    return open_onnx(path, settings)


def open_onnx(path: Path, settings: Settings) -> OnnxModel:
    """Open a file that ``export_model`` wrote, on the provider that ``settings.device`` names.

    Raises:
        ModelError: ENGINE_UNAVAILABLE without onnxruntime or the provider, MODEL_BROKEN for another file.
    """
    session, device = _session(path, settings)
    try:
        facts = json.loads(session.get_modelmeta().custom_metadata_map["emotion_app"])
        info = ModelInfo(
            **(facts["info"] | {"labels": tuple(facts["info"]["labels"]), "engine": "onnx", "device": device})
        )
        normalize, plan = bool(facts["normalize"]), WindowPlan(*facts["plan"])
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(
            "MODEL_BROKEN", name=path.name, reason="it was not written by emotion-app models export"
        ) from error
    notes = ()
    if settings.precision == "bf16":
        reason = "the onnx engine has fp32, fp16 and int8"
        notes = (Note("precision", {"precision": info.precision, "wanted": "bf16", "reason": reason}),)
    if info.family == "lite":
        from emotion_app.models.lite import load_lite

        lite = load_lite(0)
        return OnnxModel(session, info, lite.scale, plan, lite.baseline_rule, notes)
    return OnnxModel(session, info, standardise if normalize else _as_it_is, plan, None, notes)


def _session(path: Path, settings: Settings) -> tuple[Any, str]:
    from emotion_app.models.loader import thread_count

    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ModelError(
            "ENGINE_UNAVAILABLE", engine="onnx", reason="install it: pip install onnx onnxruntime"
        ) from error
    available = ort.get_available_providers()
    wanted, _, number = settings.device.partition(":")
    if wanted == "auto":
        wanted = "cuda" if "CUDAExecutionProvider" in available else "cpu"
    if wanted not in PROVIDERS or PROVIDERS[wanted][0] not in available:
        reason = f"device {settings.device}: this onnxruntime has {', '.join(available)}"
        raise ModelError("ENGINE_UNAVAILABLE", engine="onnx", reason=reason)
    options = ort.SessionOptions()
    options.intra_op_num_threads = thread_count(settings)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave idle cores to others
    options.log_severity_level = 3
    place = {"device_id": number or "0"}
    providers = [p if p.startswith("CPU") else (p, place) for p in PROVIDERS[wanted] if p in available]
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise ModelError("MODEL_BROKEN", name=path.name, reason=" ".join(str(error).split())[:300]) from error
    return session, "cpu" if wanted == "cpu" else f"{wanted}:{number or 0}"


def _export_checkpoint(checkpoint: Checkpoint, settings: Settings, target: Path, kind: Kind) -> Exported:
    from emotion_app.models import weights
    from emotion_app.models.emotion2vec import Emotion2vec
    from emotion_app.models.onnx_networks import emotion2vec_graph

    state = weights.load_state(checkpoint, "fp32")
    record = checkpoint.record
    info = ModelInfo(
        name=record.name, family="emotion2vec", source=record.source, engine="torch", precision="fp32", device="cpu",
        dim=checkpoint.config.dim, revision=record.revision, sha256=record.sha256, labels=weights.labels_of(checkpoint),
    )  # fmt: skip
    arrays = {key: tensor.numpy() for key, tensor in state.items()}
    facts = _facts(replace(info, precision=kind), PLAN, checkpoint.config.normalize)
    model = emotion2vec_graph(checkpoint.config, checkpoint.rows, arrays, kind == "fp16", facts)
    return _write(model, target, kind, settings, Emotion2vec(checkpoint.config, checkpoint.rows, state, info))


def _export_lite(settings: Settings, target: Path, kind: Kind) -> Exported:
    from emotion_app.models.lite import PLAN, LiteModel, read_lite
    from emotion_app.models.onnx_networks import lite_graph

    lite = read_lite()
    facts = _facts(replace(lite.info, precision=kind), PLAN, True)
    model = lite_graph(lite, kind == "fp16", facts)
    return _write(model, target, kind, settings, LiteModel(lite))


def _facts(info: ModelInfo, plan: WindowPlan, normalize: bool) -> dict[str, str]:
    content = {"info": asdict(info), "plan": [plan.whole_s, plan.body_s, plan.context_s], "normalize": normalize}
    return {"emotion_app": json.dumps(content)}


def _write(model: onnx.ModelProto, target: Path, kind: Kind, settings: Settings, torch_model: FrameModel) -> Exported:
    """Save aside, quantise if asked, compare with torch, and only then give it its name."""
    import onnx

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as aside:
            path = Path(aside) / "model.onnx"
            onnx.save(model, path)
            if kind == "int8":
                path = _quantise(path)
            on_cpu = settings.model_copy(update={"device": "cpu"})
            difference = _difference(open_onnx(path, on_cpu), torch_model)
            if not difference <= ALLOWED[kind]:
                reason = f"the {kind} file differs from torch by {difference:.4f} (allowed: {ALLOWED[kind]})"
                raise ModelError("MODEL_BROKEN", name=target.name, reason=reason)
            size_mb = path.stat().st_size / 1e6
            os.replace(path, target)
    except OSError as error:
        if error.errno == 28:  # ENOSPC
            free_mb = shutil.disk_usage(target.parent).free / 1e6
            raise StoreError("DISK_FULL", free_mb=free_mb, path=str(target.parent)) from error
        raise StoreError("CANNOT_SAVE", reason=f"{target}: {error.strerror or error}") from error
    return Exported(target, kind, size_mb, difference)


def _quantise(path: Path) -> Path:
    """Matrix weights as int8 with a scale a column, activations at run time; convolutions, mels and heads stay fp32."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from emotion_app.models.onnx_graph import EXACT

    keep = [node.name for node in onnx.load(path).graph.node if node.name.startswith(EXACT)]
    small = path.with_name("int8.onnx")
    quantize_dynamic(
        path,
        small,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=keep,
        extra_options={"MatMulConstBOnly": True},
    )
    return small


def _difference(ours: OnnxModel, torch_model: FrameModel) -> float:
    """Largest score difference over the trial clips, once prepared by us and once by the file itself."""
    from emotion_app.models.precision import trial_clips

    largest = 0.0
    for clip in trial_clips(Path("none")):
        expected = _softmax(torch_model.forward([torch_model.prepare(clip)])[0].logits)
        by_us, by_itself = ours.forward([ours.prepare(clip)])[0].logits, ours.run(clip, normalize=True)["logits"]
        largest = max([largest, *(float(np.abs(_softmax(x) - expected).max()) for x in (by_us, by_itself))])
    return largest


def _kind(settings: Settings) -> Kind:
    return settings.precision if settings.precision in ("fp16", "int8") else "fp32"


def _as_it_is(samples: Floats) -> Scale:
    return Scale()


def _softmax(logits: Floats) -> Floats:
    mean = np.where(logits[0] == EXCLUDED_LOGIT, -np.inf, logits.mean(0, dtype=np.float64))
    e = np.exp(mean - mean.max())
    return e / e.sum()
