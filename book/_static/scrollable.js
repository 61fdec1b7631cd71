// Tables and formulas wider than the page scroll sideways; this lets the keyboard reach them (WCAG 2.1.1).
const WIDE = ".pst-scrollable-table-container, .cell_output .output, div.math, .highlight pre";
window.addEventListener("load", () => {
  for (const box of document.querySelectorAll(WIDE)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
