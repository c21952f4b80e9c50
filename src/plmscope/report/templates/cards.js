// Draws the cards of neurons from their data, a few at a time. Text goes in as text, never as markup.
(() => {
  const block = document.querySelector(".cards");
  const { labels, cards, structures } = JSON.parse(document.getElementById("cards-data").textContent);
  const STEP = 20;
  const ACIDS = "ACDEFGHIKLMNPQRSTVWY";
  const KIND = { D: "acid", E: "acid", K: "base-aa", R: "base-aa", H: "base-aa" };
  for (const a of "STNQGCYP") KIND[a] = "polar";
  const signed = (x, digits = 3) => (isNumber(x) && x > 0 ? "+" : "") + number(x, digits);
  const small = (x) => isNumber(x) ? (x !== 0 && Math.abs(x) < 0.001 ? x.toExponential(0).replace("-", "−") : number(x, 3)) : "–";
  const className = (label) => labels[label] ?? label;
  const address = (card) => `neuron-${card.layer}-${card.module}-${card.neuron}`;
  const best = (card) => Math.min(...Object.values(card.ranks));
  const change = (card) => Math.min(0, ...card.effects.map((e) => e[1] ?? 0));
  for (const card of cards) {
    card.text = [words(address(card)), words(card.module), card.neuron, `layer ${card.layer}`, card.sentence, card.concept, card.motif.consensus ?? "",
      ...card.concepts.map((c) => c[0]), ...card.strips.map((s) => s.id)].join(" ").toLowerCase();
    // A card belongs to the classes its motif is enriched in, and to the one that suffers most without the neuron.
    const worst = card.effects.filter((e) => e[1] < 0).sort((a, b) => a[1] - b[1])[0];
    card.in = new Set([...card.motif.in, ...(worst ? [worst[0]] : [])]);
  }

  // --- Parts of a card
  const logo = (motif) => {
    const width = motif.matrix.length, step = 26, height = 84;
    const svg = draw("svg", { viewBox: `0 0 ${width * step + 30} ${height + 18}`, width: width * step + 30, height: height + 18, role: "img",
      "aria-label": `Logo of the motif ${motif.consensus}` });
    svg.append(draw("line", { x1: 26, x2: 26, y1: 2, y2: height, class: "base" }), draw("text", { x: 0, y: 10, "font-size": 9 }, "4.3"),
      draw("text", { x: 0, y: height, "font-size": 9 }, "0 bit"));
    motif.matrix.forEach((column, place) => {
      const p = column.map((x) => x / 1000);
      const bits = Math.max(0, Math.log2(20) + p.reduce((sum, x) => sum + (x > 0 ? x * Math.log2(x) : 0), 0));
      const letters = [...ACIDS].map((a, i) => [a, p[i] * bits]).filter((x) => x[1] > 0.04).sort((a, b) => a[1] - b[1]);
      let y = height;
      for (const [letter, size] of letters) {
        const tall = size / Math.log2(20) * (height - 4);
        // A monospaced capital is about 0.6 em wide and 0.73 em tall.
        svg.append(draw("text", { "font-size": 20, "text-anchor": "middle", class: KIND[letter] ?? "fat", "font-weight": 700,
          transform: `translate(${30 + place * step + step / 2} ${y}) scale(1.9 ${tall / 14.6})` }, letter));
        y -= tall;
      }
      svg.append(draw("text", { x: 30 + place * step + step / 2, y: height + 14, "font-size": 10, "text-anchor": "middle" }, String(place + 1)));
    });
    return svg;
  };
  // Sites stand in rows under the letters: a triangle for an annotated residue, a bar for a stretch, a bracket for a pattern.
  const strip = (one) => {
    const step = 13, under = 57, row = 11, wide = one.sequence.length * step;
    const top = Math.max(0, ...one.heights), range = top - Math.min(0, ...one.heights), scale = 36 / Math.max(1000, range);
    const zero = 40 - (range - top) * scale;
    const ends = []; // of the rows, so that sites do not lie on each other
    const rows = one.sites.map(([first, last]) => {
      const free = ends.findIndex((end) => end < first - 1);
      const at = free < 0 ? ends.length : free;
      ends[at] = last;
      return at;
    });
    const tall = Math.max(66, under + ends.length * row);
    const svg = draw("svg", { viewBox: `0 0 ${wide} ${tall}`, width: wide, height: tall, role: "img" });
    svg.append(draw("line", { x1: 0, x2: wide, y1: zero, y2: zero, class: "base" }));
    [...one.sequence].forEach((letter, i) => {
      const h = one.heights[i] ?? 0, high = Math.abs(h) * scale, position = one.start + i;
      const bar = draw("rect", { x: i * step + 2, width: step - 4, y: h < 0 ? zero : zero - high, height: high, class: h < 0 ? "bar below" : "bar" });
      bar.append(draw("title", {}, `${letter}${position}: ${(h / 10).toFixed(0)} % of the largest`));
      const text = draw("text", { x: i * step + step / 2, y: 53, "font-size": 12, "text-anchor": "middle" }, letter);
      if (position === one.position) text.setAttribute("font-weight", 800), text.setAttribute("text-decoration", "underline");
      svg.append(bar, text);
    });
    const letterAt = (position) => one.sequence[position - one.start] ?? "";
    const said = one.sites.map(([first, last, name, annotated], k) => {
      const x = (first - one.start) * step, end = (last - one.start + 1) * step, y = under + rows[k] * row;
      const where = first === last ? `${letterAt(first)}${first}` : `${letterAt(first)}${first} to ${letterAt(last)}${last}`;
      const text = annotated ? `annotated: ${name}, ${where}` : `pattern ${name}, ${where}`;
      // Wide and invisible, so that a pointer finds thin marks.
      const mark = draw("g", { class: annotated ? "site" : "match" });
      mark.append(draw("title", {}, text), draw("rect", { x, y, width: end - x, height: row - 1, class: "touch" }));
      // A helix is one bar, a site a triangle a residue.
      const stretch = last - first >= 4;
      if (annotated && stretch) mark.append(draw("path", { d: `M${x + 2} ${y + 2} H${end - 2} V${y + 6} H${x + 2} Z` }));
      for (let left = x; annotated && !stretch && left < end; left += step) {
        mark.append(draw("path", { d: `M${left + 2} ${y + 8} L${left + step / 2} ${y} L${left + step - 2} ${y + 8} Z` }));
      }
      if (!annotated) mark.append(draw("path", { d: `M${x + 2} ${y} V${y + 5} H${end - 2} V${y}` }));
      svg.append(mark);
      return `${annotated ? "▲" : "pattern"} ${name} ${where}`;
    });
    const text = `${one.id}, residues ${one.start} to ${one.start + one.sequence.length - 1}, peak ${letterAt(one.position)}${one.position} (${number(one.peak)})${said.length ? `; ${said.join(", ")}` : ""}`;
    svg.setAttribute("aria-label", text);
    return make("div", { class: "strip" }, make("div", { class: "scroller" }, svg), make("p", {}, text));
  };
  const table = (caption, heads, rows) => make("div", { class: "scroller" }, make("table", {},
    make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads.map(([text, n]) => make("th", n ? { scope: "col", class: "n" } : { scope: "col" }, text)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((text, i) =>
      i === 0 ? make("th", { scope: "row" }, text) : make("td", heads[i][1] ? { class: "n" } : {}, text)))))));
  // Opened, a structure is unpacked and drawn; one at a time, since a browser keeps few.
  let open = null;
  const structure = (card) => {
    const { structure: at, heights } = card.view, one = structures[at];
    const strongest = heights.map((h, k) => [h, k]).sort((a, b) => b[0] - a[0]).slice(0, 5).filter(([h]) => h > 0);
    const residue = (k) => `${one.sequence[k]}${k + 1}: ${heights[k]} % of the largest`;
    const told = make("p", { class: "said", role: "status" }, strongest.length ? `Highest at ${strongest.map(([h, k]) => `${one.sequence[k]}${k + 1} (${h} %)`).join(", ")}.` : "");
    const box = make("details", { class: "solid" }, make("summary", {}, `Structure of ${one.id}`));
    box.addEventListener("toggle", () => {
      if (!box.open) {
        if (open?.of === box) { open.view.stop(); open.inside.remove(); open = null; }
        return;
      }
      if (open) open.of.open = false, open.view.stop(), open.inside.remove();
      const view = solidView({ name: one.id, lines: () => unpacked(one.packed), values: () => heights, up: "--c0", down: "--c1",
        chosen: (k) => { told.textContent = k < heights.length ? residue(k) : ""; view.pick(k); } });
      const inside = make("div", {}, make("p", { class: "said" }, `${one.told}. Blue: the neuron is ${card.sign < 0 ? "low" : "high"} there; orange: the other way; grey: near 0.`),
        make("div", { class: "controls" }, ...view.tools), view.box, told);
      open = { of: box, view, inside };
      box.append(inside);
      requestAnimationFrame(view.start); // when the box has its size
    });
    return box;
  };
  // How often a hit of the motif is where the neuron is highest (of a low side: lowest), over how often any residue is.
  const often = (where, times) => times === 0 ? `no hit is ${where}` : `a hit is ${where} ${number(times, times < 1 ? 2 : 1)} times as often as any residue`;
  const part = (title, wide, ...inside) => make("div", { class: wide ? "part wide" : "part" }, make("h4", {}, title), ...inside);
  // What a neuron knows, beside its letter; cards of older runs say only whether they are explained.
  const knows = { more: "more than its letter", letter: "its letter", letters: "letters alone", unsettled: "letter or more" };
  const kind = (card) => card.knows === "letter" && !(card.letter[0] >= 0.9) ? "letters" : card.knows;
  const build = (card) => {
    const id = address(card), motif = card.motif;
    const ranks = Object.entries(card.ranks).map(([method, rank]) => `rank ${rank} by ${method}`).join("; ");
    const parts = [];
    if (motif.matrix) {
      const where = motif.in.length ? `; hits enriched in ${motif.in.map(className).join(", ")}` : "";
      parts.push(part("Motif", false, make("div", { class: "scroller" }, logo(motif)), make("p", { class: "said" },
        `${motif.consensus}: ${number(motif.bits, 1)} bits from ${motif.windows} windows; on held-out clusters AUROC ${number(motif.auroc)}, `
        + `${often(card.sign < 0 ? "among its lowest residues" : "where it fires", motif.enrichment)}${where}; group ${motif.group}`)));
    }
    if (!motif.matrix && motif.windows) {
      parts.push(part("Motif", false, make("p", { class: "said" }, `None: the ${motif.windows} windows around its peaks have no column in common.`)));
    }
    if (card.made) {
      parts.push(part("Preferred window", false, make("div", { class: "scroller" }, logo(card.made)), make("p", { class: "said" }, card.made.said)));
    }
    if (card.concepts.length) {
      parts.push(part("Concepts", false, table("On held-out clusters", [["concept", 0], ["sign", 0], ["F1", 1], ["AUROC", 1], ["q", 1], ["confirmed", 0]],
        card.concepts.map(([name, sign, f1, auroc, q, sure]) => [name, sign < 0 ? "low" : "high", number(f1), number(auroc), small(q), sure ? "yes" : "no"]))));
    }
    if (card.effects.length) {
      parts.push(part("Without this neuron", false, table("Held at its mean, on test proteins", [["class", 0], ["probability", 1], ["right decisions lost", 1]],
        card.effects.map(([label, moved, lost, right]) => [className(label), signed(moved), `${lost} of ${right}`]))));
    }
    if (card.strips.length) parts.push(part(card.sign < 0 ? "Where it is lowest" : "Where it fires most", true, ...card.strips.map(strip)));
    if (card.view) parts.push(part("In three dimensions", true, structure(card)));
    return make("article", { class: "card", id, "aria-labelledby": `${id}-name` },
      make("h3", { id: `${id}-name` }, make("a", { href: `#${id}` }, `${words(card.module)} ${card.neuron}, layer ${card.layer}`),
        make("span", { class: card.knows === "more" || (card.explained && !card.knows) ? "tag" : "tag none" }, knows[kind(card)] ?? (card.explained ? "explained" : "unexplained")), make("small", {}, ranks)),
      make("p", { class: "said" }, card.sentence),
      ...(card.told ?? []).map((text) => make("p", { class: "said" }, text)),
      make("div", { class: "parts" }, ...parts));
  };

  // --- Which cards, in which order
  const field = (name) => document.getElementById(`cards-${name}`);
  const fill = (name, options) => field(name).append(...options.map(([value, text]) => make("option", { value }, text)));
  const known = (of) => [...new Set(cards.flatMap(of))];
  const byText = (a, b) => a.localeCompare(b, undefined, { numeric: true });
  const all = ["", "all"];
  fill("module", [all, ...known((c) => c.module).map((m) => [m, words(m)])]);
  fill("layer", [all, ...known((c) => c.layer).sort((a, b) => a - b).map((l) => [l, String(l)])]);
  fill("class", [all, ...known((c) => [...c.in]).sort(byText).map((l) => [l, className(l)])]);
  fill("concept", [all, ...known((c) => c.concepts.map((x) => x[0])).sort(byText).map((x) => [x, x])]);
  fill("explained", [all, ...(cards.some((c) => c.knows) ? [["more", "more than its letter"], ["letter", "its letter or letters alone"], ["unsettled", "letter or more"]] : [["yes", "yes"]]), ["no", "no"]]);
  const orders = {
    rank: (a, b) => best(a) - best(b), f1: (a, b) => (b.f1 ?? -1) - (a.f1 ?? -1), auroc: (a, b) => (b.auroc ?? -1) - (a.auroc ?? -1),
    information: (a, b) => (b.motif.bits ?? -1) - (a.motif.bits ?? -1), effect: (a, b) => change(a) - change(b),
    place: (a, b) => a.layer - b.layer || byText(a.module, b.module) || a.neuron - b.neuron,
  };
  fill("sort", [["rank", "best rank"], ["effect", "largest effect"], ["f1", "F1"], ["auroc", "AUROC"], ["information", "motif information"], ["place", "layer and module"]]);
  const list = block.querySelector(".card-list"), more = block.querySelector(".more"), shown = block.querySelector(".shown");
  let wanted = [], drawn = 0;
  // Boxes that scroll are reached by the keyboard; those that fit would only be in its way.
  // Which these are is known once a card is laid out, and that it is when it comes near the window.
  const reach = new IntersectionObserver((seen) => seen.forEach(({ isIntersecting, target }) => {
    if (!isIntersecting) return;
    reach.unobserve(target);
    const wide = [...target.querySelectorAll(".scroller")].filter((box) => box.scrollWidth > box.clientWidth);
    for (const box of wide) for (const [key, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", "scrolls sideways"]]) box.setAttribute(key, value);
  }), { rootMargin: "300px" });
  const grow = (most = STEP) => {
    const added = wanted.slice(drawn, drawn + most).map(build);
    list.append(...added);
    added.forEach((card) => reach.observe(card));
    drawn = Math.min(wanted.length, drawn + most);
    more.hidden = drawn >= wanted.length;
    more.textContent = `Show more (${drawn} of ${wanted.length} drawn)`;
  };
  const choose = () => {
    const value = (name) => field(name).value, search = value("search").toLowerCase().split(/\s+/).filter(Boolean);
    wanted = cards.filter((c) => search.every((word) => c.text.includes(word)) && (!value("module") || c.module === value("module"))
      && (!value("layer") || String(c.layer) === value("layer")) && (!value("class") || c.in.has(value("class")))
      && (!value("concept") || c.concepts.some((x) => x[0] === value("concept"))) && (!value("explained") || (["yes", "no"].includes(value("explained")) ? c.explained === (value("explained") === "yes") : c.knows === value("explained"))));
    wanted.sort((a, b) => orders[value("sort")](a, b) || best(a) - best(b));
    shown.textContent = `${wanted.length} of ${cards.length} neurons`;
    list.replaceChildren();
    drawn = 0;
    grow();
  };
  let waiting = 0;
  field("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(choose, 150); });
  block.querySelectorAll("select").forEach((select) => select.addEventListener("change", choose));
  more.addEventListener("click", () => {
    const next = drawn;
    grow();
    list.children[next]?.querySelector("a").focus();
  });
  new IntersectionObserver((seen) => { if (seen.some((s) => s.isIntersecting) && !more.hidden) grow(); }, { rootMargin: "600px" }).observe(more);

  // --- An address leads to its card, drawn or not
  const follow = () => {
    const id = decodeURIComponent(location.hash.slice(1)), target = cards.find((card) => address(card) === id);
    if (!target) return;
    if (!document.getElementById(id)) {
      for (const name of ["search", "module", "layer", "class", "concept", "explained"]) field(name).value = "";
      choose();
      if (!document.getElementById(id)) list.prepend(build(target));
    }
    list.querySelectorAll(".found").forEach((one) => one.classList.remove("found"));
    document.getElementById(id).classList.add("found");
    document.getElementById(id).scrollIntoView({ behavior: "instant" });
  };
  addEventListener("hashchange", follow);
  choose();
  follow();
})();
