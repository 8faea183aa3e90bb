"use strict";
// Tables that sort and filter, and cards of examples. Text from the data goes into the page as text only.

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", "", head.textContent);
    button.type = "button";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const isNumber = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      // Numbers begin with the largest, names with the first.
      const down = before ? before === "ascending" : isNumber;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        if (!isNumber) return cell.textContent;
        const number = Number.parseFloat(cell.dataset.value ?? cell.textContent.replaceAll(",", "").replace("−", "-"));
        return Number.isNaN(number) ? null : number;
      };
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        // What is not known comes last in either direction.
        if (a === null || b === null) return (a === null) - (b === null);
        const order = isNumber ? a - b : a.localeCompare(b);
        return down ? -order : order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function findable(input) {
  const rows = [...input.closest(".table").querySelector("tbody").rows];
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}

const PAGE = 24;

function gallery(root) {
  const data = JSON.parse(root.querySelector("[data-examples]").textContent);
  const part = (name) => root.querySelector(`[data-${name}]`);
  const order = part("order"), text = part("text"), drawn = part("drawn"), cards = part("cards"), more = part("more");
  const n = data.names.length;
  const searched = data.names.map((name, k) => `${data.texts[k]}\n${name}`.toLowerCase());
  const pictures = data.pictures;
  const hasPicture = (k) => pictures.all || pictures.labels.some((_, side) => address(k, side) !== null);
  let chosen = [], shown = 0;

  function address(k, side) {
    const name = `${data.index[k]}${pictures.suffixes[side]}`;
    if (pictures.folder) return pictures.all || pictures.drawn[name] ? `${pictures.folder}/${name}.webp` : null;
    return pictures.files[name] ? `data:image/webp;base64,${pictures.files[name]}` : null;
  }

  for (const { label } of data.orders) order.append(new Option(label));
  const selects = data.choices.map(({ label, names, codes }) => {
    const select = document.createElement("select");
    const counts = names.map(() => 0);
    for (const code of codes) counts[code] += 1;
    select.append(new Option("all", ""));
    names.forEach((name, code) => {
      if (counts[code]) select.append(new Option(`${name} (${counts[code].toLocaleString("en")})`, code));
    });
    const box = make("label", "", `${label} `);
    box.append(select);
    part("choices").append(box);
    return select;
  });
  if (pictures.all || pictures.none) part("drawn-label").hidden = true;
  else drawn.checked = true;

  function card(k) {
    const article = make("article", "card");
    article.id = `example-${data.index[k]}`;
    const frame = make("div", "pictures");
    pictures.labels.forEach((label, side) => {
      const cell = make("div");
      const source = address(k, side);
      if (source === null) cell.append(make("span", "none", pictures.none || "no picture of this example is in this file"));
      else {
        const image = make("img");
        image.loading = "lazy";
        image.alt = `${label ? `${label}: ` : ""}${data.texts[k]}`;
        image.src = source;
        cell.append(image);
      }
      if (label) {
        const of = make("span", "of", label);
        of.dir = "auto";
        cell.append(of);
      }
      frame.append(cell);
    });
    article.append(frame);
    const words = make("div", "text");
    const sentence = make("p", "sentence", data.texts[k]);
    sentence.dir = "auto";
    const facts = make("dl");
    const fact = (name, value) => {
      const row = make("div");
      const shownValue = make("dd", "", value);
      shownValue.dir = "auto";
      row.append(make("dt", "", name), shownValue);
      facts.append(row);
    };
    for (const { label, values, signed } of data.facts) {
      const value = values[k];
      if (value === null) continue;
      fact(label, `${signed && value > 0 ? "+" : ""}${value.toFixed(3)}`.replace("-", "−"));
    }
    for (const { label, names, codes } of data.choices) fact(label, names[codes[k]]);
    for (const { label, values } of data.notes) if (values[k]) fact(label, values[k]);
    fact("key", data.names[k]);
    words.append(sentence, facts);
    article.append(words);
    return article;
  }

  function show(count) {
    const next = chosen.slice(shown, shown + count);
    cards.append(...next.map(card));
    shown += next.length;
    more.hidden = shown >= chosen.length;
    part("status").textContent =
      `${shown.toLocaleString("en")} of ${chosen.length.toLocaleString("en")} examples shown` +
      (chosen.length < n ? `; ${n.toLocaleString("en")} in all` : "");
  }

  function choose() {
    const start = performance.now();
    const wanted = text.value.trim().toLowerCase();
    const codes = selects.map((select) => (select.value === "" ? null : Number(select.value)));
    chosen = [];
    for (let k = 0; k < n; k += 1) {
      if (drawn.checked && !hasPicture(k)) continue;
      if (codes.some((code, c) => code !== null && data.choices[c].codes[k] !== code)) continue;
      if (wanted && !searched[k].includes(wanted)) continue;
      chosen.push(k);
    }
    const { fact, down, mixed } = data.orders[order.selectedIndex];
    if (mixed) {
      const place = (k) => Math.imul(data.index[k] + 1, 2654435761) >>> 0;
      chosen.sort((a, b) => place(a) - place(b));
    } else if (fact !== undefined) {
      const values = data.facts[fact].values;
      // What is not known comes last.
      const place = (k) => (values[k] === null ? Infinity : down ? -values[k] : values[k]);
      chosen.sort((a, b) => (place(a) === place(b) ? a - b : place(a) - place(b)));
    }
    cards.replaceChildren();
    shown = 0;
    show(PAGE);
    root.dataset.milliseconds = (performance.now() - start).toFixed(1);
  }

  function follow() {
    const match = /^#example-(\d+)$/.exec(location.hash);
    const k = match ? data.index.indexOf(Number(match[1])) : -1;
    if (k < 0) return;
    let found = document.getElementById(location.hash.slice(1));
    if (!found) {
      found = card(k);
      cards.prepend(found);
    }
    for (const other of cards.querySelectorAll(".found")) other.classList.remove("found");
    found.classList.add("found");
    found.scrollIntoView({ block: "center" });
  }

  cards.classList.toggle("pairs", pictures.labels.length > 1);
  for (const control of [order, drawn, ...selects]) control.addEventListener("change", choose);
  text.addEventListener("input", choose);
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => show(PAGE));
  window.addEventListener("hashchange", follow);
  choose();
  follow();
}

for (const table of document.querySelectorAll("table[data-sortable]")) sortable(table);
for (const input of document.querySelectorAll("input[data-find]")) findable(input);
for (const root of document.querySelectorAll("[data-gallery]")) gallery(root);
