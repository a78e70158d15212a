// Compare: two or more models complete the same text side by side; finished comparisons with their tables and pictures.

import { choice, el, field, shown, slider } from "/page/web/dom.js";
import { intervals, lines } from "/page/web/chart.js";
import { get, post, stream } from "/page/web/server.js";
import { number, t } from "/page/web/words.js";

const DRAWN = 300; // characters of each

const kept = { prime: "", chosen: null, seed: 0, temperature: null, name: null };

export function mount(root, app) {
  const notice = app.notice();
  kept.temperature ??= app.about.defaults.temperature;
  const ids = app.about.models.map((model) => model.id);
  kept.chosen = new Set((kept.chosen ? [...kept.chosen] : ids.slice(0, 2)).filter((id) => ids.includes(id)));
  let asking = null;

  const input = el("textarea", { class: "source", rows: 2, spellcheck: "false", dir: "auto", "aria-label": t("compare.prime"), placeholder: t("compare.empty"), input: () => { kept.prime = input.value; } });
  input.value = kept.prime;
  const columns = el("div", { class: "side-by-side" });
  const button = el("button", { type: "submit", class: "primary" }, t("compare.draw"));
  const table = el("div", {});
  root.append(
    el("form", { class: "form", submit: draw },
      el("fieldset", { class: "plain" }, el("legend", {}, t("compare.models")),
        el("div", { class: "checks" }, app.about.models.map((model) => el("label", {},
          el("input", { type: "checkbox", checked: kept.chosen.has(model.id), change: (event) => { kept.chosen[event.target.checked ? "add" : "delete"](model.id); } }),
          el("span", {}, shown(model.id)))))),
      ids.length < 2 ? el("p", { class: "note" }, t("compare.one")) : null,
      input,
      el("div", { class: "controls" },
        slider(t("temperature"), { min: 0, max: 2, step: 0.05, value: kept.temperature }, (v) => number(v, 2), (v) => { kept.temperature = v; }),
        field(t("seed"), el("input", { type: "number", min: 0, max: 2 ** 32, step: 1, value: kept.seed, input: (event) => { kept.seed = Number(event.target.value); } }))),
      el("div", { class: "actions" }, button)),
    notice.place, columns,
    el("section", {}, el("h2", {}, t("compare.finished")), table),
  );
  finished().catch(notice.show);

  async function draw(event) {
    event.preventDefault();
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    notice.clear();
    const models = app.about.models.filter((model) => kept.chosen.has(model.id));
    if (!models.length) { columns.replaceChildren(el("p", { class: "empty" }, t("compare.choose"))); return; }
    const texts = models.map(() => el("p", { class: "drawn", dir: "auto" }, el("span", { class: "given" }, shown(kept.prime))));
    columns.replaceChildren(...models.map((model, n) => el("article", { "aria-busy": "true" },
      el("h3", {}, shown(model.id)), el("p", { class: "note" }, `${model.cell} ${number(model.hidden)} × ${model.layers} · ${t("compare.parameters", { count: number(model.parameters) })}`), texts[n])));
    const asked = { prompt: kept.prime, max_tokens: DRAWN, temperature: kept.temperature, seed: kept.seed };
    await Promise.all(models.map(async (model, n) => {
      try {
        for await (const piece of stream({ ...asked, model: model.id }, signal)) texts[n].append(shown(piece));
      } catch (error) {
        notice.show(error);
      }
      columns.children[n]?.removeAttribute("aria-busy");
    }));
  }

  async function finished() {
    const { comparisons } = await get("/page/comparisons");
    if (!comparisons.length) {
      table.replaceChildren(el("p", { class: "empty" }, t("compare.nothing"), " ", el("code", {}, "python cli.py compare")));
      return;
    }
    if (!comparisons.includes(kept.name)) [kept.name] = comparisons;
    const result = el("div", {});
    table.replaceChildren(field(t("compare.comparison"), choice(comparisons.map((name) => [name, shown(name)]), kept.name, (name) => {
      kept.name = name;
      fill(result).catch(notice.show);
    })), result);
    await fill(result);
  }

  async function fill(result) {
    const found = await post("/page/comparison", { name: kept.name });
    if (found.name !== kept.name) return;
    const heads = ["cell", "hidden", "parameters", "bits", "interval", "perplexity", "speed"];
    const right = (head) => (head === "cell" ? null : "number");
    result.replaceChildren(
      el("p", { class: "note" }, t("compare.about", { corpus: shown(String(found.corpus)), match: t(`match.${found.match}`) })),
      el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": t("compare.table") }, el("table", {},
        el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", class: right(head) }, t(`head.${head}`))))),
        el("tbody", {}, found.cells.map((row) => el("tr", {},
          el("th", { scope: "row" }, row.label),
          [number(row.hidden), number(row.parameters), number(row.bits_per_char, 3), `${number(row.low, 3)} – ${number(row.high, 3)}`, number(row.perplexity, 2), number(row.chars_per_s)]
            .map((value) => el("td", { class: "number" }, value))))))),
      intervals({ title: t("compare.scores"), rows: found.cells.map((row) => ({ label: row.label, value: row.bits_per_char, low: row.low, high: row.high })), x: { label: t("axis.test") } }),
      ...(found.curves.length ? [lines({ title: t("compare.learning"), series: found.curves, x: { label: t("axis.characters") }, y: { label: t("axis.val") } })] : []),
    );
  }

  return () => asking?.abort();
}
