// Complete: the model's continuation stands behind the caret; the likeliest next characters; several endings, ranked.

import { bar, el, field, figures, shown, slider, visible } from "/page/web/dom.js";
import { post, stream } from "/page/web/server.js";
import { number, percent, t } from "/page/web/words.js";

const DRAWN = 80; // characters behind the caret
const LEAST = 16; // when fewer are left, others are drawn once the text changes
const PAUSE_MS = 20; // so that a held key asks once
const NEXT = 5;

// What remains while another view is shown. owned: from where on the model has written a part of the text.
const kept = { text: "", owned: null, temperature: null, topP: 1, seed: 0 };

export function mount(root, app) {
  kept.temperature ??= app.about.defaults.temperature;
  const notice = app.notice();
  const most = app.about.most_chars.complete;
  let ghost = "";
  let copies = []; // [begin, end, offset] in the text with what stands behind it
  let asking = null; // what is asked at this moment
  let drawing = null; // what is drawn behind the caret at this moment: keys that it foresaw let it go on
  let timer = 0;
  let composing = false;

  const written = el("div", { class: "written", "aria-hidden": "true" });
  const spoken = el("p", { class: "unseen", role: "status" });
  const input = el("textarea", {
    id: "prime", class: "prime", spellcheck: "false", autocomplete: "off", autocapitalize: "off", dir: "auto",
    "aria-label": t("complete.text"), "aria-describedby": "keys", maxlength: most, placeholder: t("complete.empty"),
    input: () => changed(),
    keydown: pressed,
    compositionstart: () => { composing = true; },
    compositionend: () => { composing = false; changed(); },
  });
  input.value = kept.text;
  const key = (name, words, act) => el("button", { type: "button", class: "key", tabindex: "-1", click: act }, el("kbd", {}, name), words);
  const keys = el(
    "p", { class: "keys", id: "keys" },
    key("Tab", t("complete.word"), () => { take(firstWord(ghost)); input.focus(); }),
    key("End", t("complete.all"), () => { take(ghost); input.focus(); }),
    key("Esc", t("complete.none"), () => { drop(); input.focus(); }),
  );
  const next = el("ol", { class: "next" });
  const copied = el("ul", { class: "copied-list" });
  const endings = el("ol", { class: "endings" });

  root.append(
    el("div", { class: "controls" },
      app.modelChooser(() => { ghost = ""; again(); }),
      slider(t("temperature"), { min: 0, max: 2, step: 0.05, value: kept.temperature }, (v) => number(v, 2), (v) => { kept.temperature = v; again(); }),
      slider("top-p", { min: 0.05, max: 1, step: 0.05, value: kept.topP }, (v) => number(v, 2), (v) => { kept.topP = v; again(); }),
      field(t("seed"), el("input", { type: "number", min: 0, max: 2 ** 32, step: 1, value: kept.seed, input: (event) => {
        const seed = Number(event.target.value);
        if (Number.isInteger(seed) && seed >= 0) { kept.seed = seed; again(); }
      } })),
    ),
    notice.place,
    el("div", { class: "paper" }, written, input),
    keys, spoken,
    el("div", { class: "columns" },
      el("section", {}, el("h2", {}, t("complete.next")), next, el("p", { class: "note" }, t("complete.next.note"))),
      el("section", {},
        el("div", { class: "heading" }, el("h2", {}, t("complete.endings")),
          el("button", { type: "button", click: rank }, t("complete.rank"))),
        endings),
    ),
    el("section", { class: "copies" }, el("h2", {}, t("complete.copies")), copied),
  );
  endings.append(el("li", { class: "empty" }, t("complete.endings.empty")));
  nextRows([]);
  render();
  again();
  input.focus({ preventScroll: true });

  function sampling() {
    return { temperature: kept.temperature, top_p: kept.topP, seed: kept.seed };
  }

  function atEnd() {
    return input.selectionStart === input.value.length && input.selectionEnd === input.value.length;
  }

  function changed() {
    const text = input.value;
    // What was typed as it stood there in grey is taken; the rest stays where it is.
    const typed = text.startsWith(kept.text) ? text.slice(kept.text.length) : null;
    const same = typed !== null && typed !== "" && ghost.startsWith(typed) && ghost.length > typed.length;
    ghost = same ? ghost.slice(typed.length) : "";
    if (kept.owned !== null && !text.startsWith(kept.text.slice(0, kept.owned))) kept.owned = null;
    if (kept.owned !== null && kept.owned >= text.length) kept.owned = null;
    if (!same) copies = [];
    kept.text = text;
    render();
    if (!composing) ask(same && (drawing !== null || ghost.length >= LEAST));
  }

  // Ask anew, as after another setting.
  function again() {
    ghost = "";
    copies = [];
    render();
    ask(false);
  }

  function ask(ghostStays) {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    if (!ghostStays) stopDrawing();
    clearTimeout(timer);
    timer = setTimeout(() => {
      const text = kept.text;
      // First what stands behind the caret: it is waited for.
      if (!ghostStays && text && atEnd()) draw(text).catch(notice.show);
      else lookForCopies(signal).catch(notice.show);
      likeliest(text, signal).catch(notice.show);
    }, PAUSE_MS);
  }

  async function likeliest(text, signal) {
    const answer = await post("/page/next", { model: app.model, text }, signal);
    notice.clear();
    nextRows(answer.next);
  }

  async function draw(text) {
    const mine = (drawing = new AbortController());
    ghost = "";
    try {
      for await (const piece of stream({ model: app.model, prompt: text, max_tokens: DRAWN, ...sampling() }, mine.signal)) {
        if (drawing !== mine) return;
        ghost += piece;
        render();
      }
    } finally {
      if (drawing === mine) drawing = null;
    }
    if (mine.signal.aborted) return;
    spoken.textContent = shown(ghost);
    await lookForCopies(asking.signal);
  }

  function stopDrawing() {
    drawing?.abort();
    drawing = null;
  }

  async function lookForCopies(signal) {
    const begin = kept.owned ?? kept.text.length;
    const whole = kept.text.slice(begin) + ghost;
    if (!whole) { copies = []; render(); return; }
    const answer = await post("/page/copies", { model: app.model, text: whole }, signal);
    if (signal.aborted) return;
    copies = places(whole, answer.copies).map(([a, b, offset]) => [a + begin, b + begin, offset]);
    render(answer.copies_unknown);
  }

  function take(text) {
    if (!text) return;
    const position = input.value.length;
    kept.owned = Math.min(kept.owned ?? position, position);
    input.setRangeText(text, position, position, "end");
    kept.text = input.value;
    ghost = ghost.slice(text.length);
    render();
    ask(ghost.length > 0);
  }

  function drop() {
    asking?.abort();
    stopDrawing();
    clearTimeout(timer);
    ghost = "";
    copies = copies.filter(([, end]) => end <= kept.text.length);
    render();
  }

  function pressed(event) {
    if (event.isComposing || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || !ghost || !atEnd()) return;
    if (event.key === "Tab") take(firstWord(ghost));
    else if (event.key === "End") take(ghost);
    else if (event.key === "Escape") drop();
    else return;
    event.preventDefault();
  }

  function render(unknown = null) {
    const whole = kept.text + ghost;
    const cuts = [...new Set([0, kept.text.length, whole.length, ...copies.flatMap(([a, b]) => [a, b])])];
    cuts.sort((a, b) => a - b);
    written.replaceChildren();
    for (let n = 0; n + 1 < cuts.length; n++) {
      const [a, b] = [cuts[n], cuts[n + 1]];
      if (b > whole.length) break;
      const copy = copies.some(([begin, end]) => begin <= a && b <= end);
      const classes = [a >= kept.text.length ? "ghost" : "typed", copy ? "copied" : ""];
      written.append(el("span", { class: classes.join(" ").trim() }, whole.slice(a, b)));
    }
    written.append("\u200b"); // a line end at the very end has a line too
    for (const button of keys.children) button.disabled = !ghost;
    const lines = copies.filter(([, b]) => b <= whole.length).map(([a, b, offset]) => copyLine(whole.slice(a, b), offset));
    copied.replaceChildren(...(lines.length ? lines : [el("li", { class: "empty" }, unknown ?? t("complete.copies.none"))]));
  }

  function nextRows(rows) {
    const all = Array.from({ length: NEXT }, (_, n) => rows[n] ?? null);
    const focused = [...next.querySelectorAll("button")].indexOf(document.activeElement);
    next.replaceChildren(
      ...all.map((row) =>
        el("li", {},
          el("button", {
            type: "button", class: "character", disabled: row === null,
            "aria-label": row && t("complete.take", { character: visible(row.character), percent: percent(row.probability) }),
            click: () => { input.value += row.character; changed(); },
          }, row ? visible(row.character) : "·"),
          bar(row?.probability ?? 0),
          el("span", { class: "value" }, row ? percent(row.probability) : ""),
        ),
      ),
    );
    if (focused >= 0) next.querySelectorAll("button")[focused].focus();
  }

  async function rank(event) {
    const button = event.currentTarget;
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    try {
      const text = kept.text;
      const answer = await post("/page/completions", { model: app.model, text, count: 5, until: "sentence", ...sampling() });
      notice.clear();
      endings.replaceChildren(...answer.completions.map((each) => ending(each, text)));
    } catch (error) {
      notice.show(error);
    }
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }

  function ending(each, before) {
    const marks = places(each.text, each.copies);
    const line = el("button", { type: "button", class: "ending", dir: "auto", click: () => {
      if (kept.text !== before) input.value = before;
      kept.text = before;
      kept.owned = Math.min(kept.owned ?? before.length, before.length);
      input.value = before + each.text;
      kept.text = input.value;
      again();
      input.focus();
    } });
    let at = 0;
    for (const [a, b, offset] of marks) {
      line.append(shown(each.text.slice(at, a)));
      line.append(el("span", { class: "copied", title: t("complete.copies.at", { offset: number(offset) }) }, shown(each.text.slice(a, b))));
      at = b;
    }
    line.append(shown(each.text.slice(at)), each.finished ? "" : " …");
    const cost = figures([[t("cost"), number(each.nats_per_char / Math.LN2, 2), t("bits.per.char")]]);
    const lines = marks.map(([a, b, offset]) => copyLine(each.text.slice(a, b), offset));
    return el("li", {}, line, cost, lines.length ? el("ul", { class: "copied-list" }, lines) : null);
  }

  return () => {
    asking?.abort();
    stopDrawing();
    clearTimeout(timer);
  };
}

function firstWord(text) {
  return /^\s*\S+/u.exec(text)?.[0] ?? text;
}

// Return where copies stand in a text: the server counts characters, JavaScript the halves of surrogate pairs.
function places(text, copies) {
  const characters = Array.from(text);
  const length = (end) => characters.slice(0, end).join("").length;
  return copies.map(({ at, length: count, offset }) => [length(at), length(at + count), offset]);
}

function copyLine(passage, offset) {
  const characters = Array.from(passage).length;
  return el("li", {},
    el("q", { class: "copied", dir: "auto" }, shown(passage).replaceAll("\n", "↵")),
    el("span", { class: "note" }, ` ${t("complete.copies.line", { count: number(characters), offset: number(offset) })}`));
}
