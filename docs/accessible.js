// What the theme leaves to whoever reads by keyboard or ear: a name for the search, boxes that scroll reached by Tab.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
document.querySelector(".md-search__options")?.setAttribute("aria-label", "Options of the search"); // a class may be called Search
const reach = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .notebook-output, .notebook-output div, .md-typeset table, .md-typeset pre, .md-typeset pre > code")) {
    if (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
  }
  document.querySelectorAll(".md-code__nav").forEach((nav, n) => nav.setAttribute("aria-label", `Code block ${n + 1}`));
};
addEventListener("load", reach);
addEventListener("resize", reach);
