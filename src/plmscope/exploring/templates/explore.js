// Explores one protein at a time. What comes back is put on the page as text. Only this server is asked.
(() => {
  const facts = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const TO = { zero: "off", mean: "mean", double: "×2" };
  let state = emptyState(), origin = null, one = null, decided = null, picked = null, asking = null, round = 0;

  const ask = async (what, sent, signal) => {
    let answer;
    try {
      answer = await fetch(`/api/${what}`, { method: "POST", headers: { "Content-Type": "application/json", [facts.header]: facts.token }, body: JSON.stringify(sent), signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("the server does not answer; is plmscope explore still running?");
    }
    const text = await answer.text();
    let found;
    try { found = JSON.parse(text); } catch { throw new Error(text.trim() || `status ${answer.status}`); }
    if (!answer.ok) throw new Error(found.error);
    return found;
  };
  const say = (text, error = false) => { $("status").textContent = text; $("status").className = error ? "error" : ""; };
  const sent = (more = {}) => ({ id: state.id, sequence: state.sequence, mutations: state.mutations, label: state.label || null, ...more });

  const keep = (push = true) => {
    const address = `${location.pathname}${location.search}#${writeState(state)}`;
    if (push && address !== `${location.pathname}${location.search}${location.hash}`) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  };

  // --- what is changed

  const setChange = (change, to) => {
    const key = changeKey(change), before = state.changes.findIndex((other) => changeKey(other) === key);
    const changes = state.changes.filter((other) => changeKey(other) !== key);
    if (to) changes.splice(before < 0 ? changes.length : before, 0, { ...change, to });
    state = { ...state, changes };
    keep();
    refresh("decide");
  };
  const toOf = (change) => state.changes.find((other) => changeKey(other) === changeKey(change))?.to;
  const switches = (change, name) => {
    const group = make("span", { class: "switches", role: "group", "aria-label": `Change ${name}` });
    group.dataset.key = changeKey(change);
    for (const to of facts.to) {
      if (to === "mean" && !facts.has_means) continue;
      const button = make("button", { type: "button", "aria-pressed": String(toOf(change) === to), "data-to": to }, TO[to]);
      button.addEventListener("click", () => setChange(change, toOf(change) === to ? null : to));
      group.append(button);
    }
    return group;
  };
  const pressSwitches = () => {
    const now = new Map(state.changes.map((change) => [changeKey(change), change.to]));
    for (const group of document.querySelectorAll(".switches")) {
      for (const button of group.children) button.setAttribute("aria-pressed", String(now.get(group.dataset.key) === button.dataset.to));
    }
  };
  const changeName = (change) => change.set ? `the run’s best for ${change.set}` : `${words(change.neurons[0][1])}, layer ${change.neurons[0][0]}, neuron ${change.neurons[0][2]}`;

  const mutate = (letter) => {
    if (!picked || !one) return;
    const position = picked.position, own = one.sequence[position - 1];
    if (letter === own) return;
    const before = state.mutations.filter((name) => Number(name.slice(1, -1)) !== position);
    const first = state.sequence[position - 1];
    state = { ...state, mutations: letter === first ? before : [...before, `${first}${position}${letter}`] };
    keep();
    refresh("look");
  };

  // --- what is shown

  const view = proteinView({
    ...facts,
    onPick: (r) => { picked = r; showLetters(); },
    residueTools: make("div", { class: "letters", id: "letters", role: "group", "aria-label": "Mutate the chosen residue" }),
    neuronTools: (n) => switches({ neurons: [[n.layer, n.module, n.neuron]] }, `${words(n.module)}, layer ${n.layer}, neuron ${n.neuron}`),
    neuronNote: (n) => {
      if (!origin || !state.mutations.length) return "";
      const same = origin.neurons.find((other) => other.layer === n.layer && other.module === n.module && other.neuron === n.neuron);
      return same ? ` · ${signed(same.contribution, 3)} before the mutation` : " · not among the strongest before the mutation";
    },
  });
  const { className } = view;

  const showLetters = () => {
    const box = $("letters");
    if (!box || !picked || !one) return;
    const focused = document.activeElement?.dataset?.letter;
    box.replaceChildren(`Mutate ${one.sequence[picked.position - 1]}${picked.position} to`);
    for (const letter of "ACDEFGHIKLMNPQRSTVWY") {
      const own = letter === one.sequence[picked.position - 1];
      const button = make("button", { type: "button", "data-letter": letter, "aria-pressed": String(own), "aria-label": own ? `${letter}, as it is` : `Mutate to ${letter}` }, letter);
      button.addEventListener("click", () => mutate(letter));
      box.append(button);
      if (letter === focused) button.focus();
    }
  };

  const chip = (text, remove) => {
    const button = make("button", { type: "button", "aria-label": `Undo ${text}` }, "×");
    button.addEventListener("click", remove);
    return make("li", {}, text, button);
  };
  const showChanged = () => {
    const box = $("changed");
    box.replaceChildren();
    if (!one) return;
    const section = make("section", { class: "change", "aria-label": "What is changed" }, make("h2", {}, "Changes"));
    const chips = make("ul", { class: "chips" });
    for (const name of state.mutations) chips.append(chip(name, () => { state = { ...state, mutations: state.mutations.filter((x) => x !== name) }; keep(); refresh("look"); }));
    for (const change of state.changes) chips.append(chip(`${changeName(change)}: ${TO[change.to]}`, () => setChange(change, null)));
    if (chips.children.length) section.append(chips);
    else section.append(make("p", { class: "note" }, "Nothing is changed. Choose a residue below and another letter for it, or switch neurons off, to their mean, or double them."));
    const sets = make("p", { class: "letters" });
    for (const [name, size] of Object.entries(facts.sets)) {
      const label = name.replace(/^class /, "");
      if (label === one.explained || toOf({ set: name })) sets.append(`the ${size} best neurons of class ${className(label)}`, switches({ set: name }, name));
    }
    const others = Object.keys(facts.sets).filter((name) => name !== `class ${one.explained}` && !toOf({ set: name }));
    if (others.length) {
      const select = make("select", { "aria-label": "Another class’s neurons to change" }, make("option", { value: "" }, "another class’s …"), ...others.map((name) => make("option", { value: name }, `${className(name.replace(/^class /, ""))}: mean`)));
      select.addEventListener("change", () => { if (select.value) setChange({ set: select.value }, facts.has_means ? "mean" : "zero"); });
      sets.append(select);
    }
    section.append(sets);
    const columns = ["class", state.mutations.length ? "before" : "probability"], steps = [state.mutations.length && origin ? origin.probabilities : one.probabilities];
    if (state.mutations.length && origin) { columns.push("mutated"); steps.push(one.probabilities); }
    if (state.changes.length && decided) { columns.push("neurons changed"); steps.push(decided.after.probabilities); }
    if (steps.length > 1) {
      const rows = Object.keys(one.probabilities).sort((a, b) => steps[0][b] - steps[0][a]).map((label) => [className(label), ...steps.map((step) => percent(step[label]))]);
      section.append(tableOf("Probability of every class", columns, rows));
      const lines = [];
      if (state.mutations.length && origin && origin.explained === one.explained) lines.push(`log-odds of class ${className(one.explained)}: ${signed(one.log_odds - origin.log_odds, 3)} nats by the mutation`);
      if (state.changes.length && decided) lines.push(`log-odds of class ${className(one.explained)}: ${signed(decided.after.log_odds[one.explained] - decided.before.log_odds[one.explained], 3)} nats by the neurons; the model then says ${decided.after.decided.split(";").map(className).join(" and ") || "no class"}`);
      if (lines.length) section.append(make("p", { id: "effect" }, `${lines.map((line) => line[0].toUpperCase() + line.slice(1)).join(". ")}.`));
    }
    box.append(section);
  };

  const showQuick = (quick) => {
    const before = origin ?? one, now = quick.after.probabilities;
    const columns = ["class", ...(before ? ["before"] : []), before ? "now" : "probability"];
    const rows = Object.keys(now).sort((a, b) => (before?.probabilities ?? now)[b] - (before?.probabilities ?? now)[a]).map((label) => [className(label), ...(before ? [percent(before.probabilities[label])] : []), percent(now[label])]);
    $("changed").replaceChildren(make("section", { class: "change", id: "quick" }, make("h2", {}, before ? "Changes" : "Decision"), tableOf("Probability of every class", columns, rows)));
  };

  const show = () => {
    const at = picked ? picked.position - 1 : undefined, inStrip = document.activeElement?.classList?.contains("strip"), letter = document.activeElement?.dataset?.letter;
    const residues = view.residues(one, at !== undefined && at < one.length ? at : undefined);
    const cells = residues.querySelectorAll(".strip b");
    for (const name of state.mutations) cells[Number(name.slice(1, -1)) - 1]?.classList.add("mutated");
    const strip = residues.querySelector(".strip");
    strip.addEventListener("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey && /^[A-Za-z]$/.test(event.key) && "ACDEFGHIKLMNPQRSTVWY".includes(event.key.toUpperCase())) { event.preventDefault(); mutate(event.key.toUpperCase()); }
    });
    if (!one.null_copies) {
      const more = make("button", { type: "button", id: "whole" }, "Add the band of shuffled copies, matched draws and the nearest training protein");
      more.addEventListener("click", () => refresh("explain"));
      residues.append(make("p", {}, more));
    }
    $("explained").replaceChildren(view.decision(one), residues, view.neurons(one));
    showLetters();
    if (inStrip) strip.focus();
    if (letter) $("letters").querySelector(`[data-letter="${letter}"]`)?.focus();
    for (const id of ["copy", "save-json", "save-residues", "save-neurons", "save-page"]) $(id).hidden = false;
    document.title = `${one.id} · explore · plmscope`;
  };

  // --- asking: a look first, then the whole, so that others have their turn between

  const refresh = async (what) => {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking, own = ++round;
    const current = () => own === round;
    $("explained").classList.add("busy");
    say("Asking the model …");
    pressSwitches();
    try {
      if (what === "decide" && one) {
        decided = state.changes.length ? await ask("decide", sent({ changes: state.changes }), signal) : null;
      } else {
        // The decision takes one forward pass, so it is there first.
        const quick = await ask("decide", sent({ changes: state.changes }), signal);
        if (!current()) return;
        showQuick(quick);
        say("The decision is there; residues and neurons follow …");
        const first = await ask("look", sent(), signal);
        if (!current()) return;
        // The class that is followed stays the one of the protein without mutations.
        if (state.mutations.length && !state.label) {
          if (!origin || origin.sequence !== state.sequence) origin = await ask("look", sent({ mutations: [] }), signal);
          one = first.explained === origin.explained ? first : await ask("look", sent({ label: origin.explained }), signal);
        } else {
          if (state.mutations.length && (!origin || origin.sequence !== state.sequence || origin.explained !== first.explained)) origin = await ask("look", sent({ mutations: [] }), signal);
          one = first;
          if (!state.mutations.length) origin = one;
        }
        decided = state.changes.length ? await ask("decide", sent({ changes: state.changes }), signal) : null;
        if (!current()) return;
        show();
        showChanged();
        if (what === "explain" || !state.mutations.length) {
          say("This is a first look; the band of shuffled copies follows …");
          one = await ask("explain", sent({ label: state.label || one.explained }), signal);
          if (!state.mutations.length) origin = one;
        }
      }
      if (!current()) return;
      if (what !== "decide") show();
      showChanged();
      say(`${one.id}: ${one.length} residues, class ${className(one.explained)} explained.`);
    } catch (error) {
      if (error.name !== "AbortError" && current()) say(`${error.message[0].toUpperCase()}${error.message.slice(1)}.`, true);
    } finally {
      if (current()) $("explained").classList.remove("busy");
    }
  };

  const restart = (next) => {
    const same = next.sequence === state.sequence && next.label === state.label && next.id === state.id;
    state = next;
    if (!same) { origin = null; one = null; picked = null; }
    $("sequence").value = state.sequence ? (state.id ? `>${state.id}\n${state.sequence}` : state.sequence) : "";
    $("label").value = facts.labels_all.includes(state.label) ? state.label : "";
    if (state.sequence) refresh("look");
  };

  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const lines = $("sequence").value.trim().split(/\r?\n/), header = lines[0].startsWith(">") ? lines.shift().slice(1).trim().split(/\s+/)[0] : "";
    if (lines.some((line) => line.startsWith(">"))) { say("More than one protein; paste one at a time, or use plmscope explain for a file.", true); return; }
    const next = { ...emptyState(), id: header, sequence: lines.join("").replace(/\s+/g, "").toUpperCase().replace(/\*$/, ""), label: $("label").value };
    if (!next.sequence) { say("The sequence is empty; paste its residues.", true); return; }
    state = emptyState();
    restart(next);
    keep();
  });
  $("offered").addEventListener("change", () => {
    const chosen = facts.proteins[Number($("offered").value)];
    if ($("offered").value && chosen) $("sequence").value = `>${chosen.id}\n${chosen.sequence}`;
  });
  addEventListener("popstate", () => restart(readState(location.hash.slice(1), facts)));

  // --- what is taken away

  const save = (name, kind, text) => {
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: kind })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const file = (end) => `${(one.id.replace(/[^\w.-]+/g, "_") || "protein").slice(0, 60)}${state.mutations.map((m) => `_${m}`).join("").slice(0, 60)}${end}`;
  // A cell that a spreadsheet would take for a formula begins with a quotation mark of its own.
  const cell = (x) => { const text = x === null || x === undefined ? "" : typeof x === "object" ? JSON.stringify(x) : String(x); const safe = typeof x === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text; return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe; };
  const csv = (rows) => { const head = Object.keys(rows[0] ?? {}); return `${[head.join(","), ...rows.map((row) => head.map((name) => cell(row[name])).join(","))].join("\n")}\n`; };
  $("save-json").addEventListener("click", () => save(file(".json"), "application/json", JSON.stringify({ state, explanation: one, decision: decided }, null, 1)));
  $("save-residues").addEventListener("click", () => save(file("-residues.csv"), "text/csv", csv(one.residues)));
  $("save-neurons").addEventListener("click", () => save(file("-neurons.csv"), "text/csv", csv(one.neurons)));
  $("save-page").addEventListener("click", async () => {
    say("Writing the page …");
    try { save(file(".html"), "text/html", (await ask("page", sent({ label: state.label || one.explained }))).html); say("Saved."); } catch (error) { say(error.message, true); }
  });
  $("copy").addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(location.href); say("The permalink is copied. It holds the sequence and this server’s token; after another start replace what stands between ? and #."); } catch { say("The browser did not allow copying; the address of this page is the permalink.", true); }
  });

  // --- search

  const along = async (row, cellOf) => {
    if (!one) { say("Explain a protein first; then its activation is shown along it.", true); return; }
    try {
      const found = await ask("along", sent({ neuron: [row.layer, row.module, row.neuron] }));
      const best = found.values.reduce((top, x, i) => x > found.values[top] ? i : top, 0);
      const share = found.percentiles[best];
      cellOf.replaceChildren(make("p", {}, `${view.neuronName(row)} in ${one.id}: highest at ${one.sequence[best]}${best + 1}, ${number(found.values[best], 3)}${isNumber(share) ? ` (percentile ${(100 * share).toFixed(1)} of training residues)` : ""}.`),
        alongSequence(found.values, `Activation of ${view.neuronName(row)}`, { width: view.wide(one), height: 60, ruler: true }));
    } catch (error) { say(error.message, true); }
  };
  const showFound = (found) => {
    const box = $("found"), scored = found.rows.some((row) => isNumber(row.score));
    const shown = make("div", { id: "along", "aria-live": "polite" });
    const rows = found.rows.map((row) => {
      const name = view.neuronName(row), see = make("button", { type: "button", "aria-label": `${name} along the protein` }, "along the protein");
      see.addEventListener("click", () => along(row, shown));
      const ofCard = facts.cards.length ? [row.motif || "–", row.concepts || "–", view.shortSentence(row) || "–"] : [];
      return [name, switches({ neurons: [[row.layer, row.module, row.neuron]] }, name), see, ...(scored ? [signed(row.score, 4)] : []), ...ofCard];
    });
    const head = ["neuron", "switch", "see", ...(scored ? [`score for class ${found.asked.label}`] : []), ...(facts.cards.length ? ["motif", "concepts", "card"] : [])];
    const text = new Set(head.map((_, k) => k).filter((k) => !(scored && k === 3)));
    const more = found.total > found.rows.length ? `; the first ${found.rows.length} are shown` : "";
    box.replaceChildren(shown, found.total ? tableOf(`${found.total.toLocaleString("en")} neurons fit${more}`, head, rows, text) : make("p", { class: "note" }, "No neuron of this run fits all of that."));
  };
  $("search").addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = new FormData($("search")), wanted = Object.fromEntries([...form].filter(([, value]) => value !== ""));
    if ("layer" in wanted) wanted.layer = Number(wanted.layer);
    try { showFound(await ask("search", wanted)); } catch (error) { say(error.message, true); }
  });

  // --- the start

  const fill = (select, values, text = (x) => x) => select.append(...values.map((value) => make("option", { value: String(value) }, text(value))));
  facts.labels_all = Object.keys(facts.classes);
  fill($("label"), facts.labels_all, className);
  facts.proteins.forEach((p, i) => $("offered").append(make("option", { value: String(i) }, `${p.id} · class ${p.label} · ${p.sequence.length} residues`)));
  const form = $("search").elements;
  fill(form.namedItem("module"), facts.modules, words);
  fill(form.namedItem("layer"), [...Array(facts.layers).keys()]);
  fill(form.namedItem("label"), facts.labels, className);
  fill(form.namedItem("concept"), facts.concepts);
  for (const one of document.querySelectorAll(".of-cards")) one.hidden = !facts.cards.length;
  $("no-cards").hidden = facts.cards.length > 0;
  themeButton();
  restart(readState(location.hash.slice(1), facts));
})();
