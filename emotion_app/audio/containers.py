"""Files through FFmpeg (PyAV), packet by packet: the only decoder, so that every door gives equal samples.

Demuxers and decoders are whitelisted: playlists, image sequences and scripts that make FFmpeg open further files or
addresses are not among them, and no protocol is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from emotion_app.audio.arrays import to_float
from emotion_app.audio.caps import Caps
from emotion_app.audio.mixer import Mixer, Sound
from emotion_app.audio.sources import Reader
from emotion_app.errors import AudioError

FORMATS = (
    "wav,w64,aiff,au,caf,voc,flac,mp3,aac,latm,loas,ac3,eac3,dts,amr,amrnb,amrwb,ogg,wv,ape,tta,mpc,mpc8,gsm,"
    "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,asf,asf_o,avi,flv,mpegts,mpeg,rm,dsf"
)
_CODEC_NAMES = (
    "mp1 mp1float mp2 mp2float mp3 mp3float aac aac_fixed aac_latm flac alac vorbis opus libopus speex libspeex ilbc "
    "libilbc amrnb amrwb libopencore_amrnb libopencore_amrwb wmav1 wmav2 wmapro wmalossless wmavoice ac3 ac3_fixed "
    "eac3 dca wavpack ape tta mpc7 mpc8 gsm gsm_ms g722 g726 g726le cook sipr nellymoser dsd_lsbf dsd_msbf "
    "dsd_lsbf_planar dsd_msbf_planar"
)
_CODECS = frozenset(_CODEC_NAMES.split())
_CODEC_FAMILIES = ("pcm_", "adpcm_")
_BLOCK = 65_536  # samples of each channel handed on at a time: 64 FLAC frames, 57 AAC frames
_PLANES_MAX = 8  # an AVFrame holds 8 plane pointers itself; from there on PyAV runs over their end
_BAD_PACKETS_MAX = 200  # in a row; then the rest of the file is given up
_MISSING_S = 0.25  # a file that holds this much less than it says is called cut off (codecs pad by up to 0.1 s)
_TO_THE_SAMPLE = frozenset(("flac", "aiff", "au", "w64", "wv", "ape", "tta"))  # these state their length exactly
_NEARLY = frozenset(("avi", "ogg", "matroska,webm"))
_OGG_PAGE_MAX = 65_307  # bytes
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "PDF"), (b"PK\x03\x04", "ZIP"), (b"\x89PNG", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF8", "GIF"),
    (b"RIFF", "WAV"), (b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"ID3", "MP3"), (b"\x1aE\xdf\xa3", "Matroska/WebM"),
    (b"#!AMR", "AMR"), (b"MThd", "MIDI"), (b"\x1f\x8b", "gzip"), (b"#EXTM3U", "playlist"), (b"\x7fELF", "program"),
    (b"0&\xb2u", "ASF/WMA"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Decoded:
    """A file's sound and what the file said about itself.

    Attributes:
        sound: the samples and their measures.
        container: FFmpeg's name of the demuxer.
        codec: FFmpeg's name of the decoder.
        tracks: number of sound tracks.
        video: there is a moving picture beside the sound.
        float_source: the codec stores floats, so samples beyond 1 are a matter of scale, not of clipping.
        damaged: packets were lost or the file ends before its time.
        one_channel: the channels cancelled each other and the loudest was used alone.
    """

    sound: Sound
    container: str
    codec: str
    tracks: int
    video: bool
    float_source: bool
    damaged: bool
    one_channel: bool = False


def decode(reader: Reader, caps: Caps) -> Decoded:
    """Decode the first sound track of ``reader``.

    Raises:
        AudioError: UNDECODABLE, NO_AUDIO, BAD_FORMAT, TOO_LONG, NOT_FINITE.
    """
    first = _pass(reader, caps, None)
    if not first.sound.cancels:
        return first
    # Which channel to take is known only now: cancelling channels are rare enough to decode twice.
    reader.seek(0)
    second = _pass(reader, caps, first.sound.loudest)
    return Decoded(**{**second.__dict__, "one_channel": True})


def _pass(reader: Reader, caps: Caps, channel: int | None) -> Decoded:
    container = _open(reader)
    with container:
        name = container.format.name
        if not container.streams.audio:
            raise AudioError("NO_AUDIO", container=name)
        stream = container.streams.audio[0]
        context = _usable(stream, name)
        mixer = Mixer(caps, channel)
        if context.sample_rate and context.channels:  # refused before a single block; frames are checked again
            mixer.check(context.channels, context.sample_rate)
        frames = _Frames(container, stream)
        try:
            for block, rate in _blocks(frames):
                mixer.push(block, rate)
        except (ValueError, NotImplementedError) as error:  # a sample format that has no array
            raise AudioError("UNDECODABLE", container=name, codec=context.name, reason=str(error)[:120]) from error
        if mixer.decoded_s == 0 and frames.problem:
            raise AudioError("UNDECODABLE", container=name, codec=context.name, reason=frames.problem)
        return Decoded(
            sound=mixer.finish(),
            container=name,
            codec=context.name,
            tracks=len(container.streams.audio),
            video=any(not _is_cover(s) for s in container.streams.video),
            float_source=context.name.startswith("pcm_f"),
            damaged=frames.broken or frames.lost_s > _MISSING_S or _missing(container, stream, reader, mixer.decoded_s),
        )


def _open(reader: Reader) -> InputContainer:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "none"}
    try:
        return av.open(reader, "r", options=options, metadata_errors="replace", buffer_size=65_536)
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise AudioError("UNDECODABLE", container=_sniff(reader.head), codec="?", reason=_words(error)) from error


def _usable(stream: AudioStream, container: str) -> AudioCodecContext:
    context = stream.codec_context
    if context is None:
        raise AudioError("UNDECODABLE", container=container, codec="?", reason="There is no decoder for it")
    if context.name not in _CODECS and not context.name.startswith(_CODEC_FAMILIES):
        raise AudioError("UNDECODABLE", container=container, codec=context.name, reason="This codec is not accepted")
    context.thread_count = 1  # uploads are decoded beside each other; threads would only add memory
    return context


class _Frames:
    """Decoded frames; damaged packets are passed over.

    Attributes:
        problem: the first error met, in words, or "".
        lost_s: length of the packets passed over.
        broken: the file could not be read to its end.
    """

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self._container = container
        self._stream = stream
        self.problem = ""
        self.lost_s = 0.0
        self.broken = False

    def __iter__(self) -> Iterator[AudioFrame]:
        bad_in_a_row = 0
        for packet in self._packets():
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except (av.error.FFmpegError, OSError) as error:
                self.problem = self.problem or _words(error)
                self.lost_s += float((packet.duration or 0) * (packet.time_base or 0))
                bad_in_a_row += 1
                if bad_in_a_row > _BAD_PACKETS_MAX:
                    self.broken = True
                    return
                continue
            bad_in_a_row = 0 if frames else bad_in_a_row
            yield from frames

    def _packets(self) -> Iterator[av.Packet]:
        try:
            yield from self._container.demux(self._stream)
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError) as error:
            self.problem = self.problem or _words(error)
            self.broken = True


def _blocks(frames: _Frames) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Frames gathered to blocks (channels, n <= _BLOCK + one frame) of one rate and channel count."""
    waiting: list[NDArray[Any]] = []
    key, held = (0, 0), 0
    for frame in _readable(frames):
        array = _channels_first(frame)
        now = (frame.sample_rate, array.shape[0])
        if waiting and (now != key or held >= _BLOCK):
            yield to_float(np.concatenate(waiting, axis=1)), key[0]
            waiting, held = [], 0
        key = now
        waiting.append(array)
        held += array.shape[1]
    if waiting:
        yield to_float(np.concatenate(waiting, axis=1)), key[0]


def _readable(frames: Iterable[AudioFrame]) -> Iterator[AudioFrame]:
    """Planar frames of many channels, interleaved by FFmpeg: PyAV 18.1 reads past their table of planes and crashes."""
    packer, packs = None, None
    for frame in frames:
        if not frame.format.is_planar or frame.layout.nb_channels < _PLANES_MAX:
            yield frame
            continue
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if packer is None or packs != now:
            packer, packs = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate), now
        yield from packer.resample(frame)


def _channels_first(frame: AudioFrame) -> NDArray[Any]:
    array = frame.to_ndarray()
    return array if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels).T


def _missing(container: InputContainer, stream: AudioStream, reader: Reader, decoded_s: float) -> bool:
    """Whether the file says that it holds clearly more than was found. Only believed where it is not an estimate."""
    if reader.head[:4] == b"RIFF":  # FFmpeg clips the duration of a WAV to the file: ask the header
        stated = int.from_bytes(reader.head[4:8], "little") + 8
        streamed = stated < 44 or stated >= 2**31 - 1  # written through a pipe: size left open
        return not streamed and stated > reader.n_bytes + 1
    name = container.format.name
    if name == "ogg" and not _ogg_ends(reader):
        return True
    exact = name in _TO_THE_SAMPLE
    if not (exact or name in _NEARLY or "mp4" in name or (name == "mp3" and _has_frame_count(reader.head))):
        return False
    if stream.duration is not None and stream.time_base is not None:
        stated_s = float(stream.duration * stream.time_base)
    else:
        stated_s = (container.duration or 0) / 1e6
    return stated_s - decoded_s > (0.001 if exact else max(_MISSING_S, 0.01 * stated_s))


def _ogg_ends(reader: Reader) -> bool:
    """Whether the last page of an Ogg file carries the end-of-stream flag (RFC 3533: bit 2 of byte 5)."""
    reader.seek(max(0, reader.n_bytes - _OGG_PAGE_MAX))
    tail = reader.read(_OGG_PAGE_MAX)
    page = tail.rfind(b"OggS")
    return page >= 0 and len(tail) > page + 5 and bool(tail[page + 5] & 4)


def _has_frame_count(head: bytes) -> bool:
    return b"Xing" in head or b"Info" in head


def _is_cover(stream: Any) -> bool:
    """A still picture: cover art of an MP3 or M4A."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _sniff(head: bytes) -> str:
    """A word for a file that no demuxer took."""
    for magic, word in _MAGIC:
        if head.startswith(magic):
            return word
    if head[4:8] == b"ftyp":
        return "MP4"
    text = sum(byte >= 32 or byte in b"\t\r\n" for byte in head[:512])
    return "text" if b"\0" not in head[:512] and text == len(head[:512]) else "?"


def _words(error: Exception) -> str:
    """FFmpeg's message without its file name."""
    return str(getattr(error, "strerror", None) or error)[:120]
