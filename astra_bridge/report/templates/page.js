// SPDX-License-Identifier: MIT
// Unpacks Plotly, which stands in the page, and draws; without it all numbers are in the tables.
(async () => {
  const packed = Uint8Array.from(
    atob(document.getElementById("plotly").textContent), (one) => one.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const library = document.createElement("script");
  library.textContent = await new Response(stream).text();
  document.head.append(library);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink"), line = style.getPropertyValue("--line");
    for (const place of document.querySelectorAll(".plot")) {
      const figure = JSON.parse(place.nextElementSibling.textContent);
      const layout = figure.layout;
      const narrow = place.clientWidth < 600;
      for (const axis of ["xaxis", "yaxis"]) {
        layout[axis] = { gridcolor: line, zerolinecolor: line, automargin: true, ...layout[axis] };
      }
      Plotly.react(place, figure.data, {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink },
        margin: { l: 48, r: 12, t: 8, b: 40 }, dragmode: narrow ? false : "zoom",
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: narrow ? 10 : 12 } },
        ...layout,
      }, { responsive: true, displaylogo: false, displayModeBar: narrow ? false : "hover",
        modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]] });
    }
    document.documentElement.dataset.drawn = "yes";
  };
  draw();
  dark.addEventListener("change", draw);
})();
