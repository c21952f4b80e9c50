// The structure of an explained protein, coloured as the strip is or by what one neuron contributes.
const structureView = (one, neuronName, chosen) => {
  const by = make("select", { "aria-label": "Colour the structure by" }, make("option", { value: "" }, "attribution"));
  one.neurons.forEach((n, k) => { if (one.tracks[k].some((x) => x !== 0)) by.append(make("option", { value: String(k) }, neuronName(n))); });
  const solid = solidView({
    name: one.id, lines: () => one.view, up: "--c1", down: "--c0", chosen,
    values: () => by.value === "" ? one.residues.map((r) => r.attribution) : one.tracks[Number(by.value)],
  });
  solid.box.id = "molecule";
  by.addEventListener("change", solid.paint);
  const section = make("section", {}, make("h2", {}, "Structure"), make("p", {}, `${one.structure}. In grey: no attribution; orange speaks for the class, blue against it.`),
    make("div", { class: "controls" }, make("label", { class: "field" }, "Coloured by ", by), ...solid.tools), solid.box);
  requestAnimationFrame(solid.start); // when the box has its size
  return { section, pick: solid.pick };
};
