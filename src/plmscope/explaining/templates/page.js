// What the pages of proteins share: signed numbers, colours, bars along a sequence, a sequence as a strip, the theme.
const signed = (x, digits = 2) => (isNumber(x) && x > 0 ? "+" : "") + number(x, digits);
const percent = (x) => isNumber(x) ? `${(100 * x).toFixed(1)} %` : "–";
const tint = (value, largest) => `color-mix(in srgb, var(--${value > 0 ? "c1" : "c0"}) ${Math.round(85 * Math.min(1, Math.abs(value) / largest))}%, transparent)`;
// Names of a column such as "glycine (G) (3); Walker A": without the number of neurons that say so.
const names = (text) => text ? text.split("; ").map((name) => name.replace(/ \(\d+\)$/, "")) : [];

const bars = (values, { height = 34, band, width }) => {
  const step = width / values.length, largest = Math.max(1e-9, ...values.map(Math.abs), ...(band ? band.flat().map(Math.abs) : []));
  const middle = height / 2, scale = (height / 2 - 1) / largest;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
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
  return svg;
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
