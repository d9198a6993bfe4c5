// The script of the console. Every page works without it; it shows times in the reader's zone, counts new
// decisions, and moves by the keyboard: "/" goes to the search, "j" and "k" to the next and previous row.

const format = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
});
for (const time of document.querySelectorAll("time[datetime]")) {
  const moment = new Date(time.dateTime);
  if (!Number.isNaN(moment.getTime())) time.textContent = format.format(moment);
}

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
  let source = null;
  const show = () => {
    const link = document.createElement("a");
    link.href = live.dataset.page;
    link.textContent = count === 1 ? "1 new decision" : `${count} new decisions`;
    live.replaceChildren(link);
  };
  const add = (more) => {
    if (count === 0) setTimeout(show, 250);
    else if (!timer) timer = setTimeout(() => { timer = null; show(); }, 1000);
    count += more;
  };
  let timer = null;
  const watch = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      source = new EventSource(live.dataset.live);
      source.addEventListener("message", () => add(1));
      source.addEventListener("lagged", (event) => add(Number(event.data) || 0));
    }
  };
  document.addEventListener("visibilitychange", watch);
  watch();
}
