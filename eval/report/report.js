"use strict";
// The report's page: rank the cards by a metric, sort and search the table of clips, play a row, copy the command.
(() => {
  const by = (id) => document.getElementById(id);
  const plain = (text) => text.normalize("NFKD").toLowerCase();

  // --- cards
  const ranking = by("ranking");
  const cards = [...document.querySelectorAll(".card")];
  const ranks = by("ranks") ? JSON.parse(by("ranks").textContent) : {};
  const wells = new Map([...document.querySelectorAll(".band")].map((well) => [well.dataset.band, well]));

  function find() {
    const wanted = plain(by("find-card").value.trim());
    for (const card of cards) card.hidden = wanted !== "" && !plain(card.textContent).includes(wanted);
    for (const [name, well] of wells) {
      const shown = well.querySelectorAll(".card:not([hidden])").length;
      well.hidden = shown === 0 || (name === "rest" && wanted === "");
    }
  }
  function rank() {
    const { bands, direction } = ranks[ranking.value];
    const home = new Map();
    for (const [band, clips] of Object.entries(bands)) clips.forEach((clip, place) => home.set(clip, [band, place]));
    const placed = cards.map((card) => [card, ...(home.get(card.dataset.clip) || ["rest", 0])]);
    placed.sort((a, b) => a[2] - b[2]);
    for (const [card, band] of placed) {
      wells.get(band).querySelector(".cards").append(card);
      for (const value of card.querySelectorAll(".values li"))
        value.classList.toggle("chosen", value.dataset.metric === ranking.value);
    }
    for (const well of wells.values()) {
      const title = well.querySelector("h3");
      title.textContent = direction === "none" ? title.dataset.unranked : title.dataset.ranked;
    }
    find();
  }
  if (ranking) {
    ranking.addEventListener("change", rank);
    by("find-card").addEventListener("input", find);
    rank();
  }

  // --- the table of clips
  const table = by("clips-table");
  if (table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    const sort = (column) => {
      const head = heads[column];
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value;
      const compare = head.dataset.kind === "number"
        ? (a, b) => Number(a) - Number(b)
        : (a, b) => a.localeCompare(b, "en", { numeric: true });
      rows.sort((one, two) => {
        const [a, b] = [key(one), key(two)];
        if (a === "" || b === "") return (a === "") - (b === ""); // what has no figure stays below
        return up ? compare(a, b) : compare(b, a);
      });
      body.append(...rows);
    };
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => sort(column)));
    by("find-row").addEventListener("input", (event) => {
      const wanted = plain(event.target.value.trim());
      let shown = 0;
      for (const row of rows) {
        row.hidden = wanted !== "" && !plain(row.dataset.text).includes(wanted);
        shown += !row.hidden;
      }
      by("row-count").textContent = shown === rows.length ? `${shown} clips` : `${shown} of ${rows.length} clips`;
    });
    const player = by("dock-player");
    table.addEventListener("click", (event) => {
      const button = event.target.closest(".play");
      if (!button) return;
      by("dock").hidden = false;
      by("dock-name").textContent = button.closest("tr").cells[0].dataset.value;
      player.src = button.dataset.src;
      player.play().catch(() => {});
    });
    by("dock-close").addEventListener("click", () => { player.pause(); by("dock").hidden = true; });
  }

  // --- small things
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(button.parentElement.querySelector("code"));
        button.textContent = "Press Ctrl+C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
  // a link to what lies in a closed box opens the box
  const open = () => {
    const box = location.hash ? by(location.hash.slice(1)) : null;
    if (box && box.tagName === "DETAILS") box.open = true;
  };
  addEventListener("hashchange", open);
  open();
})();
