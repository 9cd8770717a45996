// Draws the plots in the page's own colours, and again when the system turns from light to dark.
(() => {
  "use strict";
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const views = new Map();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // "@ink" becomes the page's ink; data and orders hold what users wrote and stay as they are.
  const painted = (value, key) => {
    if (key === "values" || key === "sort") return value;
    if (typeof value === "string") return value.startsWith("@") ? colour(value.slice(1)) : value;
    if (Array.isArray(value)) return value.map((item) => painted(item));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, painted(item, name)]));
  };

  const config = () => ({
    background: "transparent",
    font: "system-ui, sans-serif",
    axis: {
      labelColor: colour("soft"), titleColor: colour("soft"), gridColor: colour("line"), domainColor: colour("line"),
      tickColor: colour("line"), labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal",
    },
    legend: { labelColor: colour("ink"), titleColor: colour("soft"), titleFontWeight: "normal" },
    view: { stroke: null },
  });

  const draw = async (place) => {
    const number = Number(place.dataset.plot);
    views.get(number)?.finalize();
    const options = { actions: false, renderer: "svg", defaultStyle: false, mode: "vega-lite", config: config() };
    options.tooltip = { disableDefaultStyle: true };
    views.set(number, await vegaEmbed(place, painted(plots[number]), options));
  };

  const drawAll = () => Promise.all([...document.querySelectorAll(".vega")].map(draw));
  dark.addEventListener("change", drawAll);
  drawAll().then(() => { document.documentElement.dataset.drawn = "yes"; });
})();
