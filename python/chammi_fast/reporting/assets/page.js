// The page's own script: tables that sort, figures that are chosen, hints under the pointer, and the map of cells.
"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const make = (tag, className = "", text = "") => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    // Text, never markup: labels and file names are whatever a table held.
    if (text !== "") element.textContent = text;
    return element;
  };

  // --- tables -------------------------------------------------------------------------------------------------------
  function sortBy(header) {
    const table = header.closest("table");
    const column = header.cellIndex;
    const numbers = header.dataset.kind === "number";
    const before = header.getAttribute("aria-sort");
    // Large numbers first: that is what one looks for in scores.
    const ascending = before ? before === "descending" : !numbers;
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    const rows = all("tr", table.tBodies[0]).map((row, place) => ({ row, place, key: value(row) }));
    rows.sort((a, b) => {
      const empty = (a.key === undefined) - (b.key === undefined);
      if (empty || a.key === undefined) return empty || a.place - b.place;
      const order = numbers ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true });
      return (ascending ? order : -order) || a.place - b.place;
    });
    table.tBodies[0].append(...rows.map((one) => one.row));
  }
  all("th button.sort").forEach((button) => button.addEventListener("click", () => sortBy(button.closest("th"))));

  all("select[data-filters]").forEach((select) => {
    const rows = all("tbody tr", document.getElementById(select.dataset.filters));
    const apply = () => rows.forEach((row) => {
      row.hidden = row.dataset.kind !== "own" && select.value !== "all" && row.dataset.kind !== select.value;
    });
    select.addEventListener("change", apply);
    apply();
  });

  // --- figures of which one is shown --------------------------------------------------------------------------------
  all("select[data-shows]").forEach((select) => {
    const figures = all("figure", document.getElementById(select.dataset.shows));
    const apply = () => figures.forEach((figure, place) => { figure.hidden = String(place) !== select.value; });
    select.addEventListener("change", apply);
    apply();
  });

  // --- hints --------------------------------------------------------------------------------------------------------
  const hint = make("div", "hint");
  hint.setAttribute("role", "tooltip");
  hint.hidden = true;
  document.body.append(hint);
  function showHint(x, y, ...content) {
    hint.replaceChildren(...content);
    hint.hidden = false;
    const { width, height } = hint.getBoundingClientRect();
    const below = y + 16 + height < window.innerHeight;
    hint.style.left = `${Math.max(6, Math.min(x + 12, window.innerWidth - width - 6))}px`;
    hint.style.top = `${below ? y + 16 : Math.max(6, y - height - 12)}px`;
  }
  const hideHint = () => { hint.hidden = true; };
  document.addEventListener("pointerover", (event) => {
    const target = event.target instanceof Element ? event.target.closest("[data-tip]") : null;
    if (target) {
      const lines = target.dataset.tip.split("\n").map((line, place) => make("div", place ? "" : "first", line));
      showHint(event.clientX, event.clientY, ...lines);
    } else if (!(event.target instanceof Element && event.target.closest("#map-plot"))) hideHint();
  });
  document.addEventListener("scroll", hideHint, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideHint(); });

  // --- the map of cells ---------------------------------------------------------------------------------------------
  const holder = document.getElementById("map-plot");
  if (!holder) return;
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const modelSelect = document.getElementById("map-model");
  const colourSelect = document.getElementById("map-colour");
  const legend = document.getElementById("map-legend");
  const panel = document.getElementById("map-panel");
  const state = { map: data.maps[0], field: 0, only: null, chosen: -1 };

  const SHAPES = {
    circle: "M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0-9z",
    triangle: "M6 1.2L11 10.5H1z",
    square: "M1.8 1.8H10.2V10.2H1.8z",
    diamond: "M6 .8L11.2 6L6 11.2L.8 6z",
  };
  function swatch(look) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 12 12");
    svg.setAttribute("class", "swatch");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", SHAPES[look.marker]);
    path.setAttribute("fill", look.colour);
    svg.append(path);
    return svg;
  }

  const fieldNow = () => state.map.fields[state.field];
  const label = (cell) => state.map.fields[0].values[cell] || "unknown";
  const setOf = () => data.dataSets[state.map.dataSet];
  const key = (cell) => setOf().keys[state.map.cell[cell]];

  function picture(cell) {
    const set = setOf();
    const strip = set.strips[state.map.cell[cell]];
    if (!strip) return make("div", "no-picture", "no picture");
    const box = make("div", "picture");
    box.style.setProperty("--channels", set.channelCount);
    const image = make("img");
    image.src = strip;
    image.alt = `The channels of a cell labelled ${label(cell)}`;
    image.width = data.side * set.channelCount;
    image.height = data.side;
    box.append(image);
    if (set.channels.length > 1) {
      const names = make("div", "channels");
      set.channels.forEach((name) => names.append(make("span", "", name)));
      box.append(names);
    }
    return box;
  }
  function verdict(cell) {
    const predicted = state.map.predicted[cell];
    if (!predicted) return make("div", "verdict", state.map.fields[1].values[cell]);
    const right = predicted === label(cell);
    return make("div", `verdict ${right ? "right" : "wrong"}`, right ? "✓ predicted right" : `✗ taken for ${predicted}`);
  }

  Bokeh.embed.embed_item(JSON.parse(document.getElementById("map-document").textContent)).then((views) => {
    const root = Bokeh.documents[Bokeh.documents.length - 1];
    const plot = root.get_model_by_name("map");
    const [cells, links, chosen] = ["cells", "links", "chosen"].map((name) => root.get_model_by_name(name));
    const view = views.get(plot);
    let extent = null;

    const frame = () => view.frame.bbox;
    function fit() {
      if (!extent || !frame().width) return;
      const unit = Math.max(extent.width / frame().width, extent.height / frame().height) * 1.08 || 1;
      plot.x_range.setv({ start: extent.x - frame().width * unit / 2, end: extent.x + frame().width * unit / 2 });
      plot.y_range.setv({ start: extent.y - frame().height * unit / 2, end: extent.y + frame().height * unit / 2 });
    }
    function zoom(factor) {
      [plot.x_range, plot.y_range].forEach((range) => {
        const middle = (range.start + range.end) / 2, half = (range.end - range.start) / 2 * factor;
        range.setv({ start: middle - half, end: middle + half });
      });
    }
    const screen = (cell) => {
      const box = holder.getBoundingClientRect();
      return {
        x: box.left + view.frame.x_scale.compute(state.map.x[cell]),
        y: box.top + view.frame.y_scale.compute(state.map.y[cell]),
      };
    };

    function paint() {
      const field = fieldNow();
      const many = state.map.x.length > 600;
      cells.data = {
        x: state.map.x,
        y: state.map.y,
        colour: field.kind.map((kind) => field.looks[kind].colour),
        marker: field.kind.map((kind) => field.looks[kind].marker),
        size: field.kind.map(() => (many ? 6 : 8)),
        alpha: field.kind.map((kind) => (state.only === null ? 0.85 : state.only === kind ? 0.95 : 0.1)),
      };
    }
    function paintLegend() {
      const field = fieldNow();
      const counts = new Map();
      field.kind.forEach((kind) => counts.set(kind, (counts.get(kind) || 0) + 1));
      legend.replaceChildren(...field.names.map((name, kind) => {
        const button = make("button", "kind");
        button.type = "button";
        button.setAttribute("aria-pressed", String(state.only === kind));
        button.append(swatch(field.looks[kind]), make("span", "", name), make("small", "", String(counts.get(kind) || 0)));
        button.addEventListener("click", () => {
          state.only = state.only === kind ? null : kind;
          all("button", legend).forEach((one, place) => one.setAttribute("aria-pressed", String(place === state.only)));
          paint();
        });
        return button;
      }));
    }
    function choose(cell) {
      state.chosen = cell;
      hideHint();
      const { map } = state;
      const near = cell < 0 ? [] : map.neighbours[cell];
      const decided = cell < 0 ? -1 : map.decidedBy[cell];
      const ends = decided < 0 || near.includes(decided) ? near : [decided, ...near];
      links.data = {
        x0: ends.map(() => map.x[cell]), y0: ends.map(() => map.y[cell]),
        x1: ends.map((other) => map.x[other]), y1: ends.map((other) => map.y[other]),
      };
      const ringed = cell < 0 ? [] : [cell, ...ends];
      chosen.data = {
        x: ringed.map((one) => map.x[one]), y: ringed.map((one) => map.y[one]),
        size: ringed.map((_, place) => (place ? 11 : 16)), width: ringed.map((_, place) => (place ? 1.2 : 2.5)),
      };
      if (cell < 0) {
        panel.replaceChildren(make("p", "quiet", panel.dataset.empty));
        return;
      }
      const card = (other, remark) => {
        const button = make("button", "neighbour");
        button.type = "button";
        button.append(picture(other), make("strong", "", label(other)), make("small", "", remark));
        button.addEventListener("click", () => { choose(other); holder.focus({ preventScroll: true }); });
        return button;
      };
      const facts = make("dl");
      const fact = (term, value) => { if (value) facts.append(make("dt", "", term), make("dd", "", value)); };
      map.fields.slice(3).forEach((field) => fact(field.title, field.values[cell]));
      fact("part", map.fields[1].values[cell]);
      fact("file", key(cell));
      const parts = [make("h4", "", label(cell)), picture(cell), verdict(cell), facts];
      if (map.decidedKey[cell]) {
        const nearness = map.similarity[cell] === null ? "" : ` (similarity ${map.similarity[cell]})`;
        parts.push(make("h5", "", "The cell that decided its label"));
        parts.push(decided < 0
          ? make("p", "quiet", `${map.decidedKey[cell]}${nearness}, which is not among the cells shown here`)
          : card(decided, `${map.fields[1].values[decided]}${nearness}`));
      }
      parts.push(make("h5", "", "Its nearest neighbours among the cells shown"));
      const list = make("div", "neighbours");
      near.forEach((other) => list.append(card(other, map.fields[1].values[other])));
      parts.push(list);
      panel.replaceChildren(...parts);
    }
    function change() {
      state.map = data.maps[Number(modelSelect.value)];
      const titles = state.map.fields.map((field) => field.title);
      const kept = titles.indexOf(colourSelect.selectedOptions[0]?.textContent ?? "");
      colourSelect.replaceChildren(...titles.map((title, place) => {
        const option = make("option", "", title);
        option.value = String(place);
        return option;
      }));
      state.field = Math.max(0, kept);
      colourSelect.value = String(state.field);
      state.only = null;
      const [left, right] = [Math.min(...state.map.x), Math.max(...state.map.x)];
      const [bottom, top] = [Math.min(...state.map.y), Math.max(...state.map.y)];
      extent = { x: (left + right) / 2, y: (bottom + top) / 2, width: right - left, height: top - bottom };
      choose(-1);
      paint();
      paintLegend();
      fit();
    }

    modelSelect.addEventListener("change", change);
    colourSelect.addEventListener("change", () => {
      state.field = Number(colourSelect.value);
      state.only = null;
      paint();
      paintLegend();
    });
    all("button[data-zoom]").forEach((button) => button.addEventListener("click", () => {
      const factor = Number(button.dataset.zoom);
      if (factor) zoom(factor); else fit();
    }));
    cells.inspect.connect(() => {
      const [cell] = cells.inspected.indices;
      if (cell === undefined) return hideHint();
      const { x, y } = screen(cell);
      showHint(x, y, picture(cell), make("div", "first", label(cell)), verdict(cell));
    });
    cells.selected.properties.indices.change.connect(() => choose(cells.selected.indices[0] ?? -1));
    const TURN = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    holder.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return choose(-1);
      const turn = TURN[event.key];
      if (!turn) return;
      event.preventDefault();
      const { x, y } = state.map;
      if (state.chosen < 0) return choose(0);
      let best = -1, least = Infinity;
      for (let cell = 0; cell < x.length; cell += 1) {
        const dx = x[cell] - x[state.chosen], dy = y[cell] - y[state.chosen];
        const along = dx * turn[0] + dy * turn[1], aside = Math.abs(dx * turn[1]) + Math.abs(dy * turn[0]);
        if (along > 0 && aside <= along && along + aside < least) { best = cell; least = along + aside; }
      }
      if (best >= 0) choose(best);
    });
    new ResizeObserver(fit).observe(holder);
    holder.cells = { count: () => state.map.x.length, screen, chosen: () => state.chosen, neighbours: (cell) => state.map.neighbours[cell] };
    change();
    holder.dataset.ready = "true";
  });
})();
