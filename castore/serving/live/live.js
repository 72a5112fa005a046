"use strict";
// Puts new words in the places of old ones, once a second. All words are made by the server.
(() => {
  const root = document.documentElement;
  const source = location.origin + location.pathname + "/state";
  const places = new Map();
  for (const each of document.querySelectorAll("[data-s]")) {
    const slot = each.dataset.s;
    places.set(slot, [...(places.get(slot) || []), each]);
  }
  const said = document.getElementById("said");
  const at = document.getElementById("at");
  let states = {};
  for (const each of document.querySelectorAll("tr[data-i]")) states[each.dataset.i] = each.dataset.state;

  function show(found) {
    for (const [slot, text] of Object.entries(found.texts)) {
      for (const each of places.get(slot) || []) {
        if (each.textContent !== text) each.textContent = text;
      }
    }
    for (const [slot, number] of Object.entries(found.exact)) {
      for (const each of places.get(slot) || []) each.value = each.title = String(number);
    }
    for (const each of document.querySelectorAll("[data-i]")) each.dataset.state = found.states[each.dataset.i];
    for (const each of document.querySelectorAll("[data-curve]")) {
      each.setAttribute("d", found.curves[each.dataset.curve]);
    }
    for (const each of document.querySelectorAll("[data-full]")) {
      each.setAttribute("width", String(each.dataset.most * (found.fills[each.dataset.full] || 0)));
    }
    for (const each of document.querySelectorAll("[data-track]")) {
      each.classList.toggle("none", found.fills[each.dataset.track] === null);
    }
    // What a screen reader is told of: that an instance has changed, not each number.
    const changed = Object.keys(found.states).filter((number) => found.states[number] !== states[number]);
    if (changed.length) {
      said.textContent = changed.map((number) => {
        const row = document.querySelector(`tr[data-i="${number}"]`);
        return row ? `${row.dataset.name}: ${found.texts[`${number}.state`]}` : "";
      }).join(". ");
    }
    states = found.states;
    const head = document.getElementById("headline");
    if (head.textContent !== found.headline) head.textContent = found.headline;
    root.dataset.overall = found.overall;
  }

  async function turn() {
    const begun = performance.now();
    let wait = 1000;
    if (!document.hidden) {
      try {
        const answer = await fetch(source, { cache: "no-store", signal: AbortSignal.timeout(8000) });
        if (!answer.ok) throw new Error(String(answer.status));
        const found = await answer.json();
        if (found.key !== root.dataset.key) {
          location.reload();
          return;
        }
        show(found);
        root.dataset.live = "yes";
        at.textContent = found.at;
        if (found.soon) wait = 300 + performance.now() - begun;
      } catch {
        root.dataset.live = "lost";
      }
    }
    setTimeout(turn, Math.max(wait - (performance.now() - begun), 200));
  }
  turn();
})();
