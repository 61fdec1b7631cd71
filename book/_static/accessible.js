// Three things that the theme leaves undone for those who do not use a mouse or a screen.
const WIDE = ".pst-scrollable-table-container, .cell_output .output, div.math, .highlight pre";
window.addEventListener("load", () => {
  // What is wider than the page scrolls sideways; the keyboard must reach it (WCAG 2.1.1).
  for (const box of document.querySelectorAll(WIDE)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
  // The bibliography is announced as a list; its entries are the items (WCAG 1.3.1).
  for (const entry of document.querySelectorAll(".citation-list > .citation")) {
    entry.setAttribute("role", "listitem");
  }
  // The arrow that unfolds a part of the contents has no name (WCAG 4.1.2).
  for (const arrow of document.querySelectorAll("nav li.has-children > details > summary")) {
    arrow.setAttribute("aria-label", `Pages under ${arrow.closest("li").querySelector("a").textContent.trim()}`);
  }
});
