// The model of this file: it answers what a server would answer, so that the views need not know that there is none.

import { start, startId, step, vocabulary } from "/page/web/step.js";
import { t } from "/page/web/words.js";

const BYTES = 256;
const BUSY_MS = 12; // as long as a page may be busy before it shows what there is
const SNAPSHOT = 32; // ids between two states that are kept
const SNAPSHOTS = 512;
const ENDINGS = 5; // that are drawn, and after so many characters they end anywhere
const ENDING_CHARS = 400;
const EXPECTED = 5;

// What is refused, in words.
export class Refused extends Error {}

const given = JSON.parse(document.getElementById("model").textContent);
const weights = Object.fromEntries(Object.entries(given.weights).map(([name, packed]) => [name, unpacked(packed)]));
const after = unpacked(given.automaton); // the state of the spelling after a byte: (S, 256), -1 where it may not follow
const characters = given.characters;
const idOf = new Map(characters.map((character, i) => [character, BYTES + i]));
const utf8 = new TextEncoder(), decoder = new TextDecoder("utf-8", { ignoreBOM: true });

function unpacked({ kind, data, shape, scale, per }) {
  const text = atob(data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  if (kind === "float32") return new Float32Array(bytes.buffer);
  if (kind === "int32") return new Int32Array(bytes.buffer);
  if (kind === "int16") return new Int16Array(bytes.buffer);
  if (kind === "bf16") {
    const halves = new Uint16Array(bytes.buffer), words = new Uint32Array(halves.length);
    for (let i = 0; i < words.length; i++) words[i] = halves[i] << 16;
    return new Float32Array(words.buffer);
  }
  const scales = unpacked({ kind: "float32", data: scale }), wholes = new Int8Array(bytes.buffer);
  const values = new Float32Array(wholes.length), columns = shape[1];
  for (let i = 0; i < values.length; i++) {
    values[i] = wholes[i] * scales[per === "row" ? Math.floor(i / columns) : i % columns];
  }
  return values;
}

// Time: what takes long lets the page breathe

const channel = new MessageChannel();
let resume = [];
channel.port1.onmessage = () => { const waiting = resume; resume = []; for (const go of waiting) go(); };

class Breath {
  #began = performance.now();

  constructor(signal) {
    this.signal = signal;
  }

  async take(now = false) {
    if (!now && performance.now() - this.#began < BUSY_MS) return;
    await new Promise((go) => { resume.push(go); channel.port2.postMessage(null); });
    if (this.signal?.aborted) throw new DOMException("", "AbortError");
    this.#began = performance.now();
  }
}

// Texts and ids

function cleaned(text) {
  const lines = given.options.newline === "lf" ? text.replaceAll("\r\n", "\n").replaceAll("\r", "\n") : text;
  return given.options.normalize === "nfc" ? lines.normalize("NFC") : lines;
}

function encoded(character) {
  const id = idOf.get(character);
  return id === undefined ? Array.from(utf8.encode(character)) : [id];
}

const ids = (text) => Array.from(text).flatMap(encoded);

// Where ids lead the spelling: 0 is between characters, -1 nowhere.
const follows = (state, id) => (id < BYTES ? after[state * BYTES + id] : state === 0 ? 0 : -1);

function token(id) {
  if (id >= BYTES) return characters[id - BYTES];
  const character = String.fromCharCode(id);
  return id < 0x80 && !idOf.has(character) ? character : `bytes:\\x${id.toString(16).padStart(2, "0")}`;
}

// Where documents begin in a text: at 0, and after what ends one, where another follows.
function begins(text) {
  const { document: kind } = given.options, found = [0];
  if (kind === "line") for (const { index } of text.matchAll(/\n(?=[^])/g)) found.push(index + 1);
  if (kind === "blank") {
    const leading = text.length - text.trimStart().length;
    for (const blank of text.trimEnd().matchAll(/\n(?:[ \t\r]*\n)+/g)) {
      const end = blank.index + blank[0].length;
      if (end > leading) found.push(end);
    }
  }
  return found;
}

// The document that a continuation of the text belongs to.
const current = (text) => (ends(text) ? "" : text.slice(begins(text).at(-1)));

function ends(text) {
  const { document: kind } = given.options;
  if (kind === "line") return text.endsWith("\n");
  return kind === "blank" && /\n(?:[ \t\r]*\n)+$/.test(text) && text.trim() !== "";
}

// Reading: the state before the last id of a text, from what was read before

const copied = (state) => state.map((values) => values.slice());
const logits = new Float32Array(vocabulary);
let kept = { ids: [], states: [] }; // states[n]: before id n SNAPSHOT

async function read(text, breath) {
  const given_ids = [startId, ...ids(text)];
  let same = 0;
  while (same < kept.ids.length && same < given_ids.length && kept.ids[same] === given_ids[same]) same++;
  const from = Math.min(Math.floor(Math.min(same, given_ids.length - 1) / SNAPSHOT), kept.states.length - 1);
  const states = kept.states.slice(0, Math.max(0, from) + 1);
  if (!states.length) states.push(start());
  let at = (states.length - 1) * SNAPSHOT;
  const state = copied(states.at(-1));
  for (; at < given_ids.length - 1; at++) {
    step(weights, state, given_ids[at], logits);
    if ((at + 1) % SNAPSHOT === 0 && states.length < SNAPSHOTS) states.push(copied(state));
    await breath.take();
  }
  kept = { ids: given_ids.slice(0, (states.length - 1) * SNAPSHOT + SNAPSHOT), states };
  return { last: given_ids.at(-1), state };
}

// The draw, as charrnn/generate/sampling.py says it

const WORD = (1n << 64n) - 1n;
const [M0, M1] = [0xd2e7470ee14c6c93n, 0xca5a826395121157n];
const [W0, W1] = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn];

// Philox 4x64 with 10 rounds (Salmon et al. 2011), as NumPy's random() takes numbers from it.
function* draws(seed, completion) {
  for (let block = 1n; ; block++) {
    let [a, b, c, d] = [block & WORD, block >> 64n, 0n, 0n];
    let [k0, k1] = [BigInt(seed), BigInt(completion)];
    for (let round = 0; round < 10; round++) {
      const [p0, p1] = [M0 * a, M1 * c];
      [a, b, c, d] = [(p1 >> 64n) ^ b ^ k0, p1 & WORD, (p0 >> 64n) ^ d ^ k1, p0 & WORD];
      [k0, k1] = [(k0 + W0) & WORD, (k1 + W1) & WORD];
    }
    for (const word of [a, b, c, d]) yield Number(word >> 11n) / 2 ** 53;
  }
}

function sum(p) {
  let total = 0;
  for (let i = 0; i < p.length; i++) total += p[i];
  return total;
}

function divide(p) {
  const total = sum(p);
  for (let i = 0; i < p.length; i++) p[i] /= total;
}

function highest(values) {
  let top = -Infinity;
  for (let i = 0; i < values.length; i++) if (values[i] > top) top = values[i];
  return top;
}

const known = new Map();

// Return which ids may follow where the spelling is: 1, or 0.
function allowed(spelling) {
  if (!known.has(spelling)) {
    known.set(spelling, Uint8Array.from({ length: vocabulary }, (_, id) => (follows(spelling, id) < 0 ? 0 : 1)));
  }
  return known.get(spelling);
}

const p = new Float64Array(vocabulary);

// Return the probabilities of the next id, filtered and made to sum to 1. They are there until the next call.
function distribution(spelling, { temperature = 1, top_p: topP = 1 }) {
  const may = allowed(spelling);
  for (let id = 0; id < vocabulary; id++) p[id] = may[id] ? logits[id] : -Infinity;
  const top = highest(p);
  if (!Number.isFinite(top)) throw new Refused(t("local.diverged"));
  if (temperature === 0) {
    const best = p.indexOf(top);
    p.fill(0)[best] = 1;
    return p;
  }
  for (let id = 0; id < vocabulary; id++) p[id] = Math.exp((p[id] - top) / temperature);
  divide(p);
  if (topP < 1) {
    const order = Array.from(p.keys()).sort((a, b) => p[b] - p[a] || a - b);
    let running = 0;
    for (const id of order) {
      running += p[id];
      if (running - p[id] >= topP) p[id] = 0;
    }
    divide(p);
  }
  return p;
}

function drawn(u) {
  let running = 0, last = 0;
  for (let id = 0; id < p.length; id++) {
    running += p[id];
    if (p[id] > 0) {
      last = id;
      if (running > u) return id;
    }
  }
  return last;
}

// Return the nats that an id costs more than its logit says: no temperature, no filter.
function whole() {
  const top = highest(logits);
  let total = 0;
  for (let id = 0; id < vocabulary; id++) total += Math.exp(logits[id] - top);
  return Math.log(total) + top;
}

function costs() {
  const all = whole();
  return Float64Array.from(logits, (logit) => all - logit);
}

// Yield [character, nats] after a text, without end.
async function* completion(text, sampling, number, breath) {
  const { last, state } = await read(current(text), breath);
  const own = copied(state), source = draws(sampling.seed ?? 0, number);
  let id = last, spelling = 0, pending = [], nats = 0, so_far = text;
  for (;;) {
    step(weights, own, id, logits);
    distribution(spelling, sampling);
    id = drawn(source.next().value);
    nats += whole() - logits[id];
    spelling = follows(spelling, id);
    if (id < BYTES) pending.push(id);
    if (spelling === 0) {
      const character = id < BYTES ? decoder.decode(new Uint8Array(pending)) : characters[id - BYTES];
      yield [character, nats];
      [pending, nats] = [[], 0];
      so_far += character;
      if (character === "\n" && ends(so_far)) return;
    }
    await breath.take();
  }
}

// Routes of the server, by what is asked

const ENDED = /^\s*\S.*?(?:[.!?…]["'”’“»)\]]*(?<after>\s)|(?<blank>[^\S\n]*\n[^\S\n]*\n))/su;

function endOfSentence(text) {
  const found = ENDED.exec(text);
  if (found === null) return null;
  const whole = found[0].length;
  return found.groups.after === undefined ? whole - found.groups.blank.length : whole - found.groups.after.length;
}

async function ending(text, sampling, number, breath) {
  const all = [];
  let ended = "";
  for await (const [character, nats] of completion(text, sampling, number, breath)) {
    all.push([character, nats]);
    ended += character;
    const end = endOfSentence(ended);
    const finished = end !== null || (all.length < ENDING_CHARS && ends(text + ended));
    if (finished || all.length === ENDING_CHARS) {
      const shown = end === null ? ended : ended.slice(0, end);
      const drawn_nats = all.slice(0, Array.from(shown).length).reduce((total, [, cost]) => total + cost, 0);
      return { text: shown, nats_per_char: drawn_nats / Math.max(1, Array.from(shown).length), finished, copies: [] };
    }
  }
  const total = all.reduce((sum_, [, cost]) => sum_ + cost, 0);
  return { text: ended, nats_per_char: total / Math.max(1, all.length), finished: true, copies: [] };
}

async function completions({ text, temperature, top_p, seed, count = ENDINGS }, signal) {
  const breath = new Breath(signal), found = new Map();
  for (let n = 0; n < count; n++) {
    const each = await ending(cleaned(text), { temperature, top_p, seed }, n, breath);
    found.set(each.text, each);
  }
  const ranked = [...found.values()].sort((a, b) => a.nats_per_char - b.nats_per_char);
  return { completions: [...ranked.filter((each) => each.finished), ...ranked.filter((each) => !each.finished)] };
}

// The likeliest characters: the cheapest beginning goes on, until it is a whole one.
async function next({ text }, signal) {
  const { last, state } = await read(current(cleaned(text)), new Breath(signal));
  const begun = [], found = [];

  function note(before, id, spelled, nats, spelling) {
    const own = copied(before);
    step(weights, own, id, logits);
    costs().forEach((cost, each) => {
      const leads = follows(spelling, each);
      if (leads >= 0) begun.push({ nats: nats + cost, spelled: [...spelled, each], spelling: leads, state: own });
    });
    begun.sort((a, b) => b.nats - a.nats);
  }

  note(state, last, [], 0, 0);
  while (begun.length && found.length < EXPECTED) {
    const best = begun.pop();
    const id = best.spelled.at(-1);
    if (best.spelling !== 0) note(best.state, id, best.spelled, best.nats, best.spelling);
    else {
      const character = id < BYTES ? decoder.decode(new Uint8Array(best.spelled)) : characters[id - BYTES];
      found.push({ character, probability: Math.exp(-best.nats) });
    }
  }
  return { next: found };
}

async function surprise({ text }, signal) {
  const read_whole = cleaned(text), breath = new Breath(signal), state = start();
  if (!read_whole) throw new Refused(t("local.empty"));
  const bits = [], expected = [], beginnings = new Set(begins(read_whole));
  let id = startId, at = 0;
  for (const character of read_whole) {
    if (beginnings.has(at)) { // each document is read from nothing
      start().forEach((values, n) => state[n].set(values));
      id = startId;
    }
    let nats = 0;
    encoded(character).forEach((each, n) => {
      step(weights, state, id, logits);
      const cost = costs();
      if (n === 0) {
        const best = Array.from(cost.keys()).sort((a, b) => cost[a] - cost[b]).slice(0, EXPECTED);
        expected.push(best.map((one) => [token(one), Math.exp(-cost[one])]));
      }
      nats += cost[each];
      id = each;
    });
    bits.push(nats / Math.LN2);
    at += character.length;
    await breath.take();
  }
  const total = sum(bits);
  const mean = total / bits.length;
  return { text: read_whole, bits, expected, bits_per_char: mean, perplexity: 2 ** mean, total_bits: total };
}

const ROUTES = {
  "/page/about": () => given.about,
  "/page/next": next,
  "/page/completions": completions,
  "/page/copies": () => ({ copies: [], copies_unknown: t("local.copies") }),
  "/page/surprise": surprise,
};

export async function get(path) {
  return ROUTES[path]();
}

export async function post(path, body, signal) {
  return ROUTES[path](body, signal);
}

// Yield the pieces of a completion as they are drawn.
export async function* stream({ prompt, max_tokens: most, ...sampling }, signal) {
  const breath = new Breath(signal);
  let waiting = "", said = performance.now(), count = 0;
  for await (const [character] of completion(cleaned(prompt), sampling, 0, breath)) {
    waiting += character;
    count += 1;
    if (performance.now() - said > BUSY_MS || count === most) {
      yield waiting;
      [waiting, said] = ["", performance.now()];
      await breath.take(true);
    }
    if (count === most) return;
  }
  if (waiting) yield waiting;
}
