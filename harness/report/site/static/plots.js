// Draws the figures of a page with plotly, from the JSON that stands inside each <figure>. Colours are those of Okabe and Ito.
"use strict";

const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7f7f7f"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "star", "cross", "x", "hexagon"];
const SHOWN = 10; // lines; of more, the rest waits in the legend

// Plotly reads a little markup in names; here a name is a text.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const short = (text, most = 34) => plain(text.length > most ? `${text.slice(0, most - 1)}…` : text);
const colour = (i) => COLOURS[i % COLOURS.length];
const dash = (i) => DASHES[Math.floor(i / COLOURS.length) % DASHES.length];
const symbol = (i) => SYMBOLS[i % SYMBOLS.length];
const scheme = window.matchMedia("(prefers-color-scheme: dark)");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function frame(x, y, more = {}) {
  const narrow = window.innerWidth < 700;
  const line = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  return {
    font: { family: "system-ui, sans-serif", size: 12, color: css("--text") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 12, t: 30, b: 48 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--faint"), activecolor: css("--link") },
    height: narrow ? 480 : 400,
    hovermode: "closest",
    hoverlabel: { namelength: -1 },
    legend: narrow ? { orientation: "h", y: -0.25, font: { size: 11 }, maxheight: 0.4 } : { x: 1.01, y: 1, font: { size: 11 } },
    ...more,
    xaxis: { title: { text: plain(x) }, ...line, ...more.xaxis },
    yaxis: { title: { text: plain(y) }, ...line, ...more.yaxis },
  };
}

// Plotly would offer to send a chart to a server of its makers; a page of this site sends nothing anywhere.
const config = { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

// Whole numbers on an axis of few of them.
const whole = (xs) => (Math.max(...xs) <= 12 ? { dtick: 1 } : {});

function points(found) {
  const best = found.front;
  const band = {
    name: "Pareto front", x: best.map((i) => found.xs[i]), y: best.map((i) => found.ys[i]), mode: "lines", hoverinfo: "skip",
    line: { color: css("--faint"), dash: "dash", width: 1.5, shape: found.shape },
  };
  const each = found.labels.map((label, i) => ({
    name: `${short(label)} (n = ${found.n[i]})`, x: [found.xs[i]], y: [found.ys[i]], mode: "markers", hoverinfo: "text",
    text: `${plain(label)}${best.includes(i) ? " (Pareto-optimal)" : ""}<br>${found.texts[i].map(plain).join("<br>")}`,
    error_x: { array: [found.dx[i]], thickness: 1, width: 2 },
    error_y: { array: [found.dy[i]], thickness: 1, width: 2 },
    marker: { color: colour(i), symbol: symbol(i), size: best.includes(i) ? 11 : 8, line: { color: css("--text"), width: best.includes(i) ? 1.5 : 0 } },
  }));
  return [[band, ...each], frame(found.x, found.y, { xaxis: { type: found.log ? "log" : "linear" } })];
}

function lines(found, x, log = false, marks = true) {
  const drawn = found.lines.map((line, i) => ({
    name: short(line.label) + (line.n > 1 ? ` (n = ${line.n})` : ""), x: line.xs, y: line.ys, mode: marks && line.xs.length <= 40 ? "lines+markers" : "lines",
    text: line.xs.map(() => plain(line.label)), hovertemplate: "%{text}<br>%{x}: %{y:.5g}<extra></extra>",
    error_y: line.dy?.length && line.xs.length <= 40 ? { array: line.dy, thickness: 1, width: 2 } : undefined,
    line: { color: colour(i), dash: dash(i), width: 1.7 }, marker: { color: colour(i), symbol: symbol(i), size: 6 },
    visible: i < SHOWN ? true : "legendonly",
  }));
  return [drawn, frame(x, found.y, { showlegend: true, xaxis: log ? { type: "log", dtick: Math.log10(2) } : whole(found.lines.flatMap((line) => line.xs)) })];
}

function scaling(found, x) {
  const [drawn, layout] = lines({ ...found, lines: found.lines.map((line) => ({ ...line, label: line.growth ? `${line.label}: ${line.growth}` : line.label })) }, x);
  drawn.forEach((line, i) => Object.assign(line, { mode: "markers", legendgroup: `${i}` }));
  const fits = found.lines.map((line, i) => ({
    x: line.xs, y: line.fit, mode: "lines", hoverinfo: "skip", showlegend: false, legendgroup: `${i}`, line: { color: colour(i), dash: dash(i), width: 1.4 },
    visible: i < SHOWN ? true : "legendonly",
  }));
  return [[...fits, ...drawn], layout];
}

function history(line) {
  const at = line.commits.map((commit, i) => i);
  const ends = [0, ...line.changes.map(([index]) => index), line.ys.length];
  const level = (k) => (k ? line.changes[k - 1][2] : line.changes.length ? line.changes[0][1] : null);
  const levels = line.changes.length ? ends.slice(1).map((end, k) => ({
    x: [ends[k], end - 1], y: [level(k), level(k)], mode: "lines", hoverinfo: "skip", showlegend: false, line: { color: css("--faint"), width: 2 },
  })) : [];
  const changed = line.changes.map(([index, , , better]) => ({
    type: "line", x0: index - 0.5, x1: index - 0.5, yref: "paper", y0: 0, y1: 1, line: { color: better ? "#009E73" : "#D55E00", dash: "dot", width: 1.5 },
  }));
  const drawn = {
    x: at, y: line.ys, mode: "lines+markers", line: { color: COLOURS[0], width: 1.5 }, marker: { size: 7 }, showlegend: false, hoverinfo: "text",
    error_y: { array: line.dy, thickness: 1, width: 2 },
    text: line.ys.map((y, i) => `${plain(line.commits[i])} ${plain(line.texts[i])}<br>${y.toPrecision(5)} (n = ${line.n[i]})`),
  };
  const ticks = { tickvals: at, ticktext: line.commits.map(plain), tickangle: -40 };
  return [[...levels, drawn], frame("commit", line.y, { shapes: changed, xaxis: at.length > 40 ? { ...ticks, tickvals: at.filter((i) => i % Math.ceil(at.length / 40) === 0) } : ticks })];
}

function chooser(title, values, onChange) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  values.forEach((value, i) => select.append(new Option(value, i)));
  select.addEventListener("change", () => onChange(Number(select.value)));
  label.append(`${title} `, select);
  return label;
}

function draw(figure, made) {
  const [data, layout] = made;
  const place = figure.querySelector(".drawing");
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", figure.querySelector("figcaption").textContent);
  return Plotly.react(place, data, layout, config);
}

// Menus that depend on one another: the second offers what the first leaves.
function cascade(figure, content, show) {
  const box = figure.querySelector(".menus");
  const fill = (chosen) => {
    box.replaceChildren();
    let left = content.lines;
    content.menus.forEach((title, depth) => {
      const values = [...new Set(left.map((line) => line.menus[depth]))];
      const wanted = values.includes(chosen[depth]) ? chosen[depth] : values[0];
      const label = chooser(title, values, (i) => fill([...chosen.slice(0, depth), values[i], ...chosen.slice(depth + 1)]));
      label.querySelector("select").value = values.indexOf(wanted);
      box.append(label);
      chosen = [...chosen.slice(0, depth), wanted, ...chosen.slice(depth + 1)];
      left = left.filter((line) => line.menus[depth] === wanted);
    });
    show(left[0]);
  };
  fill([]);
}

const KINDS = {
  pareto: (content, choice) => points(choice),
  lines: (content) => lines(content, content.x, content.log),
  training: (content, choice) => lines(choice, content.x),
  scaling: (content, choice) => scaling(choice, content.x),
};

function start(figure) {
  const content = JSON.parse(figure.querySelector("script").textContent);
  let redraw;
  if (content.kind === "history") {
    cascade(figure, content, (line) => {
      figure.querySelector("figcaption span").textContent = line.title;
      (redraw = () => draw(figure, history(line)))();
    });
  } else {
    let chosen = 0;
    redraw = () => draw(figure, KINDS[content.kind](content, content.choices?.[chosen]));
    if (content.choices?.length > 1) {
      const title = content.kind === "pareto" ? "against" : "show";
      figure.querySelector(".menus").append(chooser(title, content.choices.map((choice) => choice.name), (i) => { chosen = i; redraw(); }));
    }
    redraw();
  }
  scheme.addEventListener("change", () => redraw());
}

// A page may have many plots: each is drawn when it comes near the window.
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((each) => each.isIntersecting)) {
    seen.unobserve(entry.target);
    start(entry.target);
  }
}, { rootMargin: "400px" });
for (const figure of document.querySelectorAll("figure.plot")) seen.observe(figure);
