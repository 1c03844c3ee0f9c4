// What pages do beyond what the server made of them: local times, charts, questions before what destroys.
"use strict";

// Every page says times in UTC, which is right everywhere; here they are said as the clock on the wall does.
function localTimes(root) {
  const form = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const element of root.querySelectorAll("time[datetime]:not([data-local])")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    element.dataset.local = "";
    element.title = element.textContent;
    element.textContent = form.format(moment);
  }
}

// A form that asks before it is sent says what: <form data-ask="Remove the policy nightly?">.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.ask;
  if (question && !window.confirm(question)) event.preventDefault();
}, true);

// Without scripts there is the browser's own menu.
function printing(root) {
  for (const button of root.querySelectorAll("button[data-print]")) {
    button.hidden = false;
    button.addEventListener("click", () => window.print());
  }
}

function bytes(count) {
  const names = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  while (Math.abs(count) >= 1024 && at < names.length - 1) { count /= 1024; at += 1; }
  return `${at ? count.toFixed(1) : count} ${names[at]}`;
}

// A canvas knows neither variables nor themes: give what a variable of the style sheet means on this page now.
function colour(element, variable) {
  element.style.color = `var(${variable})`;
  const meant = getComputedStyle(element).color;
  element.style.color = "";
  return meant;
}

// The numbers of a chart stand in a table as well, which screen readers read; the drawing is hidden from them.
function charts(root) {
  if (typeof uPlot === "undefined") return;
  for (const element of root.querySelectorAll("[data-chart]:not([data-drawn])")) {
    element.dataset.drawn = "";
    const table = document.getElementById(element.dataset.chart);
    const valued = [...table.tBodies[0].rows].map((row) => [...row.cells].filter((cell) => cell.dataset.value));
    const rows = valued.map((cells) => cells.map((cell) => Number(cell.dataset.value))).reverse();
    const columns = rows[0] ? rows[0].map((_, column) => rows.map((row) => row[column])) : [];
    if (columns.length < 2 || columns[0].length < 2) { element.remove(); continue; }
    const ink = colour(element, "--quiet"), line = colour(element, "--line");
    const names = valued[0].slice(1).map((cell) => table.tHead.rows[0].cells[cell.cellIndex].textContent.trim());
    const colours = ["--accent", "--warning", "--missed"].map((name) => colour(element, name));
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const options = {
      width: element.clientWidth, height: 240, legend: { live: false }, cursor: { drag: { x: true, y: false } },
      axes: [axis, { ...axis, size: 80, values: (_, ticks) => ticks.map(bytes) }],
      series: [{}, ...names.map((label, at) => ({ label, stroke: colours[at], width: 2, points: { show: true, size: 5 } }))],
    };
    const plot = new uPlot(options, columns, element);
    new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: 240 })).observe(element);
  }
}

function prepare(root) { localTimes(root); charts(root); }
document.addEventListener("DOMContentLoaded", () => { prepare(document); printing(document); });
document.addEventListener("htmx:afterSwap", (event) => prepare(event.detail.elt.parentElement || document));
