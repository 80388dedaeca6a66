// Pictures of sound on a canvas: waveform, spectrogram, piano roll. Nothing is fetched here.

const COLOURS = [[13, 12, 34], [62, 32, 104], [158, 48, 110], [226, 96, 72], [247, 178, 90], [253, 246, 214]];
const LOW = 40, HIGH = 16000, FLOOR = -84, TOP = -12;
const SIZE = 2048;

function sized(canvas) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  return canvas.getContext("2d");
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The mean of all channels. */
export function mono(buffer) {
  const sum = new Float32Array(buffer.length);
  for (let c = 0; c < buffer.numberOfChannels; c++) {
    const one = buffer.getChannelData(c);
    for (let i = 0; i < one.length; i++) { sum[i] += one[i] / buffer.numberOfChannels; }
  }
  return sum;
}

/** The lowest and highest sample of each column; `share` (0 to 1) of it was played. */
export function wave(canvas, data, share = 0) {
  const pen = sized(canvas), { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  let peak = 0.05;
  for (let i = 0; i < data.length; i++) { peak = Math.max(peak, Math.abs(data[i])); }
  for (let x = 0; x < width; x++) {
    const from = Math.floor(x * data.length / width), to = Math.max(from + 1, Math.floor((x + 1) * data.length / width));
    let low = 0, high = 0;
    for (let i = from; i < to && i < data.length; i++) { low = Math.min(low, data[i]); high = Math.max(high, data[i]); }
    pen.fillStyle = colour(x < share * width ? "--accent" : "--edge");
    const y = height / 2 - high / peak * height * 0.46;
    pen.fillRect(x, y, 1, Math.max(1, (high - low) / peak * height * 0.46));
  }
}

/** In-place radix-2 transform (Cooley and Tukey 1965) of a power of two of samples. */
export function fft(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) { j ^= bit; }
    j ^= bit;
    if (i < j) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; }
  }
  for (let size = 2; size <= n; size <<= 1) {
    const angle = -2 * Math.PI / size;
    for (let k = 0; k < size / 2; k++) {
      const c = Math.cos(angle * k), s = Math.sin(angle * k);
      for (let start = k; start < n; start += size) {
        const other = start + size / 2;
        const r = re[other] * c - im[other] * s, i = re[other] * s + im[other] * c;
        re[other] = re[start] - r; im[other] = im[start] - i;
        re[start] += r; im[start] += i;
      }
    }
  }
}

function shade(level) {
  const place = Math.max(0, Math.min(0.9999, (level - FLOOR) / (TOP - FLOOR))) * (COLOURS.length - 1);
  const at = Math.floor(place), rest = place - at;
  return COLOURS[at].map((v, i) => v + rest * (COLOURS[at + 1][i] - v));
}

/** Level by time and pitch (logarithmic, 40 Hz to 16 kHz); long sounds are looked at column by column. */
export async function spectrogram(canvas, data, rate) {
  const pen = sized(canvas), { width, height } = canvas;
  const picture = pen.createImageData(width, height);
  const window_ = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * (i + 0.5) / SIZE));
  const top = Math.min(HIGH, rate / 2);
  const edges = Array.from({ length: height + 1 }, (_, y) => LOW * (top / LOW) ** (1 - y / height) * SIZE / rate);
  const re = new Float32Array(SIZE), im = new Float32Array(SIZE);
  let began = performance.now();
  for (let x = 0; x < width; x++) {
    const first = Math.round((x + 0.5) * data.length / width - SIZE / 2);
    for (let i = 0; i < SIZE; i++) { re[i] = (data[first + i] || 0) * window_[i]; im[i] = 0; }
    fft(re, im);
    for (let y = 0; y < height; y++) {
      const to = Math.max(1, Math.min(SIZE / 2 - 1, Math.round(edges[y])));
      const from = Math.max(1, Math.min(to, Math.round(edges[y + 1])));
      let power = 0;
      for (let k = from; k <= to; k++) { power = Math.max(power, re[k] * re[k] + im[k] * im[k]); }
      const [r, g, b] = shade(10 * Math.log10(power / (SIZE / 4) ** 2 + 1e-12));
      picture.data.set([r, g, b, 255], 4 * (y * width + x));
    }
    if (performance.now() - began > 25) {  // the page stays alive meanwhile
      await new Promise((done) => setTimeout(done));
      began = performance.now();
    }
  }
  pen.putImageData(picture, 0, 0);
}

const NAMES = ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"];

/** The name of a MIDI pitch, 60 being C4. */
export function called(pitch) {
  return NAMES[pitch % 12] + (Math.floor(pitch / 12) - 1);
}

/** Notes [start s, end s, MIDI pitch] over `seconds`. */
export function roll(canvas, notes, seconds) {
  const pen = sized(canvas), { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  const pitches = notes.map((note) => note[2]);
  const low = Math.min(...pitches) - 2, high = Math.max(...pitches) + 2, step = height / (high - low + 1);
  pen.font = `${Math.round(height / 12)}px system-ui, sans-serif`;
  for (let pitch = low; pitch <= high; pitch++) {
    if (pitch % 12) { continue; }
    const y = (high - pitch + 1) * step;
    pen.fillStyle = colour("--rule");
    pen.fillRect(0, y, width, 1);
    pen.fillStyle = colour("--soft");
    pen.fillText(called(pitch), 4, y - 3);
  }
  pen.fillStyle = colour("--accent");
  for (const [start, end, pitch] of notes) {
    pen.fillRect(start / seconds * width, (high - pitch) * step, Math.max(1, (end - start) / seconds * width - 1), Math.max(2, step - 1));
  }
}
