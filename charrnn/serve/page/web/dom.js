// Elements without markup: whatever a text holds, it becomes a text node.

// Make an element. attributes: properties by name, "class", "aria-..." and "data-..." as they are written, functions as
// listeners. children: elements, texts, and null for nothing.
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// Make an element of SVG.
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const showing = new WeakMap();

// Fill a place with the children that `make` gives, where what they show is other than before: a click under way would
// be lost with its button. The focus goes to the child of the same "data-key".
export function renew(place, shows, make) {
  const now = JSON.stringify(shows);
  if (showing.get(place) === now) return;
  showing.set(place, now);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  place.replaceChildren(...make());
  if (focused) [...place.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focused)?.focus();
}

// Characters that no font shows or that turn the text around them: controls, formats, separators, half surrogate pairs.
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}]/u;

// Tell whether a character must be shown by its number.
export function isHidden(character) {
  return HIDDEN.test(character) && character !== "\n" && character !== "\t";
}

// Write one character so that it can be seen.
export function visible(character) {
  if (character === " ") return "␣";
  if (character === "\n") return "↵";
  if (character === "\t") return "⇥";
  const code = character.codePointAt(0);
  if (character === "\u00a0" || isHidden(character)) return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  return character;
}

// Write a text on which nothing can hide.
export function shown(text) {
  return Array.from(text, (character) => (isHidden(character) ? `[${visible(character)}]` : character)).join("");
}

let fields = 0;

// Return a field with its label above it. The label holds nothing else: what a list has to choose from is no name.
export function field(label, input) {
  input.id = `field${(fields += 1)}`;
  return el("div", { class: "field" }, el("label", { class: "label", for: input.id }, label), input);
}

// Return a slider with its value beside its label. show: writes a value.
export function slider(label, { min, max, step, value }, show, changed) {
  const id = `field${(fields += 1)}`; // an output inside the label would be what is labelled
  const output = el("output", { for: id }, show(value));
  const input = el("input", {
    type: "range", id, min, max, step, value,
    input: () => {
      output.textContent = show(Number(input.value));
      changed(Number(input.value));
    },
  });
  return el("div", { class: "field" }, el("div", { class: "label" }, el("label", { for: id }, label), output), input);
}

// Return a list to choose from. options: [value, label].
export function choice(options, value, changed, attributes = {}) {
  const select = el(
    "select", { ...attributes, change: () => changed(select.value) },
    options.map(([key, label]) => el("option", { value: key, selected: key === value }, label)),
  );
  return select;
}

// Return a bar for a share from 0 to 1.
export function bar(share) {
  const inside = el("span", { class: "inside" });
  inside.style.inlineSize = `${(100 * Math.max(0, Math.min(1, share))).toFixed(2)}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, inside);
}

// Return figures with their names, each with its unit. figures: [name, value, unit].
export function figures(list) {
  return el(
    "dl", { class: "figures" },
    list.map(([name, value, unit]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, value, unit ? el("span", { class: "measure" }, `\u00a0${unit}`) : null)),
    ),
  );
}
