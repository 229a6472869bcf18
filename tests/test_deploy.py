"""Every expression of the dashboard and of the alert rules, run by a real Prometheus against the running app."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.served import free_port, served

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus binary: apt install prometheus")
ONLY_WITH = {"emotion_gpu_busy_ratio": "a GPU", "emotion_gpu_memory_used_bytes": "a GPU"}


def wait_for(check, seconds: float = 30.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (found := check()) is not None:
            return found
        time.sleep(0.25)
    raise AssertionError("not in time")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory, clips):
    """The app with some traffic, and a Prometheus that scrapes it every second."""
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    with served(folder) as app:
        config = (DEPLOY / "prometheus.yml").read_text()
        config = config.replace("127.0.0.1:7860", f"127.0.0.1:{app.port}").replace("5s", "1s")
        (folder / "prometheus.yml").write_text(config)
        shutil.copy(DEPLOY / "alerts.yml", folder)
        process = subprocess.Popen(
            [PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
        )  # fmt: skip
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                wait_for(lambda: _up(client))
                for clip in clips[:6]:
                    with clip.open("rb") as file:
                        assert httpx.post(f"{app.url}/api/v1/analyze", files={"file": file}, timeout=60).is_success
                    time.sleep(0.7)
                live = [sys.executable, "-m", "emotion_app", "stream", str(clips[0]), "--speed", "1.4",
                        "--url", f"ws://127.0.0.1:{app.port}/ws/emotion"]  # fmt: skip
                subprocess.run(live, check=True, cwd=ROOT, timeout=120)
                time.sleep(2.5)
                yield client
        finally:
            process.terminate()
            process.wait(20)


def _up(client: httpx.Client):
    try:
        found = client.get("/api/v1/query", params={"query": 'up{job="emotion"} == 1'}).json()["data"]["result"]
    except (httpx.HTTPError, KeyError, ValueError):
        return None
    return found or None


def query(client: httpx.Client, expression: str) -> list:
    expression = expression.replace("$__rate_interval", "30s")
    answer = client.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    return answer["data"]["result"]


def test_every_panel_has_data(prometheus) -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    empty = []
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            if not query(prometheus, target["expr"]) and target["expr"] not in ONLY_WITH:
                empty.append(f"{panel['title']}: {target['expr']}")
    assert not empty, "\n".join(empty)


def test_numbers_are_those_of_the_traffic(prometheus) -> None:
    (row,) = query(prometheus, 'sum(emotion_requests_total{door="rest",outcome="ok"})')
    assert float(row["value"][1]) == 6
    (row,) = query(prometheus, 'sum(emotion_results_total{door="rest"})')
    assert float(row["value"][1]) == 6


def test_alert_rules_load_and_name_metrics_that_exist(prometheus) -> None:
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 8 and all(rule["health"] in ("ok", "unknown") for rule in rules)
    names = set(prometheus.get("/api/v1/label/__name__/values").json()["data"])
    for rule in rules:
        for metric in re.findall(r"\b(?:emotion|process)_[a-z_]+", rule["query"]):
            assert metric in names, f"{rule['name']}: {metric}"
    assert not [rule["name"] for rule in rules if rule["alerts"]], "nothing is wrong, so nothing may fire"
