// The theme leaves two things without a name, which a screen reader would read as "navigation" and "dialog": the bar over
// every block of code, and the search. They are named as they appear.
new MutationObserver(() => {
  document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((each) => {
    each.setAttribute("aria-label", `Code block ${document.querySelectorAll(".md-code__nav[aria-label]").length + 1}`);
  });
  document.querySelector(".md-search[role=dialog]:not([aria-label])")?.setAttribute("aria-label", "Search");
}).observe(document.documentElement, { childList: true, subtree: true });
