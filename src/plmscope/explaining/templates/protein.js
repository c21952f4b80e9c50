// One explained protein as sections: its decision, its residues, its neurons. Text goes in as text, never as markup.
// What another page adds comes in by functions: onPick(residue) when one is chosen, residueTools and neuronTools, which
// return elements, and notes of a neuron.
const proteinView = ({ classes, letters, cards, report, onPick, residueTools, neuronTools, neuronNote }) => {
  const isLetter = new Set(letters), hasCard = new Set(cards);
  const className = (label) => classes[label] ?? label;

  const residueText = (one, r) => {
    const parts = [`${r.residue}${r.position}: ${signed(r.attribution, 3)} nats`];
    if (isNumber(r.null_low)) parts.push(`shuffled copies ${number(r.null_low, 3)} to ${number(r.null_high, 3)}${r.outside ? ", outside" : ""}`);
    if (isNumber(r.through)) parts.push(`${signed(r.through, 3)} through the chosen neurons`);
    const concepts = names(r.concepts).filter((name) => !isLetter.has(name));
    if (concepts.length) parts.push(`chosen neurons fire that detect ${concepts.join(", ")}`);
    const motifs = names(r.motifs).filter((name) => name.split("-").filter((x) => x !== "x").length > 1);
    if (motifs.length) parts.push(`in the motifs ${motifs.join(", ")}`);
    if (r.features) parts.push(`annotated: ${r.features}`);
    if (r.secondary && r.secondary !== " ") parts.push(`${{ H: "in a helix", E: "in a strand", "-": "in no helix or strand" }[r.secondary]}${isNumber(r.accessibility) ? `, ${Math.round(100 * r.accessibility)} % accessible` : ""}`);
    if (isNumber(r.site_distance) && r.site_distance > 0) parts.push(`${number(r.site_distance, 1)} Å from an annotated site`);
    return `${parts.join("; ")}.`;
  };

  const neuronName = (n) => `${words(n.module)}, layer ${n.layer}, neuron ${n.neuron}`;
  const neuronTitle = (n) => {
    const where = `neuron-${n.layer}-${n.module}-${n.neuron}`;
    return report && hasCard.has(where) ? make("a", { href: `${report}#${where}` }, neuronName(n)) : neuronName(n);
  };
  // A card's sentence ends with the name of its neuron, which stands above it here.
  const shortSentence = (n) => n.sentence.replace(`; ${neuronName(n)}.`, ".");
  // Bars fill the width that there is; a long protein scrolls.
  const wide = (one) => Math.max(document.querySelector("main").clientWidth, one.length * 2);

  const decision = (one) => {
    const section = make("section", { "aria-labelledby": "protein-name" }, make("h1", { id: "protein-name" }, one.id),
      make("p", { class: "question" }, `The model says ${one.decided ? one.decided.split(";").map(className).join(" and ") : "no class"}. Explained is class ${className(one.explained)}, with a probability of ${percent(one.probability)}.`));
    const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
    for (const text of one.remarks) section.append(make("p", { class: "remark" }, sentence(text)));
    if (one.trust) section.append(make("p", {}, sentence(one.trust)));
    const grid = make("div", { class: "probabilities" });
    for (const [label, p] of Object.entries(one.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 8)) {
      const fill = make("i");
      fill.style.width = `${100 * p}%`;
      grid.append(make("span", label === one.explained ? { class: "on" } : {}, className(label)), make("span", { class: "bar" }, fill), make("span", {}, percent(p)));
    }
    section.append(grid);
    return section;
  };

  const residues = (one, start, solid) => {
    const largest = Math.max(1e-9, ...one.residues.map((r) => Math.abs(r.attribution)));
    const strip = make("div", { class: "strip", tabindex: "0", role: "group", "aria-label": "Sequence coloured by attribution; arrow keys move along it", "aria-describedby": "told" });
    const told = make("p", { class: "told", id: "told", role: "status" });
    const cells = [];
    for (let first = 0; first < one.length; first += 10) {
      const ten = make("span", { class: "ten" });
      one.residues.slice(first, first + 10).forEach((r, k) => {
        const cell = make("b", r.outside ? { class: "out" } : {}, r.residue);
        cell.style.background = tint(r.attribution, largest);
        cell.addEventListener("click", () => pick(first + k));
        ten.append(cell);
        cells.push(cell);
      });
      ten.append(make("small", {}, String(Math.min(one.length, first + 10))));
      strip.append(ten);
    }
    let at = start ?? one.residues.reduce((best, r, k) => r.attribution > one.residues[best].attribution ? k : best, 0);
    const pick = (k) => {
      cells[at]?.classList.remove("at");
      at = Math.max(0, Math.min(one.length - 1, k));
      cells[at].classList.add("at");
      told.textContent = residueText(one, one.residues[at]);
      solid?.pick(at);
      onPick?.(one.residues[at]);
    };
    strip.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -one.length, End: one.length };
      if (event.key in moves && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); pick(at + moves[event.key]); }
    });
    const legend = make("p", { class: "legend" });
    for (const [value, text] of [[1, "speaks for the class"], [-1, "speaks against it"]]) {
      const patch = make("i");
      patch.style.background = tint(value, 1);
      legend.append(make("span", {}, patch, text));
    }
    if (one.null_copies) legend.append(make("span", {}, make("u", {}, "underlined"), `: outside the band of ${one.null_copies} shuffled copies (${one.residues_outside} residues; ${Math.round(one.length / 10)} by chance: ${one.verdict})`));
    const section = make("section", {}, make("h2", {}, "Residues"),
      make("p", {}, `From the mean residue to this protein the log-odds change by ${signed(one.log_odds - one.start_log_odds)} nats; the residues add up to ${signed(one.attribution)} (gap ${signed(one.gap, 3)}).`),
      make("p", {}, "Attribution compares a residue with the mean of the twenty amino acids, a substitution with one other letter: the two may differ in sign. For what happens if it were another, trust plmscope variants."),
      strip, legend, told);
    if (residueTools) section.append(residueTools);
    const band = one.null_copies ? one.residues.map((r) => [r.null_low, r.null_high]) : undefined;
    section.append(make("h3", {}, `Along the sequence${band ? ", with the band of shuffled copies" : ""}`),
      alongSequence(one.residues.map((r) => r.attribution), "Attribution along the sequence", { height: 90, width: wide(one), band, ruler: true }));
    pickResidue = pick;
    pick(at);
    return section;
  };

  const structure = (one) => structureView(one, neuronName, (k) => pickResidue?.(k));
  let pickResidue = null;

  const neurons = (one) => {
    const section = make("section", {}, make("h2", {}, "Neurons"),
      make("p", {}, `The strongest of this decision, by path attribution from their ablation means (mean gap of a site ${number(one.neurons_gap, 3)} nats). Held: replaced by its average over training proteins. “Alone” is how the log-odds change when this neuron alone is held. Bars show where along the protein it acts.`));
    const numbers = make("dl", { class: "numbers" });
    const fact = (term, text) => numbers.append(make("div", {}, make("dt", {}, term), make("dd", {}, text)));
    const drawn = (value, p) => isNumber(value) ? `; matched draws ${signed(-value)}${isNumber(p) ? `, p = ${p.toPrecision(2)}` : ""}` : "";
    if (one.held_n) fact(`the ${one.held_n} supporting ones held together`, `${signed(-one.held_effect)} nats, then ${className(one.held_decided)}${drawn(one.held_draws)}`);
    if (one.chosen_n) fact(`${one.chosen} (${one.chosen_n}) held`, `${signed(-one.chosen_effect)} nats${drawn(one.chosen_draws, one.chosen_p)}`);
    section.append(numbers);
    if (one.held_n) section.append(make("p", {}, `The ${one.held_n} supporting ones were picked because they act in this protein, so of course they do more than random ones: that is no test.`));
    one.neurons.forEach((n, k) => {
      const item = make("div", { class: "neuron" }, make("h3", {}, neuronTitle(n),
        make("small", {}, `${signed(n.contribution, 3)} nats · alone ${signed(-n.effect, 3)} · ${n.acting}${isNumber(n.percentile) ? ` · percentile ${(100 * n.percentile).toFixed(1)}` : ""}${n.chosen ? " · one of the class’s" : ""}${neuronNote?.(n) ?? ""}`)));
      if (neuronTools) item.append(neuronTools(n));
      if (n.sentence) item.append(make("p", {}, shortSentence(n)));
      const track = one.tracks[k];
      if (track.some((x) => x !== 0)) item.append(alongSequence(track, `${neuronName(n)} along the sequence`, { width: wide(one) }));
      section.append(item);
    });
    return section;
  };

  return { className, decision, neuronName, neuronTitle, neurons, residues, shortSentence, structure, wide };
};
