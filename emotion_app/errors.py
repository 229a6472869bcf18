"""One error tree and one table: code -> HTTP status, exit code, text in English and Chinese.

Raise the subclass that names the layer and the code that names the situation; facts fill the text.
"""

from __future__ import annotations

from typing import NamedTuple

from emotion_app.labels import Lang

Fact = str | int | float | None


class Problem(NamedTuple):
    """A row of the table.

    ``http``: status of REST and Gradio answers. ``exit``: exit code of the command line (sysexits-like: 65 data,
    69 unavailable, 73 cannot create, 75 try again, 77 not allowed, 78 configuration, 64 usage, 70 internal).
    """

    http: int
    exit: int
    en: str
    zh: str


PROBLEMS: dict[str, Problem] = {
    # audio: the file itself
    "EMPTY": Problem(422, 65, "The file is empty", "文件是空的"),
    "UNDECODABLE": Problem(
        415,
        65,
        "This file cannot be read as sound (container: {container}, codec: {codec}). {reason}",
        "无法把这个文件读作声音（容器：{container}，编码：{codec}）。{reason}",
    ),
    "NO_AUDIO": Problem(
        415, 65, "There is no sound track in this file (container: {container})", "文件里没有音轨（容器：{container}）"
    ),
    "BAD_FORMAT": Problem(
        415,
        65,
        "Unusable sound format: {what} = {value} (accepted: {low} to {high})",
        "声音格式不可用：{what} = {value}（可接受 {low} 到 {high}）",
    ),
    "NOT_FINITE": Problem(
        422,
        65,
        "The sound holds values that are not numbers ({count} of {total})",
        "声音中含有非数值的采样（{total} 个中有 {count} 个）",
    ),
    "TOO_SHORT": Problem(
        422,
        65,
        "Too short to analyze: {duration_ms:.0f} ms (at least {limit_ms:.0f} ms)",
        "太短，无法分析：{duration_ms:.0f} 毫秒（至少 {limit_ms:.0f} 毫秒）",
    ),
    "TOO_LONG": Problem(
        413,
        65,
        "The clip is longer than {limit_s:.0f} s. Cut it, or use the command line's batch for long files",
        "音频超过 {limit_s:.0f} 秒。请剪短，或用命令行批处理长文件",
    ),
    "TOO_LARGE": Problem(413, 65, "The file is larger than {limit_mb:.0f} MB", "文件超过 {limit_mb:.0f} MB"),
    "DECODE_LIMIT": Problem(
        422,
        65,
        "Reading the file took more than {limit_s:.0f} s or too much memory; it was given up",
        "读取文件超过 {limit_s:.0f} 秒或占用内存过多，已放弃",
    ),
    "BAD_ARRAY": Problem(422, 65, "The array is not sound: {reason}", "数组不是声音数据：{reason}"),
    # requests
    "BAD_OPTION": Problem(
        422,
        64,
        "{option} = {value} is not possible (choose: {choices})",
        "{option} = {value} 不可用（可选：{choices}）",
    ),
    "NOT_FOUND": Problem(404, 66, "Not found: {what}", "找不到：{what}"),
    "NO_SUCH_FILE": Problem(404, 66, "No such file: {name}", "没有这个文件：{name}"),
    "NOT_A_FILE": Problem(422, 66, "{name} is not a file but a {kind}", "{name} 不是文件（{kind}）"),
    "NO_INPUT": Problem(
        422, 64, "No sound yet: drop a file, choose one or record", "还没有声音：请拖入文件、选择文件或录音"
    ),
    "FORBIDDEN_PATH": Problem(403, 77, "This path may not be read", "不允许读取这个路径"),
    "UNAUTHORIZED": Problem(401, 77, "A valid token is needed", "需要有效的令牌"),
    "FORBIDDEN_ORIGIN": Problem(403, 77, "Requests from this site are not accepted", "不接受来自此站点的请求"),
    "TOKEN_NEEDED": Problem(
        500,
        78,
        "Listening on {host} is open to others: set a token (EMOTION_TOKEN or --token)",
        "监听 {host} 会对他人开放：请设置令牌（EMOTION_TOKEN 或 --token）",
    ),
    "PORT_TAKEN": Problem(
        500,
        69,
        "Port {port} on {host} is taken. Choose another: PORT={other} ./run.sh",
        "{host} 的端口 {port} 已被占用。换一个：PORT={other} ./run.sh",
    ),
    "BAD_SETTING": Problem(500, 78, "Setting not understood: {reason}", "设置无法识别：{reason}"),
    # speaker baselines
    "BAD_NAME": Problem(
        422,
        64,
        "{name} cannot be a name: letters, digits, spaces, - and _ in it, at most 40, and not one of {taken}",
        "{name} 不能用作名称：只能含文字、数字、空格、- 和 _，至多 40 个字符，且不能是 {taken}",
    ),
    "NO_BASELINE": Problem(
        404, 66, "No baseline named {name}. There are: {known}", "没有名为 {name} 的基线。现有：{known}"
    ),
    "BASELINE_EXISTS": Problem(
        409, 73, "There is a baseline named {name} already; delete it first", "已有名为 {name} 的基线；请先删除它"
    ),
    "BASELINE_BROKEN": Problem(
        500, 65, "The baseline {name} cannot be read: {reason}", "无法读取基线 {name}：{reason}"
    ),
    "BASELINE_OTHER_MODEL": Problem(
        409,
        65,
        "The baseline {name} was made with {made_with}, not with {model}: calibrate again with this model",
        "基线 {name} 是用 {made_with} 生成的，而不是 {model}：请用当前模型重新校准",
    ),
    "BASELINE_NO_RULE": Problem(
        409,
        69,
        "{model} has no numbers for baselines yet. Make them from labelled speech: "
        "emotion-app baseline fit MANIFEST --model {model}",
        "{model} 尚无基线所需的参数。请用带标注的语音生成：emotion-app baseline fit MANIFEST --model {model}",
    ),
    "BASELINE_EMPTY": Problem(
        422,
        65,
        "No baseline can be made: none of {given} clips holds speech that can be used",
        "无法生成基线：{given} 段音频中没有可用的语音",
    ),
    # lists of clips
    "BAD_MANIFEST": Problem(
        422, 65, "{name} cannot be used as a list of clips: {reason}", "{name} 不能用作音频列表：{reason}"
    ),
    "OUT_IN_USE": Problem(
        409,
        73,
        "{path} already holds the results of a batch: go on with --resume, or choose another folder",
        "{path} 中已有批处理结果：用 --resume 继续，或换一个文件夹",
    ),
    # load
    "BUSY": Problem(
        503,
        75,
        "Too many requests right now; try again in {retry_after_s:.0f} s",
        "当前请求过多；请在 {retry_after_s:.0f} 秒后重试",
    ),
    "INFERENCE_TIMEOUT": Problem(
        504, 75, "The answer was not ready within {limit_s:.1f} s", "未能在 {limit_s:.1f} 秒内得出结果"
    ),
    "CANCELLED": Problem(499, 75, "Cancelled", "已取消"),
    "SHUTTING_DOWN": Problem(503, 75, "The program is shutting down", "程序正在关闭"),
    # models
    "MODEL_UNKNOWN": Problem(
        404,
        64,
        "No model named {name}. Known: {known}; or give a directory or a hub id such as iic/emotion2vec_plus_large",
        "没有名为 {name} 的模型。已知：{known}；也可给出目录或 iic/emotion2vec_plus_large 这样的 hub 编号",
    ),
    "MODEL_MISSING": Problem(
        503,
        69,
        "The files of {name} are not on this machine. Get them with: emotion-app models get {name}",
        "本机没有 {name} 的文件。获取方法：emotion-app models get {name}",
    ),
    "MODEL_OFFLINE": Problem(
        503,
        69,
        "{name} cannot be downloaded: {hub} does not answer ({reason})",
        "无法下载 {name}：{hub} 没有响应（{reason}）",
    ),
    "MODEL_BROKEN": Problem(
        503, 78, "The files of {name} are damaged or do not fit: {reason}", "{name} 的文件损坏或不匹配：{reason}"
    ),
    "MODEL_LOADING": Problem(
        503, 75, "The model is still being fetched: {percent:.0f} %", "模型仍在获取：{percent:.0f} %"
    ),
    "ENGINE_UNAVAILABLE": Problem(
        503, 69, "The engine {engine} cannot be used: {reason}", "引擎 {engine} 不可用：{reason}"
    ),
    "INFERENCE_FAILED": Problem(500, 70, "The model failed on this clip: {reason}", "模型处理此音频失败：{reason}"),
    "OUT_OF_MEMORY": Problem(503, 75, "Not enough memory for this clip", "内存不足，无法处理此音频"),
    # results
    "DISK_FULL": Problem(
        507, 73, "The disk is full: {free_mb:.0f} MB free at {path}", "磁盘已满：{path} 只剩 {free_mb:.0f} MB"
    ),
    "CANNOT_SAVE": Problem(503, 73, "The result could not be saved: {reason}", "结果无法保存：{reason}"),
    "BAD_RESULT": Problem(
        500, 65, "The result folder {name} cannot be read: {reason}", "无法读取结果文件夹 {name}：{reason}"
    ),
    # live sessions
    "NO_SERVER": Problem(503, 69, "No server answers at {url}. Start one with: ./run.sh ({reason})",
                         "{url} 没有服务器响应。启动方法：./run.sh（{reason}）"),
    "AT_CAPACITY": Problem(503, 75, "All {sessions} live sessions are taken; try again later", "全部 {sessions} 个实时会话已占用；请稍后再试"),
    "BAD_MESSAGE": Problem(422, 65, "Message not understood: {reason}", "消息无法识别：{reason}"),
    "MESSAGE_TOO_LARGE": Problem(413, 65, "A message may have {limit_kb} kB", "一条消息最多 {limit_kb} kB"),
    "RATE_LIMIT": Problem(429, 75, "Audio comes faster than {factor:.1f} times real time; the excess is dropped and declared as a gap",
                          "音频传入速度超过实时的 {factor:.1f} 倍；超出部分被丢弃，并作为间断报告"),
    "SLOW_CLIENT": Problem(408, 75, "Events were not read for {limit_s:.0f} s; connect again to resume", "事件已 {limit_s:.0f} 秒未被读取；请重新连接以继续"),
    "SESSION_UNKNOWN": Problem(404, 66, "No such session, or the wrong secret", "没有这个会话，或密钥错误"),
    "SESSION_TAKEN": Problem(409, 75, "This session goes on over a newer connection", "此会话已由新的连接接管"),
    "SESSION_IDLE": Problem(408, 75, "Nothing came for {limit_s:.0f} s", "{limit_s:.0f} 秒内没有收到任何消息"),
    "SESSION_LIMIT": Problem(408, 75, "A session may last {limit_s:.0f} s", "一个会话最长 {limit_s:.0f} 秒"),
    "INTERNAL": Problem(
        500,
        70,
        "Something went wrong inside the program (report id {report_id})",
        "程序内部出错（报告编号 {report_id}）",
    ),
}


class EmotionError(Exception):
    """An expected failure with a code from ``PROBLEMS``; its text names what happened and what to do.

    Args:
        code: a key of ``PROBLEMS``.
        **facts: values for the text; missing ones show as ``?``.

    >>> str(AudioError("TOO_LARGE", limit_mb=50))
    'The file is larger than 50 MB'
    """

    def __init__(self, code: str, **facts: Fact) -> None:
        self.code = code
        self.facts: dict[str, Fact] = facts
        super().__init__(self.text("en"))

    @property
    def problem(self) -> Problem:
        """The row of the table."""
        return PROBLEMS[self.code]

    def text(self, lang: Lang) -> str:
        """What happened, in ``lang``."""
        problem = PROBLEMS[self.code]
        return (problem.zh if lang == "zh" else problem.en).format_map(_Facts(self.facts)).strip()

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders (decoder process, Ray) with their code and facts."""
        return (_rebuild, (type(self), self.code, self.facts))


class _Unknown:
    """Stands for a fact that is missing: it must not hide the error that it belongs to."""

    def __format__(self, spec: str) -> str:
        return "?"


class _Facts(dict[str, object]):
    def __init__(self, facts: dict[str, Fact]) -> None:
        super().__init__({key: _Unknown() if value is None else value for key, value in facts.items()})

    def __missing__(self, key: str) -> _Unknown:
        return _Unknown()


def _rebuild(kind: type[EmotionError], code: str, facts: dict[str, Fact]) -> EmotionError:
    return kind(code, **facts)


class AudioError(EmotionError):
    """The given sound cannot be used."""


class RequestError(EmotionError):
    """An option, name or path in the request is not possible."""


class AccessError(EmotionError):
    """Not allowed: token, origin, host or path."""


class BusyError(EmotionError):
    """Load: queue full, deadline passed, cancelled, shutting down."""


class ModelError(EmotionError):
    """A model cannot be found, fetched, loaded or run."""


class StoreError(EmotionError):
    """A result cannot be written or read."""


class ConfigError(EmotionError):
    """The program cannot start with these settings."""
