"use strict";
// One player at a time, and a stroke that runs over the spectrogram of what plays.
(() => {
  const specOf = (player) => {
    const take = player.closest(".take");
    return take ? take.querySelector(".spec") : null;
  };
  const lengthOf = (spec) => Number(spec.querySelector("img").dataset.seconds) || 0;

  document.addEventListener("play", (event) => {
    for (const other of document.querySelectorAll("audio")) if (other !== event.target) other.pause();
    const spec = specOf(event.target);
    if (!spec) return;
    spec.classList.add("on");
    const follow = () => {
      const seconds = lengthOf(spec);
      const share = seconds ? Math.min(1, event.target.currentTime / seconds) : 0;
      spec.querySelector(".head").style.left = `calc(${(100 * share).toFixed(2)}% - 1px)`;
      if (!event.target.paused) requestAnimationFrame(follow);
    };
    follow();
  }, true);

  document.addEventListener("click", (event) => {
    const spec = event.target.closest(".spec");
    if (!spec) return;
    const player = spec.closest(".take").querySelector("audio");
    const box = spec.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * lengthOf(spec);
    const start = () => { player.currentTime = place; player.play().catch(() => {}); };
    if (player.readyState > 0) start();
    else { player.addEventListener("loadedmetadata", start, { once: true }); player.preload = "metadata"; player.load(); }
  });
})();
