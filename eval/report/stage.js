"use strict";
// The sounds of one item, decoded and started together on one clock: changing from one to another is only a change of
// gains, so it is exact to the sample, loops included. Sounds come as scripts beside the page, because a page that is
// opened from a folder may not read files.
window.DescantStage = class {
  static RAMP = 0.008; // seconds of a change: short enough to be at once, long enough not to click

  constructor(onTick) {
    this.onTick = onTick;
    this.loaded = new Map();
    this.waiting = new Map();
    this.sounds = new Map();
    this.current = null;
    this.running = false;
    this.offset = 0;
    this.region = null;
    window.descantSound = (code, text) => {
      const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
      const done = this.waiting.get(code);
      if (done) done(bytes.buffer);
    };
    setInterval(() => this.tick(), 50);
  }

  fetchSound(code) {
    return new Promise((resolve, reject) => {
      this.waiting.set(code, resolve);
      const script = document.createElement("script");
      script.src = `sounds/${code}.js`;
      script.onload = () => script.remove();
      script.onerror = () => reject(new Error(`The sound sounds/${code}.js could not be loaded.`));
      document.head.append(script);
    });
  }

  async load(codes, rate) {
    this.stop();
    this.sounds.clear();
    if (this.context) await this.context.close();
    this.context = new AudioContext({ sampleRate: rate });
    for (const code of codes) {
      const data = await this.fetchSound(code);
      this.waiting.delete(code);
      this.sounds.set(code, { buffer: await this.context.decodeAudioData(data), heard: 0 });
    }
    this.length = Math.max(...[...this.sounds.values()].map((sound) => sound.buffer.duration));
    this.offset = 0;
    this.current = null;
    this.region = null;
    this.loop = true;
    this.last = null;
  }

  limits() { return this.region || [0, this.length]; }

  position() {
    if (!this.running) return this.offset;
    const passed = this.offset + Math.max(0, this.context.currentTime - this.started);
    const [low, high] = this.limits();
    if (!this.loop) return Math.min(passed, this.length);
    return passed < high ? passed : low + ((passed - low) % (high - low));
  }

  start() {
    const [low, high] = this.limits();
    if (this.offset < low || this.offset >= high - 0.005) this.offset = low;
    this.context.resume();
    const at = this.context.currentTime + 0.03;
    for (const [code, sound] of this.sounds) {
      sound.source = this.context.createBufferSource();
      sound.source.buffer = sound.buffer;
      sound.source.loop = this.loop;
      [sound.source.loopStart, sound.source.loopEnd] = [low, high];
      sound.gain = this.context.createGain();
      sound.gain.gain.value = code === this.current ? 1 : 0;
      sound.source.connect(sound.gain).connect(this.context.destination);
      sound.source.start(at, this.offset);
    }
    this.started = at;
    this.last = null;
    this.running = true;
  }

  stop() {
    if (!this.running) return;
    this.offset = this.position();
    this.running = false;
    for (const sound of this.sounds.values()) {
      sound.source.stop();
      sound.source.disconnect();
      sound.gain.disconnect();
    }
  }

  // Make one of the sounds the audible one, and play.
  choose(code) {
    this.current = code;
    if (!this.running) { this.start(); return; }
    const now = this.context.currentTime;
    for (const [name, sound] of this.sounds) {
      const gain = sound.gain.gain;
      gain.cancelScheduledValues(now);
      gain.setValueAtTime(gain.value, now);
      gain.linearRampToValueAtTime(name === code ? 1 : 0, now + DescantStage.RAMP);
    }
  }

  toggle() {
    if (this.running) this.stop();
    else if (this.current) this.start();
  }

  again(change) {
    const running = this.running;
    this.stop();
    change();
    if (running) this.start();
  }

  seek(seconds) { this.again(() => { this.offset = Math.min(Math.max(0, seconds), this.length - 0.01); }); }

  setLoop(on) { this.again(() => { this.loop = on; }); }

  setRegion(region) { this.again(() => { this.region = region; }); }

  tick() {
    if (this.running && this.context.state === "running") {
      const now = this.context.currentTime;
      const sound = this.sounds.get(this.current);
      if (sound && this.last !== null && now > this.started) sound.heard += now - this.last;
      this.last = now;
      if (!this.loop && this.position() >= this.limits()[1] - 0.005) { this.stop(); this.offset = this.limits()[0]; }
    }
    this.onTick();
  }

  // A sound counts as heard after a second of it, or half of a shorter one.
  wasHeard(code) {
    const sound = this.sounds.get(code);
    return Boolean(sound) && sound.heard >= Math.min(1, sound.buffer.duration / 2);
  }
};
