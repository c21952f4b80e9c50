// A protein in three dimensions, coloured residue by residue. The library is carried by the page, packed, and is unpacked
// when the first structure is shown.
const unpacked = async (text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
};
const molecules = (() => {
  let ready;
  return () => ready ??= (async () => {
    const library = document.createElement("script");
    library.textContent = await unpacked(document.getElementById("molecules").textContent);
    document.head.append(library);
    library.remove();
    return window.$3Dmol;
  })();
})();

// name: of the protein; lines: gives its PDB lines, or a promise of them; values: gives a number for each residue, whose
// colour runs from grey to --up above 0 and --down below; chosen(k): told which residue is pointed at.
const solidView = ({ name, lines, values, up, down, chosen }) => {
  const box = make("div", { class: "molecule", role: "img", "aria-label": `Structure of ${name}, coloured as the text says; drag to turn, scroll to zoom` });
  let viewer = null, at = null, gone = false;
  const colours = () => {
    const now = values(), largest = Math.max(1e-9, ...now.map(Math.abs)), style = getComputedStyle(document.documentElement);
    const rgb = (colour) => { const text = style.getPropertyValue(colour).trim(); return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)); };
    const plain = rgb("--ribbon"), above = rgb(up), below = rgb(down);
    return now.map((value) => {
      const share = Math.min(1, Math.abs(value) / largest), to = value > 0 ? above : below;
      return `#${plain.map((x, i) => Math.round(x + (to[i] - x) * share).toString(16).padStart(2, "0")).join("")}`;
    });
  };
  const paint = () => {
    if (!viewer) return;
    const colour = colours();
    viewer.setBackgroundColor(getComputedStyle(document.body).getPropertyValue("--surface").trim() || "#ffffff");
    viewer.setStyle({}, {});
    // A chain of C-alphas alone has no ribbon.
    const drawn = viewer.selectedAtoms({ chain: "A", atom: "O" }).length ? {} : { style: "trace", thickness: 0.4 };
    viewer.setStyle({ chain: "A" }, { cartoon: { ...drawn, colorfunc: (atom) => colour[atom.resi - 1] ?? "#999999" } });
    viewer.setStyle({ chain: "B" }, { stick: { radius: 0.12, color: "#888888" } });
    if (at !== null) viewer.addStyle({ chain: "A", resi: at + 1 }, { stick: { radius: 0.25, color: colour[at] } });
    viewer.render();
  };
  const start = async () => {
    try {
      const [library, text] = await Promise.all([molecules(), lines()]);
      if (gone) return;
      viewer = library.createViewer(box, { antialias: true });
      viewer.addModel(text, "pdb");
      viewer.setClickable({ chain: "A" }, true, (atom) => chosen(atom.resi - 1));
      paint();
      viewer.zoomTo();
      viewer.zoom(Math.min(1, box.clientWidth / box.clientHeight)); // it fits the height alone
      viewer.render();
      box.dataset.drawn = "yes";
    } catch (error) {
      viewer = null;
      box.replaceChildren(make("p", { class: "note" }, `This browser cannot draw in three dimensions (${error.message}).`));
    }
  };
  // A browser keeps few drawings in three dimensions at once.
  const stop = () => {
    gone = true;
    viewer?.spin(false);
    watch.disconnect();
    scheme.removeEventListener("change", paint);
    for (const canvas of box.querySelectorAll("canvas")) (canvas.getContext("webgl2") ?? canvas.getContext("webgl"))?.getExtension("WEBGL_lose_context")?.loseContext();
    viewer = null;
    box.replaceChildren();
  };
  const spin = make("button", { type: "button", "aria-pressed": "false" }, "Spin");
  spin.addEventListener("click", () => {
    const on = spin.getAttribute("aria-pressed") !== "true";
    spin.setAttribute("aria-pressed", String(on));
    viewer?.spin(on ? "y" : false);
  });
  const button = (sign, label, act) => {
    const one = make("button", { type: "button", "aria-label": label }, sign);
    one.addEventListener("click", () => { if (viewer) act(); });
    return one;
  };
  const tools = [spin,
    ...[["←", "left", "y", -20], ["→", "right", "y", 20], ["↑", "up", "x", -20], ["↓", "down", "x", 20]]
      .map(([sign, where, axis, angle]) => button(sign, `Turn ${where}`, () => viewer.rotate(angle, axis))),
    button("+", "Nearer", () => viewer.zoom(1.25)), button("−", "Farther", () => viewer.zoom(0.8))];
  const watch = new MutationObserver(paint), scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", paint);
  watch.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  return { box, tools, start, stop, paint, pick: (k) => { at = k; paint(); } };
};
