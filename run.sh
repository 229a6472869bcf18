#!/usr/bin/env bash
# ./run.sh [serve options]   install once, then serve the page on 127.0.0.1:7860
# ./run.sh test [pytest options]   install the dev set, then run the whole test suite
# ./run.sh COMMAND ...       any other command of emotion-app, e.g. ./run.sh doctor
# HOST, PORT and EMOTION_* are read from the environment. PYTHON names the interpreter to use.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '%s\n' "$*" >&2; }
die() { say "✗ $1"; [ -z "${2:-}" ] || say "  $2"; exit "${3:-1}"; }

MIN_FREE_MB=4000  # the packages take about 2.6 GB, pip's work as much again at its peak

find_python() {
  local name
  for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3.10 python3 python; do
    if command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  die "Python 3.10 or newer was not found. / 没有找到 Python 3.10 或更新版本。" \
    "Install it (Debian/Ubuntu: apt install python3 python3-venv; macOS: brew install python) or set PYTHON=/path/to/python." 69
}

# The stamp holds what was installed; when it matches, a start installs nothing and asks no network.
stamp_of() { cat requirements.txt "$1" | cksum | cut -d' ' -f1-2; }

install() { # install FILE
  local file=$1 stamp=.venv/.installed-$1 want log=.venv/install.log
  want=$(stamp_of "$file")
  [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return
  local python free_mb
  python=$(find_python) || exit $?
  free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
  [ -x .venv/bin/pip ] || [ "$free_mb" -ge "$MIN_FREE_MB" ] ||
    die "Not enough disk space: ${free_mb} MB free, about ${MIN_FREE_MB} MB are needed. / 磁盘空间不足：只剩 ${free_mb} MB。" "" 73
  say "→ Installing (once; a few minutes) / 正在安装（仅一次，需几分钟） ..."
  if [ ! -x .venv/bin/pip ]; then
    rm -rf .venv
    "$python" -m venv .venv || die "Could not make .venv. / 无法创建 .venv。" "Debian/Ubuntu: apt install python3-venv" 69
  fi
  # torch first and by its exact version: then nothing else decides which build of it comes.
  if ! { .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off "$(grep -o '^torch==[0-9.]*' requirements.txt)" &&
    .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -r "$file"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    if grep -qE 'No space left|Errno 28' "$log"; then
      die "The disk is full. / 磁盘已满。" "" 73
    elif grep -qE 'ConnectionError|NewConnectionError|Temporary failure in name resolution|ReadTimeout|Could not fetch URL|No matching distribution' "$log"; then
      die "The packages could not be downloaded: is there a network? / 无法下载软件包：是否有网络？" \
        "A mirror can be set with: pip config set global.index-url URL. Run ./run.sh again; what is there is kept." 69
    fi
    die "Installing failed; the whole log is in $log. / 安装失败，日志见 $log。" "" 69
  fi
  printf '%s' "$want" >"$stamp"
  [ "$file" = requirements.txt ] || stamp_of requirements.txt | tr -d '\n' >.venv/.installed-requirements.txt
  say "✓ Installed / 安装完成"
}

# Chromium for the browser tests and the speech synthesiser for the example clips come from the system's packages.
install_test_tools() {
  local missing=() sudo=()
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
  command -v espeak-ng >/dev/null || missing+=(espeak-ng)
  command -v fc-list >/dev/null && fc-list :lang=zh family 2>/dev/null | grep -q . || missing+=(fonts-noto-cjk fontconfig)
  command -v fc-list >/dev/null && fc-list 2>/dev/null | grep -qi emoji || missing+=(fonts-noto-color-emoji)
  command -v prometheus >/dev/null || missing+=(prometheus)
  [ ${#missing[@]} -eq 0 ] && return
  if ! command -v apt-get >/dev/null; then
    say "! Not found: ${missing[*]}. The tests that need them will say that they are skipped."
    return
  fi
  [ "$(id -u)" = 0 ] || sudo=(sudo -n)
  say "→ Installing ${missing[*]} ..."
  { "${sudo[@]}" apt-get update -qq && DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"; } \
    >.venv/apt.log 2>&1 || say "! Could not install ${missing[*]} (see .venv/apt.log). The tests that need them will say that they are skipped."
}

[ -z "${HOST:-}" ] || export EMOTION_HOST=$HOST
[ -z "${PORT:-}" ] || export EMOTION_PORT=$PORT

case "${1:-serve}" in
test)
  shift
  install requirements-dev.txt
  install_test_tools
  .venv/bin/python -m ruff check .
  exec .venv/bin/python -m pytest "$@"
  ;;
-* | serve)
  [ "${1:-}" != serve ] || shift
  install requirements.txt
  exec .venv/bin/python app.py "$@"
  ;;
*)
  install requirements.txt
  exec .venv/bin/python -m emotion_app "$@"
  ;;
esac
