// The Live page's state, written into its markup. Part of the function body that live.js describes; so is its state.
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
  for (const [name, value] of [["model", model], ["window", windowS], ["baseline", baseline]])
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
