// Shows the rows of the table of flags that hold every word of the search box.
(function () {
  "use strict";
  const box = document.getElementById("find");
  const said = document.getElementById("found");
  const rows = [...document.querySelectorAll("#every tbody tr")].map((row) => [
    row,
    row.textContent.toLowerCase(),
  ]);

  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) shown += 1;
    }
    said.textContent = words.length ? `${shown.toLocaleString("en")} found` : "";
  });
  box.closest("label").hidden = false; // without scripts there is nothing to type into
})();
