// Explanations of terms at the pointer or at the keyboard's focus, and keyboard access to what scrolls.
// Without this script a term is a link to the glossary, with its meaning as the link's title.

const tip = document.createElement("div");
tip.id = "term-tip";
tip.setAttribute("role", "tooltip");
tip.hidden = true;
document.body.append(tip);

function show(link) {
  tip.textContent = link.dataset.meaning;
  tip.hidden = false;
  link.setAttribute("aria-describedby", tip.id);
  const at = link.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = Math.max(8, Math.min(at.left, width - tip.offsetWidth - 8));
  const below = at.bottom + tip.offsetHeight + 8 < window.innerHeight;
  tip.style.left = `${left + window.scrollX}px`;
  tip.style.top = `${(below ? at.bottom + 2 : at.top - tip.offsetHeight - 2) + window.scrollY}px`;
}

function hide() {
  tip.hidden = true;
  document.querySelectorAll("a.term[aria-describedby]").forEach((one) => one.removeAttribute("aria-describedby"));
}

let leaving = 0;
for (const link of document.querySelectorAll("a.term")) {
  link.dataset.meaning = link.title;
  link.removeAttribute("title");
  for (const event of ["mouseenter", "focus"]) {
    link.addEventListener(event, () => (clearTimeout(leaving), show(link)));
  }
  link.addEventListener("mouseleave", () => (leaving = setTimeout(hide, 200)));
  link.addEventListener("blur", hide);
}
tip.addEventListener("mouseenter", () => clearTimeout(leaving));
tip.addEventListener("mouseleave", hide);
document.addEventListener("keydown", (event) => event.key === "Escape" && hide());

// A box that scrolls must be reachable without a mouse.
function reachable() {
  const boxes = "pre, table.dataframe, div.math, mjx-container, .output, .pst-scrollable-table-container, figure";
  for (const box of document.querySelectorAll(boxes)) {
    const scrolls = box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible";
    if (scrolls) box.tabIndex = 0;
  }
}
window.addEventListener("load", reachable);
window.addEventListener("resize", reachable);

// Sphinx calls a list what has other things than entries in it, which screen readers stumble over.
document.querySelectorAll(".citation-list[role=list]").forEach((one) => one.removeAttribute("role"));
