"use strict";
(() => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const canvas = document.querySelector(".map canvas");
  const hover = document.getElementById("hover");
  const chips = [...document.querySelectorAll(".chips button")];
  const pen = canvas.getContext("2d");
  const MARGIN = 18, MOST = 16;
  const chosen = new Set();
  let onlyWrong = false, active = -1, width = 0, height = 0;
  let zoom = 1, left = 0, top = 0, grip = null;

  const visible = (i) =>
    (!chosen.size || chosen.has(data.group[i])) && (!onlyWrong || data.wrong[i]);
  const x = (i) => (MARGIN + data.x[i] * (width - 2 * MARGIN)) * zoom + left;
  const y = (i) => (MARGIN + data.y[i] * (height - 2 * MARGIN)) * zoom + top;

  function dot(i, radius, alpha) {
    pen.globalAlpha = alpha;
    pen.fillStyle = data.colours[data.group[i]];
    pen.beginPath();
    pen.arc(x(i), y(i), radius, 0, 7);
    pen.fill();
  }

  function ring(i, radius, colour, line) {
    pen.globalAlpha = 1;
    pen.strokeStyle = colour;
    pen.lineWidth = line;
    pen.beginPath();
    pen.arc(x(i), y(i), radius, 0, 7);
    pen.stroke();
  }

  function draw() {
    const style = getComputedStyle(document.documentElement);
    const ratio = window.devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const radius = (data.x.length > 1500 ? 2.6 : data.x.length > 400 ? 3.6 : 4.8) * Math.sqrt(zoom);
    let shown = 0;
    for (let i = 0; i < data.x.length; i++) if (!visible(i)) dot(i, radius * 0.7, 0.1);
    for (let i = 0; i < data.x.length; i++) if (visible(i)) { dot(i, radius, 0.85); shown++; }
    for (let i = 0; i < data.x.length; i++)
      if (data.wrong[i] && visible(i)) ring(i, radius + 1.8, style.getPropertyValue("--wrong"), 1.6);
    if (active >= 0) ring(active, radius + 3.5, style.getPropertyValue("--ink"), 2);
    canvas.dataset.shown = shown;
  }

  function resize() {
    const box = canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    [width, height] = [box.width, box.height];
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    place();
    draw();
  }

  function nearest(px, py, reach) {
    let best = -1, least = reach * reach;
    for (let i = 0; i < data.x.length; i++) {
      const far = (x(i) - px) ** 2 + (y(i) - py) ** 2;
      if (far < least && visible(i)) [best, least] = [i, far];
    }
    return best;
  }

  function show(i) {
    if (i === active) return;
    active = i;
    hover.hidden = i < 0;
    if (i >= 0) {
      const image = hover.querySelector("img");
      if (data.thumbs[i]) image.src = data.thumbs[i];
      else image.removeAttribute("src");
      // Names are untrusted: insert them as text, never as markup.
      hover.querySelector(".label").textContent = data.label[i];
      const prediction = hover.querySelector(".prediction");
      prediction.textContent = data.prediction[i];
      prediction.classList.toggle("wrong", Boolean(data.wrong[i]));
      hover.querySelector(".file").textContent = data.names[i];
      place();
    }
    draw();
  }

  function place() {
    if (active < 0) return;
    const w = hover.offsetWidth, h = hover.offsetHeight;
    const right = x(active) + MOST + w < width;
    hover.style.left = `${Math.max(4, right ? x(active) + MOST : x(active) - MOST - w)}px`;
    hover.style.top = `${Math.min(Math.max(4, y(active) - h / 2), Math.max(4, height - h - 4))}px`;
  }

  function magnify(factor) {
    const before = zoom;
    zoom = Math.min(16, Math.max(1, zoom * factor));
    move(width / 2 - ((width / 2 - left) * zoom) / before,
         height / 2 - ((height / 2 - top) * zoom) / before);
    canvas.classList.toggle("zoomed", zoom > 1);
  }

  function move(toLeft, toTop) {
    left = Math.min(0, Math.max(width * (1 - zoom), toLeft));
    top = Math.min(0, Math.max(height * (1 - zoom), toTop));
    place();
    draw();
  }

  canvas.addEventListener("pointermove", (event) => {
    if (grip && zoom > 1) return move(event.offsetX - grip[0], event.offsetY - grip[1]);
    if (event.pointerType !== "touch") show(nearest(event.offsetX, event.offsetY, MOST));
  });
  canvas.addEventListener("pointerdown", (event) => {
    grip = [event.offsetX - left, event.offsetY - top];
  });
  window.addEventListener("pointerup", () => { grip = null; });
  window.addEventListener("pointercancel", () => { grip = null; });
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") show(-1);
  });
  canvas.addEventListener("click", (event) => show(nearest(event.offsetX, event.offsetY, 1.6 * MOST)));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") show(-1);
    if (!step) return;
    event.preventDefault();
    const n = data.x.length;
    for (let k = 1, i = active; k <= n; k++) {
      i = (i + step + n) % n;
      if (visible(i)) return show(i);
    }
  });

  for (const chip of chips) chip.addEventListener("click", () => {
    const pressed = chip.getAttribute("aria-pressed") !== "true";
    chip.setAttribute("aria-pressed", pressed);
    if (chip.dataset.group === "wrong") onlyWrong = pressed;
    else if (pressed) chosen.add(Number(chip.dataset.group));
    else chosen.delete(Number(chip.dataset.group));
    document.querySelector(".chips").classList.toggle("filtered", chosen.size > 0 || onlyWrong);
    if (active >= 0 && !visible(active)) show(-1);
    draw();
  });
  document.querySelector(".zoom").addEventListener("click", (event) => {
    if (event.target.dataset.zoom) magnify(Number(event.target.dataset.zoom));
  });
  window.addEventListener("resize", resize);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  resize();
})();
