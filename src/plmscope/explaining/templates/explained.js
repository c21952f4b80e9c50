// Draws one protein at a time from its data. Text goes in as text, never as markup. No request is ever made.
(() => {
  const { proteins, classes, letters, cards, report } = JSON.parse(document.getElementById("data").textContent);
  const isLetter = new Set(letters), hasCard = new Set(cards);
  const className = (label) => classes[label] ?? label;
  const shown = document.getElementById("explained"), select = document.getElementById("protein");
  proteins.forEach((one, i) => select.append(make("option", { value: String(i) }, `${one.id} · ${one.length} residues · ${one.decided || "no class"}`)));

  const residueText = (one, r) => {
    const parts = [`${r.residue}${r.position}: ${signed(r.attribution, 3)} nats`,
      `shuffled copies ${number(r.null_low, 3)} to ${number(r.null_high, 3)}${r.outside ? ", outside" : ""}`];
    if (isNumber(r.through)) parts.push(`${signed(r.through, 3)} through the chosen neurons`);
    const concepts = names(r.concepts).filter((name) => !isLetter.has(name));
    if (concepts.length) parts.push(`chosen neurons fire that detect ${concepts.join(", ")}`);
    const motifs = names(r.motifs).filter((name) => name.split("-").filter((x) => x !== "x").length > 1);
    if (motifs.length) parts.push(`in the motifs ${motifs.join(", ")}`);
    if (r.features) parts.push(`annotated: ${r.features}`);
    return `${parts.join("; ")}.`;
  };

  const show = (i) => {
    const one = proteins[i];
    shown.replaceChildren();
    const largest = Math.max(1e-9, ...one.residues.map((r) => Math.abs(r.attribution)));
    const wide = Math.max(600, Math.min(1150, one.length * 3));

    const decision = make("section", { "aria-labelledby": "protein-name" }, make("h1", { id: "protein-name" }, one.id),
      make("p", { class: "question" }, `The model says ${one.decided ? one.decided.split(";").map(className).join(" and ") : "no class"}. Explained is class ${className(one.explained)}, with a probability of ${percent(one.probability)}.`));
    if (one.trust) decision.append(make("p", {}, `${one.trust[0].toUpperCase()}${one.trust.slice(1)}.`));
    const grid = make("div", { class: "probabilities" });
    for (const [label, p] of Object.entries(one.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 8)) {
      const fill = make("i");
      fill.style.width = `${100 * p}%`;
      grid.append(make("span", label === one.explained ? { class: "on" } : {}, className(label)), make("span", { class: "bar" }, fill), make("span", {}, percent(p)));
    }
    decision.append(grid);
    shown.append(decision);

    const strip = make("div", { class: "strip", tabindex: "0", role: "group", "aria-label": "Sequence coloured by attribution; arrow keys move along it", "aria-describedby": "told" });
    const told = make("p", { class: "told", id: "told", role: "status" });
    const cells = [];
    for (let start = 0; start < one.length; start += 10) {
      const ten = make("span", { class: "ten" });
      one.residues.slice(start, start + 10).forEach((r, k) => {
        const cell = make("b", r.outside ? { class: "out" } : {}, r.residue);
        cell.style.background = tint(r.attribution, largest);
        cell.addEventListener("click", () => pick(start + k));
        ten.append(cell);
        cells.push(cell);
      });
      ten.append(make("small", {}, String(Math.min(one.length, start + 10))));
      strip.append(ten);
    }
    let at = one.residues.reduce((best, r, k) => r.attribution > one.residues[best].attribution ? k : best, 0);
    const pick = (k) => {
      cells[at].classList.remove("at");
      at = Math.max(0, Math.min(one.length - 1, k));
      cells[at].classList.add("at");
      told.textContent = residueText(one, one.residues[at]);
    };
    strip.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -one.length, End: one.length };
      if (event.key in moves) { event.preventDefault(); pick(at + moves[event.key]); }
    });
    const legend = make("p", { class: "legend" });
    for (const [value, text] of [[1, "speaks for the class"], [-1, "speaks against it"]]) {
      const patch = make("i");
      patch.style.background = tint(value, 1);
      legend.append(make("span", {}, patch, text));
    }
    legend.append(make("span", {}, `underlined: outside the band of ${one.null_copies} shuffled copies (${one.residues_outside} residues; ${Math.round(one.length / 10)} by chance)`));
    const residues = make("section", {}, make("h2", {}, "Residues"),
      make("p", {}, `From the mean residue to this protein the log-odds change by ${signed(one.log_odds - one.start_log_odds)} nats; the residues add up to ${signed(one.attribution)} (gap ${signed(one.gap, 3)}).`),
      strip, legend, told);
    const overview = make("div", { class: "tracks" }, bars(one.residues.map((r) => r.attribution), { height: 90, width: wide, band: one.residues.map((r) => [r.null_low, r.null_high]) }));
    residues.append(make("h3", {}, "Along the sequence, with the band of shuffled copies"), overview);
    shown.append(residues);
    pick(at);

    const neurons = make("section", {}, make("h2", {}, "Neurons"),
      make("p", {}, `The strongest of this decision, by path attribution from their ablation means (mean gap of a site ${number(one.neurons_gap, 3)} nats). “Alone” is what the log-odds lose when this neuron alone is held at its mean.`));
    const numbers = make("dl", { class: "numbers" });
    const fact = (term, text) => numbers.append(make("div", {}, make("dt", {}, term), make("dd", {}, text)));
    if (one.held_n) fact(`the ${one.held_n} supporting ones held together`, `${signed(-one.held_effect)} nats, then ${className(one.held_decided)}; matched draws ${signed(-one.held_draws)}`);
    if (one.chosen_n) fact(`${one.chosen} (${one.chosen_n}) held`, `${signed(-one.chosen_effect)} nats; matched draws ${signed(-one.chosen_draws)}, p = ${isNumber(one.chosen_p) ? one.chosen_p.toPrecision(2) : "–"}`);
    if (isNumber(one.kn_score)) fact("their KN score for this class", signed(one.kn_score));
    neurons.append(numbers);
    one.neurons.forEach((n, k) => {
      const name = `${words(n.module)}, layer ${n.layer}, neuron ${n.neuron}`, where = `neuron-${n.layer}-${n.module}-${n.neuron}`;
      const title = report && hasCard.has(where) ? make("a", { href: `${report}#${where}` }, name) : name;
      const place = n.residue ? `mostly at ${n.residue}${n.position}` : n.position ? "mostly at the last token" : "mostly at the first token";
      const item = make("div", { class: "neuron" }, make("h3", {}, title,
        make("small", {}, `${signed(n.contribution, 3)} nats · alone ${signed(-n.effect, 3)} · ${place}${isNumber(n.percentile) ? ` · percentile ${(100 * n.percentile).toFixed(1)}` : ""}${n.chosen ? " · one of the class’s" : ""}`)));
      if (n.sentence) item.append(make("p", {}, n.sentence));
      const track = one.tracks[k];
      if (track.some((x) => x !== 0)) item.append(make("div", { class: "tracks" }, bars(track, { width: wide })));
      neurons.append(item);
    });
    shown.append(neurons);
    document.title = `${one.id} · plmscope`;
  };

  choosing(proteins, select, show);
  themeButton();
})();
