"use strict";
// A listening test: items in an order of the listener's own, answers kept in the browser until they are saved as JSON.
(() => {
  const by = (id) => document.getElementById(id);
  const study = JSON.parse(by("study").textContent);
  const shelf = `descant-listening:${study.study}`;
  const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

  const make = (name, text, settings = {}) => {
    const element = document.createElement(name);
    if (text) element.textContent = text;
    for (const [key, value] of Object.entries(settings)) element.setAttribute(key, value);
    return element;
  };
  // Random numbers from a text: FNV-1a, then Marsaglia's xorshift32.
  const random = (text) => {
    let state = 2166136261;
    for (const byte of new TextEncoder().encode(text)) state = Math.imul(state ^ byte, 16777619);
    state = state >>> 0 || 1;
    const next = () => {
      state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
      return (state >>> 0) / 4294967296;
    };
    for (let k = 0; k < 16; k++) next();
    return next;
  };
  const shuffled = (list, text) => {
    const next = random(text);
    const out = [...list];
    for (let k = out.length - 1; k > 0; k--) {
      const j = Math.floor(next() * (k + 1));
      [out[k], out[j]] = [out[j], out[k]];
    }
    return out;
  };

  // --- what is kept
  let state = null;
  try { state = JSON.parse(localStorage.getItem(shelf)); } catch { state = null; }
  const keep = () => { try { localStorage.setItem(shelf, JSON.stringify(state)); } catch { /* a closed browser: kept in memory */ } };
  const forget = () => { state = null; try { localStorage.removeItem(shelf); } catch { /* as above */ } };
  const items = () => shuffled(study.items, `${study.seed}|${state.listener}|items`);
  const orderOf = (item) => shuffled(item.sounds, `${study.seed}|${state.listener}|${item.code}`);

  // --- one item
  let stage = null;
  let item = null;
  let draft = null;
  let shownAt = 0;

  const show = (name) => { for (const part of ["intro", "trial", "end"]) by(part).hidden = part !== name; };
  const fail = (error) => { by("trouble").hidden = false; by("trouble").textContent = error.message || String(error); };

  const buttonFor = (code, name, key) => {
    const button = make("button", name, {
      type: "button", class: "sound", "data-code": code, "aria-pressed": "false",
    });
    if (key) { button.append(make("kbd", key)); button.setAttribute("aria-keyshortcuts", key); }
    button.addEventListener("click", () => { stage.choose(code); update(); });
    return button;
  };
  const scale = () => {
    const box = make("div", "", { class: "scale", "aria-hidden": "true" });
    for (const word of ["Bad", "Poor", "Fair", "Good", "Excellent"]) box.append(make("span", word));
    return box;
  };

  function mushra(order) {
    const list = make("ol", "", { class: "ratings" });
    draft = { ratings: {} };
    order.forEach((code, place) => {
      const row = make("li");
      const name = `Sound ${letters[place]}`;
      const key = place < 9 ? String(place + 1) : ""; // a key has one digit
      const slider = make("input", "", { type: "range", min: 0, max: 100, step: 1, value: 0, class: "fresh",
        "aria-label": `Rating of ${name}, 0 bad to 100 excellent`, "data-code": code });
      const shown = make("output", "not rated");
      const rate = () => {
        draft.ratings[code] = Number(slider.value);
        slider.classList.remove("fresh");
        shown.textContent = slider.value;
        update();
      };
      for (const kind of ["input", "change", "pointerup"]) slider.addEventListener(kind, rate);
      row.append(buttonFor(code, name, key), slider, shown);
      list.append(row);
    });
    by("answer").append(scale(), list);
  }
  function pair(order) {
    const options = make("fieldset", "", { class: "choice" });
    options.append(make("legend", study.kind === "abx" ? "Which one is X?" : study.question));
    const row = make("div", "", { class: "sounds" });
    order.forEach((code, place) => row.append(buttonFor(code, `Sound ${letters[place]}`, String(place + 1))));
    const all = order.map((code, place) => [code, study.kind === "abx" ? `X is ${letters[place]}` : `Sound ${letters[place]}`]);
    if (study.kind === "ab" && study.ties) all.push(["", "No preference"]);
    draft = { choice: null };
    if (study.kind === "abx") {
      draft.x = order[random(`${study.seed}|${state.listener}|${item.code}|x`)() < 0.5 ? 0 : 1];
      const unknown = buttonFor("x", "X", "3"); // its own place in the stage, so that the page does not show which it is
      row.append(unknown);
    }
    for (const [code, name] of all) {
      const label = make("label");
      const radio = make("input", "", { type: "radio", name: "choice", value: code });
      radio.addEventListener("change", () => { draft.choice = code; update(); });
      label.append(radio, make("span", name));
      options.append(label);
    }
    by("answer").append(row, options);
  }

  async function present() {
    const all = items();
    item = all[state.answers.length];
    if (!item) { finish(); return; }
    show("trial");
    by("trial").setAttribute("aria-busy", "true");
    by("progress").max = all.length;
    by("progress").value = state.answers.length;
    by("count").textContent = `Item ${state.answers.length + 1} of ${all.length}`;
    by("caption").textContent = item.caption || "";
    by("answer").replaceChildren();
    by("references").replaceChildren();
    by("hint").textContent = "Loading the sounds …";
    const order = orderOf(item);
    if (item.reference) by("references").append(buttonFor(item.reference, "Reference", "0"));
    (study.kind === "mushra" ? mushra : pair)(order);
    draft.order = order;
    update();
    try {
      await stage.load([...(item.reference ? [item.reference] : []), ...order], item.rate);
      if (draft.x) stage.sounds.set("x", { buffer: stage.sounds.get(draft.x).buffer, heard: 0 });
    } catch (error) { fail(error); return; }
    by("seek").max = stage.length;
    by("loop").checked = true;
    shownAt = performance.now();
    by("trial").removeAttribute("aria-busy");
    update();
  }

  const codes = () => [...document.querySelectorAll("#trial .sound")].map((button) => button.dataset.code);
  const ready = () => stage.sounds.size > 0 && !by("trial").hasAttribute("aria-busy");

  function update() {
    if (!stage || by("trial").hidden) return;
    let unheard = 0;
    for (const button of document.querySelectorAll("#trial .sound")) {
      const code = button.dataset.code;
      const heard = stage.wasHeard(code);
      unheard += !heard;
      button.disabled = !ready();
      button.classList.toggle("heard", heard);
      button.setAttribute("aria-pressed", String(stage.current === code));
    }
    for (const input of document.querySelectorAll("#answer input")) input.disabled = !ready();
    const answered = study.kind === "mushra"
      ? draft.order.every((code) => code in draft.ratings)
      : draft.choice !== null;
    const left = [];
    if (unheard) left.push(unheard === 1 ? "one sound is still to be heard" : `${unheard} sounds are still to be heard`);
    if (!answered) left.push(study.kind === "mushra" ? "every sound needs a rating" : "an answer is still to be given");
    if (ready()) by("hint").textContent = left.length ? `To go on: ${left.join(", ")}.` : "";
    by("next").disabled = !ready() || left.length > 0;
    by("play").textContent = stage.running ? "❚❚ Pause" : "▶ Play";
    by("play").disabled = !ready() || !stage.current;
    if (ready() && document.activeElement !== by("seek")) by("seek").value = stage.position();
    by("clock").textContent = ready() ? `${stage.position().toFixed(1)} / ${stage.length.toFixed(1)} s` : "";
    const [low, high] = ready() ? stage.limits() : [0, 0];
    by("region").textContent = ready() && stage.region ? `${low.toFixed(1)} to ${high.toFixed(1)} s` : "";
  }

  function next() {
    stage.stop();
    const answer = { item: item.code, order: draft.order, seconds: Math.round((performance.now() - shownAt) / 100) / 10 };
    if (study.kind === "mushra") answer.ratings = draft.ratings;
    else answer.choice = draft.choice === "" ? null : draft.choice;
    if (draft.x) answer.x = draft.x;
    state.answers.push(answer);
    keep();
    present();
  }

  function finish() {
    show("end");
    state.finished = state.finished || new Date().toISOString();
    keep();
    const text = JSON.stringify({ schema: "descant-answers/1", study: study.study, kind: study.kind, listener: state.listener,
      started: state.started, finished: state.finished, answers: state.answers }, null, 1);
    by("raw").textContent = text;
    const name = state.listener.replace(/[^\p{L}\p{N}_-]+/gu, "_").slice(0, 40);
    by("save").href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    by("save").download = `answers-${study.study.slice(0, 8)}-${name}.json`;
  }

  function begin() {
    by("trouble").hidden = true;
    if (!stage) stage = new DescantStage(update);
    present();
  }

  // --- controls
  by("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const listener = by("listener").value.trim();
    if (!listener) return;
    state = { listener, started: new Date().toISOString(), answers: [] };
    keep();
    begin();
  });
  by("play").addEventListener("click", () => { stage.toggle(); update(); });
  by("next").addEventListener("click", next);
  by("seek").addEventListener("input", (event) => stage.seek(Number(event.target.value)));
  by("loop").addEventListener("change", (event) => stage.setLoop(event.target.checked));
  by("from").addEventListener("click", () => {
    const place = Math.min(stage.position(), stage.length - 0.5);
    const high = stage.region ? stage.region[1] : stage.length;
    stage.setRegion([Math.max(0, place), high > place + 0.4 ? high : stage.length]);
    update();
  });
  by("to").addEventListener("click", () => {
    const low = stage.region ? stage.region[0] : 0;
    const place = stage.position();
    stage.setRegion([low < place - 0.4 ? low : 0, Math.max(0.5, place)]);
    update();
  });
  by("whole").addEventListener("click", () => { stage.setRegion(null); update(); });
  by("again").addEventListener("click", () => {
    if (!confirm("Delete these answers from this browser and begin anew?")) return;
    forget();
    by("listener").value = "";
    show("intro");
  });
  document.addEventListener("keydown", (event) => {
    if (by("trial").hidden || !ready() || event.ctrlKey || event.metaKey || event.altKey) return;
    const number = event.key.length === 1 ? "0123456789".indexOf(event.key) : -1;
    if (number >= 0) {
      const key = String(number);
      const button = [...document.querySelectorAll("#trial .sound")].find((one) => one.getAttribute("aria-keyshortcuts") === key);
      if (button) { stage.choose(button.dataset.code); event.preventDefault(); }
    } else if (event.key === " " && !["BUTTON", "INPUT"].includes(document.activeElement.tagName)) {
      stage.toggle();
      event.preventDefault();
    }
  });

  if (state && state.listener) {
    by("listener").value = state.listener;
    by("resume").hidden = state.answers.length >= study.items.length;
    by("resume").textContent = `Go on as ${state.listener}, item ${state.answers.length + 1}`;
    by("resume").addEventListener("click", begin);
    if (state.answers.length >= study.items.length) finish();
  }
})();
