// The microphone as 16-bit frames of 100 ms. The rounding happens here, so that what is shown, sent and saved is one sound.
registerProcessor("ser-frames", class extends AudioWorkletProcessor {
  constructor() {
    super();
    this.frame = new Int16Array(Math.round(sampleRate / 10));
    this.filled = 0;
    this.open = true;
    this.port.onmessage = () => { // the end: what is left over
      this.open = false;
      this.port.postMessage({ last: this.frame.slice(0, this.filled) });
    };
  }

  process(inputs) {
    const x = inputs[0][0];
    for (let i = 0; this.open && x && i < x.length; i++) {
      this.frame[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(x[i] * 32768)));
      if (this.filled === this.frame.length) {
        this.port.postMessage({ frame: this.frame.slice(0) });
        this.filled = 0;
      }
    }
    return this.open;
  }
});
