"""Result folders: contents, names from outside, faults of the disk, bounds."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import resource
import stat
import subprocess
import time
import wave
import zipfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion_app import folders, result_files, result_json
from emotion_app import store as store_module
from emotion_app.errors import RequestError, StoreError
from emotion_app.labels import KEYS
from emotion_app.notes import Note
from emotion_app.settings import Limits
from emotion_app.store import FILES, Store
from emotion_app.types import Prediction, Result, Timeline
from tests.results import CREATED, make_result

LIMITS = Limits(disk_free_mb=0)
SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "result.schema.json").read_text("utf-8"))
PNG = b"\x89PNG not looked into"


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "outputs", LIMITS)


def test_folder_of_an_utterance(store: Store) -> None:
    saved = store.save(make_result(frame=False), {"scores.png": PNG})
    assert saved.name == "outputs_20261121_213000"
    assert [f.name for f in saved.files] == ["result.json", "processed_audio.wav", "scores.png"]
    assert sorted(os.listdir(saved.path)) == sorted(f.name for f in saved.files)
    assert os.listdir(store.root) == [saved.name]
    assert (saved.path / "scores.png").read_bytes() == PNG


def test_folder_of_frames_and_embeddings(store: Store) -> None:
    saved = store.save(make_result(embedding=True), {"scores.png": PNG, "timeline.png": PNG})
    assert tuple(f.name for f in saved.files) == FILES
    result = make_result(embedding=True)
    np.testing.assert_array_equal(np.load(saved.path / "embedding.npy"), result.embedding)
    np.testing.assert_array_equal(np.load(saved.path / "frame_embeddings.npy"), result.frame_embeddings)


def test_the_five_known_keys(store: Store) -> None:
    result = make_result(frame=False)
    data = strict(store.save(result).files[0].read_text("utf-8"))
    assert list(data)[:5] == ["emotion", "confidence", "scores", "granularity", "timestamp"]
    assert data["emotion"] == result.prediction.label and data["granularity"] == "utterance"
    assert data["confidence"] == data["scores"][data["emotion"]] == max(data["scores"].values())
    assert list(data["scores"]) == list(KEYS) and abs(sum(data["scores"].values()) - 1) < 1e-6
    assert data["timestamp"] == "2026-11-21 21:30:00" and data["created"] == "2026-11-21T21:30:00.123+08:00"


@pytest.mark.parametrize("frame", [True, False])
@pytest.mark.parametrize("embedding", [True, False])
def test_result_json_fits_its_schema(frame: bool, embedding: bool) -> None:
    result = make_result(frame=frame, embedding=embedding)
    text = b"".join(result_json.encode(result)).decode()
    data = strict(text)
    jsonschema_rs.Draft202012Validator(SCHEMA, validate_formats=True).validate(data)
    assert text == b"".join(result_json.encode(result)).decode()  # the same bytes each time
    assert list(data) == list(SCHEMA["properties"]) == SCHEMA["required"]
    assert result_json.result_to_dict(result) == data
    if frame:
        rows = np.array(data["frames"]["scores"])
        np.testing.assert_allclose(rows, result.frames.scores, atol=1e-7)
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
        assert data["frames"]["labels"] == result.frames.labels
        assert data["segments"][-1]["end_s"] == data["duration_s"]


def test_the_schema_refuses_what_is_wrong() -> None:
    good = result_json.result_to_dict(make_result())
    validator = jsonschema_rs.Draft202012Validator(SCHEMA, validate_formats=True)
    for key, value in {"emotion": "joy", "confidence": 1.5, "scores": {}, "granularity": "word", "created": "today",
                       "timestamp": "2026-11-21T21:30", "schema_version": 0, "warnings": None}.items():
        assert not validator.is_valid({**good, key: value}), key
    for key in good:
        assert not validator.is_valid({k: v for k, v in good.items() if k != key}), key


def test_open_gives_the_result_back(store: Store) -> None:
    result = make_result(embedding=True, notes=(Note("quiet", {"level_db": -60.5}), Note("video")))
    again = store.open(store.save(result).name)
    np.testing.assert_allclose(again.prediction.scores, result.prediction.scores, atol=1e-8)
    np.testing.assert_allclose(again.frames.scores, result.frames.scores, atol=1e-7)
    np.testing.assert_allclose(again.timeline.scores, result.timeline.scores, atol=1e-7)
    np.testing.assert_allclose(again.waveform.samples, result.waveform.samples, atol=1 / 65536)
    np.testing.assert_array_equal(again.frame_embeddings, result.frame_embeddings)
    assert again.model == result.model and again.timing == result.timing and again.notes == result.notes
    assert again.waveform.origin == result.waveform.origin and again.waveform.name == result.waveform.name
    assert [(s.start_s, s.end_s) for s in again.segments] == [(s.start_s, s.end_s) for s in result.segments]
    assert again.timeline.window_s == 1.0 and again.created == CREATED


def test_wav_is_16_bit_and_loses_nothing_that_was_16_bit(tmp_path: Path) -> None:
    samples = (np.arange(-32768, 32768) / 32768).astype(np.float32)
    path = tmp_path / "a.wav"
    path.write_bytes(b"".join(result_files.wav_pieces(samples)))
    with wave.open(str(path)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
        assert sound.getnframes() == len(samples)
    np.testing.assert_array_equal(result_files.read_wav(path), samples)
    path.write_bytes(b"".join(result_files.wav_pieces(np.array([1.0, -1.0, 3.0, -3.0], np.float32))))
    assert (result_files.read_wav(path) * 32768).tolist() == [32767, -32768, 32767, -32768]


def test_frames_csv(store: Store) -> None:
    result = make_result()
    data = store.save(result).path.joinpath("frames.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert list(rows[0]) == ["start_s", "end_s", "label", *KEYS, "smoothed_label", *(f"smoothed_{k}" for k in KEYS)]
    assert len(rows) == len(result.frames.scores)
    assert (rows[7]["start_s"], rows[7]["end_s"]) == ("0.14", "0.16")
    assert [r["label"] for r in rows] == result.frames.labels
    assert [r["smoothed_label"] for r in rows] == result.timeline.labels
    got = np.array([[float(r[f"smoothed_{k}"]) for k in KEYS] for r in rows])
    np.testing.assert_allclose(got, result.timeline.scores, atol=1e-6)


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_formulas_are_disarmed(text: str) -> None:
    assert next(csv.reader(io.StringIO(result_files.csv_line([text]), newline=""))) == ["'" + text]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_csv_cells_come_back(cells: list[str]) -> None:
    got = next(csv.reader(io.StringIO(result_files.csv_line(cells), newline="")))
    assert [g[1:] if g != c else g for g, c in zip(got, cells, strict=True)] == cells


@pytest.mark.parametrize("name", ['"<img onerror=1>".wav', "a\nb.wav", "😀.m4a", "\udcff\udc80.wav", "=1+1.wav",
                                  "x" * 300, '\n  "segments": [', "../../etc/passwd", "\x00"])
def test_any_file_name_is_only_data(store: Store, name: str) -> None:
    saved = store.save(make_result(name=name, frame=False))
    data = strict(saved.files[0].read_text("utf-8"))
    assert data["source"]["name"] == name.encode("utf-8", "replace").decode()
    assert store.list()[0].source == data["source"]["name"]
    assert store.open(saved.name).waveform.name == data["source"]["name"]
    assert os.listdir(store.root.parent) == ["outputs"]


def test_values_that_json_does_not_know(store: Store) -> None:
    saved = store.save(make_result(notes=(Note("quiet", {"level_db": float("-inf")}),)))
    data = strict(saved.files[0].read_text("utf-8"))
    assert data["warnings"][0]["facts"] == {"level_db": None}
    assert store.open(saved.name).notes[0].text("en")
    result = make_result()
    bad = replace(result, frames=Timeline(np.full_like(result.frames.scores, np.nan)))
    with pytest.raises(StoreError) as caught:
        store.save(bad)
    assert caught.value.code == "CANNOT_SAVE" and os.listdir(store.root) == [saved.name]


def test_one_second_many_results(store: Store) -> None:
    names = [store.save(make_result(0.5, frame=False)).name for _ in range(12)]
    assert names == ["outputs_20261121_213000"] + [f"outputs_20261121_213000_{n}" for n in range(2, 13)]
    assert [s.name for s in store.list()] == names[::-1]  # _12 is newer than _2
    assert [s.name for s in store.list(limit=3, offset=2)] == names[::-1][2:5]
    assert store.count() == 12


def test_what_already_has_the_name_is_never_replaced(store: Store) -> None:
    store.root.mkdir()
    (store.root / "outputs_20261121_213000").mkdir()  # empty: rename(2) would succeed over it
    (store.root / "outputs_20261121_213000_2").write_text("a file")
    (store.root / "outputs_20261121_213000_3").symlink_to(store.root / "nowhere")
    assert store.save(make_result(0.5, frame=False)).name == "outputs_20261121_213000_4"
    assert (store.root / "outputs_20261121_213000_2").read_text() == "a file"


def test_rename_itself_finds_a_collision(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes the name between the look and the rename."""
    first = store.save(make_result(0.5, frame=False))
    monkeypatch.setattr(folders.os.path, "lexists", lambda path: False)
    assert store.save(make_result(0.5, frame=False)).name == f"{first.name}_2"


def test_list_is_light_and_survives_damage(store: Store) -> None:
    result = make_result(60.0)
    names = [store.save(replace(result, created=CREATED + timedelta(seconds=n))).name for n in range(4)]
    assert (store.root / names[0] / "result.json").stat().st_size > 4 * store_module.HEAD_BYTES  # only a part was read
    (store.root / names[1] / "result.json").write_text("{")
    (store.root / names[2] / "result.json").unlink()
    (store.root / names[3] / "result.json").write_text(  # as the articles' own scripts write it
        '{"emotion": "sad", "confidence": 0.5, "scores": {}, "granularity": "utterance", "timestamp": "x"}')
    (store.root / "outputs_20269999_000000").mkdir()
    (store.root / "notes.txt").write_text("not ours")
    found = {s.name: s for s in store.list()}
    assert set(found) == {*names, "outputs_20269999_000000"}
    whole = found[names[0]]
    assert (whole.readable, whole.emotion, whole.granularity, whole.source, whole.model, whole.duration_s) == (
        True, result.prediction.label, "frame", "你好.m4a", "emotion2vec_plus_large", 60.0)
    assert whole.confidence == pytest.approx(result.prediction.confidence)
    assert [found[n].readable for n in names] == [True, False, False, True]
    for name in names[1:]:
        with pytest.raises(StoreError) as caught:
            store.open(name)
        assert caught.value.code == "BAD_RESULT" and "/" not in caught.value.text("en").replace(name, "")


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"schema_version": 2}', b"[" * 100_000, b"\xff\xfe", b"null"])
def test_open_of_damaged_json(store: Store, damage: bytes) -> None:
    saved = store.save(make_result())
    saved.files[0].write_bytes(damage)
    with pytest.raises(StoreError):
        store.open(saved.name)
    assert not store.list()[0].readable


NAMES = ["", ".", "..", "../outputs", "/etc", "outputs_20261121_213000/", "outputs_20261121_213000/..",
         "outputs_20261121_213000\n", "outputs_20261121_213000\x00", "outputs_２０261121_213000", "outputs_20261121",
         "..%2f", "outputs_20261121_213000_", "OUTPUTS_20261121_213000", ".partial-1-abc", "outputs_20261121_213000_-1",
         "C:\\", "outputs_20261121_213000\\..", "outputs_20261121_213001", "x" * 5000]


@pytest.mark.parametrize("name", NAMES)
def test_names_from_outside(store: Store, name: str) -> None:
    kept = store.save(make_result(0.5, frame=False))
    for call in (store.get, store.open, store.delete, lambda n: store.file(n, "result.json"),
                 lambda n: store.zip(n, io.BytesIO())):
        with pytest.raises(RequestError) as caught:
            call(name)
        assert caught.value.code == "NOT_FOUND" and len(str(caught.value)) < 200
    assert kept.path.is_dir()


@pytest.mark.parametrize("filename", ["", ".", "..", "../x", "result.json/", "result.json\x00", "RESULT.JSON",
                                      "other.txt", "/etc/passwd", "embedding.npy", "timeline.png", "x" * 5000])
def test_files_from_outside(store: Store, filename: str) -> None:
    saved = store.save(make_result(frame=False))
    (saved.path / "other.txt").write_text("put there by somebody")
    with pytest.raises(RequestError) as caught:
        store.file(saved.name, filename)
    assert caught.value.code == "NO_SUCH_FILE"


def test_links_are_not_followed(store: Store, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret")
    saved = store.save(make_result(frame=False))
    (saved.path / "scores.png").symlink_to(canary)
    (saved.path / "embedding.npy").symlink_to(canary)
    (store.root / "outputs_20200101_000000").symlink_to(saved.path)
    with pytest.raises(RequestError):
        store.file(saved.name, "scores.png")
    with pytest.raises(RequestError):
        store.get("outputs_20200101_000000")
    assert [s.name for s in store.list()] == [saved.name]
    target = io.BytesIO()
    store.zip(saved.name, target)
    assert b"secret" not in target.getvalue() and len(zipfile.ZipFile(target).namelist()) == 2
    assert store.open(saved.name).embedding is None
    (saved.path / "result.json").unlink()
    (saved.path / "result.json").symlink_to(canary)
    with pytest.raises(StoreError):
        store.open(saved.name)
    store.delete(saved.name)
    assert canary.read_text() == "secret"


@pytest.mark.parametrize("to_path", [True, False])
def test_zip_equals_the_folder(store: Store, tmp_path: Path, to_path: bool) -> None:
    saved = store.save(make_result(embedding=True), {"scores.png": PNG, "timeline.png": PNG})
    target: Any = tmp_path / "a.zip" if to_path else io.BytesIO()
    store.zip(saved.name, target)
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{saved.name}/{name}" for name in FILES]
        for path in saved.files:
            assert archive.read(f"{saved.name}/{path.name}") == path.read_bytes()


def test_delete(store: Store) -> None:
    saved = store.save(make_result(0.5, frame=False))
    store.delete(saved.name)
    assert os.listdir(store.root) == [] and store.list() == ()
    with pytest.raises(RequestError):
        store.delete(saved.name)


def test_before_the_first_save(store: Store) -> None:
    assert store.list() == () and store.count() == 0 and store.sweep() == 0 and store.trim() == 0
    assert store.usage().n_bytes == 0 and store.usage().free_bytes > 0
    assert not store.root.exists()
    store.check_space()


def test_usage_counts_bytes(store: Store) -> None:
    saved = store.save(make_result())
    usage = store.usage()
    assert (usage.n_results, usage.n_bytes) == (1, sum(f.stat().st_size for f in saved.files))


def age(path: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(path, (then, then))


def test_retention_by_number(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits(disk_free_mb=0, results_max=3))
    saved = [store.save(make_result(0.5, frame=False, created=CREATED + timedelta(minutes=n))) for n in range(6)]
    assert store.count() == 6  # all young: none goes
    for one in saved[:5]:
        age(one.path, 2)
    assert store.trim() == 3
    assert [s.name for s in store.list()] == [one.name for one in saved[:2:-1]]
    assert store.trim() == 0


def test_retention_by_size_spares_the_young(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits(disk_free_mb=0, results_gb=1e-5))
    saved = [store.save(make_result(1.0, frame=False, created=CREATED + timedelta(minutes=n))) for n in range(3)]
    age(saved[1].path, 2)
    assert store.trim() == 1
    assert [s.name for s in store.list()] == [saved[2].name, saved[0].name]


def test_saving_keeps_the_bounds_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KEPT_S", -1.0)
    store = Store(tmp_path, Limits(disk_free_mb=0, results_max=3))
    for _ in range(2 * store_module.TRIM_EVERY + 1):
        store.save(make_result(0.1, frame=False))
        assert store.count() <= 3 + store_module.TRIM_EVERY
    assert store.count() == 3


def test_too_little_space_is_said_before_the_work(tmp_path: Path) -> None:
    store = Store(tmp_path / "outputs", Limits(disk_free_mb=1e9))
    for call in (store.check_space, lambda: store.save(make_result())):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.code == "DISK_FULL" and caught.value.problem.http == 507
    assert not store.root.exists()
    Store(tmp_path, LIMITS).check_space()
    with pytest.raises(StoreError):
        Store(tmp_path, LIMITS).check_space(need_bytes=10**18)


class FaultyOs:
    """The ``os`` of ``folders``: the k-th system call fails, once or (``for_ever``) from then on."""

    CALLS = ("mkdir", "open", "write", "fsync", "close", "rename")

    def __init__(self, k: int, code: int, for_ever: bool) -> None:
        self.k, self.code, self.for_ever, self.n = k, code, for_ever, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in self.CALLS else real

    def _counted(self, name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.n += 1
            if self.n == self.k or (self.for_ever and self.n > self.k):
                if name == "close":
                    real(*args)
                raise OSError(self.code, os.strerror(self.code))
            if name == "write":  # a short write is no error: the rest must follow
                return real(args[0], args[1][: max(1, len(args[1]) - 7)])
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE, errno.EDQUOT])
def test_any_system_call_may_fail(store: Store, monkeypatch: pytest.MonkeyPatch, code: int, for_ever: bool) -> None:
    result = make_result(0.5, embedding=True)
    open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    store.root.mkdir()
    for k in range(1, 1000):
        faulty = FaultyOs(k, code, for_ever)
        with monkeypatch.context() as patch:
            patch.setattr(folders, "os", faulty)
            if for_ever:  # nothing can be cleaned up either
                patch.setattr(folders.shutil, "rmtree", lambda *args, **kwargs: None)
            try:
                store.save(result, {"scores.png": PNG})
            except StoreError as error:
                assert error.code == ("DISK_FULL" if code in (errno.ENOSPC, errno.EDQUOT) else "CANNOT_SAVE")
            else:
                break
        for name in os.listdir(store.root):
            assert for_ever
            if not name.startswith(".partial-"):  # only the last sync failed: the folder is whole
                store.open(name)
                store.delete(name)
    assert k > 30 and faulty.n == k - 1  # every call had its turn
    assert store.save(result).path.is_dir()  # space is back
    if open_files is not None:
        assert len(os.listdir("/proc/self/fd")) == open_files


def test_short_writes_lose_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = store.save(make_result())
    monkeypatch.setattr(folders, "os", FaultyOs(10**9, 0, False))
    short = store.save(make_result())
    assert [f.read_bytes() for f in plain.files] == [f.read_bytes() for f in short.files]


def test_a_root_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    store = Store(tmp_path / "outputs", LIMITS)
    with pytest.raises(StoreError) as caught:
        store.save(make_result(0.5))
    assert caught.value.code == "CANNOT_SAVE" and store.list() == ()


def test_a_disk_of_one_megabyte(tmp_path: Path) -> None:
    """A real full disk, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        store = Store(disk / "outputs", LIMITS)
        small = store.save(make_result(1.0, frame=False))
        with pytest.raises(StoreError) as caught:
            store.save(make_result(60.0))
        assert caught.value.code == "DISK_FULL" and caught.value.problem.http == 507
        assert os.listdir(store.root) == [small.name]
        store.save(make_result(1.0, frame=False))
        with pytest.raises(StoreError), (disk / "a.zip").open("wb") as target:
            [store.zip(small.name, target) for _ in range(1000)]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_that_may_not_grow(store: Store) -> None:
    """A real failure in the middle of a write: the limit on the size of a file."""
    store.root.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StoreError, match="too large"):
            store.save(make_result(10.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(store.root) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StoreError, match="ermission"):
        Store(tmp_path, LIMITS).save(make_result(0.5))
    tmp_path.chmod(0)
    with pytest.raises(StoreError, match="ermission"):
        Store(tmp_path, LIMITS).list()
    tmp_path.chmod(stat.S_IRWXU)


def test_an_interrupt_leaves_nothing(store: Store) -> None:
    class Stop(Prediction):
        def as_dict(self) -> dict[str, float]:
            raise KeyboardInterrupt

    result: Result = make_result()
    with pytest.raises(KeyboardInterrupt):
        store.save(replace(result, prediction=Stop(result.prediction.scores)))
    assert os.listdir(store.root) == []


def test_only_known_extras(store: Store) -> None:
    for name in ("result.json", "../x.png", "other.png"):
        with pytest.raises(ValueError, match="extra"):
            store.save(make_result(0.5), {name: PNG})


def test_names_have_the_promised_form(store: Store) -> None:
    store.save(make_result(0.5))
    store.save(make_result(0.5))
    assert all(re.fullmatch(r"outputs_\d{8}_\d{6}(_\d+)?", s.name) for s in store.list())
