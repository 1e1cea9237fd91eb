"use strict";

// ---------------------------------------------------------------- the viewer: one picture, large, and the other results

let viewed = null; // the message that is shown

/** Whether a message is the bot's finished picture: no preview, no question with samples, no album of old ones. */
function isResult({ from, photo, animation, text, caption, reply_markup, media_group_id }) {
  const keys = reply_markup?.inline_keyboard.flat() ?? [];
  const isUnfinished = BAR.test(text ?? caption ?? "") || keys.some(key => key.callback_data.startsWith("style:"));
  return from === "bot" && Boolean(photo ?? animation) && !isUnfinished && !media_group_id;
}

const results = () => [...messages.values()].filter(isResult).sort((one, other) => one.message_id - other.message_id);

/** Returns the message with the photo that a result was made of, or null. */
async function photoBehind(result) {
  const sent = [...messages.values()].filter(it => it.from === "user" && it.photo), tag = photoTag(result);
  for (const message of sent) {
    if (message.message_id === result.reply_to || await tagOf(message.photo) === tag) return message;
  }
  return null;
}

/** Returns the tag of a result's photo, which is in the data of the button "Before and after", or undefined. */
function photoTag({ reply_markup }) {
  const key = reply_markup?.inline_keyboard.flat().find(it => it.callback_data.startsWith("album:"));
  return key?.callback_data.split(":")[1];
}

/** Returns how the bot's buttons name a photo: by the first seven digits of its file_id's SHA-256. */
async function tagOf({ file_id }) {
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(file_id));
  return [...new Uint8Array(hash, 0, 4)].map(byte => byte.toString(16).padStart(2, "0")).join("").slice(0, 7);
}

async function view(message) {
  viewed = message;
  const file = pictureOf(message), description = describe(message, message.text ?? message.caption ?? "");
  const before = isResult(message) && message.photo ? await photoBehind(message) : null;
  const [url, beforeUrl] = await Promise.all([fileUrl(file), before && fileUrl(before.photo)]);
  if (viewed !== message) return; // meanwhile another one is wanted
  $("viewer-stage").style.setProperty("--ratio", file.width / file.height || 1.5);
  Object.assign($("viewer-image"), { src: url, alt: description });
  $("viewer-stage").classList.toggle("compared", Boolean(before));
  if (before) Object.assign($("viewer-before"), { src: beforeUrl, alt: say("before") });
  slideTo(50);
  Object.assign($("viewer-save"), { href: url, download: fileName(file, description) });
  $("viewer-caption").textContent = description;
  showPlace();
  if (!$("viewer").open) {
    $("viewer").showModal();
    unsettle($("viewer"));
    (before ? $("viewer-slider") : $("viewer-close")).focus();
  }
}

/** Returns a name that tells what the picture shows, with the suffix of the file. */
function fileName(file, description) {
  const words = description.match(/[\p{L}\p{N}]+/gu) ?? [];
  return `${words.join("-")}${file.file_name.match(/\.\w+$/)?.[0] ?? ""}`;
}

/** Shows which of the results it is. A picture of the user's own has none beside it. */
function showPlace() {
  const all = results(), n = all.findIndex(it => it.message_id === viewed.message_id);
  const isAmong = n >= 0 && all.length > 1;
  $("viewer-previous").hidden = $("viewer-next").hidden = $("viewer-place").hidden = !isAmong;
  $("viewer-previous").ariaDisabled = String(n === 0);
  $("viewer-next").ariaDisabled = String(n === all.length - 1);
  $("viewer-place").textContent = `${n + 1} / ${all.length}`;
}

function step(by) {
  const all = results(), n = all.findIndex(it => it.message_id === viewed.message_id);
  if (n >= 0 && all[n + by]) view(all[n + by]).catch(() => alert(say("gone")));
}

/** Shows so many percent of the photo from the left, and the painting beside it. */
function slideTo(percent) {
  $("viewer-slider").value = percent;
  $("viewer-stage").style.setProperty("--before", `${percent}%`);
}

$("viewer-slider").oninput = () => slideTo($("viewer-slider").value);
$("viewer-previous").onclick = () => step(-1);
$("viewer-next").onclick = () => step(1);
$("viewer").onkeydown = event => {
  if (event.target === $("viewer-slider")) return; // there the arrows move the slider
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) step(by);
};
$("viewer-close").onclick = $("viewer-image").onclick = () => $("viewer").close();
