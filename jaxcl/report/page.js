// What a page does beside being read: panels to be pointed at, one panel of many chosen, tables sorted and filtered.
// Without it (no scripts, print) all panels are drawn pictures and all tables are whole.
"use strict";
(() => {
  const element = document.getElementById("data");
  const data = element ? JSON.parse(element.textContent) : {};

  // --- panels ---
  const touch = window.matchMedia("(pointer: coarse)").matches;
  function draw(figure) {
    const shown = (data.panels || [])[Number(figure.dataset.panel)];
    const place = figure.querySelector(".live");
    if (!window.Plotly || !shown || !place || place.dataset.drawn) return;
    place.dataset.drawn = "1";
    figure.classList.add("is-live"); // first, or there is no width to fill
    const layout = Object.assign({}, shown.layout, { dragmode: touch ? false : "zoom" });
    const failed = () => figure.classList.remove("is-live");
    const only = figure.parentElement.dataset.only;
    const traces = shown.data.map((trace) => Object.assign({}, trace, { visible: is_shown(trace, only) }));
    try {
      window.Plotly.newPlot(place, traces, layout, { displayModeBar: false, responsive: true }).catch(failed);
    } catch (error) {
      failed();
    }
  }
  const figures = [...document.querySelectorAll("figure[data-panel]")];
  if ("IntersectionObserver" in window) {
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
    }, { rootMargin: "400px" });
    figures.forEach((figure) => watch.observe(figure));
  } else {
    figures.forEach(draw);
  }

  // --- one setting of many ---
  function is_shown(trace, only) {
    return only === undefined || only === "" || trace.legendgroup === only;
  }
  for (const legend of window.Plotly ? document.querySelectorAll("ul.legend") : []) {
    const group = legend.nextElementSibling;
    for (const item of legend.children) {
      item.tabIndex = 0;
      item.title = "Show this alone; once more: all";
      const choose = () => {
        const again = item.classList.contains("only");
        for (const other of legend.children) other.classList.toggle("only", other === item && !again);
        legend.classList.toggle("alone", !again);
        group.dataset.only = again ? "" : item.dataset.group;
        for (const place of group.querySelectorAll(".live[data-drawn]")) {
          window.Plotly.restyle(place, { visible: place.data.map((trace) => is_shown(trace, group.dataset.only)) });
        }
      };
      item.addEventListener("click", choose);
      item.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
      });
    }
  }

  // --- one panel of many ---
  for (const group of document.querySelectorAll(".panels[data-choose]")) {
    const panels = [...group.querySelectorAll("figure[data-panel]")];
    if (panels.length < 2) continue;
    const label = document.createElement("label");
    label.className = "choice";
    label.append(group.dataset.choose + " ");
    const select = document.createElement("select");
    panels.forEach((panel, i) => select.add(new Option(panel.dataset.name, String(i))));
    select.add(new Option("all", "all"));
    label.append(select);
    group.before(label);
    const choose = () => {
      const all = select.value === "all";
      group.classList.toggle("chosen", !all);
      panels.forEach((panel, i) => panel.classList.toggle("off", !all && String(i) !== select.value));
      window.dispatchEvent(new Event("resize"));
    };
    select.addEventListener("change", choose);
    choose();
  }

  // --- tables ---
  const number = (text) => {
    const found = text.trim().replace(/,/g, "").replace(/\u2212/g, "-").match(/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?/i);
    return found ? Number(found[0]) : NaN;
  };
  for (const table of document.querySelectorAll("table.sort")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.tabIndex = 0;
      head.title = "Sort";
      const sort = () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => {
          const text = row.cells[column].textContent;
          return { row, text, value: number(text) };
        });
        rows.sort((a, b) => {
          const [x, y] = [Number.isNaN(a.value), Number.isNaN(b.value)];
          if (x !== y) return x ? 1 : -1; // what is no number stands last, whichever way
          const order = x ? a.text.localeCompare(b.text) : a.value - b.value;
          return up ? order : -order;
        });
        body.append(...rows.map(({ row }) => row));
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
      });
    });
  }
  for (const table of document.querySelectorAll("table.filter")) {
    if (table.tBodies[0].rows.length < 6) continue;
    const label = document.createElement("label");
    label.className = "choice";
    label.append("Rows with ");
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "these words";
    label.append(input);
    table.closest(".scroll").before(label);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }
})();
