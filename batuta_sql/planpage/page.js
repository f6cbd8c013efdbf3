// A label of the legend that is pressed leaves the operators that carry it, and fades the others.
const buttons = [...document.querySelectorAll("button[data-label]")];
for (const button of buttons) {
  button.addEventListener("click", () => {
    const follows = button.getAttribute("aria-pressed") !== "true";
    for (const other of buttons) other.setAttribute("aria-pressed", String(follows && other === button));
    document.body.classList.toggle("follows", follows);
    for (const operator of document.querySelectorAll(".operator")) {
      const held = operator.dataset.labels.split(" ");
      operator.classList.toggle("followed", follows && held.includes(button.dataset.label));
    }
  });
}

// A wide tree is made smaller, as far as it can still be read, and shown from its middle.
const plan = document.querySelector(".plan");
if (plan) {
  const tree = plan.firstElementChild;
  let seen = 0;
  new ResizeObserver(() => {
    if (plan.clientWidth === seen) return;
    seen = plan.clientWidth;
    tree.style.zoom = 1;
    const room = plan.clientWidth - 32;
    tree.style.zoom = tree.scrollWidth > room + 1 ? Math.max(0.6, room / tree.scrollWidth) : 1;
    plan.scrollLeft = (plan.scrollWidth - plan.clientWidth) / 2;
  }).observe(plan);
}
