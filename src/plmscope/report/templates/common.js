"use strict";
// What the pages share: elements made without markup, and numbers and names as text.
const SVG = "http://www.w3.org/2000/svg";
const make = (tag, attributes = {}, ...inside) => {
  const one = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  one.append(...inside);
  return one;
};
const draw = (tag, attributes, text) => {
  const one = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  if (text !== undefined) one.textContent = text;
  return one;
};
const isNumber = (x) => typeof x === "number";
const number = (x, digits = 2) => isNumber(x) ? x.toFixed(digits).replace("-", "−") : "–";
const words = (name) => name.replaceAll("_", " ");
