"use strict";
// Keeps the page current. It is whole without this script.
(() => {
  const page = document.body.dataset.page;
  const pulse = document.getElementById("pulse");

  function live(on) {
    pulse.className = "pulse " + (on ? "on" : "off");
    pulse.textContent = on ? "live" : "connection lost, trying again";
    pulse.title = on ? "Changes are shown as they become durable" : "";
  }

  // Fetches the page anew and takes over its middle; several wishes within `ms` become one.
  let pending = null;
  function refresh(ms) {
    if (pending !== null) return;
    pending = setTimeout(async () => {
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        if (!answer.ok) return;
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        const main = document.getElementById("main");
        const open = new Set([...main.querySelectorAll("details[open] > summary > b")].map((b) => b.textContent));
        main.replaceWith(document.adoptNode(fresh.getElementById("main")));
        for (const b of document.querySelectorAll("details > summary > b")) {
          if (open.has(b.textContent)) b.closest("details").open = true;
        }
      } catch {
        // The stream's own state says that the daemon is away.
      } finally {
        pending = null;
      }
    }, ms);
  }

  function tally() {
    const stages = {}, marks = {};
    const cells = document.querySelectorAll(".cell");
    for (const { dataset } of cells) {
      stages[dataset.stage] = (stages[dataset.stage] || 0) + 1;
      marks[dataset.mark] = (marks[dataset.mark] || 0) + 1;
    }
    const show = (chip, n) => {
      chip.querySelector("b").textContent = n;
      chip.classList.toggle("none", n === 0);
    };
    for (const chip of document.querySelectorAll("[data-count-stage]")) show(chip, stages[chip.dataset.countStage] || 0);
    for (const chip of document.querySelectorAll("[data-count-mark]")) show(chip, marks[chip.dataset.countMark] || 0);
    document.getElementById("total").textContent = cells.length;
  }

  function follow(path, events) {
    let lost = false;
    const source = new EventSource(path);
    source.onopen = () => {
      live(true);
      // What happened meanwhile was not heard.
      if (lost) refresh(0);
      lost = false;
    };
    source.onerror = () => {
      lost = true;
      live(false);
      // A refused stream is not tried again by the browser.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(path, events), 5000);
    };
    for (const [name, heard] of Object.entries(events)) source.addEventListener(name, heard);
  }

  if (page === "fleet") {
    let counting = false;
    follow("/live", {
      cell: (e) => {
        const c = JSON.parse(e.data);
        const cell = document.querySelector(`.cell[data-name="${CSS.escape(c.name)}"]`);
        if (!cell) return refresh(500);
        cell.className = "cell s-" + c.stage + (c.mark ? " m-" + c.mark : "");
        cell.dataset.stage = c.stage;
        cell.dataset.mark = c.mark;
        cell.title = c.title;
        cell.querySelector("span").textContent = c.stage;
        if (!counting) {
          counting = true;
          setTimeout(() => { counting = false; tally(); }, 200);
        }
      },
      gap: () => refresh(0),
    });
    // Stops, outages and lateness are not a machine's events.
    const banners = (s) => JSON.stringify([s.stopped !== undefined, s.outages.map((o) => [o.per, o.domain, o.out]), s.stuck > 0, s.out_of_band]);
    let shown = null;
    setInterval(async () => {
      try {
        const status = await (await fetch("/v1/status")).json();
        // The page may be older than the first answer: then once more than needed.
        if (banners(status) !== shown) {
          shown = banners(status);
          refresh(0);
        }
      } catch {
        // As above.
      }
    }, 3000);
  }

  if (page === "machine") {
    const name = decodeURIComponent(location.pathname.split("/").pop());
    const glob = name.replace(/[*?]/g, "?");
    const heard = () => refresh(400);
    const events = { gap: heard };
    for (const kind of ["registered", "changed", "run-began", "run-ended", "entered", "step-began", "step-ended", "proven", "host-key-pinned", "deployed", "intent", "settled", "found", "progressed", "closed", "faulted", "lost", "back", "quarantined", "waits", "observed", "out-of-band", "restored", "presumed", "excused", "cut", "remedied", "noticed"]) events[kind] = heard;
    follow("/v1/events?machine=" + encodeURIComponent(glob), events);
    // Ages grow.
    setInterval(heard, 10000);
  }
})();
