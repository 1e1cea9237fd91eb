"use strict";

// ---------------------------------------------------------------- files: picked, pasted, dropped

/** Returns what the messages of one album have in common. */
const newAlbum = () => crypto.randomUUID().replaceAll("-", "");

let chosen = [];
function choose(files) {
  chosen = [...files];
  if (!chosen.length) return;
  $("chosen").replaceChildren(...chosen.map(file => {
    const image = make("img", "", "", { alt: file.name, src: URL.createObjectURL(file) });
    image.onerror = () => image.replaceWith(make("p", "", `${file.name} · ${sizeOf(file.size)}`));
    return image;
  }));
  $("as-photo").hidden = !chosen.every(file => file.type.startsWith("image/") || /\.(hei[cf]|avif)$/i.test(file.name));
  $("choose").showModal();
  unsettle($("choose"));
}

function sendChosen(kind) {
  $("choose").close();
  const album = chosen.length > 1 ? newAlbum() : "";
  for (const file of chosen) send(kind, file, album);
}

$("attach-button").onclick = () => $("picker").click();
$("picker").onchange = () => { choose($("picker").files); $("picker").value = ""; };
$("as-photo").onclick = () => sendChosen("photo");
$("as-document").onclick = () => sendChosen("document");
$("choose-cancel").onclick = () => $("choose").close();
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.onclose = () => {
    unsettle($("log"));
    unsettle($("form"));
    if (document.activeElement !== $("text")) return;
    $("text").blur(); // Chromium gives it back the focus, but without a caret: what is typed would be lost
    $("text").focus();
  };
}
addEventListener("paste", event => {
  if (event.clipboardData.files.length) { event.preventDefault(); choose(event.clipboardData.files); }
});
addEventListener("dragover", event => {
  if (event.dataTransfer.types.includes("Files")) { event.preventDefault(); $("drop").hidden = false; }
});
addEventListener("dragleave", event => { if (!event.relatedTarget) $("drop").hidden = true; });
addEventListener("drop", event => { event.preventDefault(); $("drop").hidden = true; choose(event.dataTransfer.files); });
