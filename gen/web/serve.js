// The page of `descant serve`: a form, a list of jobs, one stream of progress at a time. No libraries, nothing foreign.
import { mono, roll, spectrogram, wave } from "./draw.js";
import { decoded, possible, record } from "./record.js";

const $ = (id) => document.getElementById(id);
const form = $("form"), list = $("list"), KEPT = "descant-jobs", LONGEST = 900;
const VERBS = { generate: "Generate", extend: "Extend", separate: "Separate", accompany: "Accompany" };
const DONE = ["done", "failed", "cancelled"];
const jobs = new Map();  // id -> {state, card}
let about = null, verb = "generate", chosen = null, recording = null, stream = null;

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) { node.addEventListener(name.slice(2), value); }
    else if (value === true) { node.setAttribute(name, ""); }
    else if (value !== false && value != null) { node.setAttribute(name, value); }
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function say(text) { $("said").textContent = text; }

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

async function ask(path, options = {}) {
  let reply;
  try { reply = await fetch(path, options); } catch { throw new Error("The server does not answer. Is it still running?"); }
  const data = await reply.json().catch(() => ({}));
  if (!reply.ok) {
    const wait = reply.headers.get("retry-after");
    const error = new Error((data.error || `The server answers ${reply.status}`) + (wait ? ` (in about ${wait} s)` : ""));
    error.status = reply.status;
    throw error;
  }
  return data;
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const plain = (seconds) => `${Math.round(seconds * 10) / 10} s`;

// -- the form

function show(name) {
  // a melody is something else than music to work on
  if (about?.melody && chosen && (name === "generate") !== (verb === "generate")) { choose(null); }
  verb = name;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const mine = tab.dataset.verb === name;
    tab.setAttribute("aria-selected", mine);
    tab.tabIndex = mine ? 0 : -1;
  }
  form.setAttribute("aria-labelledby", `tab-${name}`);
  for (const part of form.querySelectorAll("[data-for]")) {
    const verbs = part.dataset.for.split(" ");
    part.hidden = !verbs.includes(name) && !(name === "generate" && about?.melody && verbs.includes("melody"));
  }
  $("given-label").textContent = {
    generate: "A melody to follow, if you like", extend: "The music to continue", separate: "The music to take apart",
    accompany: "The music to accompany",
  }[name];
  $("text-label").textContent = { extend: "What should follow, if you like", accompany: "What the parts are like, if you like" }[name] || "What to play";
  $("duration-label").textContent = name === "extend" ? "Seconds to add" : "Seconds";
  $("go").textContent = VERBS[name];
  trouble("");
}

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => show(tab.dataset.verb));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) { return; }
    const tabs = [...document.querySelectorAll("[role=tab]:not([hidden])")];
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    next.focus();
    show(next.dataset.verb);
    event.preventDefault();
  });
}

function choose(file) {
  if (chosen) { URL.revokeObjectURL($("preview").src); }
  chosen = file;
  $("preview").hidden = $("forget").hidden = !file;
  if (file) {
    $("preview").src = URL.createObjectURL(file);
    $("chosen").textContent = `${file.name}, ${(file.size / 1e6).toFixed(1)} MB`;
  } else {
    $("preview").removeAttribute("src");
    $("file").value = "";
    $("chosen").textContent = "WAV, FLAC, OGG, Opus or MP3; or drop one here.";
  }
  trouble("");
}

$("file").addEventListener("change", () => { if ($("file").files.length) { choose($("file").files[0]); } });
$("forget").addEventListener("click", () => { choose(null); $("file").focus(); });
$("given").addEventListener("dragover", (event) => { event.preventDefault(); $("given").classList.add("over"); });
$("given").addEventListener("dragleave", () => $("given").classList.remove("over"));
$("given").addEventListener("drop", (event) => {
  event.preventDefault();
  $("given").classList.remove("over");
  if (event.dataTransfer.files.length) { choose(event.dataTransfer.files[0]); }
});

$("record").addEventListener("click", async () => {
  if (recording) { recording.stop(); return; }
  try {
    recording = await record(about.limits.given);
    $("record").textContent = "Stop";
    $("record").classList.add("live");
    $("chosen").textContent = "Recording…";
    choose(await recording.file);
  } catch (error) {
    choose(null);
    trouble(error.name === "NotAllowedError" ? "The browser does not let this page use the microphone." : `Nothing was recorded: ${error.message}`);
  }
  recording = null;
  $("record").textContent = "Record";
  $("record").classList.remove("live");
});

function fields() {
  const found = {};
  for (const part of form.querySelectorAll("[name]")) {
    if (part.closest("[hidden]")) { continue; }
    const value = part.type === "checkbox" ? (part.checked ? "true" : "") : part.value.trim();
    if (value) { found[part.name] = value; }
  }
  if (verb === "accompany") {
    found.parts = [...document.querySelectorAll("#parts input:checked")].map((box) => box.value).join(",");
  }
  return found;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  trouble("");
  if (verb !== "generate" && !chosen) { trouble("Choose a file first, or record one."); $("file").focus(); return; }
  if (chosen && !$("given").hidden && chosen.size > about.limits.upload) {
    trouble(`${chosen.name} is larger than ${about.limits.upload / 1e6} MB, the most this server takes.`);
    return;
  }
  const asked = fields();
  let options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked) };
  if (chosen && !$("given").hidden) {
    const body = new FormData();
    Object.entries(asked).forEach(([name, value]) => body.append(name, value));
    body.append("file", chosen, chosen.name);
    options = { method: "POST", body };
  }
  $("go").disabled = true;
  try {
    const state = await ask(`/api/${verb}`, options);
    add(state, asked.text);
    say(`${VERBS[verb]}: in the queue`);
    follow();
  } catch (error) { trouble(error.message); }
  $("go").disabled = false;
});

form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
});

// -- the jobs

function keep() {
  const ids = [...jobs].filter(([, job]) => job.state.status !== "cancelled").map(([id, job]) => [id, job.text || ""]);
  try { sessionStorage.setItem(KEPT, JSON.stringify(ids)); } catch { /* without it a reload begins anew */ }
}

function add(state, text) {
  const card = make("article", { class: "job", id: `job-${state.id}` });
  jobs.set(state.id, { state: {}, card, text });
  list.prepend(card);
  $("none").hidden = true;
  update(state);
  keep();
}

function update(state) {
  const job = jobs.get(state.id);
  if (!job) { return; }
  const before = job.state.status;
  job.state = state;
  if (before !== state.status) {
    render(job);
    if (DONE.includes(state.status)) { say(`${VERBS[state.kind]}: ${state.status === "done" ? "done" : state.error || state.status}`); }
  }
  const bar = job.card.querySelector("progress"), words = job.card.querySelector(".words");
  if (!bar) { return; }
  if (state.status === "running" && state.progress) {
    bar.value = state.progress;
    words.textContent = `${Math.round(100 * state.progress)} %`;
  } else {
    bar.removeAttribute("value");
    words.textContent = state.status === "queued" && state.before ? `Waiting for ${state.before} before it` : "Working";
  }
}

function gone(id) {
  jobs.get(id)?.card.remove();
  jobs.delete(id);
  $("none").hidden = jobs.size > 0;
  keep();
}

async function refresh(id) {
  try { update(await ask(`/api/jobs/${id}`)); } catch (error) { if (error.status === 404) { gone(id); } }
}

/** Listen to the oldest job that is not finished; browsers open few connections to one server. */
function follow() {
  if (stream) { return; }
  const open = [...jobs].filter(([, job]) => !DONE.includes(job.state.status)).map(([id]) => id);
  if (!open.length) { return; }
  stream = new EventSource(`/api/jobs/${open[0]}/events`);
  const end = () => {
    stream.close();
    stream = null;
    open.slice(1).forEach(refresh);
  };
  stream.addEventListener("state", (event) => update(JSON.parse(event.data)));
  // the server ends the stream after the last state, which a browser takes for a fault
  stream.addEventListener("error", () => {
    end();
    const job = jobs.get(open[0]);
    if (!job || DONE.includes(job.state.status)) { follow(); } else { refresh(open[0]).then(() => setTimeout(follow, 1000)); }
  });
}

async function remove(id) {
  try { await ask(`/api/jobs/${id}`, { method: "DELETE" }); } catch (error) { if (error.status !== 404) { trouble(error.message); return; } }
  const job = jobs.get(id);
  if (job && !DONE.includes(job.state.status)) { job.card.querySelector(".words").textContent = "Stopping"; refresh(id); return; }
  gone(id);
  $("results").focus();
}

function render(job) {
  const { card, state, text } = job, id = state.id, finished = DONE.includes(state.status);
  const title = text || state.input || VERBS[state.kind];
  const status = { receiving: "sent", queued: "waiting", running: "working", done: `done in ${plain(state.took || 0)}`, failed: "failed", cancelled: "cancelled" };
  card.replaceChildren(make("header", {}, make("h3", {}, title), make("span", { class: "quiet" }, `${VERBS[state.kind]}, ${status[state.status]}`)));
  if (!finished) {
    card.append(
      make("progress", { max: 1, "aria-label": `Progress of: ${title}` }),
      make("div", { class: "row" }, make("button", { type: "button", onclick: () => remove(id), "aria-label": `Cancel: ${title}` }, "Cancel"), make("span", { class: "words quiet" })),
    );
    return;
  }
  if (state.error) { card.append(make("p", { class: "error" }, state.error)); }
  if (state.result) { results(job, title); }
  const row = make("div", { class: "row" });
  if (state.result) { actions(row, state); }
  row.append(make("button", { type: "button", onclick: () => remove(id), "aria-label": `Remove: ${title}` }, "Remove"));
  card.append(row);
}

function actions(row, state) {
  const { seed, zip, sounds } = state.result;
  row.append(make("a", { class: "button", href: zip, download: true }, "All as ZIP"));
  if (seed != null) {
    row.append(make("button", { type: "button", onclick: () => { $("seed").value = seed; $("seed").focus(); say(`Seed ${seed} is set`); } }, `Use seed ${seed}`));
  }
  const first = sounds.find((sound) => ["music", "mix"].includes(sound.name));
  for (const next of first ? ["extend", "separate"] : []) {
    row.append(make("button", { type: "button", onclick: () => hand(first, next, seed) }, `${VERBS[next]} this`));
  }
}

/** A result becomes what the next verb is given. */
async function hand(sound, next, seed) {
  try {
    const reply = await fetch(sound.url);
    if (!reply.ok) { throw new Error("This result is not kept any more."); }
    const file = new File([await reply.blob()], `${sound.name}${seed == null ? "" : `-${seed}`}.wav`, { type: "audio/wav" });
    show(next);
    choose(file);
    $("go").focus();
  } catch (error) { trouble(error.message); }
}

function results({ card, state }, title) {
  const { result } = state, said = { ...result.chosen, ...result.asked };
  const facts = [["Seed", result.seed], ["Genre", said.genre], ["Tempo", said.tempo && `${said.tempo} BPM`], ["Key", said.key],
    ["Instruments", said.instruments?.join(", ")], ["Chords", said.chords?.join(" ")], ["Lead away from", said.negative], ["Separator", result.separator]];
  for (const sound of result.sounds) { card.append(player(sound, title)); }
  if (result.tune?.notes.length) {
    const canvas = make("canvas", { class: "roll", role: "img", "aria-label": `Notes of ${result.tune.of}: ${result.tune.notes.length}` });
    card.append(make("figure", { class: "sound" }, make("figcaption", {}, `The tune of ${result.tune.of}, as it is heard`), canvas));
    requestAnimationFrame(() => roll(canvas, result.tune.notes, Math.max(...result.sounds.map((sound) => sound.seconds))));
  }
  const told = make("dl", { class: "plan" });
  for (const [name, value] of facts) { if (value != null && value !== "") { told.append(make("dt", {}, name), make("dd", {}, String(value))); } }
  if (told.children.length) { card.append(told); }
  if (result.notes?.length) { card.append(make("ul", { class: "notes" }, ...result.notes.map((note) => make("li", {}, note)))); }
}

function player(sound, title) {
  const name = sound.name[0].toUpperCase() + sound.name.slice(1);
  const audio = make("audio", { controls: true, preload: "metadata", src: sound.url, "aria-label": `${name} of: ${title}` });
  const waves = make("canvas", { class: "wave", "aria-hidden": "true" }), picture = make("canvas", { class: "picture", role: "img", "aria-label": `Spectrogram of ${name}` });
  const kind = `${plain(sound.seconds)}, ${sound.rate / 1000} kHz, ${sound.channels === 1 ? "mono" : sound.channels === 2 ? "stereo" : `${sound.channels} channels`}`;
  const box = make("div", { class: "sound" },
    make("h4", {}, name, make("span", { class: "quiet" }, kind), make("a", { href: `${sound.url}?download`, download: true, "aria-label": `Download ${name} as WAV` }, "WAV")), audio, waves, picture);
  draw(sound, audio, waves, picture);
  return box;
}

let drawing = Promise.resolve();  // one at a time: decoded sound is large

function draw(sound, audio, waves, picture) {
  if (sound.seconds > LONGEST) { waves.hidden = picture.hidden = true; return; }
  drawing = drawing.then(async () => {
    try {
      const reply = await fetch(sound.url);
      const buffer = await decoded(await reply.blob()), data = mono(buffer);
      wave(waves, data);
      await spectrogram(picture, data, buffer.sampleRate);
      // what was played is coloured from a coarse copy: the whole is not kept
      const step = Math.max(1, Math.floor(data.length / 8000)), coarse = new Float32Array(Math.ceil(data.length / step));
      for (let i = 0; i < data.length; i++) { const at = Math.floor(i / step); if (Math.abs(data[i]) > Math.abs(coarse[at])) { coarse[at] = data[i]; } }
      audio.addEventListener("timeupdate", () => wave(waves, coarse, audio.currentTime / sound.seconds));
      waves.addEventListener("click", (event) => { audio.currentTime = event.offsetX / waves.clientWidth * sound.seconds; });
      waves.dataset.drawn = picture.dataset.drawn = "yes";
    } catch { waves.hidden = picture.hidden = true; }
  });
}

// one player at a time; within a result a newly started one goes on where the other was
document.addEventListener("play", (event) => {
  for (const other of document.querySelectorAll("audio")) {
    if (other === event.target || other.paused) { continue; }
    if (other.closest("article") && other.closest("article") === event.target.closest("article")) { event.target.currentTime = other.currentTime; }
    other.pause();
  }
}, true);

// -- the beginning

function options(select, names) { names.forEach((name) => select.append(make("option", { value: name }, name))); }

async function begin() {
  about = await ask("/api");
  options($("genre"), about.genres);
  options($("key"), about.keys);
  options($("known-instruments"), about.instruments);
  options($("separator"), about.separators);
  $("duration").max = about.limits.seconds;
  $("tab-accompany").hidden = !about.can.includes("accompany");
  $("parts").querySelector("div").append(...about.parts.map((part) => make("label", {}, make("input", { type: "checkbox", value: part }), part)));
  for (const wish of document.querySelectorAll("details [name]")) {
    // a wish the model has no ear for
    wish.closest("label").hidden = !about.wishes.includes(wish.name);
  }
  $("record").hidden = !possible();
  $("model").textContent = `Music from a sentence, on this machine. Model: ${about.model.name}, ${about.model.rate / 1000} kHz; up to ${clock(about.limits.seconds)} at once.`;
  show("generate");
  let kept = [];
  try { kept = JSON.parse(sessionStorage.getItem(KEPT) || "[]"); } catch { /* as if there were none */ }
  for (const [id, text] of kept) {
    try { add(await ask(`/api/jobs/${id}`), text); } catch { /* the server forgot it */ }
  }
  follow();
}

begin().catch((error) => trouble(error.message));
