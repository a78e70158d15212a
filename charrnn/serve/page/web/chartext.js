// A text of which every character is coloured: pointed at, clicked, or walked through by the arrow keys.

import { el, isHidden, visible } from "/page/web/dom.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -40, ArrowDown: 40 };

// Return a text and what colours it. pointed(n): character n is looked at. chosen(n): it was clicked, or Enter pressed.
export function characterText(characters, label, pointed, chosen = pointed) {
  let current = -1;
  const spans = characters.map((character) => {
    const hidden = isHidden(character);
    return el("span", { class: hidden ? "hidden" : null }, character === "\n" ? "↵\n" : hidden ? visible(character) : character);
  });
  const place = el("div", {
    class: "characters", tabindex: "0", role: "group", dir: "auto", "aria-label": label,
    pointerover: (event) => { const n = at(event); if (n >= 0) look(n); },
    click: (event) => { const n = at(event); if (n >= 0) { look(n); chosen(n); } },
    keydown: (event) => {
      if (event.key === "Enter" && current >= 0) chosen(current);
      else if (event.key === "Home") look(0);
      else if (event.key === "End") look(characters.length - 1);
      else if (event.key in STEPS) look(Math.max(0, Math.min(characters.length - 1, current + STEPS[event.key])));
      else return;
      event.preventDefault();
      spans[current]?.scrollIntoView({ block: "nearest" });
    },
  }, spans);
  spans.forEach((span, n) => { span.at = n; });

  function at(event) {
    return event.target.at ?? -1;
  }

  function look(n) {
    if (n === current) return;
    spans[current]?.classList.remove("current");
    current = n;
    spans[n].classList.add("current");
    pointed(n);
  }

  // Give every character one of the classes a0, a1 ...: classes(n) names it.
  function colour(classes) {
    spans.forEach((span, n) => {
      const now = n === current ? " current" : "";
      span.className = `${classes(n)}${isHidden(characters[n]) ? " hidden" : ""}${now}`;
    });
  }

  return { place, colour, look };
}
