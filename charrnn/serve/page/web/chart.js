// Charts with names and units on their axes, drawn as wide as there is room.

import { el, svg } from "/page/web/dom.js";
import { number } from "/page/web/words.js";

const HEIGHT = 300;
const MARGIN = { top: 16, right: 16, bottom: 46, left: 58 };

// Return a chart of lines. series: [{ label, points: [[x, y], ...] }]. x, y: { label } with the unit.
export function lines({ title, series, x, y }) {
  const shownSeries = series.filter((each) => each.points.length);
  const legend = shownSeries.length > 1
    ? el("ul", { class: "legend" }, shownSeries.map((each, n) => el("li", { class: `series${n % 6}` }, each.label)))
    : null;
  return figure(title, legend, (width) => {
    const xs = shownSeries.flatMap((each) => each.points.map((point) => point[0]));
    const ys = shownSeries.flatMap((each) => each.points.map((point) => point[1]));
    const across = axis(Math.min(...xs, 0), Math.max(...xs, 1), width < 480 ? 4 : 6);
    const up = axis(Math.min(...ys), Math.max(...ys), 5);
    const at = scales(width, across, up);
    return [
      ...frame(width, across, up, at, x.label, y.label),
      ...shownSeries.map((each, n) =>
        svg("polyline", { class: `line series${n % 6}`, points: each.points.map(([a, b]) => `${at.x(a)},${at.y(b)}`).join(" ") })),
      ...shownSeries.flatMap((each, n) => each.points.length > 40 ? [] : each.points.map(([a, b]) =>
        svg("circle", { class: `dot series${n % 6}`, cx: at.x(a), cy: at.y(b), r: 3 },
          svg("title", {}, `${each.label}: ${number(b, 3)} · ${number(a)}`)))),
    ];
  });
}

// Return a chart of values with their intervals, one a row. rows: [{ label, value, low, high }].
export function intervals({ title, rows, x }) {
  const step = 34;
  const height = MARGIN.top + rows.length * step + MARGIN.bottom;
  return figure(title, null, (width) => {
    const left = Math.min(140, width * 0.34);
    const across = axis(Math.min(...rows.map((row) => row.low)), Math.max(...rows.map((row) => row.high)), width < 480 ? 4 : 6);
    const at = (value) => left + ((value - across.low) / (across.high - across.low)) * (width - left - MARGIN.right);
    const bottom = height - MARGIN.bottom;
    return [
      ...across.ticks.flatMap((tick) => [
        svg("line", { class: "grid", x1: at(tick), x2: at(tick), y1: MARGIN.top, y2: bottom }),
        svg("text", { x: at(tick), y: bottom + 18, "text-anchor": "middle" }, number(tick, across.digits)),
      ]),
      svg("text", { class: "name", x: left + (width - left - MARGIN.right) / 2, y: height - 6, "text-anchor": "middle" }, x.label),
      ...rows.flatMap((row, n) => {
        const y = MARGIN.top + (n + 0.5) * step;
        return [
          svg("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, row.label),
          svg("line", { class: "interval", x1: at(row.low), x2: at(row.high), y1: y, y2: y }),
          svg("circle", { class: "dot series0", cx: at(row.value), cy: y, r: 4.5 }, svg("title", {}, number(row.value, 3))),
        ];
      }),
    ];
  }, height);
}

function figure(title, legend, draw, height = HEIGHT) {
  const place = el("div", { class: "plot" });
  const whole = el("figure", { class: "chart" }, el("figcaption", {}, title), legend, place);
  place.style.blockSize = `${height}px`; // the room is there before the picture is
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.round(place.clientWidth);
    if (now === width || now < 100) return;
    width = now;
    place.replaceChildren(svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title }, draw(width)));
  }).observe(place);
  return whole;
}

function scales(width, across, up) {
  const [w, h] = [width - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];
  return {
    x: (value) => round(MARGIN.left + ((value - across.low) / (across.high - across.low)) * w),
    y: (value) => round(MARGIN.top + h - ((value - up.low) / (up.high - up.low)) * h),
  };
}

function frame(width, across, up, at, xName, yName) {
  const bottom = HEIGHT - MARGIN.bottom;
  const middle = MARGIN.top + (bottom - MARGIN.top) / 2;
  return [
    ...up.ticks.flatMap((tick) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at.y(tick), y2: at.y(tick) }),
      svg("text", { x: MARGIN.left - 8, y: at.y(tick) + 4, "text-anchor": "end" }, number(tick, up.digits)),
    ]),
    ...across.ticks.map((tick) =>
      svg("text", { x: at.x(tick), y: bottom + 18, "text-anchor": "middle" }, short(tick, across.digits))),
    svg("text", { class: "name", x: MARGIN.left + (width - MARGIN.left - MARGIN.right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, xName),
    svg("text", { class: "name", x: -middle, y: 14, transform: "rotate(-90)", "text-anchor": "middle" }, yName),
  ];
}

// Return round ticks that hold all values between them.
function axis(low, high, count) {
  if (!(high > low)) [low, high] = [low - 0.5, high + 0.5];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((each) => each >= rough);
  const [first, last] = [Math.floor(low / step), Math.ceil(high / step)];
  const ticks = Array.from({ length: last - first + 1 }, (_, n) => (first + n) * step);
  return { low: first * step, high: last * step, ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function short(value, digits) {
  if (value >= 1e6) return `${number(value / 1e6, value % 1e6 ? 1 : 0)}M`;
  if (value >= 1e4) return `${number(value / 1e3)}k`;
  return number(value, digits);
}

function round(value) {
  return Math.round(value * 10) / 10;
}
