// The structure of a protein in three dimensions, coloured as the strip is. The library is carried by the page, packed; it
// is unpacked when a protein with a structure is shown.
const molecules = (() => {
  let ready;
  return () => ready ??= (async () => {
    const held = document.getElementById("molecules");
    const packed = Uint8Array.from(atob(held.textContent), (c) => c.charCodeAt(0));
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    const library = document.createElement("script");
    library.textContent = text;
    document.head.append(library);
    library.remove();
    return window.$3Dmol;
  })();
})();

const structureView = (one, neuronName, chosen) => {
  const box = make("div", { class: "molecule", id: "molecule", role: "img", "aria-label": `Structure of ${one.id}, coloured by the choice above; drag to turn, scroll to zoom` });
  const by = make("select", { "aria-label": "Colour the structure by" }, make("option", { value: "" }, "attribution"));
  one.neurons.forEach((n, k) => { if (one.tracks[k].some((x) => x !== 0)) by.append(make("option", { value: String(k) }, neuronName(n))); });
  const spin = make("button", { type: "button", "aria-pressed": "false" }, "Spin");
  const turns = [["←", [0, 1, 0], -20], ["→", [0, 1, 0], 20], ["↑", [1, 0, 0], -20], ["↓", [1, 0, 0], 20]];
  const section = make("section", {}, make("h2", {}, "Structure"), make("p", {}, `${one.structure}. In grey: no attribution; orange speaks for the class, blue against it.`));
  let viewer = null, at = null;
  const colours = () => {
    const values = by.value === "" ? one.residues.map((r) => r.attribution) : one.tracks[Number(by.value)];
    const largest = Math.max(1e-9, ...values.map(Math.abs)), style = getComputedStyle(document.documentElement);
    const rgb = (name) => { const text = style.getPropertyValue(name).trim(); return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)); };
    const [plain, forIt, against] = [rgb("--line"), rgb("--c1"), rgb("--c0")];
    return values.map((value) => {
      const share = Math.min(1, Math.abs(value) / largest), to = value > 0 ? forIt : against;
      return `#${plain.map((x, i) => Math.round(x + (to[i] - x) * share).toString(16).padStart(2, "0")).join("")}`;
    });
  };
  const paint = () => {
    if (!viewer) return;
    const colour = colours();
    viewer.setBackgroundColor(getComputedStyle(document.body).getPropertyValue("--surface").trim() || "#ffffff");
    viewer.setStyle({}, {});
    viewer.setStyle({ chain: "A" }, { cartoon: { colorfunc: (atom) => colour[atom.resi - 1] ?? "#999999" } });
    viewer.setStyle({ chain: "B" }, { stick: { radius: 0.12, color: "#888888" } });
    if (at !== null) viewer.addStyle({ chain: "A", resi: at + 1 }, { stick: { radius: 0.25, color: colour[at] } });
    viewer.render();
  };
  const start = async () => {
    try {
      const library = await molecules();
      viewer = library.createViewer(box, { antialias: true });
      viewer.addModel(one.view, "pdb");
      viewer.setClickable({ chain: "A" }, true, (atom) => chosen(atom.resi - 1));
      paint();
      viewer.zoomTo();
      viewer.render();
      box.dataset.drawn = "yes";
    } catch (error) {
      viewer = null;
      box.replaceChildren(make("p", { class: "note" }, `This browser cannot draw in three dimensions (${error.message}).`));
    }
  };
  by.addEventListener("change", paint);
  spin.addEventListener("click", () => {
    const on = spin.getAttribute("aria-pressed") !== "true";
    spin.setAttribute("aria-pressed", String(on));
    viewer?.spin(on ? "y" : false);
  });
  const tools = make("div", { class: "controls" }, make("label", { class: "field" }, "Coloured by ", by), spin);
  for (const [sign, axis, angle] of turns) {
    const button = make("button", { type: "button", "aria-label": `Turn ${{ "←": "left", "→": "right", "↑": "up", "↓": "down" }[sign]}` }, sign);
    button.addEventListener("click", () => viewer?.rotate(angle, axis));
    tools.append(button);
  }
  for (const [sign, name, factor] of [["+", "Nearer", 1.25], ["−", "Farther", 0.8]]) {
    const button = make("button", { type: "button", "aria-label": name }, sign);
    button.addEventListener("click", () => viewer?.zoom(factor));
    tools.append(button);
  }
  section.append(tools, box);
  new MutationObserver(paint).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  requestAnimationFrame(start); // when the box has its size
  return { section, pick: (k) => { at = k; paint(); } };
};
