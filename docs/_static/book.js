// From a folder (file://) a browser lets no script read other pages: the search then lists titles without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// A table that scrolls in its box can be scrolled by keys, too.
addEventListener("load", () => document.querySelectorAll(".pst-scrollable-table-container").forEach((box) => {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}));
