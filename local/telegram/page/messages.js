"use strict";

// ---------------------------------------------------------------- the messages

const bubbles = new Map(); // from a message_id to its article
const messages = new Map(); // from a message_id to the message

function make(name, className = "", text = "", more = {}) {
  const it = Object.assign(document.createElement(name), { className, textContent: text }, more);
  return it;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** While the chat grows, its end stays visible, unless the user has scrolled up. */
let atEnd = true, lastTop = 0;
$("scroll").onscroll = ({ target }) => {
  if (target.scrollHeight - target.scrollTop - target.clientHeight < 60) atEnd = true;
  else if (target.scrollTop < lastTop) atEnd = false;
  lastTop = target.scrollTop;
  noteMoves({ byUser: true });
};
function follow() {
  if (atEnd && $("empty").hidden) $("scroll").scrollTop = $("scroll").scrollHeight;
  noteMoves();
}
const watcher = new ResizeObserver(follow);
watcher.observe($("log"));
watcher.observe($("scroll"));
new MutationObserver(follow).observe($("log"), { childList: true, subtree: true });

/**
 * What has just appeared under the pointer, or was moved there by the page, does not act for a second: the second click
 * of a double click, or one that was meant for what was there before, must not cancel a painting. Keys work at once.
 */
function unsettle(box) {
  box.classList.add("unsettled");
  clearTimeout(timers.get(box));
  timers.set(box, setTimeout(() => box.classList.remove("unsettled"), 1000));
}
const timers = new WeakMap();

/** Finds out which buttons of the chat are elsewhere on the screen than before. */
function noteMoves({ byUser = false } = {}) {
  for (const box of $("log").querySelectorAll(".keys, .picture, .file, .command, .failed")) {
    const { top, bottom } = box.getBoundingClientRect(), before = tops.get(box) ?? Infinity;
    tops.set(box, top);
    const isVisible = bottom > 0 && top < innerHeight, hasMoved = Math.abs(top - before) > 8;
    if (isVisible && hasMoved && !byUser) unsettle(box);
  }
}
const tops = new WeakMap();

/** Shows a message, in its place. `sent` is the bubble that it had while it was being sent. */
function show(message, sent = null) {
  const old = bubbles.get(message.message_id), article = old ?? sent ?? newArticle(message.from);
  const date = new Date(1000 * message.date), text = message.text ?? message.caption ?? "";
  speakChange(article, text, old);
  messages.set(message.message_id, message);
  showPicture(article, pictureOf(message), describe(message, text), () => view(messages.get(message.message_id)));
  showFilm(article, message.animation, describe(message, text));
  showFile(article, message.document);
  showWords(article.querySelector(".words"), text, message.from === "bot");
  showTime(article.querySelector("time"), date);
  article.classList.remove("sending");
  showKeys(article, message);
  bubbles.set(message.message_id, article);
  if (!old) place(article, message.message_id, date);
}

/** What is in a bubble already stays there when its message changes, and with it the focus. */
function newArticle(from) {
  const article = make("article", from), bubble = article.appendChild(make("div", "bubble"));
  bubble.append(make("span", "apart", say(from)), make("div", "words"), make("time"));
  return article;
}

/** Returns what a picture shows, as far as its message tells. */
function describe({ from, reply_markup }, text) {
  if (from === "user") return say("your_picture");
  if (BAR.test(text)) return say("preview");
  if (reply_markup?.inline_keyboard.flat().some(key => key.picture)) return say("overview");
  return text.match(/^.+?(?=[.!?](\s|$))/u)?.[0] ?? say("picture");
}

/** Tells a screen reader each quarter of a progress, and how it ended. New messages are told by the log itself. */
function speakChange(article, text, old) {
  const bar = text.match(BAR), hadBar = "quarter" in article.dataset;
  if (!bar && !(old && hadBar)) return;
  const quarter = bar ? String(Math.floor(bar[1] / 25)) : "end";
  article.ariaLive = "off"; // the log would tell each change
  if (article.dataset.quarter !== quarter) $("spoken").firstChild.data = text.replace(/[▓░]+ /u, "").replaceAll("\n", " ");
  article.dataset.quarter = quarter;
}

function showTime(time, date) {
  return Object.assign(time, { textContent: date.toLocaleTimeString(lang, { timeStyle: "short" }), dateTime: date.toISOString() });
}

/** Reserves the space of a picture before it is loaded. */
function frame(article, ratio) {
  article.classList.add("framed");
  article.style.setProperty("--ratio", ratio);
}

/** Inserts a message in the order of time, below the name of its day. What is still being sent stays at the end. */
function place(article, id, date) {
  const day = date.toLocaleDateString(lang, { day: "numeric", month: "long" }), second = Math.floor(date / 1000);
  const isLater = ({ dataset }) => !dataset.id || (Number(dataset.second) - second || Number(dataset.id) - id) > 0;
  let later = null;
  for (let other = $("log").lastElementChild; other; other = other.previousElementSibling) {
    if (other.tagName !== "ARTICLE" || other === article) continue;
    if (!isLater(other)) break;
    later = other;
  }
  Object.assign(article.dataset, { id, second });
  $("log").insertBefore(article, later);
  if (![...$("log").querySelectorAll(".day")].some(it => it.textContent === day)) article.before(make("div", "day", day));
}

const BAR = /^[▓░]+ (\d+)\s?%(?:, )?(.*)$/mu; // the progress bar that the bot draws in text

/** Shows paragraphs and progress bars. What does not change stays. */
function showWords(box, text, hasCommands) {
  const parts = [];
  for (const line of text.split("\n")) {
    if (BAR.test(line)) parts.push({ bar: line });
    else if (parts.at(-1)?.text) parts.at(-1).text += `\n${line}`;
    else if (line) parts.push({ text: line });
  }
  parts.forEach(({ bar, text }, n) => {
    const name = bar ? "DIV" : "P";
    if (box.children[n]?.tagName !== name) box.insertBefore(make(name, bar ? "progress" : ""), box.children[n] ?? null);
    if (bar) showBar(box.children[n], bar);
    else showText(box.children[n], text, hasCommands);
  });
  while (box.children.length > parts.length) box.lastChild.remove();
}

function showBar(box, line) {
  const [, percent, rest] = line.match(BAR);
  if (!box.firstChild) box.append(make("progress", "", "", { max: 100 }), "");
  Object.assign(box.firstChild, { value: Number(percent), ariaLabel: line.replace(/[▓░]+ /u, "") });
  box.lastChild.data = `${percent} %${rest && ` · ${rest}`}`;
}

/** Shows text. The commands in what the bot says can be clicked. */
function showText(box, text, hasCommands) {
  if (box.textContent === text) return;
  const parts = hasCommands ? text.split(/(?<![\w/])(\/[a-z][a-z0-9_]*)(?![\w/])/u) : [text];
  box.replaceChildren(...parts.map((part, n) => {
    if (n % 2 === 0) return part;
    const button = make("button", "command", part, { type: "button" });
    button.onclick = () => { unsettle(button); send("text", part); };
    return button;
  }));
}

const isVideo = file => file?.mime_type.startsWith("video/");

/** Returns what a message shows as a picture: its photo, or a film that is a GIF. */
const pictureOf = ({ photo, animation }) => photo ?? (isVideo(animation) ? null : animation);

/** Shows a film that is a video, or none. */
function showFilm(article, film, description) {
  const old = article.querySelector("video");
  if (old && isVideo(film) && old.dataset.file === film.file_id) return;
  old?.remove();
  if (!isVideo(film)) return;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const video = make("video", "", "", { controls: true, loop: true, muted: true, playsInline: true });
  video.autoplay = !isCalm;
  video.ariaLabel = description;
  video.dataset.file = film.file_id;
  article.querySelector(".words").before(video);
  frame(article, film.width / film.height || 1.5);
  whenNear(video, async () => { video.src = await fileUrl(film, film.mime_type); });
}

/** Shows a picture, or none. The one that was there before stays until the new one is loaded. */
function showPicture(article, photo, description, enlarge) {
  let button = article.querySelector(".picture");
  if (!photo) return button?.remove();
  if (!button) {
    button = make("button", "picture", "", { type: "button" });
    button.append(make("img"));
    article.querySelector(".words").before(button);
  }
  const image = button.firstChild;
  Object.assign(image, { width: photo.width, height: photo.height, alt: description });
  button.ariaLabel = `${say("enlarge")}: ${description}`;
  button.onclick = () => enlarge().catch(() => alert(say("gone")));
  frame(article, photo.width / photo.height || 1.5);
  if (button.dataset.file === photo.file_id) return;
  button.dataset.file = photo.file_id;
  whenNear(image, async () => {
    const url = await fileUrl(photo), next = Object.assign(new Image(), { src: url });
    await next.decode();
    if (button.dataset.file === photo.file_id) image.src = url;
  });
}

function showFile(article, document_) {
  const before = article.querySelector(".file");
  if (before && before.dataset.file === document_?.file_id) return;
  before?.remove();
  if (!document_) return;
  const button = make("button", "file", "", { type: "button", title: say("save") }), about = make("span");
  button.dataset.file = document_.file_id;
  about.append(make("b", "", document_.file_name), make("span", "", sizeOf(document_.size)));
  button.append(icon("paper"), about);
  button.onclick = () => fileUrl(document_).then(url => make("a", "", "", { href: url, download: document_.file_name }).click())
    .catch(() => alert(say("gone")));
  article.querySelector(".words").before(button);
}

function sizeOf(bytes) {
  const [value, unit] = bytes < 1e6 ? [bytes / 1e3, "kilobyte"] : [bytes / 1e6, "megabyte"];
  return value.toLocaleString(lang, { style: "unit", unit, maximumFractionDigits: value < 10 ? 1 : 0 });
}

function showKeys(article, message) {
  const rows = message.reply_markup?.inline_keyboard ?? [], as = JSON.stringify(rows);
  if ((article.dataset.keys ?? "[]") === as) return; // unchanged buttons stay, and with them the focus
  article.dataset.keys = as;
  const before = article.querySelector(".keys"), focused = before?.contains(document.activeElement) && document.activeElement;
  const keys = make("div", "keys", "", { role: "toolbar", ariaLabel: say("buttons"), onkeydown: moveInKeys });
  keys.addEventListener("focusin", markKey);
  const hasPictures = rows.flat().some(key => key.picture);
  keys.classList.toggle("pictured", hasPictures); // in columns of the page's own, whatever the rows
  article.classList.toggle("gallery", hasPictures);
  for (const row of rows) {
    keys.append(make("div"));
    for (const { text, callback_data, picture } of row) {
      const button = keys.lastChild.appendChild(make("button", "", "", { type: "button", tabIndex: -1 }));
      button.append(make("span", "", text));
      if (picture) button.append(keyPicture(callback_data, picture));
      button.dataset.data = callback_data;
      button.onclick = () => press(button, message.message_id, callback_data);
    }
  }
  before?.remove();
  if (rows.length) {
    keys.querySelector("button").tabIndex = 0;
    article.append(keys);
  }
  if (focused) ([...keys.querySelectorAll("button")].find(it => it.textContent === focused.textContent) ?? focusable(article)).focus();
}

/** Returns a message's button whose callback data is, or begins with, these words between colons. */
function findKey(message_id, data) {
  const buttons = [...bubbles.get(message_id)?.querySelectorAll(".keys button") ?? []];
  return buttons.find(it => `${it.dataset.data}:`.startsWith(`${data}:`));
}

/** Tab leads to one button of a keyboard, and the arrows from there to the others. */
function moveInKeys(event) {
  const all = [...this.querySelectorAll("button")], here = event.target.closest("button"), at = here.getBoundingClientRect();
  const x = it => Math.abs(it.getBoundingClientRect().x + it.offsetWidth / 2 - at.x - at.width / 2);
  const row = below => {
    const beyond = all.filter(it => (it.getBoundingClientRect().y - at.y) * below > 4);
    const y = beyond.at(below > 0 ? 0 : -1)?.getBoundingClientRect().y;
    return beyond.filter(it => Math.abs(it.getBoundingClientRect().y - y) < 4).sort((one, other) => x(one) - x(other))[0];
  };
  const steps = {
    ArrowLeft: () => all[all.indexOf(here) - 1], ArrowRight: () => all[all.indexOf(here) + 1],
    ArrowUp: () => row(-1), ArrowDown: () => row(1), Home: () => all[0], End: () => all.at(-1),
  };
  if (!steps[event.key]) return;
  event.preventDefault();
  steps[event.key]()?.focus();
}

function markKey(event) {
  for (const button of this.querySelectorAll("button")) button.tabIndex = button === event.target ? 0 : -1;
}

/** Returns the article, which can then have the focus. */
function focusable(article) {
  article.tabIndex = -1;
  return article;
}

/** Removes a message. If the focus was in it, a message beside it has the focus then. */
function remove(article) {
  const hadFocus = article.contains(document.activeElement), all = [...$("log").querySelectorAll("article")];
  const beside = all[all.indexOf(article) + 1] ?? all[all.indexOf(article) - 1];
  article.remove();
  if (hadFocus) (beside ? focusable(beside) : $("text")).focus();
}

/** Returns the picture of a button, which goes away if it cannot be shown. */
function keyPicture(data, version) {
  const image = make("img", "", "", { alt: "", width: 240, height: 160, onerror: () => image.remove() });
  const path = `button-picture?data=${encodeURIComponent(data)}&version=${version}`;
  whenNear(image, async () => { image.src = await getUrl(path, path).catch(() => "data:,"); });
  return image;
}

/** Loads a picture once it comes near to what is visible: a chat of many days has many. */
function whenNear(image, load) {
  loads.set(image, load);
  nearby.observe(image);
}
const loads = new WeakMap();
const nearby = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    nearby.unobserve(target);
    loads.get(target)().catch(() => {});
  }
}, { root: $("scroll"), rootMargin: "600px" });

/** Until the bot has reacted, another press of the same button does nothing. */
async function press(button, message_id, data) {
  if (button.ariaDisabled === "true") return;
  button.ariaDisabled = "true"; // unlike a disabled button it keeps the focus
  atEnd = true; // the answer comes at the end of the chat
  const reaction = new Promise(done => addEventListener("reaction", done, { once: true }));
  const body = JSON.stringify({ message_id, data, language_code: navigator.language });
  await call("press", { method: "POST", headers: { "Content-Type": "application/json" }, body }).catch(error => {
    if (!error.status) setStatus("offline", "bad");
    dispatchEvent(new Event("reaction"));
  });
  await Promise.all([sleep(1), Promise.race([reaction, sleep(10)])]);
  button.ariaDisabled = null;
}
