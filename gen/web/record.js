// A recording from the microphone as a WAV file: the server reads no WebM, so the browser decodes what it recorded.

/** Whether this page may ask for a microphone: on this machine or over HTTPS. */
export function possible() {
  return Boolean(navigator.mediaDevices && navigator.mediaDevices.getUserMedia && window.MediaRecorder);
}

/** Record until `stop()` is called on what comes back; its `file` then becomes a WAV file. Stops after `limit` s. */
export async function record(limit) {
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const recorder = new MediaRecorder(stream), pieces = [];
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  const file = new Promise((done, failed) => {
    recorder.addEventListener("stop", async () => {
      stream.getTracks().forEach((track) => track.stop());
      try {
        done(new File([wav(await decoded(new Blob(pieces)))], "recording.wav", { type: "audio/wav" }));
      } catch (error) { failed(error); }
    });
  });
  recorder.start(1000);
  const stop = () => { if (recorder.state !== "inactive") { recorder.stop(); } };
  const timer = setTimeout(stop, limit * 1000);
  return { stop: () => { clearTimeout(timer); stop(); }, file };
}

/** What a browser can make of a sound file. */
export async function decoded(blob) {
  const context = new (window.OfflineAudioContext)(1, 1, 44100);
  return context.decodeAudioData(await blob.arrayBuffer());
}

/** An AudioBuffer as WAV of 16 bits (RIFF MCI 1.0, 1991). */
export function wav(buffer) {
  const channels = buffer.numberOfChannels, size = buffer.length * channels * 2;
  const view = new DataView(new ArrayBuffer(44 + size));
  const word = (at, text) => [...text].forEach((sign, i) => view.setUint8(at + i, sign.charCodeAt(0)));
  word(0, "RIFF"); view.setUint32(4, 36 + size, true); word(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, channels, true);
  view.setUint32(24, buffer.sampleRate, true); view.setUint32(28, buffer.sampleRate * channels * 2, true);
  view.setUint16(32, channels * 2, true); view.setUint16(34, 16, true);
  word(36, "data"); view.setUint32(40, size, true);
  for (let c = 0; c < channels; c++) {
    const data = buffer.getChannelData(c);
    for (let i = 0; i < data.length; i++) {
      view.setInt16(44 + 2 * (i * channels + c), Math.round(Math.max(-1, Math.min(1, data[i])) * 32767), true);
    }
  }
  return view.buffer;
}
