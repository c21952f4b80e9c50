// What is explored, as the part of the address after #: it never leaves the browser by itself, and a link to it opens the same.
//   s sequence, n name, l class, m mutations, c changes: set~class 1~mean or 0~key~116~zero, one a key
const emptyState = () => ({ id: "", sequence: "", label: "", mutations: [], changes: [] });
const changeKey = (change) => change.set ? `set~${change.set}` : change.neurons[0].join("~");

const writeState = (state) => {
  const out = new URLSearchParams();
  if (state.sequence) out.set("s", state.sequence);
  if (state.id) out.set("n", state.id);
  if (state.label) out.set("l", state.label);
  for (const one of state.mutations) out.append("m", one);
  for (const change of state.changes) out.append("c", `${changeKey(change)}~${change.to}`);
  return out.toString();
};

const readState = (text, { to, modules }) => {
  const sent = new URLSearchParams(text), state = emptyState();
  state.sequence = sent.get("s") ?? "";
  state.id = sent.get("n") ?? "";
  state.label = sent.get("l") ?? "";
  state.mutations = sent.getAll("m").filter((one) => /^[A-Z][1-9]\d{0,5}[A-Z]$/.test(one));
  for (const one of sent.getAll("c")) {
    const parts = one.split("~"), end = parts.pop();
    if (!to.includes(end)) continue;
    if (parts[0] === "set" && parts.length > 1) state.changes.push({ set: parts.slice(1).join("~"), to: end });
    else if (parts.length === 3 && modules.includes(parts[1]) && /^\d+$/.test(parts[0]) && /^\d+$/.test(parts[2])) {
      state.changes.push({ neurons: [[Number(parts[0]), parts[1], Number(parts[2])]], to: end });
    }
  }
  return state;
};
const mutatedSequence = (sequence, mutations) => {
  const letters = [...sequence];
  for (const one of mutations) letters[Number(one.slice(1, -1)) - 1] = one.at(-1);
  return letters.join("");
};
