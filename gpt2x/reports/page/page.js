"use strict";

// Adds a search field, one choice per column that has data-choose, and pages, to each table of the class "filtered".
// Without this script all rows are shown. Values come from the cells and are only ever set as text.
// On paper all rows that the filter leaves are shown, and a note says how many that is.
const ROWS_PER_PAGE = 50;
const FEWEST_ROWS = 10;

function enhance(table) {
  const rows = Array.from(table.tBodies[0].rows, (element) => ({
    element, text: Array.from(element.cells, (cell) => cell.textContent).join("\n").toLowerCase(),
  }));
  if (rows.length < FEWEST_ROWS) return;
  const controls = document.createElement("div");
  controls.className = "controls";
  const search = labelled(controls, "text", document.createElement("input"));
  search.type = "search";
  const choices = [];
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const values = new Set(rows.map((row) => row.element.cells[column].textContent));
    if (head.dataset.choose === undefined || values.size < 2) return;
    const select = labelled(controls, head.textContent, document.createElement("select"));
    select.add(new Option("all", ""));
    for (const value of values) select.add(new Option(value.length > 40 ? value.slice(0, 39) + "…" : value, "=" + value));
    choices.push({ column, select });
  });
  const pages = document.createElement("div");
  pages.className = "pages";
  const [back, count, next] = ["button", "span", "button"].map((name) => document.createElement(name));
  [back.textContent, next.textContent] = ["←", "→"];
  back.setAttribute("aria-label", "previous rows");
  next.setAttribute("aria-label", "next rows");
  count.setAttribute("role", "status");
  pages.append(back, count, next);
  controls.append(pages);
  const note = document.createElement("p");
  note.className = "note on-paper";
  table.parentElement.before(controls, note);

  let start = 0;
  function show() {
    const wanted = search.value.toLowerCase();
    const matches = rows.filter(({ element, text }) => text.includes(wanted) && choices.every(({ column, select }) =>
      select.value === "" || select.value === "=" + element.cells[column].textContent));
    start = Math.max(0, Math.min(start, matches.length - 1));
    start -= start % ROWS_PER_PAGE;
    const visible = new Set(matches.slice(start, start + ROWS_PER_PAGE));
    const found = new Set(matches);
    for (const row of rows) {
      row.element.hidden = !found.has(row);
      row.element.classList.toggle("on-paper", !visible.has(row));
    }
    const left = `${matches.length} of ${rows.length} rows: those that the filter of the page leaves.`;
    note.textContent = matches.length === rows.length ? "" : left;
    const of = matches.length === rows.length ? "" : `, of ${rows.length}`;
    count.textContent = matches.length === 0 ? `no row${of}` : `${start + 1} to ${start + visible.size} of ${matches.length}${of}`;
    back.disabled = start === 0;
    next.disabled = start + ROWS_PER_PAGE >= matches.length;
  }
  function restart() {
    start = 0;
    show();
  }
  search.addEventListener("input", restart);
  for (const { select } of choices) select.addEventListener("change", restart);
  back.addEventListener("click", () => { start -= ROWS_PER_PAGE; show(); });
  next.addEventListener("click", () => { start += ROWS_PER_PAGE; show(); });
  show();
}

function labelled(parent, name, control) {
  const label = document.createElement("label");
  label.append(name, control);
  parent.append(label);
  return control;
}

document.querySelectorAll("table.filtered").forEach(enhance);
