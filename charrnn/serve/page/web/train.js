// Train: a text is learned by the ordinary command; what its run's files say is shown while it learns.

import { choice, el, field, figures, renew, shown } from "/page/web/dom.js";
import { lines } from "/page/web/chart.js";
import { get, post, Refused } from "/page/web/server.js";
import { number, t } from "/page/web/words.js";

const EVERY_MS = 1500;

const kept = { source: "text", text: "", corpus: null, minutes: 3, cell: null, name: "", run: null, upload: null, file: "" };

export function mount(root, app) {
  const notice = app.notice();
  const may = app.about.may_train;
  kept.cell ??= app.about.default_cell;
  kept.corpus ??= app.about.corpora[0];
  let timer = 0;
  let polls = 0; // an answer to one that is not the last comes too late
  let gone = false;
  let drawn = ""; // what the picture shows, so that it is drawn again only when that changes
  let joined = null; // the run that was made a model

  const source = el("div", { class: "source-of-text" });
  const start = el("button", { type: "submit", class: "primary" }, t("train.start"));
  const form = el("form", { class: "form", submit: begin },
    el("fieldset", {},
      el("legend", {}, t("train.what")),
      el("div", { class: "switch", role: "radiogroup", "aria-label": t("train.what") }, ["text", "file", "corpus"].map((what) =>
        el("label", {}, el("input", { type: "radio", name: "source", value: what, checked: kept.source === what, change: () => { kept.source = what; fillSource(); } }),
          el("span", {}, t(`train.${what}`))))),
      source,
      el("div", { class: "controls" },
        field(t("train.minutes"), el("input", { type: "number", min: 0.1, max: 1440, step: "any", required: true, value: kept.minutes, input: (event) => { kept.minutes = Number(event.target.value); } })),
        field(t("train.cell"), choice(app.about.cells.map((cell) => [cell, cell]), kept.cell, (cell) => { kept.cell = cell; })),
        field(t("train.name"), el("input", { type: "text", maxlength: 80, value: kept.name, placeholder: t("train.name.default"), input: (event) => { kept.name = event.target.value; } }))),
      el("div", { class: "actions" }, start)));
  const said = el("pre", { class: "said", hidden: true });
  const list = el("ul", { class: "runs" });
  const picture = el("div", {});
  const sample = el("div", { class: "sample" });
  const head = el("div", {});
  const buttons = el("div", { class: "actions" });
  const detail = el("section", { class: "run", "aria-label": t("train.run") }, head, buttons, picture, sample);
  if (!may) {
    root.append(el("p", { class: "notice" }, t("train.not.allowed")));
    return null;
  }
  root.append(
    form, notice.place, said,
    el("div", { class: "beside" }, el("section", { class: "list" }, el("h2", {}, t("train.runs")), list), detail),
  );
  fillSource();
  poll();

  function fillSource() {
    if (kept.source === "text") {
      const input = el("textarea", { class: "source", rows: 6, spellcheck: "false", dir: "auto", "aria-label": t("text"), placeholder: t("train.empty"), input: () => { kept.text = input.value; } });
      input.value = kept.text;
      source.replaceChildren(input);
    } else if (kept.source === "file") {
      const told = el("p", { class: "note", role: "status" }, kept.file);
      source.replaceChildren(
        field(t("train.choose"), el("input", { type: "file", accept: ".txt,.md,.csv,.tex,.py,.js,.html,text/*", change: (event) => upload(event.target.files[0], told) })), told);
    } else {
      source.replaceChildren(field(t("train.corpus.name"), choice(app.about.corpora.map((name) => [name, name]), kept.corpus, (name) => { kept.corpus = name; })));
    }
  }

  async function upload(file, told) {
    if (!file) return;
    try {
      kept.upload = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      kept.file = t("train.read", { name: file.name, count: number(Array.from(kept.upload).length) });
    } catch {
      kept.upload = null;
      kept.file = t("train.no.utf8", { name: file.name });
    }
    told.textContent = kept.file;
  }

  async function begin(event) {
    event.preventDefault();
    const what = { text: { text: kept.text }, file: { text: kept.upload ?? "" }, corpus: { corpus: kept.corpus } }[kept.source];
    await act(start, async () => {
      const state = await post("/page/train", { ...what, minutes: kept.minutes, cell: kept.cell, name: kept.name });
      kept.run = state.run;
      joined = null;
    });
  }

  async function act(button, work) {
    button.disabled = true;
    try {
      await work();
      notice.clear();
      await poll();
    } catch (error) {
      notice.show(error);
    }
    button.disabled = false;
  }

  async function poll() {
    clearTimeout(timer);
    const turn = ++polls;
    const late = () => gone || turn !== polls;
    try {
      const { runs, training } = await get("/page/runs");
      if (late()) return;
      if (kept.run === null) kept.run = training.run ?? runs[0]?.run ?? null;
      showList(runs, training);
      showSaid(training);
      await showRun(runs, training, late);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (!late()) notice.show(error);
    } finally {
      if (!late()) timer = setTimeout(poll, EVERY_MS);
    }
  }

  function showSaid(training) {
    const lost = training.code !== null && training.code > 0 && training.code < 128 && training.run === kept.run;
    const waiting = training.running && training.run === kept.run;
    said.hidden = !(lost || waiting);
    const text = lost ? training.said.slice(-3).join("\n") : training.said.slice(-1).join("");
    if (said.textContent !== text) said.textContent = text;
    said.classList.toggle("notice", lost);
    said.setAttribute("role", lost ? "alert" : "presentation");
  }

  function showList(runs, training) {
    const names = new Set(runs.map((run) => run.run));
    const begun = training.running && !names.has(training.run) ? [{ run: training.run, state: "begins" }] : [];
    const shows = [...begun, ...runs].map(({ run, state }) => [run, state, run === kept.run]);
    renew(list, shows, () => {
      const rows = shows.map(([name, state, pressed]) => el("li", {}, el("button", {
        type: "button", "data-key": name, "aria-pressed": String(pressed),
        click: () => { kept.run = name; drawn = ""; poll(); },
      }, el("span", { class: "run-name" }, shown(name)), el("span", { class: `state ${state}` }, t(`state.${state}`)))));
      return rows.length ? rows : [el("li", { class: "empty" }, t("train.no.runs"))];
    });
  }

  async function showRun(runs, training, late) {
    const about = runs.find((run) => run.run === kept.run);
    if (!about || about.state === "damaged") {
      const mine = training.run === kept.run;
      const text = about ? about.problem : mine && training.running ? t("train.begins")
        : mine && training.code > 128 ? t("train.unsaved") : t("train.nothing");
      if (drawn !== text) head.replaceChildren(el("p", { class: "empty" }, text));
      drawn = text;
      renew(buttons, null, () => []);
      picture.replaceChildren();
      sample.replaceChildren();
      return;
    }
    const run = await post("/page/run", { run: kept.run });
    if (late() || run.run !== kept.run) return;
    const served = app.about.models.some((model) => model.id === run.run);
    const mine = training.running && training.run === run.run;
    const stamp = JSON.stringify([run.run, run.rows.length, run.state, run.sample?.step, served, mine]);
    if (stamp === drawn) return;
    drawn = stamp;
    const last = run.rows.at(-1);
    head.replaceChildren(
      el("div", { class: "heading" }, el("h2", {}, shown(run.run)), el("span", { class: `state ${run.state}` }, t(`state.${run.state}`))),
      figures([
        [t("train.cell"), `${run.cell} ${number(run.hidden)} × ${run.layers}`, ""],
        ...(run.parameters ? [[t("parameters"), number(run.parameters), ""]] : []),
        ...(last || run.step ? [[t("steps"), number(last?.step ?? run.step) + (run.steps ? ` / ${number(run.steps)}` : ""), ""]] : []),
        ...(last ? [[t("train.read.so.far"), number(last.characters), t("characters.unit")], [t("time"), number(last.seconds ?? 0), "s"]] : []),
        ...(run.chars_per_s ? [[t("speed"), number(run.chars_per_s), t("chars.per.s")]] : []),
        ...(run.val_bits !== null ? [[t("validation"), number(run.val_bits, 3), t("bits.per.char")]] : []),
        ...(run.test_bits !== null ? [[t("test"), number(run.test_bits, 3), t("bits.per.char")]] : []),
      ]),
    );
    const offered = actions(run, mine, served);
    renew(buttons, [run.run, offered], () => offered.map((name) => action(run.run, name)));
    const points = (name) => run.rows.filter((row) => row[name] !== null && row.step > 0).map((row) => [row.characters, row[name]]);
    const enough = run.rows.filter((row) => row.step > 0).length > 1;
    picture.replaceChildren(enough
      ? lines({
        title: t("train.picture"),
        series: [{ label: t("train.training"), points: points("train_bits") }, { label: t("validation"), points: points("val_bits") }],
        x: { label: t("axis.characters") }, y: { label: t("axis.bits") },
      })
      : el("p", { class: "empty" }, run.state === "training" ? t("train.soon") : run.rows.length ? t("train.few") : t("train.no.figures")));
    sample.replaceChildren(...(run.sample
      ? [el("h3", {}, t("train.sample", { step: number(run.sample.step) })),
        el("p", { class: "drawn", dir: "auto" }, el("span", { class: "given" }, shown(run.sample.prime)), shown(run.sample.text))]
      : []));
    if (run.state === "complete" && training.run === run.run && !served && joined !== run.run) {
      joined = run.run;
      await open(run.run).catch(notice.show);
    }
  }

  // Return the names of what can be done with a run.
  function actions(run, mine, served) {
    if (mine) return ["stop"];
    if (run.state === "training") return ["elsewhere"];
    const names = run.state === "stopped" && !run.bundled ? ["resume"] : [];
    if (served) return [...names, "complete"];
    return run.step !== null && run.state !== "diverged" ? [...names, "open"] : names;
  }

  function action(run, name) {
    if (name === "elsewhere") return el("span", { class: "note" }, t("train.elsewhere"));
    if (name === "complete") return el("a", { class: "button", href: "#complete", click: () => { app.model = run; } }, t("train.complete"));
    const work = { stop: () => post("/page/stop", { run }), resume: () => post("/page/resume", { run }), open: () => open(run) }[name];
    return el("button", {
      type: "button", "data-key": name, class: name === "resume" ? "primary" : null, click: (event) => act(event.currentTarget, work),
    }, t(`train.${name}`));
  }

  async function open(name) {
    await post("/page/open", { run: name });
    await app.refresh();
    app.model = name;
    drawn = "";
  }

  return () => {
    gone = true;
    clearTimeout(timer);
  };
}
