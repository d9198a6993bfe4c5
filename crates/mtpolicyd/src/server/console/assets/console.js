// The script of the console. Every page works without it; it shows times in the reader's zone, counts new
// decisions, and moves by the keyboard: "/" goes to the search, "j" and "k" to the next and previous row.

const format = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
});
const showTimes = (part) => {
  for (const time of part.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (!Number.isNaN(moment.getTime())) time.textContent = format.format(moment);
  }
};
showTimes(document);

// Counts decisions as they are made, while somebody can see the page.
const follow = (address, add) => {
  let source = null;
  const watch = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      source = new EventSource(address);
      source.addEventListener("message", () => add(1));
      source.addEventListener("lagged", (event) => add(Number(event.data) || 0));
    }
  };
  document.addEventListener("visibilitychange", watch);
  watch();
};

const rows = [...document.querySelectorAll("table.rows tbody tr th a")];
document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (isTyping || event.ctrlKey || event.altKey || event.metaKey) return;
  const at = rows.indexOf(document.activeElement);
  if (event.key === "/") document.getElementById("find")?.focus();
  else if (event.key === "j") rows[Math.min(at + 1, rows.length - 1)]?.focus();
  else if (event.key === "k") rows[Math.max(at - 1, 0)]?.focus();
  else return;
  event.preventDefault();
});

const live = document.getElementById("live");
if (live) {
  let count = 0;
  let timer = null;
  const show = () => {
    timer = null;
    const link = document.createElement("a");
    link.href = live.dataset.page;
    link.textContent = count === 1 ? "1 new decision" : `${count} new decisions`;
    live.replaceChildren(link);
  };
  follow(live.dataset.live, (more) => {
    count += more;
    timer ??= setTimeout(show, 1000);
  });
}

// A page of numbers is read again when there are new decisions, at most every few seconds.
const fresh = document.getElementById("fresh");
if (fresh) {
  let timer = null;
  const read = async () => {
    timer = null;
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("fresh");
    if (!found || fresh.contains(document.activeElement)) return;
    for (const [at, open] of [...fresh.querySelectorAll("details")].map((it) => it.open).entries()) {
      const same = found.querySelectorAll("details")[at];
      if (same) same.open = open;
    }
    fresh.replaceChildren(...found.childNodes);
    showTimes(fresh);
  };
  follow(fresh.dataset.refresh, () => { timer ??= setTimeout(read, 3000); });
}
