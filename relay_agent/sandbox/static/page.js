// Refreshes what is marked data-live, without losing the place of the reader or of the keyboard; copies what data-copy names.
"use strict";
const PAUSE = 2000;

async function refresh() {
  const shown = document.querySelectorAll("[data-live]");
  if (!shown.length) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.ok) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of shown) replace(old, fresh.getElementById(old.id));
    }
  } catch { /* the sandbox is gone, or busy: look again later */ }
  setTimeout(refresh, PAUSE);
}

function replace(old, fresh) {
  if (!fresh || old.innerHTML === fresh.innerHTML) return;
  const open = [...old.querySelectorAll("details")].map((part) => part.open);
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  if (old.contains(document.activeElement) && !focused) return;
  if (!getSelection().isCollapsed && old.contains(getSelection().anchorNode)) return;
  old.replaceWith(fresh);
  fresh.querySelectorAll("details").forEach((part, place) => { part.open = Boolean(open[place]); });
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

setTimeout(refresh, PAUSE);

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}
