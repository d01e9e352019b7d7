// Shows the numbers of the token that is pointed at or tapped; without scripts the tooltips say the same.
(() => {
  const panel = document.getElementById("chosen");
  let chosen = null;
  let held = false;
  const show = (token) => {
    chosen?.classList.remove("chosen");
    chosen = token;
    chosen?.classList.add("chosen");
    panel.textContent = token ? token.title.replace(/\n/g, "   ") : "";
  };
  document.addEventListener("click", (event) => {
    const token = event.target.closest(".text i");
    if (!token && event.target.closest("#chosen")) return;
    held = token !== null && !(held && token === chosen);
    show(held ? token : null);
  });
  document.addEventListener("mouseover", (event) => {
    const token = event.target.closest(".text i");
    if (token && !held) show(token);
  });
})();
