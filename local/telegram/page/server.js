"use strict";

// ---------------------------------------------------------------- the server

const key = location.hash.slice(1);
const user = 100; // whoever has the key is the same person, in each tab and after each start
addEventListener("hashchange", () => location.reload());

class Refused extends Error {
  constructor(status, words, reason = "") { super(words); Object.assign(this, { status, reason }); }
}

async function call(path, options = {}) {
  const response = await fetch(`/chat/${user}/${path}`, { ...options, headers: { "X-Chat-Key": key, ...options.headers } });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Refused(response.status, told.description ?? response.statusText, told.reason);
}

const sleep = seconds => new Promise(done => setTimeout(done, 1000 * seconds));

/** Reads events for ever. A hidden tab reads them now and then only: a browser opens few connections to one server. */
async function listen() {
  let after = 0, pause = 0.5, seconds = 0;
  for (;;) {
    try {
      const events = await (await call(`events?after=${after}&timeout=${seconds}`)).json();
      const isNews = after > 0; // at first comes all that there is
      for (const event of events) {
        // The message that is being sent has a bubble already. The answer to its sender tells its id.
        if (delivery && event.message?.from === "user" && !bubbles.has(event.message.message_id)) await delivery;
        apply(event);
        if (isNews && event.message?.from === "bot") tellIfHidden(event.message);
        after = Math.max(after, event.n);
      }
      if ($("status").className === "bad") setStatus("online");
      showEmpty(!$("log").querySelector("article"));
      if (!isNews) speakNews();
      [pause, seconds] = [0.5, document.hidden ? 0 : 25];
      if (document.hidden) await Promise.race([sleep(3), new Promise(done => addEventListener("visibilitychange", done, { once: true }))]);
    } catch (error) {
      setStatus(error.status === 401 ? "wrong_key" : "offline", "bad");
      seconds = 0;
      await sleep(pause = Math.min(5, 2 * pause));
    }
  }
}

/** What there was when the page was opened is not read aloud; what comes later is. */
async function speakNews() {
  await sleep(1); // until the browser has told of what was inserted
  $("log").ariaLive = "polite";
}

let busy = 0;
function setStatus(words, kind = "") {
  clearTimeout(busy);
  const isNews = kind === "bad" || $("status").className === "bad"; // for a screen reader; progress is spoken elsewhere
  $("status").ariaLive = isNews ? "polite" : "off";
  if ($("status").textContent !== say(words)) $("status").textContent = say(words);
  $("status").className = kind;
}

function apply({ kind, message }) {
  if (kind === "action") {
    setStatus("typing", "busy");
    busy = setTimeout(setStatus, 5000, "online");
  } else if (kind === "delete") {
    dispatchEvent(new Event("reaction"));
    if (bubbles.has(message.message_id)) remove(bubbles.get(message.message_id));
    bubbles.delete(message.message_id);
    messages.delete(message.message_id);
  } else {
    if (message.from === "bot") dispatchEvent(new Event("reaction"));
    if (kind === "message" && message.from === "bot") setStatus("online");
    show(message);
  }
  dispatchEvent(new Event("chat-change"));
}

const urls = new Map(); // from a file_id or a path to a promise of the URL of its blob
function getUrl(id, path, type = "") {
  if (!urls.has(id)) {
    const url = call(path).then(answer => answer.blob()).then(blob => URL.createObjectURL(new Blob([blob], { type })));
    url.catch(() => urls.delete(id));
    urls.set(id, url);
  }
  return urls.get(id);
}
const fileUrl = (file, type) => getUrl(file.file_id, `file/${file.file_id}`, type);
