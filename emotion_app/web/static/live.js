// Behaviour of the Live page (ui/live.py): Gradio's js_on_load(element, trigger, props, server, upload, watch), after
// live_stream.js and live_chart.js. The markup is patched in place when the language changes, so listeners sit on
// `element` or the document, all state is here, and show() writes it back.
const $ = (selector) => element.querySelector(selector);
const root = () => $(".ser-live");
const read = (name) => JSON.parse(root().getAttribute(`data-${name}`));
const escapeHtml = (s) => String(s).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const REDUCED = matchMedia("(prefers-reduced-motion: reduce)");
const LISTED = 200, SILENT_FRAMES = 30, NOTICE_MS = 6000, NO_SHARE = "–";
let words, emotions, facts;

const fill = (name, values = {}) => words[name].replace(/{(\w+)}/g, (_, key) => values[key]);
const percent = (score) => `${(score < 1 ? Math.min(99.9, 100 * score) : 100).toFixed(1)} %`;
const indexOf = (key) => emotions.findIndex((e) => e.key === key);
const named = (i) => `${emotions[i].emoji} ${emotions[i].name}`;
const lasting = (s) => (s < 60 ? fill("seconds", { seconds: s.toFixed(1) })
  : fill("minutes", { minutes: Math.floor(s / 60), seconds: Math.floor(s % 60) }));

// --- state
let state = "idle"; // idle | asking | connecting | live | lost | ending | ended
let status = "idle"; // the name of the text in the state line
let trouble = null; // {key | event, act}
let mic = null, recording = null, connection = null, chart = null, wake = null;
let turn = 0, noticeTimer = 0;
let model = "auto", windowS = 3;
let rules = remembered();
const fresh = () => ({ utterances: [], gaps: [], alerts: [], current: null, speaking: false, notes: [], model: "", loaded: false,
  late: 0, silent: 0, epoch: 0, banner: null, saved: null, limit: false });
let talk = fresh(), levels = [], level = 0;

function remembered() {
  const first = [{ who: "angry", much: 70, how: "hold", s: 2, on: false }, { who: "negative", much: 50, how: "share", s: 60, on: false }];
  try {
    const kept = JSON.parse(localStorage.getItem("ser_live_rules"));
    return Array.isArray(kept) && kept.every((r) => r.who && r.much > 0 && r.s > 0 && ["hold", "share"].includes(r.how)) ? kept : first;
  } catch {
    return first;
  }
}

const ruleName = (r) => `${r.who} ${r.how === "hold" ? ">=" : ">"} ${r.much} % ${r.how === "hold" ? "for" : "of"} ${r.s} s`;
const ruleWords = (r) => fill(r.how, { who: r.who === "negative" ? words.negative : named(indexOf(r.who)), much: r.much, seconds: r.s });
const wireRules = () => rules.filter((r) => r.on).slice(0, facts.rules).map((r) => ({ name: ruleName(r), kind: r.how,
  emotions: r.who === "negative" ? facts.negative : [r.who], threshold: r.much / 100, for_s: r.s }));

// Gradio reloads the page once it can reach its server again after a break. That would throw the session away, so its
// question whether the server is back gets no answer while there is something to lose.
const unsaved = () => Boolean(recording) && state !== "idle";
const askServer = window.fetch;
window.fetch = (what, ...rest) => {
  const url = String(what instanceof Request ? what.url : what);
  return unsaved() && /\/app_id$/.test(url) ? Promise.reject(new TypeError("a live session is open")) : askServer(what, ...rest);
};

// --- start and stop
async function start() {
  if (!["idle", "ended"].includes(state)) return;
  trouble = null;
  if (!window.isSecureContext || !navigator.mediaDevices) return fail("insecure");
  if (!window.AudioWorkletNode) return fail("unsupported");
  const mine = ++turn;
  talk = fresh();
  levels = [];
  recording = null;
  chart = new Chart(talk, levels);
  to("asking");
  let opened;
  try {
    opened = await openLiveMicrophone(heard, () => { if (mine === turn && mic) { fail("micgone", state); stop(); } });
  } catch (error) {
    if (mine !== turn) return;
    const key = error.why || { NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "nomic" }[error.name] || "busymic";
    console.info("microphone:", error.name, error.message);
    to("idle");
    return fail(key);
  }
  if (mine !== turn) return opened.close();
  mic = opened;
  recording = new Recording(mic.rate);
  const config = { model: facts.models[model], window_s: windowS, alerts: wireRules() };
  connection = new Connection(recording, config, (what, told) => { if (mine === turn) HEARD[what](told || {}); });
  if (navigator.wakeLock) navigator.wakeLock.request("screen").then((lock) => { wake = lock; }, () => {}); // a phone stays awake
  requestAnimationFrame(follow);
}

async function stop() {
  if (state === "asking") { // the permission may still be given: then it is handed back at once
    turn += 1;
    return to("idle");
  }
  if (!mic) return;
  const closing = mic;
  mic = null;
  if (wake) wake.release();
  wake = null;
  to("ending");
  const last = await closing.close();
  if (last.length) heard(last);
  connection.end();
}

async function finish(key, event) { // the summary; with what went wrong, if something did
  turn += 1;
  if (connection) connection.close();
  if (mic) mic.close();
  mic = null;
  if (wake) wake.release();
  wake = null;
  talk.speaking = false;
  for (const utterance of talk.utterances) if (!utterance.final) freeze(utterance);
  talk.utterances = talk.utterances.filter((u) => u.final.cells.length || u.failed);
  if (key) fail(key, undefined, event);
  to(recording && recording.samples && connection && connection.everBegun ? "ended" : "idle");
}

function fail(key, next, event) {
  const code = event ? event.code : "";
  const act = key === "token" ? "reload" : code.startsWith("MODEL_") && model !== "lite" ? "lite"
    : ["micgone", "noend", "insecure", "unsupported"].includes(key) ? "" : "retry";
  trouble = { key, event, act };
  if (next) state = next;
  show();
}

function to(next, said = next) {
  state = next;
  status = said;
  show();
}

function notice(name) { // for some seconds, then what is always true
  status = name;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { if (state === "live") to("live", talk.loaded ? "live" : "loading"); }, NOTICE_MS);
  show();
}

// --- sound
function heard(frame) {
  if (!recording || (!mic && state !== "ending")) return;
  let top = 0, sum = 0;
  for (const x of frame) { top = Math.max(top, Math.abs(x)); sum += x * x; }
  recording.push(frame);
  const rms = Math.sqrt(sum / frame.length) / 32768, db = 20 * Math.log10(rms + 1e-6);
  level = Math.max(0, Math.min(1, (db + 60) / 60));
  levels.push(Math.min(1, (4 * rms) ** 0.8));
  const was = talk.silent >= SILENT_FRAMES;
  talk.silent = top ? 0 : talk.silent + 1;
  if (was !== talk.silent >= SILENT_FRAMES) show();
  connection?.pump();
  meter(top >= 32700, db);
  if (recording.seconds >= facts.session_s && mic) { talk.limit = true; stop(); }
}

function meter(clipped, db) {
  const box = $(".ser-live-meter");
  box.querySelector("b").style.clipPath = `inset(0 ${(100 - 100 * level).toFixed(1)}% 0 0)`;
  box.classList.toggle("ser-live-clipped", clipped);
  box.setAttribute("aria-valuenow", Math.round(Math.max(-60, db)));
  $(".ser-live-clock").textContent = clockOf(recording ? recording.seconds : 0);
}

// --- what the connection tells
const HEARD = {
  connecting() { if (state === "asking") to("connecting"); },
  created() {
    connection.everBegun = true;
    talk.loaded = false;
    if (state !== "ending") to("live", status === "restarted" ? "restarted" : "loading");
  },
  resumed({ lostEvents }) {
    if (state === "ending") return;
    state = "live";
    notice(lostEvents ? "resumed_lost" : "resumed");
  },
  restarted({ wanted }) {
    talk.epoch += 1;
    talk.speaking = false;
    const begun = connection.begun;
    if (begun - wanted > 0.05) talk.gaps.push({ start: wanted, stop: begun });
    for (const utterance of talk.utterances) if (!utterance.final && utterance.start < begun - 0.05) freeze(utterance);
    talk.utterances = talk.utterances.filter((u) => u.final); // the others come again
    state = "live";
    notice("restarted");
  },
  lost() { if (state !== "ending") to(connection.session ? "lost" : "connecting", connection.session ? "lost" : "unreachable"); },
  over({ reason }) { if (reason === "SESSION_LIMIT") talk.limit = true; finish(); },
  failed({ why, event }) { finish(why, event); },
  event(event) {
    const act = TOLD[event.type];
    if (!act) return;
    act(event, connection.begun);
    connection.keepFrom = Math.min(...talk.utterances.filter((u) => !u.final).map((u) => Math.floor(u.start * recording.rate)));
    if (event.type !== "emotion_result" || event.final) show();
    else paintNow();
  },
};

const find = (event) => talk.utterances.findLast((u) => u.epoch === talk.epoch && u.number === event.utterance);
const order = (scores) => emotions.map((e, i) => [i, scores[e.key]]).sort((a, b) => b[1] - a[1]);

function freeze(utterance) {
  utterance.stop = utterance.stop ?? (utterance.cells.length ? utterance.cells[utterance.cells.length - 1].stop : utterance.start);
  const seconds = {};
  for (const c of utterance.cells) seconds[c.emotion] = (seconds[c.emotion] || 0) + c.stop - c.start;
  const most = Object.entries(seconds).sort((a, b) => b[1] - a[1])[0];
  utterance.final = { cells: utterance.cells, emotion: most ? Number(most[0]) : -1, score: null, scores: null };
}

const TOLD = {
  "session.ready"(event) {
    talk.loaded = true;
    talk.model = event.model;
    talk.notes = event.notes.map((en, i) => ({ en, zh: event.notes_zh[i] }));
    if (state === "live" && status === "loading") status = "live";
  },
  speech_started(event, begun) {
    talk.speaking = true;
    if (!find(event)) talk.utterances.push({ epoch: talk.epoch, number: event.utterance, start: begun + event.audio_start_ms / 1000, stop: null, cells: [], final: null });
  },
  speech_stopped(event, begun) {
    talk.speaking = false;
    const utterance = find(event);
    if (utterance) utterance.stop = begun + event.audio_end_ms / 1000;
  },
  emotion_result(event, begun) {
    const utterance = find(event);
    const start = begun + event.audio_start_ms / 1000, stop = begun + event.audio_end_ms / 1000;
    const scores = (!event.final && event.smoothed) || (event.shown === "adjusted" && event.adjusted) || event.scores;
    const ranked = order(scores), [[emotion, score], runner] = ranked;
    talk.current = { emotion, score, runner, final: event.final, start, stop, adjusted: event.shown === "adjusted" };
    if (!utterance) return;
    if (!event.final) {
      const from = utterance.cells.length ? utterance.cells[utterance.cells.length - 1].stop : utterance.start;
      if (stop > from) utterance.cells.push({ start: from, stop, emotion, score });
      return;
    }
    const rate = 16000; // of the session's timeline
    const cells = event.segments.map((s) => ({ start: begun + s.start_sample / rate, stop: begun + s.stop_sample / rate, emotion: indexOf(s.emotion), score: s.confidence }));
    Object.assign(utterance, { start, stop, final: { cells: cells.length ? cells : [{ start, stop, emotion, score }], emotion, score, scores } });
    $(".ser-live-said").textContent = `${named(emotion)} ${percent(score)}`;
  },
  alert(event, begun) {
    const alert = { at: begun + event.audio_end_ms / 1000, rule: event.rule, value: event.value };
    talk.alerts.push(alert);
    talk.banner = alert;
  },
  audio_gap(event, begun) {
    const gap = { start: begun + event.audio_start_ms / 1000, stop: begun + event.audio_end_ms / 1000 };
    talk.gaps.push(gap);
    const utterance = talk.utterances.findLast((u) => !u.final && u.stop !== null && Math.abs(u.start - gap.start) < 0.05);
    if (utterance && event.reason === "not_analysed") { freeze(utterance); utterance.failed = true; }
  },
  error(event) {
    if (event.code === "INFERENCE_TIMEOUT" || event.code === "BUSY") talk.late += 1;
    else trouble = { key: "error", event, act: "" };
  },
};

// --- showing
function show() {
  words = read("words");
  emotions = read("emotions");
  facts = read("facts");
  const on = !["idle", "ended"].includes(state);
  root().setAttribute("data-state", state);
  document.documentElement.classList.toggle("ser-on-air", Boolean(mic));
  document.documentElement.classList.toggle("ser-unsaved", unsaved());
  const button = $(".ser-live-start");
  button.classList.toggle("ser-on", on && state !== "ending");
  button.querySelector("b").textContent = words[on ? "stop" : "start"];
  button.disabled = state === "ending";
  $(".ser-live-state span").textContent = words[state === "ended" && talk.limit ? "ended_limit" : status];
  paintTrouble();
  paintOptions();
  paintVad();
  paintNow();
  paintShare();
  paintList();
  if (state === "ended") paintSummary();
  draw();
}

function paintTrouble() {
  const box = $(".ser-live-trouble"), muted = mic && talk.silent >= SILENT_FRAMES;
  const shown = trouble || (muted ? { key: "silent", act: "" } : null);
  box.hidden = !shown;
  if (!shown) return;
  box.querySelector("p").textContent = shown.event ? (facts.lang === "zh" ? shown.event.message_zh : shown.event.message) : words[shown.key];
  const button = box.querySelector("button");
  button.hidden = !shown.act;
  button.textContent = shown.act ? words[shown.act] : "";
}

function paintVad() {
  const light = $(".ser-live-vad");
  const known = state === "live"; // during a break nobody says
  light.classList.toggle("ser-live-speech", talk.speaking && known);
  light.querySelector("span").textContent = !mic ? words.off : !known ? NO_SHARE : words[talk.speaking ? "speech" : "quiet"];
  if (!mic) { level = 0; meter(false, -60); }
}

function paintNow() {
  const box = $(".ser-live-now"), c = talk.current;
  box.classList.toggle("ser-live-quiet", !talk.speaking);
  box.classList.toggle("ser-live-wait", !c);
  $(".ser-live-now .ser-notes").innerHTML = noteList();
  $(".ser-live-now .ser-score").hidden = !c;
  if (!c) {
    box.style.removeProperty("--c");
    box.querySelector(".ser-emoji").textContent = "👂";
    box.querySelector("h2").textContent = words[talk.speaking ? "hearing" : "wait"];
    box.querySelector(".ser-name p").textContent = "";
    $(".ser-live-what").textContent = "";
    return;
  }
  const e = emotions[c.emotion];
  box.style.setProperty("--c", `var(--ser-${e.key})`);
  box.querySelector(".ser-emoji").textContent = e.emoji;
  box.querySelector("h2").textContent = e.name;
  box.querySelector(".ser-name p").textContent = fill("runner", { emotion: named(c.runner[0]), score: percent(c.runner[1]) });
  box.querySelector(".ser-score b").textContent = percent(c.score);
  $(".ser-live-what").textContent = c.final ? fill("utterance", { from: tenthsOf(c.start), to: tenthsOf(c.stop) })
    : fill("now", { seconds: (c.stop - c.start).toFixed(1) });
}

function noteList() {
  const notes = talk.notes.map((n) => ["info", n[facts.lang]]);
  if (talk.current && talk.current.adjusted) notes.push(["info", words.adjusted]);
  if (talk.late) notes.push(["warning", fill("late", { n: talk.late })]);
  const missing = talk.gaps.reduce((sum, g) => sum + g.stop - g.start, 0);
  if (missing >= 0.1) notes.push(["warning", fill("gap", { seconds: missing.toFixed(1) })]);
  return notes.map(([kind, text]) => `<li class="ser-${kind}"><i aria-hidden="true">${kind === "info" ? "ℹ" : "⚠"}</i> ${escapeHtml(text)}</li>`).join("");
}

function shares() {
  const seconds = emotions.map(() => 0);
  for (const u of talk.utterances) for (const c of chart.cellsOf(u)) seconds[c.emotion] += c.stop - c.start;
  return { seconds, total: seconds.reduce((a, b) => a + b, 0) };
}

function paintShare() {
  if (!chart) return;
  const { seconds, total } = shares(), top = seconds.indexOf(Math.max(...seconds));
  element.querySelectorAll(".ser-live-share .ser-bar").forEach((row, i) => {
    const share = total ? seconds[i] / total : 0;
    row.classList.toggle("ser-first", total > 0 && i === top);
    row.querySelector("b").style.width = `${(100 * share).toFixed(2)}%`;
    row.querySelector("em").textContent = total ? percent(share) : NO_SHARE;
  });
}

function paintList() {
  const done = talk.utterances.filter((u) => u.final), list = $(".ser-live-list ol");
  $(".ser-live-list").hidden = !done.length;
  const rows = done.slice(-LISTED).map((u) => {
    const f = u.final, e = f.emotion >= 0 ? emotions[f.emotion] : null;
    return `<li><em>${tenthsOf(u.start)} – ${tenthsOf(u.stop)}</em><i style="background:${e ? `var(--ser-${e.key})` : "none"}" aria-hidden="true"></i>`
      + `<span>${e ? escapeHtml(named(f.emotion)) : ""}${f.score === null ? ` <small>${escapeHtml(words.missing)}</small>` : ""}</span><b>${f.score === null ? "" : percent(f.score)}</b></li>`;
  }).join("");
  if (list.dataset.rows === String(rows.length) && list.dataset.lang === facts.lang && list.children.length) return;
  list.innerHTML = rows;
  list.dataset.rows = rows.length;
  list.dataset.lang = facts.lang;
  list.scrollTop = list.scrollHeight;
}

function paintSummary() {
  const { seconds, total } = shares(), top = seconds.indexOf(Math.max(...seconds));
  const missing = talk.gaps.reduce((sum, g) => sum + g.stop - g.start, 0);
  const lines = [[words.total, lasting(recording.seconds)], [words.spoken, lasting(total)], [words.sentences, talk.utterances.length],
    [words.mostly, total ? named(top) : NO_SHARE]];
  if (talk.alerts.length) lines.push([words.alerts, talk.alerts.length]);
  if (missing >= 0.1) lines.push([words.missing, lasting(missing)]);
  $(".ser-live-summary dl").innerHTML = lines.map(([name, value]) => `<div><dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd></div>`).join("");
  $(".ser-live-csv").disabled = !talk.utterances.length;
  paintSaved();
}

function paintOptions() {
  for (const [name, value] of [["model", model], ["window", windowS]])
    element.querySelectorAll(`[name=ser-live-${name}]`).forEach((input) => { input.checked = input.value === String(value); });
  const list = $(".ser-live-rules"), text = rules.map((r, i) => `<li><label><input type="checkbox" data-rule-on="${i}"><span>${escapeHtml(ruleWords(r))}</span></label>`
    + `<button type="button" data-rule-drop="${i}" aria-label="${escapeHtml(words.remove)}" title="${escapeHtml(words.remove)}">✕</button></li>`).join("");
  if (list.dataset.shown !== text || list.children.length !== rules.length) list.innerHTML = text;
  list.dataset.shown = text;
  list.querySelectorAll("input").forEach((input, i) => { input.checked = rules[i].on; });
  const banner = $(".ser-live-alert"), alert = talk.banner;
  banner.hidden = !alert;
  if (!alert) return;
  const known = rules.find((r) => ruleName(r) === alert.rule);
  banner.querySelector("b").textContent = fill("alerted", { rule: known ? ruleWords(known) : alert.rule });
  banner.querySelector("span").textContent = fill("alert_at", { value: (100 * alert.value).toFixed(0), time: clockOf(alert.at) });
}

function draw() {
  const canvas = $(".ser-live-timeline canvas");
  if (!chart || !recording || !canvas.clientWidth) return;
  const live = state !== "ended";
  const talking = talk.speaking ? talk.utterances[talk.utterances.length - 1] : null;
  chart.draw(canvas, emotions, recording.seconds, live, talking);
  $(".ser-live-timeline small").textContent = live ? fill("last", { seconds: Math.round(chart.to - chart.from) }) : words.session;
  tip();
}

function tip() {
  const line = $(".ser-live-tip"), t = chart.point;
  if (t === null || t > recording.seconds) {
    line.textContent = words.tip;
    return;
  }
  const hit = chart.cellAt(t), heard = hit ? [named(hit.cell.emotion), percent(hit.cell.score)] : [words.quiet];
  line.textContent = [tenthsOf(t), ...heard].join(" · ");
}

let drawn = 0;
function follow(now) { // scrolls with the sound
  if (["idle", "ended"].includes(state)) return;
  if (now - drawn > (REDUCED.matches ? 500 : 60) && element.offsetParent !== null) {
    drawn = now;
    draw();
    paintShare();
  }
  requestAnimationFrame(follow);
}

// --- keeping
function pieces() { // the recording in parts that the upload road takes, cut between utterances where it can be
  const most = Math.min(facts.clip_s, (facts.upload_mb * 1e6 - 4096) / 2 / recording.rate) * recording.rate;
  const ends = talk.utterances.map((u) => Math.round(u.stop * recording.rate)), parts = [];
  for (let from = 0; from < recording.samples;) {
    const limit = Math.floor(Math.min(recording.samples, from + most));
    const cut = limit === recording.samples ? limit : ends.findLast((end) => end > from + most / 2 && end <= limit) || limit;
    parts.push([from, cut]);
    from = cut;
  }
  return parts;
}

async function save() {
  const mine = turn, now = new Date(), two = (n) => String(n).padStart(2, "0"), parts = pieces();
  const stamp = `${two(now.getHours())}-${two(now.getMinutes())}-${two(now.getSeconds())}`;
  talk.saved = { busy: true, names: [] };
  paintSaved();
  const saved = talk.saved;
  try {
    for (const [i, [from, end]] of parts.entries()) {
      const name = `${words.file} ${stamp}${parts.length > 1 ? ` ${i + 1}` : ""}.wav`, form = new FormData();
      form.append("file", new File([recording.wav(from, end)], name, { type: "audio/wav" }));
      for (const [key, value] of Object.entries({ granularity: "frame", save: "true", lang: facts.lang, model: facts.models[model] }))
        if (value !== null) form.append(key, value);
      const answer = await fetch("api/v1/analyze", { method: "POST", body: form });
      const told = await answer.json().catch(() => ({}));
      if (!answer.ok) throw Object.assign(new Error(), { told: told.error });
      saved.names.push(told.id);
    }
  } catch (error) {
    saved.error = error.told || { en: words.unreachable, zh: words.unreachable };
  }
  saved.busy = false;
  saved.parts = parts.length;
  if (mine === turn && state === "ended") paintSaved();
}

function paintSaved() {
  const s = talk.saved, line = $(".ser-live-kept");
  $(".ser-live-save").disabled = Boolean(s && (s.busy || !s.error));
  if (!s) line.textContent = talk.utterances.length ? words.kept : words.none;
  else if (s.busy) line.textContent = words.saving;
  else if (s.error) line.textContent = fill("save_failed", { reason: s.error[facts.lang] || s.error.en });
  else line.textContent = s.names.length === 1 ? fill("saved", { name: s.names[0] }) : fill("saved_parts", { n: s.names.length, minutes: Math.floor(facts.clip_s / 60) });
  $(".ser-live-summary .ser-downloads").innerHTML = s ? s.names.map((name) => `<a class="ser-zip" href="api/v1/results/${name}.zip" download="${name}.zip"><i aria-hidden="true">⬇</i> ${escapeHtml(words.files)}</a>`
    + ["result.json", "processed_audio.wav", "timeline.png"].map((f) => `<a href="api/v1/results/${name}/${f}" download="${f}">${f}</a>`).join("")).join("") : "";
}

function table() {
  const rows = [["start_s", "end_s", "emotion", "score", ...emotions.map((e) => e.key)]];
  for (const { start, stop, final: f } of talk.utterances)
    rows.push([start.toFixed(3), stop.toFixed(3), f.emotion >= 0 ? emotions[f.emotion].key : "", f.score ?? "", ...emotions.map((e) => (f.scores ? f.scores[e.key] : ""))]);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", rows.map((r) => r.join(",")).join("\r\n"), "\r\n"], { type: "text/csv" }));
  link.download = "live.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function drop() {
  turn += 1;
  recording = connection = null;
  talk = fresh();
  levels = [];
  chart = null;
  trouble = null;
  to("idle");
}

// --- events
function changeRules() {
  try { localStorage.setItem("ser_live_rules", JSON.stringify(rules)); } catch { /* storage may be switched off */ }
  if (mic && connection) connection.update({ alerts: wireRules() });
  show();
}

function act(name) {
  if (name === "reload") return location.reload();
  if (name === "lite") model = "lite";
  start();
}

element.addEventListener("click", (event) => {
  const hit = (selector) => event.target.closest(selector);
  if (hit(".ser-live-start")) mic || state === "asking" ? stop() : start();
  else if (hit(".ser-live-trouble button")) act(trouble.act);
  else if (hit(".ser-live-alert button")) { talk.banner = null; show(); }
  else if (hit(".ser-live-save")) save();
  else if (hit(".ser-live-csv")) table();
  else if (hit(".ser-live-drop")) drop();
  else if (hit("[data-rule-drop]")) { rules.splice(Number(hit("[data-rule-drop]").dataset.ruleDrop), 1); changeRules(); }
  else if (hit(".ser-live-add")) {
    const value = (name) => $(`[data-rule=${name}]`).value, [how, s] = value("how").split(" ");
    const made = { who: value("who"), much: Number(value("much")), how, s: Number(s), on: true };
    const same = rules.find((r) => ruleName(r) === ruleName(made));
    if (same) same.on = true;
    else if (rules.length < facts.rules) rules.push(made);
    changeRules();
  }
});
element.addEventListener("change", ({ target }) => {
  if (target.dataset.ruleOn) { rules[Number(target.dataset.ruleOn)].on = target.checked; changeRules(); }
  if (target.name === "ser-live-model") {
    model = target.value;
    if (mic && connection) { talk.loaded = false; connection.update({ model: facts.models[model] }); to(state, "loading"); }
  }
  if (target.name === "ser-live-window") {
    windowS = Number(target.value);
    if (mic && connection) connection.update({ window_s: windowS });
  }
});
element.addEventListener("pointermove", (event) => {
  if (!chart || !event.target.closest(".ser-live-timeline canvas")) return;
  const box = event.target.getBoundingClientRect();
  chart.point = chart.from + ((event.clientX - box.left) / box.width) * (chart.to - chart.from);
  draw();
});
element.addEventListener("pointerout", (event) => {
  if (chart && event.target.closest(".ser-live-timeline canvas")) { chart.point = null; draw(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.repeat || !element.isConnected || element.offsetParent === null) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest && event.target.closest("input, textarea, select, button, summary, a, [contenteditable], [role=tab]")) return;
  event.preventDefault();
  if (mic || state === "asking") stop();
  else start();
});
window.addEventListener("resize", () => element.isConnected && draw());
new IntersectionObserver(() => draw()).observe(element); // shown again after another tab

watch("markup", () => show());
show();
