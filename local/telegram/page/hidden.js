"use strict";

// ---------------------------------------------------------------- a hidden tab tells that a picture is finished

const TITLE = document.title;

/** Tells it in the title of the tab, and as a notification where the user allowed that. */
function tellIfHidden(message) {
  if (!document.hidden || !isResult(message)) return;
  const description = describe(message, message.text ?? message.caption ?? "");
  document.title = `● ${description} · ${TITLE}`;
  if (globalThis.Notification?.permission !== "granted") return;
  const options = { body: description, tag: `picture-${message.message_id}` }; // the same for all tabs
  const notification = new Notification(say("finished"), options);
  notification.onclick = () => { focus(); notification.close(); };
}

/** The browser asks the user only after a press of this button. */
function showBell() {
  $("bell").hidden = globalThis.Notification?.permission !== "default";
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) document.title = TITLE; });
$("bell").onclick = async () => {
  await Notification.requestPermission();
  showBell();
  $("text").focus();
};
showBell();
