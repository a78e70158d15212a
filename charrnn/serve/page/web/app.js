// The frame: which view is shown, in which language, with which models.

import { el, choice, field } from "/page/web/dom.js";
import { get, Refused } from "/page/web/server.js";
import { language, names, number, speak, t } from "/page/web/words.js";
import * as complete from "/page/web/complete.js";

// The first view is here at once, the others when they are asked for.
const ALL = {
  complete: async () => complete,
  surprise: () => import("/page/web/surprise.js"),
  inside: () => import("/page/web/inside.js"),
  train: () => import("/page/web/train.js"),
  compare: () => import("/page/web/compare.js"),
};
// A model that was given away as a file has some of them.
const here = document.documentElement.dataset.views?.split(" ") ?? Object.keys(ALL);
const VIEWS = Object.fromEntries(Object.entries(ALL).filter(([name]) => here.includes(name)));

const main = document.getElementById("main");
let leave = () => {};
let shownView = null;

// What views share: what the server told of itself, and the model that is chosen.
const app = {
  about: null,
  model: null,

  async refresh() {
    app.about = await get("/page/about");
    if (!app.about.models.some((model) => model.id === app.model)) app.model = app.about.models[0].id;
  },

  // Return a list of the models. key: under which the choice is kept.
  models(changed, label = t("model"), value = app.model, none = null) {
    const options = app.about.models.map((model) => [model.id, described(model)]);
    const all = none === null ? options : [["", none], ...options];
    return field(label, choice(all, value, changed));
  },

  modelChooser(changed) {
    return app.models((name) => {
      app.model = name;
      changed();
    });
  },

  // Return a place for what the server refuses, in its own words.
  notice() {
    const place = el("p", { class: "notice", role: "alert", hidden: true });
    return {
      place,
      clear: () => (place.hidden = true),
      show(error) {
        if (error.name === "AbortError") return;
        if (!(error instanceof Refused)) throw error;
        place.textContent = error.message === "unreachable" ? t("unreachable") : `${t("error")}: ${error.message}`;
        place.hidden = false;
      },
    };
  },
};

function described(model) {
  return `${model.id} · ${model.cell} ${number(model.hidden)} × ${model.layers}`;
}

function view() {
  const name = location.hash.slice(1);
  return name in VIEWS ? name : "complete";
}

function frame() {
  document.documentElement.lang = language() === "sr" ? "sr-Latn" : "en";
  document.getElementById("skip").textContent = t("skip");
  const nav = document.getElementById("views");
  nav.setAttribute("aria-label", t("views"));
  nav.replaceChildren(
    ...Object.keys(VIEWS).map((name) =>
      el("a", { href: `#${name}`, "aria-current": name === view() ? "page" : null }, t(`view.${name}`)),
    ),
  );
  const languages = document.getElementById("languages");
  languages.setAttribute("aria-label", t("languages"));
  languages.replaceChildren(
    ...Object.entries(names).map(([name, label]) =>
      el("button", {
        type: "button", lang: name === "sr" ? "sr-Latn" : name, "aria-pressed": String(name === language()), title: label,
        "aria-label": label,
        click: () => {
          speak(name);
          show().then(() => languages.querySelector("[aria-pressed=true]").focus());
        },
      }, name.toUpperCase()),
    ),
  );
}

async function show(focus = false) {
  const name = view();
  shownView = name;
  frame();
  const module = await VIEWS[name]();
  if (name !== shownView) return; // another was asked for meanwhile
  leave();
  document.title = `${t(`view.${name}`)} · charrnn`;
  const root = el("div", { class: `view ${name}` });
  main.replaceChildren(root);
  root.append(el("h1", {}, t(`view.${name}`)), el("p", { class: "lede" }, t(`lede.${name}`)));
  leave = module.mount(root, app) ?? (() => {});
  if (focus) main.focus();
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

frame();
try {
  await app.refresh();
  window.addEventListener("hashchange", () => show(true));
  await show();
} catch (error) {
  const notice = app.notice();
  main.replaceChildren(notice.place);
  notice.show(error);
}
