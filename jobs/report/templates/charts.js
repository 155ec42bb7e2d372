// Draws the figures that the page carries as JSON, in the colours of the theme at hand.
(function () {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const font = getComputedStyle(document.body).fontFamily;

  // "var(--ink)" as the colour that it stands for now.
  function coloured(value, style) {
    if (typeof value === "string") {
      const name = /^var\((--[a-z]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((v) => coloured(v, style));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, style)]));
    return value;
  }

  function draw(printing) {
    // The print style sheet does not hold yet when the browser says "beforeprint".
    document.documentElement.classList.toggle("printing", Boolean(printing));
    const style = getComputedStyle(document.documentElement);
    for (const [id, figure] of Object.entries(figures)) {
      const place = document.getElementById(id);
      const { data, layout } = coloured(figure, style);
      for (const trace of data)
        if (trace.fill) trace.fillcolor = trace.line.color + "2e"; // 18% of the line's own colour
      layout.font.family = font;
      layout.autosize = !printing;
      if (printing) {
        // A4 less its margins is 180 mm, which is 680 CSS pixels; more would be cut off.
        layout.width = 676;
        layout.height = place.clientHeight;
      }
      Plotly.react(place, data, layout, { displayModeBar: false, responsive: !printing });
    }
  }

  draw();
  dark.addEventListener("change", () => draw());
  window.addEventListener("beforeprint", () => draw(true));
  window.addEventListener("afterprint", () => draw());
})();
