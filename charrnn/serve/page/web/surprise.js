// Surprise: every character coloured by its bits; what was expected instead; where one model gains on another.

import { bar, el, figures, visible } from "/page/web/dom.js";
import { characterText } from "/page/web/chartext.js";
import { post } from "/page/web/server.js";
import { number, percent, t } from "/page/web/words.js";

const LEVELS = [2, 4, 6, 8, 11]; // bits, as `score` colours them
const GAINS = [0.5, 1, 2, 4]; // bits by which two models differ

const kept = { text: "", other: "" };

export function mount(root, app) {
  const notice = app.notice();
  const most = app.about.most_chars.surprise;
  let asking = null;

  const input = el("textarea", {
    class: "source", rows: 5, spellcheck: "false", dir: "auto", "aria-label": t("text"), placeholder: t("surprise.empty"),
    input: () => { kept.text = input.value; },
    keydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) score(); },
  });
  input.value = kept.text;
  const button = el("button", { type: "button", class: "primary", click: score }, t("surprise.show"));
  const result = el("div", { class: "result" });
  root.append(
    el("div", { class: "controls" },
      app.modelChooser(() => { if (kept.other === app.model) kept.other = ""; }),
      app.about.models.length > 1
        ? app.models((name) => { kept.other = name; }, t("surprise.other"), kept.other, t("surprise.none")) : null),
    input,
    el("div", { class: "actions" }, button,
      app.about.own_text === false ? null : el("button", { type: "button", click: own }, t("own.text")),
      el("span", { class: "note" }, t("surprise.most", { count: number(most) }))),
    notice.place, result,
  );

  async function own() {
    try {
      input.value = kept.text = (await post("/page/text", { model: app.model })).text;
      notice.clear();
      await score();
    } catch (error) {
      notice.show(error);
    }
  }

  async function score() {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    const text = Array.from(kept.text).slice(0, most).join("");
    const left = Array.from(kept.text).length - Array.from(text).length;
    button.setAttribute("aria-busy", "true");
    try {
      const names = [app.model, ...(kept.other && kept.other !== app.model ? [kept.other] : [])];
      const scores = await Promise.all(names.map((model) => post("/page/surprise", { model, text }, signal)));
      notice.clear();
      result.replaceChildren(...shownResult(names, scores, left));
    } catch (error) {
      notice.show(error);
    }
    if (!signal.aborted) button.removeAttribute("aria-busy");
  }

  return () => asking?.abort();
}

function shownResult(names, scores, left) {
  const [one, two] = scores;
  const characters = Array.from(one.text);
  const comparable = two !== undefined && two.text === one.text;
  const detail = el("div", { class: "detail", role: "status" }, el("p", { class: "empty" }, t("surprise.point")));
  const text = characterText(characters, t("surprise.coloured"), (n) => detail.replaceChildren(...details(n)));
  const legend = el("p", { class: "scale" });
  let gains = comparable;

  function details(n) {
    return [
      el("p", { class: "looked" }, el("span", { class: "big" }, visible(characters[n])), " ",
        t("place", { place: number(n + 1), count: number(characters.length) })),
      ...scores.filter((each) => each.text === one.text).flatMap((each, k) => [
        el("p", { class: "cost" }, scores.length > 1 ? `${names[k]}: ` : "", el("b", {}, number(each.bits[n], 2)), ` ${t("bits")}`),
        el("p", { class: "label" }, t("surprise.expected")),
        el("ol", { class: "next" }, each.expected[n].map(([character, p]) => el("li", { class: character === characters[n] ? "it" : null },
          el("span", { class: "character" }, Array.from(character).length === 1 ? visible(character) : character), bar(p),
          el("span", { class: "value" }, percent(p))))),
      ]),
    ];
  }

  function paint() {
    if (gains) {
      text.colour((n) => gainClass(two.bits[n] - one.bits[n]));
      const [low, high] = [-GAINS.length, GAINS.length];
      legend.replaceChildren(t("surprise.gain", { one: names[0], two: names[1] }), " ",
        ...range(low, high).map((level) => el("span", { class: `swatch g${level + GAINS.length}` }, gainName(level))));
    } else {
      text.colour((n) => `s${LEVELS.filter((bound) => one.bits[n] >= bound).length}`);
      legend.replaceChildren(t("surprise.bits"), " ",
        ...[0, ...LEVELS].map((bound, n) => el("span", { class: `swatch s${n}` }, n ? `${bound}+` : `< ${LEVELS[0]}`)));
    }
  }

  paint();
  const either = comparable
    ? el("div", { class: "switch", role: "group", "aria-label": t("surprise.colours") },
      ["gain", "bits"].map((what) => el("button", {
        type: "button", "aria-pressed": String((what === "gain") === gains),
        click: (event) => {
          gains = what === "gain";
          for (const each of event.currentTarget.parentNode.children) each.setAttribute("aria-pressed", String(each === event.currentTarget));
          paint();
        },
      }, t(`surprise.by.${what}`))))
    : null;
  return [
    ...scores.map((each, k) => el("div", {},
      scores.length > 1 ? el("h2", {}, names[k]) : null,
      figures([
        [t("characters"), number(characters.length), ""],
        [t("surprise.mean"), number(each.bits_per_char, 3), t("bits.per.char")],
        [t("perplexity"), number(each.perplexity, 2), ""],
        [t("total"), number(each.total_bits), t("bits")],
      ]))),
    two !== undefined && !comparable ? el("p", { class: "note" }, t("surprise.different")) : null,
    comparable ? el("p", {}, verdict(names, one, two)) : null,
    left > 0 ? el("p", { class: "note" }, t("surprise.left", { count: number(left) })) : null,
    either, legend,
    el("div", { class: "reading" }, text.place, el("aside", {}, detail)),
  ].filter((each) => each !== null);
}

function verdict(names, one, two) {
  const gain = two.bits_per_char - one.bits_per_char;
  const [better] = gain >= 0 ? names : [...names].reverse();
  return t("surprise.verdict", { better, gain: number(Math.abs(gain), 3) });
}

// Which colour a gain has: from g0, much worse, over g4, equal, to g8, much better.
function gainClass(gain) {
  const level = GAINS.filter((bound) => Math.abs(gain) >= bound).length;
  return `g${GAINS.length + Math.sign(gain) * level}`;
}

function gainName(level) {
  return level === 0 ? "0" : `${level > 0 ? "+" : "−"}${number(GAINS[Math.abs(level) - 1], GAINS[Math.abs(level) - 1] < 1 ? 1 : 0)}`;
}

function range(low, high) {
  return Array.from({ length: high - low + 1 }, (_, n) => low + n);
}
