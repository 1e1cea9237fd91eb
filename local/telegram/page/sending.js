"use strict";

// ---------------------------------------------------------------- sending

let queue = Promise.resolve(); // messages are sent one after the other, so they arrive in this order
let delivery = null; // of the message that is being sent: settled when it has its answer

/** Sends a text, or a file as a "photo" or a "document". Returns a promise of the message; null if it failed. */
function send(kind, content, album = "", caption = "") {
  const article = newArticle("user");
  article.classList.add("sending");
  const local = kind === "photo" && content.type.match(/^image\/(jpeg|png|webp|gif|avif|bmp)$/) && URL.createObjectURL(content);
  if (local) {
    urls.set(local, Promise.resolve(local));
    showPicture(article, { file_id: local, width: 4, height: 3 }, say("your_picture"), async () => {});
  } else if (kind === "text") showWords(article.querySelector(".words"), content, false);
  else showFile(article, { file_name: content.name, size: content.size });
  if (caption) showWords(article.querySelector(".words"), caption, false);
  showEmpty(false);
  return enqueue(article, () => deliver(article, { [kind]: content, album, caption }, local));
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
    tellFailure(article, error, startedAt, () => deliver(article, content, local));
    return null;
  }
}

function tellFailure(article, error, date, again) {
  const known = kindOf => WORDS[kindOf] ? say(kindOf) : error.message;
  const box = make("div", "failed", known(error.status === 401 ? "wrong_key" : error.status ?? 0) + " ", { role: "alert" });
  const retry = make("button", "", say("again"), { type: "button" }), removal = make("button", "", say("remove"), { type: "button" });
  retry.onclick = () => { box.remove(); enqueue(article, again); };
  removal.onclick = () => remove(article);
  box.append(retry, removal);
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
