// What the theme leaves out for those who listen or use the keyboard: names for the bar over every block of code and for the
// search ("navigation" and "dialog" otherwise), and a way into tables that are wider than their column.
function complete() {
  document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((each) => {
    each.setAttribute("aria-label", `Code block ${document.querySelectorAll(".md-code__nav[aria-label]").length + 1}`);
  });
  document.querySelector(".md-search[role=dialog]:not([aria-label])")?.setAttribute("aria-label", "Search");
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((each) => {
    const reached = each.scrollWidth > each.clientWidth ? { tabindex: "0", role: "group", "aria-label": "Table" } : {};
    for (const name of ["tabindex", "role", "aria-label"]) {
      if (name in reached) each.setAttribute(name, reached[name]);
      else each.removeAttribute(name);
    }
  });
}
new MutationObserver(complete).observe(document.documentElement, { childList: true, subtree: true });
addEventListener("load", complete);
addEventListener("resize", complete);
