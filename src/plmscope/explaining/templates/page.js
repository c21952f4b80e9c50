// What the pages of proteins share: signed numbers, colours, bars along a sequence, a sequence as a strip, the theme.
const signed = (x, digits = 2) => (isNumber(x) && x > 0 ? "+" : "") + number(x, digits);
const percent = (x) => isNumber(x) ? `${(100 * x).toFixed(1)} %` : "–";
// Never so strong that a letter on it could not be read.
const tint = (value, largest) => `color-mix(in srgb, var(--${value > 0 ? "c1" : "c0"}) calc(${Math.min(1, Math.abs(value) / largest).toFixed(3)} * var(--tint)), transparent)`;
// Names of a column such as "glycine (G) (3); Walker A": without the number of neurons that say so.
const names = (text) => text ? text.split("; ").map((name) => name.replace(/ \(\d+\)$/, "")) : [];

const bars = (values, { height = 34, band, width, ruler }) => {
  const step = width / values.length, largest = Math.max(1e-9, ...values.map(Math.abs), ...(band ? band.flat().map(Math.abs) : []));
  const middle = height / 2, scale = (height / 2 - 1) / largest, below = ruler ? 16 : 0;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height + below}`, width, height: height + below, "aria-hidden": "true" });
  if (band) {
    const up = band.map(([, high], i) => `${(i + 0.5) * step},${middle - high * scale}`);
    const down = band.map(([low], i) => `${(i + 0.5) * step},${middle - low * scale}`).reverse();
    svg.append(draw("polygon", { points: [...up, ...down].join(" "), class: "band" }));
  }
  svg.append(draw("line", { x1: 0, x2: width, y1: middle, y2: middle, class: "zero" }));
  values.forEach((value, i) => {
    const high = Math.abs(value) * scale;
    if (high > 0.3) svg.append(draw("rect", { x: i * step, width: Math.max(1, step * 0.8), y: value > 0 ? middle - high : middle, height: high, class: value > 0 ? "for" : "against" }));
  });
  if (ruler) {
    const every = [10, 20, 50, 100, 200, 500].find((n) => n * step >= 50) ?? 1000;
    for (let p = every; p <= values.length; p += every) svg.append(draw("text", { x: (p - 0.5) * step, y: height + 12, "text-anchor": "middle" }, String(p)));
  }
  return svg;
};
// The same where a long one scrolls; only then is it a stop of the keyboard, also after the window became narrower.
const stops = new ResizeObserver((seen) => {
  for (const { target } of seen) {
    const wide = target.scrollWidth > target.clientWidth;
    for (const [key, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", target.dataset.name]]) {
      if (wide) target.setAttribute(key, value); else target.removeAttribute(key);
    }
  }
});
const alongSequence = (values, name, how) => {
  const box = make("div", { class: "tracks", "data-name": name }, bars(values, how));
  stops.observe(box);
  return box;
};

// A table that scrolls in itself; columns of the set hold text, the others numbers.
const tableOf = (caption, head, rows, text = new Set([0])) => {
  const body = make("tbody");
  for (const row of rows) body.append(make("tr", {}, ...row.map((cell, k) => make(k ? "td" : "th", k ? (text.has(k) ? { class: "text" } : {}) : { scope: "row" }, cell))));
  const titles = head.map((cell, k) => make("th", text.has(k) ? { scope: "col" } : { scope: "col", class: "n" }, cell));
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, make("table", {}, make("caption", {}, make("span", {}, caption)), make("thead", {}, make("tr", {}, ...titles)), body));
};

const themeButton = () => {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => theme.setAttribute("aria-pressed", String(dark()));
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("plmscope-theme", root.dataset.theme); } catch { /* storage may be off */ }
    label();
  });
  label();
};

// One of several proteins: by the list, or by the address.
const choosing = (proteins, select, show) => {
  const fromHash = () => {
    let wanted = "";
    try { wanted = decodeURIComponent(location.hash.slice(1)); } catch { /* not an address of ours */ }
    return Math.max(0, proteins.findIndex((one) => one.id === wanted));
  };
  select.addEventListener("change", () => {
    history.replaceState(null, "", `#${encodeURIComponent(proteins[Number(select.value)].id)}`);
    show(Number(select.value));
  });
  const open = () => { const i = fromHash(); select.value = String(i); show(i); };
  addEventListener("hashchange", open);
  if (proteins.length) open();
};
