// Draws one protein at a time from its data. No request is ever made.
(() => {
  const { proteins, ...told } = JSON.parse(document.getElementById("data").textContent);
  const view = proteinView(told);
  const shown = document.getElementById("explained"), select = document.getElementById("protein");
  proteins.forEach((one, i) => select.append(make("option", { value: String(i) }, `${one.id} · ${one.length} residues · ${one.decided || "no class"}`)));
  const show = (i) => {
    const one = proteins[i];
    const solid = one.view ? view.structure(one) : null;
    shown.replaceChildren(view.decision(one), view.residues(one, undefined, solid), ...(solid ? [solid.section] : []), view.neurons(one));
    document.title = `${one.id} · plmscope`;
  };
  choosing(proteins, select, show);
  themeButton();
})();
