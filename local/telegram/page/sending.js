"use strict";

// ---------------------------------------------------------------- sending

let queue = Promise.resolve(); // messages are sent one after the other, so they arrive in this order
let delivery = null; // of the message that is being sent: settled when it has its answer

/** Sends a text, or a file as a "photo" or a "document". Returns a promise of the message; null if it failed. */
function send(kind, content, album = "", caption = "") {
  const article = newArticle("user");
  article.classList.add("sending");
  const local = kind === "photo" && content.type.match(/^image\/(jpeg|png|webp|gif|avif|bmp)$/) && URL.createObjectURL(content);
  if (kind === "text") showWords(article.querySelector(".words"), content, false);
  else if (local) showOwnPicture(article, content, local);
  else showOwnFile(article, content);
  if (caption) showWords(article.querySelector(".words"), caption, false);
  showEmpty(false);
  return enqueue(article, () => deliver(article, { [kind]: content, album, caption }, local));
}

/** Shows a picture while it is being sent, or its file where the browser cannot read it. */
async function showOwnPicture(article, file, url) {
  const image = Object.assign(new Image(), { src: url });
  urls.set(url, Promise.resolve(url));
  const isReadable = await image.decode().then(() => true, () => false);
  if (!article.classList.contains("sending")) return; // it shows what the server has made of it
  if (!isReadable) return showOwnFile(article, file);
  const picture = { file_id: url, width: image.naturalWidth, height: image.naturalHeight };
  showPicture(article, picture, say("your_picture"), async () => {});
}

function showOwnFile(article, { name, size }) {
  showFile(article, { file_name: name, size });
}

function enqueue(article, work) {
  article.querySelector("time").textContent = "…";
  delete article.dataset.id;
  $("log").append(article);
  atEnd = true;
  const sent = queue.then(async () => {
    delivery = work();
    const message = await delivery;
    delivery = null;
    return message;
  });
  queue = sent;
  return sent;
}

async function deliver(article, content, local) {
  const body = new FormData(), startedAt = new Date();
  for (const [name, value] of Object.entries(content)) body.append(name, value);
  body.append("language_code", navigator.language);
  try {
    const message = await (await call("message", { method: "POST", body })).json();
    if (local && message.photo) urls.set(message.photo.file_id, Promise.resolve(local));
    show(message, article);
    return message;
  } catch (error) {
    const again = isRefused(error) ? null : () => deliver(article, content, local);
    tellFailure(article, whyNotSent(error, (content.photo ?? content.document)?.name), startedAt, again);
    return null;
  }
}

/** Whether it would be refused again: it is no picture, or too large. */
const isRefused = ({ status }) => status === 400 || status === 413;

function whyNotSent(error, name) {
  const known = [error.reason, error.status ?? "no_connection"].find(it => WORDS[it]);
  return known ? say(known).replace("{name}", name) : error.message;
}

/** Says below a message why it was not sent. `again` sends it again, where that can help. */
function tellFailure(article, why, date, again) {
  const box = make("div", "failed", `${why} `, { role: "alert" });
  if (again) {
    const retry = box.appendChild(make("button", "", say("again"), { type: "button" }));
    retry.onclick = () => { box.remove(); enqueue(article, again); };
  }
  const removal = box.appendChild(make("button", "", say("remove"), { type: "button" }));
  removal.onclick = () => remove(article);
  article.append(box);
  showTime(article.querySelector("time"), date);
  place(article, Math.max(0, ...bubbles.keys()) + 0.5, date); // below all that was there at this second
}

function sendText() {
  const text = $("text").value.trim();
  if (!text) return;
  send("text", text);
  $("text").value = "";
  changed();
}
