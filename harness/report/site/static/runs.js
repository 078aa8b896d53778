// The list of all runs. The address may choose: runs.html#label=stbp&task=static/digits
"use strict";

const COLUMNS = [
  ["key", "run"], ["label", "method"], ["family", "family", "menu"], ["task", "task", "menu"], ["budget", "budget", "menu"],
  ["track", "track", "menu"], ["device", "device", "menu"], ["precision", "precision", "menu"], ["threads", "threads", "figure"],
  ["seed", "seed", "figure"], ["status", "status", "menu"], ["test_accuracy", "main metric", "metric"], ["saved_bytes", "", "metric"],
  ["step_time", "", "metric"], ["total_time", "", "metric"], ["spikes", "", "metric"], ["synops", "", "metric"], ["started", "started"],
  ["commit", "commit"],
];

const MINOR = ["family", "budget", "track", "device", "precision", "threads"]; // left out where the window is narrow

function column([name, title, kind], at) {
  const place = at(name);
  const metric = metrics[name];
  const number = (row) => asNumber(row[place]);
  const shown = (row) => {
    if (kind !== "metric") return name === "started" ? String(row[place]).slice(0, 16).replace("T", " ") : name === "commit" ? row[place].slice(0, 8) : String(row[place]);
    const main = row[at("metric")] || "accuracy";
    const of = asTaskMetric(metric, main);
    const text = formatValue(of, number(row));
    return name === "test_accuracy" && text !== "-" ? `${text} ${of.title}` : text;
  };
  return {
    title: title || metric.title,
    type: kind === "metric" || kind === "figure" ? "figure" : "string",
    className: `${kind === "metric" || kind === "figure" ? "num" : ""}${MINOR.includes(name) ? " minor" : ""}${["task", "started", "device"].includes(name) ? " line" : ""}`,
    orderSequence: metric?.direction === "higher" ? ["desc", "asc", ""] : ["asc", "desc", ""],
    data: (row, request) => (request === "sort" && kind === "metric" ? number(row) : request === "display" ? "" : shown(row)),
    createdCell: (cell, value, row) => {
      if (name !== "key") return void (cell.textContent = shown(row));
      const link = document.createElement("a");
      link.href = `run.html#${encodeURIComponent(row[place])}`;
      link.textContent = row[place].slice(0, 10);
      cell.replaceChildren(link);
    },
  };
}

async function list() {
  const state = document.getElementById("state");
  try {
    const { columns, rows } = await spikebench.load("runs");
    const at = (name) => columns.indexOf(name);
    const element = document.getElementById("runs");
    const table = new DataTable(element, { ...options(rows.length), deferRender: true, data: rows, columns: COLUMNS.map((each) => column(each, at)) });
    const chosen = location.hash.includes("=") ? chosenInAddress() : {};
    if (chosen.label !== undefined) {
      table.search.fixed("label", (text, row) => row[at("label")] === chosen.label).draw();
      const all = Object.assign(document.createElement("a"), { href: "runs.html", textContent: "show all runs" });
      all.addEventListener("click", () => setTimeout(() => location.reload()));
      state.append(`Only runs of ${chosen.label}: `, all);
    }
    const value = (row, index) => String(rows[row][at(COLUMNS[index][0])]);
    menus(table, COLUMNS.map(([name, title, kind], index) => ({ index, title, value, kind })).filter((each) => each.kind === "menu"), chosen);
  } catch (error) {
    state.textContent = `The runs cannot be shown: ${error.message}`;
  }
}

window.addEventListener("hashchange", () => location.reload());
list();
