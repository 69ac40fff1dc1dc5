// The status page's script: it updates the page in place, which keeps keyboard focus, scroll position and a screen reader's position.
// It is inline on the page, whose policy allows this text and no other. It requests only the page itself, and changes only what differs.
// Without scripts the browser reloads the whole page instead. status_page.py fills in everyMs.
const everyMs = REFRESH_MS;
(() => {
  const patienceMs = 8000;
  const away = document.getElementById("away"), style = document.querySelector("style").textContent;

  // Identifies an element, so that one that stays is not mistaken for one that is added or removed.
  const name = node => node.nodeType !== 1 ? "" :
    ["id", "aria-labelledby", "aria-label", "href", "class"].map(each => node.getAttribute(each)).find(Boolean) || "";
  const alike = (one, other) => one.nodeName === other.nodeName && name(one) === name(other);

  function morph(shown, fresh) {
    if (shown.nodeType !== 1) {
      if (shown.nodeValue !== fresh.nodeValue) shown.nodeValue = fresh.nodeValue;
      return;
    }
    // Whether details are open is the reader's choice, not the agent's.
    for (const { name } of [...shown.attributes]) if (!fresh.hasAttribute(name) && name !== "open") shown.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (shown.getAttribute(name) !== value) shown.setAttribute(name, value);
    let at = shown.firstChild;
    const drop = () => { const next = at.nextSibling; at.remove(); at = next; };
    for (const child of [...fresh.childNodes]) {
      let same = at;
      while (same && !alike(same, child)) same = name(child) ? same.nextSibling : null;
      if (!same) { shown.insertBefore(document.importNode(child, true), at); continue; }
      while (at !== same) drop();
      morph(same, child);
      at = same.nextSibling;
    }
    while (at) drop();
  }

  async function renew() {
    const answer = await fetch(location.href, { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(patienceMs) });
    if (!answer.ok) throw new Error();
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (fresh.querySelector("style")?.textContent !== style) return location.reload();  // another version of the agent
    for (const part of ["header", "main", "footer"]) morph(document.querySelector(part), fresh.querySelector(part));
    document.title = fresh.title;
    away.hidden = true;
    away.textContent = "";
  }

  function lost() {
    if (!away.hidden) return;
    const then = document.getElementById("updated").textContent;
    away.textContent = `No answer from the agent: it has stopped, or cannot be reached. This page shows its state at ${then}.`;
    away.hidden = false;
    document.title = "No answer: " + document.title;
  }

  const again = () => setTimeout(() => (document.hidden ? Promise.resolve() : renew().catch(lost)).then(again), everyMs);
  again();
})();
