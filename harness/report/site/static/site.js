// Makes the tables of a page sortable, searchable and, where a heading asks for it, filterable by a menu.
// Texts come from records, which nobody checked: they are set as text and never as markup.
"use strict";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const followTheme = () => document.documentElement.classList.toggle("dark", dark.matches); // DataTables' style sheet asks for the class
followTheme();
dark.addEventListener("change", followTheme);

// Figures sort by their full digits, which cells keep in data-order; what was not measured comes last both ways.
const figure = (text) => (text === "" || text === null || Number.isNaN(Number(text)) ? (text === "inf" ? Infinity : null) : Number(text));
const missingLast = (sign) => (a, b) => (a === null || b === null ? (a === null) - (b === null) : a === b ? 0 : sign * (a < b ? -1 : 1));
DataTable.ext.type.order["figure-pre"] = figure;
DataTable.ext.type.order["figure-asc"] = missingLast(1);
DataTable.ext.type.order["figure-desc"] = missingLast(-1);

const ROWS = 50; // of a page of a long table

function options(rows) {
  const long = rows > ROWS + 10;
  return {
    order: [],
    paging: long,
    pageLength: ROWS,
    lengthMenu: [ROWS, 100, { label: "all", value: -1 }],
    autoWidth: false,
    layout: { topStart: () => Object.assign(document.createElement("div"), { className: "menus" }), topEnd: rows > 5 ? "search" : null, bottomStart: rows > 5 ? "info" : null, bottomEnd: long ? ["pageLength", "paging"] : null },
    language: { search: "", searchPlaceholder: "search", info: "_TOTAL_ rows", infoFiltered: " of _MAX_", infoEmpty: "no rows", lengthMenu: "_MENU_ per page" },
  };
}

function menu(title, values, chosen, onChange) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  label.append(`${title} `, select);
  select.append(new Option("all", ""));
  for (const value of values) select.append(new Option(value, value, false, value === chosen));
  if (values.includes(chosen)) select.value = chosen;
  select.addEventListener("change", () => onChange(select.value));
  return label;
}

// One menu per column that has few values; the first part of the page's address after # may choose: #verdict=holds
function menus(table, columns, chosen = {}) {
  const box = table.table().container().querySelector(".menus");
  for (const { index, title, value } of columns) {
    const values = [...new Set(table.rows().indexes().toArray().map((row) => value(row, index)))].filter((text) => text !== "").sort();
    if (values.length < 2 && !(title in chosen)) continue;
    const pick = (wanted) => {
      if (wanted === "") table.search.fixed(`menu-${index}`, null);
      else table.search.fixed(`menu-${index}`, (text, data, row) => value(row, index) === wanted);
      table.draw();
    };
    box.append(menu(title, values, chosen[title], pick));
    if (chosen[title] !== undefined) pick(chosen[title]);
  }
}

function chosenInAddress() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

function enhance(element) {
  const heads = [...element.tHead.rows[0].cells];
  const table = new DataTable(element, {
    ...options(element.tBodies[0].rows.length),
    columns: heads.map((head) => ({
      type: head.dataset.sort ?? "string",
      orderSequence: head.dataset.first === "desc" ? ["desc", "asc", ""] : ["asc", "desc", ""],
    })),
  });
  const text = (row, index) => table.cell(row, index).node().textContent.trim();
  const wanted = heads.map((head, index) => ({ index, title: head.textContent.trim(), value: text, on: "menu" in head.dataset }));
  menus(table, wanted.filter((each) => each.on), location.hash.includes("=") ? chosenInAddress() : {});
}

for (const element of document.querySelectorAll("table.grid:not(.later)")) enhance(element);
