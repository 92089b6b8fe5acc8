"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const narrow = window.matchMedia("(max-width: 700px)");

function option(select, text) {
  const made = document.createElement("option");
  made.value = made.textContent = text;
  select.append(made);
}

// Charts: one or two choices of a chart's traces; the second with dashed lines, squares and hatched bars.
function asSecond(trace) {
  const copy = structuredClone(trace);
  if (copy.type === "bar") copy.marker.pattern = { shape: "/", fillmode: "replace", fgcolor: copy.marker.color };
  else if (copy.line) copy.line.dash = "dash";
  if (copy.mode && copy.mode.includes("markers") && copy.marker.symbol !== "diamond") copy.marker.symbol = "square";
  return copy;
}

// Dotted lines are the same for all choices.
const isOwn = (trace) => !(trace.line && trace.line.dash === "dot");

function drawChart(chart, plot, picks) {
  const [first, second] = picks.map((pick) => pick.value);
  const traces = [...chart.choices[first]];
  if (second && second !== first) traces.push(...chart.choices[second].filter(isOwn).map(asSecond));
  const layout = structuredClone(narrow.matches ? chart.narrow : chart.wide);
  if (chart.heights[first]) layout.height = chart.heights[first];
  const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  return Plotly.react(plot, traces, layout, config);
}

function setUpChart(chart) {
  const figure = byId(`chart-${chart.id}`);
  const controls = figure.querySelector(".controls"), plot = figure.querySelector(".plot");
  const names = Object.keys(chart.choices), picks = [];
  const starts = chart.second === null ? [chart.first] : [chart.first, chart.second];
  starts.forEach((start, place) => {
    const label = document.createElement("label"), select = document.createElement("select");
    label.append(place ? "compared with" : "Show", select);
    if (place) option(select, "");
    names.forEach((name) => option(select, name));
    select.value = start;
    picks.push(select);
    if (names.length > 1) controls.append(label);
    select.addEventListener("change", () => drawChart(chart, plot, picks));
  });
  narrow.addEventListener("change", () => drawChart(chart, plot, picks));
  return drawChart(chart, plot, picks);
}

// The table: click a heading to sort, once more for the other way; what has no figure stays at the end.
function sortTable(button) {
  const heading = button.closest("th"), column = Number(button.dataset.column), body = byId("results").tBodies[0];
  const start = column === 0 ? "ascending" : "descending";
  const turned = { ascending: "descending", descending: "ascending" }[heading.getAttribute("aria-sort")];
  const order = turned || start, sign = order === "ascending" ? 1 : -1;
  byId("results").querySelectorAll("th[aria-sort]").forEach((th) => th.setAttribute("aria-sort", "none"));
  heading.setAttribute("aria-sort", order);
  const value = (row) => row.cells[column].dataset.value;
  const rows = [...body.rows].sort((a, b) => {
    if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
    return sign * (Number(value(a)) - Number(value(b)));
  });
  body.append(...rows);
}

function filterTable() {
  const words = byId("row-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of byId("results").tBodies[0].rows) {
    const text = `${row.cells[0].textContent} ${row.dataset.experiment}`.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
}

function filterClaims() {
  const wanted = byId("verdict-filter").value;
  for (const row of byId("claims-table").tBodies[0].rows) row.hidden = wanted !== "" && row.dataset.verdict !== wanted;
}

// Errors: search over what the chosen row gets most wrong.
const PAGE = 25;
let shown = PAGE;

function chosenErrors() {
  const task = data.errors.tasks[byId("error-task").value];
  if (!task) return [];
  const words = byId("error-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  return (task.rows[byId("error-row").value] || [])
    .map(([id, label, predicted, wrong]) => ({ id, label, predicted, wrong, sentences: task.sentences[id] || [] }))
    .filter((error) => {
      const text = [error.id, ...error.sentences].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
}

function errorLine(error) {
  const row = document.createElement("tr");
  for (const text of [error.label, error.predicted]) row.insertCell().textContent = text;
  const sentences = row.insertCell();
  for (const text of error.sentences.length ? error.sentences : ["–"]) {
    const line = document.createElement("div");
    line.textContent = text;
    sentences.append(line);
  }
  row.insertCell().textContent = error.id;
  return row;
}

function showErrors() {
  const found = chosenErrors();
  byId("error-table").tBodies[0].replaceChildren(...found.slice(0, shown).map(errorLine));
  byId("error-count").textContent = `${Math.min(shown, found.length)} of ${found.length} shown`;
  byId("more-errors").hidden = found.length <= shown;
}

function restartErrors() {
  shown = PAGE;
  showErrors();
}

function setUpErrors() {
  const tasks = Object.keys(data.errors.tasks);
  tasks.forEach((name) => option(byId("error-task"), name));
  const rows = new Set(tasks.flatMap((name) => Object.keys(data.errors.tasks[name].rows)));
  rows.forEach((label) => option(byId("error-row"), label));
  for (const id of ["error-task", "error-row"]) byId(id).addEventListener("change", restartErrors);
  byId("error-search").addEventListener("input", restartErrors);
  byId("error-controls").addEventListener("submit", (event) => event.preventDefault());
  byId("more-errors").addEventListener("click", () => { shown += PAGE; showErrors(); });
  showErrors();
}

function setOpen(open) {
  document.querySelectorAll("details.run").forEach((details) => { details.open = open; });
}

byId("results").querySelectorAll("button[data-column]").forEach((button) => {
  button.addEventListener("click", () => sortTable(button));
});
byId("row-filter").addEventListener("input", filterTable);
byId("verdict-filter")?.addEventListener("change", filterClaims);
byId("open-all").addEventListener("click", () => setOpen(true));
byId("close-all").addEventListener("click", () => setOpen(false));
window.addEventListener("beforeprint", () => setOpen(true));
setUpErrors();
Promise.all(data.charts.map(setUpChart)).then(() => { document.documentElement.dataset.ready = "yes"; });
