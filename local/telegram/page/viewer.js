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

/**
 * Returns the message with the photo that a result was made of, or null. A result may be a reply to it. If not, it is
 * the photo above the last question before the result, where the shape of the two is the same.
 */
function photoBehind(result) {
  const replied = messages.get(result.reply_to);
  if (replied?.photo && replied.from === "user") return replied;
  const inOrder = [...messages.values()].sort((one, other) => one.message_id - other.message_id);
  const earlier = inOrder.filter(it => it.message_id < result.message_id);
  const question = newest(earlier.filter(it => tagOf(it)));
  const first = question && earlier.find(it => tagOf(it) === tagOf(question)); // it may have been asked again
  const sent = earlier.filter(it => it.from === "user" && it.photo && it.message_id < first?.message_id);
  const last = newest(sent);
  // The question may come after some of an album's pictures, of which the first is the photo.
  const photo = last?.media_group_id ? sent.find(it => it.media_group_id === last.media_group_id) : last;
  return photo && hasShapeOf(photo.photo, result.photo ?? result.animation) ? photo : null;
}

const newest = found => found.reduce((best, it) => it.message_id > (best?.message_id ?? 0) ? it : best, null);
const hasShapeOf = (one, other) => Math.abs(one.width * other.height / (one.height * other.width) - 1) < 0.03;

/** Returns what the data of a question's keyboard says about its photo. */
function tagOf({ reply_markup }) {
  const key = reply_markup?.inline_keyboard.flat().find(it => it.callback_data.startsWith("style:"));
  return key && (key.callback_data.split(":")[2] ?? "none");
}

async function view(message) {
  viewed = message;
  const file = pictureOf(message), description = describe(message, message.text ?? message.caption ?? "");
  const before = isResult(message) && message.photo ? photoBehind(message) : null;
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
