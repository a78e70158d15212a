// The words of the page in the language of the reader.

import en from "/page/web/en.js";
import sr from "/page/web/sr.js";

const LANGUAGES = { en, sr };
const KEPT = "charrnn-language";

let current = chosen();

function chosen() {
  let kept = null;
  try {
    kept = localStorage.getItem(KEPT);
  } catch {
    // A browser that keeps nothing.
  }
  if (kept in LANGUAGES) return kept;
  const asked = navigator.languages ?? [navigator.language];
  return asked.map((tag) => (/^(sr|hr|bs|cnr|sh)\b/i.test(tag) ? "sr" : tag.slice(0, 2))).find((tag) => tag in LANGUAGES) ?? "en";
}

export function language() {
  return current;
}

export function speak(name) {
  current = name;
  try {
    localStorage.setItem(KEPT, name);
  } catch {
    // It is asked for again next time.
  }
}

export const names = Object.fromEntries(Object.entries(LANGUAGES).map(([name, words]) => [name, words.language]));

// Return the words for a key, with values in place of {names}.
export function t(key, values = {}) {
  const words = LANGUAGES[current][key];
  if (words === undefined) throw new Error(`no words for ${key}`);
  return words.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

const locale = () => (current === "sr" ? "sr-Latn" : "en");

// Write a number with so many digits after the point.
export function number(value, digits = 0) {
  return new Intl.NumberFormat(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

export function percent(share) {
  const digits = share >= 0.1 || share === 0 ? 0 : share >= 0.001 ? 1 : 2;
  return new Intl.NumberFormat(locale(), { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits })
    .format(share);
}
