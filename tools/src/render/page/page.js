// Comfort only: everything is on the page without it.
"use strict";
(() => {
  const text = document.getElementById("document").textContent;
  const data = JSON.parse(text);
  const at = (pointer) => pointer.split("/").slice(1)
    .reduce((value, key) => value?.[key.replaceAll("~1", "/").replaceAll("~0", "~")], data);
  const three = (v) => (v >= 99.95 ? v.toFixed(0) : v >= 9.995 ? v.toFixed(1) : v.toFixed(2));
  const scaled = (v, base, units, from) => {
    let unit = 0;
    while (v >= from && unit + 1 < units.length) { v /= base; unit += 1; }
    return `${unit === 0 ? v.toFixed(0) : three(v)} ${units[unit]}`;
  };
  const write = {
    ns: (v) => scaled(v, 1000, ["ns", "us", "ms", "s"], 999.5),
    bytes: (v) => scaled(v, 1024, ["B", "KiB", "MiB", "GiB", "TiB"], 1023.5),
    per_s: (v) => `${v < 10 ? v.toFixed(2) : Math.round(v).toLocaleString("en")}/s`,
    share: (v) => `${(v * 100).toFixed(2)} %`,
    s: (v) => `${three(v)} s`,
    number: (v) => (Number.isInteger(v) ? v.toLocaleString("en") : v.toPrecision(4)),
  };

  const download = document.getElementById("download");
  download.hidden = false;
  download.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(data, null, 2)], { type: "application/json" }));
    link.download = "tailbeam-report.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  for (const command of document.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", () => {
      navigator.clipboard?.writeText(command.querySelector("code").textContent)
        .then(() => { button.textContent = "Copied"; }, () => { button.textContent = "Not allowed here"; });
    });
    command.append(button);
  }

  // One cursor over all pictures that share the time.
  const plots = [...document.querySelectorAll(".plot")].map((plot) => {
    const said = document.createElement("output");
    plot.append(said);
    const lines = [...plot.querySelectorAll("[data-line]")];
    return { plot, said, svg: plot.querySelector("svg"), lines, set: plot.dataset };
  });
  const show = (second) => {
    for (const { plot, said, lines, set } of plots) {
      const [from, to] = [at(set.from) ?? [], at(set.to) ?? []];
      const index = to.findIndex((end, place) => second < end && second >= from[place]);
      plot.classList.toggle("on", index >= 0);
      if (index < 0) { said.textContent = ""; continue; }
      const x = Number(set.left) + (second / Number(set.end)) * (Number(set.right) - Number(set.left));
      const cursor = plot.querySelector(".cursor");
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      const words = lines.map((line) => {
        const value = at(line.dataset.line)?.[index];
        return `${line.dataset.name} ${value == null ? "unknown" : write[set.unit](value)}`;
      });
      said.textContent = `${from[index]} s to ${to[index]} s: ${words.join(", ")}`;
    }
  };
  for (const { plot, svg, set } of plots) {
    const second = (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * Number(set.width);
      return ((x - Number(set.left)) / (Number(set.right) - Number(set.left))) * Number(set.end);
    };
    plot.addEventListener("pointermove", (event) => show(second(event)));
    plot.addEventListener("pointerleave", () => show(-1));
  }

  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
  });
  document.documentElement.dataset.ready = "yes";
})();
