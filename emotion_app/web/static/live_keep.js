// What is kept of a live session, and only when it is asked for: a result folder, a table. Part of the function body
// that live.js describes; so is its state.
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
  const names = s ? s.names : [], only = names.length === 1; // of several parts the folders alone
  $(".ser-live-summary .ser-downloads").innerHTML = names.map((name, i) => `<a class="ser-zip" href="api/v1/results/${name}.zip" `
    + `download="${name}.zip"><i aria-hidden="true">⬇</i> ${escapeHtml(words.files)}${only ? "" : ` ${i + 1}`}</a>`
    + (only ? ["result.json", "processed_audio.wav", "timeline.png"] : [])
      .map((f) => `<a href="api/v1/results/${name}/${f}" download="${f}">${f}</a>`).join("")).join("");
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
