// The picture of a live session: sound in the colours of the emotions, a strip of words, a time axis. Between
// live_stream.js and live.js in the same function body. Times are seconds from the start of the recording.
const LIVE_SPAN_S = 30, PHONE_SPAN_S = 15, LEVEL_S = 0.1;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200];

const clockOf = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
const tenthsOf = (s) => {
  const tenths = Math.round(10 * s);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
};

class Chart {
  // talk: {utterances: [{start, stop, cells, final}], gaps: [{start, stop}], alerts: [{at}]}, levels: 0..1 for each 100 ms
  constructor(talk, levels) {
    this.talk = talk;
    this.levels = levels;
    this.point = null; // seconds under the pointer
    this.from = 0;
    this.to = LIVE_SPAN_S;
  }

  cellsOf(utterance) { return utterance.final ? utterance.final.cells : utterance.cells; }

  cellAt(t) {
    for (const utterance of this.talk.utterances)
      for (const cell of this.cellsOf(utterance))
        if (t >= cell.start && t < cell.stop) return { cell, utterance };
    return null;
  }

  draw(canvas, emotions, now, live, talking) {
    const width = canvas.clientWidth, height = canvas.clientHeight, scale = window.devicePixelRatio || 1;
    if (!width) return;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--ser-${name}`).trim();
    const span = width < 480 ? PHONE_SPAN_S : LIVE_SPAN_S;
    this.from = live ? Math.max(0, now - span) : 0;
    this.to = live ? this.from + span : Math.max(4, now);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `12.5px ${style.fontFamily}`;
    pen.textBaseline = "middle";
    const x = (t) => ((t - this.from) / (this.to - this.from)) * width;
    const seen = this.talk.utterances.filter((u) => (u.stop ?? now) > this.from && u.start < this.to);
    this.wave(pen, width, seen, colour, emotions);
    this.strip(pen, x, seen, colour, emotions, now, talking);
    this.axis(pen, x, width, colour);
    this.marks(pen, x, width, colour, now, live);
  }

  wave(pen, width, seen, colour, emotions) {
    const cells = seen.flatMap((u) => this.cellsOf(u)), middle = 30, quiet = colour("line2");
    const paints = emotions.map((e) => colour(e.key));
    let at = 0;
    for (let px = 0; px < width; px += 4) {
      const a = this.from + (px / width) * (this.to - this.from), b = this.from + ((px + 4) / width) * (this.to - this.from);
      let level = 0;
      const first = Math.floor(a / LEVEL_S), last = Math.max(first + 1, Math.ceil(b / LEVEL_S));
      if (first >= this.levels.length) break;
      for (let i = first; i < last && i < this.levels.length; i++) level = Math.max(level, this.levels[i]);
      while (at < cells.length && cells[at].stop <= a) at += 1;
      const cell = at < cells.length && cells[at].start <= b ? cells[at] : null;
      pen.fillStyle = cell ? paints[cell.emotion] : quiet;
      const h = Math.max(2, 54 * level);
      pen.beginPath();
      pen.roundRect(px + 0.5, middle - h / 2, 2.6, h, 1.3);
      pen.fill();
    }
  }

  strip(pen, x, seen, colour, emotions, now, talking) {
    const top = 64, high = 30;
    pen.fillStyle = colour("line");
    pen.beginPath();
    pen.roundRect(0, top, x(this.to), high, 8);
    pen.fill();
    pen.save();
    pen.clip();
    for (const utterance of seen) {
      const cells = this.cellsOf(utterance), done = Boolean(utterance.final);
      for (const [start, stop, emotion] of joined(cells)) this.cell(pen, x(start), x(stop), top, high, colour, emotions[emotion], done);
      if (utterance === talking) {
        const open = cells.length ? cells[cells.length - 1].stop : utterance.start;
        pen.fillStyle = colour("line2");
        for (let p = x(open) + 2; p < x(now); p += 5) pen.fillRect(p, top + high / 2 - 1, 2, 2);
      }
    }
    pen.restore();
  }

  cell(pen, left, right, top, high, colour, emotion, done) {
    const paint = colour(emotion.key), wide = right - left - 1;
    pen.globalAlpha = done ? 1 : 0.42;
    pen.fillStyle = paint;
    pen.fillRect(left, top, wide, high);
    pen.globalAlpha = 1;
    if (!done) pen.fillRect(left, top + high - 3, wide, 3);
    pen.fillStyle = done ? (emotion.white ? "#fff" : "#000") : colour("ink");
    const shown = Math.max(left, 0), room = right - shown - 10;
    const both = `${emotion.emoji} ${emotion.name}`;
    const text = pen.measureText(both).width <= room ? both : room >= 14 ? emotion.emoji : "";
    pen.fillText(text, shown + 6, top + high / 2 + 0.5);
  }

  axis(pen, x, width, colour) {
    const step = STEPS_S.find((s) => ((this.to - this.from) / s) * 52 <= width) || 1800;
    pen.fillStyle = colour("soft");
    pen.font = pen.font.replace("12.5px", "11.5px");
    for (let t = Math.ceil(this.from / step) * step; t <= this.to; t += step) {
      const text = clockOf(t), half = pen.measureText(text).width / 2;
      if (x(t) + half > width) break;
      pen.fillText(text, Math.max(0, x(t) - half), 106);
    }
  }

  marks(pen, x, width, colour, now, live) {
    for (const gap of this.talk.gaps) { // never analysed: hatched
      const left = Math.max(0, x(gap.start)), right = Math.min(width, x(gap.stop));
      if (right <= left) continue;
      pen.fillStyle = colour("bad");
      for (let p = left; p < right; p += 6) pen.fillRect(p, 64, 2, 30);
    }
    for (const alert of this.talk.alerts)
      if (alert.at >= this.from && alert.at <= this.to) pen.fillText("🔔", Math.min(width - 14, Math.max(0, x(alert.at) - 7)), 8);
    pen.fillStyle = colour("ink");
    if (live) pen.fillRect(Math.min(width - 2, x(now)), 0, 2, 97);
    if (this.point !== null && this.point <= now) {
      pen.globalAlpha = 0.5;
      pen.fillRect(x(this.point), 0, 1, 97);
      pen.globalAlpha = 1;
    }
  }
}

function joined(cells) { // neighbours of one emotion are one block
  const blocks = [];
  for (const { start, stop, emotion } of cells) {
    const last = blocks[blocks.length - 1];
    if (last && last[2] === emotion && start - last[1] < 0.05) last[1] = stop;
    else blocks.push([start, stop, emotion]);
  }
  return blocks;
}
