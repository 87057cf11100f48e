// Explanations of terms at the pointer or at the keyboard's focus.
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

// Sphinx calls a list what has other things than entries in it, which screen readers stumble over.
document.querySelectorAll(".citation-list[role=list]").forEach((one) => one.removeAttribute("role"));
