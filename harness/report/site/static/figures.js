// Writes figures as harness/metrics.py does, so that a page and the tables of the command line agree to the last digit.
"use strict";

const dictionary = JSON.parse(document.getElementById("dictionary").textContent);
const metrics = Object.fromEntries(dictionary.metrics.map((metric) => [metric.name, metric]));

function asTaskMetric(metric, main) {
  if (!["accuracy.test", "accuracy.validation"].includes(metric.path)) return metric;
  const [title, unit, direction, text] = dictionary.mains[main] ?? [main.replaceAll("_", " "), "fraction", "higher", "main metric of the task"];
  const split = metric.path.split(".")[1];
  const shown = split === "test" ? title : `${split} ${title}`;
  return { ...metric, title: shown, unit, direction, fmt: unit === "fraction" ? ".2f" : ".4g", description: `${text}, on ${split} data` };
}

// toFixed, but ties go to the even digit, as in Python.
function fixed(value, places) {
  const size = Math.abs(value);
  const whole = size.toFixed(Math.min(100, places + 60));
  const end = whole.indexOf(".") + 1 + places;
  if (size < 1e21 && /^50*$/.test(whole.slice(end))) {
    const down = places ? whole.slice(0, end) : whole.slice(0, end - 1);
    if (Number(down.at(-1)) % 2 === 0) return (value < 0 ? "-" : "") + down;
  }
  return value.toFixed(places);
}

function scaleFor(unit, value) {
  const ladder = dictionary.ladders[unit] ?? [[1, unit]];
  return ladder.filter(([size]) => Math.abs(value) >= size).at(-1) ?? ladder[0];
}

function formatValue(metric, value) {
  if (metric.unit === "s" && value === Infinity) return "∞";
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  const [size, unit] = scaleFor(metric.unit, value);
  const scaled = value / size;
  let text;
  if (!metric.fmt.endsWith("g")) {
    text = fixed(scaled, Number(metric.fmt.slice(1, -1)));
  } else {
    const digits = Number(metric.fmt.slice(1, -1));
    const places = scaled ? Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(scaled)))) : 0;
    text = fixed(scaled, Math.min(places, digits));
    if (["B", ""].includes(metric.unit) && text.includes(".") && Number.isInteger(scaled)) text = text.replace(/0+$/, "").replace(/\.$/, "");
  }
  return unit ? `${text} ${unit}` : text;
}

// Figures that are not finite are texts in records.
function asNumber(value) {
  if (typeof value === "number") return value;
  return { NaN, Infinity, "-Infinity": -Infinity }[value] ?? null;
}

function read(record, path) {
  let value = record;
  for (const part of path.split(".")) value = value !== null && typeof value === "object" && Object.hasOwn(value, part) ? value[part] : null;
  return value;
}
