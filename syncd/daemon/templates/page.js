"use strict";
// The page is whole without this file. It only keeps it fresh and copies commands; what changes comes from the server, already escaped.
const EVERY = 5000;
const $ = (id) => document.getElementById(id);
const key = (element) => element.id || element.getAttribute("href") || element.getAttribute("aria-label");
let busy = false;

function dress() {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
}

async function refresh() {
  const reading = !getSelection().isCollapsed;  // somebody marks text: don't pull it away
  if (busy || reading || document.hidden) return;
  busy = true;
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    $("stale").hidden = true;
  } catch (error) {
    if ($("stale").hidden) $("stale").textContent = `syncd can't be reached (${error.message}): what you see is from ${document.querySelector("footer time")?.textContent ?? "before"}.`;
    $("stale").hidden = false;
  }
  busy = false;
}

function show(fresh) {
  const focus = $("main").contains(document.activeElement) && key(document.activeElement);
  const said = $("summary")?.textContent;
  const live = $("summary");
  document.title = fresh.title;
  const main = fresh.querySelector("main");
  const summary = main.querySelector("#summary");
  if (live && summary) {  // the node a screen reader listens to stays; it speaks only when the words change
    if (summary.textContent !== said) live.replaceChildren(...summary.childNodes);
    summary.replaceWith(live);
  }
  $("main").replaceChildren(...main.childNodes);
  document.querySelector("footer").replaceChildren(...fresh.querySelector("footer").childNodes);
  dress();
  if (focus) [...$("main").querySelectorAll("a, button")].find((one) => key(one) === focus)?.focus({ preventScroll: true });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const command = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(command.textContent);
    button.textContent = "Copied";
  } catch {  // over plain http a browser gives no clipboard: mark it, so that one key copies it
    getSelection().selectAllChildren(command);
  }
});
document.addEventListener("visibilitychange", refresh);
dress();
if ($("summary")) setInterval(refresh, EVERY);
