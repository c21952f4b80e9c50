"use strict";
// Draws the plots in the colours of the page, and makes tables sortable and searchable. No request is ever made.
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  // --- Plots
  const isPlain = (x) => x !== null && typeof x === "object" && !Array.isArray(x);
  const merge = (a, b) => {
    const out = { ...a };
    for (const [key, value] of Object.entries(b)) out[key] = isPlain(value) && isPlain(out[key]) ? merge(out[key], value) : value;
    return out;
  };
  // "@c0" or "@text/0.2" is a colour of the theme, with an opacity.
  const themed = (value, style) => {
    if (Array.isArray(value)) return value.map((item) => themed(item, style));
    if (isPlain(value)) return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, style)]));
    const found = typeof value === "string" && /^@([a-z0-9]+)(?:\/([0-9.]+))?$/.exec(value);
    if (!found) return value;
    const hex = style.getPropertyValue(`--${found[1]}`).trim();
    if (!found[2]) return hex;
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${found[2]})`;
  };
  const axis = { gridcolor: "@grid", linecolor: "@line", zerolinecolor: "@muted", tickcolor: "@line", automargin: true, title: { font: { size: 13 }, standoff: 10 } };
  const common = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: "zoom", hovermode: "closest",
    margin: { l: 56, r: 12, t: 30, b: 48 }, xaxis: axis, yaxis: axis,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "@muted", activecolor: "@text" },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    hoverlabel: { bgcolor: "@surface", bordercolor: "@muted", font: { color: "@text", size: 13 }, align: "left" },
  };
  const config = {
    displaylogo: false, displayModeBar: "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };
  const choices = (plot) => {
    const group = plot.closest(".figures");
    return [...group.querySelectorAll("select[data-select]")].map((select) => [select.dataset.select, select.value]);
  };
  let printing = false; // paper is narrower than most windows, and nothing is resized while printing
  const draw = (plot) => {
    const figure = figures[plot.id];
    const chosen = choices(plot);
    const style = getComputedStyle(root);
    const traces = figure.traces.filter((trace) =>
      chosen.every(([name, value]) => !trace.when || !trace.when[name] || trace.when[name].includes(value)));
    let layout = merge({ ...common, font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "@text" } }, figure.layout);
    for (const [name, value] of chosen) layout = merge(layout, figure.patches[name]?.[value] ?? {});
    if (printing) layout = { ...layout, width: figure.small ? 210 : 660 };
    // Plotly takes "when" for a mistake, so it is left out.
    Plotly.react(plot, themed(traces.map(({ when, ...trace }) => trace), style), themed(layout, style), { ...config, displayModeBar: figure.small ? false : "hover", toImageButtonOptions: { format: "svg", filename: plot.id } });
  };
  // The library is carried packed by gzip. It is unpacked when the page stands, and a plot is drawn when it comes near
  // the window, so that neither holds up the text and the tables. The browser's own DecompressionStream answers later
  // only, and what is printed at once would have no plots; for that RFC 1951 is read here.
  const inflate = (data) => {
    const out = new Uint8Array(new DataView(data.buffer).getUint32(data.length - 4, true));
    let at = 10, to = 0, held = 0, kept = 0; // the header has 10 bytes: no name, no comment
    const bits = (n) => {
      while (kept < n) held |= data[at++] << kept, kept += 8;
      const value = held & ((1 << n) - 1);
      held >>>= n, kept -= n;
      return value;
    };
    const codes = (lengths) => {
      const count = new Uint16Array(16), next = new Uint16Array(17), symbols = new Uint16Array(lengths.length);
      for (const length of lengths) if (length) count[length]++;
      for (let length = 1; length < 16; length++) next[length + 1] = next[length] + count[length];
      lengths.forEach((length, symbol) => { if (length) symbols[next[length]++] = symbol; });
      return { count, symbols };
    };
    const read = ({ count, symbols }) => {
      for (let length = 1, code = 0, first = 0, index = 0; length < 16; length++) {
        code = code << 1 | bits(1), first <<= 1;
        if (code - first < count[length]) return symbols[index + code - first];
        index += count[length], first += count[length];
      }
      throw new Error("the plotting library is damaged");
    };
    const steps = (n, first, wait, same) => { // base values and extra bits of lengths and distances
      const base = [], extra = [];
      for (let i = 0, value = first; i < n; i++) extra.push(i < wait ? 0 : Math.floor((i - wait) / same) + 1), base.push(value), value += 1 << extra[i];
      return { base, extra };
    };
    const lengths = steps(29, 3, 8, 4), distances = steps(30, 1, 4, 2);
    lengths.base[28] = 258, lengths.extra[28] = 0;
    for (let last = 0; !last;) {
      last = bits(1);
      const type = bits(2);
      if (type === 0) {
        held = kept = 0;
        const size = data[at] | data[at + 1] << 8;
        out.set(data.subarray(at + 4, at + 4 + size), to);
        at += 4 + size, to += size;
        continue;
      }
      let literal = Array.from({ length: 288 }, (_, i) => i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8), distance = Array(30).fill(5);
      if (type === 2) {
        const n = bits(5) + 257, m = bits(5) + 1, first = Array(19).fill(0), all = [];
        for (let i = 0, k = bits(4) + 4; i < k; i++) first[[16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15][i]] = bits(3);
        const code = codes(first);
        while (all.length < n + m) {
          const symbol = read(code);
          if (symbol < 16) all.push(symbol);
          else all.push(...Array(symbol === 16 ? 3 + bits(2) : symbol === 17 ? 3 + bits(3) : 11 + bits(7)).fill(symbol === 16 ? all.at(-1) : 0));
        }
        literal = all.slice(0, n), distance = all.slice(n);
      }
      const byLiteral = codes(literal), byDistance = codes(distance);
      for (let symbol = read(byLiteral); symbol !== 256; symbol = read(byLiteral)) {
        if (symbol < 256) { out[to++] = symbol; continue; }
        const length = lengths.base[symbol - 257] + bits(lengths.extra[symbol - 257]), which = read(byDistance);
        const back = distances.base[which] + bits(distances.extra[which]);
        for (let i = 0; i < length; i++, to++) out[to] = out[to - back];
      }
    }
    return out;
  };
  const plots = [...document.querySelectorAll(".plot")];
  const ready = new Set(); // near the window once, and drawn again with every change
  const drawReady = () => ready.forEach(draw);
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => {
    if (entry.target.data && entry.contentRect.width) Plotly.Plots.resize(entry.target);
  }));
  const queue = []; // each is drawn in a task of its own, so that the page answers in between
  const drawNext = () => {
    const plot = queue.shift();
    if (!ready.has(plot)) ready.add(plot), draw(plot);
    if (queue.length) setTimeout(drawNext);
  };
  const near = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
    if (!isIntersecting) return;
    near.unobserve(target);
    if (queue.push(target) === 1) setTimeout(drawNext);
  }), { rootMargin: "800px 0px" });
  const packed = () => {
    const text = atob(document.getElementById("plotly").textContent), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  };
  const start = (bytes) => {
    if (globalThis.Plotly) return;
    const library = document.createElement("script");
    library.textContent = new TextDecoder().decode(bytes);
    document.head.append(library);
    library.remove();
    plots.forEach((plot) => { near.observe(plot); resized.observe(plot); });
  };
  const startSoon = () => new Response(new Blob([packed()]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer().then(start);
  for (const select of document.querySelectorAll(".figures select")) {
    select.addEventListener("change", () => [...select.closest(".figures").querySelectorAll(".plot")].filter((plot) => ready.has(plot)).forEach(draw));
  }

  // --- Theme
  const button = document.getElementById("theme");
  const label = () => { button.setAttribute("aria-pressed", String(dark())); };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("plmscope-theme", root.dataset.theme); } catch { /* storage may be off for local files */ }
    label(); drawReady();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { label(); drawReady(); });

  // --- Tables
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort);
  };
  const isMissing = (x) => x === "" || x === "–";
  const compare = (a, b, sign) => {
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b); // missing values stay last
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  const sortBy = (table, column, direction) => {
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, i) => [key(row, column), i, row]);
    rows.sort((a, b) => compare(a[0], b[0], sign) || a[1] - b[1]);
    body.append(...rows.map((row) => row[2]));
    for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
    table.tHead.rows[0].cells[column].setAttribute("aria-sort", direction);
  };
  for (const sorter of document.querySelectorAll(".sort")) {
    sorter.addEventListener("click", () => {
      const head = sorter.closest("th");
      const now = head.getAttribute("aria-sort");
      const first = head.classList.contains("n") ? "descending" : "ascending";
      const next = now === null ? first : now === "ascending" ? "descending" : "ascending";
      sortBy(head.closest("table"), head.cellIndex, next);
    });
  }
  const filter = (block) => {
    const text = (block.querySelector("[data-search]")?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const tag = block.querySelector("select[data-select]")?.value;
    const rows = [...block.querySelector("tbody").rows];
    for (const row of rows) {
      const content = row.textContent.toLowerCase();
      row.hidden = !text.every((word) => content.includes(word)) || (tag !== undefined && !row.dataset.tags.split(" ").includes(tag));
    }
    block.querySelector(".shown").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  for (const block of document.querySelectorAll(".table:has(.controls)")) {
    block.querySelector("[data-search]")?.addEventListener("input", () => filter(block));
    const select = block.querySelector("select[data-select]");
    const best = () => {
      const heads = [...block.querySelectorAll(".sort")].map((head) => head.textContent.trim());
      const column = heads.indexOf(select.value.replaceAll("_", " "));
      if (column >= 0) sortBy(block.querySelector("table"), column, "descending");
      filter(block);
    };
    select?.addEventListener("change", best);
    if (select) best(); else filter(block);
  }

  // --- Copy
  for (const copier of document.querySelectorAll("[data-copy]")) {
    copier.addEventListener("click", async () => {
      const source = document.getElementById(copier.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
        copier.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source); // a local file may have no clipboard: the text is selected instead
        copier.textContent = "Selected, press Ctrl+C";
      }
      setTimeout(() => { copier.textContent = "Copy"; }, 2500);
    });
  }

  // --- Contents: mark the section being read
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  document.querySelectorAll("section[id]").forEach((section) => watcher.observe(section));

  // --- An address unfolds what it leads to
  const unfold = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let part = target?.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
    if (target) target.scrollIntoView({ behavior: "instant" });
  };
  addEventListener("hashchange", unfold);

  // --- Print: light colours and everything unfolded
  let before = null;
  addEventListener("beforeprint", () => {
    before = { theme: root.dataset.theme, folded: [...document.querySelectorAll("details:not([open])")] };
    root.dataset.theme = "light";
    before.folded.forEach((item) => { item.open = true; });
    printing = true;
    if (!globalThis.Plotly) start(inflate(packed()));
    plots.forEach((plot) => { near.unobserve(plot); ready.add(plot); });
    drawReady();
  });
  addEventListener("afterprint", () => {
    if (!before) return;
    if (before.theme) root.dataset.theme = before.theme; else delete root.dataset.theme;
    before.folded.forEach((item) => { item.open = false; });
    before = null;
    printing = false;
    drawReady();
  });

  label();
  unfold();
  // After the first paint, and after the scripts that follow: a timer alone would run between the two.
  addEventListener("DOMContentLoaded", () => setTimeout(startSoon));
})();
