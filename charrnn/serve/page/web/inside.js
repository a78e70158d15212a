// Inside: units ranked by what they follow; a text coloured by one unit; the units that stand out at a character.

import { choice, el, field, visible } from "/page/web/dom.js";
import { characterText } from "/page/web/chartext.js";
import { post } from "/page/web/server.js";
import { number, percent, t } from "/page/web/words.js";

const LEVELS = 4; // on each side, as `inspect units` colours them
const PROPERTIES = ["line position", "quotes", "brackets", "spaces", "case"];

const kept = { text: "", unit: null };

export function mount(root, app) {
  const notice = app.notice();
  const most = app.about.most_chars.inside;
  let asking = null;

  const input = el("textarea", {
    class: "source", rows: 5, spellcheck: "false", dir: "auto", "aria-label": t("text"), placeholder: t("inside.empty"),
    input: () => { kept.text = input.value; },
  });
  input.value = kept.text;
  const button = el("button", { type: "button", class: "primary", click: read }, t("inside.rank"));
  const result = el("div", { class: "result" });
  root.append(
    el("div", { class: "controls" }, app.modelChooser(() => {})),
    input,
    el("div", { class: "actions" }, button, el("button", { type: "button", click: own }, t("own.text")),
      el("span", { class: "note" }, t("inside.most", { count: number(most) }))),
    notice.place, result,
  );

  async function own() {
    try {
      input.value = kept.text = (await post("/page/text", { model: app.model })).text;
      notice.clear();
      await read();
    } catch (error) {
      notice.show(error);
    }
  }

  async function read() {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    const model = app.model;
    const text = Array.from(kept.text).slice(0, most).join("");
    button.setAttribute("aria-busy", "true");
    try {
      const ranked = await post("/page/units", { model, text, count: 5 }, signal);
      notice.clear();
      result.replaceChildren(...shownUnits(model, text, ranked, notice));
    } catch (error) {
      notice.show(error);
    }
    if (!signal.aborted) button.removeAttribute("aria-busy");
  }

  return () => asking?.abort();
}

function shownUnits(model, text, ranked, notice) {
  const characters = Array.from(ranked.text);
  const all = Object.values(ranked.properties).flatMap((list) => list.slice(0, 1));
  all.sort((a, b) => Math.abs(b.correlation) - Math.abs(a.correlation));
  const first = ranked.layers[0];
  const chosen = { layer: String(first.layer), state: first.states[0], number: 1 };
  let values = null;

  const heading = el("h2", { class: "unit-name" });
  const follows = el("p", { class: "note", role: "status" });
  const detail = el("div", { class: "detail" }, el("p", { class: "empty" }, t("inside.point")));
  const value = el("p", { class: "cost", role: "status" }, "\u00a0");
  const coloured = characterText(characters, t("inside.coloured"), look, strongest);
  const scale = el("p", { class: "scale" }, t("inside.scale"), " ",
    Array.from({ length: 2 * LEVELS + 1 }, (_, n) => el("span", { class: `swatch u${n}` }, n === 0 ? "−" : n === LEVELS ? "0" : n === 2 * LEVELS ? "+" : "\u00a0")));

  const states = el("span", {});
  const layers = choice(ranked.layers.map(({ layer }) => [String(layer), String(layer)]), chosen.layer, (layer) => { chosen.layer = layer; fillStates(); typed(); });
  const count = el("input", { type: "number", min: 1, max: ranked.hidden, value: 1, change: () => { chosen.number = Number(count.value); typed(); } });
  fillStates();

  function fillStates() {
    const there = ranked.layers.find(({ layer }) => String(layer) === chosen.layer).states;
    if (!there.includes(chosen.state)) [chosen.state] = there;
    states.replaceChildren(choice(there.map((state) => [state, state]), chosen.state, (state) => { chosen.state = state; typed(); }, { "aria-label": t("inside.state") }));
  }

  function typed() {
    show(`${chosen.layer}.${chosen.state}.${chosen.number}`);
  }

  async function show(unit) {
    try {
      const answer = await post("/page/unit", { model, text, unit });
      notice.clear();
      values = answer.activations;
      [chosen.layer, chosen.state] = unit.split(".");
      chosen.number = Number(unit.split(".")[2]);
      layers.value = chosen.layer;
      count.value = chosen.number;
      fillStates();
      heading.textContent = t("inside.unit", { unit });
      follows.textContent = Object.entries(answer.correlations).map(([name, r]) => `${t(`follows.${name}`)} ${signed(r)}`).join(" · ");
      const strongestValue = Math.max(...values.map(Math.abs)) || 1;
      coloured.colour((n) => `u${LEVELS + Math.round((LEVELS * values[n]) / strongestValue)}`);
      for (const each of document.querySelectorAll(".unit")) each.setAttribute("aria-pressed", String(each.dataset.unit === unit));
    } catch (error) {
      notice.show(error);
    }
  }

  function look(n) {
    value.replaceChildren(el("span", { class: "big" }, visible(characters[n])), " ",
      t("place", { place: number(n + 1), count: number(characters.length) }), ": ",
      el("b", {}, values ? signed(values[n], 3) : ""));
  }

  async function strongest(n) {
    try {
      const answer = await post("/page/strongest", { model, text, place: n });
      detail.replaceChildren(
        el("p", { class: "label" }, t("inside.strongest", { character: visible(characters[n]), place: number(n + 1) })),
        el("table", {},
          el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("inside.unit.head")), el("th", { scope: "col", class: "number" }, t("inside.activation")),
            el("th", { scope: "col", class: "number" }, t("inside.deviations")))),
          el("tbody", {}, answer.strongest.map((each) => el("tr", {}, el("td", {}, unitButton(each.unit)),
            el("td", { class: "number" }, signed(each.activation, 3)), el("td", { class: "number" }, `${signed(each.deviations, 1)} σ`))))),
      );
    } catch (error) {
      notice.show(error);
    }
  }

  function unitButton(unit) {
    return el("button", { type: "button", class: "unit", "data-unit": unit, "aria-pressed": "false", click: () => show(unit) }, unit);
  }

  function followers(properties) {
    return el("div", { class: "wide" }, el("table", { class: "ranked" },
      el("tbody", {}, PROPERTIES.map((name) => el("tr", {},
        el("th", { scope: "row" }, t(`follows.${name}`)),
        el("td", {}, (properties[name] ?? []).map(({ unit, correlation }) =>
          el("span", { class: "pair" }, unitButton(unit), el("span", { class: "value" }, signed(correlation)))),
        name in properties ? null : el("span", { class: "empty" }, t("inside.constant"))))))));
  }

  function gates() {
    const head = ["gate", "mean", "open", "closed"].map((name, n) =>
      el("th", { scope: "col", class: n ? "number" : null }, t(`inside.${name}`)));
    const rows = ranked.gates.map(({ gate, mean, open, closed }) => el("tr", {}, el("th", { scope: "row" }, gate),
      el("td", { class: "number" }, number(mean, 2)), [open, closed].map((share) => el("td", { class: "number" }, percent(share)))));
    return el("section", { class: "gates" }, el("h2", {}, t("inside.gates")), el("p", { class: "note" }, t("inside.gates.note")),
      el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)), followers(ranked.gates_follow));
  }

  show(all[0]?.unit ?? `${chosen.layer}.${chosen.state}.1`);
  return [
    el("section", {}, el("h2", {}, t("inside.ranked")),
      el("p", { class: "note" }, t("inside.ranked.note")), followers(ranked.properties)),
    ...(ranked.gates.length ? [gates()] : []),
    el("section", {}, heading, follows,
      el("div", { class: "controls" }, field(t("layer"), layers), el("div", { class: "field" }, el("span", { class: "label" }, t("inside.state")), states),
        field(t("inside.number", { most: number(ranked.hidden) }), count)),
      scale,
      el("div", { class: "reading" }, coloured.place, el("aside", {}, value, detail))),
  ];
}

function signed(value, digits = 2) {
  return `${value < 0 ? "−" : "+"}${number(Math.abs(value), digits)}`;
}
