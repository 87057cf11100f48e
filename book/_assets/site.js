// One switch a page for its code, and boxes that scroll, reachable by keyboard.
(() => {
  const KEY = "raretok-code";
  const root = document.documentElement;
  root.classList.add("code-switch"); // before anything is drawn: the bars give way to the switch

  const remembered = () => {
    try { return localStorage.getItem(KEY) === "shown"; } catch { return false; }
  };
  const remember = (shown) => {
    try { localStorage.setItem(KEY, shown ? "shown" : "hidden"); } catch { /* not allowed here */ }
  };

  const codeSwitch = () => {
    const cells = document.querySelectorAll("details.hide.above-input");
    const title = document.querySelector("article h1");
    if (!cells.length || !title) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "code-button";
    button.textContent = "Show code";
    const show = (shown) => {
      button.setAttribute("aria-pressed", shown);
      root.classList.toggle("code-shown", shown);
      cells.forEach((cell) => { cell.open = shown; });
    };
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      show(shown);
      remember(shown);
    });
    show(remembered());
    title.after(button);
  };

  const BOXES = "pre, .output, figure, table.dataframe, div.math, mjx-container[display], .text_html, .pst-scrollable-table-container";
  const reachable = () => {
    document.querySelectorAll(BOXES).forEach((box) => {
      if (box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX === "auto") {
        box.tabIndex = 0;
      } else {
        box.removeAttribute("tabindex");
      }
    });
  };

  document.addEventListener("DOMContentLoaded", () => { codeSwitch(); reachable(); });
  addEventListener("load", reachable);
  addEventListener("resize", reachable);
})();
