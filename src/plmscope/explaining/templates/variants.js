// Draws the heat map of one protein at a time from its data. Text goes in as text, never as markup. No request is made.
(() => {
  const { proteins, classes, letters } = JSON.parse(document.getElementById("data").textContent);
  const className = (label) => classes[label] ?? label;
  const shown = document.getElementById("scan"), select = document.getElementById("protein");
  proteins.forEach((one, i) => select.append(make("option", { value: String(i) }, `${one.id} · ${one.rows.length.toLocaleString("en")} variants`)));
  const SIZE = 15, LEFT = 22, TOP = 34;

  const told = (one, letter, position, row) => {
    const own = one.sequence[position - 1];
    if (letter === own) return `${own}${position}: the protein’s own residue.`;
    if (!row) return `${own}${position}${letter}: not made.`;
    const [mutation, change, decided, silent, awake, lost, gained] = row;
    const parts = [`${mutation}: log-odds of class ${className(one.label)} ${signed(change, 3)} nats`, `the model then says ${className(decided)}`];
    for (const [what, text] of [["silent", silent], ["woken", awake]]) {
      const all = names(text);
      if (all.length) parts.push(`${all.length} ${all.length > 1 ? "neurons" : "neuron"} ${what} (layer.module.neuron): ${all.slice(0, 6).join(", ")}${all.length > 6 ? ` and ${all.length - 6} more` : ""}`);
    }
    if (lost) parts.push(`concepts lost: ${lost}`);
    if (gained) parts.push(`concepts gained: ${gained}`);
    return `${parts.join("; ")}.`;
  };

  const heatMap = (one, of, largest, status) => {
    const places = [...new Set([...of.keys()].map((key) => Number(key.slice(1))))].sort((a, b) => a - b);
    const width = LEFT + places.length * SIZE, height = TOP + letters.length * SIZE;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, tabindex: "0", role: "group", "aria-label": "Heat map, substitution by position; arrow keys move over it", "aria-describedby": "told" });
    const ground = draw("g", { "aria-hidden": "true" });
    svg.append(ground);
    places.forEach((p, x) => {
      ground.append(draw("text", { x: LEFT + (x + 0.5) * SIZE, y: TOP - 6, "text-anchor": "middle" }, one.sequence[p - 1]));
      if (x === 0 || p % 10 === 0) ground.append(draw("text", { x: LEFT + (x + 0.5) * SIZE, y: TOP - 20, "text-anchor": "middle" }, String(p)));
    });
    [...letters].forEach((letter, y) => {
      ground.append(draw("text", { x: LEFT - 8, y: TOP + (y + 0.75) * SIZE, "text-anchor": "middle" }, letter));
      places.forEach((p, x) => {
        const row = of.get(`${letter}${p}`), own = one.sequence[p - 1] === letter;
        const cell = draw("rect", { x: LEFT + x * SIZE, y: TOP + y * SIZE, width: SIZE - 1, height: SIZE - 1, class: own ? "own" : "cell" });
        if (row) cell.style.fill = tint(row[1], largest);
        ground.append(cell);
      });
    });
    const mark = draw("rect", { width: SIZE - 1, height: SIZE - 1, class: "at" });
    svg.append(mark);
    const place = [0, 0];
    const pick = (x, y) => {
      place[0] = Math.max(0, Math.min(places.length - 1, x));
      place[1] = Math.max(0, Math.min(letters.length - 1, y));
      mark.setAttribute("x", String(LEFT + place[0] * SIZE));
      mark.setAttribute("y", String(TOP + place[1] * SIZE));
      status.textContent = told(one, letters[place[1]], places[place[0]], of.get(`${letters[place[1]]}${places[place[0]]}`));
    };
    const reveal = () => {
      const box = svg.parentElement;
      box.scrollLeft += Math.min(0, LEFT + (place[0] - 2) * SIZE - box.scrollLeft) + Math.max(0, LEFT + (place[0] + 3) * SIZE - box.scrollLeft - box.clientWidth);
    };
    const follow = (event) => {
      const box = svg.getBoundingClientRect();
      const x = Math.floor((event.clientX - box.left - LEFT) / SIZE), y = Math.floor((event.clientY - box.top - TOP) / SIZE);
      if (x >= 0 && y >= 0 && x < places.length && y < letters.length) pick(x, y);
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("click", follow);
    svg.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
      if (!(event.key in moves)) return;
      event.preventDefault();
      pick(place[0] + moves[event.key][0], place[1] + moves[event.key][1]);
      reveal();
    });
    const lowest = [...of.entries()].reduce((best, one) => one[1][1] < best[1][1] ? one : best);
    pick(places.indexOf(Number(lowest[0].slice(1))), letters.indexOf(lowest[0][0]));
    requestAnimationFrame(reveal); // when it is on the page
    return make("div", { class: "heat" }, svg);
  };

  const show = (i) => {
    const one = proteins[i], rows = [...one.rows].sort((a, b) => a[1] - b[1]);
    const single = one.rows.filter(([name]) => !name.includes(":"));
    const of = new Map(single.map((row) => [`${row[0].at(-1)}${row[0].slice(1, -1)}`, row]));
    const largest = Math.max(1e-9, ...one.rows.map((row) => Math.abs(row[1])));
    const other = one.rows.filter((row) => row[2] !== one.label).length;
    const status = make("p", { class: "told", id: "told", role: "status" });
    shown.replaceChildren();
    const map = make("section", { "aria-labelledby": "protein-name" }, make("h1", { id: "protein-name" }, one.id),
      make("p", { class: "question" }, `${one.rows.length.toLocaleString("en")} variants of ${one.sequence.length} residues; followed is class ${className(one.label)} (log-odds ${signed(one.log_odds)}). ${other ? `Of ${other.toLocaleString("en")} the model says another class` : "The model says this class of all"}.`));
    if (single.length) {
      const legend = make("p", { class: "legend" });
      for (const [value, text] of [[-1, `speaks less for the class, down to ${signed(rows[0][1])} nats`], [1, `more, up to ${signed(rows.at(-1)[1])}`]]) {
        const patch = make("i");
        patch.style.background = tint(value, 1);
        legend.append(make("span", {}, patch, text));
      }
      const own = make("i", { class: "own" });
      legend.append(make("span", {}, own, "the protein’s own residue"));
      map.append(make("h2", {}, "Substitution by position"), heatMap(one, of, largest, status), legend, status);
    }
    shown.append(map);
    if (one.agreement.length) {
      shown.append(make("section", {}, make("h2", {}, "Beside measured scores"), tableOf("Spearman’s rank correlation with the measured scores; 95 % bootstrap intervals over variants", ["by", "Spearman", "interval", "variants"],
        one.agreement.map((row) => [{ model: "change of the log-odds", blosum62: "BLOSUM62" }[row.by] ?? row.by, signed(row.spearman, 3), `${signed(row.ci_low, 3)} to ${signed(row.ci_high, 3)}`, String(row.n)]))));
    }
    const listed = ([name, change, decided, silent, awake]) => [name, signed(change, 3), className(decided), String(names(silent).length), String(names(awake).length)];
    shown.append(make("section", {}, make("h2", {}, "The largest changes"), tableOf("The ten largest falls and the five largest gains; variants.csv has all", ["variant", "change (nats)", "the model then says", "neurons silent", "woken"],
      [...rows.slice(0, 10), ...rows.slice(10).slice(-5).reverse()].map(listed), new Set([0, 2]))));
    document.title = `${one.id} · variants · plmscope`;
  };

  choosing(proteins, select, show);
  themeButton();
})();
