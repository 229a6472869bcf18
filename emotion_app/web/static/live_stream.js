// The Live page without its looks: microphone, the sound of the session, and the connection that survives a break.
// Runs before live.js in the same function body (ui/live.py puts them together).
const BACKLOG_S = 10; // unsent sound after a break: older sound is declared missing, a late answer helps nobody
const CATCH_UP = 4; // frames sent for each one that comes in, until the backlog is gone (the server bounds it, too)
const BUFFERED_BYTES = 128 * 1024; // what the browser may hold on a slow line
const WAITS_S = [0.5, 1, 2, 4, 8]; // between tries to connect; the last one again and again
const FIRST_TRIES = 4; // before there is a session
const CONNECT_S = 10, END_S = 20;

async function whyNot() { // a browser does not say why a WebSocket or a script was refused; an ordinary request does
  try {
    const answer = await fetch("api/v1/models", { headers: { accept: "application/json" } });
    return answer.status === 401 ? "token" : "refused";
  } catch {
    return "unreachable";
  }
}

async function openLiveMicrophone(onFrame, onGone) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const off = () => stream.getTracks().forEach((track) => track.stop());
  let fault;
  for (const options of [{ sampleRate: 16000 }, {}]) { // Firefox refuses another rate than the device's; the server resamples then
    const context = new AudioContext(options);
    try {
      await context.audioWorklet.addModule("app-static/live_worklet.js").catch(async () => {
        throw Object.assign(new Error("the worklet could not be fetched"), { why: await whyNot() });
      });
      const node = new AudioWorkletNode(context, "ser-frames", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
      context.createMediaStreamSource(stream).connect(node);
      await context.resume();
      let ended;
      const rest = new Promise((resolve) => { ended = resolve; });
      node.port.onmessage = ({ data }) => (data.frame ? onFrame(data.frame) : ended(data.last));
      stream.getTracks().forEach((track) => track.addEventListener("ended", onGone));
      return {
        rate: context.sampleRate,
        async close() { // resolves with what the last, unfinished frame holds
          node.port.postMessage("end");
          const last = await Promise.race([rest, new Promise((r) => setTimeout(r, 500, new Int16Array(0)))]);
          off();
          context.close();
          return last;
        },
      };
    } catch (error) {
      fault = error;
      context.close();
      if (error.why) break;
    }
  }
  off();
  throw fault;
}

// All sound of a session, in memory only. Frames have one length, the last one excepted.
class Recording {
  constructor(rate) {
    this.rate = rate;
    this.frames = [];
    this.samples = 0;
  }

  get seconds() { return this.samples / this.rate; }

  push(frame) {
    this.frames.push(frame);
    this.samples += frame.length;
  }

  parts(from, to) {
    const size = Math.round(this.rate / 10), parts = [];
    for (let i = Math.floor(from / size); i < this.frames.length && i * size < to; i++)
      parts.push(this.frames[i].subarray(Math.max(0, from - i * size), Math.min(this.frames[i].length, to - i * size)));
    return parts;
  }

  wav(from, to) {
    const head = new DataView(new ArrayBuffer(44)), bytes = (to - from) * 2;
    const text = (at, s) => [...s].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
    text(0, "RIFF"); head.setUint32(4, 36 + bytes, true); text(8, "WAVEfmt "); head.setUint32(16, 16, true);
    head.setUint16(20, 1, true); head.setUint16(22, 1, true); head.setUint32(24, this.rate, true);
    head.setUint32(28, this.rate * 2, true); head.setUint16(32, 2, true); head.setUint16(34, 16, true);
    text(36, "data"); head.setUint32(40, bytes, true);
    return new Blob([head.buffer, ...this.parts(from, to)], { type: "audio/wav" });
  }
}

// One session over as many connections as it takes. `tell(what, facts)` hears:
//   connecting, created, resumed {lostEvents}, restarted {wanted}, lost, event, over {reason}, failed {why, event}
class Connection {
  constructor(recording, config, tell) {
    Object.assign(this, { recording, config, tell });
    this.session = null; // {id, secret}
    this.last = 0; // id of the last event that came
    this.base = 0; // sample of the recording at which the session began
    this.sent = 0; // samples of the recording that were sent
    this.keepFrom = Infinity; // where a new session would have to begin so that no utterance is cut
    this.tries = 0;
    this.lostAt = 0;
    this.resumeS = 120;
    this.ready = this.ending = this.over = false;
    this.open();
  }

  get begun() { return this.base / this.recording.rate; }

  open() {
    if (this.over) return;
    this.tell("connecting");
    const url = new URL("ws/emotion", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.search = url.hash = "";
    const socket = new WebSocket(url);
    let opened = false;
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    const patience = setTimeout(() => socket.close(), CONNECT_S * 1000);
    const mine = (act) => (event) => { if (this.socket === socket && !this.over) act(event); };
    socket.onopen = mine(() => {
      opened = true;
      clearTimeout(patience);
      if (this.session) this.say({ type: "session.resume", session_id: this.session.id, secret: this.session.secret, last_event_id: this.last });
      else this.start();
    });
    socket.onmessage = mine(({ data }) => this.hear(JSON.parse(data)));
    socket.onclose = mine(async () => {
      clearTimeout(patience);
      this.ready = false;
      const why = opened ? null : await whyNot();
      if (this.socket === socket && !this.over) this.again(why);
    });
  }

  again(why) {
    const now = performance.now();
    this.lostAt = this.lostAt || now;
    this.tries += 1;
    const givenUp = this.session ? now - this.lostAt > this.resumeS * 1000 : this.tries >= FIRST_TRIES;
    if (why === "token" || (why === "refused" && !this.session) || givenUp) return this.fail(why || "unreachable");
    const wait = WAITS_S[Math.min(this.tries, WAITS_S.length) - 1];
    this.tell("lost");
    this.timer = setTimeout(() => this.open(), wait * 1000);
  }

  fail(why, event) {
    this.close();
    this.tell("failed", { why, event });
  }

  close() {
    this.over = true;
    this.ready = false;
    clearTimeout(this.timer);
    clearTimeout(this.patience);
    if (this.socket) this.socket.close(1000);
  }

  say(message) { this.socket.send(JSON.stringify(message)); }

  start() { this.say({ type: "session.start", sample_rate: this.recording.rate, frames: false, stats_s: 0, ...this.config }); }

  restart() { // the server does not know the session any more: a new one takes over, from where nothing is cut
    if (this.ending) return this.fail("noend");
    const oldest = this.recording.samples - BACKLOG_S * this.recording.rate;
    const wanted = Math.min(this.sent, this.keepFrom);
    this.session = null;
    this.last = 0;
    this.base = this.sent = Math.max(wanted, Math.round(oldest));
    this.tell("restarted", { wanted: wanted / this.recording.rate });
    this.start();
  }

  hear(event) {
    if (event.event_id) this.last = event.event_id;
    if (event.type === "session.created") {
      this.session = { id: event.session_id, secret: event.secret };
      this.resumeS = event.resume_s;
      this.connected("created");
    } else if (event.type === "session.resumed") {
      this.sent = this.base + event.received_input;
      this.connected("resumed", { lostEvents: event.lost });
    } else if (event.type === "error" && event.code === "SESSION_UNKNOWN") {
      this.restart();
    } else if (event.type === "error" && event.fatal) {
      if (event.code === "AT_CAPACITY" && this.session && !this.ready) return; // said before the resume was read
      if (event.code === "SHUTTING_DOWN") return; // its end follows
      this.fatal = event;
      if (!this.session || !this.ready) this.fail("error", event);
    } else if (event.type === "session.ended") {
      if (event.reason === "SHUTTING_DOWN" && !this.ending) return this.socket.close(); // it may come back
      this.close();
      if (this.fatal && !this.ending) this.tell("failed", { why: "error", event: this.fatal });
      else this.tell("over", { reason: event.reason });
    } else {
      this.tell("event", event);
    }
  }

  connected(what, facts) {
    this.ready = true;
    this.tries = this.lostAt = 0;
    this.asked = false;
    if (what === "resumed") this.say({ type: "session.update", ...this.config }); // chosen anew during the break
    this.tell(what, facts);
    this.pump();
  }

  pump(most = CATCH_UP) { // called for every frame that comes in
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) return;
    const { rate, samples } = this.recording, size = Math.round(rate / 10);
    const oldest = samples - Math.round(BACKLOG_S * rate);
    if (this.sent < oldest) {
      this.say({ type: "audio.gap", samples: oldest - this.sent });
      this.sent = oldest;
    }
    for (let i = 0; i < most && this.sent < samples && this.socket.bufferedAmount < BUFFERED_BYTES; i++) {
      const end = Math.min(samples, (Math.floor(this.sent / size) + 1) * size);
      for (const part of this.recording.parts(this.sent, end)) this.socket.send(part);
      this.sent = end;
    }
    if (this.ending && this.sent >= samples && !this.asked) {
      this.asked = true;
      this.say({ type: "session.end" });
    }
  }

  update(config) {
    Object.assign(this.config, config);
    if (this.ready) this.say({ type: "session.update", ...config });
  }

  end() { // the last answers, then over
    this.ending = true;
    this.patience = setTimeout(() => this.fail("noend"), END_S * 1000);
    const flush = () => { if (!this.over && !this.asked) { this.pump(20); setTimeout(flush, 50); } };
    flush();
  }
}
