// The page of one run: run.html#KEY finds the record in the data files and shows all of it, as text.
"use strict";

const pages = JSON.parse(document.getElementById("pages").textContent);

function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const meaning = (path) => dictionary.meanings[path] ?? "";

function show(value) {
  if (value === null || value === undefined) return "-";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  if (Array.isArray(value)) return value.length ? value.map((part) => (typeof part === "object" ? JSON.stringify(part) : show(part))).join(", ") : "none";
  return isObject(value) ? JSON.stringify(value) : String(value);
}

function section(title, ...children) {
  return el("section", {}, el("h2", {}, title), ...children);
}

function table(caption, heads, rows, numeric = []) {
  const kinds = heads.map((head, i) => (numeric.includes(i) ? "num" : head === "meaning" ? "wide" : head === "better" ? "minor" : ""));
  const cell = (tag, i, ...children) => el(tag, { class: kinds[i] }, ...children);
  const head = el("tr", {}, ...heads.map((text, i) => { const th = cell("th", i, text); th.scope = "col"; return th; }));
  const body = rows.map((row) => el("tr", {}, ...row.map((value, i) => (i ? cell("td", i, value) : el("th", { scope: "row" }, value)))));
  return el("div", { class: "scroll" }, el("table", { class: "grid plain" }, el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...body)));
}

// A part of the record as field, value and meaning; parts within it follow with their path.
function tree(part, path, above = "") {
  const rows = [];
  for (const [name, value] of Object.entries(part)) {
    if (isObject(value) && Object.keys(value).length) rows.push(...tree(value, `${path}.${name}`, `${above}${name}.`));
    else rows.push([above + name, show(isObject(value) ? null : value), meaning(`${path}.${name}`)]);
  }
  return rows;
}

function parts(record, name, title) {
  const value = record[name];
  if (!isObject(value) || !Object.keys(value).length) return [];
  const rows = tree(value, name);
  const told = rows.some((row) => row[2]);
  return [section(title, table(meaning(name) || title, told ? ["field", "value", "meaning"] : ["field", "value"], told ? rows : rows.map((row) => row.slice(0, 2))))];
}

function measured(record) {
  const main = record.accuracy?.metric ?? "accuracy";
  const rows = [];
  for (const metric of dictionary.metrics.map((each) => asTaskMetric(each, main))) {
    const value = asNumber(read(record, metric.path));
    if (value !== null) rows.push([metric.title, formatValue(metric, value), metric.direction, metric.description]);
  }
  return rows.length ? [section("Measured", table("Every metric that this run has", ["metric", "value", "better", "meaning"], rows, [1]))] : [];
}

function listed(record, path, title, names, note = "") {
  const found = read(record, path);
  if (!Array.isArray(found) || !found.length) return [];
  const heads = names.filter((name) => found.some((each) => each[name] !== undefined && each[name] !== null));
  const rows = found.map((each) => heads.map((name) => show(each[name])));
  const numeric = heads.map((name, i) => i).filter((i) => i && found.every((each) => typeof each[heads[i]] !== "string" || asNumber(each[heads[i]]) !== null));
  const fold = el("details", {}, el("summary", {}, `${title} (${found.length})`), table(note || meaning(path) || title, heads.map((name) => name.replaceAll("_", " ")), rows, numeric));
  fold.open = found.length <= 12;
  return [el("section", {}, fold)];
}

const numbers = (values) => values.map((value) => { const number = asNumber(value); return Number.isFinite(number) ? number : null; });

function plot(title, made) {
  const figure = el("figure", { class: "plot" }, el("figcaption", {}, el("b", {}, title)), el("div", { class: "drawing" }));
  const redraw = () => draw(figure, made());
  requestAnimationFrame(redraw);
  scheme.addEventListener("change", redraw);
  return figure;
}

// Figures of the main metric as its table writes them: shares in per cent.
const main = (record) => asTaskMetric(metrics.test_accuracy, record.accuracy?.metric ?? "accuracy");
const inUnit = (values, metric) => values.map((value) => { const number = asNumber(value); return number === null ? null : metric.unit === "fraction" ? 100 * number : number; });
const named = (metric) => (metric.unit === "fraction" ? `${metric.title} [%]` : metric.title);

const line = (label, ys, xs) => ({ label, n: 1, ys: numbers(ys), xs: xs ?? ys.map((value, i) => i + 1), dy: [] });

function curves(record) {
  const figures = [];
  const accuracy = record.accuracy;
  const of = main(record);
  if (accuracy?.test_curve?.length > 1) {
    const at = accuracy.curve_steps.map((step) => step + 1);
    const both = [line("test", inUnit(accuracy.test_curve, of), at), line("validation", inUnit(accuracy.validation_curve, of), at)];
    figures.push(plot(`${of.title} as of each time step`, () => lines({ y: named(of), lines: both }, "time steps", at.at(-1) > 8)));
  }
  const trace = record.trace ?? [];
  if (trace.length > 1) {
    figures.push(plot("Training: loss, and the main metric on validation data", () => {
      const [drawn, layout] = lines({ y: "training loss", lines: [line("loss", trace.map((e) => e.loss)), line(`validation ${of.title}`, inUnit(trace.map((e) => e.validation), of))] }, "epochs, phases in a row");
      drawn[1].yaxis = "y2";
      layout.yaxis2 = { automargin: true, title: { text: plain(`validation ${named(of)}`) }, overlaying: "y", side: "right", showgrid: false, tickmode: "auto" };
      layout.legend = { orientation: "h", y: -0.2 };
      return [drawn, layout];
    }));
  }
  const phases = (record.time?.phases ?? []).filter((phase) => phase.total.length > 1);
  if (phases.length) {
    const spread = phases.map((p) => line(p.phase, p.total.map((us) => us / 1000), p.total.map((us, i) => Math.round((i * (p.steps - 1)) / (p.total.length - 1)) + 1)));
    figures.push(plot("Step times", () => lines({ y: "step time [ms]", lines: spread }, "training steps that were timed", false, false)));
  }
  const activity = record.activity ?? {};
  if (activity.spikes_curve?.length > 1) {
    const drawn = [line("spikes", activity.spikes_curve, record.accuracy?.curve_steps?.length === activity.spikes_curve.length ? record.accuracy.curve_steps.map((s) => s + 1) : undefined)];
    figures.push(plot("Spikes per sample at each time step", () => lines({ y: "spikes per sample", lines: drawn }, "time steps")));
  }
  const layers = (activity.layers ?? []).filter((layer) => layer.rate !== null);
  if (layers.length > 1) {
    figures.push(plot("Firing rate of each layer", () => [
      [{ type: "bar", x: layers.map((layer, i) => i + 1), y: numbers(layers.map((layer) => layer.rate)), marker: { color: COLOURS[0] }, hoverinfo: "text", text: layers.map((layer) => `${plain(layer.name)}: ${show(layer.rate)}`), textposition: "none" }],
      frame("layers, first to last", "spikes per neuron and step", { xaxis: whole([layers.length]) }),
    ]));
  }
  return figures.length ? [section("Curves", el("div", { class: "pair" }, ...figures))] : [];
}

function heading(record) {
  const spec = record.spec;
  const link = (kind, name, folder) => (Object.hasOwn(pages[kind], name) ? el("a", { href: `${folder}/${pages[kind][name]}.html` }, name) : name);
  const status = el("span", { class: `badge ${record.status === "ok" ? "holds" : "fails"}` }, record.status);
  const found = [
    el("h1", {}, record.label, " ", status),
    el("p", { class: "lead" }, "on ", link("tasks", spec.task, "tasks"), `, seed ${spec.seed}, ${spec.track} track, ${spec.budget} budget; method `, link("methods", spec.method, "methods")),
    el("p", { class: "about" }, `${record.status}: ${dictionary.statuses[record.status] ?? "unknown status"}; started ${record.started}, took ${Number.isFinite(record.duration) ? Number(record.duration.toPrecision(4)) : "-"} s; key `, el("code", {}, record.key)),
  ];
  if (record.environment) found.push(el("p", { class: "about" }, `${record.environment.device} (${record.environment.device_kind}, ${spec.precision}, threads ${record.environment.threads}); commit ${record.environment.git_commit ?? "unknown"}${record.environment.git_dirty ? ", with changes" : ""}`));
  if (record.failure) found.push(section("Failure", el("p", {}, record.failure.message), el("pre", {}, record.failure.traceback)));
  if (record.warnings.length) found.push(el("ul", { class: "warnings" }, ...record.warnings.map((text) => el("li", {}, text))));
  return found;
}

function page(record) {
  document.title = `${record.label} on ${record.spec.task} · spikebench`;
  const again = `spikebench show ${record.key}`;
  document.getElementById("run").replaceChildren(
    ...heading(record),
    ...measured(record),
    ...curves(record),
    ...listed(record, "activity.layers", "Activity layer by layer", ["name", "neurons", "spikes_per_sample", "rate"]),
    ...listed(record, "memory.phases", "Memory of each phase", ["phase", "saved_bytes", "transient_bytes", "optimizer_bytes", "trained_bytes", "rss_growth_bytes"]),
    ...listed(record, "time.phases", "Step times of each phase, medians in µs", ["phase", "steps", "forward", "backward", "optimizer"]),
    ...listed(record, "trace", "Epochs", ["phase", "epoch", "loss", "validation", "seconds", "batches", "samples", "loading", "measuring"]),
    ...listed(record, "gradients.parameters", "Gradients beside those through all steps", ["name", "cosine", "ratio"]),
    ...parts(record, "probes", "Probes"),
    ...parts(record, "report", "Report of the method"),
    ...parts(record, "spec", "What was asked for"),
    ...parts(record, "settings", "Settings"),
    ...parts(record, "environment", "Environment"),
    el("section", {}, el("details", {}, el("summary", {}, "All other fields"),
      ...["accuracy", "activity", "memory", "time", "inference", "gradients"].flatMap((name) => (isObject(record[name]) ? [table(name, ["field", "value", "meaning"], tree(record[name], name).filter((row) => !["layers", "phases", "parameters"].includes(row[0])))] : [])))),
    el("p", { class: "about" }, "Lists are thinned and rounded to four digits here; the record's file has all of them: ", el("code", {}, again)),
  );
}

async function find() {
  const state = document.getElementById("state");
  const key = decodeURIComponent(location.hash.slice(1));
  try {
    if (!key) throw new Error("name one behind the #, or choose from the list of runs");
    const { columns, rows, shard } = await spikebench.load("runs");
    const place = rows.findIndex((row) => row[columns.indexOf("key")] === key);
    if (place < 0) throw new Error(`no run has the key ${key}`);
    const found = await spikebench.load(`records-${String(Math.floor(place / shard)).padStart(3, "0")}`);
    page(Object.fromEntries(Object.entries(found).map(([name, column]) => [name, column[place % shard]])));
  } catch (error) {
    state.textContent = `There is nothing to show: ${error.message}`;
  }
}

window.addEventListener("hashchange", () => location.reload());
find();
